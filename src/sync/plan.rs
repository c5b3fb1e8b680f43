//! The planner: what is ahead becomes ops, in an order that the server can take one by one. Pure.
//!
//! State in, ops out: the intents of one namespace (what the server has, what is here) are turned
//! into the shortest list of changes. An op comes after those it needs: the one that makes its
//! parent folder, the one that frees its place, and for a folder's removal those that empty it.
//! Cycles of moves are broken by a detour over a free name. An op whose content is not on the
//! server yet holds up only what depends on it.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;
use drivefs_core::wire::Source;

use crate::tree::PendingDirent;
use crate::tree::PendingNode;

/// Plans the ops for what is pending in the namespace whose root folder is `root`. `ready` says of a node whether its changes may be sent now:
/// for a file, whether its content is on the server. What is `leaving` for another namespace is
/// removed only when that one has it.
pub fn plan(
    root: NodeId,
    leaving: &HashSet<NodeId>,
    nodes: &[PendingNode],
    dirents: &[PendingDirent],
    ready: impl Fn(&PendingNode) -> bool,
) -> Vec<Change> {
    let mut draft = Draft::default();
    let by_id: HashMap<NodeId, &PendingNode> = nodes.iter().map(|n| (n.base.id, n)).collect();
    draft.entries(dirents, &by_id, leaving, &ready);
    draft.join_exchanges();
    for node in nodes.iter().filter(|n| n.base.agreed.is_some() && ready(n)) {
        draft.fields(node);
    }
    draft.needs();
    draft.hold_back();
    draft.order(root)
}

/// An op being planned.
struct Item {
    change: Change,
    /// The place that it fills.
    target: Option<Place>,
    /// The place that it frees.
    frees: Option<Place>,
    needs: BTreeSet<usize>,
    /// Must wait, and with it all that needs it.
    held: bool,
    dropped: bool,
}

#[derive(Default)]
struct Draft {
    items: Vec<Item>,
    /// The item that makes or moves a node: its children come after it.
    settles: HashMap<NodeId, usize>,
    /// The item that frees a place.
    freed_by: HashMap<Place, usize>,
    /// The item that fills a place.
    filled_by: HashMap<Place, usize>,
    /// Folders above the parent of a place that a folder fills.
    above: HashMap<Place, Vec<NodeId>>,
    /// Folders that move: they replace no file.
    moved_folders: HashSet<NodeId>,
    /// Items that empty a folder.
    empties: HashMap<NodeId, Vec<usize>>,
}

impl Draft {
    fn push(&mut self, change: Change, target: Option<Place>, frees: Option<Place>, held: bool) {
        let i = self.items.len();
        if let Some(place) = &frees {
            self.freed_by.insert(place.clone(), i);
            self.empties.entry(place.parent).or_default().push(i);
        }
        if let Some(place) = &target {
            self.filled_by.insert(place.clone(), i);
        }
        self.items.push(Item {
            change,
            target,
            frees,
            needs: BTreeSet::new(),
            held,
            dropped: false,
        });
    }

    /// Ops for entries: create, link, move, unlink, rmdir.
    fn entries(
        &mut self,
        dirents: &[PendingDirent],
        nodes: &HashMap<NodeId, &PendingNode>,
        leaving: &HashSet<NodeId>,
        ready: &impl Fn(&PendingNode) -> bool,
    ) {
        let mut removed: HashMap<NodeId, VecDeque<(Place, bool)>> = HashMap::new();
        for (place, dirent) in dirents.iter().filter_map(with_place) {
            if let Some(before) = dirent.before.filter(|b| Some(b.id) != dirent.after.map(|a| a.id))
            {
                removed.entry(before.id).or_default().push_back((place, before.folder));
            }
        }
        for (place, dirent) in dirents.iter().filter_map(with_place) {
            if !dirent.above.is_empty() {
                self.above.insert(place.clone(), dirent.above.clone());
            }
            let Some(after) = dirent.after.filter(|a| dirent.before.map(|b| b.id) != Some(a.id))
            else {
                continue;
            };
            let node = after.id;
            let pending = nodes.get(&node);
            let held = pending.is_some_and(|n| !ready(n));
            if let Some(new) = pending.filter(|n| n.base.agreed.is_none())
                && !self.settles.contains_key(&node)
            {
                self.settles.insert(node, self.items.len());
                match create(new, &place) {
                    Some(change) => self.push(change, Some(place), None, held),
                    None => self.push(Change::Link { node, place }, None, None, true),
                }
            } else if let Some((from, folder)) =
                removed.get_mut(&node).and_then(VecDeque::pop_front)
            {
                if folder {
                    self.moved_folders.insert(node);
                }
                self.settles.entry(node).or_insert(self.items.len());
                let change = Change::Move {
                    node,
                    from: from.clone(),
                    to: place.clone(),
                    replace: None,
                    replaced_version: None,
                    exchange: false,
                };
                self.push(change, Some(place), Some(from), false);
            } else {
                // A folder that came from a place which is not told yet has to wait for that.
                let change = Change::Link { node, place: place.clone() };
                self.push(change, Some(place), None, held || after.folder);
            }
        }
        for (place, dirent) in dirents.iter().filter_map(with_place) {
            let Some(before) = dirent.before else { continue };
            let left = removed.get_mut(&before.id);
            let Some(left) = left.filter(|l| l.iter().any(|(p, _)| *p == place)) else { continue };
            left.retain(|(p, _)| *p != place);
            let stays = leaving.contains(&before.id);
            if !before.folder && !stays && self.replace_at(&place, before.id, dirent.seen) {
                continue;
            }
            let node = before.id;
            let change = if before.folder {
                Change::Rmdir { node, place: place.clone() }
            } else {
                Change::Unlink { node, place: place.clone(), version: dirent.seen }
            };
            self.push(change, None, Some(place), stays);
        }
    }

