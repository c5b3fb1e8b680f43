//! Tells programs that watch the drive of remote changes.
//!
//! The kernel raises events for calls alone, so a helper (`raise`) makes a call for each change and
//! the adapter, which knows the helper by its process id, answers it as done. Nothing that the helper
//! asks ever changes the drive. It runs only while somebody watches (`watchers`), on the word of a
//! thread that nothing waits for: events are a courtesy, and may be dropped.
//!
//! docs/decisions/0011-watching.md has what the kernel does, measured.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::channel;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::node::NodeKind;
use fuser::INodeNo;
use fuser::Notifier;
use fuser::Request;
use rustix::process::Pid;
use rustix::process::WaitId;
use rustix::process::WaitIdOptions;

use super::convert::ifmt;
use super::mountpoint::device_of;
use super::raise;
use super::raise::Call;
use super::raise::Spot;
use super::watchers;
use super::watchers::Watched;
use crate::fs::Attr;
use crate::fs::DriveFs;
use crate::state::Nid;
use crate::tree::Deed;
use crate::tree::Felt;
use crate::tree::Place;
use crate::tree::TreeError;

/// The handle of the helper's open files.
pub(super) const HANDLE: u64 = u64::MAX;
/// Changes that wait to be told; more are dropped.
const QUEUE_MAX: usize = 8192;
/// Least time between two looks at who watches, and how much longer than one look takes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_SHARE: u32 = 20;
/// How long the helper gets for one call.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// After a helper that failed, the next one is started so much later.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// A program may look a name up between the kernel's forgetting and the helper's call.
const TRIES: usize = 3;

/// What the adapter has to know to answer the helper.
#[derive(Debug, Default)]
pub(super) struct Herald {
    /// Process of the helper; 0 without one.
    helper: AtomicU32,
    /// What it is telling right now.
    telling: Mutex<Option<Felt>>,
}

impl Herald {
    pub fn asks(&self, req: &Request) -> bool {
        let helper = self.helper.load(Relaxed);
        helper != 0 && helper == req.pid()
    }

    fn telling(&self) -> Option<Felt> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, felt: Option<Felt>) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = felt;
    }

    /// What was there before the change, where that is another answer than what is there now.
    pub fn lookup(
        &self,
        fs: &DriveFs,
        parent: Nid,
        name: &[u8],
    ) -> Option<Result<Attr, TreeError>> {
        let is = |at: &Place| at.parent == parent && at.name == name;
        match self.telling()? {
            Felt::Here { at, deed: Deed::Added, .. } if is(&at) => Some(Err(TreeError::NotFound)),
            Felt::Here { at, deed: Deed::Removed, nid, kind } if is(&at) => {
                Some(fs.getattr(nid).or_else(|_| Ok(gone(nid, kind))))
            }
            Felt::Moved { from, nid, .. } if is(&from) => Some(fs.getattr(nid)),
            Felt::Moved { to, .. } if is(&to) => Some(Err(TreeError::NotFound)),
            _ => None,
        }
    }

    /// Something is made: it is there already.
    pub fn made(&self, fs: &DriveFs, parent: Nid, name: &[u8]) -> Result<Attr, TreeError> {
        match self.telling() {
            Some(Felt::Here { at, deed: Deed::Added, nid, .. })
                if at.parent == parent && at.name == name =>
            {
                fs.lookup(parent, name)
                    .and_then(|a| if a.nid == nid { Ok(a) } else { Err(TreeError::Busy) })
            }
            _ => Err(TreeError::Busy),
        }
    }

    /// Something is removed: it is gone already.
    pub fn removed(&self, fs: &DriveFs, parent: Nid, name: &[u8]) -> Result<(), TreeError> {
        match self.telling() {
            Some(Felt::Here { at, deed: Deed::Removed, nid, .. })
                if at.parent == parent && at.name == name =>
            {
                match fs.lookup(parent, name) {
                    Ok(attr) if attr.nid == nid => Err(TreeError::Busy),
                    Ok(_) | Err(TreeError::NotFound) => Ok(()),
                    Err(e) => Err(e),
                }
            }
            _ => Err(TreeError::Busy),
        }
    }

    /// Something is renamed: it has the new name already.
    pub fn renamed(
        &self,
        fs: &DriveFs,
        (parent, name): (Nid, &[u8]),
        (new_parent, new_name): (Nid, &[u8]),
    ) -> Result<(), TreeError> {
        match self.telling() {
            Some(Felt::Moved { from, to, nid, .. })
                if (from.parent, from.name.as_slice()) == (parent, name)
                    && (to.parent, to.name.as_slice()) == (new_parent, new_name) =>
            {
                let is = fs.lookup(new_parent, new_name)?.nid == nid;
                let was = fs.lookup(parent, name);
                if is && matches!(was, Err(TreeError::NotFound)) {
                    Ok(())
                } else {
                    Err(TreeError::Busy)
                }
            }
            _ => Err(TreeError::Busy),
        }
    }

    /// Starts the thread that tells; it ends when the sender is dropped.
    pub fn start(
        self: Arc<Self>,
        fs: Arc<DriveFs>,
        notifier: Notifier,
        mount: &Path,
    ) -> io::Result<SyncSender<Felt>> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let teller = Teller {
            herald: self,
            fs,
            notifier,
            mount: mount.to_owned(),
            helper: None,
            failed: None,
        };
        thread::Builder::new().name("herald".into()).spawn(move || teller.run(&receiver))?;
        Ok(sender)
    }
}

/// Attributes of what is gone altogether.
fn gone(nid: Nid, kind: NodeKind) -> Attr {
    let (mode, size) = (0o600, 0);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (atime, mtime, ctime, btime) = (0, 0, 0, 0);
    Attr { nid, kind, mode, uid, gid, rdev: 0, size, atime, mtime, ctime, btime, links: 1 }
}

