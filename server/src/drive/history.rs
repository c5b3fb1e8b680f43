//! Versions of files, which of them are kept, and what a folder held at a time.
//!
//! Where things were moved from is not recorded: the past of a folder is that of what is in it now,
//! and of what was deleted out of it.

use std::collections::BTreeMap;
use std::collections::HashSet;

use drivefs_core::id::NodeId;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::limits::VERSIONS_BYTES_MAX;
use drivefs_core::limits::VERSIONS_KEPT_MAX;
use drivefs_core::limits::VERSIONS_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::KeepReply;
use drivefs_core::wire::KeepRequest;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::PastEntry;
use drivefs_core::wire::PastReply;
use drivefs_core::wire::PastRequest;
use drivefs_core::wire::VersionsReply;
use drivefs_core::wire::VersionsRequest;

use super::Drive;
use super::DriveError;
use super::member_of;
use super::places;
use super::writer_of;
use crate::auth::Asker;
use crate::clock;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::kept;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Namespace;
use crate::metadata::nodes;
use crate::metadata::trash;
use crate::metadata::versions;

impl Drive {
    pub async fn versions(
        &self,
        asker: Asker,
        request: VersionsRequest,
    ) -> Result<VersionsReply, DriveError> {
        let limit = request.limit.clamp(1, VERSIONS_ROWS_MAX);
        self.store
            .read(move |sql| {
                let space = member_of(sql, request.ns, asker.user)?.namespace;
                let node = places::resolve(sql, &space, &request.of)?;
                let row = file(sql, &space, node)?;
                let path = places::path_of(sql, &space, row.node)?;
                let mut rows = versions::list(sql, space.ns, row.node, request.before, limit + 1)?;
                let fitting = fitting(rows.iter().map(|v| v.content.0.len())).min(limit as usize);
                let more = rows.len() > fitting;
                rows.truncate(fitting);
                Ok(VersionsReply { row, path, versions: rows, more })
            })
            .await
    }

    /// Pins a version, or lets it go. Versions themselves never change.
    pub async fn keep_version(
        &self,
        asker: Asker,
        request: KeepRequest,
    ) -> Result<KeepReply, DriveError> {
        self.store
            .write(move |sql| {
                let space = namespaces::lock(sql, request.ns)?.ok_or(DriveError::NoNamespace)?;
                writer_of(sql, request.ns, asker.user)?;
                let row = file(sql, &space, Some(request.node))?;
                let one = (row.node, request.version);
                if versions::content(sql, space.ns, row.node, request.version)?.is_none() {
                    return Err(DriveError::NotFound(format!(
                        "the file has no version {}",
                        request.version
                    )));
                }
                if request.keep {
                    kept::insert(sql, space.ns, one, &asker.device_name, clock::now_ns())?;
                } else {
                    kept::remove(sql, space.ns, one)?;
                }
                let kept = kept::count(sql, space.ns, row.node)?;
                if request.keep && kept > VERSIONS_KEPT_MAX {
                    return Err(DriveError::BadRequest(format!(
                        "{VERSIONS_KEPT_MAX} versions of the file are kept, more cannot be"
                    )));
                }
                Ok(KeepReply { kept })
            })
            .await
    }

    pub async fn past(&self, asker: Asker, request: PastRequest) -> Result<PastReply, DriveError> {
        let limit = request.limit.clamp(1, TRASH_ROWS_MAX);
        self.store
            .read(move |sql| {
                let space = member_of(sql, request.ns, asker.user)?.namespace;
                let folder = visible(sql, &space, Some(request.folder))?;
                if folder.kind != NodeKind::Dir {
                    return Err(DriveError::BadRequest("that is not a folder".into()));
                }
                past(sql, &space, &request, limit)
            })
            .await
    }
}

/// A node that is live or in the trash.
pub(super) fn visible(
    sql: &mut dyn Sql,
    space: &Namespace,
    node: Option<NodeId>,
) -> Result<NodeRow, DriveError> {
    let row = match node {
        Some(node) => nodes::row(sql, space.ns, node)?,
        None => None,
    };
    row.filter(|row| !row.deleted || row.seq > space.emptied_seq).ok_or_else(|| {
        DriveError::NotFound("there is no such file or folder, and it is not in the trash".into())
    })
}

fn file(sql: &mut dyn Sql, space: &Namespace, node: Option<NodeId>) -> Result<NodeRow, DriveError> {
    let row = visible(sql, space, node)?;
    if row.kind != NodeKind::File {
        return Err(DriveError::BadRequest("only files have versions".into()));
    }
    Ok(row)
}

/// How many of these lengths fit into an answer; at least one.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0usize;
    let fits = lengths.take_while(|len| {
        bytes = bytes.saturating_add(*len);
        bytes <= VERSIONS_BYTES_MAX
    });
    fits.count().max(1)
}

fn past(
    sql: &mut dyn Sql,
    space: &Namespace,
    request: &PastRequest,
    limit: u32,
) -> Result<PastReply, DriveError> {
    let (ns, at) = (space.ns, request.at);
    let after = request.after.as_ref();
    let live = entries::list(sql, ns, request.folder, after, limit)?;
    let wanted = (request.folder, at);
    let gone = trash::gone_since(sql, ns, space.emptied_seq, wanted, after, limit)?;
    // A list that was cut says nothing of what comes behind its end.
    let full = limit as usize;
    let ends = [
        live.last().filter(|_| live.len() >= full).map(|d| d.name.clone()),
        gone.last().filter(|_| gone.len() >= full).map(|(name, _)| name.clone()),
    ];
    let next = ends.into_iter().flatten().min();
    let is_in = |name: &Name| next.as_ref().is_none_or(|end| name <= end);
    let lost_names: HashSet<&Name> = gone.iter().map(|(name, _)| name).collect();
    let mut found: BTreeMap<Name, Vec<PastEntry>> = BTreeMap::new();
    let nodes = live.iter().filter_map(|d| Some((&d.name, d.child?)));
    for (name, node) in nodes.chain(gone.iter().map(|(name, node)| (name, *node))) {
        if !is_in(name) {
            continue;
        }
        let Some(row) = nodes::row(sql, ns, node)? else { continue };
        let entry = entry_of(sql, space, name, &row, at)?;
        let differs = entry.content.is_some() || entry.deleted || entry.kind == NodeKind::Dir;
        if differs || lost_names.contains(name) {
            found.entry(name.clone()).or_default().push(entry);
        }
    }
    Ok(PastReply { entries: found.into_values().flatten().collect(), next })
}

fn entry_of(
    sql: &mut dyn Sql,
    space: &Namespace,
    name: &Name,
    row: &NodeRow,
    at: TimeNs,
) -> Result<PastEntry, DriveError> {
    let is_file = row.kind == NodeKind::File;
    let version = if is_file { versions::at(sql, space.ns, row.node, at)? } else { None };
    let content = match version {
        Some(version) if version != row.version || row.deleted => {
            versions::content(sql, space.ns, row.node, version)?.map(|(bytes, _)| Blob(bytes))
        }
        _ => None,
    };
    Ok(PastEntry {
        name: name.clone(),
        node: row.node,
        kind: row.kind,
        attrs: row.attrs,
        deleted: row.deleted,
        newer: if is_file { version.is_none() } else { row.attrs.btime > at },
        head: row.version,
        version: version.unwrap_or_default(),
        content: content.filter(|c| row.deleted || row.content.as_ref() != Some(c)),
    })
}
