//! `drivefs raise-events`: the daemon's helper that raises events for remote changes.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct RaiseEvents {
    mount: PathBuf,
    /// Number of the mounted file system, MAJOR:MINOR
    device: String,
}

pub fn run(c: &RaiseEvents) -> anyhow::Result<()> {
    Ok(crate::fuse::raise_events(&c.mount, &c.device)?)
}
