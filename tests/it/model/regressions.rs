//! Cases that failed once, shrunk, each under the name of what was wrong.

use super::op::At;
use super::op::Op;
use super::op::Time;
use super::run;
use super::world::World;

/// Runs operations as the random cases do.
fn check(ops: &[Op]) {
    let world = World::new();
    if let Err(e) = run(&world, ops) {
        panic!("{e}");
    }
}

#[test]
fn regression_a_time_before_1970_keeps_its_nanoseconds() {
    check(&[
        Op::WriteFile { at: At::In(0, 0), len: 0, seed: 0, append: false },
        Op::Utimens { at: At::Known(0), mtime: Time::At(-1_000_000_000, 999_999_999) },
    ]);
}
