//! `fsck` names exactly what was damaged, and sets right what can be.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_server::drive::fsck;
use drivefs_server::drive::fsck::Options;
use drivefs_server::drive::fsck::Report;
use drivefs_server::metadata::DbError;

use crate::world::Person;
use crate::world::World;
use crate::world::create;
use crate::world::entry_of;
use crate::world::node_id;
use crate::world::noise;
use crate::world::put;

const LOOK: Options = Options { repair: false, quick: false, orphan_grace_secs: 3600 };
const REPAIR: Options = Options { repair: true, ..LOOK };

pub async fn check(world: &World, options: Options) -> Report {
    fsck::run(world.server.drive(), options, Arc::default()).await.unwrap()
}

pub fn kinds(report: &Report) -> Vec<&str> {
    let mut kinds: Vec<_> = report.findings.iter().map(|f| f.kind).collect();
    kinds.sort_unstable();
    kinds
}

/// Runs a statement behind the server's back.
pub async fn meddle(world: &World, statement: &'static str) -> u64 {
    world.server.store().write(move |sql| sql.exec(statement, &[])).await.unwrap()
}

/// The files of all packs.
pub fn packs(data: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for fan in fs::read_dir(data.join("blocks")).unwrap() {
        for pack in fs::read_dir(fan.unwrap().path()).unwrap() {
            out.push(pack.unwrap().path());
        }
    }
    out.sort();
    out
}

/// Flips one bit.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A file of so many blocks, with segments.
pub async fn large_file(alice: &Person, name: &str, blocks: u64) {
    let blocks: Vec<_> = (0..blocks).map(|i| noise(7_000 + i, 100)).collect();
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    let (root, segments) = Root::build(&entries);
    assert!(!segments.is_empty(), "large enough for segments");
    alice.upload(&blocks).await;
    let lists: Vec<_> = segments.into_iter().map(|s| s.bytes).collect();
    alice.upload(&lists).await;
    alice.one(create(node_id(), alice.place(name), Blob(root.encode()))).await;
}

/// A server with two accounts, files, versions, links, deletions and a large file.
async fn lived_in() -> (World, Person) {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    bob.file("his", &noise(1, 3000)).await;
    let node = alice.file("a", &noise(2, 5000)).await;
    for i in 0..3 {
        let content = alice.content(&noise(10 + i, 4000)).await;
        alice.one(put(node, 1 + i, content)).await;
    }
    let folder = alice.dir(alice.root, "folder").await;
    let place = crate::world::place(folder, "other name");
    alice.one(Change::Link { node, place }).await;
    let gone = alice.file("gone", &noise(20, 700)).await;
    alice.one(Change::Unlink { node: gone, place: alice.place("gone"), version: None }).await;
    large_file(&alice, "large", 300).await;
    (world, alice)
}

#[tokio::test]
async fn a_server_in_use_is_clean() {
    let (world, _alice) = lived_in().await;
    let report = check(&world, LOOK).await;
    assert!(report.clean && report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!((report.accounts, report.versions), (2, 7));
    assert!(report.blocks > 300 && report.packs >= 8, "{report:?}");
    let quick = check(&world, Options { quick: true, ..LOOK }).await;
    assert!(quick.clean && quick.blocks == 0);
}

#[tokio::test]
async fn a_damaged_byte_is_one_finding_that_names_block_and_file() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("good", &noise(1, 3000)).await;
    let before = packs(world.dir.path());
    let node = alice.file("bad", &noise(2, 3000)).await;
    let pack = packs(world.dir.path()).into_iter().find(|p| !before.contains(p)).unwrap();
    flip(&pack, 600);
    let report = check(&world, LOOK).await;
    assert_eq!(kinds(&report), ["block"], "{:#?}", report.findings);
    let what = &report.findings[0].what;
    assert!(what.contains(pack.file_name().unwrap().to_str().unwrap()), "{what}");
    assert!(what.contains(&BlockHash::of(&noise(2, 3000)).to_string()), "{what}");
    assert!(what.contains("does not decrypt"), "{what}");
    let hit = format!("hit: namespace {} file {node} version 1", alice.ns);
    assert_eq!(report.notes, [hit]);
    // There is no other copy: a repair says so and makes nothing worse.
    let report = check(&world, REPAIR).await;
    assert_eq!(kinds(&report), ["block"]);
    assert!(report.findings[0].advice.unwrap().contains("backup"));
    flip(&pack, 600);
    assert!(check(&world, LOOK).await.clean);
}

#[tokio::test]
async fn a_bad_block_of_a_large_file_names_the_file_by_its_segment() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.file("small", &noise(1, 3000)).await;
    large_file(&alice, "large", 300).await;
    let size = |p: &PathBuf| fs::metadata(p).unwrap().len();
    let pack = packs(world.dir.path()).into_iter().max_by_key(size).unwrap();
    flip(&pack, 150);
    let report = check(&world, LOOK).await;
    assert_eq!(kinds(&report), ["block"]);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    let large = alice.changes(0, 100).await.unwrap();
    let named = large.nodes.iter().find(|n| report.notes[0].contains(&n.node.to_string())).unwrap();
    let size = |content: &Blob| Root::decode(&content.0).unwrap().size();
    assert_eq!(named.content.as_ref().map(size), Some(30_000));
}

