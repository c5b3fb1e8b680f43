//! The trash: what it lists, what comes back, and what was emptied.

use drivefs_core::id::NodeId;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::EmptyReply;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::TrashReply;
use drivefs_core::wire::TrashRequest;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::Which;
use drivefs_server::metadata::DbError;

use crate::history::path;
use crate::model::Replica;
use crate::world::Person;
use crate::world::Refused;
use crate::world::World;
use crate::world::create;
use crate::world::mkdir;
use crate::world::name;
use crate::world::node_id;
use crate::world::noise;
use crate::world::place;
use crate::world::put;

async fn ask(
    person: &Person,
    of: Option<Which>,
    skip: u64,
    limit: u32,
) -> Result<TrashReply, Refused> {
    let request = TrashRequest { ns: person.ns, of, skip, limit };
    person.post("/sync/v1/trash", &request).await
}

/// Paths in the list, with how many lie below each.
async fn listed(person: &Person) -> Vec<(String, u64)> {
    let reply = ask(person, None, 0, 100).await.unwrap();
    let text = |path: &[_]| path.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
    reply.entries.iter().map(|e| (text(&e.path), e.below)).collect()
}

async fn empty(person: &Person) -> u64 {
    let request = EmptyRequest { ns: person.ns };
    person.post::<EmptyReply>("/sync/v1/trash/empty", &request).await.unwrap().nodes
}

fn unlink(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Unlink { node, place: place(parent, name), version: None }
}

fn rmdir(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Rmdir { node, place: place(parent, name) }
}

fn restore(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Restore { node, place: place(parent, name) }
}

async fn file_in(person: &Person, dir: NodeId, name: &str, text: &[u8]) -> NodeId {
    let node = node_id();
    let content = person.content(text).await;
    person.one(create(node, place(dir, name), content)).await;
    node
}

/// `docs/sub/deep` and `docs/a`, and their removal as by `rm -r`.
async fn removed_tree(person: &Person) -> (NodeId, NodeId, NodeId, NodeId) {
    let docs = person.dir(person.root, "docs").await;
    let sub = person.dir(docs, "sub").await;
    let deep = file_in(person, sub, "deep", &noise(1, 700)).await;
    let a = file_in(person, docs, "a", &noise(2, 300)).await;
    let ops = vec![unlink(deep, sub, "deep"), rmdir(sub, docs, "sub"), unlink(a, docs, "a")];
    person.commit(ops).await.unwrap();
    person.one(rmdir(docs, person.root, "docs")).await;
    (docs, sub, deep, a)
}

