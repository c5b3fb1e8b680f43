//! The planner against a model of the server that takes ops one by one and is as strict as the
//! real one: parents exist, places are free or hold what is replaced, folders have one place, are
//! empty when removed and never lie below themselves.
//!
//! Here one side changes a tree; `twice` changes it on both, and runs the real tree with the planner.

mod deeds;
mod device;
mod ledger;
mod regressions;
mod server;
mod twice;
mod view;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;
use proptest::prelude::*;

use super::plan;
use crate::state::BaseNode;
use crate::state::Node;
use crate::state::Occupant;
use crate::tree::PendingDirent;
use crate::tree::PendingNode;

const ATTRS: Attrs = Attrs { mode: 0o644, uid: None, gid: None, mtime: 1, btime: 1 };

fn id(n: u64) -> NodeId {
    NodeId::from_parts(n, [0; 10])
}

/// A tree by entries; node 0 is the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    entries: BTreeMap<(NodeId, Vec<u8>), NodeId>,
    folders: BTreeSet<NodeId>,
    nodes: BTreeSet<NodeId>,
}

impl Model {
    fn root() -> Self {
        let root = BTreeSet::from([id(0)]);
        Self { folders: root.clone(), nodes: root, ..Self::default() }
    }

    fn places(&self, node: NodeId) -> Vec<(NodeId, Vec<u8>)> {
        self.entries.iter().filter(|(_, n)| **n == node).map(|(p, _)| p.clone()).collect()
    }

    fn is_below(&self, node: NodeId, top: NodeId) -> bool {
        let mut at = node;
        loop {
            if at == top {
                return true;
            }
            match self.places(at).first() {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
    }

    /// The folders above a folder.
    fn above(&self, folder: NodeId) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut at = folder;
        while let Some((parent, _)) = self.places(at).first() {
            out.push(*parent);
            at = *parent;
        }
        out
    }

    fn is_empty(&self, folder: NodeId) -> bool {
        !self.entries.keys().any(|(parent, _)| *parent == folder)
    }

    /// Takes a name away; a node without names is gone.
    fn free(&mut self, place: &(NodeId, Vec<u8>)) {
        if let Some(node) = self.entries.remove(place)
            && self.places(node).is_empty()
        {
            self.nodes.remove(&node);
            self.folders.remove(&node);
        }
    }

    fn take(&mut self, change: &Change) -> Result<(), String> {
        let key = |p: &Place| (p.parent, p.name.as_bytes().to_vec());
        let fresh = |m: &Self, node: NodeId, p: &Place| {
            if m.nodes.contains(&node) {
                return Err(format!("{node} exists"));
            }
            if !m.folders.contains(&p.parent) {
                return Err(format!("no folder {}", p.parent));
            }
            if m.entries.contains_key(&key(p)) {
                return Err(format!("{p:?} is taken"));
            }
            Ok(())
        };
        match change {
            Change::Put { node, create: Some(place), .. } | Change::Mkdir { node, place, .. } => {
                fresh(self, *node, place)?;
                self.nodes.insert(*node);
                if matches!(change, Change::Mkdir { .. }) {
                    self.folders.insert(*node);
                }
                self.entries.insert(key(place), *node);
            }
            Change::Link { node, place } => {
                if !self.nodes.contains(node) || self.folders.contains(node) {
                    return Err(format!("cannot link {node}"));
                }
                if !self.folders.contains(&place.parent) || self.entries.contains_key(&key(place)) {
                    return Err(format!("cannot link at {place:?}"));
                }
                self.entries.insert(key(place), *node);
            }
            Change::Move { node, from, to, replace, exchange, .. } => {
                if self.entries.get(&key(from)) != Some(node) {
                    return Err(format!("{node} is not at {from:?}"));
                }
                if !self.folders.contains(&to.parent) {
                    return Err(format!("no folder {}", to.parent));
                }
                if self.is_below(to.parent, *node) {
                    return Err(format!("cycle by moving {node}"));
                }
                let there = self.entries.get(&key(to)).copied();
                if there != *replace {
                    return Err(format!("{to:?} holds {there:?}, not {replace:?}"));
                }
                if *exchange {
                    let other = there.ok_or("nothing to exchange")?;
                    if self.is_below(from.parent, other) {
                        return Err("cycle by exchange".into());
                    }
                    self.entries.insert(key(from), other);
                } else {
                    if let Some(victim) = there {
                        if self.folders.contains(&victim) {
                            return Err("replaces a folder".into());
                        }
                        self.free(&key(to));
                    }
                    self.entries.remove(&key(from));
                }
                self.entries.insert(key(to), *node);
            }
            Change::Unlink { node, place, .. } => {
                if self.entries.get(&key(place)) != Some(node) || self.folders.contains(node) {
                    return Err(format!("cannot unlink {node} at {place:?}"));
                }
                self.free(&key(place));
            }
            Change::Rmdir { node, place } => {
                if self.entries.get(&key(place)) != Some(node) || !self.folders.contains(node) {
                    return Err(format!("cannot rmdir {node} at {place:?}"));
                }
                if !self.is_empty(*node) {
                    return Err(format!("{node} is not empty"));
                }
                self.free(&key(place));
            }
            other => return Err(format!("unexpected {other:?}")),
        }
        Ok(())
    }
}

/// One step of a user, on names from a small set so that they meet often.
#[derive(Debug, Clone)]
enum Step {
    Make { parent: usize, name: u8, folder: bool },
    Link { node: usize, parent: usize, name: u8 },
    Remove { entry: usize },
    Move { entry: usize, parent: usize, name: u8 },
    Exchange { one: usize, other: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<usize>(), 0u8..4, any::<bool>())
            .prop_map(|(parent, name, folder)| Step::Make { parent, name, folder }),
        1 => (any::<usize>(), any::<usize>(), 0u8..4)
            .prop_map(|(node, parent, name)| Step::Link { node, parent, name }),
        2 => any::<usize>().prop_map(|entry| Step::Remove { entry }),
        5 => (any::<usize>(), any::<usize>(), 0u8..4)
            .prop_map(|(entry, parent, name)| Step::Move { entry, parent, name }),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Step::Exchange { one, other }),
    ]
}

