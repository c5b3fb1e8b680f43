//! Each op: done, in conflict, rejected.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use drivefs_core::limits::SYMLINK_MAX_BYTES;
use drivefs_core::manifest::Root;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::ListReply;
use drivefs_core::wire::ListRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;

use crate::world::Person;
use crate::world::World;
use crate::world::attrs;
use crate::world::content_of;
use crate::world::create;
use crate::world::entry_of;
use crate::world::exchange;
use crate::world::mkdir;
use crate::world::node_id;
use crate::world::noise;
use crate::world::op_key;
use crate::world::place;
use crate::world::put;
use crate::world::relocate;

async fn names(person: &Person, parent: NodeId) -> Vec<String> {
    let request = ListRequest { ns: person.ns, parent, after: None, limit: 1000 };
    let reply: ListReply = person.post("/sync/v1/list", &request).await.unwrap();
    assert!(reply.dirents.iter().all(|d| reply.nodes.iter().any(|n| Some(n.node) == d.child)));
    reply.dirents.iter().map(|d| d.name.to_string()).collect()
}

fn unlink(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Unlink { node, place: place(parent, name), version: None }
}

/// A change that takes a name from a file, of which its maker knows this version.
fn knowing(mut change: Change, known: u64) -> Change {
    match &mut change {
        Change::Unlink { version, .. } => *version = Some(known),
        Change::Move { replaced_version, .. } => *replaced_version = Some(known),
        other => panic!("{other:?} takes no name"),
    }
    change
}

fn rmdir(node: NodeId, parent: NodeId, name: &str) -> Change {
    Change::Rmdir { node, place: place(parent, name) }
}

#[tokio::test]
async fn a_put_makes_a_file_then_versions_of_it() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("a.txt", b"one").await;
    let two = alice.content(b"two!").await;
    assert_eq!(alice.one(put(file, 1, two.clone())).await, 2);
    assert_eq!(alice.one(put(file, 2, two.clone())).await, 2, "same content, no version");
    alice.conflicts(put(file, 1, two.clone())).await;
    alice.conflicts(put(node_id(), 0, two.clone())).await;
    alice.conflicts(create(file, alice.place("b.txt"), two.clone())).await;
    alice.conflicts(create(node_id(), alice.place("a.txt"), two.clone())).await;
    alice.conflicts(create(node_id(), place(node_id(), "x"), two.clone())).await;
    alice.conflicts(create(node_id(), place(file, "x"), two.clone())).await;
    let page = alice.changes(0, 100).await.unwrap();
    let row = page.nodes.iter().find(|n| n.node == file).unwrap();
    assert_eq!((row.version, row.device.as_str()), (2, "laptop"));
    assert_eq!(row.content.as_ref(), Some(&two));
    assert!(row.committed > 1_700_000_000_000_000_000);
}

#[tokio::test]
async fn a_newer_content_keeps_its_last_name() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (file, mover) = (alice.file("f", b"one").await, alice.file("m", b"m").await);
    alice.one(put(file, 1, alice.content(b"two").await)).await;
    let over = || relocate(mover, alice.place("m"), alice.place("f"), Some(file));
    alice.conflicts(knowing(unlink(file, alice.root, "f"), 1)).await;
    alice.conflicts(knowing(over(), 1)).await;
    assert_eq!(names(&alice, alice.root).await, ["f", "m"]);
    assert_eq!(alice.used().await, 4, "nothing was counted as gone");
    // Another name than the last one goes whatever its content is.
    alice.one(Change::Link { node: file, place: alice.place("g") }).await;
    alice.one(knowing(unlink(file, alice.root, "g"), 1)).await;
    alice.one(knowing(over(), 2)).await;
    assert_eq!(names(&alice, alice.root).await, ["f"]);
    alice.one(knowing(unlink(mover, alice.root, "f"), 1)).await;
    assert_eq!(alice.used().await, 0);
}

