//! Who asks: one caller alone with small requests, several, or one that streams.
//!
//! A caller that waits for each answer is served best by threads on its own core: nobody has to be
//! woken on another one. Streams and several callers need all cores.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Requests in a row that make a caller alone; more after the threads starved on its core.
const ALONE: u32 = 48;
const ALONE_MAX: u32 = 4096;
/// A caller that is alone is looked for again after so many requests: it may run elsewhere by now.
const AGAIN: u32 = 16;
/// Requests of others, between runs of one alone, that end it.
const OTHERS: u32 = 16;
/// Requests between two ticks that are worth staying together.
const BUSY: u32 = 4;
/// Ticks together that make up for having starved.
const LONG_STAY: u32 = 25;
/// Longest read or write that is small, in bytes.
const SMALL_BYTES: usize = 64 * 1024;

/// Where the session threads should run from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the core of this thread.
    With(u32),
    /// On all cores.
    Spread,
}

/// Counts requests. Counters of threads that race may be off by a few: it is advice.
#[derive(Debug)]
pub struct Callers {
    last: AtomicU32,
    /// Requests in a row by `last`.
    run: AtomicU32,
    /// Of others, since the last run.
    others: AtomicU32,
    /// All, and how many there were at the last tick.
    asked: AtomicU32,
    ticked: AtomicU32,
    together: AtomicBool,
    /// Ticks since then.
    stay: AtomicU32,
    /// Requests in a row that it takes now.
    need: AtomicU32,
}

impl Callers {
    pub fn new() -> Self {
        Self {
            last: AtomicU32::new(0),
            run: AtomicU32::new(0),
            others: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            ticked: AtomicU32::new(0),
            together: AtomicBool::new(false),
            stay: AtomicU32::new(0),
            need: AtomicU32::new(ALONE),
        }
    }

    /// A request without much data came from a thread; 0 is one that cannot be seen from here.
    pub fn asked(&self, thread: u32) -> Option<Place> {
        self.asked.fetch_add(1, Relaxed);
        if thread == 0 || self.last.load(Relaxed) != thread {
            self.last.store(thread, Relaxed);
            self.run.store(0, Relaxed);
            let others = self.others.fetch_add(1, Relaxed) + 1;
            return if others >= OTHERS { self.spread() } else { None };
        }
        let run = self.run.fetch_add(1, Relaxed) + 1;
        if self.together.load(Relaxed) {
            if !run.is_multiple_of(AGAIN) {
                return None;
            }
        } else {
            if run < self.need.load(Relaxed) {
                return None;
            }
            self.stay.store(0, Relaxed);
            self.ticked.store(self.asked.load(Relaxed), Relaxed);
            self.together.store(true, Relaxed);
        }
        self.others.store(0, Relaxed);
        Some(Place::With(thread))
    }

    /// A read or write of so many bytes came.
    pub fn moved(&self, thread: u32, bytes: usize) -> Option<Place> {
        if bytes <= SMALL_BYTES {
            return self.asked(thread);
        }
        self.run.store(0, Relaxed);
        self.spread()
    }

    /// Time has passed: false when the threads must not be together (any more). `starving` tells
    /// whether a session thread waits for its core right now.
    pub fn tick(&self, starving: impl FnOnce() -> bool) -> bool {
        if !self.together.load(Relaxed) {
            return false;
        }
        let asked = self.asked.load(Relaxed);
        let served = asked.wrapping_sub(self.ticked.swap(asked, Relaxed));
        if served >= BUSY {
            if self.stay.fetch_add(1, Relaxed) == LONG_STAY {
                self.need.store(ALONE, Relaxed);
            }
            return true;
        }
        if starving() {
            let need = self.need.load(Relaxed).saturating_mul(2);
            self.need.store(need.min(ALONE_MAX), Relaxed);
        }
        self.run.store(0, Relaxed);
        self.spread();
        false
    }

    fn spread(&self) -> Option<Place> {
        let together = self.together.load(Relaxed) && self.together.swap(false, Relaxed);
        together.then_some(Place::Spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(callers: &Callers, thread: u32, times: u32) -> Vec<Place> {
        (0..times).filter_map(|_| callers.asked(thread)).collect()
    }

    #[test]
    fn a_caller_alone_gets_the_threads_to_its_core() {
        let callers = Callers::new();
        assert_eq!(ask(&callers, 7, ALONE), []);
        assert_eq!(ask(&callers, 7, 1), [Place::With(7)]);
        assert_eq!(ask(&callers, 7, 2 * AGAIN).len(), 2, "it is looked for again");
    }

    #[test]
    fn several_callers_and_unseen_ones_spread_them() {
        let callers = Callers::new();
        for _ in 0..500 {
            assert_eq!((callers.asked(1), callers.asked(2), callers.asked(0)), (None, None, None));
        }
        ask(&callers, 7, 100);
        let places: Vec<Place> = (0..50).flat_map(|n| callers.asked(1 + n % 2)).collect();
        assert_eq!(places, [Place::Spread]);
    }

    #[test]
    fn one_stranger_now_and_then_does_not() {
        let callers = Callers::new();
        for _ in 0..1000 {
            assert!(!ask(&callers, 7, 100).contains(&Place::Spread));
            assert_eq!(callers.asked(8), None);
        }
    }

    #[test]
    fn a_stream_spreads_them_at_once() {
        let callers = Callers::new();
        ask(&callers, 7, 100);
        assert_eq!(callers.moved(7, 4096), None);
        assert_eq!(callers.moved(7, 1 << 20), Some(Place::Spread));
        assert_eq!(callers.moved(7, 1 << 20), None);
    }

    #[test]
    fn a_quiet_tick_ends_it_and_the_next_run_begins_it() {
        let callers = Callers::new();
        ask(&callers, 7, 100);
        for _ in 0..10 {
            ask(&callers, 7, BUSY);
            assert!(callers.tick(|| false));
        }
        assert!(!callers.tick(|| false));
        assert!(!callers.tick(|| panic!("nobody is together")));
        assert_eq!(ask(&callers, 7, ALONE), [Place::With(7)]);
    }

    #[test]
    fn after_starving_it_takes_longer_until_a_long_stay() {
        let callers = Callers::new();
        for _ in 0..4 {
            ask(&callers, 7, 16 * ALONE);
            assert!(!callers.tick(|| true) || !callers.tick(|| true));
        }
        assert_eq!(ask(&callers, 7, 15 * ALONE), []);
        assert!(ask(&callers, 7, 2 * ALONE).contains(&Place::With(7)));
        for _ in 0..2 * LONG_STAY {
            ask(&callers, 7, BUSY);
            assert!(callers.tick(|| true));
        }
        assert!(!callers.tick(|| false));
        assert_eq!(ask(&callers, 7, ALONE), [Place::With(7)]);
    }
}
