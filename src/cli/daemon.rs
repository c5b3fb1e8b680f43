//! The daemon: puts the floors together, mounts, and ends in order.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::Account;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::Notify;

use super::alerts;
use super::checkup;
use super::embedded::Embedded;
use super::login::identity;
use super::mount::READY;
use crate::cache::BlockCache;
use crate::cache::DataFiles;
use crate::control;
use crate::control::Daemon;
use crate::fs::DriveFs;
use crate::fs::Owner;
use crate::fs::Space;
use crate::fuse;
use crate::fuse::MountOptions;
use crate::fuse::Strict;
use crate::home::AccountFile;
use crate::home::Home;
use crate::journal::Journal;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::spool::Spool;
use crate::state::Db;
use crate::state::DbError;
use crate::sync::Engine;
use crate::sync::EngineHandle;
use crate::sync::Pins;
use crate::sync::pull_some;
use crate::tree::Tree;

/// How long the mount of a known drive waits for the server.
const KNOWN_WAIT: Duration = Duration::from_secs(1);
/// How often quota and limits are asked for while nothing is sent, and while something is.
const ACCOUNT_EVERY: Duration = Duration::from_secs(60);
/// Bytes sent between two looks that count as nothing.
const QUIET_BYTES: u64 = 4096;
/// How often it is looked for deleted files that nobody has open (seconds).
const ORPHANS_EVERY: u64 = 10;
const ACCOUNT_EVERY_BUSY: Duration = Duration::from_secs(2);

/// What the daemon needs to know.
pub struct Setup {
    pub home: Home,
    /// Held for the daemon's life: one daemon a home.
    pub lock: File,
    pub dir: PathBuf,
    pub options: MountOptions,
    pub strict: bool,
    /// Show messages on the desktop.
    pub notify: bool,
    pub cache_bytes: u64,
    pub detached: bool,
}

pub fn run(setup: Setup) -> anyhow::Result<()> {
    let embedded = Embedded::start_if_needed(&setup.home)?;
    let account = AccountFile::load(&setup.home)?
        .context("this device is not logged in; `drivefs login URL --email E` does it")?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from))
        .enable_all()
        .build()?;
    let result = threads.block_on(serve(&setup, account));
    threads.shutdown_timeout(Duration::from_secs(5));
    drop(embedded);
    result
}

async fn serve(setup: &Setup, account: AccountFile) -> anyhow::Result<()> {
    let home = &setup.home;
    let remote = Remote::new(&account.url, Some(account.token.clone()))?;
    let db = Arc::new(open_database(home)?);
    let info = identify(&remote, &db).await?;
    let files = DataFiles::open_dir(&home.data())?;
    let newest = files.allocate(&db)?;
    let cache =
        Arc::new(BlockCache::open(db.clone(), files, Some(remote.clone()), setup.cache_bytes)?);
    let journal = Arc::new(Journal::open(&db)?);
    let handle = tokio::runtime::Handle::current();
    let spool = Arc::new(Spool::new(db.clone(), cache.clone(), journal.clone(), handle.clone()));
    spool.set_file_max(info.file_max);
    let tree = Arc::new(Tree::open(db.clone(), journal, spool.clone(), account.device.clone())?);
    recover(&tree, &spool)?;
    if tree.cursor(info.root)?.is_none() {
        // The first page; the rest comes while the drive is in use.
        pull_some(&remote, &tree, info.root, 1)
            .await
            .context("could not fetch the list of files")?;
    }
    let owner =
        Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    let fs = Arc::new(DriveFs::new(
        tree.clone(),
        owner,
        remote.clone(),
        home.root().display().to_string(),
    ));
    fs.set_space(info.space);
    let (engine, engine_handle) = Engine::new(remote.clone(), tree.clone(), info.root);
    let stop = Arc::new(Notify::new());
    let pins = Arc::new(Pins::new(tree.clone()));
    let keep_pins = pins.clone().run(engine_handle.clone());
    let daemon = Arc::new(Daemon {
        fs: fs.clone(),
        engine: engine_handle,
        pins,
        link: remote.link().clone(),
        account,
        mount: setup.dir.display().to_string(),
        stop: stop.clone(),
        alarms: Mutex::default(),
    });
    let watched = (home.clone(), daemon.engine.clone());
    let alerts = alerts::watch(remote.clone(), daemon.clone(), setup.notify);
    let strict = setup.strict.then(|| Strict::new(daemon.engine.clone(), daemon.link.clone()));
    let control = tokio::spawn(control::serve(home, daemon)?);
    let session = fuse::mount(fs.clone(), &setup.dir, &setup.options, handle, strict)
        .map_err(|e| mount_failed(setup, &e))?;
    fuse::note_mount(&setup.lock, &setup.dir)?;
    let (tell_damage, damage) = tokio::sync::oneshot::channel();
    let tasks = [
        control,
        tokio::spawn(checkup::watch(db.clone(), home.clone(), tell_damage)),
        tokio::spawn(alerts),
        tokio::spawn(engine.run()),
        tokio::spawn(keep_pins),
        tokio::spawn(cache.clone().run_eviction()),
        tokio::spawn(keep_house(db.clone(), tree.clone(), newest)),
        tokio::spawn(watch_account(remote, db.clone(), fs, watched)),
    ];
    tracing::info!(mount = %setup.dir.display(), "mounted");
    say_ready(setup.detached)?;

    let ended = Arc::new(Notify::new());
    let tell = ended.clone();
    let guard = session.guard;
    std::thread::spawn(move || {
        if let Ok(Err(error)) = guard.join() {
            tracing::warn!(%error, "the mount ended with an error");
        }
        tell.notify_one();
    });
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut damaged = None;
    tokio::select! {
        () = ended.notified() => {}
        Ok(advice) = damage => {
            leave(setup, &ended).await;
            damaged = Some(advice);
        }
        _ = term.recv() => leave(setup, &ended).await,
        _ = int.recv() => leave(setup, &ended).await,
        () = stop.notified() => leave(setup, &ended).await,
    }
    for task in &tasks {
        task.abort();
    }
    let flushed = db.flush();
    tracing::info!("ended");
    match damaged {
        Some(advice) => bail!("{advice}"),
        None => Ok(flushed?),
    }
}