#[tokio::test]
async fn content_that_is_not_held_or_not_a_manifest_is_rejected() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let at = || alice.place("x");
    let absent = content_of(&[b"absent"]);
    assert_eq!(alice.rejected(create(node_id(), at(), absent)).await, ErrorCode::MissingBlocks);
    let garbage = Blob(vec![1, 2, 3]);
    assert_eq!(alice.rejected(create(node_id(), at(), garbage)).await, ErrorCode::BadRequest);
    alice.content(b"12345").await;
    let mut entry = entry_of(b"12345");
    entry.len = 500;
    let lie = Blob(Root::Inline(vec![entry]).encode());
    assert_eq!(alice.rejected(create(node_id(), at(), lie)).await, ErrorCode::BadRequest);
    alice.one(create(node_id(), at(), Blob(Root::empty().encode()))).await;
}

#[tokio::test]
async fn segments_are_verified_before_a_version_names_them() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let blocks: Vec<_> = (0..300).map(|i| noise(i, 100)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    let content = Blob(root.encode());
    let node = node_id();
    let op = || create(node, alice.place("big"), content.clone());
    assert_eq!(alice.rejected(op()).await, ErrorCode::MissingBlocks);
    let lists: Vec<_> = segments.iter().map(|s| s.bytes.clone()).collect();
    alice.upload(&lists).await;
    alice.upload(&blocks[1..]).await;
    match alice.try_one(op()).await {
        OpResult::Rejected { code: ErrorCode::MissingBlocks, message } => {
            assert!(message.contains(&entries[0].hash.to_string()), "{message}");
        }
        other => panic!("{other:?}"),
    }
    alice.upload(&blocks[..1]).await;
    assert_eq!(alice.one(op()).await, 1);
    assert_eq!(alice.used().await, 300 * 100);

    // The root must not lie about a verified segment, nor take a block for a segment.
    let Root::Segmented(mut refs) = root else { panic!("long list") };
    refs[0].bytes -= 1;
    let lie = Blob(Root::Segmented(refs.clone()).encode());
    let code = alice.rejected(create(node_id(), alice.place("lie"), lie)).await;
    assert_eq!(code, ErrorCode::BadRequest);
    refs[0].bytes += 1;
    refs[0].hash = BlockHash::of(&blocks[5]);
    let lie = Blob(Root::Segmented(refs).encode());
    let code = alice.rejected(create(node_id(), alice.place("lie"), lie)).await;
    assert_eq!(code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn a_retry_under_the_same_key_gets_the_first_answer_and_changes_nothing() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let content = alice.content(b"x").await;
    let ops = vec![
        Op { key: op_key(), change: create(node_id(), alice.place("a"), content.clone()) },
        Op { key: op_key(), change: mkdir(node_id(), alice.place("a")) },
    ];
    let first = alice.commit_ops(ops.clone()).await.unwrap();
    assert!(matches!(first.results[0], OpResult::Done { seq: 2, version: 1 }));
    assert!(matches!(first.results[1], OpResult::Conflict { .. }));
    alice.file("later", b"y").await;
    let again = alice.commit_ops(ops).await.unwrap();
    assert_eq!(again.results[0], first.results[0]);
    assert!(matches!(again.results[1], OpResult::Conflict { .. }));
    assert_eq!(again.seq, 3, "a commit that does nothing takes no seq");
}

#[tokio::test]
async fn an_op_that_fails_leaves_the_others_and_later_ops_see_earlier_ones() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (dir, sub) = (node_id(), node_id());
    let reply = alice
        .commit(vec![
            mkdir(dir, alice.place("d")),
            mkdir(node_id(), alice.place("d")),
            mkdir(sub, place(dir, "sub")),
        ])
        .await
        .unwrap();
    assert!(matches!(reply.results[1], OpResult::Conflict { .. }));
    assert!(matches!(reply.results[2], OpResult::Done { seq: 2, .. }));
    assert_eq!(names(&alice, dir).await, ["sub"]);
    assert_eq!(alice.commit(Vec::new()).await.unwrap().seq, 2);
    let many = (0..1001).map(|i| mkdir(node_id(), alice.place(&i.to_string()))).collect();
    assert_eq!(alice.commit(many).await.expect_err("too many").code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn symlinks_and_special_files_are_checked() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let symlink = |target: Vec<u8>| Change::Symlink {
        node: node_id(),
        place: alice.place("l"),
        target: Blob(target),
        attrs: attrs(),
        xattrs: Xattrs::new(),
    };
    for wrong in [vec![], vec![b'a'; SYMLINK_MAX_BYTES + 1], b"a\0b".to_vec()] {
        assert_eq!(alice.rejected(symlink(wrong)).await, ErrorCode::BadRequest);
    }
    alice.one(symlink(b"/some/where".to_vec())).await;
    alice.conflicts(symlink(b"taken".to_vec())).await;
    let mknod = |kind, mode| Change::Mknod {
        node: node_id(),
        place: alice.place("dev"),
        kind,
        rdev: 0x0103,
        attrs: Attrs { mode, ..attrs() },
        xattrs: Xattrs::new(),
    };
    for kind in [NodeKind::File, NodeKind::Dir, NodeKind::Mount, NodeKind::Symlink] {
        assert_eq!(alice.rejected(mknod(kind, 0o600)).await, ErrorCode::BadRequest);
    }
    assert_eq!(alice.rejected(mknod(NodeKind::Fifo, 0o10600)).await, ErrorCode::BadRequest);
    alice.one(mknod(NodeKind::CharDevice, 0o600)).await;
    let page = alice.changes(0, 100).await.unwrap();
    let device = page.nodes.iter().find(|n| n.kind == NodeKind::CharDevice).unwrap();
    assert_eq!(device.rdev, 0x0103);
    let link = page.nodes.iter().find(|n| n.kind == NodeKind::Symlink).unwrap();
    assert_eq!(link.target, Some(Blob(b"/some/where".to_vec())));
}

#[tokio::test]
async fn links_give_files_more_names_and_folders_none() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("a", b"x").await;
    let dir = alice.dir(alice.root, "d").await;
    let link = |node, name: &str| Change::Link { node, place: alice.place(name) };
    assert_eq!(alice.one(link(file, "b")).await, 1);
    alice.conflicts(link(file, "a")).await;
    alice.conflicts(link(node_id(), "c")).await;
    assert_eq!(alice.rejected(link(dir, "d2")).await, ErrorCode::BadRequest);
    alice.one(unlink(file, alice.root, "a")).await;
    alice.one(Change::Setattr { node: file, attrs: attrs() }).await;
    alice.one(unlink(file, alice.root, "b")).await;
    alice.conflicts(Change::Setattr { node: file, attrs: attrs() }).await;
    alice.conflicts(link(file, "a")).await;
    alice.conflicts(put(file, 1, content_of(&[b"x"]))).await;
}

