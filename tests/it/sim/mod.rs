//! Whole drives by seed: several devices and the real server under one clock, on one thread, with
//! a network that loses, doubles and delays, processes that die between two writes, and disks that
//! are full. At the end all trees are one and nothing that was acknowledged is gone.
//!
//! A seed that fails prints itself and what happened, and replays exactly:
//! `DRIVEFS_SIM_SEEDS=17..18 cargo test --test it sim`. `tests/soak/sim.sh` runs millions.

mod check;
mod device;
mod machine;
mod net;
mod stall;
mod work;
mod world;

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use machine::Machine;
use world::Report;

/// Seeds of every test run.
const SEEDS: Range<u64> = 0..2000;
/// Every so many seeds one runs twice, and the same must happen.
const REPLAY_EVERY: u64 = 50;

thread_local! {
    static HOSTS: std::cell::RefCell<Option<Arc<Machine>>> = const { std::cell::RefCell::new(None) };
}

/// This thread's client and server live on the machine from now on.
fn live_on(machine: Option<Arc<Machine>>) {
    drivefs::host::simulate(machine.clone().map(|m| m as Arc<dyn drivefs::host::Host>));
    drivefs_server::host::simulate(
        machine.clone().map(|m| m as Arc<dyn drivefs_server::host::Host>),
    );
    HOSTS.set(machine);
}

fn hosts() -> Option<Arc<Machine>> {
    HOSTS.with_borrow(Clone::clone)
}

/// Runs one seed; returns the hash of what happened, or what went wrong.
fn run(seed: u64) -> Result<String, Vec<String>> {
    let report: Mutex<Option<Report>> = Mutex::default();
    let result = catch_unwind(AssertUnwindSafe(|| world::run(seed, &report)));
    live_on(None);
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(()) => Ok(report.expect("a report").hash),
        Err(_) => Err(report.map_or(Vec::new(), |r| r.log)),
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("DRIVEFS_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("a range of seeds");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn random_work_under_all_faults_ends_in_one_tree_and_loses_nothing() {
    // RUST_LOG=drivefs=debug shows what the engines do.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into()))
        .with_test_writer()
        .try_init();
    let seeds = seeds();
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let first = run(seed);
            let again = if seed % REPLAY_EVERY == 0 { Some(run(seed)) } else { None };
            let replays = again.is_none_or(|again| again == first);
            if first.is_ok() && replays {
                continue;
            }
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(seed);
            if failed.len() <= 2 {
                let log = first.err().unwrap_or_default();
                let why = if replays { "" } else { " (it does not replay)" };
                eprintln!("seed {seed} failed{why}:\n{}", log.join("\n"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    let count = seeds.end - seeds.start;
    println!("{count} seeds in {:?}", began.elapsed());
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
}
