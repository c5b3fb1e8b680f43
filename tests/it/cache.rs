//! The reading side without a kernel: flights, batches, read-ahead, the bound, pins.

use std::sync::Arc;

use drivefs::cache::BlockCache;
use drivefs::state::Node;
use drivefs::sync::Pins;
use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;

use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;

const MIB: usize = 1 << 20;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn cache<'d>(device: &'d Device<'_>) -> &'d Arc<BlockCache> {
    device.fs().spool().cache()
}

fn node(device: &Device<'_>, path: &str) -> Node {
    device.fs().tree().node(device.nid(path)).expect(path)
}

fn blocks(device: &Device<'_>, path: &str) -> Vec<(BlockHash, u32)> {
    let content = node(device, path).content.expect("content");
    match Root::decode(&content).expect("a manifest") {
        Root::Inline(entries) => entries.iter().map(|e| (e.hash, e.len)).collect(),
        Root::Segmented(_) => panic!("small enough for one root"),
    }
}

#[test]
fn a_block_is_fetched_once_however_many_ask() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.bin", &noise(1, 100_000));
    all_sync(&[&alice, &bob]);
    let (hash, _) = blocks(&bob, "a.bin")[0];
    let ns = node(&bob, "a.bin").ns;
    let got = world.runtime.block_on(async {
        let many = (0..50).map(|_| cache(&bob).fetch(ns, hash));
        futures_util::future::join_all(many).await
    });
    assert!(got.into_iter().all(|block| block.expect("fetched") == noise(1, 100_000)));
    assert_eq!((cache(&bob).counts().requests, cache(&bob).counts().fetched_blocks), (1, 1));
}

#[test]
fn a_stream_is_fetched_ahead_in_few_requests_and_a_random_reader_gets_what_it_reads() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    let bytes = noise(2, 24 * MIB);
    alice.write("stream.bin", &bytes);
    alice.write("random.bin", &noise(3, 24 * MIB));
    all_sync(&[&alice, &bob]);
    let fs = bob.fs();
    let nid = bob.nid("random.bin");
    let handle = fs.open(nid, false).expect("opens");
    let list = blocks(&bob, "random.bin");
    let mut at = 0;
    for (_, len) in list.iter().step_by(3) {
        bob.read_handle(nid, handle, at, 4096).expect("reads");
        at += 3 * u64::from(*len) / 2;
    }
    fs.release(handle).expect("closes");
    let counts = cache(&bob).counts();
    assert_eq!((counts.ahead_blocks, counts.ahead_requests), (0, 0));
    assert!(counts.fetched_blocks <= list.len().div_ceil(3) as u64 + 1);

    let nid = bob.nid("stream.bin");
    let handle = fs.open(nid, false).expect("opens");
    for (i, piece) in bytes.chunks(MIB / 8).enumerate() {
        let at = (i * MIB / 8) as u64;
        assert_eq!(bob.read_handle(nid, handle, at, MIB / 8).expect("reads"), piece);
    }
    fs.release(handle).expect("closes");
    let stream = cache(&bob).counts();
    let fetched = stream.fetched_blocks - counts.fetched_blocks;
    assert!(stream.ahead_blocks > fetched / 2, "{stream:?}");
    assert!(stream.requests - counts.requests < fetched, "{stream:?}");
}

#[test]
fn a_block_that_the_server_lacks_does_not_fail_those_beside_it() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.write("a.bin", &noise(4, 50_000));
    all_sync(&[&alice, &bob]);
    let (hash, len) = blocks(&bob, "a.bin")[0];
    let ns = node(&bob, "a.bin").ns;
    let unknown = BlockHash::of(b"nobody has this");
    let got = world.runtime.block_on(async {
        cache(&bob).fetch_ahead(ns, &[(hash, len), (unknown, 10)]);
        assert!(cache(&bob).fetch(ns, unknown).await.is_err());
        cache(&bob).fetch(ns, hash).await
    });
    assert_eq!(got.expect("fetched alone"), noise(4, 50_000));
}

#[test]
fn what_is_pinned_is_fetched_kept_and_let_go() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("folder");
    alice.mkdir("folder/sub");
    for n in 0..30 {
        alice.write(&format!("folder/sub/{n}.txt"), &noise(100 + n, 3000));
    }
    alice.write("folder/large.bin", &noise(5, 9 * MIB));
    alice.write("beside.bin", &noise(6, 1000));
    all_sync(&[&alice, &bob]);
    let tree = bob.fs().tree();
    let pins = Pins::new(tree.clone());
    let (progress, told) = tokio::sync::watch::channel(Default::default());
    let done = world.runtime.block_on(pins.pin(bob.nid("folder"), &progress)).expect("pins");
    assert_eq!((done.files, done.bytes), (31, 30 * 3000 + 9 * MIB as u64));
    assert_eq!(done.here, done.bytes);
    assert_eq!(*told.borrow(), done);
    let here = |path: &str| {
        let holdings = bob.fs().spool().holdings(&node(&bob, path)).expect("readable");
        holdings.here == holdings.bytes
    };
    assert!(here("folder/large.bin") && here("folder/sub/7.txt") && !here("beside.bin"));
    assert_eq!(tree.pinned_by(bob.nid("folder/sub/7.txt")).expect("told"), Some("folder".into()));
    assert_eq!(tree.pinned_by(bob.nid("beside.bin")).expect("told"), None);
    // Nothing that is pinned is evicted, however little room there is.
    cache(&bob).clear().expect("cleared");
    assert!(here("folder/large.bin") && here("folder/sub/7.txt"));
    assert_eq!(world.runtime.block_on(pins.unpin(bob.nid("folder"))).expect("unpins"), 1);
    cache(&bob).clear().expect("cleared");
    assert!(!here("folder/large.bin") && !here("folder/sub/7.txt"));
    assert_eq!(bob.read("folder/large.bin"), noise(5, 9 * MIB));
}
