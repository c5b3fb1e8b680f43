//! Letting programs go first: while files are made or removed by the thousand, sending them waits.
//!
//! Whoever unpacks an archive needs the processor and the database more than the server needs the
//! files at once, and what is sent afterwards goes in larger commits. Not for long: in a rush that
//! lasts, sending gets its share.

use std::time::Duration;
use std::time::Instant;

/// How long activity is counted before it is judged.
pub(super) const WINDOW: Duration = Duration::from_millis(50);
/// More changes than this in a second are a rush.
const RUSH_PER_SECOND: f64 = 1000.0;
/// In a rush, sending waits this long, then has its turn.
const HOLD: Duration = Duration::from_millis(2500);
const TURN: Duration = Duration::from_millis(1000);

/// What was seen of the activity so far.
#[derive(Debug)]
pub(super) struct Rush {
    /// Since when activity is counted, and what it was then.
    window: (Instant, u64),
    began: Option<Instant>,
}

impl Rush {
    pub fn new(now: Instant) -> Self {
        Self { window: (now, 0), began: None }
    }

    pub fn is_on(&self) -> bool {
        self.began.is_some()
    }

    /// Takes in how much was changed so far; true when sending is to wait.
    pub fn holds(&mut self, now: Instant, activity: u64) -> bool {
        let passed = now.saturating_duration_since(self.window.0);
        if passed >= WINDOW {
            let rate = activity.saturating_sub(self.window.1) as f64 / passed.as_secs_f64();
            self.began = (rate > RUSH_PER_SECOND).then(|| self.began.unwrap_or(now));
            self.window = (now, activity);
        }
        self.began.is_some_and(|began| {
            let into = now.saturating_duration_since(began).as_millis();
            into % (HOLD + TURN).as_millis() < HOLD.as_millis()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `holds` every 10 ms for `ms`, with `rate` changes a second; counts the answers.
    fn run(rush: &mut Rush, from: &mut Instant, activity: &mut u64, ms: u64, rate: u64) -> u64 {
        let mut held = 0;
        for _ in 0..ms / 10 {
            *from += Duration::from_millis(10);
            *activity += rate / 100;
            held += u64::from(rush.holds(*from, *activity));
        }
        held * 10
    }

    #[test]
    fn a_rush_is_held_back_for_a_while_and_then_gets_its_turns() {
        let (mut now, mut activity) = (Instant::now(), 0);
        let mut rush = Rush::new(now);
        assert_eq!(run(&mut rush, &mut now, &mut activity, 5_000, 500), 0);
        let held = run(&mut rush, &mut now, &mut activity, 35_000, 8_000);
        assert!((20_000..30_000).contains(&held), "{held}");
        let after = run(&mut rush, &mut now, &mut activity, 5_000, 100);
        assert!(after <= 100, "{after}");
    }
}
