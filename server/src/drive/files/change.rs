//! Folders made, things moved, copied and deleted by their paths.
//!
//! What takes more than one commit is done parents first (making) or last (removing): one that is
//! broken off leaves a tree that is whole, with a part of the work done.

use std::collections::HashMap;

use drivefs_core::id::NodeId;
use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Place;
use drivefs_core::wire::Role;
use drivefs_core::wire::Source;

use super::FilesError;
use super::aim::Aimed;
use super::aim::make_folders;
use super::aim::numbered;
use super::aim::place_for;
use super::aim::taken_error;
use super::entry;
use super::entry::Entry;
use super::error::Taken;
use super::fresh_key;
use super::fresh_node;
use super::path::Target;
use super::put::refused;
use super::stamp::Rev;
use super::subtree::below;
use super::walk;
use super::walk::Folder;
use super::walk::Spot;
use crate::auth::Asker;
use crate::clock;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::metadata::Sql;
use crate::metadata::nodes;

/// How often a change is decided anew because the tree has moved on.
const TRIES_MAX: usize = 8;
/// Names tried by `autorename`.
const NAMES_TRIED_MAX: u32 = 1000;

/// Why a change of two places failed: which of them it was about.
#[derive(Debug)]
pub enum Side {
    From(FilesError),
    To(FilesError),
}

impl From<FilesError> for Side {
    fn from(e: FilesError) -> Self {
        Self::To(e)
    }
}

impl From<crate::metadata::DbError> for Side {
    fn from(e: crate::metadata::DbError) -> Self {
        Self::To(e.into())
    }
}

/// What is to be done in one namespace, and the node whose entry answers.
struct Plan {
    ns: drivefs_core::id::NamespaceId,
    ops: Vec<Op>,
    node: NodeId,
}

impl Drive {
    pub async fn create_folder(
        &self,
        asker: &Asker,
        path: Target,
        autorename: bool,
    ) -> Result<Entry, FilesError> {
        for _ in 0..TRIES_MAX {
            let (who, target) = (asker.clone(), path.clone());
            let plan = self
                .store
                .read(move |sql| {
                    let aimed = place_for(sql, &who, &target)?;
                    let (aimed, name) = free(sql, aimed, autorename)?;
                    let names: Vec<_> = aimed.missing.into_iter().chain([name]).collect();
                    let (ops, node) = make_folders(&aimed.folder, &names);
                    Ok::<_, FilesError>(Plan { ns: aimed.folder.ns(), ops, node })
                })
                .await?;
            let rev = Rev { ns: plan.ns, node: plan.node, version: 0 };
            if self.do_ops(asker, plan.ns, plan.ops).await? {
                return self.put_entry(asker, rev).await;
            }
        }
        Err(busy())
    }

    /// Removes something and all below it. Answers what it was.
    pub async fn delete_path(
        &self,
        asker: &Asker,
        path: Target,
        parent_rev: Option<Rev>,
    ) -> Result<Entry, FilesError> {
        for _ in 0..TRIES_MAX {
            let (who, target) = (asker.clone(), path.clone());
            let (was, plan) = self
                .store
                .read(move |sql| {
                    let spot = walk::found(sql, &who, &target)?;
                    let was = entry::of_spot(sql, &who, &spot)?;
                    if parent_rev.is_some_and(|rev| rev != was.rev()) {
                        let text = "the file has changed since that revision".to_owned();
                        return Err(FilesError::Conflict(Taken::File, text));
                    }
                    let ops = removal(sql, &spot)?;
                    let ns = spot.space.namespace.ns;
                    Ok::<_, FilesError>((was, Plan { ns, ops, node: spot.node }))
                })
                .await?;
            if self.do_ops(asker, plan.ns, plan.ops).await? {
                return Ok(was);
            }
        }
        Err(busy())
    }