    /// Lets the move of a file that fills a place replace the file that is there, in one op.
    fn replace_at(&mut self, place: &Place, victim: NodeId, seen: Option<VersionNo>) -> bool {
        let Some(&i) = self.filled_by.get(place) else { return false };
        match &mut self.items[i].change {
            Change::Move { node, replace, replaced_version, .. }
                if !self.moved_folders.contains(node) =>
            {
                (*replace, *replaced_version) = (Some(victim), seen);
                true
            }
            _ => false,
        }
    }

    /// Two moves into each other's place are one exchange, unless the folders around them are made
    /// or moved as well: then each has its own turn.
    fn join_exchanges(&mut self) {
        for i in 0..self.items.len() {
            let (Some(target), Some(from)) = (&self.items[i].target, &self.items[i].frees) else {
                continue;
            };
            let Some(&j) = self.freed_by.get(target).filter(|&&j| j > i) else { continue };
            let around = [target, from].into_iter().flat_map(|p| self.around(p));
            let apart = around.into_iter().any(|p| self.settles.contains_key(&p));
            if apart || self.items[j].target.as_ref() != Some(from) || self.items[j].dropped {
                continue;
            }
            let other = self.items[j].change.node();
            if let Change::Move { replace, replaced_version, exchange, .. } =
                &mut self.items[i].change
            {
                (*replace, *replaced_version) = (Some(other), None);
                *exchange = true;
                self.items[j].dropped = true;
                self.settles.insert(other, i);
            }
        }
    }

    /// The folder of a place and those above it.
    fn around(&self, place: &Place) -> Vec<NodeId> {
        let mut folders = self.above.get(place).cloned().unwrap_or_default();
        folders.push(place.parent);
        folders
    }

    /// Ops for content and attributes of what the server has.
    fn fields(&mut self, node: &PendingNode) {
        let (local, base) = (&node.local, &node.base);
        let Some((attrs, xattrs)) = &base.agreed else { return };
        let id = base.id;
        if local.kind == NodeKind::File && local.content != base.content {
            if let Some(content) = &local.content {
                let change = Change::Put {
                    node: id,
                    create: None,
                    base_version: base.version,
                    content: Blob(content.clone()),
                    attrs: local.attrs,
                    xattrs: Default::default(),
                    source: source(node),
                };
                self.push(change, None, None, false);
            }
        } else if local.attrs != *attrs {
            self.push(Change::Setattr { node: id, attrs: local.attrs }, None, None, false);
        }
        for (name, value) in &local.xattrs {
            if xattrs.get(name) != Some(value) {
                let value = Some(value.clone());
                let change = Change::Setxattr { node: id, name: name.clone(), value };
                self.push(change, None, None, false);
            }
        }
        for name in xattrs.keys().filter(|n| !local.xattrs.contains_key(*n)) {
            let change = Change::Setxattr { node: id, name: name.clone(), value: None };
            self.push(change, None, None, false);
        }
    }

    /// Who has to come before whom.
    fn needs(&mut self) {
        for i in 0..self.items.len() {
            let item = &self.items[i];
            let mut needs = BTreeSet::new();
            let swaps = matches!(item.change, Change::Move { exchange: true, .. });
            if let Some(target) = &item.target {
                let around = self.around(target);
                needs.extend(around.iter().filter_map(|p| self.settles.get(p)).copied());
                if !swaps {
                    needs.extend(self.freed_by.get(target).copied());
                }
            }
            match &item.change {
                Change::Link { node, .. } => needs.extend(self.settles.get(node).copied()),
                Change::Rmdir { node, .. } => {
                    needs.extend(self.empties.get(node).into_iter().flatten().copied());
                }
                _ => {}
            }
            needs.remove(&i);
            needs.retain(|&n| !self.items[n].dropped);
            self.items[i].needs = needs;
        }
    }

