//! What had its last place in a folder: names that are found in its past alone.

use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::GoneReply;
use drivefs_core::wire::GoneRequest;

use super::Drive;
use super::DriveError;
use super::history::visible;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::trash;

impl Drive {
    pub async fn gone(&self, asker: Asker, request: GoneRequest) -> Result<GoneReply, DriveError> {
        let limit = request.limit.clamp(1, TRASH_ROWS_MAX);
        self.store
            .read(move |sql| {
                let space = member_of(sql, request.ns, asker.user)?.namespace;
                let folder = visible(sql, &space, Some(request.folder))?;
                if folder.kind != NodeKind::Dir {
                    return Err(DriveError::BadRequest("that is not a folder".into()));
                }
                let (name, after) = (request.name.as_ref(), request.after.as_ref());
                let from = (space.ns, space.emptied_seq);
                let mut entries = trash::gone_from(sql, from, request.folder, name, after, limit)?;
                if name.is_some() {
                    return Ok(GoneReply { entries, next: None });
                }
                // More of the last name come before the next one, and are of no interest here.
                let next = entries.last().filter(|_| entries.len() >= limit as usize);
                let next = next.map(|e| e.name.clone());
                entries.dedup_by(|later, first| later.name == first.name);
                Ok(GoneReply { entries, next })
            })
            .await
    }
}
