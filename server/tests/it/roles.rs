//! Servers that do a part of the work, several on one database.

use std::time::Duration;

use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollReply;
use drivefs_core::wire::PollRequest;
use drivefs_server::app;
use drivefs_server::config::ALL_ROLES;
use drivefs_server::config::Config;
use drivefs_server::config::Role;
use drivefs_server::drive::mounts;
use tokio::time::timeout;

use crate::world::Person;
use crate::world::World;
use crate::world::http;
use crate::world::name;

/// Longer than it takes until a process has seen what another has committed.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn every_role_is_served_alone() {
    for role in ALL_ROLES {
        let world = World::with(|config| config.roles = vec![role]).await;
        let answer = http().get(format!("{}/healthz", world.url())).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{role:?}");
        let answer = http().post(format!("{}/nowhere", world.url())).send().await;
        assert_eq!(answer.unwrap().status(), 404, "{role:?}");
    }
}

#[tokio::test]
async fn a_poll_held_by_one_server_wakes_when_another_commits() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let holds = World::with(|config| {
        let key = "master.key";
        std::fs::copy(world.dir.path().join(key), config.data.join(key)).unwrap();
        let all = Config::local(world.dir.path());
        (config.metadata, config.blocks, config.roles) =
            (all.metadata, all.blocks, vec![Role::Notify]);
    })
    .await;
    let waits = Person { url: holds.url(), ..alice.clone() };
    for seq in 1..4 {
        let cursors = vec![PollCursor { ns: alice.ns, seq, epoch: 0 }];
        let request = PollRequest { cursors, timeout_secs: 60 };
        let waits = waits.clone();
        let mut held =
            tokio::spawn(async move { waits.post::<PollReply>("/sync/v1/poll", &request).await });
        assert!(timeout(Duration::from_millis(300), &mut held).await.is_err(), "it is held");
        alice.dir(alice.root, &format!("d{seq}")).await;
        let reply = timeout(SEEN_WITHIN, held).await.expect("woken").unwrap().unwrap();
        assert_eq!(reply.changed, [alice.ns]);
    }
}

#[tokio::test]
async fn a_commit_of_another_process_wakes_who_waits_for_it_and_nobody_else() {
    let world = World::new().await;
    let (alice, bob) = (world.person("alice").await, world.person("bob").await);
    let hub = &world.server.drive().hub;
    let (for_alice, for_bob) = (hub.register(vec![alice.ns]), hub.register(vec![bob.ns]));
    // A second store on the same file is to the first what another process is.
    let other = app::open_store(&Config::local(world.dir.path())).unwrap();
    mounts::add(&other, "alice@example.com", None, name("team")).await.unwrap();
    assert!(timeout(SEEN_WITHIN, for_alice.hinted()).await.expect("woken"));
    assert!(timeout(SEEN_WITHIN, for_bob.hinted()).await.is_err(), "nothing of his has moved");
    mounts::add(&other, "bob@example.com", None, name("team")).await.unwrap();
    assert!(timeout(SEEN_WITHIN, for_bob.hinted()).await.expect("woken"));
    assert!(timeout(SEEN_WITHIN, for_alice.hinted()).await.is_err(), "that was told before");
}
