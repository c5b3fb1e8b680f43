//! Choosing the files whose content is to be sent, and the jobs that freeze and upload them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::node::NodeKind;

use super::engine::Engine;
use super::engine::Report;
use super::upload::Item;
use super::upload::UploadError;
use super::upload::Uploaded;
use super::upload::upload;
use crate::host;
use crate::remote::Remote;
use crate::spool::SpoolError;
use crate::state::Nid;
use crate::tree::PendingNode;
use crate::tree::Tree;

/// Files up to this size share jobs (bytes).
const SMALL_BYTES: u64 = 1024 * 1024;
/// Bytes and files of one job of small files.
const JOB_BYTES: u64 = 8 * 1024 * 1024;
const JOB_FILES: usize = 512;
/// Jobs at once: of small files, of one large file each. Neither kind waits for the other.
const SMALL_JOBS: usize = 2;
const LARGE_JOBS: usize = 2;
/// A closed file is left alone this long after its last write, so that a rename right after it
/// (how editors save) still finds it unsent. Large files take longer to send anyway.
const QUIET_SMALL: Duration = Duration::from_millis(15);
const QUIET_LARGE: Duration = Duration::from_millis(250);
/// A file that stays open for writing is sent when it has been quiet this long...
const QUIET_OPEN: Duration = Duration::from_secs(3);
/// ...or when it was last sent this long ago.
const OPEN_AT_MOST: Duration = Duration::from_secs(30);

/// Whether a file's content can be taken now.
enum Turn {
    Now,
    In(Duration),
}

impl Engine {
    /// Starts jobs for content that waits. Returns when to look again.
    pub(super) fn prepare(&mut self, ns: NamespaceId, nodes: &[PendingNode]) -> Duration {
        let mut again = Duration::MAX;
        let mut small: Vec<(NodeId, Nid)> = Vec::new();
        let mut small_bytes = 0;
        for node in nodes.iter().filter(|n| n.local.kind == NodeKind::File) {
            let id = node.base.id;
            let busy = self.busy.contains(&id) || self.busy_nids.contains(&node.local.nid);
            if busy || !self.waits_for_upload(node) {
                continue;
            }
            if let Some(&until) = self.refused.get(&id) {
                let left = until.saturating_duration_since(host::instant());
                if !left.is_zero() {
                    again = again.min(left);
                    continue;
                }
            }
            let size =
                self.tree.spool().loaded(node.local.nid).map_or(node.local.size, |c| c.size());
            if size > self.tree.spool().file_max() {
                let max = self.tree.spool().file_max();
                self.refuse(id, &format!("larger than the server takes ({max} bytes)"));
                continue;
            }
            if let Turn::In(wait) = self.turn(node, size) {
                again = again.min(wait);
                continue;
            }
            if size > SMALL_BYTES {
                if self.jobs.1 < LARGE_JOBS {
                    self.start_job(ns, vec![(id, node.local.nid)], false);
                }
                continue;
            }
            if self.jobs.0 >= SMALL_JOBS {
                continue;
            }
            small.push((id, node.local.nid));
            small_bytes += size;
            if small.len() >= JOB_FILES || small_bytes >= JOB_BYTES {
                self.start_job(ns, std::mem::take(&mut small), true);
                small_bytes = 0;
            }
        }
        if !small.is_empty() {
            self.start_job(ns, small, true);
        }
        again
    }

    /// True when content is ahead that is not on the server.
    fn waits_for_upload(&self, node: &PendingNode) -> bool {
        if node.local.live.is_some() || node.local.frozen.is_some() {
            // What was frozen before goes first.
            return !self.has_uploaded(node);
        }
        node.local.content != node.base.content && !self.has_uploaded(node)
    }

    /// True when the content under the layers is on the server and waits for its commit.
    pub(super) fn has_uploaded(&self, node: &PendingNode) -> bool {
        if node.local.content == node.base.content {
            return false;
        }
        // What moved here from another namespace has its blocks linked on the server.
        if node.local.source.is_some() && !self.unlinkable.contains(&node.base.id) {
            return node.local.content.is_some();
        }
        let uploaded = self.uploaded.get(&node.base.id);
        uploaded.is_some_and(|u| node.local.content.as_ref() == Some(&u.content))
    }

