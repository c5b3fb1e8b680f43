//! The journal of intents: what the server has to be told.
//!
//! It keeps state, not a log: for each node and entry that differs from the server, what the
//! server has. Create and unlink leave nothing; ten renames leave one. Every note is made in the
//! transaction of the change it stands for, and before the change.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use tokio::sync::Notify;

pub use crate::host::now;
use crate::state::BaseDirent;
use crate::state::BaseNode;
use crate::state::Conn;
use crate::state::Db;
use crate::state::DbError;
use crate::state::Node;
use crate::state::Occupant;

/// Notes intents and wakes who carries them out.
pub struct Journal {
    next: AtomicU64,
    wake: Arc<Notify>,
    /// Times that `wake` was called.
    calls: AtomicU64,
    /// Nodes whose content is being sent right now.
    in_hand: Mutex<HashSet<NodeId>>,
}

impl Journal {
    pub fn open(db: &Db) -> Result<Self, DbError> {
        let last = db.read(|c| c.max_since())?;
        Ok(Self {
            next: AtomicU64::new(last + 1),
            wake: Arc::new(Notify::new()),
            calls: AtomicU64::new(0),
            in_hand: Mutex::default(),
        })
    }

    /// Fires after `wake`.
    pub fn woken(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// There is something to send. Called after the transaction.
    pub fn wake(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Grows with every change made here.
    pub fn activity(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Notes which nodes' contents are being sent.
    pub fn set_in_hand(&self, nodes: HashSet<NodeId>) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// True while the node's content is being sent.
    pub fn is_in_hand(&self, node: &NodeId) -> bool {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// The order number that the next intent will have.
    pub fn position(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// A fresh order number.
    pub fn tick(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes the agreed state of a node that is about to change. Does nothing when it is noted, or
    /// when the node is deleted and only open handles keep it.
    pub fn note_node(&self, c: &Conn<'_>, node: &Node) -> Result<(), DbError> {
        if node.links == 0 || c.is_dirty(&node.id)? {
            return Ok(());
        }
        c.put_base_node(&BaseNode {
            id: node.id,
            ns: node.ns,
            agreed: Some((node.attrs, node.xattrs.clone())),
            content: node.content.clone(),
            version: node.version,
            inflight: Vec::new(),
            since: self.tick(),
            at: now(),
            error: None,
        })
    }

    /// Notes a node that the server does not have.
    pub fn note_new_node(&self, c: &Conn<'_>, id: NodeId, ns: NamespaceId) -> Result<(), DbError> {
        c.put_base_node(&BaseNode {
            id,
            ns,
            agreed: None,
            content: None,
            version: 0,
            inflight: Vec::new(),
            since: self.tick(),
            at: now(),
            error: None,
        })
    }

    /// Notes what the server has at a place that is about to change from `before` to `after`.
    /// A place that changes back to what the server has is no intent any more.
    pub fn note_dirent(
        &self,
        c: &Conn<'_>,
        ns: NamespaceId,
        parent: NodeId,
        name: &[u8],
        before: Option<&Node>,
        after: Option<NodeId>,
    ) -> Result<(), DbError> {
        match c.base_dirent(&parent, name)? {
            Some(base) if base.child.map(|o| o.id) == after => c.delete_base_dirent(&parent, name),
            Some(_) => Ok(()),
            None if before.map(|n| n.id) == after => Ok(()),
            None => c.put_base_dirent(&BaseDirent {
                parent,
                name: name.to_vec(),
                ns,
                child: before.map(Occupant::of),
                since: self.tick(),
            }),
        }
    }
}
