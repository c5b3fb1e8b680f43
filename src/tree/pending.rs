//! What is ahead of the server, as the engine's planner sees it.

use std::collections::HashMap;
use std::collections::HashSet;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;

use super::Tree;
use super::TreeError;
use super::path_of;
use crate::journal::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;
use crate::state::Occupant;

/// A node that differs from what the server has.
#[derive(Debug, Clone)]
pub struct PendingNode {
    pub base: BaseNode,
    pub local: Node,
}

/// A place whose occupant differs from what the server has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDirent {
    pub parent: NodeId,
    pub name: Vec<u8>,
    /// What the server has.
    pub before: Option<Occupant>,
    /// The newest version of that which was seen here, if it is known here.
    pub seen: Option<VersionNo>,
    /// What is here.
    pub after: Option<Occupant>,
    /// If that is a folder: the folders above `parent`, as they are here. Where one of them moves
    /// as well, the order matters.
    pub above: Vec<NodeId>,
    pub since: u64,
}

/// A line of the upload queue, for people.
#[derive(Debug, Clone)]
pub struct QueueItem {
    pub path: String,
    pub bytes: u64,
    /// When the change was first made (ns).
    pub at: i64,
    pub error: Option<String>,
    /// The node that changed; none for a name that was removed.
    pub node: Option<NodeId>,
    /// Order of the change.
    pub since: u64,
}

/// Whether the server has a file as it was at some position of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Yes,
    NotYet,
    /// And why.
    Refused(String),
}

impl Tree {
    /// Whether the server has what was made of a file, name and content, before `position`. Of one
    /// that was removed, there is nothing to have.
    pub fn sent_file(&self, nid: Nid, position: u64) -> Result<Sent, TreeError> {
        self.db.read(|c| {
            let Some(node) = c.node(nid)?.filter(|n| n.links > 0) else { return Ok(Sent::Yes) };
            if let Some(base) = c.base_node(&node.id)?.filter(|b| b.since < position) {
                return Ok(base.error.map_or(Sent::NotYet, Sent::Refused));
            }
            for (parent, name) in c.places(nid)? {
                let dir = c.node(parent)?.ok_or(TreeError::NotFound)?;
                if c.base_dirent(&dir.id, &name)?.is_some_and(|b| b.since < position) {
                    return Ok(Sent::NotYet);
                }
            }
            Ok(Sent::Yes)
        })
    }

    /// Up to `limit` pending nodes and entries each, oldest first, in one snapshot.
    pub fn pending(
        &self,
        ns: NamespaceId,
        limit: usize,
    ) -> Result<(Vec<PendingNode>, Vec<PendingDirent>), TreeError> {
        self.db.read(|c| {
            let mut nodes: Vec<PendingNode> = c
                .dirty_with_local(ns, limit)?
                .into_iter()
                .map(|(base, local)| PendingNode { base, local })
                .collect();
            let mut dirents = Vec::new();
            let mut folders: HashMap<NodeId, Option<Nid>> = HashMap::new();
            for base in c.dirty_dirents(ns, 0, limit)? {
                let (mut after, mut above) = (None, Vec::new());
                let parent = match folders.get(&base.parent) {
                    Some(known) => *known,
                    None => *folders.entry(base.parent).or_insert(c.nid_of(&base.parent)?),
                };
                if let Some(parent) = parent
                    && let Some(local) = c.occupant(parent, &base.name)?
                {
                    after = Some(local);
                    if local.folder {
                        above = ids_above(c, parent)?;
                    }
                }
                let seen = match base.child.filter(|child| !child.folder) {
                    Some(child) => c.version_of(&child.id)?,
                    None => None,
                };
                dirents.push(PendingDirent {
                    parent: base.parent,
                    name: base.name,
                    before: base.child,
                    seen,
                    after,
                    above,
                    since: base.since,
                });
            }
            // An entry of a new node needs the node, though it may be past the limit.
            let known: HashSet<NodeId> = nodes.iter().map(|n| n.base.id).collect();
            for id in dirents
                .iter()
                .filter_map(|d| d.after)
                .map(|a| a.id)
                .filter(|id| !known.contains(id))
            {
                if let Some(base) = c.base_node(&id)?
                    && let Some(local) = c.node_by_id(&id)?
                {
                    nodes.push(PendingNode { base, local });
                }
            }
            Ok((nodes, dirents))
        })
    }

    /// Id of a namespace's root folder.
    pub fn root_id(&self, ns: NamespaceId) -> Result<NodeId, TreeError> {
        self.db.peek(|c| {
            let space = c.namespace(ns)?.ok_or(TreeError::NotFound)?;
            Ok(c.node(space.root)?.ok_or(TreeError::NotFound)?.id)
        })
    }

    /// Intents without effect (a change that was undone again) are dropped.
    pub fn settle_all(&self, ns: NamespaceId, limit: usize) -> Result<(), TreeError> {
        self.db.write(|c| {
            for base in c.dirty_nodes(ns, 0, limit)? {
                self.settle_node(c, &base.id)?;
            }
            Ok::<_, TreeError>(())
        })
    }

    /// The upload queue, oldest first.
    pub fn queue(&self, limit: usize) -> Result<Vec<QueueItem>, TreeError> {
        self.db.read(|c| {
            let mut items = Vec::new();
            for space in c.namespaces()? {
                for base in c.dirty_nodes(space.ns, 0, limit)? {
                    items.extend(queue_item(c, base)?);
                }
                for base in c.dirty_dirents(space.ns, 0, limit)? {
                    items.extend(renamed_item(c, base)?);
                }
            }
            items.sort_by_key(|i| i.since);
            items.truncate(limit);
            Ok(items)
        })
    }
}

impl Tree {
    /// Number of nodes and entries that are ahead of the server.
    pub fn ahead(&self) -> Result<(u64, u64), TreeError> {
        Ok(self.db.peek(|c| c.count_intents())?)
    }
}

fn ids_above(c: &Conn<'_>, folder: Nid) -> Result<Vec<NodeId>, TreeError> {
    let mut ids = Vec::new();
    let mut at = folder;
    while let Some((up, _)) = c.places(at)?.into_iter().next() {
        ids.extend(c.node(up)?.map(|n| n.id));
        at = up;
    }
    Ok(ids)
}

fn queue_item(c: &Conn<'_>, base: BaseNode) -> Result<Option<QueueItem>, TreeError> {
    let Some(node) = c.node_by_id(&base.id)?.filter(|n| n.links > 0) else { return Ok(None) };
    let content_waits =
        node.live.is_some() || node.frozen.is_some() || node.content != base.content;
    let path = path_of(c, node.nid)?;
    Ok(Some(QueueItem {
        path: if path.is_empty() { "/".to_owned() } else { path },
        bytes: if content_waits { node.size } else { 0 },
        at: base.at,
        error: base.error,
        node: Some(node.id),
        since: base.since,
    }))
}

/// A name that was given or taken while the node itself is as the server knows it.
fn renamed_item(c: &Conn<'_>, base: BaseDirent) -> Result<Option<QueueItem>, TreeError> {
    let Some(parent) = c.nid_of(&base.parent)? else { return Ok(None) };
    let node = c.dirent_id(parent, &base.name)?;
    if let Some(id) = &node
        && c.is_dirty(id)?
    {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(&base.name).into_owned();
    let folder = path_of(c, parent)?;
    Ok(Some(QueueItem {
        path: if folder.is_empty() { name } else { format!("{folder}/{name}") },
        bytes: 0,
        at: now(),
        error: None,
        node,
        since: base.since,
    }))
}
