//! The brake on guessing passwords: after some failures an e-mail address or a peer has to wait,
//! longer each time.
//!
//! Lives in memory: a restart forgets it, at no more cost than some free guesses. Time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;

const EMAIL_FAILURES: u32 = 5;
const PEER_FAILURES: u32 = 20;
/// Failures are forgotten this long after the last (seconds).
const WINDOW_SECS: i64 = 15 * 60;
/// The first wait (seconds); doubles with each further failure, up to the window.
const FIRST_WAIT_SECS: i64 = 15;
/// Most addresses remembered; beyond, the oldest are dropped.
const TRACKED_MAX: usize = 100_000;

/// Counts failed logins by e-mail and by peer.
#[derive(Default)]
pub struct Limiter {
    tables: Mutex<(Table<String>, Table<IpAddr>)>,
}

type Table<K> = HashMap<K, Failures>;

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: i64,
    /// Somebody was told to wait since the last one.
    told: bool,
}

/// An attempt that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub secs: i64,
    /// The first that has to wait since the last attempt that was allowed.
    pub first: bool,
}

impl Limiter {
    /// Takes one attempt, counted as failed until `succeeded`. When it is not allowed, tells how
    /// long to wait.
    pub fn attempt(&self, email: &str, peer: IpAddr, now: i64) -> Result<(), Wait> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let by_email = wait(tables.0.get_mut(email), EMAIL_FAILURES, now);
        let by_peer = wait(tables.1.get_mut(&peer), PEER_FAILURES, now);
        if let Some(longer) = by_email.into_iter().chain(by_peer).max_by_key(|w| w.secs) {
            return Err(longer);
        }
        count(&mut tables.0, email.to_owned(), now);
        count(&mut tables.1, peer, now);
        Ok(())
    }

    /// The attempt was good: the address is forgotten, and the peer's count goes down by it.
    pub fn succeeded(&self, email: &str, peer: IpAddr) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.0.remove(email);
        if let Some(failures) = tables.1.get_mut(&peer) {
            failures.count = failures.count.saturating_sub(1);
        }
    }
}

fn wait(failures: Option<&mut Failures>, free: u32, now: i64) -> Option<Wait> {
    let f = failures.filter(|f| now - f.last < WINDOW_SECS && f.count >= free)?;
    let doublings = (f.count - free).min(16);
    let wait = (FIRST_WAIT_SECS << doublings).min(WINDOW_SECS);
    let secs = f.last + wait - now;
    (secs > 0).then(|| Wait { secs, first: !std::mem::replace(&mut f.told, true) })
}

fn count<K: Hash + Eq + Clone>(table: &mut Table<K>, key: K, now: i64) {
    if table.len() >= TRACKED_MAX {
        table.retain(|_, f| now - f.last < WINDOW_SECS);
        if table.len() >= TRACKED_MAX {
            table.clear();
        }
    }
    let entry = table.entry(key).or_insert(Failures { count: 0, last: now, told: false });
    if now - entry.last >= WINDOW_SECS {
        entry.count = 0;
    }
    entry.count += 1;
    entry.last = now;
    entry.told = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_sixth_failure_waits_and_the_wait_grows() {
        let limiter = Limiter::default();
        for _ in 0..5 {
            assert_eq!(limiter.attempt("a@b", PEER, 100), Ok(()));
        }
        assert_eq!(limiter.attempt("a@b", PEER, 100), Err(Wait { secs: 15, first: true }));
        assert_eq!(limiter.attempt("a@b", PEER, 101), Err(Wait { secs: 14, first: false }));
        assert_eq!(limiter.attempt("other@b", PEER, 100), Ok(()));
        assert_eq!(limiter.attempt("a@b", PEER, 115), Ok(()));
        assert_eq!(limiter.attempt("a@b", PEER, 115), Err(Wait { secs: 30, first: true }));
        assert_eq!(limiter.attempt("a@b", PEER, 115 + WINDOW_SECS), Ok(()));
    }

    #[test]
    fn a_peer_that_tries_many_addresses_waits_too() {
        let limiter = Limiter::default();
        for i in 0..20 {
            assert_eq!(limiter.attempt(&format!("{i}@b"), PEER, 0), Ok(()));
        }
        assert_eq!(limiter.attempt("x@b", PEER, 0), Err(Wait { secs: 15, first: true }));
    }

    #[test]
    fn a_success_clears_the_address() {
        let limiter = Limiter::default();
        for _ in 0..100 {
            assert_eq!(limiter.attempt("a@b", PEER, 0), Ok(()));
            limiter.succeeded("a@b", PEER);
        }
    }
}
