//! What a crash may find: changes in the redo log only, in the database only, half a record.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::Db;
use super::DbError;
use super::redo;
use super::redo::RedoLog;
use super::redo::push_statement;

/// The files as kill -9 would leave them now.
fn copy_of(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // The index of the log in memory is no part of what a crash leaves.
        if file.path().extension().is_none_or(|e| e != "db-shm") {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn put(db: &Db, key: &str, value: &[u8]) {
    db.change(|c| c.set_meta(key, value)).unwrap();
}

fn get(db: &Db, key: &str) -> Option<Vec<u8>> {
    db.peek(|c| c.meta(key)).unwrap()
}

#[test]
fn an_acknowledged_change_survives_the_death_of_the_process_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let db = Db::open(&home.join("state.db")).unwrap();
    for i in 0..200_u32 {
        put(&db, "a", &i.to_le_bytes());
        put(&db, &format!("key {i}"), b"value");
        if i % 50 == 17 {
            db.read(|_| Ok::<_, DbError>(())).unwrap();
        }
        if i % 23 == 0 {
            // Held, so that the batch does not commit while the files are copied.
            let grave = dir.path().join(format!("crash {i}"));
            db.change(|_| {
                copy_of(&home, &grave);
                Ok::<_, DbError>(())
            })
            .unwrap();
            let after = Db::open(&grave.join("state.db")).unwrap();
            assert_eq!(get(&after, "a"), Some(i.to_le_bytes().to_vec()));
            for k in 0..=i {
                assert_eq!(get(&after, &format!("key {k}")), Some(b"value".to_vec()));
            }
            put(&after, "b", b"goes on");
            assert_eq!(get(&after, "b"), Some(b"goes on".to_vec()));
        }
    }
}

#[test]
fn a_torn_record_is_no_change_and_does_not_hide_the_ones_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let db = Db::open(&home.join("state.db")).unwrap();
    db.read(|_| Ok::<_, DbError>(())).unwrap();
    db.change(|c| {
        c.set_meta("whole", b"1")?;
        c.set_meta("whole too", b"2")
    })
    .unwrap();
    put(&db, "torn", b"3");
    let grave = dir.path().join("crash");
    db.change(|_| {
        copy_of(&home, &grave);
        Ok::<_, DbError>(())
    })
    .unwrap();
    let log = fs::read(grave.join("state.redo")).unwrap();
    let last = log.windows(4).rposition(|w| w == b"torn").unwrap();
    for (name, cut) in [("cut", true), ("flipped", false)] {
        let path = dir.path().join(name);
        copy_of(&grave, &path);
        let mut bytes = log.clone();
        if cut {
            bytes.truncate(last);
        } else {
            bytes[last] ^= 1;
        }
        fs::write(path.join("state.redo"), bytes).unwrap();
        let after = Db::open(&path.join("state.db")).unwrap();
        assert_eq!(get(&after, "whole"), Some(b"1".to_vec()));
        assert_eq!(get(&after, "whole too"), Some(b"2".to_vec()));
        assert_eq!(get(&after, "torn"), None);
    }
}

#[test]
fn a_change_that_fails_half_way_leaves_the_others_of_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("state.db")).unwrap();
    put(&db, "before", b"1");
    let failed: Result<(), DbError> = db.change(|c| {
        c.set_meta("before", b"changed")?;
        c.set_meta("half", b"2")?;
        Err(DbError::Full)
    });
    assert!(matches!(failed, Err(DbError::Full)));
    assert_eq!(get(&db, "before"), Some(b"1".to_vec()));
    assert_eq!(get(&db, "half"), None);
    put(&db, "after", b"3");
    drop(db);
    let db = Db::open(&dir.path().join("state.db")).unwrap();
    assert_eq!(get(&db, "before"), Some(b"1".to_vec()));
    assert_eq!(get(&db, "after"), Some(b"3".to_vec()));
}