    /// Holds back what needs a held op, and removals whose successor at the place is held: nobody
    /// shall see the place empty in between.
    fn hold_back(&mut self) {
        loop {
            let mut changed = false;
            for i in 0..self.items.len() {
                if self.items[i].held {
                    continue;
                }
                let waits = self.items[i].needs.iter().any(|&n| self.items[n].held);
                let removes =
                    matches!(self.items[i].change, Change::Unlink { .. } | Change::Rmdir { .. });
                let successor_waits = removes
                    && self.items[i]
                        .frees
                        .as_ref()
                        .and_then(|p| self.filled_by.get(p))
                        .is_some_and(|&s| self.items[s].held);
                if waits || successor_waits {
                    self.items[i].held = true;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Topological order, first come first; cycles of moves go over a detour.
    fn order(mut self, root: NodeId) -> Vec<Change> {
        let mut out = Vec::new();
        let mut aside = BTreeSet::new();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.items.len()];
        let mut open: BTreeSet<usize> = (0..self.items.len())
            .filter(|&i| !self.items[i].held && !self.items[i].dropped)
            .collect();
        for &i in &open {
            for &n in &self.items[i].needs {
                users[n].push(i);
            }
        }
        let mut free: BTreeSet<usize> =
            open.iter().copied().filter(|&i| self.items[i].needs.is_empty()).collect();
        loop {
            while let Some(i) = free.pop_first() {
                open.remove(&i);
                out.push(self.items[i].change.clone());
                for &user in &users[i] {
                    self.items[user].needs.remove(&i);
                    if self.items[user].needs.is_empty() && open.contains(&user) {
                        free.insert(user);
                    }
                }
            }
            // Only cycles are left. A move in one of them steps aside, which frees its place.
            let plain = |i: usize| is_plain_move(&self.items[i].change) && !aside.contains(&i);
            let Some(i) = open.iter().copied().find(|&i| plain(i)) else {
                debug_assert!(open.is_empty(), "only moves can form cycles");
                return out;
            };
            aside.insert(i);
            let Change::Move { node, from, to, replace, replaced_version, .. } =
                self.items[i].change.clone()
            else {
                unreachable!("found as a move");
            };
            // In the root nothing is above it: whatever waits for its place, or to move into it
            // without going round in a circle, can go now.
            let detour = Place { parent: root, name: detour_name(&node, i) };
            let there = detour.clone();
            out.push(Change::Move {
                node,
                from,
                to: there,
                replace: None,
                replaced_version: None,
                exchange: false,
            });
            self.items[i].change =
                Change::Move { node, from: detour, to, replace, replaced_version, exchange: false };
            for &user in &users[i] {
                self.items[user].needs.remove(&i);
                if self.items[user].needs.is_empty() && open.contains(&user) {
                    free.insert(user);
                }
            }
        }
    }
}

fn with_place(d: &PendingDirent) -> Option<(Place, &PendingDirent)> {
    let name = Name::new(d.name.clone()).ok()?;
    Some((Place { parent: d.parent, name }, d))
}

fn is_plain_move(change: &Change) -> bool {
    matches!(change, Change::Move { exchange: false, .. })
}

/// One a move: a file with two names may have to step aside twice.
fn detour_name(node: &NodeId, item: usize) -> Name {
    Name::new(format!(".drivefs-moving-{node}-{item}")).expect("a short name without slashes")
}

fn source(node: &PendingNode) -> Option<Source> {
    node.local.source.map(|(ns, node)| Source { ns, node })
}

/// The op that makes a node; none for what this device cannot make.
fn create(new: &PendingNode, place: &Place) -> Option<Change> {
    let local = &new.local;
    let (node, place, attrs) = (local.id, place.clone(), local.attrs);
    let xattrs = local.xattrs.clone();
    Some(match local.kind {
        NodeKind::File => Change::Put {
            node,
            create: Some(place),
            base_version: 0,
            content: Blob(local.content.clone().unwrap_or_default()),
            attrs,
            xattrs,
            source: source(new),
        },
        NodeKind::Dir => Change::Mkdir { node, place, attrs, xattrs },
        NodeKind::Symlink => Change::Symlink {
            node,
            place,
            target: Blob(local.target.clone().unwrap_or_default()),
            attrs,
            xattrs,
        },
        NodeKind::Mount => return None,
        kind => Change::Mknod { node, place, kind, rdev: local.rdev, attrs, xattrs },
    })
}

#[cfg(test)]
mod tests;
