//! Stories of a new device whose replica is still filling: folders are listed on demand, local and
//! remote changes go on meanwhile, and in the end all devices show one tree.

use drivefs::fs::ReadHere;
use drivefs::state::ROOT;
use drivefs::tree::RenameMode;
use drivefs::tree::TreeError;
use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::wire::ListRequest;

use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

/// As the kernel asks: names one by one, each folder listed when a name in it is not here.
fn look_up(device: &Device<'_>, path: &str) -> Result<u64, TreeError> {
    let fs = device.fs();
    let mut nid = ROOT;
    for name in path.split('/').filter(|n| !n.is_empty()) {
        nid = match fs.lookup(nid, name.as_bytes()) {
            Err(TreeError::NotFound) => {
                device.wait_for(fs.list_folders(&fs.unlisted(&[nid])))?;
                fs.lookup(nid, name.as_bytes())?.nid
            }
            found => found?.nid,
        };
    }
    Ok(nid)
}

fn ls(device: &Device<'_>, path: &str) -> Result<Vec<String>, TreeError> {
    let fs = device.fs();
    let nid = look_up(device, path)?;
    device.wait_for(fs.list_folders(&fs.unlisted(&[nid])))?;
    let entries = fs.tree().list(nid, b"", 100_000)?;
    Ok(entries.into_iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect())
}

fn rmdir(device: &Device<'_>, folder: &str, name: &str) -> Result<(), TreeError> {
    let parent = look_up(device, folder)?;
    look_up(device, &format!("{folder}/{name}"))?;
    let fs = device.fs();
    let target: Vec<u64> = fs.folder_at(parent, name.as_bytes()).into_iter().collect();
    device.wait_for(fs.list_folders(&target))?;
    fs.tree().rmdir(parent, name.as_bytes()).map(drop)
}

fn rename_over(device: &Device<'_>, from: &str, folder: &str, name: &str) -> Result<(), TreeError> {
    let parent = look_up(device, folder)?;
    let fs = device.fs();
    let target: Vec<u64> = fs.folder_at(parent, name.as_bytes()).into_iter().collect();
    device.wait_for(fs.list_folders(&target))?;
    fs.tree().rename(ROOT, from.as_bytes(), parent, name.as_bytes(), RenameMode::Replace).map(drop)
}

fn read(device: &Device<'_>, path: &str) -> String {
    let nid = look_up(device, path).expect(path);
    let fs = device.fs();
    let handle = fs.open(nid, false).expect(path);
    let bytes = match fs.read_here(nid, handle, 0, 1 << 20).expect(path) {
        ReadHere::Bytes(bytes) => bytes,
        ReadHere::Elsewhere(content) => {
            device.wait_for(fs.spool().read(&content, 0, 1 << 20)).expect(path)
        }
    };
    fs.release(handle).expect(path);
    String::from_utf8(bytes.to_vec()).expect(path)
}

/// More nodes than fit in one page, and behind them what a first page cannot have.
fn fill(alice: &Device<'_>) {
    alice.mkdir("first");
    for i in 0..CHANGES_ROWS_MAX + 50 {
        alice.write(&format!("first/{i}"), b"");
    }
    alice.sync();
    for folder in ["late", "late/deep", "late/empty", "late/empty too", "late/full", "late/all"] {
        alice.mkdir(folder);
    }
    for file in ["a", "gone", "deep/b", "deep/c", "full/x", "all/1", "all/2"] {
        alice.write(&format!("late/{file}"), format!("{file} of alice").as_bytes());
    }
    alice.sync();
}

