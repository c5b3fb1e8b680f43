//! The answering end of the control socket, in the daemon.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::NodeId;
use drivefs_core::node::TimeNs;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::conflicts;
use super::content;
use super::content::blocking;
use super::locate;
use super::protocol::Alarm;
use super::protocol::QueueEntry;
use super::protocol::Reply;
use super::protocol::Request;
use super::protocol::Status;
use super::why;
use crate::fs::DriveFs;
use crate::home::AccountFile;
use crate::home::Home;
use crate::journal::now;
use crate::remote::Link;
use crate::sync::EngineHandle;
use crate::sync::Pins;
use crate::tree::QueueItem;
use crate::tree::TreeError;

/// Longest time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the kernel to take what changed: a lock of its own may hold it up.
const TELL_WAIT: Duration = Duration::from_secs(5);
/// How long `status` tells of a mass change (nanoseconds).
pub const ALARM_TIME: TimeNs = 24 * 3600 * 1_000_000_000;
/// Queue lines read for totals.
const QUEUE_MAX: usize = 10_000;

/// What the socket answers from.
pub struct Daemon {
    pub fs: Arc<DriveFs>,
    pub engine: EngineHandle,
    pub pins: Arc<Pins>,
    pub link: Arc<Link>,
    pub account: AccountFile,
    pub mount: String,
    pub stop: Arc<Notify>,
    /// Mass changes by other devices, oldest first.
    pub alarms: Mutex<Vec<Alarm>>,
}

/// Listens on the home's socket until dropped. A dead daemon's socket is replaced; the caller
/// holds the home's lock, so no living one is.
pub fn serve(
    home: &Home,
    daemon: Arc<Daemon>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let socket = home.control_socket();
    match fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let dir = fs::File::open(home.root())?;
    let name = socket.file_name().expect("the socket has a name").to_string_lossy();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let daemon = daemon.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(&daemon, stream).await {
                            tracing::debug!(%error, "a control connection broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn answer(daemon: &Arc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str(&line) {
            Ok(Request::Status { limit }) => status(daemon, limit).await,
            Ok(Request::Sync { path, timeout_secs }) => {
                sync(daemon, path, timeout_secs, &mut write).await?
            }
            Ok(Request::Pin { path }) => content::pin(daemon, path, &mut write).await?,
            Ok(Request::Unpin { path }) => content::unpin(daemon, &path).await,
            Ok(Request::Cache) => content::cache(daemon).await,
            Ok(Request::Evict { path }) => content::evict(daemon, path).await,
            Ok(Request::Why { path }) => why::why(daemon, path).await,
            Ok(Request::Conflicts) => conflicts::conflicts(&daemon.fs).await,
            Ok(Request::Resolve { path, keep }) => {
                conflicts::resolve(&daemon.fs, &daemon.engine, &path, keep).await
            }
            Ok(Request::Locate { path }) => locate::locate(daemon, path).await,
            Ok(Request::PathOf { node }) => locate::path_of(daemon, node).await,
            Ok(Request::Spaces) => locate::spaces(daemon).await,
            Ok(Request::Stop) => {
                daemon.stop.notify_one();
                Reply::Done
            }
            Err(e) => Reply::Failed { message: format!("unknown request: {e}") },
        };
        say(&mut write, &reply).await?;
    }
    Ok(())
}

pub(super) async fn say(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).expect("replies serialise");
    line.push(b'\n');
    write.write_all(&line).await
}

pub(super) async fn queue(daemon: &Arc<Daemon>) -> Result<Vec<QueueItem>, TreeError> {
    let tree = daemon.fs.tree().clone();
    tokio::task::spawn_blocking(move || tree.queue(QUEUE_MAX))
        .await
        .expect("reading the queue does not panic")
}

async fn status(daemon: &Arc<Daemon>, limit: usize) -> Reply {
    let engine = daemon.engine.status();
    let items = match queue(daemon).await {
        Ok(items) => items,
        Err(e) => return Reply::Failed { message: e.to_string() },
    };
    let ahead = match daemon.fs.tree().ahead() {
        // Below the bound the lines themselves are the count: a name and its node are one.
        Ok((nodes, _)) if items.len() >= QUEUE_MAX => nodes,
        Ok(_) => 0,
        Err(e) => return Reply::Failed { message: e.to_string() },
    };
    let conflicts = match daemon.fs.tree().conflicts() {
        Ok(files) => files.into_iter().map(|file| file.path).collect(),
        Err(e) => return Reply::Failed { message: e.to_string() },
    };
    let (bytes_sent, bytes_received) = daemon.link.bytes();
    let online = daemon.link.is_online();
    let reason = if online { engine.error.clone() } else { Some(daemon.link.reason()) };
    let trouble = daemon.fs.spool().cache().trouble();
    let cache = match content::cache_status(daemon).await {
        Ok(cache) => cache,
        Err(message) => return Reply::Failed { message },
    };
    let space = daemon.fs.space();
    let time = now();
    let entry = |item: &QueueItem| queue_entry(item, time, &engine.uploading);
    Reply::Status(Box::new(Status {
        mounted: true,
        mount: Some(daemon.mount.clone()),
        online,
        reason,
        server: daemon.account.url.clone(),
        email: daemon.account.email.clone(),
        device: daemon.account.device.clone(),
        filling: daemon.fs.tree().is_filling(),
        locked_out: daemon.link.is_locked_out(),
        restored: daemon.fs.tree().restored().unwrap_or_default(),
        damage: None,
        bytes_sent,
        bytes_received,
        queue_files: ahead.max(items.len() as u64),
        queue_bytes: items.iter().map(|i| i.bytes).sum(),
        queue: items.iter().take(limit).map(entry).collect(),
        conflicts,
        cache,
        quota_bytes: space.quota,
        used_bytes: space.used,
        mass_changes: alarms(daemon, time),
        last_read_error: trouble,
    }))
}

