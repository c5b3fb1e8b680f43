//! A tree as one side sees it, and what a step of a user means there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::Place;

use super::deeds::Deed;
use crate::state::Nid;
use crate::tree::new_id;

/// Where the part of an id begins that differs within a case.
const ID_END: usize = 30;

/// A place: folder and name.
pub type Key = (NodeId, Vec<u8>);

pub fn key(place: &Place) -> Key {
    (place.parent, place.name.as_bytes().to_vec())
}

fn place(key: &Key) -> Place {
    Place { parent: key.0, name: Name::new(key.1.clone()).expect("a name") }
}

/// A node as one side sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub folder: bool,
    pub attrs: Attrs,
    pub xattrs: Xattrs,
    /// An encoded manifest root.
    pub content: Option<Vec<u8>>,
    pub version: VersionNo,
}

#[derive(Debug, Clone)]
pub struct View {
    pub root: NodeId,
    pub entries: BTreeMap<Key, NodeId>,
    pub nodes: BTreeMap<NodeId, Seen>,
    /// Numbers of the nodes, where it is a device that sees them.
    pub nids: HashMap<NodeId, Nid>,
}

/// The value that both sides may write.
pub const SAME: u32 = 0;

/// What is written as the value `n`. All are of one length: then only their blocks tell them apart.
pub fn bytes_of(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

/// The content that holds just these bytes.
pub fn content_of(bytes: &[u8]) -> Vec<u8> {
    let entry = Entry { hash: BlockHash::of(bytes), len: bytes.len() as u32 };
    Root::build(&[entry]).0.encode()
}

impl View {
    pub fn new(root: NodeId) -> Self {
        let (entries, nodes, nids) = Default::default();
        Self { root, entries, nodes, nids }
    }

    /// All that it shows, a line each, for reading: nodes by the end of their ids.
    pub fn lines(&self) -> BTreeSet<String> {
        let end = |id: &NodeId| id.to_string().split_off(ID_END);
        let entry = |(place, node): (&Key, &NodeId)| {
            let name = String::from_utf8_lossy(&place.1);
            format!("entry {}/{name} -> {}", end(&place.0), end(node))
        };
        let node = |(id, seen): (&NodeId, &Seen)| {
            let Seen { folder, attrs, xattrs, content, version } = seen;
            let Attrs { mode, mtime, btime, .. } = attrs;
            let xattrs =
                xattrs.iter().map(|(k, v)| format!("{k}={}", String::from_utf8_lossy(&v.0)));
            let xattrs: Vec<String> = xattrs.collect();
            let hash = content.as_ref().map(|c| BlockHash::of(c).to_string().split_off(56));
            format!(
                "node {} folder={folder} {mode:o} mtime={mtime} btime={btime} version={version} \
                 content={hash:?} {xattrs:?}",
                end(id)
            )
        };
        self.entries.iter().map(entry).chain(self.nodes.iter().map(node)).collect()
    }

    pub fn names_of(&self, node: NodeId) -> usize {
        self.entries.values().filter(|&&n| n == node).count()
    }

    fn is_below(&self, node: NodeId, top: NodeId) -> bool {
        let mut at = node;
        while at != top {
            match self.entries.iter().find(|(_, n)| **n == at) {
                Some((place, _)) => at = place.0,
                None => return false,
            }
        }
        true
    }

    fn is_empty(&self, folder: NodeId) -> bool {
        !self.entries.keys().any(|(parent, _)| *parent == folder)
    }

    /// The folders, the root first, in an order that does not depend on ids: those differ from run
    /// to run, and a deed shall mean the same when it is tried again.
    fn folders(&self) -> Vec<NodeId> {
        let mut out = vec![self.root];
        let mut at = 0;
        while let Some(&folder) = out.get(at) {
            let below = self.entries.range((folder, Vec::new())..);
            let below = below.take_while(|(place, _)| place.0 == folder);
            out.extend(below.map(|(_, n)| *n).filter(|n| self.nodes[n].folder));
            at += 1;
        }
        out
    }

    /// What a deed comes to here; nothing where a file system would refuse it.
    /// What is written is `value`, or what all write that write the same.
    pub fn changes(&self, deed: &Deed, value: u32) -> Vec<Change> {
        let folders = self.folders();
        let folder = |i: u8| folders[usize::from(i) % folders.len()];
        let spot = |parent: u8, name: u8| (folder(parent), vec![b'a' + name]);
        let entries: Vec<(&Key, NodeId)> = folders
            .iter()
            .flat_map(|f| {
                let below = self.entries.range((*f, Vec::new())..);
                below.take_while(move |(place, _)| place.0 == *f).map(|(place, n)| (place, *n))
            })
            .collect();
        let entry = |i: u8| entries.get(usize::from(i).checked_rem(entries.len())?).copied();
        let found = match *deed {
            Deed::Folder { parent, name } => self.make(&spot(parent, name), None),
            Deed::File { parent, name, same } => {
                self.make(&spot(parent, name), Some(if same { SAME } else { value }))
            }
            Deed::Link { entry: i, parent, name } => {
                entry(i).and_then(|(_, node)| self.link(node, &spot(parent, name)))
            }
            Deed::Remove { entry: i } => entry(i).map(|(place, node)| self.remove(place, node)),
            Deed::Move { entry: i, parent, name } => {
                entry(i).and_then(|(from, node)| self.relocate(from, node, &spot(parent, name)))
            }
            Deed::Exchange { one, other } => entry(one)
                .zip(entry(other))
                .and_then(|((from, node), (to, other))| self.exchange((from, node), (to, other))),
            Deed::Write { entry: i, same } => {
                entry(i).and_then(|(_, n)| self.write(n, if same { SAME } else { value }))
            }
            Deed::Mode { entry: i, mode } => entry(i).map(|(_, node)| {
                let mode = 0o600 | u32::from(mode);
                let attrs = Attrs { mode, ..self.nodes[&node].attrs };
                vec![Change::Setattr { node, attrs }]
            }),
            Deed::Mark { entry: i, value } => entry(i).map(|(_, node)| {
                let value = Some(Blob(vec![value]));
                vec![Change::Setxattr { node, name: "user.mark".into(), value }]
            }),
        };
        found.unwrap_or_default()
    }

    fn make(&self, to: &Key, value: Option<u32>) -> Option<Vec<Change>> {
        if self.entries.contains_key(to) {
            return None;
        }
        let (node, place, xattrs) = (new_id(), place(to), Xattrs::new());
        let attrs = Attrs { mode: 0o644, uid: None, gid: None, mtime: 1, btime: 1 };
        Some(vec![match value {
            Some(value) => Change::Put {
                node,
                create: Some(place),
                base_version: 0,
                content: Blob(content_of(&bytes_of(value))),
                attrs,
                xattrs,
                source: None,
            },
            None => Change::Mkdir { node, place, attrs, xattrs },
        }])
    }

    fn link(&self, node: NodeId, to: &Key) -> Option<Vec<Change>> {
        let fits = !self.nodes[&node].folder && !self.entries.contains_key(to);
        fits.then(|| vec![Change::Link { node, place: place(to) }])
    }

    /// What lies below goes with a folder.
    fn remove(&self, at: &Key, node: NodeId) -> Vec<Change> {
        if !self.nodes[&node].folder {
            return vec![Change::Unlink { node, place: place(at), version: None }];
        }
        let below = self.entries.iter().filter(|(inner, _)| inner.0 == node);
        let mut out: Vec<Change> = below.flat_map(|(inner, n)| self.remove(inner, *n)).collect();
        out.push(Change::Rmdir { node, place: place(at) });
        out
    }

    fn relocate(&self, from: &Key, node: NodeId, to: &Key) -> Option<Vec<Change>> {
        let folder = self.nodes[&node].folder;
        if from == to || (folder && self.is_below(to.0, node)) {
            return None;
        }
        let there = self.entries.get(to).copied();
        if let Some(there) = there
            && (there == node
                || self.nodes[&there].folder != folder
                || (folder && !self.is_empty(there)))
        {
            return None;
        }
        let (from, to) = (place(from), place(to));
        Some(vec![Change::Move {
            node,
            from,
            to,
            replace: there,
            replaced_version: None,
            exchange: false,
        }])
    }

    fn exchange(
        &self,
        (from, node): (&Key, NodeId),
        (to, other): (&Key, NodeId),
    ) -> Option<Vec<Change>> {
        let inside = |node: NodeId, parent| self.nodes[&node].folder && self.is_below(parent, node);
        if node == other || inside(node, to.0) || inside(other, from.0) {
            return None;
        }
        let (from, to) = (place(from), place(to));
        Some(vec![Change::Move {
            node,
            from,
            to,
            replace: Some(other),
            replaced_version: None,
            exchange: true,
        }])
    }

    fn write(&self, node: NodeId, value: u32) -> Option<Vec<Change>> {
        let seen = &self.nodes[&node];
        if seen.folder {
            return None;
        }
        Some(vec![Change::Put {
            node,
            create: None,
            base_version: seen.version,
            content: Blob(content_of(&bytes_of(value))),
            attrs: Attrs { mtime: i64::from(value), ..seen.attrs },
            xattrs: Xattrs::new(),
            source: None,
        }])
    }
}