    fn turn(&self, node: &PendingNode, size: u64) -> Turn {
        if node.base.since < self.shared.force.load(Ordering::Acquire) {
            return Turn::Now;
        }
        let age = Duration::from_nanos((crate::journal::now() - node.base.at).max(0) as u64);
        let written = self.tree.spool().quiet(node.local.nid);
        let quiet = written.unwrap_or(age);
        let content = self.tree.spool().loaded(node.local.nid);
        if content.is_some_and(|c| c.has_writers()) {
            let last = self.last_freeze.get(&node.base.id).map_or(age, |at| host::since(*at));
            let wait = QUIET_OPEN.saturating_sub(quiet).min(OPEN_AT_MOST.saturating_sub(last));
            // Opened for writing and not written: wait for the first byte, or the close.
            let untouched = written.is_none() && size == 0;
            return if wait.is_zero() && !untouched { Turn::Now } else { Turn::In(QUIET_OPEN) };
        }
        let needed = if size > SMALL_BYTES { QUIET_LARGE } else { QUIET_SMALL };
        match needed.saturating_sub(quiet) {
            Duration::ZERO => Turn::Now,
            wait => Turn::In(wait),
        }
    }

    fn start_job(&mut self, ns: NamespaceId, files: Vec<(NodeId, Nid)>, small: bool) {
        let nodes: Vec<NodeId> = files.iter().map(|f| f.0).collect();
        let nids: Vec<Nid> = files.iter().map(|f| f.1).collect();
        self.busy_nids.extend(&nids);
        for node in &nodes {
            self.busy.insert(*node);
            self.refused.remove(node);
            self.last_freeze.insert(*node, host::instant());
        }
        if small {
            self.jobs.0 += 1;
        } else {
            self.jobs.1 += 1;
        }
        let (remote, tree, reports) =
            (self.remote.clone(), self.tree.clone(), self.reports.clone());
        tokio::spawn(async move {
            let (result, failed) = run_job(&remote, &tree, ns, files).await;
            // The engine is gone only when the daemon ends.
            let _ = reports.send(Report { nodes, nids, small, result, failed });
        });
    }
}

type JobResult = (Result<Vec<Uploaded>, UploadError>, Vec<(NodeId, String)>);

async fn run_job(
    remote: &Remote,
    tree: &Arc<Tree>,
    ns: NamespaceId,
    files: Vec<(NodeId, Nid)>,
) -> JobResult {
    let (began, count) = (host::instant(), files.len());
    let tree2 = tree.clone();
    let frozen = host::blocking(move || freeze(&tree2, &files)).await;
    let (items, failed) = match frozen {
        Ok(both) => both,
        Err(e) => return (Err(e.into()), Vec::new()),
    };
    let frozen_in = host::since(began);
    let uploaded = upload(remote, tree.spool(), tree.db(), ns, items).await;
    tracing::debug!(files = count, ?frozen_in, sent_in = ?host::since(began) - frozen_in, "job");
    (uploaded, failed)
}

type Frozen = (Vec<Item>, Vec<(NodeId, String)>);

/// Freezes files and collects those whose content differs from the agreed one. Blocking.
fn freeze(tree: &Arc<Tree>, files: &[(NodeId, Nid)]) -> Result<Frozen, SpoolError> {
    let spool = tree.spool();
    let mut contents = Vec::new();
    let position = tree.journal().position();
    let mut behind = HashSet::new();
    for (_, nid) in files {
        match spool.content(*nid) {
            Ok(content) => {
                if content.has_frozen() {
                    behind.insert(*nid);
                }
                contents.push(content);
            }
            Err(SpoolError::Gone) => {} // Deleted meanwhile.
            Err(e) => return Err(e),
        }
    }
    let mut failed = Vec::new();
    for (content, error) in spool.freeze(&contents)? {
        match error {
            SpoolError::Gone => {}
            error => {
                let id = files.iter().find(|f| f.1 == content.nid).map(|f| f.0);
                failed.extend(id.map(|id| (id, error.to_string())));
            }
        }
    }
    // What was deleted meanwhile goes when nobody has it in use, this job included.
    drop(contents);
    for (_, nid) in files {
        if spool.loaded(*nid).is_none() {
            spool.forget(*nid);
            if let Err(error) = tree.drop_orphan(*nid) {
                tracing::warn!(%error, "could not drop a deleted file");
            }
        }
    }
    let items = tree.db().read(|c| {
        let mut items = Vec::new();
        for (id, nid) in files {
            let (Some(node), Some(base)) = (c.node(*nid)?, c.base_node(id)?) else { continue };
            let content = node.content.filter(|content| Some(content) != base.content.as_ref());
            let source = node.source.map(|s| s.0);
            let complete_to = (!behind.contains(nid)).then_some(position);
            items.extend(content.map(|content| Item {
                node: *id,
                content,
                agreed: base.content,
                source,
                complete_to,
            }));
        }
        Ok::<_, crate::state::DbError>(items)
    })?;
    Ok((items, failed))
}
