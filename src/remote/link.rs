//! Whether the server can be reached, and how many bytes went either way.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::host;

/// How long requests that a reader waits for fail at once after one went unanswered.
const SILENCE: Duration = Duration::from_secs(5);

/// State of the connection, shared by all who ask or tell.
#[derive(Debug, Default)]
pub struct Link {
    offline: AtomicBool,
    /// The server does not take the token any more.
    locked_out: AtomicBool,
    reason: Mutex<String>,
    /// The server let somebody wait in vain; until then nobody else shall.
    silent_until: Mutex<Option<Instant>>,
    last_heard: Mutex<Option<Instant>>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Link {
    pub fn is_online(&self) -> bool {
        !self.offline.load(Ordering::Relaxed)
    }

    /// True since the server has refused the token, until it takes one.
    pub fn is_locked_out(&self) -> bool {
        self.locked_out.load(Ordering::Relaxed)
    }

    pub(super) fn set_locked_out(&self, locked_out: bool) {
        self.locked_out.store(locked_out, Ordering::Relaxed);
    }

    /// Why the server cannot be reached; empty while it can.
    pub fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes sent and received since the start, heads of messages included.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    /// True shortly after the server left a request without an answer: the next one would wait in
    /// vain too. Any answer ends it.
    pub fn is_silent(&self) -> bool {
        let until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| host::instant() < until)
    }

    /// Notes that the server left a request without an answer.
    pub fn fell_silent(&self, why: &str) {
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(host::instant() + SILENCE);
        self.down(why);
    }

    /// Notes bytes of an answer that is still arriving.
    pub(super) fn heard(&self, received: usize) {
        self.count(0, received);
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(host::instant());
    }

    /// When bytes of an answer for a reader last arrived.
    pub fn last_heard(&self) -> Option<Instant> {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, sent: usize, received: usize) {
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        self.received.fetch_add(received as u64, Ordering::Relaxed);
    }

    pub(super) fn up(&self) {
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.offline.swap(false, Ordering::Relaxed) {
            self.reason.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tracing::info!("online");
        }
    }

    pub(super) fn down(&self, why: &str) {
        if !self.offline.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "offline");
        }
        why.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