    /// Moves within a namespace; between two, what is copied is then removed.
    pub async fn move_path(
        &self,
        asker: &Asker,
        from: Target,
        to: Target,
        autorename: bool,
    ) -> Result<Entry, Side> {
        for _ in 0..TRIES_MAX {
            let (who, source, target) = (asker.clone(), from.clone(), to.clone());
            let (plan, is_moved) = self
                .store
                .read(move |sql| {
                    let (spot, aimed, name) = both(sql, &who, &source, &target, autorename)?;
                    if spot.space.role < Role::Editor {
                        return Err(Side::From(FilesError::NoWrite));
                    }
                    let Some(place) = spot.place.clone() else {
                        let text = "the root of a shared folder does not move";
                        return Err(Side::From(FilesError::SharedFolder(text)));
                    };
                    let (mut ops, parent) = make_folders(&aimed.folder, &aimed.missing);
                    let ns = aimed.folder.ns();
                    if spot.space.namespace.ns != ns {
                        return Ok((Plan { ns, ops: Vec::new(), node: spot.node }, false));
                    }
                    let to = Place { parent, name };
                    let node = spot.node;
                    let change = Change::Move {
                        node,
                        from: place,
                        to,
                        replace: None,
                        replaced_version: None,
                        exchange: false,
                    };
                    ops.push(op(change));
                    Ok((Plan { ns, ops, node }, true))
                })
                .await?;
            if !is_moved {
                let copy = self.copy_path(asker, from.clone(), to, autorename).await?;
                self.delete_path(asker, from, None).await.map_err(Side::From)?;
                return Ok(copy);
            }
            let rev = Rev { ns: plan.ns, node: plan.node, version: 0 };
            if self.do_ops(asker, plan.ns, plan.ops).await? {
                return Ok(self.put_entry(asker, rev).await?);
            }
        }
        Err(busy().into())
    }

    /// Copies by reference: no bytes move.
    pub async fn copy_path(
        &self,
        asker: &Asker,
        from: Target,
        to: Target,
        autorename: bool,
    ) -> Result<Entry, Side> {
        for _ in 0..TRIES_MAX {
            let (who, source, target) = (asker.clone(), from.clone(), to.clone());
            let plan = self
                .store
                .read(move |sql| {
                    let (spot, aimed, name) = both(sql, &who, &source, &target, autorename)?;
                    copies(sql, &spot, &aimed, name)
                })
                .await?;
            let rev = Rev { ns: plan.ns, node: plan.node, version: 0 };
            if self.do_ops(asker, plan.ns, plan.ops).await? {
                return Ok(self.put_entry(asker, rev).await?);
            }
        }
        Err(busy().into())
    }

    /// Commits ops in order; false when the tree has moved on in between.
    async fn do_ops(
        &self,
        asker: &Asker,
        ns: drivefs_core::id::NamespaceId,
        ops: Vec<Op>,
    ) -> Result<bool, FilesError> {
        let mut ops = ops.into_iter().peekable();
        while ops.peek().is_some() {
            let batch: Vec<_> = ops.by_ref().take(COMMIT_OPS_MAX).collect();
            let request = CommitRequest { ns, at: None, ops: batch, rewinds: None };
            for result in self.commit(asker.clone(), request).await?.results {
                match result {
                    OpResult::Done { .. } => {}
                    OpResult::Conflict { .. } => return Ok(false),
                    OpResult::Rejected { code, message } => return Err(refused(code, message)),
                }
            }
        }
        Ok(true)
    }
}

fn busy() -> FilesError {
    DriveError::Conflict("the folder changes all the time; try again".into()).into()
}

fn op(change: Change) -> Op {
    Op { key: fresh_key(), change }
}

/// A free name at the place.
fn free(sql: &mut dyn Sql, aimed: Aimed, autorename: bool) -> Result<(Aimed, Name), FilesError> {
    let name = aimed.name.clone();
    let Some(there) = &aimed.there else { return Ok((aimed, name)) };
    if autorename {
        for n in 1..=NAMES_TRIED_MAX {
            let candidate = numbered(&name, n)?;
            if walk::child(sql, &aimed.folder, &candidate)?.is_none() {
                return Ok((aimed, candidate));
            }
        }
    }
    let taken = if there.kind.is_folder() { Taken::Folder } else { Taken::File };
    Err(taken_error(taken, &there.path))
}