struct Teller {
    herald: Arc<Herald>,
    fs: Arc<DriveFs>,
    notifier: Notifier,
    mount: PathBuf,
    helper: Option<Helper>,
    failed: Option<Instant>,
}

impl Teller {
    fn run(mut self, receiver: &Receiver<Felt>) {
        // The mount is there by now, and its number stays.
        let device = device_of(&self.mount).ok().flatten().unwrap_or_default();
        let Some(marks) = watchers::kernel_device(&device) else {
            tracing::info!("the mount has no device number: programs that watch hear nothing");
            return;
        };
        let mut next_look = Instant::now();
        while let Ok(first) = receiver.recv() {
            // Whoever began to watch before a change must be seen: look after it, but not too often.
            thread::sleep(next_look.saturating_duration_since(Instant::now()));
            let mut batch = VecDeque::from([first]);
            batch.extend(receiver.try_iter());
            let begin = Instant::now();
            let watched = watchers::look(&marks).unwrap_or_else(|error| {
                tracing::info!(%error, "cannot see who watches");
                Watched::default()
            });
            next_look = Instant::now() + LOOK_EVERY.max(begin.elapsed() * LOOK_SHARE);
            if watched.is_empty() {
                continue;
            }
            for felt in batch {
                if is_watched(&watched, &felt)
                    && let Err(error) = self.tell(&felt, &device)
                {
                    tracing::debug!(%error, ?felt, "an event could not be raised");
                }
            }
        }
        self.drop_helper();
    }

    fn tell(&mut self, felt: &Felt, device: &str) -> io::Result<()> {
        let call = self.call(felt).map_err(io::Error::other)?;
        for _ in 0..TRIES {
            for at in places(felt) {
                let name = OsStr::from_bytes(&at.name);
                self.notifier.inval_entry(INodeNo(at.parent), name)?;
            }
            self.herald.tell(Some(felt.clone()));
            let answer = self.ask(&call, device);
            self.herald.tell(None);
            match answer? {
                0 => return Ok(()),
                libc::EEXIST | libc::ENOENT | libc::ESTALE => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Err(io::Error::other("it changed meanwhile"))
    }

    fn call(&self, felt: &Felt) -> Result<Call, TreeError> {
        let spot = |at: &Place| -> Result<Spot, TreeError> {
            let way = self.fs.tree().names_to(at.parent)?.join(&b'/');
            Ok(Spot { inode: at.parent, way, name: at.name.clone() })
        };
        Ok(match felt {
            Felt::Moved { from, to, .. } => Call::Move(spot(from)?, spot(to)?),
            Felt::Here { at, deed, kind, .. } => match deed {
                Deed::Added => Call::Make(spot(at)?, ifmt(*kind)),
                Deed::Removed => Call::Remove(spot(at)?, ifmt(*kind)),
                Deed::Edited => Call::Write(spot(at)?),
                Deed::Attrs => Call::Touch(spot(at)?),
            },
        })
    }

    /// What the helper answers: 0 or an errno.
    fn ask(&mut self, call: &Call, device: &str) -> io::Result<i32> {
        if self.helper.is_none() {
            if self.failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
                return Err(io::Error::other("the helper has failed just now"));
            }
            let helper = Helper::start(&self.mount, device)?;
            self.herald.helper.store(helper.child.id(), Relaxed);
            self.helper = Some(helper);
        }
        let answer = self
            .helper
            .as_mut()
            .map_or_else(|| Err(io::Error::other("no helper")), |h| h.ask(call));
        if answer.is_err() {
            self.failed = Some(Instant::now());
            self.drop_helper();
        }
        answer
    }

    /// Until it is gone the helper is known for what it is: nothing that it has still under way may be
    /// taken for a wish of somebody.
    fn drop_helper(&mut self) {
        if let Some(helper) = self.helper.take() {
            let herald = &self.herald;
            if let Err(error) = helper.end(|| herald.helper.store(0, Relaxed)) {
                tracing::warn!(%error, "the helper that raises events did not end");
            }
        }
    }
}

fn places(felt: &Felt) -> Vec<&Place> {
    match felt {
        Felt::Here { at, .. } => vec![at],
        Felt::Moved { from, to, .. } => vec![from, to],
    }
}

fn is_watched(watched: &Watched, felt: &Felt) -> bool {
    let (Felt::Here { nid, .. } | Felt::Moved { nid, .. }) = felt;
    watched.has(*nid) || places(felt).iter().any(|at| watched.has(at.parent))
}

struct Helper {
    child: Child,
    input: ChildStdin,
    answers: Receiver<i32>,
}

impl Helper {
    fn start(mount: &Path, device: &str) -> io::Result<Self> {
        // This very program, even if another version has been installed meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg(raise::COMMAND)
            .arg(mount)
            .arg(device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the helper's ends are piped"));
        };
        let (sender, answers) = channel();
        thread::Builder::new().name("herald-answers".into()).spawn(move || {
            for line in BufReader::new(output).lines() {
                let Some(answer) = line.ok().and_then(|line| line.parse().ok()) else { return };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { child, input, answers })
    }

    fn ask(&mut self, call: &Call) -> io::Result<i32> {
        self.input.write_all(&call.encode())?;
        self.answers.recv_timeout(ANSWER_WAIT).map_err(io::Error::other)
    }

    /// Ends it. `gone` is called when it does nothing any more and its number is not free yet.
    fn end(mut self, gone: impl FnOnce()) -> io::Result<()> {
        drop(self.input);
        self.child.kill()?;
        let pid = Pid::from_child(&self.child);
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        gone();
        self.child.wait()?;
        Ok(())
    }
}
