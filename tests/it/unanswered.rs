//! Stories of answers that are lost while the person goes on: what was asked for is done once, and
//! what was done since comes after it.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::network::Weather;
use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

/// What is sent and gets no answer, what is done then, and what there is at the end.
type Case = (fn(&Device<'_>), fn(&Device<'_>), &'static [(&'static str, &'static str)]);

const CASES: [Case; 5] = [
    (
        |bob| bob.write("new", b"first"),
        |bob| {
            bob.rename("new", "old");
            bob.write("new", b"second");
        },
        &[("kept", "kept"), ("new", "second"), ("old", "first")],
    ),
    (|bob| bob.write("new", b"first"), |bob| bob.remove("new"), &[("kept", "kept")]),
    (
        |bob| bob.rename("kept", "there"),
        |bob| bob.rename("there", "elsewhere"),
        &[("elsewhere", "kept")],
    ),
    (
        |bob| {
            bob.mkdir("dir");
            bob.write("dir/file", b"first");
        },
        |bob| {
            bob.rename("dir/file", "file");
            bob.remove("dir");
        },
        &[("file", "first"), ("kept", "kept")],
    ),
    (|bob| bob.remove("kept"), |bob| bob.write("kept", b"another"), &[("kept", "another")]),
];

/// The commits of a device that lost their answer, or that are held.
fn troubles(device: &Device<'_>) -> u64 {
    device.network().lost() + device.network().held()
}

fn play(weather: Weather, dies: bool) {
    for (number, (first, then, expected)) in CASES.iter().enumerate() {
        let world = World::new();
        let (alice, mut bob) = (world.device("alice"), world.far_device("bob"));
        alice.write("kept", b"kept");
        all_sync(&[&alice, &bob]);
        let before = troubles(&bob);
        bob.network().set(weather);
        first(&bob);
        let until = Instant::now() + Duration::from_secs(20);
        while troubles(&bob) == before {
            assert!(Instant::now() < until, "case {number}: nothing is sent");
            std::thread::sleep(Duration::from_millis(2));
        }
        // The server tells what it has of these names together with this.
        alice.write("other", b"other");
        alice.sync();
        then(&bob);
        if dies {
            bob.restart();
        }
        bob.network().set(Weather::Fair);
        all_sync(&[&bob, &alice]);
        let mut files = same_files(&[&alice, &bob]);
        assert_eq!(files.remove("other").as_deref(), Some("other"));
        let found: Vec<(&str, &str)> =
            files.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, *expected, "case {number}");
        for (path, _) in *expected {
            let node = bob.fs().tree().node(bob.nid(path)).expect("a node");
            assert_eq!(node.links, 1, "case {number}: {path}");
        }
    }
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    play(Weather::LosesAnswers, false);
}

#[test]
fn a_lost_answer_is_asked_for_again_by_the_next_process() {
    play(Weather::LosesAnswers, true);
}

#[test]
fn a_commit_on_its_way_comes_before_what_was_done_since() {
    play(Weather::HoldsCommits, false);
}

#[test]
fn a_commit_that_its_process_does_not_outlive_is_done_once() {
    play(Weather::HoldsCommits, true);
}

/// Holds a commit of Bob's until Alice has edited the file "kept", and returns what there is then.
fn edited_meanwhile(first: fn(&Device<'_>)) -> BTreeMap<String, String> {
    let world = World::new();
    let (alice, bob) = (world.device("alice"), world.far_device("bob"));
    alice.write("kept", b"kept");
    alice.write("other", b"other");
    all_sync(&[&alice, &bob]);
    bob.network().set(Weather::HoldsCommits);
    first(&bob);
    let until = Instant::now() + Duration::from_secs(20);
    while bob.network().held() == 0 {
        assert!(Instant::now() < until, "nothing is sent");
        std::thread::sleep(Duration::from_millis(2));
    }
    alice.write("kept", b"edited");
    alice.sync();
    bob.network().set(Weather::Fair);
    all_sync(&[&bob, &alice]);
    same_files(&[&alice, &bob])
}

#[test]
fn an_edit_survives_a_removal_that_was_on_its_way() {
    let files = edited_meanwhile(|bob| bob.remove("kept"));
    assert_eq!(files.get("kept").map(String::as_str), Some("edited"), "{files:?}");
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn an_edit_survives_a_rename_over_it_that_was_on_its_way() {
    let files = edited_meanwhile(|bob| bob.rename("other", "kept"));
    assert_eq!(files.get("kept").map(String::as_str), Some("edited"), "{files:?}");
    let copy = files.iter().find(|(name, _)| name.starts_with("kept (bob's conflicted copy"));
    assert_eq!(copy.map(|(_, text)| text.as_str()), Some("other"), "{files:?}");
    assert_eq!(files.len(), 2, "{files:?}");
}
