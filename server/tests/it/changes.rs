//! The change order: cursors, pages, tombstones.

use std::time::Instant;

use drivefs_core::id::OpKey;
use drivefs_core::wire::Change;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::CommitReply;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::Op;
use drivefs_core::wire::Point;
use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollReply;
use drivefs_core::wire::PollRequest;
use drivefs_server::metadata::DbError;

use crate::world::World;
use crate::world::mkdir;
use crate::world::node_id;
use crate::world::place;
use crate::world::put;
use crate::world::relocate;

#[tokio::test]
async fn pages_hold_whole_commits_and_the_nodes_at_both_ends_of_each_entry() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let (a, b, c) = (node_id(), node_id(), node_id());
    alice.one(mkdir(a, alice.place("a"))).await;
    alice.one(mkdir(b, place(a, "b"))).await;
    alice
        .commit((0..9).map(|i| mkdir(node_id(), place(b, &i.to_string()))).collect())
        .await
        .unwrap();
    alice.one(mkdir(c, alice.place("c"))).await;
    // `a` now stands at a later seq than the entry of `b` in it.
    alice.one(relocate(a, alice.place("a"), place(c, "a"), None)).await;
    let first = alice.changes(1, 2).await.unwrap();
    assert!(first.more);
    assert!(first.dirents.iter().any(|d| d.child == Some(b)));
    assert!(first.nodes.iter().any(|n| n.node == a), "the parent of an entry comes along");
    let wide = alice.changes(first.cursor, 5).await.unwrap();
    assert!(wide.dirents.len() >= 9, "a commit is never split");
    let all = alice.changes(0, 2000).await.unwrap();
    assert!(!all.more);
    assert_eq!((all.cursor, all.dirents.len()), (6, 12));
}

#[tokio::test]
async fn tombstones_come_to_those_who_follow_and_not_to_those_who_start() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let file = alice.file("f", b"x").await;
    let cursor = alice.changes(0, 10).await.unwrap().cursor;
    alice.one(Change::Unlink { node: file, place: alice.place("f"), version: None }).await;
    let following = alice.changes(cursor, 10).await.unwrap();
    assert!(following.nodes[0].deleted && following.nodes[0].node == file);
    assert_eq!(following.dirents[0].child, None);
    let starting = alice.changes(0, 10).await.unwrap();
    assert_eq!((starting.nodes.len(), starting.dirents.len()), (1, 0));
    let idle = alice.changes(starting.cursor, 10).await.unwrap();
    assert!(idle.nodes.is_empty() && !idle.more && idle.cursor == starting.cursor);
}

#[tokio::test]
async fn cursors_that_the_server_cannot_go_on_from_are_expired() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    for i in 0..5 {
        alice.dir(alice.root, &i.to_string()).await;
    }
    let e = alice.changes(100, 10).await.expect_err("from the future");
    assert_eq!((e.status, e.code), (410, ErrorCode::CursorLost));
    world
        .server
        .store()
        .write(|sql| {
            sql.exec("UPDATE namespace SET pruned_seq = 4", &[])?;
            Ok::<_, DbError>(())
        })
        .await
        .unwrap();
    assert_eq!(alice.changes(3, 10).await.expect_err("pruned").code, ErrorCode::CursorExpired);
    // But for a list that began since: it has met nothing that was removed before.
    let ask = |began| ChangesRequest {
        ns: alice.ns,
        cursor: 3,
        limit: 10,
        trail: Vec::new(),
        tombstones: false,
        began,
    };
    let listed: ChangesReply = alice.post("/sync/v1/changes", &ask(4)).await.unwrap();
    assert_eq!(listed.head, 6);
    let old = alice.post::<ChangesReply>("/sync/v1/changes", &ask(3)).await;
    assert_eq!(old.expect_err("pruned").code, ErrorCode::CursorExpired);
    assert!(alice.changes(4, 10).await.is_ok());
    assert!(alice.changes(0, 10).await.is_ok());
}

/// Rows and bytes that a device gets that was away for `rounds` changes of each of 40 files.
async fn catch_up(rounds: u32) -> (usize, usize) {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let mut files = Vec::new();
    for i in 0..40 {
        files.push(alice.file(&format!("f{i}"), b"begin").await);
    }
    let mut cursor = alice.changes(0, 2000).await.unwrap().cursor;
    for round in 0..rounds {
        let content = alice.content(format!("round {round:04}").as_bytes()).await;
        let version = u64::from(round) + 1;
        let puts = files.iter().map(|&file| put(file, version, content.clone())).collect();
        alice.commit(puts).await.unwrap();
    }
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let page = alice.changes(cursor, 10).await.unwrap();
        rows += page.nodes.len() + page.dirents.len();
        bytes += serde_json::to_vec(&page).unwrap().len();
        cursor = page.cursor;
        if !page.more {
            return (rows, bytes);
        }
    }
}

#[tokio::test]
async fn catching_up_costs_the_files_that_changed_however_often_they_did() {
    let (once_rows, once_bytes) = catch_up(1).await;
    let (often_rows, often_bytes) = catch_up(25).await;
    assert_eq!(once_rows, often_rows);
    assert!(often_bytes <= once_bytes + once_bytes / 10, "{often_bytes} bytes, not {once_bytes}");
}

