//! The operations, and how they are drawn.
//!
//! A place is chosen among what is there when the operation runs, so most operations meet
//! something, and a case that loses operations while it is shrunk still makes sense.

use proptest::prelude::*;

/// Handles that may be open at once.
pub const SLOTS: usize = 4;

/// Names that entries get: few, so that they meet, and some that are not plain.
pub const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e.txt",
    b" spaces and 'quotes' ",
    b"\xff\xfe not UTF-8",
    &[b'n'; 255],
    // One byte too many.
    &[b'x'; 256],
];

/// Names of extended attributes; the second cannot be set, the third only by root.
pub const XATTRS: [&str; 4] = ["user.one", "other.two", "trusted.three", "user.drive"];

/// A place in the tree.
#[derive(Debug, Clone)]
pub enum At {
    /// One of what is there (not the top folder), by number modulo their count.
    Known(u8),
    /// A name in one of the folders (the top one too), by numbers modulo their counts.
    In(u8, u8),
    /// A name below a place that need not be a folder.
    Below(u8, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// Without O_CREAT.
    No,
    Yes,
    Exclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Plain,
    NoReplace,
    Exchange,
    /// Flags that do not go together.
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alloc {
    Grow,
    KeepSize,
    PunchHole,
    ZeroRange,
    ZeroRangeKeepSize,
    CollapseRange,
    InsertRange,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Now,
    Omit,
    /// Seconds and nanoseconds; never near the time of the test, so that it is recognised.
    At(i64, u32),
}

/// When an attribute may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    Any,
    Create,
    Replace,
}

#[derive(Debug, Clone)]
pub enum Op {
    Open {
        slot: u8,
        at: At,
        access: Access,
        make: Make,
        truncate: bool,
        append: bool,
        mode: u16,
    },
    /// Opens a file without a name (`O_TMPFILE`).
    OpenUnnamed {
        slot: u8,
        at: At,
        access: Access,
        make: Make,
        mode: u16,
    },
    /// Gives what is open a name, its first or one more.
    Name {
        slot: u8,
        to: At,
    },
    Close {
        slot: u8,
    },
    Write {
        slot: u8,
        offset: u32,
        len: u32,
        seed: u8,
    },
    Read {
        slot: u8,
        offset: u32,
        len: u32,
    },
    Truncate {
        slot: u8,
        size: u32,
    },
    Fallocate {
        slot: u8,
        how: Alloc,
        offset: u32,
        len: u32,
    },
    Copy {
        from: u8,
        to: u8,
        from_offset: u32,
        to_offset: u32,
        len: u32,
    },
    Fsync {
        slot: u8,
    },
    FstatAndMode {
        slot: u8,
        mode: Option<u16>,
    },
    /// Open, truncate or append, write, close: as a shell's redirection.
    WriteFile {
        at: At,
        len: u32,
        seed: u8,
        append: bool,
    },
    ReadFile {
        at: At,
    },
    Mkdir {
        at: At,
        mode: u16,
    },
    Mkfifo {
        at: At,
        mode: u16,
    },
    Symlink {
        at: At,
        target: u8,
    },
    Readlink {
        at: At,
    },
    Link {
        from: At,
        to: At,
    },
    Rename {
        from: At,
        to: At,
        how: How,
    },
    Unlink {
        at: At,
    },
    Rmdir {
        at: At,
    },
    Chmod {
        at: At,
        mode: u16,
    },
    Chown {
        at: At,
        uid: u16,
        gid: u16,
    },
    Utimens {
        at: At,
        mtime: Time,
    },
    Setxattr {
        at: At,
        name: u8,
        len: u8,
        set: Set,
    },
    Getxattr {
        at: At,
        name: u8,
    },
    Listxattr {
        at: At,
    },
    Removexattr {
        at: At,
        name: u8,
    },
    Stat {
        at: At,
    },
    List {
        at: At,
    },
    /// Save by writing another file and renaming it over, as editors do.
    Save {
        at: At,
        len: u32,
        seed: u8,
    },
    /// The changes so far are on the server before the next operation.
    Sync,
    /// The daemon dies by SIGKILL, with what is open, and the drive is mounted again.
    Kill,
}

/// Mostly one of the plain names.
fn name() -> impl Strategy<Value = u8> {
    prop_oneof![12 => 0u8..5, 2 => 5u8..8, 1 => Just(8u8)]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![
        12 => any::<u8>().prop_map(At::Known),
        4 => (any::<u8>(), name()).prop_map(|(d, n)| At::In(d, n)),
        1 => (any::<u8>(), name()).prop_map(|(d, n)| At::Below(d, n)),
    ]
}

/// Mostly a free or common name in a folder.
fn new_at() -> impl Strategy<Value = At> {
    prop_oneof![
        8 => (any::<u8>(), name()).prop_map(|(d, n)| At::In(d, n)),
        1 => at(),
    ]
}

fn slot() -> impl Strategy<Value = u8> {
    0..SLOTS as u8
}

/// Lengths and offsets: small ones, and those around the limits of slots, pages and blocks.
fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0u32),
        6 => 0u32..200,
        4 => 3_900u32..4_300,
        2 => 65_000u32..66_000,
        1 => 262_000u32..262_300,
        1 => 0u32..1_500_000,
    ]
}

