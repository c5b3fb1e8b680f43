//! `drivefs pin` and `drivefs unpin`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::control::Reply;
use crate::control::Request;

/// Keep a file or folder on this device: fetches all of it and never drops it from the cache.
///
/// A pinned folder stays complete: files that others put there later are fetched, too. Pins survive
/// unmounting. They count towards `--cache-size`, so that has to be large enough.
#[derive(Debug, Args)]
pub struct Pin {
    /// A file or folder of the drive
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take the pins of a file or folder, and of all below it, away.
///
/// What is here stays in the cache until its space is needed; `drivefs cache evict` drops it at
/// once.
#[derive(Debug, Args)]
pub struct Unpin {
    /// A file or folder of the drive
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(c: &Pin) -> anyhow::Result<()> {
    let (mut control, mount) = super::daemon()?;
    let path = super::below_mount(&c.path, &mount)?;
    let bar = ProgressBar::new(0);
    let template = "{spinner} {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes}";
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.enable_steady_tick(Duration::from_millis(120));
    let reply = control.ask(&Request::Pin { path }, |reply| {
        let Reply::Fetching { files, files_total, bytes, bytes_total, online } = reply else {
            return;
        };
        bar.set_length((*bytes_total).max(*bytes));
        bar.set_position(*bytes);
        bar.set_message(if *online {
            format!("fetching, {files} of {files_total} files")
        } else {
            "offline, waiting".to_owned()
        });
    })?;
    bar.finish_and_clear();
    match reply {
        Reply::Pinned(pinned) if c.json => println!("{}", serde_json::to_string(&pinned)?),
        Reply::Pinned(pinned) => {
            println!("{} file(s), {}: all here", pinned.files, super::human(pinned.bytes));
        }
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}

pub fn unpin(c: &Unpin) -> anyhow::Result<()> {
    let (mut control, mount) = super::daemon()?;
    let path = super::below_mount(&c.path, &mount)?;
    match control.ask(&Request::Unpin { path }, |_| {})? {
        Reply::Unpinned { pins } if c.json => {
            println!("{}", serde_json::json!({ "unpinned": pins }));
        }
        Reply::Unpinned { pins: 1 } => println!("unpinned"),
        Reply::Unpinned { pins } => println!("unpinned ({pins} pins)"),
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
    Ok(())
}
