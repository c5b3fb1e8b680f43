//! The commit: the one place where a namespace changes, and the order of its changes is made.
//!
//! `prepare` does the I/O before the transaction; inside it only rows are read and written. Ops are
//! independent: each runs in a savepoint of its own, and its first answer is kept under its key, so
//! that a retry gets the same. Hints go out after the commit is on disk.

mod attrs;
mod check;
mod create;
mod mass;
mod prepare;
mod put;
mod relocate;
mod remove;
mod restore;
mod tell;
mod work;

use std::sync::Arc;

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::limits::DEVICE_NAME_MAX_BYTES;
use drivefs_core::limits::EMAIL_MAX_BYTES;
use drivefs_core::node::Attrs;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitReply;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Place;
use tracing::Instrument;

use super::Drive;
use super::DriveError;
use super::changes::check_point;
use super::writer_of;
use crate::auth::Asker;
use crate::clock;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::accounts;
use crate::metadata::epochs;
use crate::metadata::mounts;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Namespace;
use crate::metadata::ops;
use crate::metadata::space;
use prepare::Prepared;
use tell::Tale;
pub(super) use work::Refusal;
use work::Work;

/// Longest e-mail, slash and name of a device (bytes).
const REWINDS_MAX_BYTES: usize = EMAIL_MAX_BYTES + 1 + DEVICE_NAME_MAX_BYTES;
/// Name of the device in what the server does by itself.
const SERVER: &str = "server";
/// How often a commit is prepared again because blocks were collected or moved meanwhile.
const MOVED_MAX: u32 = 10;

