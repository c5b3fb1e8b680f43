//! Where the session threads run: one a core, or all on the core of a caller that is alone.
//!
//! Between cores a request and its answer cost 60 us on the machines that were measured, most of it
//! waking a core that sleeps, and 6 us on one core. Being on one core takes two things. The kernel
//! wakes session threads in turn, so all of them have to be there. And it wakes the caller on a core
//! that is idle, which that of the answering thread is not, unless the thread runs by SCHED_IDLE:
//! then the caller takes its core at once, and the thread goes on while the caller waits.
//!
//! Such threads would starve beside a program that computes. So a guard looks every few
//! milliseconds, and puts everything back as soon as little is asked.

use std::fs;
use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::Thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::thread::CpuSet;
use rustix::thread::gettid;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

use super::callers::Callers;
use super::callers::Place;

/// What fuser calls its session threads: this and a number.
const NAME: &str = "fuser-";
/// How long the threads may take to come up.
const START_WAIT: Duration = Duration::from_secs(1);
/// How often the guard looks: the longest that a request starves.
const TICK: Duration = Duration::from_millis(4);

/// Longest `stat` of a thread, in bytes: 52 numbers and a name.
const STAT_MAX: usize = 2048;

/// The session threads of a mount, and the processors that they may use.
#[derive(Debug)]
pub struct Threads {
    threads: Vec<Pid>,
    processors: Vec<usize>,
    callers: Arc<Callers>,
    /// The processor on which they are together.
    together: Mutex<Option<usize>>,
    ended: AtomicBool,
}

/// Threads that follow callers.
#[derive(Debug)]
pub struct Guarded {
    threads: Arc<Threads>,
    guard: Thread,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.threads.ended.store(true, Ordering::Relaxed);
        self.guard.unpark();
    }
}

impl Guarded {
    /// Puts the threads there. Where they run is a matter of speed alone, so what fails is logged.
    pub fn put(&self, place: Place) {
        self.threads.put(place);
        if matches!(place, Place::With(_)) {
            self.guard.unpark();
        }
    }
}

impl Threads {
    /// Finds the `count` session threads of this process, which come up about now, and spreads them.
    pub fn find(count: usize, callers: Arc<Callers>) -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let processors = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let deadline = Instant::now() + START_WAIT;
        let threads = loop {
            let threads = session_threads()?;
            if threads.len() >= count {
                break threads;
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the session threads did not come up"));
            }
            thread::sleep(Duration::from_millis(1));
        };
        let found = Self {
            threads,
            processors,
            callers,
            together: Mutex::new(None),
            ended: AtomicBool::new(false),
        };
        found.spread()?;
        Ok(found)
    }

    /// Starts the guard. Fails where a thread may not leave SCHED_IDLE again (that takes
    /// CAP_SYS_NICE or RLIMIT_NICE): the threads stay spread then.
    pub fn guarded(self) -> io::Result<Guarded> {
        let threads = Arc::new(self);
        let (watched, (tried, result)) = (threads.clone(), std::sync::mpsc::channel());
        let guard = thread::Builder::new().name("guard".into()).spawn(move || {
            let may = set_idle(gettid(), true).and_then(|()| set_idle(gettid(), false));
            let fails = may.is_err();
            // Who started this waits for it.
            let _ = tried.send(may);
            if fails {
                return;
            }
            while !watched.ended.load(Ordering::Relaxed) {
                thread::park();
                thread::sleep(TICK);
                while watched.callers.tick(|| watched.starve()) {
                    thread::sleep(TICK);
                }
                watched.put(Place::Spread);
            }
        })?;
        result.recv().map_err(io::Error::other)??;
        Ok(Guarded { threads, guard: guard.thread().clone() })
    }

    fn put(&self, place: Place) {
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match place {
            Place::Spread if together.is_none() => Ok(()),
            Place::Spread => {
                *together = None;
                self.spread()
            }
            Place::With(caller) => self.follow(caller, &mut together),
        };
        if let Err(error) = result {
            tracing::debug!(%error, ?place, "the session threads stay where they are");
        }
    }

    /// Gives each thread its share of the processors.
    fn spread(&self) -> io::Result<()> {
        let count = self.threads.len();
        for (i, &thread) in self.threads.iter().enumerate() {
            set_idle(thread, false)?;
            let mut own = CpuSet::new();
            for &cpu in self.processors.iter().skip(i % count).step_by(count) {
                own.set(cpu);
            }
            if own.count() > 0 {
                sched_setaffinity(Some(thread), &own)?;
            }
        }
        Ok(())
    }

    fn follow(&self, caller: u32, together: &mut Option<usize>) -> io::Result<()> {
        let (_, cpu) = state_and_processor(&stat(&format!("/proc/{caller}/stat"))?);
        let Some(cpu) = cpu.filter(|cpu| self.processors.contains(cpu)) else { return Ok(()) };
        let before = together.replace(cpu);
        if before == Some(cpu) {
            return Ok(());
        }
        let mut one = CpuSet::new();
        one.set(cpu);
        for &thread in &self.threads {
            sched_setaffinity(Some(thread), &one)?;
            if before.is_none() {
                set_idle(thread, true)?;
            }
        }
        Ok(())
    }

    /// True when a session thread is ready to run and does not.
    fn starve(&self) -> bool {
        self.threads.iter().any(|thread| {
            let stat = stat(&format!("/proc/self/task/{}/stat", thread.as_raw_nonzero()));
            stat.is_ok_and(|stat| state_and_processor(&stat).0 == Some('R'))
        })
    }
}

/// Gives a thread the policy SCHED_IDLE, or SCHED_OTHER.
#[expect(unsafe_code, reason = "no maintained crate sets the policy of a thread by its number")]
fn set_idle(thread: Pid, idle: bool) -> io::Result<()> {
    let policy = if idle { libc::SCHED_IDLE } else { libc::SCHED_OTHER };
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads `priority`, which lives until it returns, and nothing else.
    match unsafe { libc::sched_setscheduler(thread.as_raw_pid(), policy, &priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads a `stat` file, in one call: this is done often.
fn stat(path: &str) -> io::Result<Vec<u8>> {
    let mut text = vec![0; STAT_MAX];
    let len = fs::File::open(path)?.read(&mut text)?;
    text.truncate(len);
    Ok(text)
}

/// The state of a thread and the processor that it ran on last: fields 3 and 39 of its `stat`, see
/// proc_pid_stat(5). Field 2 is the program's name in parentheses, and may contain anything.
fn state_and_processor(stat: &[u8]) -> (Option<char>, Option<usize>) {
    const BETWEEN: usize = 39 - 3 - 1;
    let fields = stat.rsplit(|&b| b == b')').next().and_then(|f| std::str::from_utf8(f).ok());
    let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
    let state = fields.next().and_then(|f| f.chars().next());
    (state, fields.nth(BETWEEN).and_then(|f| f.parse().ok()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_processor_are_found_behind_any_name() {
        let stat = fs::read("/proc/thread-self/stat").unwrap();
        let (state, cpu) = state_and_processor(&stat);
        assert_eq!(state, Some('R'));
        assert!(sched_getaffinity(None).unwrap().is_set(cpu.unwrap()));
        let rest: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let odd = format!("12 (a) 1 (b) c) S {}", rest.join(" "));
        assert_eq!(state_and_processor(odd.as_bytes()), (Some('S'), Some(39)));
        assert_eq!(state_and_processor(b"12 (a) R 1"), (Some('R'), None));
        assert_eq!(state_and_processor(b""), (None, None));
    }
}
