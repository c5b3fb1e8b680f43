//! Stories of `.versions`: what is found there, when, and what it costs.

use std::collections::BTreeMap;

use drivefs::fs::Attr;
use drivefs::fs::Spot;
use drivefs::history::History;
use drivefs::state::ROOT;
use drivefs::tree::TreeError;
use drivefs::tree::new_id;
use drivefs_core::id::OpKey;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::Which;

use crate::story::Device;
use crate::story::ME;
use crate::story::World;
use crate::story::all_sync;

/// What a path leads to, names below `.versions` by the past.
fn find(device: &Device<'_>, path: &str) -> Result<Attr, TreeError> {
    let (fs, mut past) = (device.fs(), false);
    let mut attr = fs.getattr(ROOT).expect("a root");
    for name in path.split('/') {
        attr = if past {
            device.wait_for(fs.past_lookup(attr.nid, name.as_bytes()))?
        } else {
            fs.lookup(attr.nid, name.as_bytes())?
        };
        past |= name == ".versions";
    }
    Ok(attr)
}

/// Entries of a folder of the past, by name.
fn entries(device: &Device<'_>, path: &str) -> BTreeMap<String, Attr> {
    try_entries(device, path).expect(path)
}

fn try_entries(device: &Device<'_>, path: &str) -> Result<BTreeMap<String, Attr>, TreeError> {
    let fs = device.fs();
    let folder = find(device, path)?;
    let handle = device.wait_for(fs.past_opendir(folder.nid))?;
    let mut found = BTreeMap::new();
    let (mut offset, mut more) = (0, true);
    // A few at a time, as the kernel asks.
    while more {
        more = false;
        let mut room = 7;
        fs.readdir(handle, offset, false, |e| {
            if room == 0 {
                more = true;
                return false;
            }
            room -= 1;
            offset = e.next;
            if !e.name.starts_with(b".") {
                let name = String::from_utf8_lossy(&e.name).into_owned();
                assert!(found.insert(name, e.attr).is_none(), "{path}: told twice");
            }
            true
        })?;
    }
    fs.releasedir(handle);
    Ok(found)
}

fn names(device: &Device<'_>, path: &str) -> Vec<String> {
    entries(device, path).into_keys().collect()
}

/// The bytes of each version of a file, by number.
fn contents(device: &Device<'_>, path: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, listed) in entries(device, path) {
        if listed.kind == NodeKind::File {
            let bytes = read(device, &format!("{path}/{name}"));
            assert_eq!(bytes.len() as u64, listed.size);
            out.push((name[..4].to_owned(), String::from_utf8(bytes).expect("a text")));
        }
    }
    out
}

fn read(device: &Device<'_>, path: &str) -> Vec<u8> {
    let nid = find(device, path).expect(path).nid;
    let handle = device.wait_for(device.fs().past_open(nid)).expect(path);
    let bytes = device.read_handle(nid, handle, 0, 1 << 30).expect(path);
    device.fs().release(handle).expect(path);
    bytes
}

fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect()
}

#[test]
fn versions_are_files_and_new_ones_show_at_once_on_all_devices() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    alice.mkdir("d");
    alice.write("d/a.txt", b"one");
    assert!(names(&alice, "d/.versions").len() <= 1, "nothing, or what was just sent");
    all_sync(&[&alice, &bob]);
    bob.write("d/a.txt", b"two");
    all_sync(&[&bob, &alice]);
    let two = text(&[("0001", "one"), ("0002", "two")]);
    for device in [&alice, &bob] {
        assert_eq!(contents(device, "d/.versions/a.txt"), two);
        assert_eq!(contents(device, ".versions/d/a.txt"), two);
        assert_eq!(names(device, ".versions"), ["d"]);
    }
    alice.write("d/a.txt", b"three");
    alice.sync();
    let three = text(&[("0001", "one"), ("0002", "two"), ("0003", "three")]);
    assert_eq!(contents(&alice, "d/.versions/a.txt"), three);
    let listed = entries(&alice, "d/.versions/a.txt");
    let devices: Vec<_> = listed.keys().map(|n| n.rsplit(' ').next().expect("a word")).collect();
    assert_eq!(devices, ["alice.txt", "bob.txt", "alice.txt"]);
    for (name, attr) in &listed {
        let found = find(&alice, &format!("d/.versions/a.txt/{name}")).expect("is there");
        assert_eq!(&found, attr, "a look-up tells what the listing told");
        assert_eq!(attr.mode, 0o444);
    }
    alice.rename("d/a.txt", "d/b.md");
    all_sync(&[&alice, &bob]);
    assert_eq!(contents(&bob, "d/.versions/b.md"), three, "the history moved along");
    assert!(names(&bob, "d/.versions/b.md").iter().all(|name| name.ends_with(".md")));
    assert_eq!(names(&bob, "d/.versions"), ["b.md"]);
}

