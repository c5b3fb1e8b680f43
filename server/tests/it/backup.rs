//! Backups are consistent, incremental and verified; restored, the data is clean and whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use drivefs_server::app;
use drivefs_server::config::Config;
use drivefs_server::drive::backup;
use drivefs_server::drive::backup::BackupError;
use drivefs_server::drive::backup::Taken;
use drivefs_server::drive::backup::Target;
use drivefs_server::drive::fsck;
use drivefs_server::drive::fsck::Options;

use crate::fsck::check;
use crate::fsck::flip;
use crate::fsck::large_file;
use crate::fsck::packs;
use crate::world::PASSWORD;
use crate::world::Person;
use crate::world::World;
use crate::world::noise;

const LOOK: Options = Options { repair: false, quick: false, orphan_grace_secs: 3600 };

async fn take(world: &World, to: &Path) -> Result<Taken, BackupError> {
    let metadata = world.dir.path().join("metadata.db");
    backup::take(world.server.drive(), &metadata, to, false, &Arc::default()).await
}

fn target(dir: &Path) -> Target {
    let config = Config::local(dir);
    Target { data: config.data, metadata: config.metadata, blocks: config.blocks }
}

async fn restore(from: &Path, to: &Path, key: &Path) -> Result<backup::Restored, BackupError> {
    backup::restore(from, target(to), Some(key), &Arc::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_to_a_clean_server_with_all_that_was_acknowledged() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    large_file(&alice, "large", 300).await;
    alice.file("first", &noise(1, 100_000)).await;
    let places = tempfile::tempdir().unwrap();
    let (to, back) = (places.path().join("backup"), places.path().join("back"));
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let writing = tokio::spawn({
        let alice = alice.clone();
        async move {
            let mut done = 0;
            while !*stopped.borrow_and_update() {
                alice.file(&format!("w{done}"), &noise(1000 + done, 2000)).await;
                done += 1;
            }
            done
        }
    });
    let mut copied = Vec::new();
    for _ in 0..5 {
        let taken = take(&world, &to).await.unwrap();
        assert_eq!(taken.damaged, []);
        copied.push((taken.packs, taken.packs_copied));
    }
    stop.send_replace(true);
    let written = writing.await.unwrap();
    assert!(written > 5, "{written} files while backing up");
    let last = take(&world, &to).await.unwrap();
    copied.push((last.packs, last.packs_copied));
    // Each copies what came since the one before, and nothing twice.
    assert_eq!(copied.iter().map(|c| c.1).sum::<u64>(), last.packs);
    assert_eq!(take(&world, &to).await.unwrap().packs_copied, 0);
    let verified = backup::verify(&to, &Arc::default()).unwrap();
    assert_eq!(verified.wrong, []);

    let key = world.dir.path().join("master.key");
    let restored = restore(&to, &back, &key).await.unwrap();
    assert_eq!((restored.packs, restored.damaged), (last.packs, Vec::new()));
    let server = app::Server::start(Config::local(&back)).await.unwrap();
    let report = fsck::run(server.drive(), LOOK, Arc::default()).await.unwrap();
    assert!(report.clean && report.notes.is_empty(), "{report:#?}");
    let url = format!("http://{}", server.addr());
    let again = Person::login(&url, "alice@example.com", PASSWORD, "other").await.unwrap();
    let names = again.changes(0, 2000).await.unwrap().dirents.len() as u64;
    assert_eq!(names, written + 2);
    again.file("after", &noise(9, 100)).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_restore_wants_an_empty_folder_and_the_right_key() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("file", &noise(1, 1000)).await;
    let places = tempfile::tempdir().unwrap();
    let at = |name: &str| places.path().join(name);
    take(&world, &at("backup")).await.unwrap();
    let key = world.dir.path().join("master.key");

    fs::create_dir(at("full")).unwrap();
    fs::write(at("full").join("something"), "x").unwrap();
    let refused = restore(&at("backup"), &at("full"), &key).await.unwrap_err().to_string();
    assert!(refused.contains("not empty"), "{refused}");

    fs::write(at("wrong.key"), "0".repeat(64)).unwrap();
    let refused = restore(&at("backup"), &at("back"), &at("wrong.key")).await.unwrap_err();
    assert!(refused.to_string().contains("needs the master key"), "{refused}");
    // Half a restore is not served, and not taken for something else.
    let served = app::Server::start(Config::local(&at("back"))).await;
    assert!(served.err().unwrap().to_string().contains("cut off"));
    fs::remove_file(at("back").join("master.key")).unwrap();
    restore(&at("backup"), &at("back"), &key).await.unwrap();
    let again = restore(&at("backup"), &at("back"), &key).await.unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");

    let nothing = restore(&at("nowhere"), &at("new"), &key).await.unwrap_err().to_string();
    assert!(nothing.contains("no whole drivefs backup"), "{nothing}");
}

#[tokio::test]
async fn a_backup_folder_is_not_taken_for_something_else() {
    let world = World::new().await;
    let other = World::new().await;
    let places = tempfile::tempdir().unwrap();
    fs::write(places.path().join("holiday.jpg"), "x").unwrap();
    let refused = take(&world, places.path()).await.unwrap_err().to_string();
    assert!(refused.contains("holds no drivefs backup"), "{refused}");
    let to = places.path().join("backup");
    take(&world, &to).await.unwrap();
    let refused = take(&other, &to).await.unwrap_err().to_string();
    assert!(refused.contains("another server"), "{refused}");
}

#[tokio::test]
async fn damage_is_told_on_either_side_and_a_good_copy_is_not_replaced_by_a_bad_one() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("one", &noise(1, 1000)).await;
    alice.file("two", &noise(2, 1000)).await;
    let places = tempfile::tempdir().unwrap();
    let (to, back) = (places.path().join("backup"), places.path().join("back"));
    take(&world, &to).await.unwrap();
    let pack = packs(world.dir.path()).remove(0);
    let kept = to.join("blocks").join(pack.strip_prefix(world.dir.path().join("blocks")).unwrap());
    flip(&pack, 200);
    // The copy of when it was good stays.
    let taken = take(&world, &to).await.unwrap();
    assert_eq!((taken.packs_copied, taken.damaged.len()), (0, 0));
    fs::copy(&kept, &pack).unwrap();
    assert!(check(&world, LOOK).await.clean, "put back from the backup");
    // A pack that is bad before it is ever copied is told.
    alice.file("three", &noise(3, 1000)).await;
    let copy_of =
        |p: &Path| to.join("blocks").join(p.strip_prefix(world.dir.path().join("blocks")).unwrap());
    let new = packs(world.dir.path()).into_iter().find(|p| !copy_of(p).exists()).unwrap();
    flip(&new, 200);
    let taken = take(&world, &to).await.unwrap();
    assert_eq!(taken.damaged.len(), 1);
    flip(&new, 200);
    assert_eq!(take(&world, &to).await.unwrap().damaged, []);
    assert_eq!(fs::read(copy_of(&new)).unwrap(), fs::read(&new).unwrap(), "the good one is kept");
    // A backup that rots is told, by `verify` and by `restore`.
    flip(&kept, 300);
    let verified = backup::verify(&to, &Arc::default()).unwrap();
    assert_eq!(verified.wrong.len(), 1);
    let key = world.dir.path().join("master.key");
    let restored = restore(&to, &back, &key).await.unwrap();
    assert_eq!(restored.damaged, [verified.wrong[0].0]);
    let list = fs::read_dir(&to).unwrap().map(|e| e.unwrap().path());
    let database = list.filter(|p| p.extension().is_some_and(|e| e == "db")).collect::<Vec<_>>();
    flip(&database[0], 5000);
    let refused = restore(&to, &places.path().join("b2"), &key).await.unwrap_err().to_string();
    assert!(refused.contains("damaged"), "{refused}");
}
