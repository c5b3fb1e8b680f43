//! Shared namespaces, roles, and content that moves between accounts.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::manifest::Root;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Blob;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::Change;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Role;
use drivefs_core::wire::Source;
use drivefs_core::wire::WantedBlock;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;

use crate::world::Person;
use crate::world::World;
use crate::world::content_of;
use crate::world::create;
use crate::world::entry_of;
use crate::world::mkdir;
use crate::world::name;
use crate::world::node_id;
use crate::world::noise;
use crate::world::put;
use crate::world::relocate;

async fn shared(world: &World, owner: &str, guest: &str, role: Role) -> NamespaceId {
    let guest = Guest { email: format!("{guest}@example.com"), role };
    let owner = format!("{owner}@example.com");
    mounts::add(world.server.store(), &owner, Some(guest), name("team")).await.unwrap()
}

fn copy(person: &Person, content: Blob, ns: NamespaceId, from: NodeId) -> Change {
    let mut change = create(node_id(), person.place(&node_id().to_string()), content);
    if let Change::Put { source, .. } = &mut change {
        *source = Some(Source { ns, node: from });
    }
    change
}

#[tokio::test]
async fn a_shared_folder_shows_in_both_trees_and_only_its_role_may_write() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let ns = shared(&world, "alice", "bob", Role::Viewer).await;
    for person in [&alice, &bob] {
        let page = person.changes(1, 10).await.unwrap();
        assert_eq!(page.nodes[0].mount, Some(ns));
        assert_eq!(page.nodes[0].kind, NodeKind::Mount);
        assert_eq!((page.dirents[0].name.to_string(), page.cursor), ("team".into(), 2));
    }
    let (alice, bob) = (alice.at(ns).await, bob.at(ns).await);
    let file = alice.file("plan", b"plan").await;
    let page = bob.changes(0, 10).await.unwrap();
    assert_eq!(page.role, Role::Viewer);
    assert!(page.nodes.iter().any(|n| n.node == file));
    let e = bob.commit(vec![mkdir(node_id(), bob.place("x"))]).await.expect_err("read only");
    assert_eq!((e.status, e.code), (403, ErrorCode::Forbidden));
    let e = bob.upload_body(crate::world::body_of(&[vec![1]])).await.expect_err("read only");
    assert_eq!(e.code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_mount_moves_as_an_entry_but_does_not_go_by_removing_it() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    mounts::add(world.server.store(), "alice@example.com", None, name("team")).await.unwrap();
    let mount = alice.changes(1, 10).await.unwrap().nodes[0].node;
    let at = alice.place("team");
    let unlink = Change::Unlink { node: mount, place: at.clone(), version: None };
    assert_eq!(alice.rejected(unlink).await, ErrorCode::Forbidden);
    let rmdir = Change::Rmdir { node: mount, place: at.clone() };
    assert_eq!(alice.rejected(rmdir).await, ErrorCode::Forbidden);
    let dir = alice.dir(alice.root, "d").await;
    let over = relocate(dir, alice.place("d"), at.clone(), Some(mount));
    assert_eq!(alice.rejected(over).await, ErrorCode::Forbidden);
    alice.one(relocate(mount, at, alice.place("crew"), None)).await;
    alice.conflicts(mkdir(node_id(), crate::world::place(mount, "inside"))).await;
}

#[tokio::test]
async fn the_owner_of_a_shared_folder_pays_for_it() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let ns = shared(&world, "alice", "bob", Role::Editor).await;
    bob.at(ns).await.file("by bob", &noise(1, 500)).await;
    assert_eq!((alice.used().await, bob.used().await), (500, 0));
}