#[tokio::test]
async fn unlink_and_rmdir_remove_what_they_are_for() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let root = alice.root;
    let file = alice.file("f", b"x").await;
    let dir = alice.dir(root, "d").await;
    alice.dir(dir, "sub").await;
    assert_eq!(alice.rejected(unlink(dir, root, "d")).await, ErrorCode::BadRequest);
    assert_eq!(alice.rejected(rmdir(file, root, "f")).await, ErrorCode::BadRequest);
    alice.conflicts(rmdir(dir, root, "d")).await;
    alice.conflicts(unlink(file, root, "g")).await;
    alice.conflicts(unlink(file, root, "d")).await;
    alice.conflicts(unlink(node_id(), root, "f")).await;
    alice.one(unlink(file, root, "f")).await;
    alice.conflicts(unlink(file, root, "f")).await;
    let empty = alice.dir(root, "e").await;
    alice.one(rmdir(empty, root, "e")).await;
    alice.conflicts(mkdir(node_id(), place(empty, "x"))).await;
    assert_eq!(names(&alice, root).await, ["d"]);
    alice.file("f", b"again").await;
}

#[tokio::test]
async fn moves_keep_the_tree_a_tree() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let root = alice.root;
    let a = alice.dir(root, "a").await;
    let b = alice.dir(a, "b").await;
    let c = alice.dir(b, "c").await;
    let at = |parent, name: &str| place(parent, name);
    alice.conflicts(relocate(a, at(root, "a"), at(c, "a"), None)).await;
    alice.conflicts(relocate(a, at(root, "a"), at(a, "a"), None)).await;
    alice.conflicts(exchange(a, at(root, "a"), at(b, "c"))).await;
    alice.conflicts(relocate(b, at(root, "b"), at(root, "x"), None)).await;
    alice.conflicts(relocate(b, at(a, "b"), at(node_id(), "x"), None)).await;
    alice.one(relocate(c, at(b, "c"), at(root, "c"), None)).await;
    alice.one(relocate(a, at(root, "a"), at(c, "a"), None)).await;
    assert_eq!(names(&alice, root).await, ["c"]);
    assert_eq!(names(&alice, c).await, ["a"]);
    alice.one(relocate(c, at(root, "c"), at(root, "c"), None)).await;
}

