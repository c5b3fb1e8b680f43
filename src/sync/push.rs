//! Planning what is ready and committing it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::limits::COMMIT_OPS_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Point;

use super::SyncError;
use super::engine::Engine;
use super::plan::plan;
use crate::host;
use crate::journal::now;
use crate::remote::RemoteError;
use crate::tree::PendingNode;
use crate::tree::SentOp;
use crate::tree::Unanswered;
use crate::tree::new_id;

/// Intents looked at in one round.
const BATCH: usize = 2500;
/// How soon to look again whether what moves into another namespace has arrived there.
const LEAVING_WAIT: Duration = Duration::from_millis(100);
/// The time of a folder is sent when nothing was changed in it for this long.
const QUIET_FOLDER: Duration = Duration::from_millis(200);
/// Conflicts in a row before the engine slows down.
const CONFLICTS_PATIENT: u32 = 20;

impl Engine {
    /// Sends what is ahead in one namespace as far as it is ready. Returns when to look again.
    pub(super) async fn push(&mut self, ns: NamespaceId) -> Result<Duration, SyncError> {
        let mut batch = BATCH;
        loop {
            let began = host::instant();
            // Names and attributes that are still ahead after the commit changed after this.
            let planned = self.tree.journal().position();
            let tree = self.tree.clone();
            let (nodes, dirents) = host::blocking(move || tree.pending(ns, batch)).await?;
            if nodes.is_empty() && dirents.is_empty() {
                return Ok(Duration::MAX);
            }
            let root = self.tree.root_id(ns)?;
            let leaving = self.tree.moving_out(ns)?;
            let mut again = self.prepare(ns, &nodes);
            if !leaving.is_empty() {
                again = again.min(LEAVING_WAIT);
            }
            let mut changes = plan(root, &leaving, &nodes, &dirents, |n| self.is_ready(n));
            tracing::debug!(
                nodes = nodes.len(),
                names = dirents.len(),
                ops = changes.len(),
                busy = self.busy.len(),
                uploaded = self.uploaded.len(),
                ?again,
                took = ?host::since(began),
                "planned"
            );
            let full = nodes.len() >= batch || dirents.len() >= batch;
            if changes.is_empty() && full && self.busy.is_empty() {
                // All of these are refused or held, and no upload will change that: what comes
                // behind them shall not wait.
                batch *= 4;
                continue;
            }
            if changes.is_empty() {
                self.tree.settle_all(ns, BATCH)?;
                return Ok(again.min(self.next_refused()));
            }
            if let Some(wait) = self.hold_back_times(&nodes, &mut changes) {
                again = again.min(wait);
            }
            if changes.is_empty() {
                return Ok(again.min(self.next_refused()));
            }
            changes.truncate(COMMIT_OPS_MAX);
            let ops = changes.len();
            let progress = self.commit(ns, changes, planned).await?;
            self.committed += ops;
            if !progress {
                return Ok(again.min(self.next_refused()));
            }
            if ops < COMMIT_OPS_MAX {
                // All that was ready is done. What it made ready comes in the next round: together
                // with what is changed meanwhile, not one by one.
                return Ok(Duration::ZERO);
            }
        }
    }

    /// Takes out the times of folders in which something changed a moment ago: they will change
    /// again. Returns how long they may wait.
    fn hold_back_times(
        &self,
        nodes: &[PendingNode],
        changes: &mut Vec<Change>,
    ) -> Option<Duration> {
        let forced = self.shared.force.load(Ordering::Acquire);
        let now = now();
        let hot: HashMap<NodeId, Duration> = nodes
            .iter()
            .filter(|n| n.local.kind == NodeKind::Dir && n.base.since >= forced)
            .filter_map(|n| {
                // A time to come says nothing: the clock was set back, or a program set it.
                let quiet = u64::try_from(now.saturating_sub(n.local.ctime)).ok()?;
                let quiet = Duration::from_nanos(quiet);
                QUIET_FOLDER.checked_sub(quiet).map(|wait| (n.base.id, wait))
            })
            .collect();
        let mut wait = None;
        changes.retain(|change| match change {
            Change::Setattr { node, .. } => match hot.get(node) {
                Some(&left) => {
                    wait = Some(wait.map_or(left, |w: Duration| w.min(left)));
                    false
                }
                None => true,
            },
            _ => true,
        });
        wait
    }

    fn is_ready(&self, node: &PendingNode) -> bool {
        if self.refused.get(&node.base.id).is_some_and(|until| *until > host::instant()) {
            return false;
        }
        if node.local.kind != NodeKind::File {
            return true;
        }
        let has_layers = node.local.live.is_some() || node.local.frozen.is_some();
        if node.local.content == node.base.content && node.base.agreed.is_some() {
            return !has_layers;
        }
        self.has_uploaded(node)
    }

    fn next_refused(&self) -> Duration {
        let now = host::instant();
        self.refused
            .values()
            .map(|until| until.saturating_duration_since(now))
            .min()
            .map_or(Duration::MAX, |wait| wait.max(Duration::from_millis(50)))
    }

