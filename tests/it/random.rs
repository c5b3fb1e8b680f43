//! Random work of three devices, online and offline, with crashes in between: whatever the order,
//! all end in one tree, nothing is stuck, and nobody has anything left to send.
//!
//! `DRIVEFS_SEEDS=100..200` runs other seeds than the few of every test run; a seed replays.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::story::Device;
use crate::story::World;
use crate::story::all_sync;
use crate::story::same_files;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn folders(device: &Device<'_>) -> Vec<String> {
    let mut all: Vec<String> = device.names();
    all.retain(|n| n.ends_with('/'));
    all.push(String::new());
    all
}

/// A path below some folder that is there; it may be taken.
fn some_path(device: &Device<'_>, rng: &mut SmallRng) -> String {
    let all = folders(device);
    let folder = &all[rng.random_range(0..all.len())];
    format!("{folder}{}", NAMES[rng.random_range(0..NAMES.len())])
}

pub fn step(device: &Device<'_>, rng: &mut SmallRng, count: usize) -> String {
    let path = some_path(device, rng);
    let names = device.names();
    let is_folder = names.contains(&format!("{path}/"));
    let is_file = names.contains(&path);
    let (done, what) = match rng.random_range(0..10) {
        0 | 1 if !is_folder && !is_file => (device.try_mkdir(&path), format!("mkdir {path}")),
        2..=5 if !is_folder => {
            let text = format!("{} {count}", device.name());
            (device.try_write(&path, text.as_bytes()), format!("write {path}"))
        }
        6 if is_file || is_folder => (device.try_remove(&path), format!("rm {path}")),
        _ if is_folder || is_file => {
            let to = some_path(device, rng);
            (device.try_rename(&path, &to), format!("mv {path} {to}"))
        }
        _ => return String::new(),
    };
    // Refused, or taken away by another device meanwhile: as programs see it too.
    match done {
        Ok(()) => what,
        Err(e) => format!("{what}: {e}"),
    }
}

fn run(seed: u64, log: &mut Vec<String>) {
    let world = World::new();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut devices = [world.device("ann"), world.device("bob"), world.device("cyd")];
    for count in 0..60 {
        let i = rng.random_range(0..devices.len());
        let choice = rng.random_range(0..12);
        log.push(format!("{}: ", devices[i].name()));
        let done = match choice {
            0 => {
                devices[i].go_offline();
                "goes offline".to_owned()
            }
            1 => {
                devices[i].restart();
                "restarts".to_owned()
            }
            2 if devices[i].is_online() => {
                devices[i].sync();
                "syncs".to_owned()
            }
            _ => step(&devices[i], &mut rng, count),
        };
        log.last_mut().expect("pushed above").push_str(&done);
    }
    for device in &mut devices {
        if !device.is_online() {
            device.come_back();
        }
    }
    let refs: Vec<&Device<'_>> = devices.iter().collect();
    all_sync(&refs);
    all_sync(&refs);
    same_files(&refs);
    for device in &refs {
        assert_eq!(device.fs().tree().ahead().expect("counts"), (0, 0), "{}", device.name());
    }
}

#[test]
fn random_work_of_three_devices_ends_in_one_tree() {
    let seeds = std::env::var("DRIVEFS_SEEDS").unwrap_or_else(|_| "0..12".into());
    let (from, to) = seeds.split_once("..").expect("a range of seeds");
    for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        let mut log = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| run(seed, &mut log)));
        if let Err(panic) = result {
            eprintln!("seed {seed}:\n  {}", log.join("\n  "));
            resume_unwind(panic);
        }
    }
}
