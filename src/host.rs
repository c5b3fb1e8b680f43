//! What the client takes from the machine beside its folder: the time, chance, and threads for
//! work that blocks.
//!
//! A simulation runs whole devices on one thread and gives its own time and chance on it, so that a
//! run can be repeated exactly (`tests/it/sim`). Work that blocks then runs where it is asked for.
//! It also hears of every write to the disk before it happens: it may refuse it, as a full disk
//! does, or take a copy of the folder, which is what the death of the process would leave.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use drivefs_core::node::TimeNs;
use rand::Rng;

/// What a simulation puts in the place of the machine.
pub trait Host: Send + Sync {
    /// Nanoseconds since the epoch, as this device's clock has it.
    fn now(&self) -> TimeNs;
    /// The steady clock.
    fn instant(&self) -> Instant;
    /// Lets time pass.
    fn sleep(&self, time: Duration);
    fn fill(&self, bytes: &mut [u8]);
    /// Called before each write to the disk; the write fails with its error.
    fn before_write(&self) -> io::Result<()>;
    /// Runs what a blocked thread waits for to its end.
    fn block_on(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>);
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
pub fn now() -> TimeNs {
    if let Some(host) = simulated() {
        return host.now();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// When a file was last written, by the clock of the machine.
pub fn modified(file: &File) -> io::Result<TimeNs> {
    if let Some(host) = simulated() {
        return Ok(host.now());
    }
    let meta = file.metadata()?;
    Ok(meta.mtime() * 1_000_000_000 + meta.mtime_nsec())
}

/// The steady clock.
pub fn instant() -> Instant {
    simulated().map_or_else(Instant::now, |host| host.instant())
}

/// Time since a moment of the steady clock.
pub fn since(moment: Instant) -> Duration {
    instant().saturating_duration_since(moment)
}

pub async fn sleep(time: Duration) {
    match simulated() {
        Some(host) => host.sleep(time),
        None => tokio::time::sleep(time).await,
    }
}

/// Random bytes, of cryptographic quality.
pub fn fill(bytes: &mut [u8]) {
    match simulated() {
        Some(host) => host.fill(bytes),
        None => rand::rng().fill_bytes(bytes),
    }
}

/// To be asked before each write to the disk.
pub fn before_write() -> io::Result<()> {
    simulated().map_or(Ok(()), |host| host.before_write())
}

/// Runs work that blocks, on a thread for such.
///
/// # Panics
/// When the work does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if is_simulated() {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("work on another thread does not panic")
}

/// The same for work that nobody waits for.
pub fn detach(runtime: &tokio::runtime::Handle, work: impl FnOnce() + Send + 'static) {
    if is_simulated() {
        work();
    } else {
        runtime.spawn_blocking(work);
    }
}

/// Waits on a thread that may block.
pub fn block_on<F>(runtime: &tokio::runtime::Handle, work: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let Some(host) = simulated() else { return runtime.block_on(work) };
    let mut done = None;
    {
        let told = &mut done;
        let mut work = std::pin::pin!(async move { *told = Some(work.await) });
        host.block_on(work.as_mut());
    }
    done.expect("the work came to its end")
}
