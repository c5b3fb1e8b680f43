//! What goes and what stays: history policy, collection, compaction.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use drivefs_core::codec;
use drivefs_core::frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use drivefs_core::manifest::Root;
use drivefs_core::wire::Blob;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::Change;
use drivefs_core::wire::EmptyReply;
use drivefs_core::wire::EmptyRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::KeepReply;
use drivefs_core::wire::KeepRequest;
use drivefs_core::wire::MissingReply;
use drivefs_core::wire::MissingRequest;
use drivefs_core::wire::Source;
use drivefs_core::wire::VersionsReply;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::WantedBlock;
use drivefs_core::wire::Which;
use drivefs_server::drive::Drive;
use drivefs_server::drive::collect::Collected;
use drivefs_server::drive::collect::Grace;
use drivefs_server::drive::collect::Round;
use drivefs_server::drive::compact::Compacted;
use drivefs_server::drive::mounts;
use drivefs_server::drive::mounts::Guest;
use drivefs_server::drive::policy::Policy;
use drivefs_server::drive::prune;
use drivefs_server::drive::prune::Pruned;
use drivefs_server::metadata::policies;

use crate::world::Person;
use crate::world::World;
use crate::world::content_of;
use crate::world::create;
use crate::world::entry_of;
use crate::world::name;
use crate::world::node_id;
use crate::world::noise;
use crate::world::put;

const NOW: Grace = Grace { block: 0, dead: 0, orphan: 3600 };

/// One round; `last` is the number of the one before.
async fn round(drive: &Drive, last: u64) -> Collected {
    let mut round = Round::begin(drive, NOW, Some(last), None).await.unwrap();
    while round.step(drive).await.unwrap() {}
    assert_eq!(round.done.unsure, 0);
    round.done
}

/// As many rounds as it takes for all that is unused to be gone.
pub async fn rounds(drive: &Drive, last: u64) -> Collected {
    let first = round(drive, last).await;
    let second = round(drive, last + 1).await;
    Collected { doomed: first.doomed, ..second }
}

pub async fn pruned(drive: &Drive) -> Pruned {
    let (mut at, mut done) = (prune::Position::default(), Pruned::default());
    while let Some(next) = drive.prune(at, &mut done).await.unwrap() {
        at = next;
    }
    done
}

pub async fn compacted(drive: &Drive) -> Compacted {
    let (mut after, mut done) = (None, Compacted::default());
    loop {
        after = drive.compact(after, 0, &mut done).await.unwrap();
        if after.is_none() {
            return done;
        }
    }
}

async fn set_policy(world: &World, person: &Person, policy: Policy) {
    let (ns, text) = (person.ns, serde_json::to_string(&policy).unwrap());
    world.server.store().write(move |sql| policies::set(sql, ns, Some(&text))).await.unwrap();
}

pub async fn is_missing(person: &Person, block: &[u8]) -> bool {
    let request = MissingRequest { ns: person.ns, hashes: vec![BlockHash::of(block)] };
    let reply: MissingReply = person.post("/sync/v1/missing", &request).await.unwrap();
    !reply.missing.is_empty()
}

/// A block as the server hands it out.
async fn read(person: &Person, hash: BlockHash) -> Option<Vec<u8>> {
    let blocks = vec![WantedBlock { hash, base: None }];
    let response = person
        .http
        .post(format!("{}/sync/v1/blocks", person.url))
        .header("x-drivefs-wire", "1")
        .bearer_auth(&person.token)
        .body(serde_json::to_vec(&BlocksRequest { ns: person.ns, blocks }).unwrap())
        .send()
        .await
        .unwrap();
    if response.status() != 200 {
        return None;
    }
    let body = response.bytes().await.unwrap();
    let frames = frame::parse(&body).unwrap();
    let plain =
        codec::decode(frames[0].codec, frames[0].encoded, frames[0].block_len as usize, None);
    Some(plain.unwrap().into_owned())
}

pub async fn has(person: &Person, block: &[u8]) -> bool {
    read(person, BlockHash::of(block)).await.is_some_and(|found| found == block)
}

async fn versions(person: &Person, node: NodeId) -> Vec<u64> {
    let request =
        VersionsRequest { ns: person.ns, of: Which::Node(node), before: None, limit: 100 };
    let reply: VersionsReply = person.post("/sync/v1/versions", &request).await.unwrap();
    reply.versions.iter().map(|v| v.version).collect()
}

fn objects(world: &World) -> usize {
    let folders = std::fs::read_dir(world.dir.path().join("blocks")).unwrap();
    folders.map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().count()).sum()
}

pub async fn remove(person: &Person, node: NodeId, called: &str) {
    person.one(Change::Unlink { node, place: person.place(called), version: None }).await;
}

