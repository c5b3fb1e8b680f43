//! Quota and file limit: exact, and on current content alone.

use drivefs_core::wire::Change;
use drivefs_core::wire::ErrorCode;

use crate::world::World;
use crate::world::create;
use crate::world::node_id;
use crate::world::noise;
use crate::world::put;

#[tokio::test]
async fn the_counter_follows_overwrite_link_delete_and_history_is_free() {
    let world = World::new().await;
    let alice = world.person_with("alice", 1000).await;
    let file = alice.file("f", &noise(1, 600)).await;
    assert_eq!(alice.used().await, 600);
    let larger = alice.content(&noise(2, 1000)).await;
    alice.one(put(file, 1, larger)).await;
    assert_eq!(alice.used().await, 1000);
    let over = alice.content(&noise(3, 1001)).await;
    assert_eq!(alice.rejected(put(file, 2, over)).await, ErrorCode::QuotaExceeded);
    let one = alice.content(b"1").await;
    let other = create(node_id(), alice.place("g"), one.clone());
    assert_eq!(alice.rejected(other).await, ErrorCode::QuotaExceeded);
    alice.one(Change::Link { node: file, place: alice.place("again") }).await;
    assert_eq!(alice.used().await, 1000, "two names, one content");
    alice.one(Change::Unlink { node: file, place: alice.place("f"), version: None }).await;
    assert_eq!(alice.used().await, 1000);
    alice.one(put(file, 2, one)).await;
    assert_eq!(alice.used().await, 1);
    alice.one(Change::Unlink { node: file, place: alice.place("again"), version: None }).await;
    assert_eq!(alice.used().await, 0);
}

#[tokio::test]
async fn a_refused_op_gives_its_bytes_back() {
    let world = World::new().await;
    let alice = world.person_with("alice", 100).await;
    let big = alice.content(&noise(1, 90)).await;
    let reply = alice
        .commit(vec![
            create(node_id(), alice.place("a"), big.clone()),
            create(node_id(), alice.place("b"), big.clone()),
            create(node_id(), alice.place("a"), big),
        ])
        .await
        .unwrap();
    assert_eq!(reply.results.len(), 3);
    assert_eq!(alice.used().await, 90);
}

#[tokio::test]
async fn a_file_over_the_limit_is_rejected() {
    let world = World::with(|config| config.file_max_bytes = 1000).await;
    let alice = world.person("alice").await;
    assert_eq!(alice.account.file_max_bytes, 1000);
    let over = alice.content(&noise(1, 1001)).await;
    let code = alice.rejected(create(node_id(), alice.place("a"), over)).await;
    assert_eq!(code, ErrorCode::TooLarge);
    alice.file("b", &noise(2, 1000)).await;
}
