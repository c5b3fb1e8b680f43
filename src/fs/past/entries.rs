//! What is found in a folder of the past: in that of a file its versions, in that of a folder the
//! names that it has or had; and former things of the same name.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::PAST_NAMES_MAX;
use drivefs_core::name::VERSIONS_DIR;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::GoneEntry;

use super::super::Attr;
use super::super::DriveFs;
use super::inodes::OldVersion;
use super::inodes::Seen;
use super::inodes::Thing;
use super::inodes::What;
use super::names::former_names;
use super::names::is_former;
use super::names::version_in;
use super::names::version_name;
use super::told::Answer;
use super::told::Question;
use super::told::Version;
use super::told::Versions;
use super::told::Want;
use crate::state::DbError;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::TreeError;

/// Names of what was deleted out of a folder, the last thing of each.
pub type Names = BTreeMap<Vec<u8>, GoneEntry>;

/// Names of what was removed here and is still there for the server.
pub type Removed = BTreeMap<Vec<u8>, Thing>;

/// What a folder had.
pub struct Gone {
    pub names: Arc<Names>,
    /// As it was before the server was asked: what went meanwhile is in one of the two.
    pub removed: Removed,
}

/// Rows read at once.
const PAGE: usize = 512;

/// Where a thing is now.
pub struct Here {
    pub ns: NamespaceId,
    pub node: NodeId,
    pub live: Option<Nid>,
    /// The newest version that this device knows of.
    pub version: VersionNo,
}

impl DriveFs {
    pub(super) fn here(&self, thing: &Thing) -> Here {
        match thing.live.map(|nid| self.tree.node(nid)) {
            Some(Ok(node)) => {
                let live = Some(node.nid);
                Here { ns: node.ns, node: node.id, live, version: node.version }
            }
            _ => Here { ns: thing.ns, node: thing.node, live: None, version: 0 },
        }
    }

    /// What has a name in the past of a thing.
    pub(super) async fn find_past(
        &self,
        parent: Nid,
        thing: &Thing,
        name: &[u8],
    ) -> Result<Seen, TreeError> {
        if name == VERSIONS_DIR {
            return Err(TreeError::NotFound);
        }
        if thing.folder {
            if let Some(child) = self.child_in_past(thing, name).await? {
                return Ok(self.seen_thing(parent, name, child));
            }
        } else if let Some(number) = version_in(name) {
            let here = self.here(thing);
            let has = |answer: &Answer| match answer {
                Answer::Versions(all) => all.find(number).is_some(),
                _ => false,
            };
            let question = Question::Versions(here.ns, here.node);
            if let Answer::Versions(all) = self.ask(question, Want::Recent, has).await?
                && let Some(version) = all.find(number)
            {
                let seen = self.seen_version(parent, thing, &here, &all, version);
                return if seen.name == name { Ok(seen) } else { Err(TreeError::NotFound) };
            }
        }
        if is_former(name) {
            let former = self.former(thing, Want::Recent).await?;
            if let Some((_, entry)) = former.into_iter().find(|(called, _)| called == name) {
                return Ok(self.seen_former(parent, name, thing, &entry));
            }
        }
        Err(TreeError::NotFound)
    }

