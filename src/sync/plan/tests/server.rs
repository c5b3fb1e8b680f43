//! A model of the server's metadata: it takes ops one by one under the rules of
//! `server/src/drive/commit`, and tells what changed page by page as `server/src/metadata/changes`.

use std::collections::BTreeMap;
use std::collections::HashSet;

use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::DirentRow;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Place;
use drivefs_core::wire::Role;

use super::view::Key;
use super::view::Seen;
use super::view::View;
use super::view::key;

/// Why an op was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The tree has moved on.
    Conflict(String),
    /// It can never succeed.
    Rejected(String),
}

fn conflict<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::Conflict(why))
}

fn rejected<T>(why: &str) -> Result<T, Refusal> {
    Err(Refusal::Rejected(why.to_owned()))
}

/// One namespace. What was removed stays as a tombstone.
pub struct Server {
    pub seq: Seq,
    root: NodeId,
    nodes: BTreeMap<NodeId, NodeRow>,
    entries: BTreeMap<Key, (Option<NodeId>, Seq)>,
}

impl Server {
    pub fn new(root: NodeId, attrs: Attrs) -> Self {
        let row = NodeRow { seq: 1, ..row(root, NodeKind::Dir, &attrs, &Xattrs::new()) };
        let nodes = BTreeMap::from([(root, row)]);
        Self { seq: 1, root, nodes, entries: BTreeMap::new() }
    }

    pub fn view(&self) -> View {
        let mut view = View::new(self.root);
        let live = self.nodes.values().filter(|row| !row.deleted);
        view.nodes = live.map(|row| (row.node, seen(row))).collect();
        for (place, (child, _)) in &self.entries {
            view.entries.extend(child.map(|child| (place.clone(), child)));
        }
        view
    }

    /// Takes ops under one seq; an op that fails leaves the others as they are.
    pub fn commit(&mut self, changes: &[Change]) -> Vec<Result<VersionNo, Refusal>> {
        let seq = self.seq + 1;
        let results: Vec<_> = changes.iter().map(|change| self.take(change, seq)).collect();
        if results.iter().any(Result::is_ok) {
            self.seq = seq;
        }
        results
    }

    /// Makes an op part of the last commit.
    pub fn join(&mut self, change: &Change) -> Result<VersionNo, Refusal> {
        self.take(change, self.seq)
    }

    /// Whole commits behind `cursor`, about `limit` rows.
    pub fn changes(&self, cursor: Seq, limit: usize) -> ChangesReply {
        let mut seqs: Vec<Seq> = self.nodes.values().map(|row| row.seq).collect();
        seqs.extend(self.entries.values().map(|entry| entry.1));
        seqs.retain(|&seq| seq > cursor);
        seqs.sort_unstable();
        let end = match (seqs.first(), seqs.get(limit)) {
            (Some(first), Some(beyond)) if beyond > first => beyond - 1,
            (Some(first), Some(_)) => *first,
            _ => self.seq,
        };
        let told = |seq: Seq| seq > cursor && seq <= end;
        let live = |is_live: bool| is_live || cursor != 0;
        let told_nodes = self.nodes.values().filter(|row| told(row.seq) && live(!row.deleted));
        let mut nodes: Vec<NodeRow> = told_nodes.cloned().collect();
        nodes.sort_by_key(|row| row.seq);
        let mut dirents: Vec<DirentRow> = self
            .entries
            .iter()
            .filter(|(_, (child, seq))| told(*seq) && live(child.is_some()))
            .map(|((parent, name), (child, seq))| DirentRow {
                parent: *parent,
                name: Name::new(name.clone()).expect("a name"),
                child: *child,
                seq: *seq,
            })
            .collect();
        dirents.sort_by_key(|row| row.seq);
        // Nodes at both ends of an entry come with it, in whatever state they are by now.
        let mut known: HashSet<NodeId> = nodes.iter().map(|row| row.node).collect();
        for id in dirents.iter().flat_map(|d| [Some(d.parent), d.child]).flatten() {
            let row = &self.nodes[&id];
            if known.insert(id) && row.seq > end {
                nodes.push(row.clone());
            }
        }
        ChangesReply {
            nodes,
            dirents,
            cursor: end,
            more: end < self.seq,
            root: self.root,
            role: Role::Owner,
            epoch: 1,
            head: self.seq,
            common: 0,
        }
    }