pub async fn empty_trash(person: &Person) {
    let request = EmptyRequest { ns: person.ns };
    let _: EmptyReply = person.post("/sync/v1/trash/empty", &request).await.unwrap();
}

#[tokio::test]
async fn what_nothing_refers_to_goes_in_the_second_round_and_not_before() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    alice.file("f", b"in a file").await;
    alice.upload(&[b"in none".to_vec()]).await;
    let first = round(drive, 0).await;
    assert_eq!((first.blocks, first.doomed, first.removed), (2, 1, 0));
    assert!(has(&alice, b"in none").await, "it is still read by who refers to it");
    assert!(is_missing(&alice, b"in none").await, "but nobody may refer to it anew");
    let second = round(drive, 1).await;
    assert_eq!((second.doomed, second.removed, second.packs), (0, 1, 1));
    assert!(!has(&alice, b"in none").await);
    assert!(has(&alice, b"in a file").await);
    assert_eq!(objects(&world), 1);
}

#[tokio::test]
async fn a_doomed_block_that_is_sent_again_stays() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    alice.upload(&[b"late".to_vec()]).await;
    assert_eq!(round(drive, 0).await.doomed, 1);
    let late = || create(node_id(), alice.place("f"), content_of(&[b"late"]));
    assert_eq!(alice.rejected(late()).await, ErrorCode::MissingBlocks);
    assert_eq!(alice.upload(&[b"late".to_vec()]).await, 1);
    alice.one(late()).await;
    let second = round(drive, 1).await;
    assert_eq!((second.doomed, second.removed), (0, 0));
    round(drive, 2).await;
    assert!(has(&alice, b"late").await);
    assert_eq!(objects(&world), 1, "the first copy is gone");
}

#[tokio::test]
async fn young_blocks_are_left_alone() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    alice.upload(&[b"on its way".to_vec()]).await;
    let grace = Grace::default();
    for last in 0..3 {
        let mut round = Round::begin(drive, grace, Some(last), None).await.unwrap();
        while round.step(drive).await.unwrap() {}
        assert_eq!((round.done.doomed, round.done.removed), (0, 0));
    }
    assert!(!is_missing(&alice, b"on its way").await);
}

#[tokio::test]
async fn the_policy_removes_versions_but_never_the_head_or_what_is_kept() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    let file = alice.file("f", b"version 1").await;
    for version in 1..6u64 {
        let content = alice.content(format!("version {}", version + 1).as_bytes()).await;
        alice.one(put(file, version, content)).await;
    }
    let keep = KeepRequest { ns: alice.ns, node: file, version: 2, keep: true };
    let _: KeepReply = alice.post("/sync/v1/keep", &keep).await.unwrap();
    assert_eq!(pruned(drive).await.versions, 0, "they are fresh");
    set_policy(&world, &alice, Policy { versions: 3, ..Policy::default() }).await;
    assert_eq!(pruned(drive).await.versions, 2);
    assert_eq!(versions(&alice, file).await, [6, 5, 4, 2]);
    assert_eq!(pruned(drive).await.versions, 0);
    rounds(drive, 0).await;
    for (version, there) in [(1, false), (2, true), (3, false), (4, true), (5, true), (6, true)] {
        assert_eq!(has(&alice, format!("version {version}").as_bytes()).await, there, "{version}");
    }
    assert_eq!(alice.used().await, 9, "history is free");
}

#[tokio::test]
async fn what_left_the_trash_frees_its_bytes() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    let (gone, stays) = (alice.file("gone", b"gone").await, alice.file("trash", b"trash").await);
    remove(&alice, gone, "gone").await;
    empty_trash(&alice).await;
    remove(&alice, stays, "trash").await;
    assert_eq!(pruned(drive).await.versions, 1);
    rounds(drive, 0).await;
    assert!(!has(&alice, b"gone").await);
    assert!(has(&alice, b"trash").await);
    alice.one(Change::Restore { node: stays, place: alice.place("back") }).await;
    // After its time it goes by itself.
    remove(&alice, stays, "back").await;
    set_policy(&world, &alice, Policy { trash_days: 0, ..Policy::default() }).await;
    assert_eq!(pruned(drive).await.versions, 1);
    let back = alice.try_one(Change::Restore { node: stays, place: alice.place("back") }).await;
    assert!(!matches!(back, drivefs_core::wire::OpResult::Done { .. }), "{back:?}");
    rounds(drive, 2).await;
    assert!(!has(&alice, b"trash").await);
}