    /// What a folder has under a name, or had last.
    async fn child_in_past(&self, thing: &Thing, name: &[u8]) -> Result<Option<Thing>, TreeError> {
        if let Some(nid) = thing.live {
            self.list_folders(&self.unlisted(&[nid])).await?;
        }
        let here = self.here(thing);
        if let Some(nid) = here.live {
            match self.tree.lookup(nid, name) {
                Ok(node) if has_past(&node) => {
                    return Ok(Some(live_thing(&node, name, (here.ns, here.node))));
                }
                Ok(_) | Err(TreeError::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        if let Some(child) = self.removed_child(&here, name)? {
            return Ok(Some(child));
        }
        let place = (here.ns, here.node);
        let listed = self.told(&Question::Names(here.ns, here.node), Want::Recent)?;
        if let Some(Answer::Names(names)) = listed
            && let Some(entry) = names.get(name)
        {
            return Ok(Some(gone_thing(entry, name, here.ns, Some(place))));
        }
        let question = Question::Place(here.ns, here.node, name.to_vec());
        let some = |answer: &Answer| matches!(answer, Answer::Place(list) if !list.is_empty());
        let found = match self.ask(question, Want::Recent, some).await {
            Ok(Answer::Place(list)) => list.first().cloned(),
            Ok(_) => None,
            // Without the server what was listed once is still what is known.
            Err(e) => match self.told(&Question::Names(here.ns, here.node), Want::Any)? {
                Some(Answer::Names(names)) if names.contains_key(name) => names.get(name).cloned(),
                _ => return Err(e),
            },
        };
        Ok(found.map(|entry| gone_thing(&entry, name, here.ns, Some(place))))
    }

    /// Up to `limit` names behind `after` that a folder has, or had last, in name order.
    pub(super) fn children_in_past(
        &self,
        here: &Here,
        gone: &Gone,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Thing)>, TreeError> {
        let place = (here.ns, here.node);
        let mut out: BTreeMap<Vec<u8>, Thing> = BTreeMap::new();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        for (name, entry) in gone.names.range::<[u8], _>(behind).take(limit) {
            out.insert(name.clone(), gone_thing(entry, name, here.ns, Some(place)));
        }
        for (name, thing) in gone.removed.range::<[u8], _>(behind).take(limit) {
            out.insert(name.clone(), thing.clone());
        }
        if let Some(nid) = here.live {
            let (mut at, mut found) = (after.to_vec(), 0);
            while found < limit {
                let page = self.tree.list(nid, &at, limit)?;
                let Some(last) = page.last() else { break };
                at.clone_from(&last.name);
                for entry in page.into_iter().filter(|entry| has_past(&entry.node)) {
                    let child = live_thing(&entry.node, &entry.name, place);
                    out.insert(entry.name, child);
                    found += 1;
                }
            }
        }
        Ok(out.into_iter().take(limit).collect())
    }

    /// All that the server has in a folder and was removed here.
    pub(super) fn removed_children(&self, here: &Here) -> Result<Removed, TreeError> {
        let mut out = Removed::new();
        let mut at = Vec::new();
        while out.len() < PAST_NAMES_MAX {
            let page = self.tree.db().peek(|c| c.base_dirents(&here.node, &at, PAGE))?;
            let Some(last) = page.last() else { break };
            at.clone_from(&last.name);
            for base in page {
                if let Some(child) = self.removed_child(here, &base.name)? {
                    out.insert(base.name, child);
                }
            }
        }
        Ok(out)
    }

    /// What the server has under a name and was removed here: it will be gone there in a moment.
    fn removed_child(&self, here: &Here, name: &[u8]) -> Result<Option<Thing>, TreeError> {
        let removed = self.tree.db().peek(|c| {
            let base = c.base_dirent(&here.node, name)?;
            let Some(child) = base.and_then(|base| base.child) else { return Ok(None) };
            let node = c.node_by_id(&child.id)?;
            let gone = node.as_ref().is_none_or(|n| n.links == 0);
            Ok::<_, DbError>(gone.then_some((child, node)))
        })?;
        let Some((child, node)) = removed else { return Ok(None) };
        if node.as_ref().is_some_and(|node| !has_past(node)) {
            return Ok(None);
        }
        let attrs = node.map(|node| node.attrs);
        Ok(Some(Thing {
            ns: here.ns,
            node: child.id,
            folder: child.folder,
            live: None,
            name: name.to_vec(),
            place: Some((here.ns, here.node)),
            mode: attrs.map_or(0, |attrs| attrs.mode),
            uid: attrs.and_then(|attrs| attrs.uid),
            gid: attrs.and_then(|attrs| attrs.gid),
            time: attrs.map_or(0, |attrs| attrs.mtime),
        }))
    }

    /// What had the name of a thing before it, under names of their own, the oldest first.
    pub(super) async fn former(
        &self,
        thing: &Thing,
        want: Want,
    ) -> Result<Vec<(Vec<u8>, GoneEntry)>, TreeError> {
        let Some((ns, folder)) = thing.place else { return Ok(Vec::new()) };
        let question = Question::Place(ns, folder, thing.name.clone());
        let Answer::Place(list) = self.ask(question, want, |_| true).await? else {
            return Ok(Vec::new());
        };
        let mut former: Vec<GoneEntry> =
            list.iter().filter(|entry| entry.node != thing.node).cloned().collect();
        former.sort_by_key(|entry| (entry.deleted, entry.node));
        let names = former_names(former.iter().map(|entry| entry.deleted));
        Ok(names.into_iter().zip(former).collect())
    }

    pub(super) fn seen_former(
        &self,
        parent: Nid,
        name: &[u8],
        thing: &Thing,
        entry: &GoneEntry,
    ) -> Seen {
        let ns = thing.place.map_or(thing.ns, |(ns, _)| ns);
        self.seen_thing(parent, name, gone_thing(entry, &thing.name, ns, None))
    }

    pub(super) fn seen_thing(&self, parent: Nid, name: &[u8], thing: Thing) -> Seen {
        // Who may read the thing may list it here.
        let read = thing.mode & 0o444 | 0o400;
        let attr = Attr {
            nid: Seen::number(parent, name, thing.node),
            kind: NodeKind::Dir,
            mode: read | read >> 2,
            uid: thing.uid.unwrap_or(self.owner.uid),
            gid: thing.gid.unwrap_or(self.owner.gid),
            rdev: 0,
            size: 4096,
            atime: thing.time,
            mtime: thing.time,
            ctime: thing.time,
            btime: thing.time,
            // Not counted.
            links: 1,
        };
        Seen { parent, name: name.to_vec(), what: What::Thing(Arc::new(thing)), attr }
    }

    pub(super) fn seen_version(
        &self,
        parent: Nid,
        thing: &Thing,
        here: &Here,
        all: &Versions,
        v: &Version,
    ) -> Seen {
        let name = version_name(v.version, v.committed, &v.device, &thing.name);
        let attr = Attr {
            nid: Seen::number(parent, &name, here.node),
            kind: NodeKind::File,
            mode: all.attrs.mode & 0o555 | 0o400,
            uid: all.attrs.uid.unwrap_or(self.owner.uid),
            gid: all.attrs.gid.unwrap_or(self.owner.gid),
            rdev: 0,
            size: v.size,
            atime: v.committed,
            mtime: v.committed,
            ctime: v.committed,
            btime: v.committed,
            links: 1,
        };
        let old = OldVersion {
            ns: here.ns,
            node: here.node,
            version: v.version,
            device: v.device.clone(),
            content: Default::default(),
        };
        Seen { parent, name, what: What::Version(Arc::new(old)), attr }
    }
}

/// Folders have a past, and files that were sent.
fn has_past(node: &Node) -> bool {
    node.kind.is_folder() || (node.kind == NodeKind::File && node.version > 0)
}

fn live_thing(node: &Node, name: &[u8], place: (NamespaceId, NodeId)) -> Thing {
    Thing {
        ns: node.ns,
        node: node.id,
        folder: node.kind.is_folder(),
        live: Some(node.nid),
        name: name.to_vec(),
        place: Some(place),
        mode: node.attrs.mode,
        uid: node.attrs.uid,
        gid: node.attrs.gid,
        time: node.attrs.mtime,
    }
}

fn gone_thing(
    entry: &GoneEntry,
    name: &[u8],
    ns: NamespaceId,
    place: Option<(NamespaceId, NodeId)>,
) -> Thing {
    Thing {
        ns,
        node: entry.node,
        folder: entry.kind.is_folder(),
        live: None,
        name: name.to_vec(),
        place,
        mode: entry.attrs.mode,
        uid: entry.attrs.uid,
        gid: entry.attrs.gid,
        time: entry.deleted,
    }
}
