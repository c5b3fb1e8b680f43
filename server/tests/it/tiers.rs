//! The second store: what goes there, and how it comes back.

use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;
use drivefs_core::wire::Blob;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::WantedBlock;
use drivefs_server::config::Cold;
use drivefs_server::drive::Drive;
use drivefs_server::drive::tiers::Moved;

use crate::space::compacted;
use crate::space::empty_trash;
use crate::space::files;
use crate::space::has;
use crate::space::is_missing;
use crate::space::pruned;
use crate::space::remove;
use crate::space::rounds;
use crate::world::Person;
use crate::world::World;
use crate::world::content_of;
use crate::world::create;
use crate::world::entry_of;
use crate::world::node_id;
use crate::world::noise;

/// A world with a second store, in which all packs are old.
async fn cold_world(slow: bool) -> (World, Person, Vec<u8>) {
    let world = World::with(|config| {
        config.cold = Some(Cold { dir: config.data.join("cold"), after_days: 30, slow });
    })
    .await;
    let alice = world.person("alice").await;
    let block = noise(1, 5_000);
    alice.upload(std::slice::from_ref(&block)).await;
    alice.one(create(node_id(), alice.place("f"), content_of(&[&block]))).await;
    age_packs(&world).await;
    (world, alice, block)
}

async fn age_packs(world: &World) {
    let store = world.server.store();
    let old = "UPDATE pack SET created = created - 100 * 86400";
    store.write(|sql| sql.exec(old, &[]).map(drop)).await.unwrap();
}

async fn moved_out(drive: &Drive) -> u64 {
    let (mut after, mut done) = (None, Moved::default());
    loop {
        after = drive.move_out(after, &mut done).await.unwrap();
        if after.is_none() {
            return done.out;
        }
    }
}

/// Packs in the first and in the second store.
fn in_stores(world: &World) -> (usize, usize) {
    let count = |called: &str| {
        let folders = std::fs::read_dir(world.dir.path().join(called)).unwrap();
        folders.map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().count()).sum()
    };
    (count("blocks"), count("cold"))
}

#[tokio::test]
async fn what_nobody_reads_goes_to_the_second_store_and_comes_back_when_it_is_read() {
    let (world, alice, block) = cold_world(false).await;
    let drive = world.server.drive();
    assert!(has(&alice, &block).await);
    drive.bring_back(&mut Moved::default()).await.unwrap();
    assert_eq!(moved_out(drive).await, 0, "it was read today");
    let never = "UPDATE pack SET read_at = NULL";
    world.server.store().write(|sql| sql.exec(never, &[]).map(drop)).await.unwrap();
    assert_eq!(moved_out(drive).await, 1);
    assert_eq!(in_stores(&world), (0, 1));
    assert!(has(&alice, &block).await, "read where it is");
    rounds(drive, 0).await;
    assert_eq!(compacted(drive).await.damaged, 0);
    let mut done = Moved::default();
    assert!(drive.bring_back(&mut done).await.unwrap());
    assert_eq!((done.back, in_stores(&world)), (1, (1, 0)));
    assert!(!drive.bring_back(&mut done).await.unwrap());
    assert!(has(&alice, &block).await);
}

#[tokio::test]
async fn a_slow_second_store_says_that_it_is_bringing_it_back() {
    let (world, alice, block) = cold_world(true).await;
    let drive = world.server.drive();
    assert_eq!(moved_out(drive).await, 1);
    let request = BlocksRequest {
        ns: alice.ns,
        blocks: vec![WantedBlock { hash: BlockHash::of(&block), base: None }],
    };
    let refused = alice.post::<serde_json::Value>("/sync/v1/blocks", &request).await.unwrap_err();
    assert_eq!((refused.status, refused.code), (503, ErrorCode::BeingRestored));
    assert!(drive.bring_back(&mut Moved::default()).await.unwrap());
    assert!(has(&alice, &block).await);
}

#[tokio::test]
async fn a_move_that_was_cut_off_anywhere_is_ended() {
    for (tier, in_first, in_second) in [
        (2, true, false),
        (2, true, true),
        (2, false, true),
        (3, false, true),
        (3, true, true),
        (3, true, false),
    ] {
        let (world, alice, block) = cold_world(false).await;
        let drive = world.server.drive();
        let first = files(&world).remove(0);
        let inside = first.strip_prefix(world.dir.path().join("blocks")).unwrap();
        let second = world.dir.path().join("cold").join(inside);
        if in_second {
            std::fs::copy(&first, &second).unwrap();
        }
        if !in_first {
            std::fs::remove_file(&first).unwrap();
        }
        let set = format!("UPDATE pack SET tier = {tier}");
        world.server.store().write(move |sql| sql.exec(&set, &[]).map(drop)).await.unwrap();
        assert!(has(&alice, &block).await, "{tier} {in_first} {in_second}");
        if tier == 2 {
            assert_eq!(moved_out(drive).await, 1);
            assert_eq!(in_stores(&world), (0, 1), "{tier} {in_first} {in_second}");
        } else {
            assert!(drive.bring_back(&mut Moved::default()).await.unwrap());
            assert_eq!(in_stores(&world), (1, 0), "{tier} {in_first} {in_second}");
        }
        assert!(has(&alice, &block).await, "{tier} {in_first} {in_second}");
    }
}

#[tokio::test]
async fn lists_of_blocks_stay_in_the_first_store_and_what_goes_is_removed_from_the_second() {
    let (world, alice, block) = cold_world(true).await;
    let drive = world.server.drive();
    let blocks: Vec<_> = (0..300).map(|i| noise(100 + i, 100)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    alice.upload(&blocks).await;
    alice.upload(&segments.iter().map(|s| s.bytes.clone()).collect::<Vec<_>>()).await;
    let large = node_id();
    alice.one(create(large, alice.place("large"), Blob(root.encode()))).await;
    age_packs(&world).await;
    assert_eq!(moved_out(drive).await, 2);
    assert_eq!(in_stores(&world), (1, 2));
    rounds(drive, 0).await;
    remove(&alice, large, "large").await;
    empty_trash(&alice).await;
    pruned(drive).await;
    rounds(drive, 2).await;
    assert_eq!(in_stores(&world), (0, 1));
    assert!(is_missing(&alice, &blocks[0]).await && !is_missing(&alice, &block).await);
}
