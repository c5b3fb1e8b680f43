#!/usr/bin/env bash
# Large trees of real tools in the mount: a git repository of 10,000 files and more, a cargo build
# with dependencies.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

two_devices
M=$T/alice

# ---- git
FILES=10500
mkdir "$T/origin"
git -C "$T/origin" init -q -b main
python3 - "$T/origin" "$FILES" <<'PY'
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
for i in range(count):
    folder = f"{top}/part{i % 7}/module{i % 700}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/file{i}.c", "w") as f:
        f.write("".join(f"int f{i}_{j}(void) {{ return {i * j}; }}\n" for j in range(1 + i % 60)))
    if i % 100 == 0:
        os.symlink(f"file{i}.c", f"{folder}/latest{i}")
    if i % 250 == 0:
        os.chmod(f"{folder}/file{i}.c", 0o755)
PY
git -C "$T/origin" add . && git -C "$T/origin" commit -q -m all
git -C "$T/origin" checkout -q -b other
find "$T/origin/part1" "$T/origin/part2" -name '*.c' -exec sed -i '1s/^/\/\/ changed\n/' {} +
git -C "$T/origin" rm -q -r part3
git -C "$T/origin" add . && git -C "$T/origin" commit -q -m other
git -C "$T/origin" checkout -q main

# Without writing a fresher index: that would be a change of its own.
is_clean() { [ -z "$(GIT_OPTIONAL_LOCKS=0 git -C "$1" status --porcelain)" ]; }
check "git clone of $FILES files" git clone -q "file://$T/origin" "$M/clone"
check "git status is clean" is_clean "$M/clone"
check "git checkout of a branch that changes thousands of them" git -C "$M/clone" checkout -q other
check "and it is clean" is_clean "$M/clone"
check "git checkout back" git -C "$M/clone" checkout -q main
check "and it is clean again" is_clean "$M/clone"
check "git diff between the branches" test "$(git -C "$M/clone" diff --name-only main other | wc -l)" -gt 4000
check "a second clone, by hard links" git clone -q "$M/clone" "$M/second"
check "git worktree" git -C "$M/clone" worktree add -q "$M/worktree" other
check "the worktree is clean" is_clean "$M/worktree"
check "git gc" git -C "$M/clone" gc -q --prune=now
check "git fsck" git -C "$M/clone" fsck --full --strict
check "git stash" bash -e -c "
    cd '$M/clone'
    echo more >>part0/module0/file0.c
    git stash -q
    git stash pop -q
    git checkout -q part0/module0/file0.c"
check "git worktree remove" git -C "$M/clone" worktree remove "$M/worktree"
check "git clean takes what is not tracked" bash -e -c "
    mkdir '$M/clone/build'
    touch '$M/clone/build/'{1..500}
    git -C '$M/clone' clean -q -f -d
    test ! -e '$M/clone/build'"

# ---- cargo
# The locked versions of this project, whose sources are here since it was built itself.
mkdir -p "$M/program/src"
cp "$HERE/../../Cargo.lock" "$M/program/"
cat >"$M/program/Cargo.toml" <<'TOML'
[package]
name = "program"
version = "0.1.0"
edition = "2021"
[dependencies]
base64 = "0.23"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
thiserror = "2"
[workspace]
TOML
cat >"$M/program/src/main.rs" <<'RUST'
use base64::Engine as _;

#[derive(serde::Serialize)]
struct Answer {
    number: u32,
    text: String,
}

#[derive(Debug, thiserror::Error)]
#[error("it went wrong")]
struct Wrong(#[from] serde_json::Error);

fn main() -> Result<(), Wrong> {
    let text = base64::engine::general_purpose::STANDARD.encode("mount");
    println!("{}", serde_json::to_string(&Answer { number: 42, text })?);
    Ok(())
}
RUST
build() { (cd "$M/program" && CARGO_TARGET_DIR=$M/program/target cargo build --offline); }
check "cargo build with dependencies, procedural macros and build scripts" build
same "the program runs" "$("$M/program/target/debug/program")" '{"number":42,"text":"bW91bnQ="}'
build >"$T/again" 2>&1
check "a second cargo build compiles nothing" bash -c "! grep -q Compiling '$T/again'"
sed -i 's/number: 42/number: 43/' "$M/program/src/main.rs"
check "cargo build after a change" build
same "compiles one crate" "$(grep -c Compiling "$T/.check")" 1
remount alice
build >"$T/again" 2>&1
check "after another mount cargo build still compiles nothing" bash -c "! grep -q Compiling '$T/again'"

# ---- all of it on the second device
check "sync" sync_device alice 180
check "the second device has it" sync_device bob 180
check "git fsck on the second device" git -C "$T/bob/clone" fsck --full --strict
check "git status on the second device is clean" is_clean "$T/bob/clone"
same "the program runs there" "$("$T/bob/program/target/debug/program")" '{"number":43,"text":"bW91bnQ="}'
same_tree "everything is the same there" "$M" "$T/bob"
check "rm -rf of it all" bash -c "rm -rf '$M'/*"
check "and it is gone there" bash -c "DRIVEFS_HOME='$T/alice.home' drivefs sync --timeout 120 &&
    DRIVEFS_HOME='$T/bob.home' drivefs sync --timeout 60 && test -z \"\$(ls -A '$T/bob')\""