/// Does a step as a file system would, if it can be done.
fn walk(m: &mut Model, next: &mut u64, step: &Step) {
    let folders: Vec<NodeId> = m.folders.iter().copied().collect();
    let entries: Vec<(NodeId, Vec<u8>)> = m.entries.keys().cloned().collect();
    let folder = |i: usize| folders[i % folders.len()];
    match step {
        Step::Make { parent, name, folder: is_folder } => {
            let place = (folder(*parent), vec![b'a' + name]);
            if !m.entries.contains_key(&place) {
                *next += 1;
                m.nodes.insert(id(*next));
                if *is_folder {
                    m.folders.insert(id(*next));
                }
                m.entries.insert(place, id(*next));
            }
        }
        _ if entries.is_empty() => {}
        Step::Link { node, parent, name } => {
            let node = m.entries[&entries[node % entries.len()]];
            let place = (folder(*parent), vec![b'a' + name]);
            if !m.folders.contains(&node) && !m.entries.contains_key(&place) {
                m.entries.insert(place, node);
            }
        }
        Step::Remove { entry } => {
            let place = &entries[entry % entries.len()];
            let node = m.entries[place];
            if !m.folders.contains(&node) || m.is_empty(node) {
                m.free(place);
            }
        }
        Step::Move { entry, parent, name } => {
            let from = entries[entry % entries.len()].clone();
            let node = m.entries[&from];
            let to = (folder(*parent), vec![b'a' + name]);
            if from == to || m.is_below(to.0, node) {
                return;
            }
            if let Some(&there) = m.entries.get(&to) {
                let fits = m.folders.contains(&node) == m.folders.contains(&there);
                if there == node || !fits || (m.folders.contains(&there) && !m.is_empty(there)) {
                    return;
                }
                m.free(&to);
            }
            m.entries.remove(&from);
            m.entries.insert(to, node);
        }
        Step::Exchange { one, other } => {
            let (a, b) = (&entries[one % entries.len()], &entries[other % entries.len()]);
            let (x, y) = (m.entries[a], m.entries[b]);
            if x != y && !m.is_below(b.0, x) && !m.is_below(a.0, y) {
                m.entries.insert(a.clone(), y);
                m.entries.insert(b.clone(), x);
            }
        }
    }
}

fn pending(base: &Model, local: &Model) -> (Vec<PendingNode>, Vec<PendingDirent>) {
    let nodes = local
        .nodes
        .difference(&base.nodes)
        .map(|&node| PendingNode {
            base: base_of(node),
            local: row(node, local.folders.contains(&node)),
        })
        .collect();
    let places: BTreeSet<_> = base.entries.keys().chain(local.entries.keys()).collect();
    let dirents = places
        .into_iter()
        .filter(|p| base.entries.get(*p) != local.entries.get(*p))
        .enumerate()
        .map(|(i, place)| PendingDirent {
            parent: place.0,
            name: place.1.clone(),
            before: base
                .entries
                .get(place)
                .map(|n| Occupant { id: *n, folder: base.folders.contains(n) }),
            seen: None,
            after: local
                .entries
                .get(place)
                .map(|n| Occupant { id: *n, folder: local.folders.contains(n) }),
            above: match local.entries.get(place) {
                Some(node) if local.folders.contains(node) => local.above(place.0),
                _ => Vec::new(),
            },
            since: i as u64,
        })
        .collect();
    (nodes, dirents)
}

