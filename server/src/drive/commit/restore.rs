//! The op that takes a node out of the trash: the same node, with its history.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

use super::relocate;
use super::tell::Happened;
use super::work::Refusal;
use super::work::Work;
use super::work::conflict;
use crate::metadata::entries;
use crate::metadata::nodes;
use crate::metadata::trash;
use crate::metadata::versions;

/// A tombstone has no entries, neither its own nor in it: bringing it back makes no cycle.
pub fn restore(work: &mut Work<'_>, node: NodeId, place: &Place) -> Result<VersionNo, Refusal> {
    let Some(lost) = trash::find(work.sql, work.ns, node)? else {
        return conflict(format!("node {node} is not deleted"));
    };
    if lost.seq <= work.emptied {
        return Err(Refusal::Rejected(
            ErrorCode::NotFound,
            format!("node {node} is not in the trash any more"),
        ));
    }
    if lost.kind.is_folder() {
        relocate::check_depth(work, place.parent)?;
    }
    work.free(place)?;
    let size = versions::size(work.sql, work.ns, node, lost.version)?;
    work.count(0, size)?;
    nodes::set_live(work.sql, work.ns, node, work.seq)?;
    entries::set(work.sql, work.ns, place, Some(node), work.seq)?;
    let back = Happened::new(EventKind::Restored, node, lost.kind);
    let (before, after) = (lost.version, lost.version);
    work.tell(Happened { to: Some(place), before, after, ..back })?;
    Ok(lost.version)
}
