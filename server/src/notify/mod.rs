//! Hints: wakes long polls when a namespace has changed.
//!
//! Never data, and never trusted: a waiter first registers, then looks at the database, then
//! waits; so no commit falls between. Dropping a `Waiter` frees its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use drivefs_core::id::NamespaceId;
use tokio::sync::Notify;
use tokio::sync::watch;

/// The hub of all long polls of this process; clones share it.
#[derive(Clone)]
pub struct Hub {
    waiting: Arc<Mutex<Waiting>>,
    closed: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    by_namespace: HashMap<NamespaceId, HashMap<u64, Arc<Notify>>>,
    count: usize,
}

/// A place in the hub for some namespaces.
pub struct Waiter {
    hub: Hub,
    id: u64,
    namespaces: Vec<NamespaceId>,
    wake: Arc<Notify>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { waiting: Arc::default(), closed: Arc::new(watch::Sender::new(false)) }
    }
}

impl Hub {
    /// Registers for hints about `namespaces` from now on.
    pub fn register(&self, namespaces: Vec<NamespaceId>) -> Waiter {
        let wake = Arc::new(Notify::new());
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        waiting.count += 1;
        for ns in &namespaces {
            waiting.by_namespace.entry(*ns).or_default().insert(id, Arc::clone(&wake));
        }
        metrics::gauge!("drivefs_polls_held").set(waiting.count as f64);
        drop(waiting);
        Waiter { hub: self.clone(), id, namespaces, wake }
    }

    /// Wakes who waits for `ns`.
    pub fn hint(&self, ns: NamespaceId) {
        if let Some(waiters) = self.lock().by_namespace.get(&ns) {
            waiters.values().for_each(|wake| wake.notify_one());
        }
    }

    /// Long polls that are held.
    pub fn waiters(&self) -> usize {
        self.lock().count
    }

    pub fn has_waiters(&self) -> bool {
        self.lock().count > 0
    }

    /// Ends all waiting, now and later: the server stops.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Returns true at the next hint, false when the hub closes. A hint given since the last call
    /// counts.
    pub async fn hinted(&self) -> bool {
        let mut closed = self.hub.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => false,
            () = self.wake.notified() => true,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.hub.lock();
        for ns in &self.namespaces {
            if let Some(waiters) = waiting.by_namespace.get_mut(ns) {
                waiters.remove(&self.id);
                if waiters.is_empty() {
                    waiting.by_namespace.remove(ns);
                }
            }
        }
        waiting.count -= 1;
        metrics::gauge!("drivefs_polls_held").set(waiting.count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hint_between_registering_and_waiting_is_not_lost() {
        let hub = Hub::default();
        let waiter = hub.register(vec![NamespaceId(1), NamespaceId(2)]);
        hub.hint(NamespaceId(2));
        assert!(waiter.hinted().await);
        hub.close();
        assert!(!waiter.hinted().await);
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let hub = Hub::default();
        drop(hub.register(vec![NamespaceId(1)]));
        assert!(!hub.has_waiters());
        assert!(hub.lock().by_namespace.is_empty());
    }
}
