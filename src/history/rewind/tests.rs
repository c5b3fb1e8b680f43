//! The planner against a small server: random work of two devices, then a rewind, op by op.

use std::collections::BTreeMap;
use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;
use proptest::collection::vec;
use proptest::prelude::ProptestConfig;
use proptest::prelude::any;
use proptest::prop_assert;
use proptest::prop_assert_eq;
use proptest::proptest;

use super::Plan;
use super::plan::plan;
use super::record::Deed;
use super::record::Record;
use super::record::Who;

const ROOT: NodeId = NodeId(uuid::Uuid::nil());
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
struct Thing {
    what: NodeKind,
    alive: bool,
    /// Contents by version, from 1.
    versions: Vec<u64>,
}

/// A namespace as the server has it, with the server's rules.
#[derive(Debug, Clone, Default)]
struct Server {
    at: HashMap<Place, NodeId>,
    things: HashMap<NodeId, Thing>,
    log: Vec<Deed>,
    made: u64,
}

type Shape = BTreeMap<(NodeId, Name), (NodeId, Option<u64>)>;

fn who(device: &str) -> Who {
    Who { user: "me@example.org".into(), device: device.into() }
}

impl Server {
    fn shape(&self) -> Shape {
        let one = |(p, n): (&Place, &NodeId)| {
            let content = self.things[n].versions.last().copied();
            ((p.parent, p.name.clone()), (*n, content))
        };
        self.at.iter().map(one).collect()
    }

    fn is_dir(&self, node: NodeId) -> bool {
        node == ROOT || self.things.get(&node).is_some_and(|t| t.alive && t.what == NodeKind::Dir)
    }

    fn is_inside(&self, node: NodeId, mut at: NodeId) -> bool {
        loop {
            if at == node {
                return true;
            }
            match self.at.iter().find(|(_, n)| **n == at) {
                Some((place, _)) => at = place.parent,
                None => return false,
            }
        }
    }

    fn free(&self, place: &Place) -> Option<()> {
        (self.is_dir(place.parent) && !self.at.contains_key(place)).then_some(())
    }

    fn tell(
        &mut self,
        by: &str,
        kind: EventKind,
        node: NodeId,
        (from, to): (Option<&Place>, Option<&Place>),
        (before, after, of): (u64, u64, u64),
    ) {
        let (seq, what) = (self.log.len() as u64 + 1, self.things[&node].what);
        let (from, to) = (from.cloned(), to.cloned());
        let rewinds = (by == "rewinder").then(|| "me@example.org/laptop".to_owned());
        let deed = Deed {
            seq,
            who: who(by),
            kind,
            node,
            what,
            from,
            to,
            before,
            after,
            of,
            rewinds,
            wanted: true,
        };
        self.log.push(deed);
    }