#[test]
fn what_was_deleted_is_found_under_its_name_at_once() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    for name in ["d", "d/sub"] {
        alice.mkdir(name);
    }
    alice.write("d/a.txt", b"a");
    alice.write("d/sub/deep.txt", b"deep");
    all_sync(&[&alice, &bob]);
    alice.remove("d/a.txt");
    assert_eq!(contents(&alice, "d/.versions/a.txt"), text(&[("0001", "a")]));
    assert_eq!(names(&alice, "d/.versions"), ["a.txt", "sub"]);
    all_sync(&[&alice, &bob]);
    for device in [&alice, &bob] {
        assert_eq!(contents(device, "d/.versions/a.txt"), text(&[("0001", "a")]));
        assert_eq!(names(device, "d/.versions"), ["a.txt", "sub"]);
    }
    for name in ["d/sub/deep.txt", "d/sub", "d"] {
        bob.remove(name);
    }
    all_sync(&[&bob, &alice]);
    for device in [&alice, &bob] {
        assert_eq!(names(device, ".versions"), ["d"]);
        assert_eq!(contents(device, ".versions/d/sub/deep.txt"), text(&[("0001", "deep")]));
    }
    // Made again under the same names: another folder, and what it was before.
    alice.mkdir("d");
    alice.write("d/a.txt", b"another");
    all_sync(&[&alice, &bob]);
    let listed = names(&bob, ".versions/d");
    assert!(listed.len() == 2 && listed[0] == "a.txt", "{listed:?}");
    assert_eq!(contents(&bob, "d/.versions/a.txt"), text(&[("0001", "another")]));
    let former = format!(".versions/d/{}", listed[1]);
    assert_eq!(names(&bob, &former), ["a.txt", "sub"]);
    assert_eq!(contents(&bob, &format!("{former}/a.txt")), text(&[("0001", "a")]));
}

#[test]
fn a_name_that_came_and_went_has_them_all() {
    let world = World::new();
    let alice = world.device("alice");
    for n in 0..4 {
        alice.write("a.txt", n.to_string().as_bytes());
        alice.sync();
        alice.remove("a.txt");
        alice.sync();
    }
    assert_eq!(contents(&alice, ".versions/a.txt"), text(&[("0001", "3")]));
    let listed = names(&alice, ".versions/a.txt");
    assert_eq!(listed.len(), 4, "{listed:?}");
    let mut former: Vec<String> = Vec::new();
    for name in listed.iter().filter(|name| name.starts_with("deleted ")) {
        former
            .extend(contents(&alice, &format!(".versions/a.txt/{name}")).into_iter().map(|c| c.1));
    }
    former.sort();
    assert_eq!(former, ["0", "1", "2"]);
}

#[test]
fn nothing_in_it_changes() {
    let world = World::new();
    let alice = world.device("alice");
    alice.mkdir("d");
    alice.write("d/a.txt", b"one");
    alice.sync();
    let fs = alice.fs();
    let root = find(&alice, ".versions").expect("there").nid;
    let file = find(&alice, "d/.versions/a.txt").expect("there").nid;
    let name = names(&alice, "d/.versions/a.txt").remove(0);
    let old = find(&alice, &format!("d/.versions/a.txt/{name}")).expect("there").nid;
    let (d, a) = (alice.nid("d"), alice.nid("d/a.txt"));
    let replace = drivefs::tree::RenameMode::Replace;
    let outcomes = [
        fs.unlink(file, name.as_bytes()),
        fs.rmdir(root, b"d"),
        fs.rmdir(d, b".versions"),
        fs.rename(file, name.as_bytes(), d, b"x", replace),
        fs.rename(d, b"a.txt", file, b"x", replace),
        fs.rename(d, b".versions", d, b"x", replace),
        fs.rename(d, b"a.txt", d, b".versions", replace),
        fs.setattr(old, &Default::default(), Some(0)).map(drop),
        fs.setattr(root, &Default::default(), None).map(drop),
        fs.setxattr(old, b"user.x", Some(b"y"), 0),
        fs.create(file, b"new", ME, 0o644).map(drop),
        fs.create(d, b".versions", ME, 0o644).map(drop),
        fs.link(a, root, b"new").map(drop),
    ];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        assert!(matches!(outcome, Err(TreeError::ReadOnly)), "{n}: {outcome:?}");
    }
    assert!(matches!(fs.link(old, d, b"new"), Err(TreeError::CrossDevice)));
    assert_eq!(contents(&alice, "d/.versions/a.txt"), text(&[("0001", "one")]));
    assert_eq!(alice.names(), ["d/", "d/a.txt"]);
    let attribute = |name: &[u8]| fs.getxattr(old, name).expect("answers");
    assert_eq!(attribute(b"user.drivefs.version").as_deref(), Some(&b"1"[..]));
    assert_eq!(attribute(b"user.drivefs.device").as_deref(), Some(&b"alice"[..]));
    assert_eq!(attribute(b"user.other"), None);
}

