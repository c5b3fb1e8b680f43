//! One tree changed on two sides: what the engine then does comes to an end, both sides become the
//! same, and nothing that somebody wrote is lost.
//!
//! Real are the device's tree, journal, spool and database, the rules of conflicts and the planner;
//! the order of pull, freeze, plan, commit and answer is the engine's (`device.rs`). A model is the
//! server (`server.rs`): it takes ops by the rules of the real one and tells changes page by page.
//! Blocks do not travel. Network, kills and full disks are the business of `tests/it/sim`.
//!
//! Let through is what goes to the trash by design: a removal names no version, so it takes what
//! somebody committed since the last pull; and of a file with several names, which lose them one
//! here and one there, nothing is left.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

use drivefs_core::node::Attrs;
use drivefs_core::wire::Change;
use drivefs_core::wire::Point;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

use super::deeds::Case;
use super::deeds::Deed;
use super::deeds::Local;
use super::deeds::Remote;
use super::deeds::When;
use super::deeds::case;
use super::device::Device;
use super::ledger::Ledger;
use super::ledger::Side;
use super::server::Refusal;
use super::server::Server;
use super::view::bytes_of;
use super::view::content_of;
use crate::tree::SentOp;
use crate::tree::TreeError;
use crate::tree::new_id;

/// Rounds after which it would go on for ever.
const ROUNDS_MAX: usize = 8;
/// Cases that share a database: more would make it slow, fewer would have to wait for new ones.
const CASES_A_DEVICE: u64 = 500;
/// The cases are drawn in so many parts, each from a seed of its own, whatever the number of cores.
const PARTS: u64 = 20;
/// Rows of a page, where pages are not what a round is about.
const PLENTY: usize = 1_000;

/// One case under way.
struct Run<'a> {
    device: &'a mut Device,
    server: Server,
    ledger: Ledger,
    /// Values written so far: each is written once.
    values: u32,
    /// All that the server had is here.
    whole: bool,
    /// Tells what happens, where somebody wants to read it.
    tell: bool,
}

impl Run<'_> {
    /// The tree that both sides know.
    fn make_base(&mut self, deeds: &[Deed]) -> Result<(), String> {
        for deed in deeds {
            self.values += 1;
            let changes = self.server.view().changes(deed, self.values);
            self.told("base", deed, &changes);
            self.join(&changes)?;
        }
        self.ledger = Ledger::of(&self.server.view());
        self.pull(PLENTY, PLENTY).map(drop)
    }

    fn join(&mut self, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            let done = self.server.join(change);
            done.map_err(|why| format!("somebody else could not do {change:?}: {why:?}"))?;
        }
        Ok(())
    }

    fn work_there(&mut self, deeds: &[Remote], when: When) -> Result<(), String> {
        let mut begun = false;
        for remote in deeds.iter().filter(|remote| remote.when == when) {
            let seen = self.server.view();
            self.values += 1;
            let changes = seen.changes(&remote.deed, self.values);
            self.told("there", &remote.deed, &changes);
            self.ledger.note(Side::There, &changes, &seen, true);
            let joins = remote.joined && begun;
            if !joins && !changes.is_empty() {
                self.server.seq += 1;
                begun = true;
            }
            self.join(&changes)?;
        }
        Ok(())
    }

    fn work_here(&mut self, deeds: &[Local], when: When) -> Result<(), String> {
        for local in deeds.iter().filter(|local| local.when == when) {
            let seen = self.device.view().map_err(in_words)?;
            self.values += 1;
            let changes = seen.changes(&local.deed, self.values);
            self.told("here", &local.deed, &changes);
            self.ledger.note(Side::Here, &changes, &seen, self.whole);
            let bytes = local.deed.bytes(self.values);
            let how = (local.slow, local.open);
            let done = self.device.work(&changes, &seen, &bytes, how);
            done.map_err(|e| format!("a program could not do {changes:?}: {e}"))?;
        }
        Ok(())
    }

    fn pull(&mut self, rows: usize, pages: usize) -> Result<bool, String> {
        self.whole = self.device.pull(&self.server, rows as u32, pages).map_err(in_words)?;
        if self.tell {
            eprintln!("pulled, all: {}", self.whole);
        }
        Ok(self.whole)
    }

    /// Rounds until nothing is ahead.
    fn rounds(&mut self, case: &Case) -> Result<(), String> {
        for round in 0..ROUNDS_MAX {
            let is_first = round == 0;
            let (rows, pages) =
                if is_first { (case.rows, case.pages) } else { (case.rows, PLENTY) };
            let mut seen_all = self.pull(rows as usize, pages)?;
            if is_first {
                let before = self.server.seq;
                self.work_there(&case.remote, When::Pulled)?;
                self.work_here(&case.local, When::Pulled)?;
                seen_all &= self.server.seq == before;
            }
            let changes = self.device.plan().map_err(in_words)?;
            let done = self.commit(&changes, seen_all)?;
            if is_first {
                self.work_here(&case.local, When::Sent)?;
            }
            if changes.is_empty() {
                self.device.settle().map_err(in_words)?;
            } else {
                let at = Point { epoch: 1, seq: self.server.seq };
                self.device.take_answer(&done, at).map_err(in_words)?;
            }
            if is_first {
                self.device.end_first_round().map_err(in_words)?;
            }
            let ahead = self.device.tree.ahead().map_err(in_words)?;
            if ahead == (0, 0) && seen_all && changes.is_empty() {
                return Ok(());
            }
        }
        Err(format!("still ahead after {ROUNDS_MAX} rounds"))
    }

    /// Commits a plan. One that was made from all that the server has is taken as a whole.
    fn commit(&mut self, changes: &[Change], seen_all: bool) -> Result<Vec<SentOp>, String> {
        let mut done = Vec::new();
        let position = self.device.tree.journal().position();
        let results = self.server.commit(changes);
        for (change, result) in changes.iter().zip(results) {
            if self.tell {
                eprintln!("planned: {change:?}: {result:?}");
            }
            match result {
                Ok(version) => done.push(SentOp {
                    change: change.clone(),
                    seq: self.server.seq,
                    version,
                    blocks: Vec::new(),
                    complete_to: Some(position),
                }),
                Err(Refusal::Conflict(_)) if !seen_all => {}
                Err(why) => return Err(format!("{why:?}: {change:?} of {changes:#?}")),
            }
        }
        Ok(done)
    }

    fn check(&mut self) -> Result<(), String> {
        let (here, there) = (self.device.view().map_err(in_words)?, self.server.view());
        if here.entries != there.entries || here.nodes != there.nodes {
            let (here, there) = (here.lines(), there.lines());
            let only = |one: &BTreeSet<String>, other| Vec::from_iter(one - other).join("\n    ");
            let (here, there) = (only(&here, &there), only(&there, &here));
            return Err(format!("here\n    {here}\nthere\n    {there}"));
        }
        let kept: BTreeSet<&Vec<u8>> =
            there.nodes.values().filter_map(|seen| seen.content.as_ref()).collect();
        match self.ledger.due().find(|content| !kept.contains(content)) {
            Some(lost) => {
                let value = (0..=self.values).find(|n| content_of(&bytes_of(*n)) == *lost);
                Err(format!("value {value:?} is lost"))
            }
            None => Ok(()),
        }
    }

    fn told(&self, side: &str, deed: &Deed, changes: &[Change]) {
        if self.tell {
            eprintln!("{side}: {deed:?}");
            changes.iter().for_each(|change| eprintln!("    {change:?}"));
        }
    }
}

