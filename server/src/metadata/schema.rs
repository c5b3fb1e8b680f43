//! The schema and its version. Every tree table's key begins with the namespace, every account
//! table's with the user (or owner): what one commit touches lies in one shard.
//!
//! Ids of 64 bits are signed integers, longer ones blobs; times are seconds since the Unix epoch
//! except where `_ns` says nanoseconds.

use super::DbError;
use super::Sql;
use super::sqlite::Sqlite;
use super::value::params;

/// The newest schema version that this program knows.
pub const VERSION: i64 = 1;

/// Makes the schema in an empty database; refuses one from a newer program.
pub fn ensure(db: &mut Sqlite) -> Result<(), DbError> {
    db.batch("BEGIN IMMEDIATE")?;
    let result = ensure_locked(db);
    db.batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn ensure_locked(db: &mut Sqlite) -> Result<(), DbError> {
    db.batch("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")?;
    match super::server::note(db, "schema_version")? {
        None => {
            db.batch(TABLES)?;
            db.exec(
                "INSERT INTO meta (key, value) VALUES ('schema_version', ?1)",
                params![VERSION.to_string()],
            )?;
            Ok(())
        }
        Some(text) => match text.parse::<i64>() {
            Ok(VERSION) => Ok(()),
            Ok(found) if found > VERSION => Err(DbError::Newer { found, known: VERSION }),
            _ => Err(DbError::Decode("schema version")),
        },
    }
}

const TABLES: &str = "
CREATE TABLE user (
    user BIGINT PRIMARY KEY, email TEXT NOT NULL UNIQUE, password TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0, quota BIGINT NOT NULL,
    -- Sum of the head sizes of live files in the namespaces that the user owns.
    used BIGINT NOT NULL DEFAULT 0, root_ns BIGINT NOT NULL, created BIGINT NOT NULL
);
CREATE TABLE device (
    user BIGINT NOT NULL, device BIGINT NOT NULL, name TEXT NOT NULL, script INTEGER NOT NULL,
    token_hash BLOB NOT NULL UNIQUE, created BIGINT NOT NULL, last_seen BIGINT NOT NULL,
    expires BIGINT, revoked BIGINT, PRIMARY KEY (user, device)
);
CREATE UNIQUE INDEX device_name ON device (user, name) WHERE revoked IS NULL;
CREATE TABLE namespace (
    ns BIGINT PRIMARY KEY, owner BIGINT NOT NULL, seq BIGINT NOT NULL, root BLOB NOT NULL,
    -- Tombstones up to here are gone: older cursors are refused.
    pruned_seq BIGINT NOT NULL DEFAULT 0, created BIGINT NOT NULL
);
CREATE INDEX namespace_owner ON namespace (owner);
CREATE TABLE member (
    ns BIGINT NOT NULL, user BIGINT NOT NULL, role INTEGER NOT NULL, PRIMARY KEY (ns, user)
);
CREATE INDEX member_user ON member (user);
CREATE TABLE node (
    ns BIGINT NOT NULL, node BLOB NOT NULL, kind INTEGER NOT NULL, mode INTEGER NOT NULL,
    uid BIGINT, gid BIGINT, mtime_ns BIGINT NOT NULL, btime_ns BIGINT NOT NULL,
    rdev BIGINT NOT NULL DEFAULT 0, target BLOB, mount BIGINT, xattrs TEXT,
    version BIGINT NOT NULL DEFAULT 0, deleted_ns BIGINT,
    -- Where the node last was, for the trash.
    last_parent BLOB, last_name BLOB, changed_seq BIGINT NOT NULL, PRIMARY KEY (ns, node)
) WITHOUT ROWID;
CREATE INDEX node_seq ON node (ns, changed_seq);
CREATE TABLE dirent (
    ns BIGINT NOT NULL, parent BLOB NOT NULL, name BLOB NOT NULL, child BLOB,
    changed_seq BIGINT NOT NULL, PRIMARY KEY (ns, parent, name)
) WITHOUT ROWID;
CREATE INDEX dirent_child ON dirent (ns, child);
CREATE INDEX dirent_seq ON dirent (ns, changed_seq);
CREATE TABLE file_version (
    ns BIGINT NOT NULL, node BLOB NOT NULL, version BIGINT NOT NULL, content BLOB NOT NULL,
    size BIGINT NOT NULL, device TEXT NOT NULL, committed_ns BIGINT NOT NULL,
    PRIMARY KEY (ns, node, version)
);
CREATE TRIGGER file_version_is_immutable BEFORE UPDATE ON file_version
    BEGIN SELECT RAISE(ABORT, 'a version never changes'); END;
CREATE TABLE block (
    owner BIGINT NOT NULL, hash BLOB NOT NULL, pack BLOB NOT NULL, idx BIGINT NOT NULL,
    offset_bytes BIGINT NOT NULL, sealed_len BIGINT NOT NULL, codec INTEGER NOT NULL,
    block_len BIGINT NOT NULL,
    -- Set once the block has been read as a manifest segment whose blocks are all here.
    segment_entries BIGINT, segment_bytes BIGINT, PRIMARY KEY (owner, hash)
) WITHOUT ROWID;
CREATE INDEX block_pack ON block (pack);
CREATE TABLE pack (
    pack BLOB PRIMARY KEY, owner BIGINT NOT NULL, size BIGINT NOT NULL, blocks BIGINT NOT NULL,
    wrapped_key BLOB NOT NULL, created BIGINT NOT NULL
);
CREATE TABLE mount (
    ns BIGINT NOT NULL, node BLOB NOT NULL, target BIGINT NOT NULL, PRIMARY KEY (ns, node)
);
CREATE INDEX mount_target ON mount (target);
CREATE TABLE link (
    ns BIGINT NOT NULL, link BLOB NOT NULL, node BLOB NOT NULL, token_hash BLOB NOT NULL UNIQUE,
    password TEXT, expires BIGINT, downloads_max BIGINT, downloads BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL, revoked BIGINT, PRIMARY KEY (ns, link)
);
CREATE TABLE upload (
    ns BIGINT NOT NULL, upload BLOB NOT NULL, user BIGINT NOT NULL, state TEXT NOT NULL,
    detail TEXT NOT NULL, touched BIGINT NOT NULL, PRIMARY KEY (ns, upload)
);
CREATE TABLE event (
    user BIGINT NOT NULL, event BIGINT NOT NULL, at_ns BIGINT NOT NULL, kind TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (user, event)
);
CREATE TABLE job (
    job BLOB PRIMARY KEY, kind TEXT NOT NULL, detail TEXT NOT NULL, state TEXT NOT NULL,
    due BIGINT NOT NULL, attempts BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE op_result (
    ns BIGINT NOT NULL, op BLOB NOT NULL, result TEXT NOT NULL, created BIGINT NOT NULL,
    PRIMARY KEY (ns, op)
) WITHOUT ROWID;
CREATE INDEX op_result_created ON op_result (created);
";
