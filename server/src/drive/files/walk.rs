//! From paths to nodes and back, through mounts of shared namespaces; what is in the tree now.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Place;
use drivefs_core::wire::Role;

use super::FilesError;
use super::path::FilePath;
use super::path::Target;
use crate::auth::Asker;
use crate::drive::DriveError;
use crate::drive::member_of;
use crate::drive::places;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::mounts;
use crate::metadata::namespaces::Membership;
use crate::metadata::nodes;

/// Mounts in each other that are followed.
const MOUNTS_DEEP_MAX: usize = 16;

/// A live node, and where it was found.
#[derive(Debug, Clone)]
pub struct Spot {
    pub space: Membership,
    pub node: NodeId,
    pub kind: NodeKind,
    /// None for the root of a namespace.
    pub place: Option<Place>,
    pub path: FilePath,
}

/// How far a path leads.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The last that is there.
    pub spot: Spot,
    /// The names behind it, which are not.
    pub rest: Vec<Name>,
}

/// A folder that can hold entries: of a mount, the root of what is mounted.
#[derive(Debug, Clone)]
pub struct Folder {
    pub space: Membership,
    pub node: NodeId,
    pub path: FilePath,
}

impl Folder {
    pub fn ns(&self) -> NamespaceId {
        self.space.namespace.ns
    }

    pub fn is_writable(&self) -> bool {
        self.space.role >= Role::Editor
    }
}

/// The root of the account.
pub fn root(sql: &mut dyn Sql, asker: &Asker) -> Result<Spot, FilesError> {
    let space = member_of(sql, asker.root, asker.user)?;
    Ok(root_of(space, FilePath::default()))
}

fn root_of(space: Membership, path: FilePath) -> Spot {
    Spot { space, node: space.namespace.root, kind: NodeKind::Dir, place: None, path }
}

/// Follows a target as far as it leads.
pub fn walk(sql: &mut dyn Sql, asker: &Asker, target: &Target) -> Result<Walk, FilesError> {
    match target {
        Target::Path(path) => {
            let root = root(sql, asker)?;
            walk_from(sql, asker, root, path)
        }
        Target::Within(ns, path) => {
            let space = member_of(sql, *ns, asker.user)?;
            let above = path_to(sql, asker, *ns)?;
            walk_from(sql, asker, root_of(space, above), path)
        }
        Target::Rev(rev) => {
            let space = member_of(sql, rev.ns, asker.user)?;
            let state = nodes::state(sql, rev.ns, rev.node)?;
            let state = state.filter(|s| !s.deleted).ok_or(FilesError::NotFound)?;
            let mut path = path_to(sql, asker, rev.ns)?;
            path.0.extend(places::path_of(sql, &space.namespace, rev.node)?);
            let place = entries::place(sql, rev.ns, rev.node)?;
            let spot = Spot { space, node: rev.node, kind: state.kind, place, path };
            Ok(Walk { spot, rest: Vec::new() })
        }
    }
}

fn walk_from(
    sql: &mut dyn Sql,
    asker: &Asker,
    from: Spot,
    path: &FilePath,
) -> Result<Walk, FilesError> {
    let mut spot = from;
    for (i, name) in path.0.iter().enumerate() {
        let next = match inside(sql, asker, &spot) {
            Ok(folder) => child(sql, &folder, name)?,
            Err(FilesError::NotFolder) => None,
            Err(e) => return Err(e),
        };
        match next {
            Some(next) => spot = next,
            None => return Ok(Walk { spot, rest: path.0[i..].to_vec() }),
        }
    }
    Ok(Walk { spot, rest: Vec::new() })
}

/// What a name in a folder leads to.
pub fn child(sql: &mut dyn Sql, folder: &Folder, name: &Name) -> Result<Option<Spot>, FilesError> {
    let place = Place { parent: folder.node, name: name.clone() };
    let Some(node) = entries::child(sql, folder.ns(), &place)? else { return Ok(None) };
    let Some(state) = nodes::state(sql, folder.ns(), node)? else { return Ok(None) };
    let path = folder.path.join(name);
    Ok(Some(Spot { space: folder.space, node, kind: state.kind, place: Some(place), path }))
}

/// Steps into a folder, through a mount too.
pub fn inside(sql: &mut dyn Sql, asker: &Asker, spot: &Spot) -> Result<Folder, FilesError> {
    let path = spot.path.clone();
    match spot.kind {
        NodeKind::Dir => Ok(Folder { space: spot.space, node: spot.node, path }),
        NodeKind::Mount => {
            let row = nodes::row(sql, spot.space.namespace.ns, spot.node)?;
            let target = row.and_then(|r| r.mount).ok_or(FilesError::NotFound)?;
            let space = member_of(sql, target, asker.user)?;
            Ok(Folder { space, node: space.namespace.root, path })
        }
        _ => Err(FilesError::NotFolder),
    }
}

/// What must be there.
pub fn found(sql: &mut dyn Sql, asker: &Asker, target: &Target) -> Result<Spot, FilesError> {
    let walk = walk(sql, asker, target)?;
    if walk.rest.is_empty() { Ok(walk.spot) } else { Err(FilesError::NotFound) }
}

/// Where a namespace shows in the account's tree.
pub fn path_to(sql: &mut dyn Sql, asker: &Asker, ns: NamespaceId) -> Result<FilePath, FilesError> {
    let mut names = Vec::new();
    let mut at = ns;
    for _ in 0..MOUNTS_DEEP_MAX {
        if at == asker.root {
            return Ok(FilePath(names));
        }
        let Some((above, node)) = mounted(sql, asker, at)? else { break };
        let mut path = places::path_of(sql, &above.namespace, node)?;
        path.append(&mut names);
        names = path;
        at = above.namespace.ns;
    }
    Err(FilesError::NotFound)
}

fn mounted(
    sql: &mut dyn Sql,
    asker: &Asker,
    ns: NamespaceId,
) -> Result<Option<(Membership, NodeId)>, FilesError> {
    for (above, node) in mounts::of(sql, ns)? {
        let live = nodes::state(sql, above, node)?.is_some_and(|state| !state.deleted);
        match member_of(sql, above, asker.user) {
            Ok(space) if live => return Ok(Some((space, node))),
            Ok(_) | Err(DriveError::NoNamespace) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}
