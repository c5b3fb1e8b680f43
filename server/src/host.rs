//! What the server takes from the machine beside its data: the time, chance, and threads for work
//! that blocks.
//!
//! A simulation runs a whole server on one thread and gives its own time and chance on it, so that
//! a run can be repeated exactly. Work that blocks then runs where it is asked for.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use drivefs_core::node::TimeNs;
use rand::RngExt;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::StandardUniform;
use rand::rngs::StdRng;
use tokio::task::JoinError;

/// What a simulation puts in the place of the machine.
pub trait Host: Send + Sync {
    /// Nanoseconds since the epoch.
    fn now(&self) -> TimeNs;
    fn fill(&self, bytes: &mut [u8]);
    /// Called before each write to the disk; the write fails with its error.
    fn before_write(&self) -> io::Result<()>;
}

thread_local! {
    static SIMULATED: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// From now on this thread lives on `host`; none brings the machine back.
pub fn simulate(host: Option<Arc<dyn Host>>) {
    SIMULATED.set(host);
}

fn simulated() -> Option<Arc<dyn Host>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// True where a simulation has taken the machine's place.
pub fn is_simulated() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

/// The wall clock in nanoseconds since the epoch.
pub(crate) fn now() -> TimeNs {
    if let Some(host) = simulated() {
        return host.now();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A random value, of cryptographic quality.
pub fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    let Some(host) = simulated() else { return rand::random() };
    let mut seed = [0; 32];
    host.fill(&mut seed);
    StdRng::from_seed(seed).random()
}

/// To be asked before each write to the disk.
pub fn before_write() -> io::Result<()> {
    simulated().map_or(Ok(()), |host| host.before_write())
}

/// Runs work that blocks, on a thread for such. An error is a panic.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_simulated() {
        return Ok(work());
    }
    // Log lines of the work belong to the request that it is for.
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await
}
