//! Earlier versions of a file by its path, and the way back to one of them.

use drivefs_core::id::NodeId;
use drivefs_core::id::VersionNo;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Place;

use super::FilesError;
use super::aim;
use super::aim::make_folders;
use super::aim::place_for;
use super::entry::Entry;
use super::fresh_key;
use super::path::Target;
use super::put::refused;
use super::read;
use super::stamp::Rev;
use super::walk;
use crate::auth::Asker;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::places;
use crate::metadata::Sql;
use crate::metadata::trash;
use crate::metadata::versions;

/// How often a restore is decided anew because the tree has moved on.
const TRIES_MAX: usize = 8;

/// The versions of a file, newest first.
#[derive(Debug, Clone)]
pub struct Revisions {
    pub entries: Vec<Entry>,
    /// When it was deleted, if it is.
    pub deleted: Option<TimeNs>,
    pub more: bool,
}

impl Drive {
    pub async fn list_revisions(
        &self,
        asker: &Asker,
        target: Target,
        before: Option<VersionNo>,
        limit: u32,
    ) -> Result<Revisions, FilesError> {
        let asker = asker.clone();
        self.store
            .read(move |sql| {
                let rev = file_of(sql, &asker, &target)?;
                let file = read::of_rev(sql, &asker, rev)?;
                if file.row.kind != NodeKind::File {
                    return Err(FilesError::NotFile);
                }
                let mut rows = versions::list(sql, rev.ns, rev.node, before, limit + 1)?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let entries = rows.into_iter().map(|version| {
                    let mut entry = file.clone();
                    entry.row.content = None;
                    entry.size = version.size;
                    if version.version != entry.row.version {
                        entry.row.attrs.mtime = version.committed;
                    }
                    entry.row.version = version.version;
                    entry.row.committed = version.committed;
                    entry.row.device = version.device;
                    entry
                });
                let entries = entries.collect();
                let deleted = trash::find(sql, rev.ns, rev.node)?.map(|lost| lost.deleted);
                Ok(Revisions { entries, deleted, more })
            })
            .await
    }

    /// Makes an older version the newest at a path; brings the file back first if it was deleted.
    pub async fn restore_file(
        &self,
        asker: &Asker,
        path: Target,
        rev: Rev,
    ) -> Result<Entry, FilesError> {
        for _ in 0..TRIES_MAX {
            let (who, target) = (asker.clone(), path.clone());
            let (ns, ops) =
                self.store.read(move |sql| plan_restore(sql, &who, &target, rev)).await?;
            if !ops.is_empty() {
                let request = CommitRequest { ns, at: None, ops, rewinds: None };
                let reply = self.commit(asker.clone(), request).await?;
                let mut moved_on = false;
                for result in reply.results {
                    match result {
                        OpResult::Done { .. } => {}
                        OpResult::Conflict { .. } => moved_on = true,
                        OpResult::Rejected { code, message } => {
                            return Err(refused(code, message));
                        }
                    }
                }
                if moved_on {
                    continue;
                }
            }
            return self.put_entry(asker, Rev { version: 0, ..rev }).await;
        }
        Err(DriveError::Conflict("the file changes all the time; try again".into()).into())
    }
}

/// The file at a path; where nothing is, the one that was deleted there last.
pub fn file_of(sql: &mut dyn Sql, asker: &Asker, target: &Target) -> Result<Rev, FilesError> {
    if let Target::Rev(rev) = target {
        return Ok(*rev);
    }
    let walk = walk::walk(sql, asker, target)?;
    let ns = walk.spot.space.namespace.ns;
    if walk.rest.is_empty() {
        return Ok(Rev { ns, node: walk.spot.node, version: 0 });
    }
    let folder = walk::inside(sql, asker, &walk.spot).map_err(|e| match e {
        FilesError::NotFolder => FilesError::NotFound,
        other => other,
    })?;
    let space = folder.space.namespace;
    let above = match &walk.spot.kind {
        NodeKind::Mount => Vec::new(),
        _ => places::path_of(sql, &space, folder.node)?,
    };
    let path: Vec<_> = above.into_iter().chain(walk.rest).collect();
    let node = places::lost_at(sql, &space, &path)?.ok_or(FilesError::NotFound)?;
    Ok(Rev { ns: space.ns, node, version: 0 })
}

type Ops = (drivefs_core::id::NamespaceId, Vec<Op>);

fn plan_restore(
    sql: &mut dyn Sql,
    asker: &Asker,
    path: &Target,
    rev: Rev,
) -> Result<Ops, FilesError> {
    let file = read::of_rev(sql, asker, rev)?;
    if file.row.kind != NodeKind::File {
        return Err(FilesError::NotFile);
    }
    if versions::content(sql, rev.ns, rev.node, rev.version)?.is_none() {
        return Err(FilesError::NoRevision);
    }
    let mut ops = Vec::new();
    if file.row.deleted {
        let aimed = place_for(sql, asker, path)?;
        if aimed.folder.ns() != rev.ns {
            return Err(FilesError::NoRevision);
        }
        if let Some(there) = &aimed.there {
            return Err(aim::taken_error(super::error::Taken::File, &there.path));
        }
        let (folders, parent) = make_folders(&aimed.folder, &aimed.missing);
        ops = folders;
        let place = Place { parent, name: aimed.name };
        ops.push(op(Change::Restore { node: rev.node, place }));
    } else {
        check_path(sql, asker, path, rev.node)?;
        if file.read_only {
            return Err(FilesError::NoWrite);
        }
    }
    if rev.version != file.row.version {
        let (node, base_version) = (rev.node, file.row.version);
        ops.push(op(Change::Revert { node, base_version, version: rev.version }));
    }
    Ok((rev.ns, ops))
}

/// A rev of a file that is there must be one of the file at the path.
fn check_path(
    sql: &mut dyn Sql,
    asker: &Asker,
    path: &Target,
    node: NodeId,
) -> Result<(), FilesError> {
    let there = walk::walk(sql, asker, path)?;
    let is_it = there.rest.is_empty() && there.spot.node == node;
    if is_it { Ok(()) } else { Err(FilesError::NoRevision) }
}

fn op(change: Change) -> Op {
    Op { key: fresh_key(), change }
}