    fn take(&mut self, change: &Change, seq: Seq) -> Result<VersionNo, Refusal> {
        match change {
            Change::Put { node, create: Some(place), content, attrs, xattrs, .. } => {
                let file = row(*node, NodeKind::File, attrs, xattrs);
                let content = Some(content.clone());
                self.make(NodeRow { content, version: 1, ..file }, place, seq)
            }
            Change::Put { node, create: None, base_version, content, attrs, .. } => {
                let state = self.live(*node)?;
                if state.kind != NodeKind::File {
                    return rejected("only files have content");
                }
                if state.version != *base_version {
                    return conflict(format!("version {}, not {base_version}", state.version));
                }
                let row = self.nodes.get_mut(node).expect("live");
                if row.content.as_ref() != Some(content) {
                    row.version += 1;
                    row.content = Some(content.clone());
                }
                (row.attrs, row.seq) = (*attrs, seq);
                Ok(row.version)
            }
            Change::Mkdir { node, place, attrs, xattrs } => {
                self.make(row(*node, NodeKind::Dir, attrs, xattrs), place, seq)
            }
            Change::Link { node, place } => {
                let state = self.live(*node)?;
                if state.kind.is_folder() {
                    return rejected("folders have one name only");
                }
                self.free(place)?;
                self.name(place, *node, seq);
                Ok(state.version)
            }
            Change::Move { node, from, to, replace, exchange: true, .. } => {
                self.exchange(*node, (from, to), *replace, seq)
            }
            Change::Move { node, from, to, replace, replaced_version, exchange: false } => {
                self.relocate(*node, (from, to), (*replace, *replaced_version), seq)
            }
            Change::Unlink { node, place, version } => {
                let state = self.live(*node)?;
                if state.kind.is_folder() {
                    return rejected("a directory goes by rmdir");
                }
                self.names(place, *node)?;
                self.not_newer(*node, *version)?;
                self.unname(place, *node, seq);
                Ok(state.version)
            }
            Change::Rmdir { node, place } => {
                if !self.live(*node)?.kind.is_folder() {
                    return rejected("rmdir removes directories only");
                }
                self.names(place, *node)?;
                self.empty(*node)?;
                self.unname(place, *node, seq);
                Ok(0)
            }
            Change::Setattr { node, attrs } => {
                let version = self.live(*node)?.version;
                let row = self.nodes.get_mut(node).expect("live");
                (row.attrs, row.seq) = (*attrs, seq);
                Ok(version)
            }
            Change::Setxattr { node, name, value } => {
                let version = self.live(*node)?.version;
                let row = self.nodes.get_mut(node).expect("live");
                match value {
                    Some(value) => row.xattrs.insert(name.clone(), value.clone()),
                    None => row.xattrs.remove(name),
                };
                row.seq = seq;
                Ok(version)
            }
            other => rejected(&format!("nobody asks for {other:?}")),
        }
    }

    fn make(&mut self, row: NodeRow, place: &Place, seq: Seq) -> Result<VersionNo, Refusal> {
        let (node, version) = (row.node, row.version);
        if self.nodes.contains_key(&node) {
            return conflict(format!("node {node} exists already"));
        }
        self.free(place)?;
        self.nodes.insert(node, row);
        self.name(place, node, seq);
        Ok(version)
    }

    fn relocate(
        &mut self,
        node: NodeId,
        (from, to): (&Place, &Place),
        (replace, seen): (Option<NodeId>, Option<VersionNo>),
        seq: Seq,
    ) -> Result<VersionNo, Refusal> {
        let state = self.live(node)?;
        self.names(from, node)?;
        self.directory(to.parent)?;
        if from == to {
            return Ok(state.version);
        }
        self.check_not_inside(&state, to.parent)?;
        let there = self.child(to);
        if there.is_some() && there != replace {
            return conflict(format!("{to:?} is taken by node {there:?}"));
        }
        if let Some(there) = there.filter(|&there| there != node) {
            match (state.kind.is_folder(), self.live(there)?.kind.is_folder()) {
                (true, true) => self.empty(there)?,
                (false, false) => {}
                _ => return rejected("kinds do not fit"),
            }
            self.not_newer(there, seen)?;
            self.unname(to, there, seq);
        }
        self.entries.insert(key(from), (None, seq));
        self.name(to, node, seq);
        Ok(state.version)
    }

