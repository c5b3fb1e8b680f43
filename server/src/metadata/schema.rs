//! The schema and its version. Every tree table's key begins with the namespace, every account
//! table's with the user (or owner): what one commit touches lies in one shard.
//!
//! Ids of 64 bits are signed integers, longer ones blobs; times are seconds since the Unix epoch
//! except where `_ns` says nanoseconds.

use super::DbError;
use super::sqlite::Sqlite;
use crate::clock;

/// The newest schema version that this program knows.
pub const VERSION: i64 = STEPS.len() as i64;

/// Format of what lies in packs and manifests. A program that writes another one notes it, so that
/// older programs keep away from the data.
const FORMAT: i64 = 1;
const FORMAT_NOTE: &str = "format";

/// What leads from each version to the next; the first starts from nothing. A new database takes
/// all of them, too: there is one way to a schema.
const STEPS: &[&str] =
    &[TABLES, HISTORY, EPOCHS, EVENTS, SPACE, super::uploads::TABLES, OPERATING, MOVED];

/// Brings the schema of a database up to this program; refuses one from a newer program.
pub fn ensure(db: &mut Sqlite) -> Result<(), DbError> {
    db.batch("BEGIN IMMEDIATE")?;
    let result = ensure_locked(db);
    db.batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn ensure_locked(db: &mut Sqlite) -> Result<(), DbError> {
    db.batch("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")?;
    let found = match super::server::note(db, "schema_version")? {
        None => 0,
        Some(text) => text.parse::<i64>().map_err(|_| DbError::Decode("schema version"))?,
    };
    if found > VERSION {
        return Err(DbError::Newer { found, known: VERSION });
    }
    let format = match super::server::note(db, FORMAT_NOTE)? {
        None => FORMAT,
        Some(text) => text.parse::<i64>().map_err(|_| DbError::Decode("format"))?,
    };
    if format > FORMAT {
        return Err(DbError::NewerFormat { found: format, known: FORMAT });
    }
    let done = usize::try_from(found).map_err(|_| DbError::Decode("schema version"))?;
    for step in &STEPS[done..] {
        db.batch(&step.replace(NOW_NS, &clock::now_ns().to_string()))?;
    }
    if found < VERSION {
        super::server::set_note(db, "schema_version", &VERSION.to_string())?;
        super::server::set_note(db, FORMAT_NOTE, &FORMAT.to_string())?;
    }
    Ok(())
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

/// Version 2: who deleted what, what left the trash, and versions that are kept.
const HISTORY: &str = "
ALTER TABLE node ADD COLUMN deleted_by TEXT;
-- What was deleted up to here is out of the trash.
ALTER TABLE namespace ADD COLUMN emptied_seq BIGINT NOT NULL DEFAULT 0;
CREATE INDEX node_trash ON node (ns, changed_seq, deleted_ns) WHERE deleted_ns IS NOT NULL;
CREATE INDEX node_last_place ON node (ns, last_parent, last_name) WHERE deleted_ns IS NOT NULL;
CREATE TABLE kept_version (
    ns BIGINT NOT NULL, node BLOB NOT NULL, version BIGINT NOT NULL, device TEXT NOT NULL,
    kept_ns BIGINT NOT NULL, PRIMARY KEY (ns, node, version)
);
";

/// Version 3: which run of the server made which commits.
const EPOCHS: &str = "
CREATE TABLE epoch (
    -- The epoch's commits begin after this seq, and end where the next row's begin.
    ns BIGINT NOT NULL, began_seq BIGINT NOT NULL, epoch BIGINT NOT NULL,
    PRIMARY KEY (ns, began_seq)
);
";

/// Stands in a step for the present time (nanoseconds).
const NOW_NS: &str = ":now_ns";

/// Version 4: what happened, a row a commit. The table of version 1 was never written to.
const EVENTS: &str = "
DROP TABLE event;
CREATE TABLE event (
    ns BIGINT NOT NULL, seq BIGINT NOT NULL, at_ns BIGINT NOT NULL, user BIGINT NOT NULL,
    device TEXT NOT NULL,
    -- Events of the namespace up to and with this row.
    total BIGINT NOT NULL,
    -- It has a conflict file or a mass change.
    notable INTEGER NOT NULL,
    -- JSON, of this length, encoded.
    codec INTEGER NOT NULL, length BIGINT NOT NULL, detail BLOB NOT NULL, PRIMARY KEY (ns, seq)
);
CREATE INDEX event_time ON event (ns, at_ns);
CREATE INDEX event_notable ON event (ns, seq) WHERE notable = 1;
-- Of what happened up to this time not everything is on record.
ALTER TABLE namespace ADD COLUMN events_ns BIGINT NOT NULL DEFAULT 0;
UPDATE namespace SET events_ns = :now_ns;
-- Counts what devices delete and rewrite.
CREATE TABLE mass_counter (
    ns BIGINT NOT NULL, user BIGINT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (ns, user, device)
);
";

/// Version 5: history policies, what nothing refers to, and jobs. The table of version 1 was never
/// written to.
const SPACE: &str = "
CREATE TABLE policy (ns BIGINT PRIMARY KEY, policy TEXT NOT NULL);
-- The round of the collection in which nothing referred to the block.
ALTER TABLE block ADD COLUMN doomed BIGINT;
-- Since when no block row names the pack (seconds).
ALTER TABLE pack ADD COLUMN dead BIGINT;
CREATE INDEX pack_dead ON pack (dead) WHERE dead IS NOT NULL;
-- Where its object is: 0 the first store, 1 the second; 2 on its way there, 3 on its way back.
ALTER TABLE pack ADD COLUMN tier INTEGER NOT NULL DEFAULT 0;
-- When it was read last, to the day; and since when somebody waits for it (seconds).
ALTER TABLE pack ADD COLUMN read_at BIGINT;
ALTER TABLE pack ADD COLUMN wanted BIGINT;
CREATE INDEX pack_moving ON pack (tier) WHERE tier > 1;
CREATE INDEX pack_wanted ON pack (wanted) WHERE wanted IS NOT NULL;
DROP TABLE job;
CREATE TABLE job (
    kind TEXT PRIMARY KEY,
    -- When it is to run next (seconds).
    due BIGINT NOT NULL,
    -- JSON: where it goes on, if it is under way; and what it did so far.
    position TEXT, report TEXT,
    began BIGINT, ended BIGINT,
    -- Why its last step failed, and how often in a row.
    error TEXT, failures BIGINT NOT NULL DEFAULT 0
);
";

/// Version 7: what operators need: who did what, and blocks found to be bad.
const OPERATING: &str = "
CREATE TABLE audit (
    audit BIGINT PRIMARY KEY, at_ns BIGINT NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL,
    device TEXT NOT NULL, peer TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX audit_time ON audit (at_ns);
CREATE TABLE bad_block (
    -- Without hash: the pack as a whole.
    pack BLOB NOT NULL, owner BIGINT NOT NULL, hash BLOB NOT NULL, what TEXT NOT NULL,
    found BIGINT NOT NULL, PRIMARY KEY (pack, owner, hash)
);
";

/// Version 8: which namespaces other processes have moved on.
const MOVED: &str = "
-- Counts commits of the whole database: the number of the namespace's last.
ALTER TABLE namespace ADD COLUMN moved BIGINT NOT NULL DEFAULT 0;
CREATE INDEX namespace_moved ON namespace (moved);
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Sql;
    use crate::metadata::server::note;
    use crate::metadata::server::set_note;

    fn open(dir: &tempfile::TempDir) -> Sqlite {
        Sqlite::open(&dir.path().join("meta.db")).expect("opens")
    }

    /// A database as version 1 left it: a namespace, a file with a version, and a deleted one.
    fn version_1(db: &mut Sqlite) {
        db.batch("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)").expect("meta");
        db.batch(TABLES).expect("version 1");
        set_note(db, "schema_version", "1").expect("notes");
        db.batch(
            "INSERT INTO namespace (ns, owner, seq, root, created) VALUES (1, 2, 3, x'00', 4);
             INSERT INTO node (ns, node, kind, mode, mtime_ns, btime_ns, version, changed_seq)
                 VALUES (1, x'01', 1, 420, 5, 5, 1, 2);
             INSERT INTO node (ns, node, kind, mode, mtime_ns, btime_ns, version, deleted_ns,
                 last_parent, last_name, changed_seq) VALUES (1, x'02', 1, 420, 5, 5, 1, 9, x'00',
                 x'61', 3);
             INSERT INTO file_version VALUES (1, x'01', 1, x'0100', 0, 'laptop', 6);",
        )
        .expect("rows");
    }

    fn shape(db: &mut Sqlite) -> Vec<crate::metadata::value::Row> {
        let listed = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY type, name";
        let columns = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' ORDER BY m.name, c.name";
        let mut rows = db.query(listed, &[]).expect("lists");
        rows.extend(db.query(columns, &[]).expect("lists"));
        rows
    }

    #[test]
    fn an_older_database_is_brought_up_with_all_its_rows_and_once_only() {
        let folder = || tempfile::tempdir().expect("a folder");
        let (old_at, new_at) = (folder(), folder());
        let mut old = open(&old_at);
        version_1(&mut old);
        for _ in 0..2 {
            ensure(&mut old).expect("upgrades");
        }
        assert_eq!(note(&mut old, "schema_version"), Ok(Some(VERSION.to_string())));
        let rows = old.query("SELECT node, deleted_ns, deleted_by FROM node ORDER BY node", &[]);
        let rows = rows.expect("reads");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].get::<Option<i64>>(1), Ok(Some(9)));
        assert_eq!(rows[1].get::<Option<String>>(2), Ok(None));
        let emptied = old.query("SELECT emptied_seq FROM namespace", &[]).expect("reads");
        assert_eq!(emptied[0].get::<u64>(0), Ok(0));
        let begins = old.query("SELECT events_ns FROM namespace", &[]).expect("reads");
        let begins = begins[0].get::<i64>(0).expect("a time");
        assert!(begins > 1_700_000_000_000_000_000, "what came before is not on record: {begins}");
        let mut new = open(&new_at);
        ensure(&mut new).expect("makes");
        assert_eq!(shape(&mut new), shape(&mut old), "one schema, whichever way it came");
    }

    #[test]
    fn data_of_a_newer_program_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut db = open(&dir);
        ensure(&mut db).expect("makes");
        set_note(&mut db, FORMAT_NOTE, "9").expect("notes");
        assert_eq!(ensure(&mut db), Err(DbError::NewerFormat { found: 9, known: FORMAT }));
        set_note(&mut db, FORMAT_NOTE, "1").expect("notes");
        set_note(&mut db, "schema_version", "99").expect("notes");
        assert_eq!(ensure(&mut db), Err(DbError::Newer { found: 99, known: VERSION }));
        assert_eq!(note(&mut db, "schema_version"), Ok(Some("99".into())));
    }

    #[test]
    fn a_copy_is_kept_of_what_an_upgrade_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("meta.db");
        let before = || crate::metadata::snapshot::before_upgrade(&path).expect("copies");
        before();
        version_1(&mut open(&dir));
        before();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).expect("lists");
            let name = |e: std::io::Result<std::fs::DirEntry>| e.expect("lists").file_name();
            let names = entries.map(|e| name(e).to_string_lossy().into_owned());
            names.filter(|n| n.contains("before")).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["meta.db.before-upgrade-from-1"], "and no draft of it");
        ensure(&mut open(&dir)).expect("upgrades");
        before();
        assert_eq!(names().len(), 1, "nothing is outdated any more");
        let kept = dir.path().join(&names()[0]);
        let mut kept = crate::metadata::snapshot::Copy::open(&kept).expect("opens");
        assert_eq!(note(kept.sql(), "schema_version"), Ok(Some("1".into())));
        let rows = kept.sql().query("SELECT node FROM node", &[]).expect("reads");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_database_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut db = open(&dir);
        version_1(&mut db);
        db.batch("CREATE TABLE kept_version (x TEXT)").expect("in the way");
        let before = shape(&mut db);
        assert!(ensure(&mut db).is_err());
        assert_eq!(note(&mut db, "schema_version"), Ok(Some("1".into())));
        assert_eq!(shape(&mut db), before);
    }
}
