//! Ops that take a name away: unlink and rmdir.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::Place;

use super::work::Refusal;
use super::work::Work;
use super::work::bad_request;
use super::work::conflict;
use crate::metadata::entries;
use crate::metadata::nodes::NodeState;

pub fn unlink(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    seen: Option<VersionNo>,
) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    match state.kind {
        NodeKind::Dir => return bad_request("a directory goes by rmdir"),
        NodeKind::Mount => return not_a_mount(),
        _ => {}
    }
    work.names(place, node)?;
    lose_name(work, node, place, state, seen)?;
    Ok(state.version)
}

pub fn rmdir(work: &mut Work<'_>, node: NodeId, place: &Place) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    match state.kind {
        NodeKind::Dir => {}
        NodeKind::Mount => return not_a_mount(),
        _ => return bad_request("rmdir removes directories only"),
    }
    work.names(place, node)?;
    empty(work, node)?;
    work.unname(place, node, state)?;
    Ok(0)
}

/// Takes a name from what is no directory; the last one not from a content newer than `seen`.
pub fn lose_name(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    state: NodeState,
    seen: Option<VersionNo>,
) -> Result<(), Refusal> {
    work.unname(place, node, state)?;
    match seen {
        Some(seen) if seen < state.version && !entries::is_named(work.sql, work.ns, node)? => {
            conflict(format!("node {node} has version {} now, not {seen}", state.version))
        }
        _ => Ok(()),
    }
}

/// A directory that goes must be empty.
pub fn empty(work: &mut Work<'_>, node: NodeId) -> Result<(), Refusal> {
    if entries::is_empty(work.sql, work.ns, node)? {
        return Ok(());
    }
    conflict(format!("directory {node} is not empty"))
}

/// Mounts go by unsharing, not as entries.
pub fn not_a_mount<T>() -> Result<T, Refusal> {
    Err(Refusal::Rejected(
        ErrorCode::Forbidden,
        "this folder is shared: it goes by unsharing it, not by removing it".into(),
    ))
}