fn in_words(e: TreeError) -> String {
    e.to_string()
}

/// Runs a case under a number that no case on this device had.
fn run(device: &mut Device, number: u64, case: &Case, tell: bool) -> Result<(), String> {
    device.begin(number);
    let attrs = Attrs { mode: 0o755, uid: None, gid: None, mtime: 1, btime: 1 };
    let server = Server::new(new_id(), attrs);
    let mut run = Run { device, server, ledger: Ledger::default(), values: 0, whole: true, tell };
    run.make_base(&case.base)?;
    run.work_there(&case.remote, When::Before)?;
    run.work_here(&case.local, When::Before)?;
    run.rounds(case)?;
    run.check()
}

/// A device for many cases.
#[derive(Default)]
struct Bench {
    device: Option<Device>,
    cases: u64,
}

impl Bench {
    fn run(&mut self, case: &Case) -> Result<(), TestCaseError> {
        self.cases += 1;
        if self.cases.is_multiple_of(CASES_A_DEVICE) {
            self.device = None;
        }
        // What fails, or panics, leaves its device behind.
        let mut device = self.device.take().unwrap_or_else(Device::new);
        run(&mut device, self.cases, case, false).map_err(TestCaseError::fail)?;
        self.device = Some(device);
        Ok(())
    }
}

/// Fails with the story of a case, unless it holds.
pub fn holds(case: &Case) {
    let Err(why) = run(&mut Device::new(), 1, case, false) else { return };
    eprintln!("{case:?}");
    // It failed already: here it tells why.
    let _ = run(&mut Device::new(), 1, case, true);
    panic!("{why}");
}

/// Draws the cases of a seed; the first that fails is shrunk.
fn draw(cases: u32, seed: u64) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let bench = RefCell::new(Bench::default());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&case(), |case| bench.borrow_mut().run(&case));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => {
            drop(bench);
            holds(&case);
            panic!("{why}, but not on a new device");
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// On all cores. The same cases in every run, unless `DRIVEFS_PLAN_SEED` asks for others.
#[test]
fn both_sides_become_the_same_and_nothing_written_is_lost() {
    let first = match std::env::var("DRIVEFS_PLAN_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => 0,
    };
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= PARTS {
                        return;
                    }
                    draw(super::cases().div_ceil(PARTS as u32), first * PARTS + part);
                }
            });
        }
    });
}