fn mode() -> impl Strategy<Value = u16> {
    prop_oneof![
        3 => Just(0o644u16),
        3 => Just(0o755u16),
        2 => 0u16..0o7777,
    ]
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        Just(Time::Now),
        Just(Time::Omit),
        Just(Time::At(0, 0)),
        Just(Time::At(-1_000_000_000, 999_999_999)),
        (1_000_000_000i64..1_500_000_000, 0u32..1_000_000_000).prop_map(|(s, n)| Time::At(s, n)),
        // Beyond 2038.
        (2_200_000_000i64..4_000_000_000, 0u32..1_000_000_000).prop_map(|(s, n)| Time::At(s, n)),
    ]
}

fn open() -> impl Strategy<Value = Op> {
    let access = prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::ReadWrite)];
    let make = prop_oneof![3 => Just(Make::No), 6 => Just(Make::Yes), 1 => Just(Make::Exclusive)];
    let flag = prop::bool::weighted(0.2);
    (slot(), prop_oneof![at().boxed(), new_at().boxed()], access, make, flag, flag, mode())
        .prop_map(|(slot, at, access, make, truncate, append, mode)| Op::Open {
            slot,
            at,
            access,
            make,
            truncate,
            append,
            mode,
        })
}

fn open_unnamed() -> impl Strategy<Value = Op> {
    let access = prop_oneof![1 => Just(Access::Read), 9 => Just(Access::ReadWrite)];
    let make = prop_oneof![4 => Just(Make::No), 1 => Just(Make::Exclusive)];
    (slot(), at(), access, make, mode())
        .prop_map(|(slot, at, access, make, mode)| Op::OpenUnnamed { slot, at, access, make, mode })
}

fn on_handles() -> impl Strategy<Value = Op> {
    let alloc = prop_oneof![
        Just(Alloc::Grow),
        Just(Alloc::KeepSize),
        Just(Alloc::PunchHole),
        Just(Alloc::ZeroRange),
        Just(Alloc::ZeroRangeKeepSize),
        Just(Alloc::CollapseRange),
        Just(Alloc::InsertRange),
    ];
    prop_oneof![
        9 => open(),
        3 => open_unnamed(),
        3 => (slot(), new_at()).prop_map(|(slot, to)| Op::Name { slot, to }),
        2 => slot().prop_map(|slot| Op::Close { slot }),
        7 => (slot(), size(), size(), any::<u8>())
            .prop_map(|(slot, offset, len, seed)| Op::Write { slot, offset, len, seed }),
        4 => (slot(), size(), size()).prop_map(|(slot, offset, len)| Op::Read { slot, offset, len }),
        3 => (slot(), size()).prop_map(|(slot, size)| Op::Truncate { slot, size }),
        2 => (slot(), alloc, size(), size())
            .prop_map(|(slot, how, offset, len)| Op::Fallocate { slot, how, offset, len }),
        2 => (slot(), slot(), size(), size(), size())
            .prop_map(|(from, to, from_offset, to_offset, len)| Op::Copy {
                from,
                to,
                from_offset,
                to_offset,
                len,
            }),
        1 => slot().prop_map(|slot| Op::Fsync { slot }),
        1 => (slot(), prop::option::of(mode()))
            .prop_map(|(slot, mode)| Op::FstatAndMode { slot, mode }),
    ]
}

