//! The process that outlives the daemon for a moment: if the daemon was killed and cannot end because
//! one of its threads waits in the kernel (`outlived`), it aborts the connection.
//!
//! A process of its own, because every thread of the daemon dies with it. It never touches the mount,
//! and does nothing while the daemon lives. docs/decisions/0016-outliving.md has the reasons.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::mountpoint::device_of;
use super::outlived;

/// The command of this program that does it: mount point, device number and the daemon's process.
const COMMAND: &str = "watch-daemon";
/// How long a daemon that ends by itself may take, before the mount by its path is ended for it.
const GRACE: Duration = Duration::from_millis(300);
/// After the signal the daemon dies in less; else the signal meant something else.
const DEATH_WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts it, on a thread that lives as long: the kernel tells a child of the death of the thread
/// that started it.
pub(super) fn start(mount: &Path) -> io::Result<()> {
    let mount = mount.to_owned();
    thread::Builder::new().name("warden".into()).spawn(move || {
        let ended = run(&mount);
        tracing::info!(?ended, "a daemon that is killed may stay from now on: nobody watches it");
    })?;
    Ok(())
}

fn run(mount: &Path) -> io::Result<ExitStatus> {
    let device = device_of(mount)?.ok_or(io::ErrorKind::NotFound)?;
    // This very program, even if another version has been installed meanwhile.
    Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(mount)
        .arg(device)
        .arg(std::process::id().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?
        .wait()
}

/// Waits for the death of the daemon, and aborts what it leaves.
pub fn watch_daemon(mount: &Path, device: &str, daemon: u32) -> io::Result<()> {
    // Keys of the terminal that a daemon in the foreground has are for the daemon.
    rustix::process::setsid().ok();
    // As long as the daemon lives this is its connection, and no other one later.
    let handle = outlived::handle(device);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Who ends all processes of a service means the daemon: this one follows by itself.
        let _ignored = signal(SignalKind::terminate())?;
        let mut died = signal(SignalKind::user_defined1())?;
        rustix::process::set_parent_process_death_signal(Some(Signal::USR1))?;
        while !is_dead(daemon) {
            died.recv().await;
            let until = Instant::now() + DEATH_WAIT;
            while !is_dead(daemon) && Instant::now() < until {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok::<(), io::Error>(())
    })?;
    if let Ok(handle) = handle {
        // If the connection is gone it does nothing.
        handle.write_all_at(b"1", 0)?;
        return Ok(());
    }
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        if !has_threads(daemon) {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
    outlived::abort(device, mount)
}

/// Its first thread has ended, or is about to vanish.
fn is_dead(process: u32) -> bool {
    match fs::read(format!("/proc/{process}/stat")) {
        Ok(stat) => {
            let close = stat.iter().rposition(|&b| b == b')').unwrap_or_default();
            matches!(stat.get(close + 2), Some(b'Z' | b'X'))
        }
        Err(_) => true,
    }
}

/// Threads besides the first one, which is dead.
fn has_threads(process: u32) -> bool {
    fs::read_dir(format!("/proc/{process}/task")).is_ok_and(|tasks| tasks.count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_is_who_has_ended() {
        assert!(!is_dead(std::process::id()));
        assert!(has_threads(std::process::id()));
        let mut child = Command::new("true").spawn().expect("it runs");
        let until = Instant::now() + Duration::from_secs(60);
        while !is_dead(child.id()) {
            assert!(Instant::now() < until, "a zombie is dead");
            thread::sleep(LOOK_EVERY);
        }
        assert!(!has_threads(child.id()));
        child.wait().expect("it is ours");
        assert!(is_dead(child.id()));
    }
}