    /// Commits changes. True when something was done.
    async fn commit(
        &mut self,
        ns: NamespaceId,
        changes: Vec<Change>,
        planned: u64,
    ) -> Result<bool, SyncError> {
        let (mut blocks, mut complete_to) = (Vec::new(), Vec::new());
        for change in &changes {
            let (held, to) = match change {
                Change::Put { node, .. } => match self.uploaded.get(node) {
                    Some(u) => (u.blocks.clone(), u.complete_to),
                    None => (Vec::new(), None),
                },
                _ => (Vec::new(), Some(planned)),
            };
            blocks.push(held);
            complete_to.push(to);
        }
        let ops = changes.into_iter().map(|change| Op { key: OpKey(new_id().0), change }).collect();
        let at = self.tree.point(ns)?;
        let request = CommitRequest { ns, at: Some(at), ops, rewinds: None };
        let commit = Unanswered { request, blocks, complete_to };
        let tree = self.tree.clone();
        let commit = host::blocking(move || tree.note_unanswered(&commit).map(|()| commit)).await?;
        self.ask(commit, false).await
    }

    /// Asks again what became of commits whose answer was lost. Before that is known nothing of
    /// their namespaces is pulled or planned.
    pub(super) async fn ask_again(&mut self) -> Result<(), SyncError> {
        if self.unanswered.is_none() {
            let earlier = self.tree.unanswered()?.into_iter();
            self.unanswered = Some(earlier.map(|commit| (commit.request.ns, commit)).collect());
        }
        while let Some(commit) = self.take_unanswered() {
            let ns = commit.request.ns;
            tracing::debug!(%ns, ops = commit.request.ops.len(), "asking for an answer again");
            match self.ask(commit, true).await {
                Ok(_) => {}
                // It is forgotten by now: what the server has decides.
                Err(e) if self.is_answered(ns) => {
                    tracing::info!(%ns, error = %e, "no answer to an earlier commit");
                }
                Err(e) => return Err(e),
            }
            self.shared.want_pull();
        }
        Ok(())
    }

    fn take_unanswered(&mut self) -> Option<Unanswered> {
        let commits = self.unanswered.as_mut()?;
        let ns = *commits.keys().next()?;
        commits.remove(&ns)
    }

    fn is_answered(&self, ns: NamespaceId) -> bool {
        self.unanswered.as_ref().is_some_and(|commits| !commits.contains_key(&ns))
    }

    /// Sends a commit, `again` if it may have arrived before, and takes the answer in. True when
    /// something was done.
    async fn ask(&mut self, commit: Unanswered, again: bool) -> Result<bool, SyncError> {
        let began = host::instant();
        let ns = commit.request.ns;
        let reply = match self.remote.commit(&commit.request).await {
            Ok(reply) => reply,
            Err(e) => {
                // It may have been done all the same.
                self.shared.want_pull();
                if may_answer_later(&e, again) {
                    self.unanswered.get_or_insert_default().insert(ns, commit);
                } else if let Err(e) = self.tree.forget_unanswered(ns) {
                    // Its note is still there: it must not come up after what is pulled now.
                    self.unanswered = None;
                    return Err(e.into());
                }
                return Err(e.into());
            }
        };
        let mut sent = Vec::new();
        let mut conflict = false;
        let Unanswered { request, blocks, complete_to } = commit;
        let mut complete_to = complete_to.into_iter();
        for ((op, blocks), result) in request.ops.into_iter().zip(blocks).zip(reply.results) {
            let complete_to = complete_to.next().flatten();
            let node = op.change.node();
            match result {
                OpResult::Done { seq, version } => {
                    self.refused.remove(&node);
                    self.unlinkable.remove(&node);
                    self.last_freeze.remove(&node);
                    if let Change::Put { content, .. } = &op.change
                        && self.uploaded.get(&node).is_some_and(|u| u.content == content.0)
                    {
                        self.uploaded.remove(&node);
                    }
                    sent.push(SentOp { change: op.change, seq, version, blocks, complete_to });
                }
                OpResult::Conflict { message } => {
                    tracing::info!(%node, message, "the server has moved on");
                    conflict = true;
                }
                OpResult::Rejected { code, message } => {
                    tracing::warn!(%node, ?code, message, "the server refused a change");
                    if code == ErrorCode::MissingBlocks {
                        // They have to be sent (again), whatever was believed.
                        self.uploaded.remove(&node);
                        if !self.unlinkable.insert(node) {
                            self.refuse(node, &message);
                        }
                    } else {
                        self.refuse(node, &message);
                    }
                }
            }
        }
        let progress = !sent.is_empty();
        let committed_in = host::since(began);
        if progress {
            self.conflicts = 0;
        }
        let at = Point { epoch: reply.epoch, seq: reply.seq };
        let tree = self.tree.clone();
        if let Err(e) = host::blocking(move || tree.sent(ns, &sent, at)).await {
            // Its note is still there: the answer is asked for again.
            self.unanswered = None;
            return Err(e.into());
        }
        tracing::debug!(?committed_in, noted_in = ?host::since(began) - committed_in, "committed");
        if conflict {
            self.conflicts += 1;
            self.shared.want_pull();
            if self.conflicts > CONFLICTS_PATIENT {
                // Something is wrong that pulling does not mend: do not spin.
                host::sleep(Duration::from_secs(1)).await;
            }
            return Ok(false);
        }
        Ok(progress)
    }
}

/// True when the same commit, sent again, may be answered. What the server cannot do is not asked
/// for ever: the pulls wait.
fn may_answer_later(e: &RemoteError, again: bool) -> bool {
    match e {
        RemoteError::Offline(_) | RemoteError::Unauthorized(_) => true,
        RemoteError::Refused { code, .. } => match code {
            ErrorCode::Unavailable | ErrorCode::BeingRestored | ErrorCode::TooManyRequests => true,
            // Nothing was done now. What was done the first time, it says when it has room.
            ErrorCode::StorageFull => again,
            _ => false,
        },
        RemoteError::Protocol(_) => false,
    }
}
