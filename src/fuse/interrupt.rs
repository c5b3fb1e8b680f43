//! Noticing that whoever waits for an answer was killed.
//!
//! The kernel tells of it by FUSE_INTERRUPT, which fuser 0.18 answers by itself (ENOSYS, so the
//! kernel never sends another one). A killed reader would hang until the network gives up, so a read
//! that waits looks at the signals that are pending for its reader.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use fuser::ReplyData;
use rustix::process::Pid;
use rustix::process::test_kill_process;

use super::errno::spool;
use crate::spool::Content;
use crate::spool::Spool;

/// How often a waiting read looks; what takes less long never looks at all.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// SIGKILL in the masks of proc(5). A signal that ends a process by default (Ctrl-C) becomes a
/// SIGKILL for each of its threads.
const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);

/// Answers a read that has to wait for the network, or gives it up when its reader was killed.
pub async fn read(
    from: Arc<Spool>,
    content: Arc<Content>,
    offset: u64,
    len: usize,
    thread: u32,
    reply: ReplyData,
) {
    tokio::select! {
        biased;
        read = from.read(&content, offset, len) => match read {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(spool(&e)),
        },
        // What it fetches arrives all the same, for whoever reads it next.
        () = killed(thread) => reply.error(Errno::EINTR),
    }
}

/// Returns when the thread has a fatal signal pending, or is gone; never for a thread that cannot be
/// seen from here (0).
async fn killed(thread: u32) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if thread != 0 && is_killed(thread) {
            return;
        }
    }
}

fn is_killed(thread: u32) -> bool {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => has_fatal_signal(&status),
        // Missing, or it ended while it was read.
        Err(_) => is_gone(thread),
    }
}

/// Other users' processes may be hidden in /proc: that is not gone.
fn is_gone(thread: u32) -> bool {
    let Some(pid) = i32::try_from(thread).ok().and_then(Pid::from_raw) else { return false };
    test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

fn has_fatal_signal(status: &str) -> bool {
    status.lines().any(|line| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        mask.is_some_and(|mask| mask & SIGKILL_BIT != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_seen_and_other_signals_are_not() {
        let status = |own: &str, shared: &str| {
            format!("Name:\tcat\nState:\tD\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\tffff\n")
        };
        let none = "0000000000000000";
        assert!(has_fatal_signal(&status("0000000000000100", none)));
        assert!(has_fatal_signal(&status(none, "0000000000000102")));
        assert!(!has_fatal_signal(&status(none, none)));
        assert!(!has_fatal_signal(&status("0000000000000200", "0000000000004002")));
    }

    #[test]
    fn this_process_lives_and_a_reaped_child_does_not() {
        assert!(!is_killed(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id();
        child.wait().expect("it ends");
        assert!(is_killed(pid));
    }
}
