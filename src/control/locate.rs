//! Where a path of the mount lies on the server: its namespace, its names there, and its node if it
//! is here. Commands that ask the server about history start from this.

use std::sync::Arc;

use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::wire::Role;

use super::content::blocking;
use super::protocol::Located;
use super::protocol::LocatedNode;
use super::protocol::Reply;
use super::protocol::Space;
use super::server::Daemon;
use super::server::is_under;
use super::server::queue;
use crate::state::DbError;
use crate::state::ROOT;
use crate::tree::QueueItem;
use crate::tree::TreeError;

pub(super) async fn locate(daemon: &Arc<Daemon>, path: String) -> Reply {
    let items = match queue(daemon).await {
        Ok(items) => items,
        Err(e) => return Reply::Failed { message: e.to_string() },
    };
    let (this, name) = (daemon.clone(), path.clone());
    match blocking(move || find(&this, name, &items)).await {
        Ok(located) => Reply::Located(Box::new(located)),
        Err(e) => Reply::Failed { message: format!("{path}: {e}") },
    }
}

/// The path of a node; none while it is not in the tree.
pub(super) async fn path_of(daemon: &Arc<Daemon>, node: NodeId) -> Reply {
    let this = daemon.clone();
    let found = blocking(move || {
        let tree = this.fs.tree();
        let nid = tree.db().peek(|c| {
            Ok::<_, DbError>(c.node_by_id(&node)?.filter(|n| n.links > 0).map(|n| n.nid))
        })?;
        nid.map(|nid| tree.path_of(nid)).transpose()
    });
    match found.await {
        Ok(path) => Reply::Path { path },
        Err(e) => Reply::Failed { message: e.to_string() },
    }
}

/// The namespaces in the mount, the root's first.
pub(super) async fn spaces(daemon: &Arc<Daemon>) -> Reply {
    let this = daemon.clone();
    let found = blocking(move || {
        let tree = this.fs.tree();
        let root = tree.node(ROOT)?.ns;
        let mut spaces = Vec::new();
        for space in tree.db().read(|c| c.namespaces())? {
            let path = tree.path_of(space.root)?;
            // A namespace whose mount node is gone from the tree is not shown.
            if space.ns == root || !path.is_empty() {
                spaces.push(Space { ns: space.ns, path, read_only: space.role == Role::Viewer });
            }
        }
        spaces.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(spaces)
    });
    match found.await {
        Ok(spaces) => Reply::Spaces { spaces },
        Err(e) => Reply::Failed { message: e.to_string() },
    }
}

fn find(daemon: &Daemon, path: String, items: &[QueueItem]) -> Result<Located, TreeError> {
    let (fs, tree) = (&daemon.fs, daemon.fs.tree());
    let root = tree.node(ROOT)?;
    let (mut ns, mut space) = (root.ns, Vec::new());
    let mut names = Vec::new();
    let mut at = Some(root);
    let mut walked = Vec::new();
    for name in path.split('/').filter(|n| !n.is_empty()) {
        walked.push(name);
        names.push(Name::new(name.as_bytes())?);
        at = match &at {
            Some(folder) if folder.kind.is_folder() => {
                match fs.lookup(folder.nid, name.as_bytes()) {
                    Ok(attr) => Some(tree.node(attr.nid)?),
                    Err(TreeError::NotFound) => None,
                    Err(e) => return Err(e),
                }
            }
            _ => None,
        };
        if let Some(node) = at.as_ref().filter(|node| node.ns != ns) {
            ns = node.ns;
            names.clear();
            space.clone_from(&walked);
        }
    }
    Ok(Located {
        ns,
        space: space.join("/"),
        names,
        node: at.map(|node| LocatedNode {
            node: node.id,
            kind: node.kind,
            folder: node.kind.is_folder(),
        }),
        waiting: items.iter().any(|i| is_under(i, Some(&path))),
        path,
    })
}
