//! Files and folders of the past that the kernel knows, by number. They live in memory, from the
//! first look-up until the kernel forgets them.
//!
//! A number follows from where something is found and what it is, so it is the same each time, and a
//! listing can tell it without anything being remembered.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::TimeNs;

use super::super::Attr;
use crate::spool::Content;
use crate::spool::past_nid;
use crate::state::Nid;

/// A file or folder whose past is looked at: it is shown as a folder.
#[derive(Debug, Clone)]
pub struct Thing {
    pub ns: NamespaceId,
    pub node: NodeId,
    pub folder: bool,
    /// Its number in the tree, if it was there when it was found.
    pub live: Option<Nid>,
    /// The name that it is found by; empty for a folder that is found by its own `.versions`.
    pub name: Vec<u8>,
    /// The folder where others may have had that name before it.
    pub place: Option<(NamespaceId, NodeId)>,
    pub mode: u32,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub time: TimeNs,
}

/// One version of a file.
#[derive(Debug)]
pub struct OldVersion {
    pub ns: NamespaceId,
    pub node: NodeId,
    pub version: VersionNo,
    pub device: String,
    /// Its content, while somebody reads it.
    pub content: Mutex<Weak<Content>>,
}

#[derive(Debug, Clone)]
pub enum What {
    Thing(Arc<Thing>),
    Version(Arc<OldVersion>),
}

/// Something as it is shown at one place.
#[derive(Debug, Clone)]
pub struct Seen {
    pub parent: Nid,
    pub name: Vec<u8>,
    pub what: What,
    pub attr: Attr,
}

impl Seen {
    /// The number of what is found in `parent` as `name`.
    pub fn number(parent: Nid, name: &[u8], node: NodeId) -> Nid {
        let mut key = Vec::with_capacity(24 + name.len());
        key.extend_from_slice(&parent.to_le_bytes());
        key.extend_from_slice(node.as_bytes());
        key.extend_from_slice(name);
        let hash = BlockHash::of(&key);
        let mut bits = [0; 8];
        bits.copy_from_slice(&hash.0[..8]);
        past_nid(u64::from_le_bytes(bits))
    }
}

struct Known {
    seen: Seen,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// All that the kernel knows of the past.
pub struct Inodes {
    known: HashMap<Nid, Known>,
    /// In the order in which they came; with some that are forgotten.
    order: VecDeque<Nid>,
    max: usize,
}

impl Inodes {
    pub fn new(max: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max }
    }

    pub fn get(&self, nid: Nid) -> Option<&Seen> {
        self.known.get(&nid).map(|known| &known.seen)
    }

    /// Notes that the kernel is told of something. Returns names (and their folders) that it should
    /// drop if it can, because it holds too many.
    pub fn add(&mut self, seen: Seen) -> Vec<(Nid, Vec<u8>)> {
        let nid = seen.attr.nid;
        match self.known.get_mut(&nid) {
            Some(known) => {
                known.lookups += 1;
                // A version is the same for good; its content may be in use.
                if matches!(seen.what, What::Thing(_)) {
                    known.seen = seen;
                }
            }
            None => {
                self.known.insert(nid, Known { seen, lookups: 1 });
                self.order.push_back(nid);
            }
        }
        let mut drop = Vec::new();
        // A few more than came: what is in use stays, and the kernel takes its time.
        while self.known.len() > self.max && drop.len() < 2 {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(known) = self.known.get(&oldest).filter(|_| oldest != nid) {
                drop.push((known.seen.parent, known.seen.name.clone()));
            }
        }
        if self.order.len() > 2 * self.max {
            self.order.retain(|nid| self.known.contains_key(nid));
        }
        drop
    }

    /// The kernel has forgotten so many of the times that it was told.
    pub fn forget(&mut self, nid: Nid, lookups: u64) {
        if let Some(known) = self.known.get_mut(&nid) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                self.known.remove(&nid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivefs_core::node::NodeKind;

    fn seen(name: &str) -> Seen {
        let node = NodeId::from_parts(1, [1; 10]);
        let nid = Seen::number(5, name.as_bytes(), node);
        let attr = Attr {
            nid,
            kind: NodeKind::Dir,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: 0,
            mtime: 0,
            ctime: 0,
            btime: 0,
            links: 1,
        };
        let thing = Thing {
            ns: NamespaceId(1),
            node,
            folder: true,
            live: None,
            name: name.into(),
            place: None,
            mode: 0,
            uid: None,
            gid: None,
            time: 0,
        };
        Seen { parent: 5, name: name.into(), what: What::Thing(Arc::new(thing)), attr }
    }

    #[test]
    fn something_is_known_as_long_as_the_kernel_knows_it() {
        let mut inodes = Inodes::new(10);
        let nid = seen("a").attr.nid;
        for _ in 0..3 {
            assert!(inodes.add(seen("a")).is_empty());
        }
        inodes.forget(nid, 2);
        assert!(inodes.get(nid).is_some());
        inodes.forget(nid, 1);
        assert!(inodes.get(nid).is_none());
        inodes.forget(nid, 1);
    }

    #[test]
    fn the_oldest_are_given_up_when_there_are_too_many() {
        let mut inodes = Inodes::new(10);
        let mut given_up = Vec::new();
        for n in 0..1000 {
            for (parent, name) in inodes.add(seen(&n.to_string())) {
                assert_eq!(parent, 5);
                // As the kernel does when it is told to.
                let name = String::from_utf8(name).expect("a text");
                inodes.forget(seen(&name).attr.nid, 1);
                given_up.push(name);
            }
            assert!(inodes.known.len() <= 11 && inodes.order.len() <= 20);
        }
        assert_eq!(given_up[..3], ["0", "1", "2"]);
        assert_eq!(given_up.len() + inodes.known.len(), 1000);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind() {
        let mut inodes = Inodes::new(10);
        for n in 0..1000 {
            let one = seen(&n.to_string());
            let nid = one.attr.nid;
            inodes.add(one);
            inodes.forget(nid, 1);
            assert!(inodes.order.len() <= 21);
        }
        assert!(inodes.known.is_empty());
    }
}
