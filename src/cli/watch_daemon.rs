//! `drivefs watch-daemon`: the daemon's helper that frees its mount when it is killed.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct WatchDaemon {
    mount: PathBuf,
    /// Number of the mounted file system, MAJOR:MINOR
    device: String,
    /// Number of the daemon's process
    daemon: u32,
}

pub fn run(c: &WatchDaemon) -> anyhow::Result<()> {
    Ok(crate::fuse::watch_daemon(&c.mount, &c.device, c.daemon)?)
}
