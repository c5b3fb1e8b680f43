//! What happened in a namespace, told to its members.

use std::collections::HashMap;

use drivefs_core::id::UserId;
use drivefs_core::limits::EVENTS_MAX;
use drivefs_core::wire::CommitEvents;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::EventsReply;
use drivefs_core::wire::EventsRequest;
use drivefs_core::wire::Span;

use super::Drive;
use super::DriveError;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::accounts;
use crate::metadata::events;
use crate::metadata::events::StoredEvents;

/// Rows read at once.
const CHUNK: u32 = 100;
/// Rows looked at for one answer: a filter may let few of them through.
const ROWS_MAX: usize = 5_000;

impl Drive {
    pub async fn events(
        &self,
        asker: Asker,
        request: EventsRequest,
    ) -> Result<EventsReply, DriveError> {
        self.store
            .read(move |sql| {
                let space = member_of(sql, request.ns, asker.user)?.namespace;
                let (commits, next) = page(sql, &request)?;
                Ok(EventsReply {
                    commits,
                    next,
                    seq: space.seq,
                    begins: events::begins(sql, space.ns)?,
                    emptied: space.emptied_seq,
                    root: space.root,
                })
            })
            .await
    }
}

/// As many commits as the limit allows, and where it goes on.
fn page(
    sql: &mut dyn Sql,
    request: &EventsRequest,
) -> Result<(Vec<CommitEvents>, Option<Span>), DriveError> {
    let limit = request.limit.clamp(1, EVENTS_MAX) as usize;
    let mut emails = HashMap::new();
    let mut commits = Vec::new();
    let (mut told, mut rows, mut span) = (0, 0, request.span);
    loop {
        let chunk = events::page(sql, request.ns, span, request.notable, CHUNK)?;
        let last = chunk.len() < CHUNK as usize;
        for (i, stored) in (1..).zip(&chunk) {
            rows += 1;
            span = match span {
                Span::After(_) | Span::Since(_) => Span::After(stored.seq),
                Span::Before(_) | Span::Newest => Span::Before(stored.seq),
            };
            if let Some(commit) = commit_of(sql, request, stored, &mut emails)? {
                told += commit.told.events.len();
                commits.push(commit);
            }
            if told >= limit || rows >= ROWS_MAX {
                let end = last && i == chunk.len();
                return Ok((commits, (!end).then_some(span)));
            }
        }
        if last {
            return Ok((commits, None));
        }
    }
}

fn commit_of(
    sql: &mut dyn Sql,
    request: &EventsRequest,
    stored: &StoredEvents,
    emails: &mut HashMap<UserId, String>,
) -> Result<Option<CommitEvents>, DriveError> {
    let mut told = stored.told.clone();
    if let Some(node) = request.of {
        let about: Vec<_> =
            stored.told.events.iter().filter(|e| told.is_about(e, node)).cloned().collect();
        told.events = about;
    }
    if request.notable {
        told.events.retain(|e| e.kind == EventKind::Conflict);
    }
    let mass = request.notable && told.mass.is_some();
    if told.events.is_empty() && !mass {
        return Ok(None);
    }
    let user = match emails.get(&stored.user) {
        Some(email) => email.clone(),
        None => {
            let email = accounts::by_id(sql, stored.user)?.map(|u| u.email).unwrap_or_default();
            emails.insert(stored.user, email.clone());
            email
        }
    };
    let device = stored.device.clone();
    Ok(Some(CommitEvents { seq: stored.seq, time: stored.at, user, device, told }))
}