#[tokio::test]
async fn content_moves_to_another_account_by_source_and_never_by_hash_alone() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let ns = shared(&world, "alice", "bob", Role::Viewer).await;
    let team = alice.at(ns).await;
    let block = noise(1, 5000);
    let content = content_of(&[&block]);
    let file = team.file("plan", &block).await;
    let newer = team.content(b"newer").await;
    team.one(put(file, 1, newer)).await;
    let secret = alice.file("secret", b"alice's own").await;

    let code = bob.rejected(create(node_id(), bob.place("x"), content.clone())).await;
    assert_eq!(code, ErrorCode::MissingBlocks);
    let hidden = content_of(&[b"alice's own"]);
    for (from_ns, from) in [(alice.ns, secret), (ns, file), (ns, node_id())] {
        let code = bob.rejected(copy(&bob, hidden.clone(), from_ns, from)).await;
        assert_eq!(code, ErrorCode::MissingBlocks);
    }
    bob.one(copy(&bob, content, ns, file)).await;
    assert_eq!(bob.used().await, 5000);
    let wanted = WantedBlock { hash: entry_of(&block).hash, base: None };
    let request = BlocksRequest { ns: bob.ns, blocks: vec![wanted] };
    let response = bob
        .http
        .post(format!("{}/sync/v1/blocks", bob.url))
        .header("x-drivefs-wire", "1")
        .bearer_auth(&bob.token)
        .body(serde_json::to_vec(&request).unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200, "readable under the pack's first owner");
}

#[tokio::test]
async fn segmented_content_moves_too_also_when_it_was_edited_on_the_way() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let ns = shared(&world, "alice", "bob", Role::Viewer).await;
    let team = alice.at(ns).await;
    let blocks: Vec<_> = (0..200).map(|i| noise(i, 50)).collect();
    let mut entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    team.upload(&blocks).await;
    team.upload(&segments.iter().map(|s| s.bytes.clone()).collect::<Vec<_>>()).await;
    let file = node_id();
    team.one(create(file, team.place("big"), Blob(root.encode()))).await;
    bob.one(copy(&bob, Blob(root.encode()), ns, file)).await;
    assert_eq!(bob.used().await, 200 * 50);

    let carol = world.person("carol").await;
    let edit = noise(999, 50);
    entries[100] = entry_of(&edit);
    let (edited, segments) = Root::build(&entries);
    let edited = Blob(edited.encode());
    let code = carol.rejected(copy(&carol, edited.clone(), ns, file)).await;
    assert_eq!(code, ErrorCode::MissingBlocks, "carol may not read the source");
    world
        .server
        .store()
        .write({
            let carol = carol.account.user;
            move |sql| {
                drivefs_server::metadata::namespaces::put_member(sql, ns, carol, Role::Viewer)
            }
        })
        .await
        .unwrap();
    let code = carol.rejected(copy(&carol, edited.clone(), ns, file)).await;
    assert_eq!(code, ErrorCode::MissingBlocks, "the edited block is nowhere yet");
    carol.upload(&segments.iter().map(|s| s.bytes.clone()).collect::<Vec<_>>()).await;
    carol.upload(&[edit]).await;
    carol.one(copy(&carol, edited, ns, file)).await;
}

#[tokio::test]
async fn regression_links_of_an_op_that_fails_do_not_count_for_its_neighbour() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let ns = shared(&world, "alice", "bob", Role::Viewer).await;
    let team = alice.at(ns).await;
    let blocks: Vec<_> = (0..100).map(|i| noise(i, 50)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    let segments: Vec<_> = segments.iter().map(|s| s.bytes.clone()).collect();
    let content = Blob(root.encode());
    team.upload(&blocks).await;
    team.upload(&segments).await;
    let file = node_id();
    team.one(create(file, team.place("big"), content.clone())).await;
    bob.upload(&segments).await;
    let taken = bob.dir(bob.root, "taken").await;
    let mut fails = copy(&bob, content.clone(), ns, file);
    if let Change::Put { create, .. } = &mut fails {
        *create = Some(bob.place("taken"));
    }
    let plain = create(node_id(), bob.place("plain"), content.clone());
    let reply = bob.commit(vec![fails, plain]).await.unwrap();
    assert!(matches!(reply.results[0], OpResult::Conflict { .. }), "{reply:?} at {taken}");
    let code = match &reply.results[1] {
        OpResult::Rejected { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code, ErrorCode::MissingBlocks);
    let both =
        vec![copy(&bob, content.clone(), ns, file), create(node_id(), bob.place("plain"), content)];
    let reply = bob.commit(both).await.unwrap();
    assert!(reply.results.iter().all(|r| matches!(r, OpResult::Done { .. })), "{reply:?}");
}
