-- The client's database: replica, intents, cache index. One per device.
-- A node's number (nid) is also its inode number; 1 is the root of the mount.

CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE namespace (
    ns      INTEGER PRIMARY KEY,
    root    INTEGER NOT NULL,           -- nid of its root directory
    cursor  INTEGER NOT NULL DEFAULT 0, -- all changes up to this seq are applied here
    role    INTEGER NOT NULL DEFAULT 2  -- 0 viewer, 1 editor, 2 owner
);

-- The local tree: what the mount shows.
CREATE TABLE node (
    nid         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL UNIQUE,   -- NodeId
    ns          INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    mode        INTEGER NOT NULL,
    uid         INTEGER,                -- none: whoever mounts
    gid         INTEGER,
    rdev        INTEGER NOT NULL DEFAULT 0,
    size        INTEGER NOT NULL DEFAULT 0,
    mtime       INTEGER NOT NULL,       -- ns
    ctime       INTEGER NOT NULL,
    btime       INTEGER NOT NULL,
    links       INTEGER NOT NULL,       -- dirents that name it; 0: deleted but open
    target      BLOB,                   -- symlink
    mount       INTEGER,                -- namespace a mount node leads to
    xattrs      BLOB,                   -- JSON map
    content     BLOB,                   -- encoded manifest root under the layers
    version     INTEGER NOT NULL DEFAULT 0,
    live        INTEGER,                -- data file of the layer that takes writes
    live_over   INTEGER NOT NULL DEFAULT 0, -- 1: bytes it lacks come from below
    frozen      INTEGER,                -- data file of the layer that is being chunked
    frozen_over INTEGER NOT NULL DEFAULT 0,
    superseded  INTEGER NOT NULL DEFAULT 0, -- 1: its name went to a newer remote state while open
    source_ns   INTEGER,                -- came from another namespace: link blocks from there
    source_id   BLOB,
    nameless    INTEGER                 -- 1: links is 0; deleted but open, never named, or about to be placed;
                                        -- 2: the server took its last name
);

CREATE INDEX node_xattrs ON node (nid) WHERE xattrs IS NOT NULL;
CREATE INDEX node_source ON node (source_ns) WHERE source_ns IS NOT NULL;
CREATE INDEX node_mount ON node (mount) WHERE mount IS NOT NULL;
CREATE INDEX node_nameless ON node (nameless) WHERE nameless IS NOT NULL;
CREATE INDEX node_live ON node (live) WHERE live IS NOT NULL;
CREATE INDEX node_frozen ON node (frozen) WHERE frozen IS NOT NULL;

CREATE TABLE dirent (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    child  INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX dirent_child ON dirent (child);

-- Intents: the last state agreed with the server of what differs from it here. A row exists
-- exactly as long as the local state is ahead.
CREATE TABLE base_node (
    id       BLOB PRIMARY KEY,
    ns       INTEGER NOT NULL,
    present  INTEGER NOT NULL,          -- 0: the server does not have it yet
    mode     INTEGER, uid INTEGER, gid INTEGER, mtime INTEGER, btime INTEGER,
    xattrs   BLOB,
    content  BLOB,
    version  INTEGER NOT NULL DEFAULT 0,
    inflight BLOB,                      -- content of a put that was sent and not answered yet
    since    INTEGER NOT NULL,          -- order of first change
    at       INTEGER NOT NULL,          -- when (ns)
    error    TEXT
) WITHOUT ROWID;
CREATE INDEX base_node_since ON base_node (ns, since);

CREATE TABLE base_dirent (
    parent BLOB NOT NULL,               -- NodeId
    name   BLOB NOT NULL,
    ns     INTEGER NOT NULL,
    child  BLOB,                        -- NodeId; none: the server has no such entry
    folder INTEGER NOT NULL,            -- 1: that child is a folder
    since  INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX base_dirent_since ON base_dirent (ns, since);
CREATE INDEX base_dirent_child ON base_dirent (child);

-- Where plaintext blocks lie on disk.
CREATE TABLE cached (
    hash   BLOB PRIMARY KEY,
    file   INTEGER NOT NULL,            -- data file
    offset INTEGER NOT NULL,
    len    INTEGER NOT NULL,
    used   INTEGER NOT NULL,            -- use counter, for least recently used
    unsent INTEGER NOT NULL DEFAULT 0   -- 1: the server does not have it yet; never evicted
) WITHOUT ROWID;
CREATE INDEX cached_file ON cached (file, offset);
CREATE INDEX cached_used ON cached (unsent, used);