fn alarms(daemon: &Daemon, time: TimeNs) -> Vec<Alarm> {
    let alarms = daemon.alarms.lock().unwrap_or_else(PoisonError::into_inner);
    alarms.iter().filter(|a| time - a.at < ALARM_TIME).cloned().collect()
}

/// A line of the queue at `time` (ns).
pub(super) fn queue_entry(item: &QueueItem, time: i64, uploading: &[NodeId]) -> QueueEntry {
    let sending = item.node.is_some_and(|n| uploading.contains(&n));
    QueueEntry {
        path: item.path.clone(),
        bytes: item.bytes,
        age_secs: (time - item.at).max(0) as f64 / 1e9,
        state: if sending { "uploading".to_owned() } else { "pending".to_owned() },
        error: item.error.clone(),
    }
}

/// Waits for the goal of `drivefs sync`. With a path, only for what lies there.
async fn sync(
    daemon: &Arc<Daemon>,
    path: Option<String>,
    timeout_secs: Option<f64>,
    write: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<Reply> {
    let until = timeout_secs
        .filter(|s| s.is_finite() && *s >= 0.0)
        .map(|s| Instant::now() + Duration::from_secs_f64(s.min(1e9)));
    let mut goal = match daemon.engine.begin_sync() {
        Ok(goal) => goal,
        Err(e) => return Ok(Reply::Failed { message: e.to_string() }),
    };
    let mut told: Option<Instant> = None;
    loop {
        match daemon.engine.is_reached(&mut goal) {
            Ok(true) => return Ok(shown(daemon).await),
            Ok(false) => {}
            Err(e) => return Ok(Reply::Failed { message: e.to_string() }),
        }
        if told.is_some_and(|t| t.elapsed() < PROGRESS_EVERY) {
            daemon.engine.next_round(PROGRESS_EVERY).await;
            continue;
        }
        let items = match queue(daemon).await {
            Ok(items) => items,
            Err(e) => return Ok(Reply::Failed { message: e.to_string() }),
        };
        let mine: Vec<&QueueItem> = items.iter().filter(|i| is_under(i, path.as_deref())).collect();
        if path.is_some() && daemon.engine.is_pulled(&goal) {
            let waits = mine.iter().any(|i| i.since < goal.position);
            if !waits {
                return Ok(shown(daemon).await);
            }
        }
        let refused: Vec<&&QueueItem> = mine.iter().filter(|i| i.error.is_some()).collect();
        if !mine.is_empty() && refused.len() == mine.len() {
            return Ok(Reply::Failed { message: refusal(&refused) });
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Reply::Failed { message: timed_out(daemon, &mine) });
        }
        let progress = Reply::Progress {
            files: mine.len() as u64,
            bytes: mine.iter().map(|i| i.bytes).sum(),
            online: daemon.link.is_online(),
            reason: daemon.link.reason(),
        };
        say(write, &progress).await?;
        told = Some(Instant::now());
        daemon.engine.next_round(PROGRESS_EVERY).await;
    }
}

/// What is in the replica is to be seen in the mount, too: waits for the kernel to hear of it.
async fn shown(daemon: &Arc<Daemon>) -> Reply {
    let fs = daemon.fs.clone();
    let wait = move || {
        fs.tree().wait_until_told(TELL_WAIT);
        Ok(())
    };
    match blocking(wait).await {
        Ok(()) => Reply::Done,
        Err(e) => Reply::Failed { message: e.to_string() },
    }
}

pub(super) fn is_under(item: &QueueItem, path: Option<&str>) -> bool {
    let Some(path) = path.filter(|p| !p.is_empty()) else { return true };
    item.path == path || item.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

fn refusal(refused: &[&&QueueItem]) -> String {
    let mut text = format!("{} change(s) cannot be sent:", refused.len());
    for item in refused.iter().take(5) {
        let why = item.error.as_deref().unwrap_or("unknown reason");
        text.push_str(&format!("\n  {}: {why}", item.path));
    }
    text.push_str("\nThey are safe on this device and are tried again; see `drivefs status`");
    text
}

fn timed_out(daemon: &Daemon, mine: &[&QueueItem]) -> String {
    let mut text = format!("timed out; {} change(s) are not on the server yet", mine.len());
    if !daemon.link.is_online() {
        text.push_str(&format!(" (offline: {})", daemon.link.reason()));
    } else if let Some(error) = daemon.engine.status().error {
        text.push_str(&format!(" ({error})"));
    }
    text
}
