//! Group commit: neighbours in one transaction do not harm each other.

use drivefs_server::metadata::DbError;
use drivefs_server::metadata::Store;
use drivefs_server::metadata::server;

fn key(i: usize) -> String {
    format!("note {i}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_write_does_not_undo_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let writes: Vec<_> = (0..200)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .write(move |sql| {
                        server::set_note(sql, &key(i), "x")?;
                        match i % 3 {
                            0 => Err(DbError::Other("no".into())),
                            1 if i % 7 == 0 => panic!("a bug of one write"),
                            _ => Ok(()),
                        }
                    })
                    .await
                    .is_ok()
            })
        })
        .collect();
    for (i, write) in writes.into_iter().enumerate() {
        let ok = write.await.unwrap();
        let kept = store.read(move |sql| server::note(sql, &key(i))).await.unwrap().is_some();
        assert_eq!(ok, kept, "write {i}");
        assert_eq!(ok, i % 3 != 0 && !(i % 3 == 1 && i % 7 == 0));
    }
    store.close();
    let closed = store.write(|sql| server::set_note(sql, "late", "x")).await;
    assert_eq!(closed, Err(DbError::Closed));
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store = Store::open(&path).unwrap();
    store.write(|sql| server::set_note(sql, "schema_version", "999")).await.unwrap();
    store.close();
    let error = Store::open(&path).err().unwrap();
    assert!(error.to_string().contains("use a newer drivefs-server"), "{error}");
}

#[tokio::test]
async fn versions_cannot_be_changed_even_by_mistake() {
    let world = crate::world::World::new().await;
    let alice = world.person("alice").await;
    alice.file("f", b"x").await;
    let changed =
        world.server.store().write(|sql| sql.exec("UPDATE file_version SET size = 0", &[])).await;
    assert!(changed.err().unwrap().to_string().contains("never changes"));
}