impl Drive {
    pub async fn commit(
        &self,
        asker: Asker,
        request: CommitRequest,
    ) -> Result<CommitReply, DriveError> {
        if request.ops.len() > COMMIT_OPS_MAX {
            return Err(DriveError::BadRequest(format!(
                "a commit has at most {COMMIT_OPS_MAX} ops, this one {}",
                request.ops.len()
            )));
        }
        if request.rewinds.as_ref().is_some_and(|r| r.len() > REWINDS_MAX_BYTES) {
            return Err(DriveError::BadRequest("rewinds names no device".into()));
        }
        let request = Arc::new(request);
        let mut tries = 0;
        loop {
            match self.try_commit(&asker, &request).await {
                // What was found out about blocks may not hold any more.
                Err(DriveError::BlocksMoved) if tries < MOVED_MAX => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_commit(
        &self,
        asker: &Asker,
        request: &Arc<CommitRequest>,
    ) -> Result<CommitReply, DriveError> {
        let (prepared, generation) = self.prepare(asker, request.ns, &request.ops).await?;
        let (drive, asker, request) = (self.clone(), asker.clone(), Arc::clone(request));
        // In a task of its own: what was begun is committed and hinted, also when the client is gone.
        let task = async move {
            let file_max = drive.limits.file_max_bytes;
            let rules = Rules { file_max, epoch: drive.epoch, generation };
            let (ns, op_count) = (request.ns, request.ops.len() as u64);
            let (reply, changed) = drive
                .store
                .write(move |sql| apply(sql, &asker, &request, &prepared, &rules))
                .await?;
            if changed {
                drive.hub.hint(ns);
                metrics::counter!("drivefs_commits_total").increment(1);
            }
            metrics::counter!("drivefs_ops_total").increment(op_count);
            Ok(reply)
        };
        let task = tokio::spawn(task.in_current_span());
        task.await.map_err(|e| DriveError::Internal(e.to_string()))?
    }
}

/// What this run of the server adds to a commit.
struct Rules {
    /// Largest file (bytes).
    file_max: u64,
    epoch: Epoch,
    /// Of the blocks, before they were looked at.
    generation: u64,
}

/// Applies all ops under one seq; true when something changed.
fn apply(
    sql: &mut dyn Sql,
    asker: &Asker,
    request: &CommitRequest,
    prepared: &[Prepared],
    rules: &Rules,
) -> Result<(CommitReply, bool), DriveError> {
    let ns = request.ns;
    if space::generation(sql)? != rules.generation {
        return Err(DriveError::BlocksMoved);
    }
    let namespace = namespaces::lock(sql, ns)?.ok_or(DriveError::NoNamespace)?;
    writer_of(sql, ns, asker.user)?;
    if let Some(at) = &request.at {
        check_point(sql, &namespace, at)?;
    }
    let owner = accounts::by_id(sql, namespace.owner)?.ok_or(DriveError::NoNamespace)?;
    let now = clock::now_secs();
    let mut work = Work {
        ns,
        owner: namespace.owner,
        root: namespace.root,
        emptied: namespace.emptied_seq,
        seq: namespace.seq + 1,
        device: &asker.device_name,
        now: clock::now_ns(),
        file_max: rules.file_max,
        quota: owner.quota_bytes,
        used: i64::try_from(owner.used_bytes).unwrap_or(i64::MAX),
        tale: Tale::of(request.rewinds.clone()),
        sql,
    };
    let at = work.now;
    let used_before = work.used;
    let mut changed = false;
    let mut results = Vec::with_capacity(request.ops.len());
    for (op, prepared) in request.ops.iter().zip(prepared) {
        if let Some(first) = first_answer(work.sql, ns, op)? {
            results.push(first);
            continue;
        }
        let result = apply_one(&mut work, op, prepared, now)?;
        work.now += 1;
        changed |= matches!(result, OpResult::Done { .. });
        results.push(result);
    }
    let used_delta = work.used - used_before;
    let seq = if changed { work.seq } else { namespace.seq };
    let Work { sql, tale, .. } = work;
    if changed {
        namespaces::set_seq(sql, ns, seq, rules.epoch)?;
        tell::record(sql, (ns, seq), (asker.user, &asker.device_name), at, tale)?;
    }
    let epoch = epochs::at(sql, ns, seq)?;
    if used_delta != 0 {
        accounts::add_used(sql, namespace.owner, used_delta)?;
    }
    ops::prune(sql, now)?;
    Ok((CommitReply { seq, epoch, results }, changed))
}

fn first_answer(sql: &mut dyn Sql, ns: NamespaceId, op: &Op) -> Result<Option<OpResult>, DbError> {
    let text = ops::find(sql, ns, op.key)?;
    text.map(|t| serde_json::from_str(&t).map_err(|_| DbError::Decode("op result"))).transpose()
}

fn apply_one(
    work: &mut Work<'_>,
    op: &Op,
    prepared: &Prepared,
    now: i64,
) -> Result<OpResult, DbError> {
    work.sql.exec("SAVEPOINT op", &[])?;
    let (used, point) = (work.used, work.tale.point());
    let result = match dispatch(work, &op.change, prepared) {
        Ok(version) => {
            let done = OpResult::Done { seq: work.seq, version };
            let text = serde_json::to_string(&done).map_err(|_| DbError::Decode("op result"))?;
            ops::insert(work.sql, work.ns, op.key, &text, now)?;
            done
        }
        Err(refusal) => {
            work.sql.exec("ROLLBACK TO op", &[])?;
            work.used = used;
            work.tale.back_to(point);
            match refusal {
                Refusal::Conflict(message) => OpResult::Conflict { message },
                Refusal::Rejected(code, message) => OpResult::Rejected { code, message },
                Refusal::Db(e) => return Err(e),
            }
        }
    };
    work.sql.exec("RELEASE op", &[])?;
    Ok(result)
}

fn dispatch(work: &mut Work<'_>, change: &Change, prepared: &Prepared) -> Result<u64, Refusal> {
    match change {
        Change::Put { node, create: Some(place), base_version, content, attrs, xattrs, .. } => {
            let content = put::Content { bytes: &content.0, prepared };
            put::create(work, *node, place, *base_version, &content, attrs, xattrs)
        }
        Change::Put { node, create: None, base_version, content, attrs, xattrs, .. } => {
            let content = put::Content { bytes: &content.0, prepared };
            put::update(work, *node, *base_version, &content, attrs, xattrs)
        }
        Change::Mkdir { node, place, attrs, xattrs } => {
            create::mkdir(work, *node, place, attrs, xattrs)
        }
        Change::Symlink { node, place, target, attrs, xattrs } => {
            create::symlink(work, *node, place, &target.0, attrs, xattrs)
        }
        Change::Mknod { node, place, kind, rdev, attrs, xattrs } => {
            create::mknod(work, *node, place, *kind, *rdev, attrs, xattrs)
        }
        Change::Link { node, place } => create::link(work, *node, place),
        Change::Move { node, from, to, replace, exchange: true, .. } => {
            relocate::exchange(work, *node, from, to, *replace)
        }
        Change::Move { node, from, to, replace, replaced_version, exchange: false } => {
            let replace = replace.map(|node| relocate::Replaced { node, seen: *replaced_version });
            relocate::relocate(work, *node, from, to, replace)
        }
        Change::Unlink { node, place, version } => remove::unlink(work, *node, place, *version),
        Change::Rmdir { node, place } => remove::rmdir(work, *node, place),
        Change::Setattr { node, attrs } => attrs::setattr(work, *node, attrs),
        Change::Setxattr { node, name, value } => {
            attrs::setxattr(work, *node, name, value.as_ref())
        }
        Change::Restore { node, place } => restore::restore(work, *node, place),
        Change::Revert { node, base_version, version } => {
            put::revert(work, *node, *base_version, *version)
        }
    }
}

/// A commit that changes nothing: those who watch the namespace look, and find an upload under way.
pub(super) fn announce(sql: &mut dyn Sql, ns: NamespaceId, epoch: Epoch) -> Result<(), DriveError> {
    let namespace = namespaces::lock(sql, ns)?.ok_or(DriveError::NoNamespace)?;
    Ok(namespaces::set_seq(sql, ns, namespace.seq + 1, epoch)?)
}

/// A commit by the server itself: shows `target` at a place of the locked namespace `at`.
pub(super) fn mount_in_root(
    sql: &mut dyn Sql,
    at: &Namespace,
    node: NodeId,
    place: &Place,
    target: NamespaceId,
    attrs: &Attrs,
) -> Result<(), Refusal> {
    let seq = at.seq + 1;
    let mut work = Work {
        ns: at.ns,
        owner: at.owner,
        root: at.root,
        emptied: at.emptied_seq,
        seq,
        device: SERVER,
        now: clock::now_ns(),
        file_max: 0,
        quota: 0,
        used: 0,
        tale: Tale::default(),
        sql,
    };
    let at_ns = work.now;
    create::mount(&mut work, node, place, target, attrs)?;
    mounts::insert(work.sql, at.ns, node, target)?;
    let Work { sql, tale, .. } = work;
    // Maybe beside a running server: an epoch of its own.
    namespaces::set_seq(sql, at.ns, seq, epochs::fresh())?;
    tell::record(sql, (at.ns, seq), (at.owner, SERVER), at_ns, tale)?;
    Ok(())
}