#[test]
fn a_copy_out_of_it_is_by_reference() {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.device("bob"));
    let mut big: Vec<u8> =
        (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    alice.write("a.bin", &big);
    alice.sync();
    let first = big.clone();
    big[4_000_000] ^= 1;
    alice.write("a.bin", &big);
    all_sync(&[&alice, &bob]);
    let fs = bob.fs();
    let name = names(&bob, ".versions/a.bin").remove(0);
    let old = find(&bob, &format!(".versions/a.bin/{name}")).expect("there").nid;
    let before = fs.spool().cache().counts().fetched_bytes;
    let from = bob.wait_for(fs.past_open(old)).expect("opens");
    let target = bob.nid("a.bin");
    let to = fs.open(target, true).expect("opens");
    fs.setattr(target, &Default::default(), Some(0)).expect("truncates");
    let len = first.len() as u64;
    let spot = |nid, handle| Spot { nid, handle, offset: 0 };
    assert_eq!(fs.copy_range(spot(old, from), spot(target, to), len, false).expect("copies"), len);
    fs.release(from).expect("closes");
    fs.release(to).expect("closes");
    all_sync(&[&bob, &alice]);
    assert_eq!(fs.spool().cache().counts().fetched_bytes, before, "no content came");
    assert!(alice.read("a.bin") == first && bob.read("a.bin") == first);
    assert!(names(&alice, ".versions/a.bin").len() >= 3);
}

#[test]
fn without_the_server_what_is_known_is_shown_and_the_rest_fails() {
    let world = World::new();
    let alice = world.device("alice");
    for name in ["known.txt", "other.txt"] {
        alice.write(name, b"text");
    }
    alice.sync();
    let bob = world.far_device("bob");
    bob.sync();
    assert_eq!(contents(&bob, ".versions/known.txt"), text(&[("0001", "text")]));
    assert_eq!(names(&bob, ".versions"), ["known.txt", "other.txt"]);
    bob.cut();
    assert_eq!(contents(&bob, ".versions/known.txt"), text(&[("0001", "text")]));
    assert_eq!(names(&bob, ".versions"), ["known.txt", "other.txt"]);
    assert!(matches!(try_entries(&bob, ".versions/other.txt"), Err(TreeError::Spool(_))));
    bob.heal();
    bob.sync();
    assert_eq!(contents(&bob, ".versions/other.txt"), text(&[("0001", "text")]));
}

#[test]
fn more_versions_and_names_than_one_answer_has() {
    let world = World::new();
    let alice = world.device("alice");
    alice.mkdir("d");
    for n in 0..300 {
        alice.write(&format!("d/{n:03}"), b"x");
    }
    alice.write("d/symlink's place", b"x");
    alice.sync();
    for n in (0..300).step_by(2) {
        alice.remove(&format!("d/{n:03}"));
    }
    let all: Vec<String> =
        (0..300).map(|n| format!("{n:03}")).chain(["symlink's place".into()]).collect();
    assert_eq!(names(&alice, "d/.versions"), all, "before the server knows");
    alice.sync();
    assert_eq!(names(&alice, "d/.versions"), all, "and when it does");
}

#[test]
fn a_thousand_versions_are_all_there() {
    let world = World::new();
    let alice = world.device("alice");
    for text in ["odd", "even"] {
        alice.write("a.txt", text.as_bytes());
        alice.sync();
    }
    let node = alice.fs().tree().node(alice.nid("a.txt")).expect("a file");
    let history = History::new(alice.remote().clone(), node.ns, "2026-11-22");
    let two = alice.wait_for(history.versions(&Which::Node(node.id), None, 2)).expect("versions");
    for first in [2, 602] {
        let put = |base_version: u64| Change::Put {
            node: node.id,
            create: None,
            base_version,
            // They come newest first: after an even one comes an odd one.
            content: two.versions[1 - base_version as usize % 2].content.clone(),
            attrs: node.attrs,
            xattrs: Default::default(),
            source: None,
        };
        let op = |base| Op { key: OpKey(new_id().0), change: put(base) };
        let ops = (first..first + 600).map(op).collect();
        let request = CommitRequest { ns: node.ns, at: None, ops, rewinds: None };
        alice.wait_for(alice.remote().commit(&request)).expect("commits");
    }
    alice.sync();
    let listed = names(&alice, ".versions/a.txt");
    assert_eq!(listed.len(), 1202);
    for (n, name) in (1..).zip(&listed) {
        assert!(name.starts_with(&format!("{n:04} ")), "{n}: {name}");
    }
    for (n, text) in [(1, "odd"), (700, "even"), (1201, "odd"), (1202, "even")] {
        assert_eq!(read(&alice, &format!(".versions/a.txt/{}", listed[n - 1])), text.as_bytes());
    }
}
