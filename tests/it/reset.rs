//! Stories of a server that cannot go on from where a device stands: it has forgotten what was
//! removed, or its data was restored from a backup. Nothing that a device has is lost.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;

use drivefs::fs::ReadHere;
use drivefs::sync::pull_some;
use drivefs_core::id::BlockHash;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::manifest::Root;
use drivefs_server::metadata::DbError;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::random::step;
use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

/// Makes the server forget all that was removed: older cursors are refused.
fn prune(world: &World) {
    let store = world.store();
    let pruned = store.write(|sql| {
        for statement in [
            "DELETE FROM node WHERE deleted_ns IS NOT NULL",
            "DELETE FROM dirent WHERE child IS NULL",
            "UPDATE namespace SET pruned_seq = seq",
        ] {
            sql.exec(statement, &[])?;
        }
        Ok::<_, DbError>(())
    });
    world.runtime.block_on(pruned).expect("prunes");
}

fn nothing_is_ahead(devices: &[&Device<'_>]) {
    for device in devices {
        let tree = device.fs().tree();
        assert_eq!(tree.ahead().expect("counts"), (0, 0), "{}", device.name());
        assert_eq!(tree.relist(tree.node(1).expect("a root").ns).expect("reads"), None);
    }
}

/// A tree on both devices.
fn two<'w>(world: &'w World) -> (Device<'w>, Device<'w>) {
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("docs");
    alice.mkdir("docs/old");
    alice.mkdir("away");
    for file in ["a", "b", "c", "docs/d", "docs/old/e", "away/f", "away/g"] {
        alice.write(file, format!("{file}, first").as_bytes());
    }
    all_sync(&[&alice, &bob]);
    bob.files(); // Its contents are on this device from now on.
    (alice, bob)
}

#[test]
fn a_device_that_was_away_for_too_long_follows_and_keeps_what_is_its_own() {
    let world = World::new();
    let (alice, mut bob) = two(&world);
    bob.go_offline();
    alice.remove("a");
    alice.remove("b");
    alice.write("c", b"c, second");
    alice.rename("docs/d", "d moved");
    alice.rename("docs/old", "old moved");
    for file in ["away/f", "away/g", "away"] {
        alice.remove(file);
    }
    alice.write("docs/new", b"of alice");
    alice.sync();
    prune(&world);
    // What bob did meanwhile: an edit of what is gone, a new file in what is gone, and others.
    bob.write("b", b"b, edited by bob");
    bob.write("away/mine", b"of bob");
    bob.write("docs/mine", b"of bob, too");
    bob.remove("docs/old/e");
    bob.rename("c", "c of bob");
    let (open, handle) = bob.hold_open("a");
    bob.go_online();
    all_sync(&[&bob, &alice, &bob]);
    assert_eq!(bob.read_handle(open, handle, 0, 99).expect("still open"), b"a, first");
    bob.fs().release(handle).expect("closes");
    let files = same_files(&[&alice, &bob]);
    let expected = [
        ("away/", ""),
        ("away/mine", "of bob"),
        ("b", "b, edited by bob"),
        ("c of bob", "c, second"),
        ("d moved", "docs/d, first"),
        ("docs/", ""),
        ("docs/mine", "of bob, too"),
        ("docs/new", "of alice"),
        ("old moved/", ""),
    ];
    let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(files, expected.into());
    nothing_is_ahead(&[&alice, &bob]);
}

#[test]
fn a_new_list_survives_the_end_of_the_process_at_any_page() {
    let world = World::new();
    let (alice, mut bob) = two(&world);
    bob.go_offline();
    for folder in ["many", "more"] {
        alice.mkdir(folder);
        for i in 0..CHANGES_ROWS_MAX / 2 + 20 {
            alice.write(&format!("{folder}/{i}"), b"");
        }
        alice.sync();
    }
    alice.remove("a");
    alice.sync();
    prune(&world);
    bob.write("b", b"b, edited by bob");
    let root = bob.fs().tree().node(1).expect("a root").ns;
    let mut pages = 0;
    loop {
        let tree = bob.fs().tree().clone();
        let done = bob.wait_for(pull_some(bob.remote(), &tree, root, 1)).expect("a page");
        pages += 1;
        if done {
            break;
        }
        // Until all of it is here nothing shows, and all can be used.
        assert_eq!(bob.read("a"), b"a, first");
        drop(tree);
        bob.stop();
        bob.start();
        bob.go_offline();
        assert!(pages < 20, "it comes to an end");
    }
    bob.go_online();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert!(!files.contains_key("a"));
    assert_eq!(files["b"], "b, edited by bob");
    nothing_is_ahead(&[&alice, &bob]);
}

