//! `drivefs mount`: checks, then a daemon in the background (or this process with `-f`).

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::bail;
use clap::Args;

use super::daemon;
use crate::fuse;
use crate::fuse::MountOptions;
use crate::fuse::MountPoint;
use crate::home::Home;

/// What the daemon says on its standard output when the drive can be used.
pub const READY: &str = "ready";
/// Set for the process that is to be the daemon.
const DETACHED: &str = "DRIVEFS_DETACHED";
/// A log larger than this starts anew at the next mount (bytes).
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
const CACHE_DEFAULT: &str = "10GiB";

#[derive(Debug, Args)]
pub struct Mount {
    /// An empty folder
    dir: PathBuf,
    /// Stay in the foreground and log to standard error
    #[arg(short)]
    foreground: bool,
    /// Mount options, separated by commas, as mount(8) has them (ro, allow_other, nonempty, ...)
    #[arg(short = 'o', value_name = "OPTS", value_delimiter = ',')]
    options: Vec<String>,
    /// Disk space for cached content; what is not uploaded yet comes on top
    #[arg(long, value_name = "SIZE", default_value = CACHE_DEFAULT, value_parser = size)]
    cache_size: u64,
    /// Mount for reading only
    #[arg(long)]
    read_only: bool,
    /// Let other users of this machine in (their permissions are checked)
    #[arg(long)]
    allow_other: bool,
    /// open() asks the server for the newest version, close() and fsync() return when it has the
    /// file; without the server they fail. For programs on several devices that take turns
    #[arg(long)]
    strict: bool,
    /// Show no messages on the desktop (conflicts, mass changes, changes that the server refuses)
    #[arg(long)]
    no_notify: bool,
}

pub fn run(c: &Mount) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    let detached = std::env::var_os(DETACHED).is_some();
    if c.foreground || detached {
        return serve(c, &home, detached);
    }
    check_free(&home)?;
    MountPoint::check(&c.dir, has(c, "nonempty"))?;
    detach(&home)
}

/// Runs the daemon in this process.
fn serve(c: &Mount, home: &Home, detached: bool) -> anyhow::Result<()> {
    let lock = check_free(home)?;
    let point = MountPoint::check(&c.dir, has(c, "nonempty"))?;
    if point.repaired {
        eprintln!("took away the mount of a daemon that had died");
    }
    let known = ["ro", "rw", "allow_other", "nonempty", "_netdev", "noauto", "user", "defaults"];
    let options = MountOptions {
        read_only: c.read_only || has(c, "ro"),
        allow_other: c.allow_other || has(c, "allow_other"),
        extra: c.options.iter().filter(|o| !known.contains(&o.as_str())).cloned().collect(),
    };
    start_log();
    if detached {
        rustix::process::setsid().ok();
    }
    daemon::run(daemon::Setup {
        home: home.clone(),
        lock,
        dir: point.path,
        options,
        strict: c.strict,
        notify: !c.no_notify,
        cache_bytes: c.cache_size,
        detached,
    })
}

/// Starts this program again as the daemon and waits until the drive can be used.
fn detach(home: &Home) -> anyhow::Result<()> {
    if std::fs::metadata(home.log()).is_ok_and(|m| m.len() > LOG_MAX_BYTES) {
        std::fs::rename(home.log(), home.log().with_extension("log.old"))?;
    }
    let log = File::options().create(true).append(true).mode(0o600).open(home.log())?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("could not start the daemon")?;
    let mut out = BufReader::new(child.stdout.take().context("the daemon's output is piped")?);
    let mut line = String::new();
    while out.read_line(&mut line)? > 0 {
        let text = line.trim_end();
        if text == READY {
            return Ok(());
        }
        println!("{text}");
        line.clear();
    }
    let mut rest = String::new();
    out.read_to_string(&mut rest)?;
    let code = child.wait()?;
    bail!("{}", last_words(home).unwrap_or_else(|| format!("the daemon ended at once ({code})")))
}

/// The daemon's last error, from its log.
fn last_words(home: &Home) -> Option<String> {
    let log = std::fs::read(home.log()).ok()?;
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(8192)..]).into_owned();
    let at = tail.rfind("drivefs: ")?;
    Some(tail[at + "drivefs: ".len()..].trim_end().to_owned())
}

fn check_free(home: &Home) -> anyhow::Result<File> {
    if let Some(lock) = home.lock()? {
        return Ok(lock);
    }
    // Its holder may be dead, and stay.
    let lock = if fuse::free_home(home.root())? { home.lock()? } else { None };
    lock.with_context(|| {
        format!(
            "a drive is already mounted from {}; `drivefs status` shows where. Another device on \
             this machine needs another DRIVEFS_HOME",
            home.root().display()
        )
    })
}

fn has(c: &Mount, option: &str) -> bool {
    c.options.iter().any(|o| o == option)
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(crate::fuse::LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Parses sizes such as `10GiB`, `500MB`, `1048576`.
fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(format!("'{text}' is not a size like 10GiB or 500MB")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("'{text}' is not a size like 10GiB or 500MB"))
}
