-- What version 4 of the schema adds.

-- What the server has, listed anew while the tree stays in use (tree/relist.rs): rows of a
-- namespace, each with the seq of its last change there.
CREATE TABLE listed_node (
    ns  INTEGER NOT NULL,
    id  BLOB NOT NULL,
    row BLOB NOT NULL,                  -- a NodeRow, as JSON
    PRIMARY KEY (ns, id)
) WITHOUT ROWID;
CREATE TABLE listed_dirent (
    ns     INTEGER NOT NULL,
    parent BLOB NOT NULL,
    name   BLOB NOT NULL,
    child  BLOB,                        -- none: removed
    seq    INTEGER NOT NULL,
    PRIMARY KEY (ns, parent, name)
) WITHOUT ROWID;
CREATE INDEX listed_dirent_child ON listed_dirent (ns, child, seq);