fn open_database(home: &Home) -> anyhow::Result<Db> {
    match Db::open(&home.database()) {
        Err(e @ DbError::Damaged(_)) => bail!("{}", checkup::advice(home, &e.to_string())),
        other => Ok(other?),
    }
}

/// Facts about account and server that a mount needs; the last known ones when offline.
struct Info {
    root: NamespaceId,
    file_max: u64,
    space: Space,
}

async fn identify(remote: &Remote, db: &Arc<Db>) -> anyhow::Result<Info> {
    let known = db.peek(|c| c.meta("account"))?;
    let known: Option<Account> = known.and_then(|json| serde_json::from_slice(&json).ok());
    // A known drive does not wait for a server that is silent: it works without.
    let answer = if known.is_some() {
        let waited = tokio::time::timeout(KNOWN_WAIT, remote.account()).await;
        waited.unwrap_or_else(|_| Err(RemoteError::Offline("no answer in time".into())))
    } else {
        remote.account().await
    };
    let account = match (answer, known) {
        (Ok(account), known) => {
            if known.is_some_and(|k| identity(&k) != identity(&account)) {
                bail!(
                    "the server at {} is another one than this home's data came from (or was \
                     made anew). Log in with another DRIVEFS_HOME, or drop the local data with \
                     `drivefs logout --discard`",
                    remote.url()
                );
            }
            remember(db, &account)?;
            account
        }
        (Err(e), Some(known)) if e.is_passing() || matches!(e, RemoteError::Unauthorized(_)) => {
            tracing::warn!(error = %e, "mounting without the server");
            known
        }
        (Err(e), _) => {
            return Err(e).with_context(|| format!("could not reach {}", remote.url()));
        }
    };
    Ok(Info {
        root: account.root,
        file_max: account.file_max_bytes,
        space: Space { quota: account.quota_bytes, used: account.used_bytes },
    })
}

fn remember(db: &Arc<Db>, account: &Account) -> anyhow::Result<()> {
    let json = serde_json::to_vec(account)?;
    db.write(|c| {
        c.set_meta("account", &json)?;
        c.set_meta("identity", identity(account).as_bytes())
    })?;
    Ok(())
}

/// Mends what the death of an earlier daemon left.
fn recover(tree: &Tree, spool: &Spool) -> anyhow::Result<()> {
    for node in spool.recover()? {
        if node.links == 0 {
            tree.drop_orphan(node.nid)?;
        }
    }
    spool.forget_unused();
    Ok(())
}

fn mount_failed(setup: &Setup, e: &std::io::Error) -> anyhow::Error {
    let dir = setup.dir.display();
    let hint = match e.kind() {
        std::io::ErrorKind::NotFound => {
            "is fuse3 installed? (Debian: apt-get install fuse3; then `drivefs doctor`)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "may you open /dev/fuse, and own the folder? For --allow-other, user_allow_other must \
             stand in /etc/fuse.conf. `drivefs doctor` tells more"
        }
        _ => "`drivefs doctor` tells more",
    };
    anyhow::anyhow!("could not mount on {dir}: {e}; {hint}")
}