fn base_of(node: NodeId) -> BaseNode {
    BaseNode {
        id: node,
        ns: NamespaceId(1),
        agreed: None,
        content: None,
        version: 0,
        inflight: Vec::new(),
        since: 0,
        at: 0,
        error: None,
    }
}

fn row(node: NodeId, folder: bool) -> Node {
    Node {
        nid: 7,
        id: node,
        ns: NamespaceId(1),
        kind: if folder { NodeKind::Dir } else { NodeKind::File },
        attrs: ATTRS,
        rdev: 0,
        size: 0,
        ctime: 0,
        links: 1,
        target: None,
        mount: None,
        xattrs: Default::default(),
        content: Some(vec![1]),
        version: 0,
        live: None,
        frozen: None,
        superseded: false,
        source: None,
        atime: None,
        subdirs: 0,
    }
}

/// 100,000 histories, or as many as PROPTEST_CASES says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn the_ops_turn_what_the_server_has_into_what_is_here(
        before in proptest::collection::vec(step(), 0..14),
        after in proptest::collection::vec(step(), 0..14),
    ) {
        let mut next = 0;
        let mut base = Model::root();
        before.iter().for_each(|s| walk(&mut base, &mut next, s));
        let mut local = base.clone();
        after.iter().for_each(|s| walk(&mut local, &mut next, s));
        let (nodes, dirents) = pending(&base, &local);
        let changes = plan(id(0), &HashSet::new(), &nodes, &dirents, |_| true);
        let mut server = base.clone();
        for change in &changes {
            if let Err(why) = server.take(change) {
                prop_assert!(false, "{why}: {change:?} of {changes:#?}");
            }
        }
        prop_assert_eq!(server, local);
    }

    #[test]
    fn what_is_not_ready_holds_back_only_what_needs_it(
        before in proptest::collection::vec(step(), 0..12),
        after in proptest::collection::vec(step(), 0..12),
        unready in proptest::collection::btree_set(1u64..30, 0..6),
    ) {
        let mut next = 0;
        let mut base = Model::root();
        before.iter().for_each(|s| walk(&mut base, &mut next, s));
        let mut local = base.clone();
        after.iter().for_each(|s| walk(&mut local, &mut next, s));
        let (nodes, dirents) = pending(&base, &local);
        let ready = |n: &PendingNode| {
            n.local.kind == NodeKind::Dir || !unready.iter().any(|&u| id(u) == n.base.id)
        };
        // First what is ready, then, planned anew, the rest.
        let mut server = base.clone();
        for change in plan(id(0), &HashSet::new(), &nodes, &dirents, ready) {
            prop_assert_eq!(server.take(&change), Ok(()), "{:?}", change);
        }
        for (place, old) in base.entries.iter().filter(|(p, _)| local.entries.contains_key(*p)) {
            // Renamed away is another story: then the name is free on purpose for a while.
            let removed = !local.nodes.contains(old);
            let replaced_by_new = removed && !base.nodes.contains(&local.entries[place]);
            prop_assert!(
                !replaced_by_new || server.entries.contains_key(place),
                "a name vanished while its successor was not ready"
            );
        }
        let (nodes, dirents) = pending(&server, &local);
        for change in plan(id(0), &HashSet::new(), &nodes, &dirents, |_| true) {
            prop_assert_eq!(server.take(&change), Ok(()), "{:?}", change);
        }
        prop_assert_eq!(server, local);
    }
}

#[test]
fn two_names_that_changed_places_are_one_exchange() {
    let mut base = Model::root();
    let place = |name: &[u8]| (id(0), name.to_vec());
    for (n, name) in [(1, b"a"), (2, b"b")] {
        base.nodes.insert(id(n));
        base.entries.insert(place(name), id(n));
    }
    let mut local = base.clone();
    local.entries.insert(place(b"a"), id(2));
    local.entries.insert(place(b"b"), id(1));
    let (nodes, dirents) = pending(&base, &local);
    let changes = plan(id(0), &HashSet::new(), &nodes, &dirents, |_| true);
    assert!(matches!(changes.as_slice(), [Change::Move { exchange: true, .. }]), "{changes:?}");
    assert!(Name::new(*b"a").is_ok());
}