fn on_names() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        5 => Just(How::Plain),
        2 => Just(How::NoReplace),
        2 => Just(How::Exchange),
        1 => Just(How::Both),
    ];
    prop_oneof![
        4 => (new_at(), size(), any::<u8>(), prop::bool::weighted(0.3))
            .prop_map(|(at, len, seed, append)| Op::WriteFile { at, len, seed, append }),
        2 => (at(), size(), any::<u8>()).prop_map(|(at, len, seed)| Op::Save { at, len, seed }),
        4 => (new_at(), mode()).prop_map(|(at, mode)| Op::Mkdir { at, mode }),
        1 => (new_at(), mode()).prop_map(|(at, mode)| Op::Mkfifo { at, mode }),
        2 => (new_at(), any::<u8>()).prop_map(|(at, target)| Op::Symlink { at, target }),
        3 => (at(), new_at()).prop_map(|(from, to)| Op::Link { from, to }),
        5 => (at(), prop_oneof![at().boxed(), new_at().boxed()], how)
            .prop_map(|(from, to, how)| Op::Rename { from, to, how }),
        3 => at().prop_map(|at| Op::Unlink { at }),
        2 => at().prop_map(|at| Op::Rmdir { at }),
    ]
}

fn on_attributes() -> impl Strategy<Value = Op> {
    let name = prop_oneof![8 => Just(0u8), 1 => 1..XATTRS.len() as u8];
    let set = prop_oneof![Just(Set::Any), Just(Set::Create), Just(Set::Replace)];
    prop_oneof![
        (at(), mode()).prop_map(|(at, mode)| Op::Chmod { at, mode }),
        (at(), any::<u16>(), any::<u16>()).prop_map(|(at, uid, gid)| Op::Chown { at, uid, gid }),
        (at(), time()).prop_map(|(at, mtime)| Op::Utimens { at, mtime }),
        (at(), name.clone(), any::<u8>(), set).prop_map(|(at, name, len, set)| Op::Setxattr {
            at,
            name,
            len,
            set
        }),
        (at(), name.clone()).prop_map(|(at, name)| Op::Getxattr { at, name }),
        at().prop_map(|at| Op::Listxattr { at }),
        (at(), name).prop_map(|(at, name)| Op::Removexattr { at, name }),
        at().prop_map(|at| Op::Stat { at }),
        at().prop_map(|at| Op::List { at }),
        at().prop_map(|at| Op::ReadFile { at }),
        at().prop_map(|at| Op::Readlink { at }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        100 => on_names().boxed(),
        100 => on_handles().boxed(),
        60 => on_attributes().boxed(),
        10 => Just(Op::Sync).boxed(),
        2 => Just(Op::Kill).boxed(),
    ]
}

/// A small tree to begin with.
fn beginning() -> Vec<Op> {
    let file = |folder, name, len| Op::WriteFile {
        at: At::In(folder, name),
        len,
        seed: name,
        append: false,
    };
    vec![
        Op::Mkdir { at: At::In(0, 0), mode: 0o755 },
        Op::Mkdir { at: At::In(1, 1), mode: 0o755 },
        file(0, 2, 10),
        file(1, 3, 5_000),
        file(2, 4, 70_000),
        Op::Mkdir { at: At::In(0, 1), mode: 0o700 },
    ]
}

/// The operations of one case.
pub fn case(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(any_op(), count).prop_map(|ops| {
        let mut all = beginning();
        all.extend(ops);
        all
    })
}