/// What alice does behind the backup's back.
fn work_that_is_lost(alice: &Device<'_>) {
    alice.write("a", b"a, second");
    alice.write("new", b"new file");
    alice.mkdir("made");
    alice.mkdir("made/deep");
    alice.write("made/deep/x", b"deep");
    alice.rename("docs/d", "made/d");
    alice.rename("docs/old", "made/old");
    alice.remove("b");
    alice.remove("away/f");
    alice.write("away/h", b"h, first");
    alice.sync();
    alice.write("away/h", b"h, second");
    alice.remove("c");
    alice.write("c", b"another c");
}

#[test]
fn what_a_restored_server_lacks_comes_back_from_the_devices() {
    let world = World::new();
    let (mut alice, bob) = two(&world);
    world.back_up();
    work_that_is_lost(&alice);
    all_sync(&[&alice, &bob]);
    bob.files();
    let before = same_files(&[&alice, &bob]);
    alice.go_offline();
    world.restore();
    bob.sync();
    alice.write("offline", b"written while the server was away");
    alice.go_online();
    all_sync(&[&bob, &alice, &bob]);
    let mut files = same_files(&[&alice, &bob]);
    assert_eq!(files.remove("offline").as_deref(), Some("written while the server was away"));
    // What was removed in the lost time comes back; all else is as it was.
    assert_eq!(files.remove("b").as_deref(), Some("b, first"));
    assert_eq!(files.remove("away/f").as_deref(), Some("away/f, first"));
    assert_eq!(files, before);
    nothing_is_ahead(&[&alice, &bob]);
    let told = bob.fs().tree().restored().expect("reads").expect("it is told");
    assert!(told.sent_again > 0 && told.gone == 0 && told.older == 0, "{told:?}");
    // A new device sees the same, with the bytes.
    let carol = world.device("carol");
    assert_eq!(same_files(&[&alice, &carol])["made/deep/x"], "deep");
}

#[test]
fn a_restored_server_is_known_although_its_count_of_commits_has_gone_past_the_devices() {
    let world = World::new();
    let (mut alice, mut bob) = two(&world);
    world.back_up();
    work_that_is_lost(&alice);
    all_sync(&[&alice, &bob]);
    bob.files();
    alice.go_offline();
    bob.go_offline();
    world.restore();
    // Somebody works on before the others come: the same numbers of commits and versions again.
    let carol = world.device("carol");
    for i in 0..60 {
        carol.write("a", format!("a of carol, {i}").as_bytes());
        carol.write(&format!("carol {i}"), b"new");
        carol.sync();
    }
    alice.write("a", b"a, third");
    alice.go_online();
    bob.go_online();
    all_sync(&[&alice, &bob, &carol]);
    all_sync(&[&alice, &bob, &carol]);
    let files = same_files(&[&alice, &bob, &carol]);
    // Nobody's change was overwritten.
    assert_eq!(files["a"], "a of carol, 59");
    let has = |text: &str| files.values().any(|v| v == text);
    for text in ["a, third", "deep", "h, second", "another c", "new file", "docs/d, first"] {
        assert!(has(text), "{text} in {files:#?}");
    }
    nothing_is_ahead(&[&alice, &bob, &carol]);
}

#[test]
fn what_no_device_holds_is_as_in_the_backup_and_told() {
    let world = World::new();
    let (alice, bob) = two(&world);
    world.back_up();
    alice.write("a", b"a, second");
    alice.write("lost", b"nobody read it");
    alice.mkdir("kept");
    alice.write("kept/lost", b"nobody read it either");
    all_sync(&[&alice, &bob]);
    drop(alice); // For ever, and bob has read nothing of it.
    world.restore();
    bob.sync();
    bob.sync();
    let files = bob.files();
    assert_eq!(files["a"], "a, first");
    assert!(files.contains_key("kept/") && !files.contains_key("lost"));
    let told = bob.fs().tree().restored().expect("reads").expect("it is told");
    assert_eq!((told.older, told.gone), (1, 2));
    nothing_is_ahead(&[&bob]);
}

#[test]
fn a_removal_and_an_edit_after_the_restoring_count() {
    let world = World::new();
    let (alice, mut bob) = two(&world);
    world.back_up();
    alice.write("a", b"a, second");
    alice.write("new", b"new file");
    alice.write("other", b"other file");
    all_sync(&[&alice, &bob]);
    bob.files();
    bob.go_offline();
    world.restore();
    alice.sync();
    // Alice's device has brought all of it back; then it goes on.
    alice.remove("new");
    alice.write("other", b"other file, edited");
    alice.remove("b");
    alice.sync();
    bob.go_online();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files["other"], "other file, edited");
    assert_eq!(files["a"], "a, second");
    assert!(!files.contains_key("new") && !files.contains_key("b"), "{files:#?}");
    assert_eq!(bob.conflicts(), []);
    nothing_is_ahead(&[&alice, &bob]);
}

