//! Ops on attributes; content and names stay, and no version is made.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::wire::Blob;

use super::check;
use super::work::Refusal;
use super::work::Work;
use crate::metadata::nodes;

pub fn setattr(work: &mut Work<'_>, node: NodeId, attrs: &Attrs) -> Result<VersionNo, Refusal> {
    check::attrs(attrs)?;
    let state = work.live(node)?;
    nodes::set_attrs(work.sql, work.ns, node, attrs, work.seq)?;
    Ok(state.version)
}

pub fn setxattr(
    work: &mut Work<'_>,
    node: NodeId,
    name: &str,
    value: Option<&Blob>,
) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    let mut xattrs = nodes::xattrs(work.sql, work.ns, node)?;
    match value {
        Some(value) => xattrs.insert(name.to_owned(), value.clone()),
        None => xattrs.remove(name),
    };
    check::xattrs(&xattrs)?;
    nodes::set_xattrs(work.sql, work.ns, node, &xattrs, work.seq)?;
    Ok(state.version)
}
