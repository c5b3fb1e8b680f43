//! What was written in a case, and what has to be there in the end: all that nobody overwrote or
//! removed who saw it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use drivefs_core::id::NodeId;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;

use super::view::View;

/// Who does something: the one device, or everybody else.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    Here,
    There,
}

#[derive(Default)]
pub struct Ledger {
    /// Contents, with the node that each was written to last.
    written: BTreeMap<Vec<u8>, NodeId>,
    dropped: BTreeSet<Vec<u8>>,
    /// Files of several names that lost one, or had one moved, here and there: both together may
    /// take all names, though neither does.
    thinned: [BTreeSet<NodeId>; 2],
}

impl Ledger {
    /// What both sides begin with.
    pub fn of(base: &View) -> Self {
        let content = |node| base.nodes.get(node).and_then(|seen| seen.content.clone());
        let written = base.nodes.keys().filter_map(|node| Some((content(node)?, *node)));
        Self { written: written.collect(), ..Self::default() }
    }

    /// Notes what one side is about to do. `whole`: it sees whole commits, not half a move, where a
    /// file has a name too many.
    pub fn note(&mut self, side: Side, changes: &[Change], view: &View, whole: bool) {
        let content = |node: &NodeId| view.nodes.get(node).and_then(|seen| seen.content.clone());
        for change in changes {
            let gone = match change {
                Change::Put { node, content: Blob(new), .. } => {
                    self.dropped.extend(content(node).filter(|old| old != new));
                    self.written.insert(new.clone(), *node);
                    continue;
                }
                Change::Unlink { node, .. } => node,
                Change::Move { node, replace, exchange, .. } => {
                    let moved = [Some(node), replace.as_ref()].into_iter().flatten();
                    let linked = moved.filter(|node| view.names_of(**node) > 1);
                    self.thinned[side as usize].extend(linked);
                    match replace {
                        Some(other) if !exchange => other,
                        _ => continue,
                    }
                }
                _ => continue,
            };
            // A folder may take several names of a file with it.
            let taken = changes.iter().filter(|c| is_unlink_of(c, gone)).count().max(1);
            if view.names_of(*gone) <= taken || !whole {
                self.dropped.extend(content(gone));
            } else {
                self.thinned[side as usize].insert(*gone);
            }
        }
    }

    /// What has to be there in the end.
    pub fn due(&self) -> impl Iterator<Item = &Vec<u8>> {
        let thinned = |node: &NodeId| self.thinned.iter().all(|side| side.contains(node));
        let kept =
            move |(c, node): &(&Vec<u8>, &NodeId)| !self.dropped.contains(*c) && !thinned(node);
        self.written.iter().filter(kept).map(|(content, _)| content)
    }
}

fn is_unlink_of(change: &Change, file: &NodeId) -> bool {
    matches!(change, Change::Unlink { node, .. } if node == file)
}