#[test]
fn two_restores_in_a_row_and_a_restart_in_between_lose_nothing() {
    let world = World::new();
    let (alice, mut bob) = two(&world);
    world.back_up();
    work_that_is_lost(&alice);
    all_sync(&[&alice, &bob]);
    let before = alice.files();
    world.restore();
    bob.restart();
    alice.sync();
    world.restore();
    bob.restart();
    all_sync(&[&bob, &alice, &bob]);
    let mut files = same_files(&[&alice, &bob]);
    files.remove("b");
    files.remove("away/f");
    assert_eq!(files, before);
    nothing_is_ahead(&[&alice, &bob]);
}

/// Contents that a device has on its disk under some name.
fn texts_here(device: &Device<'_>) -> Vec<Vec<u8>> {
    let tree = device.fs().tree();
    let mut texts = Vec::new();
    for path in device.names().iter().filter(|n| !n.ends_with('/')) {
        let nid = device.nid(path);
        let node = tree.node(nid).expect("a node");
        let handle = device.fs().open(nid, false).expect(path);
        if let Ok(ReadHere::Bytes(bytes)) = device.fs().read_here(nid, handle, 0, 1 << 20) {
            let on_disk = tree.db().peek(|c| c.cached(&BlockHash::of(&bytes))).expect("reads");
            if on_disk.is_some() || node.live.is_some() || node.frozen.is_some() {
                texts.push(bytes.to_vec());
            }
        }
        device.fs().release(handle).expect(path);
    }
    texts
}

/// Blocks of all versions that the server has.
fn blocks_in_history(world: &World) -> HashSet<BlockHash> {
    let store = world.store();
    let contents = store.read(|sql| {
        let rows = sql.query("SELECT content FROM file_version", &[])?;
        rows.iter().map(|row| row.get::<Vec<u8>>(0)).collect::<Result<Vec<_>, DbError>>()
    });
    let contents = world.runtime.block_on(contents).expect("reads");
    let mut hashes = HashSet::new();
    for content in contents {
        if let Root::Inline(entries) = Root::decode(&content).expect("a manifest") {
            hashes.extend(entries.iter().map(|e| e.hash));
        }
    }
    hashes
}

fn restore_at_random(seed: u64, log: &mut Vec<String>) {
    let world = World::new();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut devices = [world.device("ann"), world.device("bob"), world.device("cyd")];
    world.back_up();
    for count in 0..45 {
        let i = rng.random_range(0..devices.len());
        log.push(format!("{}: ", devices[i].name()));
        let done = match rng.random_range(0..14) {
            0 => {
                devices[i].go_offline();
                "goes offline".to_owned()
            }
            1 if !devices[i].is_online() => {
                devices[i].go_online();
                "goes online".to_owned()
            }
            2 | 3 if devices[i].is_online() => {
                devices[i].sync();
                devices[i].files();
                "syncs and reads".to_owned()
            }
            4 if count < 30 => {
                world.back_up();
                "sees a backup".to_owned()
            }
            _ => step(&devices[i], &mut rng, count),
        };
        log.last_mut().expect("pushed above").push_str(&done);
    }
    for device in &mut devices {
        device.go_offline();
    }
    world.restore();
    log.push("restored".into());
    let texts: Vec<Vec<u8>> = devices.iter().flat_map(texts_here).collect();
    if rng.random() {
        let dan = world.device("dan");
        for count in 45..60 {
            log.push(format!("dan: {}", step(&dan, &mut rng, count)));
        }
        dan.sync();
    }
    devices.rotate_left(rng.random_range(0..3));
    for device in &mut devices {
        log.push(format!("{} comes back", device.name()));
        device.go_online();
        if rng.random() {
            device.sync();
        }
    }
    let refs: Vec<&Device<'_>> = devices.iter().collect();
    all_sync(&refs);
    all_sync(&refs);
    same_files(&refs);
    nothing_is_ahead(&refs);
    let kept = blocks_in_history(&world);
    for text in texts.iter().filter(|t| !t.is_empty()) {
        let shown = String::from_utf8_lossy(text);
        assert!(kept.contains(&BlockHash::of(text)), "{shown} is lost");
    }
}

#[test]
fn random_work_and_a_restored_backup_end_in_one_tree_and_lose_nothing_that_a_device_holds() {
    let seeds = std::env::var("DRIVEFS_SEEDS").unwrap_or_else(|_| "0..12".into());
    let (from, to) = seeds.split_once("..").expect("a range of seeds");
    for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        let mut log = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| restore_at_random(seed, &mut log)));
        if let Err(panic) = result {
            eprintln!("seed {seed}:\n  {}", log.join("\n  "));
            resume_unwind(panic);
        }
    }
}