/// Tells the waiting command that the drive can be used, and lets go of its terminal.
fn say_ready(detached: bool) -> anyhow::Result<()> {
    if !detached {
        return Ok(());
    }
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Unmounts on request; a mount in use goes lazily.
async fn leave(setup: &Setup, ended: &Notify) {
    let dir = setup.dir.clone();
    let result = tokio::task::spawn_blocking(move || {
        fuse::unmount(&dir, false).or_else(|_| fuse::unmount(&dir, true))
    })
    .await;
    if let Ok(Err(error)) = result {
        tracing::error!(%error, "could not unmount");
        return;
    }
    // Programs that still have files open may keep a lazy mount alive: do not wait for them.
    let _ = tokio::time::timeout(Duration::from_secs(10), ended.notified()).await;
}

/// Checkpoints the database and sweeps leftovers of an earlier crash.
async fn keep_house(db: Arc<Db>, tree: Arc<Tree>, newest: u64) {
    let spool = tree.spool().clone();
    let cache = spool.cache().clone();
    let sweep = tokio::task::spawn_blocking(move || cache.sweep(newest));
    match sweep.await {
        Ok(Ok(0)) => {}
        Ok(Ok(n)) => tracing::info!(files = n, "removed leftovers of an earlier run"),
        Ok(Err(error)) => tracing::warn!(%error, "could not sweep the data folder"),
        Err(error) => tracing::error!(%error, "sweep"),
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 0u64.. {
        tick.tick().await;
        spool.forget_unused();
        let (db, tree, cache) = (db.clone(), tree.clone(), spool.cache().clone());
        let chores = tokio::task::spawn_blocking(move || {
            if second % ORPHANS_EVERY == 0
                && let Err(error) = tree.drop_orphans()
            {
                tracing::warn!(%error, "could not drop what was deleted");
            }
            if let Err(error) = cache.reclaim() {
                tracing::warn!(%error, "could not give disk space back");
            }
            if let Err(error) = cache.note_uses() {
                tracing::warn!(%error, "could not note the use of blocks");
            }
            // Other programs fill the disk, too.
            if let Err(error) = cache.shrink() {
                tracing::warn!(%error, "cache eviction failed");
            }
            if let Err(error) = db.checkpoint() {
                tracing::warn!(%error, "checkpoint failed");
            }
        });
        if let Err(error) = chores.await {
            tracing::error!(%error, "housekeeping");
        }
    }
}

/// Goes on with the token of a `drivefs login` since, if it is for the same account of the same
/// server. True when the server takes it.
async fn take_new_token(remote: &Remote, db: &Arc<Db>, home: &Home) -> bool {
    let Ok(Some(file)) = AccountFile::load(home) else { return false };
    if file.url != remote.url() || !remote.has_other_token(&file.token) {
        return false;
    }
    let Ok(trial) = Remote::new(&file.url, Some(file.token.clone())) else { return false };
    let Ok(account) = trial.account().await else { return false };
    let known = db.peek(|c| c.meta("identity"));
    if !known.is_ok_and(|known| known.is_some_and(|k| k == identity(&account).as_bytes())) {
        tracing::error!(url = file.url, "the new login is of another account or server: not used");
        return false;
    }
    remote.set_token(file.token);
    true
}

/// Keeps quota and limits fresh.
async fn watch_account(
    remote: Remote,
    db: Arc<Db>,
    fs: Arc<DriveFs>,
    (home, engine): (Home, EngineHandle),
) {
    let mut tick = tokio::time::interval(ACCOUNT_EVERY_BUSY);
    let mut asked = Instant::now();
    let mut sent = 0;
    loop {
        tick.tick().await;
        if remote.link().is_locked_out() && take_new_token(&remote, &db, &home).await {
            tracing::info!("logged in again");
            engine.begin_pull();
        }
        let now_sent = remote.link().bytes().0;
        // A poll or a question like this one is no reason to ask again.
        let busy = now_sent > sent + QUIET_BYTES;
        if !busy && asked.elapsed() < ACCOUNT_EVERY {
            continue;
        }
        (sent, asked) = (now_sent, Instant::now());
        let Ok(account) = remote.account().await else { continue };
        fs.set_space(Space { quota: account.quota_bytes, used: account.used_bytes });
        fs.spool().set_file_max(account.file_max_bytes);
        if let Err(error) = remember(&db, &account) {
            tracing::warn!(%error, "could not note the account's limits");
        }
    }
}
