//! `drivefs sync`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::control::Control;
use crate::control::Reply;
use crate::control::Request;
use crate::home::Home;

#[derive(Debug, Args)]
pub struct Sync {
    /// Wait only for this file or folder of the drive [default: everything]
    path: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECS")]
    timeout: Option<f64>,
}

pub fn run(c: &Sync) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    let mut control = Control::connect(&home)?;
    let mount = match control.ask(&Request::Status { limit: 0 }, |_| {})? {
        Reply::Status(status) => status.mount.unwrap_or_default(),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    };
    let path = match &c.path {
        Some(path) => Some(super::below_mount(path, &mount)?),
        None => None,
    };
    wait(&mut control, &mount, path, c.timeout)
}

/// Waits until all that was changed at a path below the mount (or anywhere) is on the server, and
/// all that the server has is here.
pub fn wait(
    control: &mut Control,
    mount: &str,
    path: Option<String>,
    timeout_secs: Option<f64>,
) -> anyhow::Result<()> {
    // What programs wrote may still be in the page cache: hand it to the daemon first.
    rustix::fs::syncfs(std::fs::File::open(mount)?)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {pos}/{len}")?);
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut most = 0;
    let request = Request::Sync { path, timeout_secs };
    let reply = control.ask(&request, |reply| {
        let Reply::Progress { files, bytes, online, reason } = reply else { return };
        most = most.max(*files);
        bar.set_length(most);
        bar.set_position(most - files);
        bar.set_message(if *online {
            format!("sending {}", super::human(*bytes))
        } else {
            format!("offline, waiting: {reason}")
        });
    })?;
    bar.finish_and_clear();
    match reply {
        Reply::Done => Ok(()),
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
}