#[tokio::test]
async fn a_move_replaces_only_what_it_names_and_what_fits() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let root = alice.root;
    let (f, g) = (alice.file("f", b"f").await, alice.file("g", b"gg").await);
    let (d, e) = (alice.dir(root, "d").await, alice.dir(root, "e").await);
    let full = alice.dir(root, "full").await;
    alice.dir(full, "x").await;
    let at = |name: &str| alice.place(name);
    alice.conflicts(relocate(f, at("f"), at("g"), None)).await;
    alice.conflicts(relocate(f, at("f"), at("g"), Some(d))).await;
    let code = alice.rejected(relocate(f, at("f"), at("d"), Some(d))).await;
    assert_eq!(code, ErrorCode::BadRequest);
    let code = alice.rejected(relocate(d, at("d"), at("f"), Some(f))).await;
    assert_eq!(code, ErrorCode::BadRequest);
    alice.conflicts(relocate(d, at("d"), at("full"), Some(full))).await;
    alice.one(relocate(f, at("f"), at("g"), Some(g))).await;
    alice.one(relocate(d, at("d"), at("e"), Some(e))).await;
    assert_eq!(names(&alice, root).await, ["e", "full", "g"]);
    assert_eq!(alice.used().await, 1);
    alice.conflicts(Change::Setattr { node: g, attrs: attrs() }).await;
    alice.conflicts(exchange(f, at("g"), at("nothing"))).await;
    alice.one(exchange(f, at("g"), at("full"))).await;
    assert_eq!(names(&alice, root).await, ["e", "full", "g"]);
    alice.conflicts(unlink(f, root, "g")).await;
    alice.one(unlink(f, root, "full")).await;
}

#[tokio::test]
async fn attributes_change_without_a_version_and_within_limits() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("f", b"f").await;
    let changed = Attrs { mode: 0o7777, uid: Some(0), gid: Some(7), mtime: -5, btime: 0 };
    assert_eq!(alice.one(Change::Setattr { node: file, attrs: changed }).await, 1);
    let wrong = Attrs { mode: 0o10000, ..changed };
    let code = alice.rejected(Change::Setattr { node: file, attrs: wrong }).await;
    assert_eq!(code, ErrorCode::BadRequest);
    alice.conflicts(Change::Setattr { node: node_id(), attrs: changed }).await;
    let set = |name: &str, value: Option<Vec<u8>>| Change::Setxattr {
        node: file,
        name: name.into(),
        value: value.map(Blob),
    };
    alice.one(set("user.a", Some(vec![0, 255]))).await;
    alice.one(set("user.b", Some(vec![1]))).await;
    alice.one(set("user.b", None)).await;
    for (name, len) in [("", 1), ("user.big", 70_000)] {
        let code = alice.rejected(set(name, Some(vec![1; len]))).await;
        assert_eq!(code, ErrorCode::BadRequest);
    }
    alice.one(set("user.c", Some(vec![1; 65_536]))).await;
    let code = alice.rejected(set("user.d", Some(vec![1; 65_536]))).await;
    assert_eq!(code, ErrorCode::BadRequest);
    let page = alice.changes(1, 100).await.unwrap();
    let row = page.nodes.iter().find(|n| n.node == file).unwrap();
    assert_eq!((row.attrs, row.version), (changed, 1));
    assert_eq!(row.xattrs["user.a"], Blob(vec![0, 255]));
    assert_eq!(row.xattrs.len(), 2);
}

#[tokio::test]
async fn a_stranger_sees_no_namespace_at_all() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let intruder = Person { ns: alice.ns, root: alice.root, ..bob };
    let e = intruder.commit(vec![mkdir(node_id(), alice.place("x"))]).await.expect_err("404");
    assert_eq!((e.status, e.code), (404, ErrorCode::NotFound));
    assert_eq!(intruder.changes(0, 1).await.expect_err("404").status, 404);
}
