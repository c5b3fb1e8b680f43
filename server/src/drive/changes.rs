//! Reading the tree: changes behind a cursor, one directory, and which blocks are missing.

use std::collections::HashSet;

use drivefs_core::limits::CHANGES_ROWS_MAX;
use drivefs_core::limits::HASHES_MAX;
use drivefs_core::limits::TRAIL_MAX;
use drivefs_core::node::NodeKind;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::ListReply;
use drivefs_core::wire::ListRequest;
use drivefs_core::wire::MissingReply;
use drivefs_core::wire::MissingRequest;
use drivefs_core::wire::Point;

use super::Drive;
use super::DriveError;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::changes;
use crate::metadata::changes::Wanted;
use crate::metadata::entries;
use crate::metadata::epochs;
use crate::metadata::namespaces::Namespace;
use crate::metadata::nodes;

impl Drive {
    pub async fn changes(
        &self,
        asker: Asker,
        request: ChangesRequest,
    ) -> Result<ChangesReply, DriveError> {
        let limit = request.limit.clamp(1, CHANGES_ROWS_MAX);
        if request.trail.len() > TRAIL_MAX {
            return Err(DriveError::BadRequest(format!("a trail has at most {TRAIL_MAX} points")));
        }
        self.store
            .read(move |sql| {
                let membership = member_of(sql, request.ns, asker.user)?;
                let namespace = membership.namespace;
                let cursor = request.cursor;
                check_point(sql, &namespace, &Point { epoch: 0, seq: cursor })?;
                if let Some(known) = request.trail.last().filter(|_| cursor != 0) {
                    check_point(sql, &namespace, known)?;
                }
                if cursor != 0 && cursor.max(request.began) < namespace.pruned_seq {
                    return Err(DriveError::CursorExpired);
                }
                let wanted = Wanted { cursor, limit, tombstones: request.tombstones };
                let page = changes::page(sql, request.ns, namespace.seq, &wanted)?;
                let epoch = epochs::at(sql, request.ns, page.end)?;
                let common = epochs::common(sql, request.ns, namespace.seq, &request.trail)?;
                Ok(ChangesReply {
                    nodes: page.nodes,
                    dirents: page.dirents,
                    cursor: page.end,
                    more: page.end < namespace.seq,
                    root: namespace.root,
                    role: membership.role,
                    epoch,
                    head: namespace.seq,
                    common,
                })
            })
            .await
    }

    pub async fn list(&self, asker: Asker, request: ListRequest) -> Result<ListReply, DriveError> {
        let limit = request.limit.clamp(1, CHANGES_ROWS_MAX);
        self.store
            .read(move |sql| {
                let namespace = member_of(sql, request.ns, asker.user)?.namespace;
                let parent = nodes::state(sql, request.ns, request.parent)?;
                if !parent.is_some_and(|p| p.kind == NodeKind::Dir && !p.deleted) {
                    return Err(DriveError::NotFound("there is no such directory".into()));
                }
                let after = request.after.as_ref();
                let mut dirents = entries::list(sql, request.ns, request.parent, after, limit + 1)?;
                let more = dirents.len() > limit as usize;
                dirents.truncate(limit as usize);
                let mut rows = Vec::with_capacity(dirents.len());
                let mut known = HashSet::new();
                for child in dirents.iter().filter_map(|d| d.child) {
                    if known.insert(child) {
                        rows.extend(nodes::row(sql, request.ns, child)?);
                    }
                }
                Ok(ListReply { nodes: rows, dirents, more, seq: namespace.seq })
            })
            .await
    }

    pub async fn missing(
        &self,
        asker: Asker,
        request: MissingRequest,
    ) -> Result<MissingReply, DriveError> {
        check_count(request.hashes.len())?;
        self.store
            .read(move |sql| {
                let owner = member_of(sql, request.ns, asker.user)?.namespace.owner;
                Ok(MissingReply { missing: blocks::missing(sql, owner, &request.hashes)? })
            })
            .await
    }
}

/// Fails when a point is not part of the namespace's history.
pub(super) fn check_point(
    sql: &mut dyn Sql,
    namespace: &Namespace,
    point: &Point,
) -> Result<(), DriveError> {
    if epochs::holds(sql, namespace.ns, namespace.seq, point)? {
        return Ok(());
    }
    Err(DriveError::CursorLost)
}

/// Holds the limit on hashes in one request.
pub(super) fn check_count(hashes: usize) -> Result<(), DriveError> {
    if hashes > HASHES_MAX {
        return Err(DriveError::BadRequest(format!(
            "a request names at most {HASHES_MAX} blocks, this one {hashes}"
        )));
    }
    Ok(())
}