#[tokio::test]
async fn lists_of_blocks_are_followed() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    let blocks: Vec<_> = (0..300).map(|i| noise(i, 100)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    let lists: Vec<_> = segments.iter().map(|s| s.bytes.clone()).collect();
    alice.upload(&blocks).await;
    alice.upload(&lists).await;
    let file = node_id();
    let content = Blob(root.encode());
    alice.one(create(file, alice.place("large"), content.clone())).await;
    let done = rounds(drive, 0).await;
    assert_eq!((done.doomed, done.removed), (0, 0));
    remove(&alice, file, "large").await;
    empty_trash(&alice).await;
    pruned(drive).await;
    let doomed = round(drive, 2).await.doomed;
    assert_eq!(doomed, (blocks.len() + lists.len()) as u64);
    // A list that is sent again says nothing about the blocks that it lists.
    alice.upload(&lists).await;
    let again = create(node_id(), alice.place("again"), content.clone());
    assert_eq!(alice.rejected(again.clone()).await, ErrorCode::MissingBlocks);
    alice.upload(&blocks).await;
    alice.one(again).await;
    let done = rounds(drive, 3).await;
    assert_eq!(done.removed, 0);
    for block in blocks.iter().chain(&lists) {
        assert!(has(&alice, block).await);
    }
}

#[tokio::test]
async fn what_an_upload_under_way_has_stored_stays_until_it_ends_or_is_given_up() {
    const PART: usize = 9 << 20;
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    let bytes = noise(7, 2 * PART);
    let at = alice.begin(serde_json::json!({ "path": "/large", "size": bytes.len() })).await;
    let total = bytes.len();
    let first = format!("0-{}/{total}", PART - 1);
    assert_eq!(alice.part(&at, &first, &bytes[..PART]).await.status, 308);
    alice.upload(&[b"of nobody".to_vec()]).await;
    let done = rounds(drive, 0).await;
    assert_eq!((done.doomed, done.removed), (1, 1));
    // A block that was found unused is wanted after all.
    let wanted = "UPDATE block SET doomed = 3";
    world.server.store().write(|sql| sql.exec(wanted, &[]).map(drop)).await.unwrap();
    let rest = format!("{PART}-{}/{total}", total - 1);
    round(drive, 3).await;
    let put = alice.part(&at, &rest, &bytes[PART..]).await;
    assert!(put.status == 200 || put.status == 201, "{} {}", put.status, put.json);
    rounds(drive, 4).await;
    assert!(alice.bytes_at("/large").await == bytes);
}

#[tokio::test]
async fn packs_with_little_in_them_are_written_anew() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let drive = world.server.drive();
    let blocks: Vec<_> = (0..10).map(|i| noise(i, 10_000)).collect();
    alice.upload(&blocks).await;
    for i in [3, 7] {
        let content = content_of(&[&blocks[i]]);
        alice.one(create(node_id(), alice.place(&format!("f{i}")), content)).await;
    }
    assert_eq!(compacted(drive).await.rewritten, 0, "all of it may be wanted yet");
    assert_eq!(rounds(drive, 0).await.removed, 8);
    let done = compacted(drive).await;
    assert_eq!((done.rewritten, done.damaged), (1, 0));
    assert!(done.freed_bytes > 80_000, "{done:?}");
    assert_eq!(objects(&world), 2, "who reads the old one now goes on");
    assert_eq!(round(drive, 2).await.packs, 1);
    assert_eq!(objects(&world), 1);
    for (i, block) in blocks.iter().enumerate() {
        assert_eq!(has(&alice, block).await, [3, 7].contains(&i), "{i}");
    }
    assert_eq!(compacted(drive).await.rewritten, 0);
}

