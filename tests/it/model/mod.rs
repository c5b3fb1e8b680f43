//! The mount against a plain folder: the same random operations on both give the same results,
//! errno by errno, and the same tree; after `drivefs sync` another device shows that tree too.
//!
//! A seed is one case. `DRIVEFS_MODEL_SEEDS=100..600` runs others than the few of every test run;
//! a seed that fails is shrunk, and its operations are printed as they stand in `regressions.rs`.
//! What differs by design is said in `apply.rs` and `snapshot.rs`, each with its reason.

mod apply;
mod op;
mod regressions;
mod snapshot;
mod world;

use std::path::Path;
use std::time::Duration;

use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use apply::Runner;
use op::Op;
use snapshot::Snapshot;
use world::World;

/// Cases of every test run: under a minute on two cores.
const SEEDS: &str = "0..80";
/// Operations of one case.
const OPS: std::ops::Range<usize> = 20..120;
/// Most runs, and most time (ms), for making a failing case small.
const SHRINK_RUNS_MAX: u32 = 300;
const SHRINK_TIME_MS_MAX: u32 = 120_000;
/// What is wrong for longer than this after a sync is wrong for good.
const LATE: Duration = Duration::from_secs(3);

/// Runs operations on both sides in folders of their own, and compares: each result, the trees,
/// and the tree on the second device. Returns the folder's name.
fn run(world: &World, ops: &[Op]) -> Result<String, String> {
    let name = world.new_case();
    let mut runner = Runner::new(world, &name);
    for (i, op) in ops.iter().enumerate() {
        runner.step(op).map_err(|e| format!("operation {i}, {op:?}: {e}"))?;
    }
    let used = runner.end();
    let wanted = Snapshot::of(&world.plain(&name))?;
    let one = Snapshot::of(&world.mount_one(&name))?;
    wanted
        .differences(&one)
        .map_or(Ok(()), |d| Err(format!("the mount shows another tree:\n{d}\n{used}")))?;
    world.sync().map_err(|e| format!("{e}\n{used}"))?;
    match second_device(world, &name, &one)? {
        None => Ok(name),
        Some(d) => Err(format!("{d}\n{used}")),
    }
}

/// How the second device differs, which must show the very same tree, times and all.
fn second_device(world: &World, name: &str, one: &Snapshot) -> Result<Option<String>, String> {
    let Some(first) = one.exact_differences(&Snapshot::of(&world.mount_two(name))?) else {
        return Ok(None);
    };
    std::thread::sleep(LATE);
    world.sync()?;
    let later = one.exact_differences(&Snapshot::of(&world.mount_two(name))?);
    let end = if later.is_some() { "for good" } else { "for a while" };
    Ok(Some(format!("the second device shows another tree after sync, {end}:\n{first}")))
}

fn check_seed(world: &World, seed: u64, kept: &mut Vec<String>) {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINK_RUNS_MAX,
        max_shrink_time: SHRINK_TIME_MS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let names = std::cell::RefCell::new(Vec::new());
    let result = runner.run(&op::case(OPS), |ops| {
        let name = run(world, &ops).map_err(TestCaseError::fail)?;
        names.borrow_mut().push(name);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
        Err(TestError::Fail(why, ops)) => {
            let (ops, why) = without_bystanders(world, ops, why.message().to_owned());
            let lines: Vec<_> = ops.iter().map(|op| format!("    {op:?},")).collect();
            panic!("seed {seed}: {why}\nwith these operations:\n{}", lines.join("\n"));
        }
    }
    kept.extend(names.into_inner());
}

/// Leaves out every operation that the failure can do without.
fn without_bystanders(world: &World, mut ops: Vec<Op>, mut why: String) -> (Vec<Op>, String) {
    for i in (0..ops.len()).rev() {
        let mut fewer = ops.clone();
        fewer.remove(i);
        if let Err(e) = run(world, &fewer) {
            (ops, why) = (fewer, e);
        }
    }
    (ops, why)
}

fn compare(wanted: &Path, found: &Path, what: &str) {
    let (wanted, found) = (Snapshot::of(wanted), Snapshot::of(found));
    if let Some(d) = wanted.expect("reads").differences(&found.expect("reads")) {
        panic!("{what} shows another tree:\n{d}");
    }
}

/// After all cases: a device that has never seen the drive, and the first one mounted again.
fn check_again(world: &mut World, names: &[String]) {
    world.remount_one();
    world.mount_third();
    for name in names {
        let plain = world.plain(name);
        for (other, what) in [
            (world.mount_one(name), "the mount, mounted again,"),
            (world.mount_three(name), "a new device"),
        ] {
            compare(&plain, &other, &format!("{name}: {what}"));
        }
    }
}

#[test]
fn the_mount_does_what_a_plain_folder_does() {
    let seeds = std::env::var("DRIVEFS_MODEL_SEEDS").unwrap_or_else(|_| SEEDS.into());
    let (from, to) = seeds.split_once("..").expect("a range of seeds");
    let mut world = World::new();
    let mut names = Vec::new();
    for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        check_seed(&world, seed, &mut names);
    }
    check_again(&mut world, &names);
    let [refused, done] = world.tally();
    println!("{} cases, {done} operations done, {refused} refused", names.len());
    assert!(done * 2 > refused, "too few operations find something to do");
}