/// All deletions so far were an hour earlier.
async fn an_hour_passes(world: &World) {
    world
        .server
        .store()
        .write(|sql| {
            let hour = 3_600_000_000_000i64;
            let statement =
                "UPDATE node SET deleted_ns = deleted_ns - ?1 WHERE deleted_ns IS NOT NULL";
            sql.exec(statement, &[hour.into()])?;
            Ok::<_, DbError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_removed_folder_is_one_line_with_all_that_went_along() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("kept", b"kept").await;
    removed_tree(&alice).await;
    let lone = alice.file("lone", b"12345").await;
    alice.one(unlink(lone, alice.root, "lone")).await;
    assert_eq!(listed(&alice).await, [("lone".into(), 0), ("docs".into(), 3)]);
    let reply = ask(&alice, None, 0, 10).await.unwrap();
    let docs = &reply.entries[1];
    assert_eq!((docs.size, docs.kind, docs.device.as_str()), (1000, NodeKind::Dir, "laptop"));
    assert_eq!((reply.entries[0].size, reply.more, reply.way.is_none()), (5, false, true));
    // Pages have the same lines with the same sums.
    let first = ask(&alice, None, 0, 1).await.unwrap();
    let second = ask(&alice, None, 1, 1).await.unwrap();
    assert!(first.more && !second.more);
    assert_eq!([first.entries, second.entries].concat(), reply.entries);
}

#[tokio::test]
async fn what_went_long_before_its_folder_is_a_line_of_its_own() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let docs = alice.dir(alice.root, "docs").await;
    let old = file_in(&alice, docs, "old", b"old").await;
    let late = file_in(&alice, docs, "late", b"late").await;
    alice.one(unlink(old, docs, "old")).await;
    an_hour_passes(&world).await;
    alice.one(unlink(late, docs, "late")).await;
    alice.one(rmdir(docs, alice.root, "docs")).await;
    assert_eq!(listed(&alice).await, [("docs".into(), 1), ("docs/old".into(), 0)]);
    let with: Vec<_> = ask(&alice, Some(Which::Node(docs)), 0, 9).await.unwrap().entries;
    assert_eq!(with.iter().map(|e| e.node).collect::<Vec<_>>(), [docs, late]);
    let of_old = ask(&alice, Some(path(&["docs", "old"])), 0, 9).await.unwrap();
    let way = of_old.way.unwrap();
    assert_eq!((way.base, way.lost.len(), way.lost[0].node), (alice.root, 1, docs));
}

#[tokio::test]
async fn a_folder_comes_back_with_the_same_nodes_their_history_and_their_bytes_counted() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (docs, sub, deep, a) = removed_tree(&alice).await;
    assert_eq!(alice.used().await, 0);
    let reply = ask(&alice, Some(path(&["docs"])), 0, 100).await.unwrap();
    let order: Vec<_> = reply.entries.iter().map(|e| e.node).collect();
    assert_eq!(order, [docs, a, sub, deep], "parents first");
    let mut pages = Vec::new();
    for skip in 0..4 {
        pages.extend(ask(&alice, Some(Which::Node(docs)), skip, 1).await.unwrap().entries);
    }
    assert_eq!(pages.iter().map(|e| e.node).collect::<Vec<_>>(), order);
    let ops =
        reply.entries.iter().map(|e| Change::Restore { node: e.node, place: e.place.clone() });
    let done = alice.commit(ops.collect()).await.unwrap();
    assert!(done.results.iter().all(|r| matches!(r, OpResult::Done { .. })), "{done:?}");
    assert_eq!(done.results[1], OpResult::Done { seq: done.seq, version: 1 });
    assert_eq!(alice.used().await, 1000);
    assert!(listed(&alice).await.is_empty());
    let request = VersionsRequest { ns: alice.ns, of: Which::Node(deep), before: None, limit: 5 };
    let versions: drivefs_core::wire::VersionsReply =
        alice.post("/sync/v1/versions", &request).await.unwrap();
    assert_eq!(versions.path, [name("docs"), name("sub"), name("deep")]);
    assert!(!versions.row.deleted);
    let content = alice.content(b"new").await;
    assert_eq!(alice.one(put(deep, 1, content)).await, 2, "it goes on where it was");
}

#[tokio::test]
async fn who_follows_sees_the_node_go_and_come_whenever_they_look() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let docs = alice.dir(alice.root, "docs").await;
    let a = file_in(&alice, docs, "a", b"a").await;
    let (mut eager, mut lazy) = (Replica::default(), Replica::default());
    eager.pull(&alice, 2).await;
    lazy.pull(&alice, 2).await;
    alice.one(unlink(a, docs, "a")).await;
    alice.one(rmdir(docs, alice.root, "docs")).await;
    eager.pull(&alice, 2).await;
    assert!(eager.nodes[&a].deleted);
    alice.one(restore(docs, alice.root, "docs")).await;
    alice.one(restore(a, docs, "a")).await;
    let mut fresh = Replica::default();
    for replica in [&mut eager, &mut lazy, &mut fresh] {
        replica.pull(&alice, 1).await;
        assert!(!replica.nodes[&a].deleted && !replica.nodes[&docs].deleted);
        assert_eq!(replica.entries.get(&(docs, name("a"))), Some(&a));
        assert_eq!(replica.entries.get(&(alice.root, name("docs"))), Some(&docs));
    }
}

