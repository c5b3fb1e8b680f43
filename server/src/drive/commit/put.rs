//! New content: every block must be held by the namespace's owner before a version names it.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::manifest::Root;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

use super::check;
use super::create;
use super::prepare::Prepared;
use super::tell::Happened;
use super::work::Refusal;
use super::work::Work;
use super::work::bad_request;
use super::work::conflict;
use crate::metadata::blocks;
use crate::metadata::entries;
use crate::metadata::nodes;
use crate::metadata::nodes::NewNode;
use crate::metadata::versions;
use crate::metadata::versions::NewVersion;

/// Content as it came, and what was found out about it before the transaction.
pub struct Content<'a> {
    /// Encoded manifest root.
    pub bytes: &'a [u8],
    pub prepared: &'a Prepared,
}

pub fn create(
    work: &mut Work<'_>,
    node: NodeId,
    place: &Place,
    base_version: VersionNo,
    content: &Content<'_>,
    attrs: &Attrs,
    xattrs: &Xattrs,
) -> Result<VersionNo, Refusal> {
    if base_version != 0 {
        return bad_request("a file that is created has base_version 0");
    }
    let size = hold(work, content)?;
    let version = 1;
    let new = NewNode {
        node,
        kind: NodeKind::File,
        attrs,
        rdev: 0,
        target: None,
        mount: None,
        xattrs,
        version,
    };
    create::make(work, place, &new)?;
    work.count(0, size)?;
    add_version(work, node, version, content.bytes, size)?;
    Ok(version)
}

pub fn update(
    work: &mut Work<'_>,
    node: NodeId,
    base_version: VersionNo,
    content: &Content<'_>,
    attrs: &Attrs,
    xattrs: &Xattrs,
) -> Result<VersionNo, Refusal> {
    check::attrs(attrs)?;
    if !xattrs.is_empty() {
        return bad_request("extended attributes of a file that exists change by setxattr");
    }
    let state = work.live(node)?;
    if state.kind != NodeKind::File {
        return bad_request(format!("node {node} is not a file"));
    }
    if state.version != base_version {
        return conflict(format!(
            "node {node} stands at version {}, not {base_version}",
            state.version
        ));
    }
    let head = versions::content(work.sql, work.ns, node, state.version)?;
    let same = head.as_ref().is_some_and(|(bytes, _)| bytes == content.bytes);
    let old_size = head.map_or(0, |(_, size)| size);
    let mut version = state.version;
    if !same {
        let size = hold(work, content)?;
        version += 1;
        work.count(old_size, size)?;
        add_version(work, node, version, content.bytes, size)?;
        nodes::set_version(work.sql, work.ns, node, version)?;
        tell_content(work, EventKind::Edited, node, (state.version, version, 0))?;
        work.count_loss(node, state.version, false)?;
    }
    nodes::set_attrs(work.sql, work.ns, node, attrs, work.seq)?;
    Ok(version)
}

/// Makes the content of an older version the newest. The server holds what it lists already.
pub fn revert(
    work: &mut Work<'_>,
    node: NodeId,
    base_version: VersionNo,
    older: VersionNo,
) -> Result<VersionNo, Refusal> {
    let state = work.live(node)?;
    if state.version != base_version {
        return conflict(format!(
            "node {node} stands at version {}, not {base_version}",
            state.version
        ));
    }
    let Some((content, size)) = versions::content(work.sql, work.ns, node, older)? else {
        return Err(Refusal::Rejected(
            ErrorCode::NotFound,
            format!("version {older} is not in the history"),
        ));
    };
    let head = versions::content(work.sql, work.ns, node, state.version)?;
    if head.as_ref().is_some_and(|(bytes, _)| *bytes == content) {
        return Ok(state.version);
    }
    let version = state.version + 1;
    work.count(head.map_or(0, |(_, size)| size), size)?;
    add_version(work, node, version, &content, size)?;
    nodes::set_version(work.sql, work.ns, node, version)?;
    // Programs see by its time that it changed.
    nodes::touch(work.sql, work.ns, node, work.now, work.seq)?;
    tell_content(work, EventKind::Reverted, node, (state.version, version, older))?;
    Ok(version)
}

fn tell_content(
    work: &mut Work<'_>,
    kind: EventKind,
    node: NodeId,
    (before, after, of): (VersionNo, VersionNo, VersionNo),
) -> Result<(), Refusal> {
    let place = entries::place(work.sql, work.ns, node)?;
    let edited = Happened::new(kind, node, NodeKind::File);
    work.tell(Happened { to: place.as_ref(), before, after, of, ..edited })?;
    Ok(())
}

fn add_version(
    work: &mut Work<'_>,
    node: NodeId,
    version: VersionNo,
    content: &[u8],
    size: u64,
) -> Result<(), Refusal> {
    let new = NewVersion { node, version, content, size, device: work.device, committed: work.now };
    Ok(versions::insert(work.sql, work.ns, &new)?)
}

/// Makes sure that the owner holds all blocks of the content; answers its length (bytes).
fn hold(work: &mut Work<'_>, content: &Content<'_>) -> Result<u64, Refusal> {
    let root = match &content.prepared.root {
        Some(Ok(root)) => root,
        Some(Err(e)) => return bad_request(format!("content: {e}")),
        None => return bad_request("content: missing"),
    };
    let size = root.size();
    if size > work.file_max {
        return Err(Refusal::Rejected(
            ErrorCode::TooLarge,
            format!("the file has {size} bytes, over the limit of {}", work.file_max),
        ));
    }
    for (pack, at) in &content.prepared.links {
        blocks::insert(work.sql, work.owner, *pack, at)?;
    }
    let mut missing = Vec::new();
    match root {
        Root::Inline(entries) => {
            for entry in entries {
                match blocks::facts(work.sql, work.owner, entry.hash)? {
                    Some(held) if held.block_len == entry.len => {}
                    Some(_) => return wrong_length(entry.hash),
                    None => missing.push(entry.hash),
                }
            }
        }
        Root::Segmented(refs) => {
            for listed in refs {
                match blocks::facts(work.sql, work.owner, listed.hash)? {
                    Some(held) if held.is_segment(listed) => {}
                    Some(_) if content.prepared.is_whole(listed) => {
                        blocks::set_segment(work.sql, work.owner, listed)?;
                    }
                    Some(_) => missing.extend(content.prepared.missing_of(listed)?),
                    None => missing.push(listed.hash),
                }
            }
        }
    }
    if missing.is_empty() { Ok(size) } else { missing_blocks(missing) }
}

fn wrong_length<T>(hash: BlockHash) -> Result<T, Refusal> {
    bad_request(format!("content: block {hash} has another length"))
}

fn missing_blocks<T>(missing: Vec<BlockHash>) -> Result<T, Refusal> {
    let error = crate::drive::DriveError::MissingBlocks(missing);
    Err(Refusal::Rejected(ErrorCode::MissingBlocks, error.to_string()))
}
