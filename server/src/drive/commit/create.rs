//! Ops that make a name: mkdir, symlink, mknod, link, and mounts of other namespaces.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::CONFLICT_XATTR;
use drivefs_core::node::NodeKind;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

use super::check;
use super::relocate;
use super::tell::Happened;
use super::work::Refusal;
use super::work::Work;
use super::work::bad_request;
use crate::metadata::entries;
use crate::metadata::nodes;
use crate::metadata::nodes::NewNode;

pub fn mkdir(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    attrs: &Attrs,
    xattrs: &Xattrs,
) -> Result<VersionNo, Refusal> {
    relocate::check_depth(work, place.parent)?;
    make(work, place, &NewNode { kind: NodeKind::Dir, ..new_node(node, attrs, xattrs) })
}

pub fn symlink(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    target: &[u8],
    attrs: &Attrs,
    xattrs: &Xattrs,
) -> Result<VersionNo, Refusal> {
    check::symlink_target(target)?;
    let new = new_node(node, attrs, xattrs);
    make(work, place, &NewNode { kind: NodeKind::Symlink, target: Some(target), ..new })
}

pub fn mknod(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    kind: NodeKind,
    rdev: u32,
    attrs: &Attrs,
    xattrs: &Xattrs,
) -> Result<VersionNo, Refusal> {
    if !kind.is_special() {
        return bad_request("mknod makes fifos, sockets and devices only");
    }
    make(work, place, &NewNode { kind, rdev, ..new_node(node, attrs, xattrs) })
}

/// Only the server makes mounts: no op of the protocol leads here.
pub fn mount(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    target: NamespaceId,
    attrs: &Attrs,
) -> Result<VersionNo, Refusal> {
    let xattrs = Xattrs::new();
    let new = new_node(node, attrs, &xattrs);
    make(work, place, &NewNode { kind: NodeKind::Mount, mount: Some(target), ..new })
}

pub fn link(work: &mut Work<'_>, node: NodeId, place: &Place) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    if state.kind.is_folder() {
        return bad_request("folders have one name only");
    }
    work.free(place)?;
    work.name(place, node)?;
    let linked = Happened::new(EventKind::Linked, node, state.kind);
    let (before, after) = (state.version, state.version);
    work.tell(Happened { to: Some(place), before, after, ..linked })?;
    Ok(state.version)
}

fn new_node<'a>(node: NodeId, attrs: &'a Attrs, xattrs: &'a Xattrs) -> NewNode<'a> {
    NewNode {
        node,
        kind: NodeKind::File,
        attrs,
        rdev: 0,
        target: None,
        mount: None,
        xattrs,
        version: 0,
    }
}

/// Makes a node and its first name.
pub fn make(work: &mut Work<'_>, place: &Place, new: &NewNode<'_>) -> Result<VersionNo, Refusal> {
    check::attrs(new.attrs)?;
    check::xattrs(new.xattrs)?;
    work.unused(new.node)?;
    work.free(place)?;
    nodes::insert(work.sql, work.ns, new, work.seq)?;
    entries::set(work.sql, work.ns, place, Some(new.node), work.seq)?;
    let conflict = new.kind == NodeKind::File && new.xattrs.contains_key(CONFLICT_XATTR);
    let kind = if conflict { EventKind::Conflict } else { EventKind::Added };
    let added = Happened::new(kind, new.node, new.kind);
    work.tell(Happened { to: Some(place), after: new.version, ..added })?;
    Ok(new.version)
}
