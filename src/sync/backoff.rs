//! How long to wait before the next try.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Doubling waits with full jitter on the upper half, so that many clients of a server that comes
/// back do not all knock at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn wait(&mut self) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        most.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}
