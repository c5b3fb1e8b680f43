//! What a crash may find: changes in the redo log only, in the database only, half a record.

use std::fs;
use std::path::Path;

use super::Db;
use super::DbError;

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
