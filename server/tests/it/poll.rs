//! Long polls.

use std::time::Duration;
use std::time::Instant;

use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollReply;
use drivefs_core::wire::PollRequest;
use drivefs_server::app;
use drivefs_server::config::Config;
use drivefs_server::drive::mounts;

use crate::world::Person;
use crate::world::World;
use crate::world::name;

async fn poll(person: &Person, seq: u64, timeout_secs: u64) -> (PollReply, Duration) {
    let cursors = vec![PollCursor { ns: person.ns, seq, epoch: 0 }];
    let started = Instant::now();
    let reply = person.post("/sync/v1/poll", &PollRequest { cursors, timeout_secs }).await;
    (reply.unwrap(), started.elapsed())
}

#[tokio::test]
async fn a_poll_waits_for_a_commit_and_no_longer() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let waiting = tokio::spawn({
        let alice = alice.clone();
        async move { poll(&alice, 1, 30).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    alice.dir(alice.root, "d").await;
    let (reply, took) = waiting.await.unwrap();
    assert_eq!(reply.changed, [alice.ns]);
    assert!(took < Duration::from_secs(5));
    let (reply, took) = poll(&alice, 1, 30).await;
    assert_eq!(reply.changed, [alice.ns]);
    assert!(took < Duration::from_secs(5), "what happened before counts");
    let (reply, took) = poll(&alice, 2, 1).await;
    assert!(reply.changed.is_empty() && took >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_poll_wakes_when_another_process_commits() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let waiting = tokio::spawn({
        let alice = alice.clone();
        async move { poll(&alice, 1, 30).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A second store on the same file is to the first what another process is.
    let other = app::open_store(&Config::local(world.dir.path())).unwrap();
    mounts::add(&other, "alice@example.com", None, name("team")).await.unwrap();
    let (reply, took) = waiting.await.unwrap();
    assert_eq!(reply.changed, [alice.ns]);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_poll_that_nobody_waits_for_any_more_is_freed_and_a_stop_answers_the_rest() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let gone = tokio::time::timeout(Duration::from_millis(300), poll(&alice, 1, 60)).await;
    assert!(gone.is_err());
    let waiting = tokio::spawn({
        let alice = alice.clone();
        async move { poll(&alice, 1, 60).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    world.server.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(waiting.await.unwrap().0.changed.is_empty());
}