    fn exchange(
        &mut self,
        node: NodeId,
        (from, to): (&Place, &Place),
        replace: Option<NodeId>,
        seq: Seq,
    ) -> Result<VersionNo, Refusal> {
        let state = self.live(node)?;
        self.names(from, node)?;
        self.directory(to.parent)?;
        let Some(other) = self.child(to) else {
            return conflict(format!("{to:?} names nothing to exchange with"));
        };
        if replace.is_some_and(|expected| expected != other) {
            return conflict(format!("{to:?} names node {other} now"));
        }
        if from == to || other == node {
            return Ok(state.version);
        }
        let other_state = self.live(other)?;
        self.check_not_inside(&state, to.parent)?;
        self.check_not_inside(&other_state, from.parent)?;
        self.name(to, node, seq);
        self.name(from, other, seq);
        Ok(state.version)
    }

    /// A content newer than what was `seen` does not lose its last name.
    fn not_newer(&self, node: NodeId, seen: Option<VersionNo>) -> Result<(), Refusal> {
        let version = self.live(node)?.version;
        let names = self.entries.values().filter(|entry| entry.0 == Some(node)).count();
        match seen {
            Some(seen) if seen < version && names == 1 => {
                conflict(format!("version {version}, not {seen}"))
            }
            _ => Ok(()),
        }
    }

    fn child(&self, place: &Place) -> Option<NodeId> {
        self.entries.get(&key(place)).and_then(|entry| entry.0)
    }

    fn live(&self, node: NodeId) -> Result<NodeRow, Refusal> {
        match self.nodes.get(&node) {
            Some(row) if !row.deleted => Ok(row.clone()),
            Some(_) => conflict(format!("node {node} is deleted")),
            None => conflict(format!("node {node} is not known here")),
        }
    }

    fn directory(&self, node: NodeId) -> Result<(), Refusal> {
        match self.live(node)?.kind.is_folder() {
            true => Ok(()),
            false => conflict(format!("node {node} is not a directory")),
        }
    }

    fn free(&self, place: &Place) -> Result<(), Refusal> {
        self.directory(place.parent)?;
        match self.child(place) {
            None => Ok(()),
            Some(node) => conflict(format!("{place:?} is taken by node {node}")),
        }
    }

    fn names(&self, place: &Place, node: NodeId) -> Result<(), Refusal> {
        match self.child(place) {
            Some(child) if child == node => Ok(()),
            other => conflict(format!("{place:?} names {other:?}, not {node}")),
        }
    }

    fn empty(&self, folder: NodeId) -> Result<(), Refusal> {
        match self.entries.iter().any(|((parent, _), (c, _))| *parent == folder && c.is_some()) {
            true => conflict(format!("directory {folder} is not empty")),
            false => Ok(()),
        }
    }

    fn check_not_inside(&self, state: &NodeRow, parent: NodeId) -> Result<(), Refusal> {
        let mut at = Some(parent).filter(|_| state.kind.is_folder());
        while let Some(folder) = at {
            if folder == state.node {
                return conflict(format!("node {folder} would come to lie inside itself"));
            }
            at = self.places_of(folder).next().map(|place| place.0);
        }
        Ok(())
    }

    fn places_of(&self, node: NodeId) -> impl Iterator<Item = &Key> {
        self.entries.iter().filter(move |(_, entry)| entry.0 == Some(node)).map(|(place, _)| place)
    }

    fn name(&mut self, place: &Place, node: NodeId, seq: Seq) {
        self.entries.insert(key(place), (Some(node), seq));
        self.nodes.get_mut(&node).expect("known").seq = seq;
    }

    fn unname(&mut self, place: &Place, node: NodeId, seq: Seq) {
        self.entries.insert(key(place), (None, seq));
        let is_named = self.places_of(node).next().is_some();
        let row = self.nodes.get_mut(&node).expect("known");
        row.seq = seq;
        if !is_named {
            row.deleted = true;
            row.last = Some(place.clone());
        }
    }
}

fn row(node: NodeId, kind: NodeKind, attrs: &Attrs, xattrs: &Xattrs) -> NodeRow {
    NodeRow {
        node,
        kind,
        attrs: *attrs,
        rdev: 0,
        target: None,
        mount: None,
        xattrs: xattrs.clone(),
        content: None,
        version: 0,
        seq: 0,
        deleted: false,
        last: None,
        device: String::new(),
        committed: 0,
    }
}

fn seen(row: &NodeRow) -> Seen {
    Seen {
        folder: row.kind.is_folder(),
        attrs: row.attrs,
        xattrs: row.xattrs.clone(),
        content: row.content.as_ref().map(|Blob(content)| content.clone()),
        version: row.version,
    }
}
