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
mod tidying;
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

/// Seeds of every test run.
const SEEDS: Range<u64> = 0..2000;
/// In so many seeds every kind of trouble happens.
const SEEDS_OF_ALL: u64 = 500;
/// Every so many seeds one runs twice, and the same must happen.
const REPLAY_EVERY: u64 = 20;

/// What the log says of each kind of trouble. In a whole run each of them happens.
const TROUBLES: [&str; 10] = [
    "is dead",
    "is killed",
    "the server is dead",
    "the server is killed",
    ": Lost",
    ": Doubled",
    ": Late",
    "is full: true",
    "conflicted copy",
    "tidies up: Ok(Some",
];
/// Failures that are told in full.
const LOGS_MAX: usize = 2;

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

/// Runs one seed; returns which promise was not kept, if any, and what happened.
fn run(seed: u64) -> (Option<String>, Vec<String>) {
    let log: Mutex<Vec<String>> = Mutex::default();
    let result = catch_unwind(AssertUnwindSafe(|| world::run(seed, &log)));
    live_on(None);
    let broken = result.err().map(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(_) => "a panic without words".into(),
    });
    (broken, log.into_inner().unwrap_or_else(PoisonError::into_inner))
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
    let replay_every = match std::env::var("DRIVEFS_SIM_REPLAY_EVERY") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => REPLAY_EVERY,
    };
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let troubles: [AtomicU64; TROUBLES.len()] = Default::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let (broken, log) = run(seed);
            for (count, trouble) in troubles.iter().zip(TROUBLES) {
                let met = log.iter().filter(|line| line.contains(trouble)).count();
                count.fetch_add(met as u64, Ordering::Relaxed);
            }
            let again = if seed.is_multiple_of(replay_every) { run(seed).1 } else { log.clone() };
            let replays = again == log;
            if replays && broken.is_none() {
                continue;
            }
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(seed);
            if failed.len() > LOGS_MAX {
                continue;
            }
            if broken.is_some() {
                eprintln!("seed {seed} failed:\n{}", log.join("\n"));
            }
            if let Some(at) = (0..log.len().max(again.len())).find(|i| log.get(*i) != again.get(*i))
            {
                let (one, other) = (log.get(at), again.get(at));
                eprintln!("seed {seed} does not replay: line {at} is\n{one:?}\n{other:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    world::clean_up();
    let count = seeds.end - seeds.start;
    let met: Vec<String> = TROUBLES
        .iter()
        .zip(&troubles)
        .map(|(name, count)| format!("{} x '{name}'", count.load(Ordering::Relaxed)))
        .collect();
    println!("{count} seeds in {:?}: {}", began.elapsed(), met.join(", "));
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let all = troubles.iter().all(|count| count.load(Ordering::Relaxed) > 0);
    assert!(all || count < SEEDS_OF_ALL, "a kind of trouble never happened: {met:?}");
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
}