#[tokio::test]
async fn a_restore_needs_a_tombstone_a_free_name_a_live_folder_and_room() {
    let world = World::new().await;
    let alice = world.person_with("alice", 1000).await;
    let docs = alice.dir(alice.root, "docs").await;
    let a = file_in(&alice, docs, "a", &noise(1, 600)).await;
    alice.conflicts(restore(a, docs, "b")).await;
    alice.conflicts(restore(node_id(), docs, "b")).await;
    alice.one(unlink(a, docs, "a")).await;
    let taken = alice.dir(docs, "taken").await;
    alice.conflicts(restore(a, docs, "taken")).await;
    alice.conflicts(restore(a, node_id(), "a")).await;
    alice.one(rmdir(taken, docs, "taken")).await;
    alice.conflicts(restore(a, taken, "a")).await;
    file_in(&alice, docs, "big", &noise(2, 500)).await;
    assert_eq!(alice.rejected(restore(a, docs, "a")).await, ErrorCode::QuotaExceeded);
    let used = alice.used().await;
    alice.one(restore(taken, alice.root, "elsewhere")).await;
    assert_eq!(alice.used().await, used, "what is refused is not counted");
    assert_eq!(listed(&alice).await, [("docs/a".into(), 0)]);
}

#[tokio::test]
async fn the_way_back_uses_folders_that_were_made_again() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (docs, sub, deep, a) = removed_tree(&alice).await;
    let of = |node| Some(Which::Node(node));
    let way = ask(&alice, of(deep), 0, 1).await.unwrap().way.unwrap();
    let nodes: Vec<_> = way.lost.iter().map(|f| f.node).collect();
    assert_eq!((way.base, nodes), (alice.root, vec![docs, sub]));
    let again = alice.dir(alice.root, "docs").await;
    let way = ask(&alice, of(deep), 0, 1).await.unwrap().way.unwrap();
    let nodes: Vec<_> = way.lost.iter().map(|f| f.node).collect();
    assert_eq!((way.base, nodes), (again, vec![sub]));
    let way = ask(&alice, of(a), 0, 1).await.unwrap().way.unwrap();
    assert_eq!((way.base, way.lost.len()), (again, 0));
    // A file of that name is no folder.
    alice.one(rmdir(again, alice.root, "docs")).await;
    alice.file("docs", b"in the way").await;
    let way = ask(&alice, of(a), 0, 1).await.unwrap().way.unwrap();
    assert_eq!((way.base, way.lost[0].node), (alice.root, docs));
}

#[tokio::test]
async fn what_was_emptied_is_neither_listed_nor_restored_and_later_deletions_are() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (docs, _, deep, _) = removed_tree(&alice).await;
    let later = alice.file("later", b"later").await;
    let cursor = alice.changes(0, 100).await.unwrap().cursor;
    assert_eq!(empty(&alice).await, 4);
    assert_eq!(empty(&alice).await, 0, "twice is once");
    assert!(listed(&alice).await.is_empty());
    assert_eq!(alice.rejected(restore(docs, alice.root, "docs")).await, ErrorCode::NotFound);
    for of in [Which::Node(deep), path(&["docs"]), path(&["docs", "a"])] {
        let e = ask(&alice, Some(of.clone()), 0, 1).await.expect_err("emptied");
        assert_eq!(e.code, ErrorCode::NotFound);
        let request = VersionsRequest { ns: alice.ns, of, before: None, limit: 1 };
        let e = alice.post::<serde_json::Value>("/sync/v1/versions", &request).await;
        assert_eq!(e.expect_err("emptied").code, ErrorCode::NotFound);
    }
    assert!(alice.changes(cursor, 10).await.unwrap().nodes.is_empty(), "no change of the tree");
    alice.one(unlink(later, alice.root, "later")).await;
    assert_eq!(listed(&alice).await, [("later".into(), 0)]);
    alice.one(restore(later, alice.root, "later")).await;
    let again = alice.dir(alice.root, "x").await;
    let lost = file_in(&alice, again, "f", b"f").await;
    alice.one(unlink(lost, again, "f")).await;
    let ops = vec![mkdir(node_id(), place(again, "g"))];
    alice.commit(ops).await.unwrap();
    assert_eq!(listed(&alice).await, [("x/f".into(), 0)]);
}
