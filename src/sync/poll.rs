//! The long poll: hears that something changed, and says so to the engine.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NamespaceId;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollRequest;

use super::backoff::Backoff;
use super::engine::LOCKED_OUT_WAIT;
use super::engine::Shared;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::tree::Tree;
use crate::tree::TreeError;

/// How often to look whether there is a good token.
const TOKEN_LOOK: Duration = Duration::from_secs(1);
/// How long a namespace that the server does not know is left out.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// How long the server may hold one poll (seconds).
const HOLD_SECS: u64 = 50;

pub(super) async fn run(remote: Remote, tree: Arc<Tree>, shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut failed = false;
    let mut unknown = Unknown::default();
    loop {
        match poll_once(&remote, &tree, &mut unknown).await {
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
                failed = true;
                match error {
                    // The engine tells, and is told when there is a new token.
                    PollError::Remote(RemoteError::Unauthorized(_)) => {
                        wait_for_token(&remote).await;
                    }
                    PollError::Remote(RemoteError::Offline(_)) => {
                        tokio::time::sleep(backoff.wait()).await;
                    }
                    error => {
                        tracing::warn!(%error, "long poll failed");
                        tokio::time::sleep(backoff.wait()).await;
                    }
                }
            }
        }
    }
}

/// Returns when the server has taken a token again, or after a while.
async fn wait_for_token(remote: &Remote) {
    let until = Instant::now() + LOCKED_OUT_WAIT;
    while remote.link().is_locked_out() && Instant::now() < until {
        tokio::time::sleep(TOKEN_LOOK).await;
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
        if tokio::time::timeout(Duration::from_secs(30), round).await.is_err() {
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

/// Namespaces that the server does not know, or not as ours: a shared folder that is ours no more, or
/// that a restored backup lacks. They do not keep the others from being watched.
#[derive(Default)]
struct Unknown {
    namespaces: HashSet<NamespaceId>,
    since: Option<Instant>,
}

impl Unknown {
    fn has(&self, cursor: &PollCursor) -> bool {
        self.namespaces.contains(&cursor.ns)
    }

    /// After a while they are asked for again.
    fn forget_old(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() > UNKNOWN_FOR) {
            *self = Self::default();
        }
    }

    /// Asks for each alone. Fails with what is wrong with the server, not with one of them.
    async fn look(&mut self, remote: &Remote, all: &[PollCursor]) -> Result<(), PollError> {
        for cursor in all {
            let request = PollRequest { cursors: vec![cursor.clone()], timeout_secs: 0 };
            match remote.poll(&request).await {
                Err(e) if is_unknown(&e) => {
                    self.namespaces.insert(cursor.ns);
                }
                other => {
                    other?;
                }
            }
        }
        self.since = Some(Instant::now());
        Ok(())
    }
}

fn is_unknown(e: &RemoteError) -> bool {
    matches!(e.code(), Some(ErrorCode::NotFound | ErrorCode::Forbidden))
}

async fn poll_once(remote: &Remote, tree: &Tree, unknown: &mut Unknown) -> Result<bool, PollError> {
    unknown.forget_old();
    let mut cursors = tree.db().peek(|c| {
        let mut cursors = Vec::new();
        for space in c.namespaces()? {
            let at = c.point(&space)?;
            cursors.push(PollCursor { ns: space.ns, seq: at.seq, epoch: at.epoch });
        }
        Ok::<_, TreeError>(cursors)
    })?;
    cursors.retain(|cursor| !unknown.has(cursor));
    let request = PollRequest { cursors, timeout_secs: HOLD_SECS };
    let reply = match remote.poll(&request).await {
        Err(e) if is_unknown(&e) && unknown.namespaces.is_empty() => {
            unknown.look(remote, &request.cursors).await?;
            // What is watched from now on may have changed already.
            return Ok(true);
        }
        answer => answer?,
    };
    if let Some(secs) = reply.backoff_secs {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
    Ok(!reply.changed.is_empty())
}
