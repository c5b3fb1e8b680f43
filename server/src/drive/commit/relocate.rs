//! Moves: to a free place, over something, or in exchange. The tree stays a tree.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

use super::remove;
use super::tell::Happened;
use super::work::Refusal;
use super::work::Work;
use super::work::bad_request;
use super::work::conflict;
use crate::metadata::entries;
use crate::metadata::nodes::NodeState;

/// What loses its name to a move.
#[derive(Clone, Copy)]
pub struct Replaced {
    pub node: NodeId,
    /// Newest content of it that the mover knows of.
    pub seen: Option<VersionNo>,
}

/// Moves `node`; the target is free or holds `replace`, which loses that name.
pub fn relocate(
    work: &mut Work<'_>,
    node: NodeId,
    from: &Place,
    to: &Place,
    replace: Option<Replaced>,
) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    work.names(from, node)?;
    work.directory(to.parent)?;
    if from == to {
        return Ok(state.version);
    }
    if state.kind.is_folder() {
        check_not_inside(work, node, to.parent)?;
    }
    let occupant = entries::child(work.sql, work.ns, to)?;
    match (occupant, replace) {
        (None, _) => {}
        (Some(there), Some(replace)) if there == replace.node => {
            displace(work, state, node, to, replace)?;
        }
        (Some(there), _) => return conflict(format!("{:?} is taken by node {there}", to.name)),
    }
    entries::set(work.sql, work.ns, from, None, work.seq)?;
    work.name(to, node)?;
    if occupant == Some(node) {
        let (before, after) = (state.version, state.version);
        let lost_name = Happened::new(EventKind::Unlinked, node, state.kind);
        work.tell(Happened { from: Some(from), before, after, ..lost_name })?;
    } else {
        work.tell(moved(node, state, from, to))?;
    }
    Ok(state.version)
}

/// Takes the target's name from what is there, where the kinds fit.
fn displace(
    work: &mut Work<'_>,
    mover: NodeState,
    node: NodeId,
    to: &Place,
    Replaced { node: there, seen }: Replaced,
) -> Result<(), Refusal> {
    if there == node {
        // Two names of one node: the move leaves the second.
        return Ok(());
    }
    let state = work.live(there)?;
    match (mover.kind.is_folder(), state.kind) {
        (_, NodeKind::Mount) => remove::not_a_mount(),
        (true, NodeKind::Dir) => {
            remove::empty(work, there)?;
            work.unname(to, there, state)
        }
        (true, _) => bad_request("a folder replaces only a directory"),
        (false, NodeKind::Dir) => bad_request("a directory is replaced only by a folder"),
        (false, _) => remove::lose_name(work, there, to, state, seen),
    }
}

/// Exchanges what two places name.
pub fn exchange(
    work: &mut Work<'_>,
    node: NodeId,
    from: &Place,
    to: &Place,
    replace: Option<NodeId>,
) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    work.names(from, node)?;
    work.directory(to.parent)?;
    let Some(other) = entries::child(work.sql, work.ns, to)? else {
        return conflict(format!("{:?} names nothing to exchange with", to.name));
    };
    if replace.is_some_and(|expected| expected != other) {
        return conflict(format!("{:?} names node {other} now", to.name));
    }
    if from == to || other == node {
        return Ok(state.version);
    }
    let other_state = work.live(other)?;
    if state.kind.is_folder() {
        check_not_inside(work, node, to.parent)?;
    }
    if other_state.kind.is_folder() {
        check_not_inside(work, other, from.parent)?;
    }
    work.name(to, node)?;
    work.name(from, other)?;
    work.tell(moved(node, state, from, to))?;
    work.tell(moved(other, other_state, to, from))?;
    Ok(state.version)
}

fn moved<'a>(node: NodeId, state: NodeState, from: &'a Place, to: &'a Place) -> Happened<'a> {
    let (before, after) = (state.version, state.version);
    let moved = Happened::new(EventKind::Moved, node, state.kind);
    Happened { from: Some(from), to: Some(to), before, after, ..moved }
}

/// A directory never goes below itself.
fn check_not_inside(work: &mut Work<'_>, node: NodeId, parent: NodeId) -> Result<(), Refusal> {
    if walk_up(work, parent, |dir| dir == node)? {
        return conflict(format!("node {node} would come to lie inside itself"));
    }
    Ok(())
}

/// A directory below `parent` must not lie too deep.
pub fn check_depth(work: &mut Work<'_>, parent: NodeId) -> Result<(), Refusal> {
    walk_up(work, parent, |_| false).map(drop)
}

/// Walks from a directory to the root; true when `found` says so on the way.
fn walk_up(
    work: &mut Work<'_>,
    from: NodeId,
    found: impl Fn(NodeId) -> bool,
) -> Result<bool, Refusal> {
    let mut at = from;
    for _ in 0..DEPTH_MAX {
        if found(at) {
            return Ok(true);
        }
        if at == work.root {
            return Ok(false);
        }
        match entries::parent(work.sql, work.ns, at)? {
            Some(parent) => at = parent,
            None => return Ok(false),
        }
    }
    bad_request(format!("directories nest at most {DEPTH_MAX} deep"))
}