#[tokio::test]
async fn what_another_account_took_over_stays_with_it() {
    let world = World::new().await;
    let (alice, bob) = (world.person("alice").await, world.person("bob").await);
    let drive = world.server.drive();
    let guest = Guest { email: "bob@example.com".into(), role: drivefs_core::wire::Role::Editor };
    let ns = mounts::add(world.server.store(), "alice@example.com", Some(guest), name("team"));
    let ns = ns.await.unwrap();
    let team = alice.at(ns).await;
    let block = noise(1, 5_000);
    team.upload(&[block.clone(), noise(2, 50_000)]).await;
    let shared = node_id();
    team.one(create(shared, team.place("f"), content_of(&[&block]))).await;
    let mut copy = create(node_id(), bob.place("mine"), content_of(&[&block]));
    if let Change::Put { source, .. } = &mut copy {
        *source = Some(Source { ns, node: shared });
    }
    bob.one(copy).await;
    remove(&team, shared, "f").await;
    empty_trash(&team).await;
    pruned(drive).await;
    assert_eq!(rounds(drive, 0).await.removed, 2);
    assert!(!has(&team, &block).await);
    assert!(has(&bob, &block).await);
    assert_eq!(compacted(drive).await.rewritten, 1);
    round(drive, 2).await;
    assert!(has(&bob, &block).await);
    drop(alice);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_stops_the_collection_of_its_account() {
    let world = World::new().await;
    let (alice, bob) = (world.person("alice").await, world.person("bob").await);
    let drive = world.server.drive();
    let blocks: Vec<_> = (0..300).map(|i| noise(i, 100)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    alice.upload(&blocks).await;
    let before = files(&world);
    alice.upload(&segments.iter().map(|s| s.bytes.clone()).collect::<Vec<_>>()).await;
    alice.one(create(node_id(), alice.place("large"), Blob(root.encode()))).await;
    let pack = files(&world).into_iter().find(|f| !before.contains(f)).unwrap();
    bob.upload(&[b"unused".to_vec()]).await;
    alice.upload(&[b"unused".to_vec()]).await;
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes.iter_mut().skip(100).for_each(|byte| *byte ^= 1);
    std::fs::write(&pack, bytes).unwrap();
    let (mut doomed, mut unsure) = (0, 0);
    for last in 0..2 {
        let mut round = Round::begin(drive, NOW, Some(last), None).await.unwrap();
        while round.step(drive).await.unwrap() {}
        doomed += round.done.doomed;
        unsure += round.done.unsure;
    }
    assert_eq!((doomed, unsure), (1, 2), "the other account's block alone");
    for block in &blocks {
        assert!(has(&alice, block).await);
    }
}

pub fn files(world: &World) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(world.dir.path().join("blocks")).unwrap();
    let inside = folders.flat_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap());
    inside.map(|f| f.unwrap().path()).collect()
}

/// Uploads, commits, overwrites and removals by two devices, while rounds and compactions follow
/// each other without any grace: at the end every live content is there.
#[tokio::test(flavor = "multi_thread")]
async fn no_live_byte_goes_while_others_write() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    set_policy(&world, &alice, Policy { versions: 1, ..Policy::default() }).await;
    let drive = world.server.drive().clone();
    let over = Arc::new(AtomicBool::new(false));
    let tidying = {
        let over = Arc::clone(&over);
        tokio::spawn(async move {
            let mut done = Collected::default();
            let mut last = 0;
            while !over.load(Ordering::SeqCst) {
                pruned(&drive).await;
                let one = round(&drive, last).await;
                compacted(&drive).await;
                done.removed += one.removed;
                done.doomed += one.doomed;
                last += 1;
            }
            done
        })
    };
    let writers = (0..2u64).map(|writer| {
        let alice = alice.clone();
        tokio::spawn(async move { write_much(&alice, writer).await })
    });
    let mut live = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        live.extend(writer.await.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    let done = tidying.await.unwrap();
    assert!(done.removed > 20, "{done:?}");
    for block in &live {
        assert!(has(&alice, block).await);
    }
    rounds(world.server.drive(), 1 << 20).await;
    for block in &live {
        assert!(has(&alice, block).await, "after everything was still");
    }
}

/// Few contents that come again and again, so that what is about to go is wanted. Answers what is
/// in a file at the end.
async fn write_much(person: &Person, writer: u64) -> Vec<Vec<u8>> {
    const CONTENTS: u64 = 40;
    let mut files: Vec<(NodeId, String, u64, Vec<u8>)> = Vec::new();
    for step in 0..400u64 {
        let bytes = noise(writer << 32 | step, 2);
        let dice = u64::from(bytes[0]) << 8 | u64::from(bytes[1]);
        let block = noise(1_000 + dice % CONTENTS, 3_000);
        let content = content_of(&[&block]);
        match dice % 4 {
            0 | 1 if files.len() > 4 => {
                let (node, called, ..) = files.remove(0);
                remove(person, node, &called).await;
                empty_trash(person).await;
            }
            2 if !files.is_empty() => {
                let (node, _, version, old) = files.last_mut().unwrap();
                *version = held(person, &block, put(*node, *version, content)).await;
                *old = block;
            }
            _ => {
                let (node, called) = (node_id(), format!("f{writer}-{step}"));
                let made = create(node, person.place(&called), content);
                let version = held(person, &block, made).await;
                files.push((node, called, version, block));
            }
        }
    }
    files.into_iter().map(|(.., block)| block).collect()
}

/// Commits as a client does: asks whether the block is there, and sends it when the server says so.
async fn held(person: &Person, block: &Vec<u8>, change: Change) -> u64 {
    let mut send = is_missing(person, block).await;
    loop {
        if send {
            person.upload(std::slice::from_ref(block)).await;
        }
        match person.try_one(change.clone()).await {
            drivefs_core::wire::OpResult::Done { version, .. } => return version,
            drivefs_core::wire::OpResult::Rejected { code: ErrorCode::MissingBlocks, .. } => {
                send = true;
            }
            other => panic!("{other:?}"),
        }
    }
}
