//! `drivefs umount`.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use clap::Args;

use crate::control::Control;
use crate::control::Reply;
use crate::control::Request;
use crate::fuse;
use crate::home::Home;

/// Longest wait for the daemon's end after the unmount.
const END_WAIT: Duration = Duration::from_secs(30);
/// How long a mount that is in use gets to become free.
const BUSY_WAIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct Umount {
    /// The folder that the drive is mounted on
    dir: PathBuf,
    /// Take the folder away at once even while programs use it; they keep what they have open
    #[arg(long)]
    lazy: bool,
}

pub fn run(c: &Umount) -> anyhow::Result<()> {
    let dir = &c.dir;
    let freed = fuse::free_mount(dir)?;
    let dead = fuse::is_dead(dir)?;
    if dead {
        fuse::unmount(dir, true)?;
    }
    if freed || dead {
        println!("{}: took away the mount of a daemon that had died", dir.display());
        return Ok(());
    }
    if matches!(std::fs::metadata(dir), Err(e) if e.kind() == io::ErrorKind::NotFound) {
        bail!("{} does not exist", dir.display());
    }
    let path = dir.canonicalize()?;
    if fuse::is_mounted(&path)? != Some(fuse::Mounted::Drivefs) {
        bail!("{} is not a mounted drivefs", dir.display());
    }
    let home = home_of(&path)?;
    // Bring what programs wrote to the daemon before it says what is still to be sent.
    rustix::fs::syncfs(std::fs::File::open(&path)?)?;
    let waiting =
        match Control::connect(&home).map(|mut c| c.ask(&Request::Status { limit: 0 }, |_| {})) {
            Ok(Ok(Reply::Status(status))) => status.queue_files,
            _ => 0,
        };
    match unmount(&path, c.lazy) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => bail!(
            "{} is in use: programs have files open there or stand in it. End them (`fuser -m {}` \
             lists them) or use --lazy",
            dir.display(),
            dir.display()
        ),
        other => other.with_context(|| format!("could not unmount {}", dir.display()))?,
    }
    if c.lazy {
        println!("the daemon ends when the last program has closed its files");
    } else {
        wait_for_end(&home)?;
    }
    if waiting > 0 {
        println!(
            "{waiting} change(s) are not on the server yet; they are safe on this device and are \
             sent after the next mount"
        );
    }
    Ok(())
}

/// Unmounts; the kernel may still be ending what a program that is gone has asked.
fn unmount(path: &Path, lazy: bool) -> io::Result<()> {
    let until = Instant::now() + BUSY_WAIT;
    loop {
        match fuse::unmount(path, lazy) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                std::thread::sleep(LOOK_EVERY);
            }
            other => return other,
        }
    }
}

/// The home that a mount belongs to, as its root tells.
fn home_of(mount: &Path) -> anyhow::Result<Home> {
    let mut value = vec![0; 4096];
    let n = rustix::fs::getxattr(mount, "user.drivefs.home", value.as_mut_slice())
        .context("the mount does not tell its home")?;
    value.truncate(n);
    Ok(Home::at(Path::new(&String::from_utf8(value)?))?)
}

/// The daemon ends its work (and the embedded server) after the unmount: wait for that.
fn wait_for_end(home: &Home) -> anyhow::Result<()> {
    let until = Instant::now() + END_WAIT;
    while home.lock()?.is_none() {
        if Instant::now() > until {
            bail!("unmounted, but the daemon has not ended within {END_WAIT:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
