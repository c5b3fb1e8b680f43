//! What users do on both sides of one tree, and when, as proptest draws and shrinks it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::view::SAME;
use super::view::bytes_of;

/// One deed, on entries by their number and on names from a small set, so that deeds meet often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Folder { parent: u8, name: u8 },
    File { parent: u8, name: u8, same: bool },
    Link { entry: u8, parent: u8, name: u8 },
    Remove { entry: u8 },
    Move { entry: u8, parent: u8, name: u8 },
    Exchange { one: u8, other: u8 },
    Write { entry: u8, same: bool },
    Mode { entry: u8, mode: u8 },
    Mark { entry: u8, value: u8 },
}

impl Deed {
    /// What it writes where its own value is `value`.
    pub fn bytes(&self, value: u32) -> [u8; 4] {
        match self {
            Self::File { same: true, .. } | Self::Write { same: true, .. } => bytes_of(SAME),
            _ => bytes_of(value),
        }
    }
}

/// When a deed is done, seen from the first round of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    Before,
    /// Between its pull and its plan.
    Pulled,
    /// Between its commit and the answer.
    Sent,
}

/// A deed done here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    pub when: When,
    pub deed: Deed,
    /// What it writes is not on the server in the first round.
    pub slow: bool,
    /// What it writes stays open in the first round.
    pub open: bool,
}

/// A deed of somebody else: a commit of its own, or part of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    pub when: When,
    pub deed: Deed,
    pub joined: bool,
}

/// One tree, changed twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub base: Vec<Deed>,
    pub remote: Vec<Remote>,
    pub local: Vec<Local>,
    /// Rows of a page.
    pub rows: u32,
    /// Pages that the first round takes.
    pub pages: usize,
}

const NAMES: u8 = 4;
const ENTRIES: u8 = 16;
const FOLDERS: u8 = 6;

fn deed() -> impl Strategy<Value = Deed> {
    let (entry, parent, name) = (0..ENTRIES, 0..FOLDERS, 0..NAMES);
    let same = proptest::bool::weighted(0.15);
    prop_oneof![
        2 => (parent.clone(), name.clone()).prop_map(|(parent, name)| Deed::Folder { parent, name }),
        3 => (parent.clone(), name.clone(), same)
            .prop_map(|(parent, name, same)| Deed::File { parent, name, same }),
        1 => (entry.clone(), parent.clone(), name.clone())
            .prop_map(|(entry, parent, name)| Deed::Link { entry, parent, name }),
        3 => entry.clone().prop_map(|entry| Deed::Remove { entry }),
        5 => (entry.clone(), parent, name)
            .prop_map(|(entry, parent, name)| Deed::Move { entry, parent, name }),
        1 => (entry.clone(), entry.clone()).prop_map(|(one, other)| Deed::Exchange { one, other }),
        4 => (entry.clone(), same).prop_map(|(entry, same)| Deed::Write { entry, same }),
        1 => (entry.clone(), 0u8..3).prop_map(|(entry, mode)| Deed::Mode { entry, mode }),
        1 => (entry, 0u8..3).prop_map(|(entry, value)| Deed::Mark { entry, value }),
    ]
}

fn local() -> impl Strategy<Value = Local> {
    let when = prop_oneof![4 => Just(When::Before), 1 => Just(When::Pulled), 1 => Just(When::Sent)];
    let rare = || proptest::bool::weighted(0.15);
    (when, deed(), rare(), rare()).prop_map(|(when, deed, slow, open)| Local {
        when,
        deed,
        slow,
        open,
    })
}

fn remote() -> impl Strategy<Value = Remote> {
    let when = prop_oneof![4 => Just(When::Before), 1 => Just(When::Pulled)];
    (when, deed(), proptest::bool::weighted(0.3)).prop_map(|(when, deed, joined)| Remote {
        when,
        deed,
        joined,
    })
}

pub fn case() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![2 => Just(500u32), 1 => 1u32..6];
    let pages = prop_oneof![2 => Just(50usize), 1 => 1usize..4];
    (vec(deed(), 0..12), vec(remote(), 0..8), vec(local(), 0..8), rows, pages)
        .prop_map(|(base, remote, local, rows, pages)| Case { base, remote, local, rows, pages })
}
