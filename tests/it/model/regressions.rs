//! Cases that failed once, shrunk, each under the name of what was wrong.

use super::op::Access;
use super::op::At;
use super::op::Make;
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

#[test]
fn regression_a_write_moves_the_time_though_the_daemon_dies_before_the_close() {
    let open = Op::Open {
        slot: 0,
        at: At::Known(0),
        access: Access::Write,
        make: Make::No,
        truncate: false,
        append: false,
        mode: 0o644,
    };
    check(&[
        Op::WriteFile { at: At::In(0, 0), len: 10, seed: 0, append: false },
        Op::Sync,
        open,
        Op::Utimens { at: At::Known(0), mtime: Time::At(1_000_000_000, 5) },
        Op::Write { slot: 0, offset: 3, len: 4, seed: 1 },
        Op::Kill,
    ]);
}

/// Small files share data files: a length without bytes is zeros there too.
#[test]
fn regression_a_new_file_that_is_only_made_longer_is_zeros() {
    let open = Op::Open {
        slot: 0,
        at: At::In(0, 0),
        access: Access::Write,
        make: Make::Yes,
        truncate: false,
        append: false,
        mode: 0o644,
    };
    check(&[
        Op::WriteFile { at: At::In(0, 1), len: 5_000, seed: 1, append: false },
        open,
        Op::Truncate { slot: 0, size: 95 },
        Op::Close { slot: 0 },
    ]);
}