#[test]
fn two_processes_do_not_share_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let db = Db::open(&path).unwrap();
    put(&db, "before", b"1");
    assert!(matches!(Db::open(&path), Err(DbError::InUse)));
    put(&db, "after", b"2");
    db.flush().unwrap();
    let seen = Db::peek_committed(&path, |c| c.meta("after")).unwrap();
    assert_eq!(seen, Some(b"2".to_vec()));
    drop(db);
    let db = Db::open(&path).unwrap();
    assert_eq!(get(&db, "before"), Some(b"1".to_vec()));
}

#[test]
fn a_panic_half_way_leaves_nothing_of_its_change_and_all_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let db = Db::open(&path).unwrap();
    put(&db, "before", b"1");
    for own_transaction in [false, true] {
        let half = |c: &super::Conn<'_>| -> Result<(), DbError> {
            c.set_meta("half", b"2")?;
            panic!("in the middle");
        };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if own_transaction { db.write(half) } else { db.change(half) }
        }));
        assert!(panicked.is_err());
        assert_eq!(get(&db, "half"), None);
        put(&db, "after", b"3");
        db.read(|_| Ok::<_, DbError>(())).unwrap();
        assert_eq!(get(&db, "half"), None);
    }
    drop(db);
    let db = Db::open(&path).unwrap();
    assert_eq!(get(&db, "half"), None);
    assert_eq!(get(&db, "before"), Some(b"1".to_vec()));
    assert_eq!(get(&db, "after"), Some(b"3".to_vec()));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        // NaN is stored as NULL.
        any::<f64>().prop_filter("a number", |f| !f.is_nan()).prop_map(Value::Real),
        ".{0,20}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Value::Blob),
    ]
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)";
const INSERT: &str = "INSERT INTO t (a, b) VALUES (?1, ?2)";

fn rows(conn: &Connection) -> Vec<(Value, Value)> {
    let mut s = conn.prepare("SELECT a, b FROM t ORDER BY id").unwrap();
    let rows = s.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A log over the file, as a new process finds it.
fn reopened(path: &Path, generation: u64) -> RedoLog {
    RedoLog::open(redo::lock(path).unwrap(), generation).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_cut_of_the_log_leaves_the_first_of_its_changes(
        records in proptest::collection::vec(
            proptest::collection::vec((value(), value()), 1..4),
            1..8,
        ),
        old in proptest::collection::vec((value(), value()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = reopened(&path, 1);
        // Leftovers of an older generation lie behind the records.
        for (a, b) in &old {
            let mut body = Vec::new();
            push_statement(&mut body, INSERT, &[a, b]).unwrap();
            log.append(&body).unwrap();
        }
        log.restart(2).unwrap();
        let mut ends = vec![log.bytes()];
        for record in &records {
            let mut body = Vec::new();
            for (a, b) in record {
                push_statement(&mut body, INSERT, &[a, b]).unwrap();
            }
            log.append(&body).unwrap();
            ends.push(log.bytes());
        }
        drop(log);
        let bytes = fs::read(&path).unwrap();
        let header = 16;
        let last = header + *ends.last().unwrap() as usize;
        for cut in [header + cut.index(last - header + 1), bytes.len()] {
            let torn = dir.path().join("torn");
            fs::write(&torn, &bytes[..cut]).unwrap();
            let log = reopened(&torn, 2);
            let conn = Connection::open_in_memory().unwrap();
            conn.execute_batch(TABLE).unwrap();
            let whole = ends.iter().filter(|&&e| header + e as usize <= cut).count() - 1;
            prop_assert_eq!(log.replay(&conn).unwrap(), whole);
            let want: Vec<_> = records[..whole].iter().flatten().cloned().collect();
            prop_assert_eq!(rows(&conn), want);
        }
        // Of another generation it holds nothing.
        prop_assert_eq!(reopened(&path, 3).bytes(), 0);
    }
}