#[test]
fn a_device_is_usable_while_its_replica_fills_and_ends_with_the_same_tree() {
    let world = World::new();
    let alice = world.device("alice");
    fill(&alice);
    let mut bob = world.filling_device("bob");
    assert!(bob.fs().tree().is_filling());
    assert!(!bob.names().contains(&"late/".to_owned()), "the first page has it all");

    // Lookups and listings on demand.
    assert_eq!(read(&bob, "late/deep/b"), "deep/b of alice");
    assert_eq!(ls(&bob, "late/deep").expect("it works"), ["b", "c"]);
    assert!(ls(&bob, "").expect("it works").contains(&"late".to_owned()));
    assert!(matches!(look_up(&bob, "late/deep/nothing"), Err(TreeError::NotFound)));

    // Changes in folders that were listed.
    bob.write("late/deep/new", b"of bob");
    bob.write("late/deep/b", b"edited by bob");
    bob.remove("late/deep/c");
    bob.mkdir("late/deep/made");
    bob.write("late/deep/made/file", b"below");

    // What is not listed is not taken for empty.
    assert!(matches!(rmdir(&bob, "late", "full"), Err(TreeError::NotEmpty)));
    rmdir(&bob, "late", "empty").expect("it works");
    bob.mkdir("mine");
    bob.write("mine/inside", b"moved over");
    look_up(&bob, "late/all").expect("it works");
    assert!(matches!(rename_over(&bob, "mine", "late", "all"), Err(TreeError::NotEmpty)));
    rename_over(&bob, "mine", "late", "empty too").expect("it works");

    // The other device goes on.
    alice.remove("late/gone");
    alice.remove("late/all/1");
    alice.write("late/all/3", b"newer");
    alice.rename("first/7", "late/moved");
    alice.sync();

    // A kill in the middle; without the server what was made here is all here, the rest is not.
    bob.restart();
    bob.remote().link().fell_silent("no server");
    assert_eq!(ls(&bob, "late/deep/made").expect("it works"), ["file"]);
    let failed = ls(&bob, "first").expect_err("no server").to_string();
    assert!(failed.contains("no server"), "{failed}");
    bob.wait_for(bob.remote().account()).expect("it works");
    assert!(ls(&bob, "first").expect("it works").len() > CHANGES_ROWS_MAX as usize);
    // What is new shows; of what is gone a page will tell.
    assert!(ls(&bob, "late/all").expect("it works").contains(&"3".to_owned()));

    bob.go_online();
    all_sync(&[&bob, &alice]);
    assert!(!bob.fs().tree().is_filling());
    let files = same_files(&[&alice, &bob]);
    let late: Vec<_> = files.iter().filter(|(name, _)| !name.starts_with("first/")).collect();
    let late: Vec<_> = late.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        late,
        [
            ("late/", ""),
            ("late/a", "a of alice"),
            ("late/all/", ""),
            ("late/all/2", "all/2 of alice"),
            ("late/all/3", "newer"),
            ("late/deep/", ""),
            ("late/deep/b", "edited by bob"),
            ("late/deep/made/", ""),
            ("late/deep/made/file", "below"),
            ("late/deep/new", "of bob"),
            ("late/empty too/", ""),
            ("late/empty too/inside", "moved over"),
            ("late/full/", ""),
            ("late/full/x", "full/x of alice"),
            ("late/moved", ""),
        ]
    );
    assert_eq!(files.len() - late.len(), CHANGES_ROWS_MAX as usize + 50);
}

#[test]
fn a_listing_that_was_on_its_way_too_long_brings_nothing_back() {
    let world = World::new();
    let alice = world.device("alice");
    fill(&alice);
    let mut bob = world.filling_device("bob");
    let late = look_up(&bob, "late").expect("it works");
    let folder = bob.fs().tree().node(late).expect("it works");
    let request =
        ListRequest { ns: folder.ns, parent: folder.id, after: None, limit: CHANGES_ROWS_MAX };
    let old = bob.wait_for(bob.remote().list(&request)).expect("it works");
    alice.remove("late/gone");
    alice.write("late/a", b"edited by alice");
    alice.sync();
    bob.go_online();
    bob.sync();
    // Removed here, and the server knows.
    bob.remove("late/full/x");
    bob.remove("late/full");
    bob.sync();
    bob.fs().tree().apply_list(&folder, &old).expect("it works");
    all_sync(&[&alice, &bob]);
    let files = same_files(&[&alice, &bob]);
    assert_eq!(files.get("late/a").map(String::as_str), Some("edited by alice"));
    assert!(!files.contains_key("late/gone") && !files.contains_key("late/full/"), "{files:?}");
}

#[test]
fn a_page_that_is_older_than_a_listing_does_not_make_a_conflict_of_an_edit() {
    let world = World::new();
    let alice = world.device("alice");
    fill(&alice);
    let mut bob = world.filling_device("bob");
    let ns = bob.fs().tree().node(ROOT).expect("it works").ns;
    // The next page is on its way while the file changes...
    let cursor = bob.fs().tree().cursor(ns).expect("it works").expect("it works");
    let request = drivefs_core::wire::ChangesRequest {
        ns,
        cursor,
        limit: CHANGES_ROWS_MAX,
        trail: Vec::new(),
        tombstones: false,
        began: 0,
    };
    let old = bob.wait_for(bob.remote().changes(&request)).expect("it works");
    alice.write("late/a", b"edited by alice");
    alice.sync();
    // ...and is listed, and edited, with that change.
    assert_eq!(read(&bob, "late/a"), "edited by alice");
    bob.write("late/a", b"then by bob");
    let more = drivefs_core::wire::ChangesReply { more: true, ..old };
    bob.fs().tree().apply(ns, true, &more).expect("it works");
    assert_eq!(bob.read("late/a"), b"then by bob");
    bob.go_online();
    all_sync(&[&bob, &alice]);
    let files = same_files(&[&alice, &bob]);
    let names: Vec<_> = files.keys().filter(|name| name.starts_with("late/a")).collect();
    assert_eq!(names, ["late/a", "late/all/", "late/all/1", "late/all/2"]);
    assert_eq!(files.get("late/a").map(String::as_str), Some("then by bob"));
}