    /// Does an op; none when the server would refuse it.
    fn apply(&mut self, by: &str, change: &Change) -> Option<()> {
        let node = change.node();
        let head = self.things.get(&node).map_or(0, |t| t.versions.len() as u64);
        let live = self.things.get(&node).is_some_and(|t| t.alive);
        match change {
            Change::Unlink { place, .. } | Change::Rmdir { place, .. } => {
                let dir = matches!(change, Change::Rmdir { .. });
                let empty = !self.at.keys().any(|p| p.parent == node);
                if self.at.get(place) != Some(&node) || self.is_dir(node) != dir || !empty {
                    return None;
                }
                self.at.remove(place);
                let named = self.at.values().any(|n| *n == node);
                let kind = if named { EventKind::Unlinked } else { EventKind::Deleted };
                self.things.get_mut(&node)?.alive = named;
                self.tell(by, kind, node, (Some(place), None), (head, head, 0));
            }
            Change::Move { from, to, .. } => {
                self.free(to)?;
                if self.at.get(from) != Some(&node) || self.is_inside(node, to.parent) {
                    return None;
                }
                self.at.remove(from);
                self.at.insert(to.clone(), node);
                self.tell(by, EventKind::Moved, node, (Some(from), Some(to)), (head, head, 0));
            }
            Change::Link { place, .. } => {
                self.free(place)?;
                if !live || self.is_dir(node) {
                    return None;
                }
                self.at.insert(place.clone(), node);
                self.tell(by, EventKind::Linked, node, (None, Some(place)), (head, head, 0));
            }
            Change::Restore { place, .. } => {
                self.free(place)?;
                if live {
                    return None;
                }
                self.things.get_mut(&node)?.alive = true;
                self.at.insert(place.clone(), node);
                self.tell(by, EventKind::Restored, node, (None, Some(place)), (head, head, 0));
            }
            Change::Revert { base_version, version, .. } => {
                if !live || head != *base_version {
                    return None;
                }
                let content = *self.things[&node].versions.get(*version as usize - 1)?;
                if self.things[&node].versions.last() != Some(&content) {
                    self.things.get_mut(&node)?.versions.push(content);
                    self.tell(
                        by,
                        EventKind::Reverted,
                        node,
                        (None, None),
                        (head, head + 1, *version),
                    );
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Makes something, or edits a file.
    fn put(&mut self, by: &str, node: Option<NodeId>, place: &Place, what: NodeKind) -> Option<()> {
        self.made += 1;
        if let Some(node) = node {
            let thing = self.things.get_mut(&node).filter(|t| t.what == NodeKind::File)?;
            thing.versions.push(self.made);
            let head = thing.versions.len() as u64;
            self.tell(by, EventKind::Edited, node, (None, Some(place)), (head - 1, head, 0));
            return Some(());
        }
        self.free(place)?;
        let node = NodeId(uuid::Uuid::from_u128(u128::from(self.made)));
        let versions = if what == NodeKind::File { vec![self.made] } else { Vec::new() };
        let head = versions.len() as u64;
        self.things.insert(node, Thing { what, alive: true, versions });
        self.at.insert(place.clone(), node);
        self.tell(by, EventKind::Added, node, (None, Some(place)), (0, head, 0));
        Some(())
    }

    /// Some op or other, by numbers; those that make no sense do nothing.
    fn work(&mut self, by: &str, [op, x, y, z]: [u8; 4]) {
        let mut places: Vec<Place> = self.at.keys().cloned().collect();
        places.sort_by(|a, b| (a.parent, &a.name).cmp(&(b.parent, &b.name)));
        let mut folders: Vec<NodeId> =
            self.things.keys().copied().filter(|n| self.is_dir(*n)).collect();
        folders.sort();
        folders.push(ROOT);
        let to = Place {
            parent: folders[y as usize % folders.len()],
            name: Name::new(NAMES[z as usize % NAMES.len()]).expect("valid"),
        };
        let from = (!places.is_empty()).then(|| places[x as usize % places.len()].clone());
        let node = from.as_ref().map(|p| self.at[p]);
        let dir = node.is_some_and(|n| self.is_dir(n));
        let _ = match (op % 8, from, node) {
            (0, _, _) => self.put(by, None, &to, NodeKind::Dir),
            (1, _, _) | (_, None, _) | (_, _, None) => self.put(by, None, &to, NodeKind::File),
            (2 | 3, Some(from), Some(node)) => self.put(by, Some(node), &from, NodeKind::File),
            (4, _, Some(node)) => self.apply(by, &Change::Link { node, place: to }),
            (5, Some(place), Some(node)) if dir => self.apply(by, &Change::Rmdir { node, place }),
            (5, Some(place), Some(node)) => {
                self.apply(by, &Change::Unlink { node, place, version: None })
            }
            (_, Some(from), Some(node)) => {
                let change = Change::Move {
                    node,
                    from,
                    to,
                    replace: None,
                    replaced_version: None,
                    exchange: false,
                };
                self.apply(by, &change)
            }
        };
    }

    fn record(&self, since: usize) -> Record {
        let mut record = Record { root: Some(ROOT), ..Record::default() };
        // Where folders are that nothing happened to is known from the events in them.
        for (place, node) in self.at.iter().filter(|(_, n)| self.is_dir(**n)) {
            record.folders.insert(*node, place.clone());
        }
        self.log[since..].iter().for_each(|deed| record.push(deed.clone()));
        record
    }

    /// Carries a plan out, all of it or the first steps.
    fn carry_out(&mut self, plan: &Plan, steps: usize) {
        for step in plan.steps.iter().take(steps) {
            let done = self.apply("rewinder", &step.change);
            assert!(done.is_some(), "refused: {step:?} in {plan:#?}\n{self:#?}");
        }
    }
}

fn worked(before: &[[u8; 4]]) -> Server {
    let mut server = Server::default();
    before.iter().for_each(|w| server.work("old", *w));
    server
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_everybody_did_is_undone_and_the_rewind_too(
        before in vec(any::<[u8; 4]>(), 0..25),
        since in vec(any::<[u8; 4]>(), 0..25),
        cut in 0..40usize,
    ) {
        let mut server = worked(&before);
        let (then, mark) = (server.shape(), server.log.len());
        since.iter().for_each(|w| server.work("laptop", *w));
        let (late, late_mark) = (server.shape(), server.log.len());
        // Killed after some steps, and again from the start.
        let first = plan(&server.record(mark), |_| true);
        server.carry_out(&first, cut);
        let rest = plan(&server.record(mark), |_| true);
        prop_assert!(rest.left.is_empty(), "{rest:#?}");
        server.carry_out(&rest, usize::MAX);
        prop_assert_eq!(server.shape(), then);
        prop_assert!(plan(&server.record(mark), |_| true).steps.is_empty(), "nothing is left to do");
        let back = plan(&server.record(late_mark), |_| true);
        prop_assert!(back.left.is_empty(), "{back:#?}");
        server.carry_out(&back, usize::MAX);
        prop_assert_eq!(server.shape(), late);
    }

    #[test]
    fn the_work_of_other_devices_stays(
        before in vec(any::<[u8; 4]>(), 0..25),
        since in vec((any::<bool>(), any::<[u8; 4]>()), 0..25),
        cut in 0..40usize,
    ) {
        let mut server = worked(&before);
        let mark = server.log.len();
        for (laptop, w) in &since {
            server.work(if *laptop { "laptop" } else { "phone" }, *w);
        }
        let late = server.clone();
        let mine = |d: &Deed| d.who.device == "laptop" || d.rewinds.is_some();
        let first = plan(&server.record(mark), mine);
        server.carry_out(&first, cut);
        let rest = plan(&server.record(mark), mine);
        server.carry_out(&rest, usize::MAX);
        for (node, thing) in &late.things {
            let deeds = || late.log[mark..].iter().filter(|d| d.node == *node);
            let touched = deeds().any(|d| d.who.device == "laptop");
            let now = &server.things[node];
            let is_content = |d: &&Deed| matches!(d.kind, EventKind::Added | EventKind::Edited);
            if !touched || deeds().rfind(is_content).is_some_and(|d| d.who.device == "phone") {
                prop_assert_eq!(now.versions.last(), thing.versions.last(), "content of {}", node);
            }
            if thing.alive && deeds().any(|d| d.who.device == "phone" && is_content(&d)) {
                prop_assert!(now.alive || !touched, "what the phone wrote is gone: {node}");
            }
            if !touched {
                prop_assert_eq!(now.alive, thing.alive, "{} was not the laptop's", node);
            }
        }
        // Only the laptop worked: as with everybody.
        if since.iter().all(|(laptop, _)| *laptop) {
            prop_assert!(rest.left.is_empty(), "{rest:#?}");
            prop_assert_eq!(server.shape(), worked(&before).shape());
        }
    }
}

#[test]
fn names_that_went_round_in_a_circle_come_back() {
    let mut server = Server::default();
    let at = |name: &str| Place { parent: ROOT, name: Name::new(name).expect("valid") };
    for name in ["a", "b", "c"] {
        server.put("old", None, &at(name), NodeKind::File).expect("made");
    }
    let (then, mark) = (server.shape(), server.log.len());
    let ids = ["a", "b", "c"].map(|n| server.at[&at(n)]);
    let steps = [(0, "a", "x"), (1, "b", "a"), (2, "c", "b"), (0, "x", "c")];
    for (i, from, to) in steps {
        let change = Change::Move {
            node: ids[i],
            from: at(from),
            to: at(to),
            replace: None,
            replaced_version: None,
            exchange: false,
        };
        server.apply("laptop", &change).expect("moved");
    }
    // Cut in the middle, also of one device alone: the name aside is no work of somebody else.
    for cut in 0..5 {
        let mut server = server.clone();
        let mine = |d: &Deed| d.who.device == "laptop" || d.rewinds.is_some();
        let first = plan(&server.record(mark), mine);
        assert!(first.left.is_empty(), "{first:#?}");
        server.carry_out(&first, cut);
        let rest = plan(&server.record(mark), mine);
        assert!(rest.left.is_empty(), "{rest:#?}");
        server.carry_out(&rest, usize::MAX);
        assert_eq!(server.shape(), then, "cut after {cut}");
    }
}