/// What is at the one place, and a free name at the other.
fn both(
    sql: &mut dyn Sql,
    asker: &Asker,
    from: &Target,
    to: &Target,
    autorename: bool,
) -> Result<(Spot, Aimed, Name), Side> {
    let spot = walk::found(sql, asker, from).map_err(Side::From)?;
    if !entry::is_shown(spot.kind) {
        return Err(Side::From(FilesError::NotFound));
    }
    let aimed = place_for(sql, asker, to)?;
    let target = aimed.folder.path.0.iter().chain(&aimed.missing);
    if spot.kind.is_folder() && target.take(spot.path.0.len()).eq(&spot.path.0) {
        return Err(Side::To(FilesError::IntoItself));
    }
    let (aimed, name) = free(sql, aimed, autorename)?;
    Ok((spot, aimed, name))
}

/// Ops that remove something: what is in a folder before it.
fn removal(sql: &mut dyn Sql, spot: &Spot) -> Result<Vec<Op>, FilesError> {
    if spot.space.role < Role::Editor {
        return Err(FilesError::NoWrite);
    }
    let shared = "a shared folder goes by unsharing it";
    let place = spot.place.clone().ok_or(FilesError::SharedFolder("the root stays"))?;
    let remove = |kind: NodeKind, node, place, version| match kind {
        NodeKind::Mount => Err(FilesError::SharedFolder(shared)),
        NodeKind::Dir => Ok(op(Change::Rmdir { node, place })),
        _ => Ok(op(Change::Unlink { node, place, version })),
    };
    let version = nodes::state(sql, spot.space.namespace.ns, spot.node)?.map(|s| s.version);
    let mut ops = vec![remove(spot.kind, spot.node, place, version)?];
    if spot.kind == NodeKind::Dir {
        for below in below(sql, &spot.space.namespace, spot.node)? {
            ops.push(remove(below.row.kind, below.row.node, below.place, Some(below.row.version))?);
        }
    }
    ops.reverse();
    Ok(ops)
}

/// Ops that make the same again elsewhere.
fn copies(sql: &mut dyn Sql, spot: &Spot, aimed: &Aimed, name: Name) -> Result<Plan, Side> {
    let space = spot.space.namespace;
    if spot.kind == NodeKind::Mount {
        let text = "a shared folder is not copied; copy what is in it";
        return Err(Side::From(FilesError::SharedFolder(text)));
    }
    let row = nodes::row(sql, space.ns, spot.node)?.ok_or(Side::From(FilesError::NotFound))?;
    let (mut ops, parent) = make_folders(&aimed.folder, &aimed.missing);
    let node = fresh_node();
    let mut ids = HashMap::from([(spot.node, node)]);
    let is_other = is_other_account(&aimed.folder, spot);
    ops.extend(copy_of(&row, node, Place { parent, name }, is_other.then_some(space.ns)));
    if spot.kind == NodeKind::Dir {
        for below in below(sql, &space, spot.node).map_err(Side::From)? {
            // What was made before: parents come first.
            let Some(parent) = ids.get(&below.place.parent).copied() else { continue };
            let node = fresh_node();
            if below.row.kind == NodeKind::Dir {
                ids.insert(below.row.node, node);
            }
            let place = Place { parent, name: below.place.name };
            ops.extend(copy_of(&below.row, node, place, is_other.then_some(space.ns)));
        }
    }
    Ok(Plan { ns: aimed.folder.ns(), ops, node })
}

fn is_other_account(folder: &Folder, spot: &Spot) -> bool {
    folder.space.namespace.owner != spot.space.namespace.owner
}

/// The op that makes a copy of a node; none for special files and mounts.
fn copy_of(
    row: &NodeRow,
    node: NodeId,
    place: Place,
    from: Option<drivefs_core::id::NamespaceId>,
) -> Option<Op> {
    let attrs = Attrs { uid: None, gid: None, btime: clock::now_ns(), ..row.attrs };
    let xattrs = row.xattrs.clone();
    Some(op(match row.kind {
        NodeKind::Dir => Change::Mkdir { node, place, attrs, xattrs },
        NodeKind::Symlink => {
            let target = row.target.clone().unwrap_or_else(|| Blob(Vec::new()));
            Change::Symlink { node, place, target, attrs, xattrs }
        }
        NodeKind::File => Change::Put {
            node,
            create: Some(place),
            base_version: 0,
            content: row.content.clone()?,
            attrs,
            xattrs,
            source: from.map(|ns| Source { ns, node: row.node }),
        },
        _ => return None,
    }))
}