#[tokio::test]
async fn who_has_seen_another_history_is_told_and_changes_nothing() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.dir(alice.root, "one").await;
    let now = alice.changes(0, 10).await.unwrap();
    assert_ne!(now.epoch, 0);
    let ask = |epoch, cursor, tombstones| ChangesRequest {
        ns: alice.ns,
        cursor,
        limit: 10,
        trail: vec![Point { epoch, seq: cursor }],
        tombstones,
        began: 0,
    };
    let good: ChangesReply =
        alice.post("/sync/v1/changes", &ask(now.epoch, now.cursor, false)).await.unwrap();
    assert_eq!((good.epoch, good.common), (now.epoch, now.cursor));
    let other = alice.post::<ChangesReply>("/sync/v1/changes", &ask(5, now.cursor, false)).await;
    assert_eq!(other.expect_err("another history").code, ErrorCode::CursorLost);
    let commit = |epoch| CommitRequest {
        ns: alice.ns,
        at: Some(Point { epoch, seq: now.cursor }),
        ops: vec![Op {
            key: OpKey::from_parts(9, [epoch as u8; 10]),
            change: mkdir(node_id(), alice.place("two")),
        }],
        rewinds: None,
    };
    let refused = alice.post::<CommitReply>("/sync/v1/commit", &commit(5)).await;
    assert_eq!(refused.expect_err("another history").code, ErrorCode::CursorLost);
    assert_eq!(alice.changes(0, 10).await.unwrap().cursor, now.cursor);
    let done: CommitReply = alice.post("/sync/v1/commit", &commit(now.epoch)).await.unwrap();
    assert_eq!((done.seq, done.epoch), (now.cursor + 1, now.epoch));
    // A poll that names another history is answered at once, however the numbers are.
    let poll = |epoch| PollRequest {
        cursors: vec![PollCursor { ns: alice.ns, seq: done.seq, epoch }],
        timeout_secs: 1,
    };
    let told: PollReply = alice.post("/sync/v1/poll", &poll(5)).await.unwrap();
    assert_eq!(told.changed, [alice.ns]);
    let told: PollReply = alice.post("/sync/v1/poll", &poll(now.epoch)).await.unwrap();
    assert!(told.changed.is_empty());
    // A list from the start has what was removed, if that is asked for.
    let gone = alice.file("f", b"x").await;
    alice.one(Change::Unlink { node: gone, place: alice.place("f"), version: None }).await;
    let all: ChangesReply = alice.post("/sync/v1/changes", &ask(0, 0, true)).await.unwrap();
    assert!(all.nodes.iter().any(|n| n.node == gone && n.deleted));
    assert!(all.dirents.iter().any(|d| d.child.is_none()));
}

/// Run with `--ignored --nocapture`: the figures of the server's latency.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, proves nothing"]
async fn figures() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let started = Instant::now();
    for i in 0..100 {
        alice.dir(alice.root, &format!("one {i}")).await;
    }
    println!("commit of 1 op: {:?}", started.elapsed() / 100);
    let block = vec![1; 1000];
    let content = alice.content(&block).await;
    for round in 0..3 {
        let dir = alice.dir(alice.root, &format!("round {round}")).await;
        let ops = (0..1000)
            .map(|i| crate::world::create(node_id(), place(dir, &i.to_string()), content.clone()))
            .collect();
        let started = Instant::now();
        alice.commit(ops).await.unwrap();
        println!("commit of 1,000 creates: {:?}", started.elapsed());
    }
    let small: Vec<_> = (0..1000).map(|i| crate::world::noise(i, 4096)).collect();
    let body = crate::world::body_of(&small);
    let started = Instant::now();
    alice.upload_body(body).await.unwrap();
    println!("pack of 1,000 blocks of 4 KiB: {:?}", started.elapsed());
    let large: Vec<_> = (0..16).map(|i| crate::world::noise(i + 5000, 1 << 20)).collect();
    let body = crate::world::body_of(&large);
    let started = Instant::now();
    alice.upload_body(body).await.unwrap();
    println!("pack of 16 MiB: {:?}", started.elapsed());
    let started = Instant::now();
    let page = alice.changes(1, 2000).await.unwrap();
    println!("page of {} rows: {:?}", page.nodes.len() + page.dirents.len(), started.elapsed());
    let mut workers = Vec::new();
    let started = Instant::now();
    for w in 0..16 {
        let alice = alice.clone();
        workers.push(tokio::spawn(async move {
            for i in 0..50 {
                alice.dir(alice.root, &format!("w{w} {i}")).await;
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    println!("16 committers: {:.0} commits/s", 800.0 / started.elapsed().as_secs_f64());
}

/// Run with `--ignored --nocapture`: pages of a large namespace.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, proves nothing"]
async fn figures_of_a_large_tree() {
    const DIRS: usize = 300;
    let world = World::new().await;
    let alice = world.person("alice").await;
    let content = alice.content(b"x").await;
    let started = Instant::now();
    for d in 0..DIRS {
        let dir = node_id();
        let mut ops = vec![mkdir(dir, alice.place(&format!("d{d}")))];
        ops.extend(
            (1..1000).map(|i| {
                crate::world::create(node_id(), place(dir, &i.to_string()), content.clone())
            }),
        );
        alice.commit(ops).await.unwrap();
    }
    println!("{} nodes made in {:?}", DIRS * 1000, started.elapsed());
    let (mut cursor, mut pages, mut worst) = (0, 0, std::time::Duration::ZERO);
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let page = alice.changes(cursor, 2000).await.unwrap();
        worst = worst.max(asked.elapsed());
        pages += 1;
        cursor = page.cursor;
        if !page.more {
            break;
        }
    }
    println!("{pages} pages in {:?}, the slowest {worst:?}", started.elapsed());
}
