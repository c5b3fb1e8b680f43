//! Long polls: held until a namespace is past the cursor, the time is up, or the server stops.
//!
//! Commits of this process give their hints themselves. For those of others one question tells all
//! who wait which namespaces have moved on.

use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::POLL_NAMESPACES_MAX;
use drivefs_core::limits::POLL_SECS_MAX;
use drivefs_core::wire::Point;
use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollReply;
use drivefs_core::wire::PollRequest;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::Drive;
use super::DriveError;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::epochs;
use crate::metadata::namespaces;

/// Namespaces that are hinted at once.
const MOVED_PAGE: u32 = 1000;

impl Drive {
    pub async fn poll(&self, asker: Asker, request: PollRequest) -> Result<PollReply, DriveError> {
        if request.cursors.len() > POLL_NAMESPACES_MAX {
            return Err(DriveError::BadRequest(format!(
                "a poll watches at most {POLL_NAMESPACES_MAX} namespaces"
            )));
        }
        let held = Duration::from_secs(request.timeout_secs.min(POLL_SECS_MAX));
        let until = Instant::now() + held;
        let waiter = self.hub.register(request.cursors.iter().map(|c| c.ns).collect());
        loop {
            let changed = self.moved_on(&asker, request.cursors.clone()).await?;
            if !changed.is_empty() {
                return Ok(PollReply { changed, backoff_secs: None });
            }
            let hinted = timeout_at(until, waiter.hinted()).await;
            if !matches!(hinted, Ok(true)) {
                return Ok(PollReply { changed, backoff_secs: None });
            }
        }
    }

    /// How far the database has moved on: to be asked before anybody waits.
    pub async fn moved(&self) -> Result<u64, DriveError> {
        Ok(self.store.read(namespaces::moved).await?)
    }

    /// Wakes who waits for a namespace that has moved on since `mark`; answers the mark of now.
    pub async fn hint_moved(&self, mut mark: u64) -> Result<u64, DriveError> {
        loop {
            let moved =
                self.store.read(move |sql| namespaces::moved_since(sql, mark, MOVED_PAGE)).await?;
            for (ns, at) in &moved {
                self.hub.hint(*ns);
                mark = *at;
            }
            if moved.len() < MOVED_PAGE as usize {
                return Ok(mark);
            }
        }
    }

    async fn moved_on(
        &self,
        asker: &Asker,
        cursors: Vec<PollCursor>,
    ) -> Result<Vec<NamespaceId>, DriveError> {
        let user = asker.user;
        self.store
            .read(move |sql| {
                let mut changed = Vec::new();
                for cursor in cursors {
                    // Also a cursor that is not of this history: `changes` tells the client to
                    // start again.
                    let head = member_of(sql, cursor.ns, user)?.namespace.seq;
                    let point = Point { epoch: cursor.epoch, seq: cursor.seq };
                    if head != cursor.seq || !epochs::holds(sql, cursor.ns, head, &point)? {
                        changed.push(cursor.ns);
                    }
                }
                Ok(changed)
            })
            .await
    }
}