#[tokio::test]
async fn every_part_of_a_pack_is_looked_at() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    alice.upload(&[noise(1, 3000), noise(2, 2000)]).await;
    let pack = packs(world.dir.path()).remove(0);
    let whole = fs::read(&pack).unwrap();
    let length = whole.len();
    for (at, kind) in [
        (0, "pack-head"),
        (8, "pack-head"),
        (25, "pack-head"),
        (200, "block"),
        (length - 60, "pack-index"),
        (length - 1, "pack-index"),
    ] {
        flip(&pack, at);
        assert_eq!(kinds(&check(&world, LOOK).await), [kind], "byte {at}");
        fs::write(&pack, &whole).unwrap();
    }
    fs::write(&pack, &whole[..length - 100]).unwrap();
    assert_eq!(kinds(&check(&world, LOOK).await), ["pack-index", "pack-length"]);
    fs::remove_file(&pack).unwrap();
    let report = check(&world, LOOK).await;
    assert_eq!(kinds(&report), ["block", "block", "pack-gone"]);
    fs::write(&pack, &whole).unwrap();
    assert!(check(&world, LOOK).await.clean);
}

#[tokio::test]
async fn rows_that_do_not_agree_are_found_and_those_that_can_be_are_set_right() {
    // What is done to the rows, what is told of it, and whether a repair is safe.
    let cases: &[(&'static str, &[&str], bool)] = &[
        ("UPDATE user SET used = used + 7 WHERE email = 'alice@example.com'", &["used"], true),
        ("UPDATE user SET used = 0", &["used", "used"], true),
        ("DELETE FROM member WHERE role = 3", &["owner-member", "owner-member"], true),
        ("UPDATE pack SET size = size + 1 WHERE blocks > 200", &["pack-length"], true),
        ("UPDATE pack SET blocks = 1 WHERE blocks > 200", &["pack-blocks"], true),
        (
            "UPDATE pack SET wrapped_key = zeroblob(length(wrapped_key)) WHERE blocks > 200",
            &["pack-key"],
            true,
        ),
        ("DELETE FROM block WHERE block_len = 3000", &["block-row"], true),
        (
            "UPDATE block SET offset_bytes = offset_bytes + 1 WHERE block_len = 3000",
            &["block"],
            true,
        ),
        ("UPDATE block SET idx = idx + 1 WHERE block_len = 3000", &["block"], true),
        ("UPDATE block SET sealed_len = 1000000 WHERE block_len = 3000", &["block"], true),
        (
            "DELETE FROM pack WHERE pack IN (SELECT pack FROM block WHERE block_len = 3000)",
            &["pack-row"],
            true,
        ),
        (
            "UPDATE block SET segment_entries = NULL, segment_bytes = NULL
             WHERE hash = (SELECT hash FROM block WHERE segment_entries > 0 ORDER BY hash LIMIT 1)",
            &["segment-row"],
            true,
        ),
        (
            "INSERT INTO kept_version SELECT ns, node, 9, 'x', 1 FROM file_version
             WHERE version = 4",
            &["kept-version"],
            true,
        ),
        (
            "UPDATE dirent SET child = x'00000000000000000000000000000001' WHERE name = x'61'",
            &["entry-node"],
            false,
        ),
        ("DELETE FROM dirent WHERE name = x'6c61726765'", &["node-unnamed"], false),
        ("UPDATE node SET version = 9 WHERE version = 4", &["head-version", "used"], false),
        (
            "UPDATE node SET version = 2 WHERE version = 4",
            &["version-order", "version-order"],
            false,
        ),
        ("UPDATE namespace SET seq = seq - 1 WHERE seq > 5", &["seq", "seq"], false),
        ("DELETE FROM node WHERE deleted_ns IS NOT NULL", &["version-node"], false),
        (
            "DELETE FROM namespace WHERE seq > 5",
            &[
                "member",
                "node-namespace",
                "node-namespace",
                "node-namespace",
                "node-namespace",
                "node-namespace",
                "node-unnamed",
                "used",
                "user-root",
            ],
            false,
        ),
    ];
    let (world, _alice) = lived_in().await;
    for (statement, told, _) in cases.iter().filter(|case| case.2) {
        assert!(meddle(&world, statement).await > 0, "{statement} changes something");
        let report = check(&world, LOOK).await;
        assert_eq!(kinds(&report), *told, "{statement}: {:#?}", report.findings);
        let mended = check(&world, REPAIR).await;
        assert!(mended.clean, "{statement}: {:#?}", mended.findings);
        assert!(mended.findings.iter().all(|f| f.repaired));
        let after = check(&world, LOOK).await;
        assert!(after.clean && after.findings.is_empty(), "{statement}: {after:#?}");
    }
    for (statement, told, _) in cases.iter().filter(|case| !case.2) {
        let broken = broken_copy(&world, statement).await;
        let report = check(&broken, LOOK).await;
        assert_eq!(kinds(&report), *told, "{statement}: {:#?}", report.findings);
        let tried = check(&broken, REPAIR).await;
        assert!(!tried.clean, "{statement}");
        assert!(tried.findings.iter().filter(|f| !f.repaired).all(|f| f.advice.is_some()));
    }
}

/// A server over a copy of the data, with a statement run on it.
async fn broken_copy(world: &World, statement: &'static str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    drivefs_server::metadata::snapshot::copy(
        &world.dir.path().join("metadata.db"),
        &data.join("metadata.db"),
    )
    .unwrap();
    fs::copy(world.dir.path().join("master.key"), data.join("master.key")).unwrap();
    for pack in packs(world.dir.path()) {
        let to = data.join(pack.strip_prefix(world.dir.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(pack, to).unwrap();
    }
    let server = drivefs_server::app::Server::start(drivefs_server::config::Config::local(data));
    let copy = World { server: server.await.unwrap(), dir };
    assert!(meddle(&copy, statement).await > 0, "{statement} changes something");
    copy
}

#[tokio::test]
async fn a_server_whose_packs_are_not_mounted_does_not_start() {
    let (world, _alice) = lived_in().await;
    let World { server, dir } = world;
    server.stop().await.unwrap();
    let blocks = dir.path().join("blocks");
    fs::rename(&blocks, dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&blocks).unwrap();
    let config = || drivefs_server::config::Config::local(dir.path());
    let refused = drivefs_server::app::Server::start(config()).await.err().unwrap().to_string();
    assert!(refused.contains("mounted"), "{refused}");
    fs::remove_dir(&blocks).unwrap();
    fs::rename(dir.path().join("elsewhere"), &blocks).unwrap();
    drivefs_server::app::Server::start(config()).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_block_whose_pack_is_lost_is_found_again_in_a_pack_that_lost_the_race() {
    let world = World::new().await;
    let alice = world.person("alice").await;
    let block = noise(5, 2000);
    alice.file("file", &block).await;
    let first = packs(world.dir.path()).remove(0);
    // As after a race of two uploads: another pack holds the block, its row names the first.
    meddle(&world, "CREATE TABLE aside AS SELECT * FROM block").await;
    meddle(&world, "DELETE FROM block").await;
    alice.upload(std::slice::from_ref(&block)).await;
    meddle(&world, "DELETE FROM block").await;
    meddle(&world, "INSERT INTO block SELECT * FROM aside").await;
    assert!(check(&world, LOOK).await.clean);
    fs::remove_file(first).unwrap();
    assert_eq!(kinds(&check(&world, LOOK).await), ["block", "pack-gone"]);
    let mended = check(&world, REPAIR).await;
    assert!(mended.clean, "{mended:#?}");
    assert!(check(&world, LOOK).await.findings.is_empty());
}

#[tokio::test]
async fn orphan_packs_are_told_and_left_alone() {
    let (world, alice) = lived_in().await;
    alice.upload(&[noise(99, 900)]).await;
    meddle(&world, "DELETE FROM pack WHERE pack IN (SELECT pack FROM block WHERE block_len = 900)")
        .await;
    meddle(&world, "DELETE FROM block WHERE block_len = 900").await;
    let before = packs(world.dir.path()).len();
    let young = check(&world, LOOK).await;
    assert!(young.clean && young.orphan_packs == 1, "{young:#?}");
    assert!(young.notes[0].contains("under way"), "{:?}", young.notes);
    let old = check(&world, Options { orphan_grace_secs: 0, ..REPAIR }).await;
    assert!(old.clean && old.orphan_packs == 1);
    assert!(old.notes[0].contains("nothing refers"), "{:?}", old.notes);
    assert_eq!(packs(world.dir.path()).len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_beside_writers_finds_nothing_wrong_and_holds_nobody_up() {
    let (world, alice) = lived_in().await;
    let writing = tokio::spawn(async move {
        for i in 0..150 {
            let node = alice.file(&format!("w{i}"), &noise(500 + i, 1500)).await;
            if i % 3 == 0 {
                let place = alice.place(&format!("w{i}"));
                alice.one(Change::Unlink { node, place, version: None }).await;
            }
        }
    });
    let mut rounds = 0;
    while !writing.is_finished() {
        let report = check(&world, REPAIR).await;
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        rounds += 1;
    }
    writing.await.unwrap();
    assert!(rounds > 1, "{rounds} rounds");
    let done: Result<u64, DbError> =
        world.server.store().read(drivefs_server::metadata::scrubbed::count).await;
    assert_eq!(done, Ok(0));
}
