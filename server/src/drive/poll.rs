//! Long polls: held until a namespace is past the cursor, the time is up, or the server stops.

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
