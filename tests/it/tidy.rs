//! The shape of the source: which floor may name which, and where each driver crate may be named.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The client's floors from bottom to top; modules of one floor do not name each other.
const CLIENT: &[&[&str]] = &[
    &["host"],
    &["home", "state"],
    &["remote", "journal"],
    &["cache"],
    &["spool"],
    &["tree"],
    &["fs", "sync", "history"],
    &["fuse", "control"],
    &["cli"],
];

const SERVER: &[&[&str]] = &[
    &["host"],
    &["clock", "config"],
    &["metadata", "blocks", "notify"],
    &["auth"],
    &["drive"],
    &["api", "jobs"],
    &["app"],
    &["cli"],
];

/// Driver crates and the only places that may name them.
const DRIVERS: &[(&str, &[&str])] = &[
    ("fuser", &["src/fuse"]),
    ("rusqlite", &["src/state", "server/src/metadata"]),
    ("reqwest", &["src/remote"]),
    ("object_store", &["server/src/blocks"]),
    ("axum", &["server/src/api"]),
    ("hyper", &["server/src/api/callback.rs", "server/src/api/serve.rs"]),
    ("indicatif", &["src/cli"]),
    ("chrono", &["src/cli"]),
    ("similar", &["src/cli"]),
    ("zbus", &["src/cli/desktop.rs"]),
    ("clap", &["src/cli", "server/src/cli", "server/src/config.rs", "server/src/main.rs"]),
];

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&top().join(dir), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|p| {
            let name = p.strip_prefix(top()).expect("below the top").display().to_string();
            (name, fs::read_to_string(p).expect("a text"))
        })
        .collect()
}

/// Code without comments: prose may name anything.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|l| !l.trim_start().starts_with("//"))
}

fn rank(floors: &[&[&str]], module: &str) -> Option<usize> {
    floors.iter().position(|f| f.contains(&module))
}

fn check_floors(dir: &str, floors: &[&[&str]]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, text) in sources(dir) {
        let rest = &name[dir.len() + 1..];
        let module = rest.split(['/', '.']).next().expect("a module");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(own) = rank(floors, module) else {
            wrong.push(format!("{name}: '{module}' is on no floor; say where it belongs"));
            continue;
        };
        for line in code(&text) {
            for part in line.split("crate::").skip(1) {
                let used = part.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let Some(other) = used.and_then(|u| rank(floors, u).map(|r| (u, r))) else {
                    continue;
                };
                if other.0 != module && other.1 >= own {
                    wrong.push(format!("{name}: names '{}', which is not below", other.0));
                }
            }
        }
    }
    wrong
}

#[test]
fn imports_point_down_only() {
    let mut wrong = check_floors("src", CLIENT);
    wrong.extend(check_floors("server/src", SERVER));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_driver_crate_is_named_in_one_place() {
    let mut wrong = Vec::new();
    for (name, text) in sources("src").into_iter().chain(sources("server/src")) {
        for (driver, places) in DRIVERS {
            let named = code(&text).any(|l| {
                l.contains(&format!("use {driver}::")) || l.contains(&format!("{driver}::"))
            });
            if named && !places.iter().any(|p| name.starts_with(p)) {
                wrong.push(format!("{name} names {driver}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn core_has_no_io_clock_or_randomness() {
    let mut wrong = Vec::new();
    for (name, text) in sources("core/src") {
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["std::fs", "std::net", "SystemTime", "Instant::now", "rand::", "tokio"] {
            if code(own).any(|l| l.contains(word)) {
                wrong.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut wrong = Vec::new();
    for dir in ["src", "core/src", "server/src", "tests/it"] {
        for (name, text) in sources(dir) {
            if !text.starts_with("//!") {
                wrong.push(format!("{name}: does not open with //!"));
            }
            let lines = text.lines().count();
            if lines > 700 {
                wrong.push(format!("{name}: {lines} lines; look for the second story"));
            }
            if code(&text).any(|l| {
                l.trim_start().starts_with("use ")
                    && l.ends_with("::*;")
                    && !l.contains("super::*")
                    && !l.contains("prelude::*")
            }) {
                wrong.push(format!("{name}: a glob import hides where a name comes from"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
