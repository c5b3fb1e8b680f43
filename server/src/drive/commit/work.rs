//! What all ops of one commit share, and how an op says no.

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::Seq;
use drivefs_core::id::UserId;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::EventKind;
use drivefs_core::wire::Place;

use super::tell::Happened;
use super::tell::Tale;
use crate::metadata::DbError;
use crate::metadata::Sql;
use crate::metadata::entries;
use crate::metadata::nodes;
use crate::metadata::nodes::Deletion;
use crate::metadata::nodes::NodeState;
use crate::metadata::versions;

/// One commit under way.
pub struct Work<'a> {
    pub sql: &'a mut dyn Sql,
    pub ns: NamespaceId,
    pub owner: UserId,
    pub root: NodeId,
    /// What was deleted up to here is out of the trash.
    pub emptied: Seq,
    /// Stamped on every row that the commit touches.
    pub seq: Seq,
    /// Name of the device that commits.
    pub device: &'a str,
    /// Every op of a commit has a time of its own: the order of deletions is known.
    pub now: TimeNs,
    pub file_max: u64,
    pub quota: u64,
    /// Used bytes of the owner, as they are after the ops so far.
    pub used: i64,
    /// What the ops so far did, to be told.
    pub tale: Tale,
}

/// Why an op was not done.
#[derive(Debug)]
pub enum Refusal {
    /// A precondition does not hold (any more).
    Conflict(String),
    /// It can never succeed as it is.
    Rejected(ErrorCode, String),
    Db(DbError),
}

impl From<DbError> for Refusal {
    fn from(e: DbError) -> Self {
        Self::Db(e)
    }
}

pub fn conflict<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Conflict(message.into()))
}

pub fn bad_request<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Rejected(ErrorCode::BadRequest, message.into()))
}

impl Work<'_> {
    /// A node that must be there and live.
    pub fn live(&mut self, node: NodeId) -> Result<NodeState, Refusal> {
        match nodes::state(self.sql, self.ns, node)? {
            Some(state) if !state.deleted => Ok(state),
            Some(_) => conflict(format!("node {node} is deleted")),
            None => conflict(format!("node {node} is not known here")),
        }
    }

    /// The node id of something new must never have been used.
    pub fn unused(&mut self, node: NodeId) -> Result<(), Refusal> {
        match nodes::state(self.sql, self.ns, node)? {
            None => Ok(()),
            Some(_) => conflict(format!("node {node} exists already")),
        }
    }

    /// A live directory that can hold entries.
    pub fn directory(&mut self, node: NodeId) -> Result<(), Refusal> {
        match self.live(node)?.kind {
            NodeKind::Dir => Ok(()),
            _ => conflict(format!("node {node} is not a directory of this namespace")),
        }
    }

    /// A place in a live directory where nothing is.
    pub fn free(&mut self, place: &Place) -> Result<(), Refusal> {
        self.directory(place.parent)?;
        match entries::child(self.sql, self.ns, place)? {
            None => Ok(()),
            Some(node) => conflict(format!("{:?} is taken by node {node}", place.name)),
        }
    }

    /// The place must name the node.
    pub fn names(&mut self, place: &Place, node: NodeId) -> Result<(), Refusal> {
        match entries::child(self.sql, self.ns, place)? {
            Some(child) if child == node => Ok(()),
            Some(child) => conflict(format!("{:?} names node {child} now", place.name)),
            None => conflict(format!("{:?} names nothing any more", place.name)),
        }
    }

    /// Sets an entry and stamps the node it names. Every change of an entry stamps the node too:
    /// so a node's seq is never below that of a name it has.
    pub fn name(&mut self, place: &Place, node: NodeId) -> Result<(), Refusal> {
        entries::set(self.sql, self.ns, place, Some(node), self.seq)?;
        nodes::stamp(self.sql, self.ns, node, self.seq)?;
        Ok(())
    }

    /// Takes a name from a node; one that has no other becomes deleted.
    pub fn unname(&mut self, place: &Place, node: NodeId, state: NodeState) -> Result<(), Refusal> {
        entries::set(self.sql, self.ns, place, None, self.seq)?;
        let lost_name = |kind| Happened {
            from: Some(place),
            before: state.version,
            after: state.version,
            ..Happened::new(kind, node, state.kind)
        };
        if entries::is_named(self.sql, self.ns, node)? {
            nodes::stamp(self.sql, self.ns, node, self.seq)?;
            self.tell(lost_name(EventKind::Unlinked))?;
            return Ok(());
        }
        self.tell(lost_name(EventKind::Deleted))?;
        self.count_loss(node, state.version, true)?;
        let how = Deletion { last: place, at: self.now, by: self.device };
        nodes::set_deleted(self.sql, self.ns, node, &how, self.seq)?;
        let size = versions::size(self.sql, self.ns, node, state.version)?;
        self.used -= i64::try_from(size).unwrap_or(i64::MAX);
        Ok(())
    }

    /// Counts a file that changes from `old` to `new` bytes; growth must fit the quota.
    pub fn count(&mut self, old: u64, new: u64) -> Result<(), Refusal> {
        let delta = signed(new) - signed(old);
        if delta > 0 && self.used.saturating_add(delta) > signed(self.quota) {
            return Err(Refusal::Rejected(
                ErrorCode::QuotaExceeded,
                format!(
                    "the quota is used up: {delta} more bytes do not fit, {} of {} are used",
                    self.used, self.quota
                ),
            ));
        }
        self.used += delta;
        Ok(())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
