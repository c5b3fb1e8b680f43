-- What version 3 of the schema adds.

-- What is kept on this disk by request: nodes, with all below them.
CREATE TABLE pin (id BLOB PRIMARY KEY) WITHOUT ROWID;

-- Their blocks; never evicted. `pass` is the number of the last walk that met the block.
CREATE TABLE pinned_block (hash BLOB PRIMARY KEY, pass INTEGER NOT NULL) WITHOUT ROWID;
