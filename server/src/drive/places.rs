//! Where things are, or last were: paths of nodes and nodes of paths, deleted ones included.

use std::collections::HashSet;

use drivefs_core::id::NodeId;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::name::Name;
use drivefs_core::wire::Place;
use drivefs_core::wire::Which;

use super::DriveError;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::namespaces::Namespace;
use crate::metadata::trash;

/// Nodes that one path may have led to, at most; a name that came and went very often has more.
const CANDIDATES_MAX: usize = 1000;
/// Deleted nodes looked at for one place.
const AT_PLACE_MAX: u32 = 200;

/// The place of a node, or its last one; none for a root, and for what is not known.
pub fn place_of(
    sql: &mut dyn Sql,
    space: &Namespace,
    node: NodeId,
) -> Result<Option<Place>, DbError> {
    if node == space.root {
        return Ok(None);
    }
    match entries::place(sql, space.ns, node)? {
        Some(place) => Ok(Some(place)),
        None => Ok(trash::find(sql, space.ns, node)?.map(|lost| lost.place)),
    }
}

/// Names from the root to a node, through last places where folders are gone.
pub fn path_of(sql: &mut dyn Sql, space: &Namespace, node: NodeId) -> Result<Vec<Name>, DbError> {
    let mut names = Vec::new();
    let mut at = node;
    while names.len() < DEPTH_MAX
        && let Some(place) = place_of(sql, space, at)?
    {
        names.push(place.name);
        at = place.parent;
    }
    names.reverse();
    Ok(names)
}

/// What a request means: a node, or what a path leads to. What is there comes before what was.
pub fn resolve(
    sql: &mut dyn Sql,
    space: &Namespace,
    which: &Which,
) -> Result<Option<NodeId>, DriveError> {
    let path = match which {
        Which::Node(node) => return Ok(Some(*node)),
        Which::Path(path) => path,
    };
    check_path(path)?;
    let mut at = Some(space.root);
    for name in path {
        let Some(parent) = at else { break };
        at = entries::child(sql, space.ns, &Place { parent, name: name.clone() })?;
    }
    if at.is_some() {
        return Ok(at);
    }
    lost_at(sql, space, path)
}

/// What was deleted last at a path and is in the trash. Any folder that stood on the way counts,
/// gone or not: a folder that was made again has another id than the one that went.
pub fn lost_at(
    sql: &mut dyn Sql,
    space: &Namespace,
    path: &[Name],
) -> Result<Option<NodeId>, DriveError> {
    check_path(path)?;
    let Some((last, folders)) = path.split_last() else { return Ok(None) };
    let mut parents = vec![space.root];
    for name in folders {
        let mut next = Vec::new();
        let mut known = HashSet::new();
        for parent in parents {
            let place = Place { parent, name: name.clone() };
            let live = entries::child(sql, space.ns, &place)?;
            let gone = trash::at_place(sql, space.ns, &place, AT_PLACE_MAX)?;
            next.extend(live.into_iter().chain(gone).filter(|node| known.insert(*node)));
        }
        next.truncate(CANDIDATES_MAX);
        parents = next;
    }
    let mut newest = None;
    for parent in parents {
        let place = Place { parent, name: last.clone() };
        let Some(node) = trash::at_place(sql, space.ns, &place, 1)?.into_iter().next() else {
            continue;
        };
        if let Some(lost) = trash::find(sql, space.ns, node)? {
            newest = newest.max(Some((lost.seq, lost.deleted, node)));
        }
    }
    Ok(newest.filter(|(seq, _, _)| *seq > space.emptied_seq).map(|(_, _, node)| node))
}

fn check_path(path: &[Name]) -> Result<(), DriveError> {
    if path.len() > DEPTH_MAX {
        return Err(DriveError::BadRequest(format!("a path has at most {DEPTH_MAX} names")));
    }
    Ok(())
}
