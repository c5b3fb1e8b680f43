//! A list and what changed since: who follows the cursor sees what a new list shows.

use std::collections::BTreeMap;

use drivefs_core::wire::Role;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;
use proptest::strategy::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use serde_json::json;

use crate::world::Person;
use crate::world::World;
use crate::world::name;

/// Paths and revs (of folders none), as a client keeps them.
type Tree = BTreeMap<String, Option<String>>;

struct Follower {
    tree: Tree,
    cursor: String,
}

impl Follower {
    async fn begin(person: &Person, limit: u32) -> Self {
        let arg = json!({"path": "", "recursive": true, "limit": limit});
        let page = person.done("/files/list_folder", arg).await;
        let mut follower = Self { tree: Tree::new(), cursor: String::new() };
        follower.take(person, page).await;
        follower
    }

    async fn follow(&mut self, person: &Person) {
        let arg = json!({"cursor": self.cursor});
        let page = person.done("/files/list_folder/continue", arg).await;
        self.take(person, page).await;
    }

    async fn take(&mut self, person: &Person, mut page: Value) {
        loop {
            for entry in page["entries"].as_array().unwrap() {
                let path = entry["path_display"].as_str().unwrap().to_owned();
                let below = format!("{path}/");
                match entry[".tag"].as_str().unwrap() {
                    "deleted" => {
                        self.tree.remove(&path);
                        self.tree.retain(|p, _| !p.starts_with(&below));
                    }
                    "folder" => {
                        self.tree.insert(path, None);
                    }
                    _ => {
                        self.tree.retain(|p, _| !p.starts_with(&below));
                        self.tree.insert(path, Some(entry["rev"].as_str().unwrap().to_owned()));
                    }
                }
            }
            self.cursor = page["cursor"].as_str().unwrap().to_owned();
            if page["has_more"] == false {
                return;
            }
            let arg = json!({"cursor": self.cursor});
            page = person.done("/files/list_folder/continue", arg).await;
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c", "team"]), 1..4)
        .prop_map(|names| format!("/{}", names.join("/")))
}

/// Follows random changes, page sizes of one to three, and compares with a new list.
#[tokio::test]
async fn who_follows_a_cursor_has_what_a_new_list_shows() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    world.person("bob").await;
    let guest = Guest { email: "bob@example.com".into(), role: Role::Editor };
    mounts::add(world.server.store(), "alice@example.com", Some(guest), name("team"))
        .await
        .unwrap();
    let mut runner = TestRunner::deterministic();
    let mut followers = Vec::new();
    for limit in 1..=3 {
        followers.push(Follower::begin(&alice, limit).await);
    }
    let mut done = 0;
    let steps = std::env::var("STEPS").map_or(150, |n| n.parse().unwrap());
    for step in 0..steps {
        let (one, other) = (path(), path()).new_tree(&mut runner).unwrap().current();
        let answer = match (0..6u32).new_tree(&mut runner).unwrap().current() {
            0 => alice.rpc("/files/create_folder_v2", json!({"path": one})).await,
            1 | 2 => alice.upload_to(&one, format!("{step}").into_bytes()).await,
            3 => {
                let arg = json!({"from_path": one, "to_path": other});
                alice.rpc("/files/move_v2", arg).await
            }
            4 => {
                let arg = json!({"from_path": one, "to_path": other});
                alice.rpc("/files/copy_v2", arg).await
            }
            _ => alice.rpc("/files/delete_v2", json!({"path": one})).await,
        };
        assert!(answer.status < 500, "{}", answer.json);
        done += u32::from(answer.status == 200);
        if step % 7 == 0 {
            let wanted = Follower::begin(&alice, 1000).await.tree;
            for (i, follower) in followers.iter_mut().enumerate() {
                follower.follow(&alice).await;
                assert_eq!(follower.tree, wanted, "step {step}, {} a page", i + 1);
            }
        }
    }
    assert!(done > 40, "{done} changes were done");
}

#[tokio::test]
async fn a_folder_that_is_shared_later_is_told_with_what_is_in_it() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let mut follower = Follower::begin(&bob, 2).await;
    let guest = Guest { email: "bob@example.com".into(), role: Role::Viewer };
    mounts::add(world.server.store(), "alice@example.com", Some(guest), name("team"))
        .await
        .unwrap();
    alice.upload_to("/team/x/y", b"1".to_vec()).await;
    follower.follow(&bob).await;
    let paths: Vec<_> = follower.tree.keys().cloned().collect();
    assert_eq!(paths, ["/team", "/team/x", "/team/x/y"]);
    alice.upload_to("/team/z", b"2".to_vec()).await;
    follower.follow(&bob).await;
    assert_eq!(follower.tree, Follower::begin(&bob, 9).await.tree);
}
