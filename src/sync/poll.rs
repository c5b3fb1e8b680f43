//! The long poll: hears that something changed, and says so to the engine.

use std::sync::Arc;

use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollRequest;

use super::backoff::Backoff;
use super::engine::Shared;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::tree::Tree;
use crate::tree::TreeError;

/// How long the server may hold one poll (seconds).
const HOLD_SECS: u64 = 50;

pub(super) async fn run(remote: Remote, tree: Arc<Tree>, shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut failed = false;
    loop {
        match poll_once(&remote, &tree).await {
            Ok(changed) => {
                backoff.reset();
                // After a failure something may have happened meanwhile.
                if changed || failed {
                    let number = shared.want_pull();
                    wait_for_pull(&shared, number).await;
                }
                failed = false;
            }
            Err(error) => {
                if !matches!(error, PollError::Remote(RemoteError::Offline(_))) {
                    tracing::warn!(%error, "long poll failed");
                }
                failed = true;
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

/// The next poll must not start with the old cursors, or it would return at once.
async fn wait_for_pull(shared: &Shared, number: u64) {
    use std::sync::atomic::Ordering;
    loop {
        let round = shared.rounds.notified();
        if shared.pulls_done.load(Ordering::Acquire) >= number {
            return;
        }
        if tokio::time::timeout(std::time::Duration::from_secs(30), round).await.is_err() {
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

async fn poll_once(remote: &Remote, tree: &Tree) -> Result<bool, PollError> {
    let spaces = tree.db().peek(|c| c.namespaces()).map_err(TreeError::from)?;
    let cursors: Vec<PollCursor> =
        spaces.iter().map(|s| PollCursor { ns: s.ns, seq: s.cursor }).collect();
    let reply = remote.poll(&PollRequest { cursors, timeout_secs: HOLD_SECS }).await?;
    if let Some(secs) = reply.backoff_secs {
        tokio::time::sleep(std::time::Duration::from_secs(secs)).await;
    }
    Ok(!reply.changed.is_empty())
}
