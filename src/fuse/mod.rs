//! The kernel side: FUSE requests to `fs` and back. Nothing is decided here.

mod adapter;
mod callers;
mod capabilities;
mod convert;
mod errno;
mod herald;
mod interrupt;
mod invalidate;
mod mountpoint;
mod outlived;
mod past;
mod raise;
mod readahead;
mod reply;
mod strict;
mod threads;
mod unlisted;
mod warden;
mod watchers;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use fuser::BackgroundSession;
use fuser::Config;
use fuser::MountOption;
use fuser::Session;
use fuser::SessionACL;

use crate::fs::DriveFs;

use callers::Callers;
use herald::Herald;
use threads::Threads;

pub use mountpoint::MountPoint;
pub use mountpoint::MountPointError;
pub use mountpoint::Mounted;
pub use mountpoint::is_dead;
pub use mountpoint::is_mounted;
pub use mountpoint::unmount;
pub use outlived::free_home;
pub use outlived::free_mount;
pub use outlived::note_mount;
pub use raise::raise_events;
pub use strict::Strict;
pub use warden::watch_daemon;

/// What is logged unless RUST_LOG says otherwise. fuser reports each reply to a request that the
/// kernel gave up meanwhile (an interrupted program) as an error: it is none.
pub const LOG_FILTER: &str = "warn,fuser=error,fuser::reply=off,drivefs=info";

/// How to mount.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    pub read_only: bool,
    pub allow_other: bool,
    /// Further options of mount(8), as given by `-o`.
    pub extra: Vec<String>,
}

/// Mounts the drive; with `strict`, close-to-open across devices. It is usable when this returns; dropping the session unmounts.
pub fn mount(
    fs: Arc<DriveFs>,
    dir: &Path,
    options: &MountOptions,
    runtime: tokio::runtime::Handle,
    strict: Option<Strict>,
) -> io::Result<BackgroundSession> {
    let tree = fs.tree().clone();
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("drivefs".into()),
        MountOption::Subtype("drivefs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    for extra in &options.extra {
        config.mount_options.push(option(extra));
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    config.n_threads = Some(threads);
    config.clone_fd = true;
    let notifier = Arc::new(OnceLock::new());
    let (callers, guarded) = (Arc::new(Callers::new()), Arc::new(OnceLock::new()));
    let herald = Arc::new(Herald::default());
    let adapter = adapter::Adapter {
        fs: fs.clone(),
        runtime,
        notifier: notifier.clone(),
        strict,
        callers: callers.clone(),
        threads: guarded.clone(),
        herald: herald.clone(),
    };
    let session = Session::new(adapter, dir, &config)?;
    warden::start(dir)?;
    notifier.get_or_init(|| session.notifier());
    let watchers = herald.start(fs, session.notifier(), dir)?;
    tree.set_listener(invalidate::start(session.notifier(), watchers)?);
    let session = session.spawn()?;
    match Threads::find(threads, callers).and_then(Threads::guarded) {
        Ok(threads) => {
            guarded.get_or_init(|| threads);
        }
        // Slower, not wrong.
        Err(error) => tracing::info!(%error, "the session threads do not follow callers"),
    }
    readahead::widen(dir);
    Ok(session)
}

fn option(text: &str) -> MountOption {
    match text {
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        "atime" | "noatime" => MountOption::NoAtime,
        other => MountOption::CUSTOM(other.to_owned()),
    }
}
