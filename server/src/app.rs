//! The composition root: settings become stores, stores a router, the router a server.
//!
//! Stops in order: no new connections, long polls answered, requests in flight finished (for a
//! bounded time), the database closed.

use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use rustix::fs::FlockOperation;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api;
use crate::api::Link;
use crate::api::Listening;
use crate::api::Shared;
use crate::auth::limiter::Limiter;
use crate::blocks::BlockStore;
use crate::blocks::KeyRing;
use crate::config::Config;
use crate::config::Role;
use crate::drive::Drive;
use crate::drive::Limits;
use crate::drive::Work;
use crate::drive::backup::RESTORING;
use crate::drive::files::Turns;
use crate::drive::files::complete::Completion;
use crate::drive::fsck::Progress;
use crate::drive::rotate;
use crate::drive::rotate::KEY_NOTE;
use crate::drive::rotate::Rotated;
use crate::drive::seal::Seal;
use crate::host;
use crate::jobs;
use crate::metadata::DbError;
use crate::metadata::Store;
use crate::metadata::check;
use crate::metadata::epochs;
use crate::metadata::server;
use crate::metadata::tiers;
use crate::notify::Hub;

/// How long requests in flight may take once the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How often held long polls look for commits of other processes.
const FOREIGN_COMMITS_EVERY: Duration = Duration::from_millis(100);

/// Connections that may wait to be taken, as far as the system allows: after a restart all clients
/// come at once, and those for whom there is no room try again after seconds.
const BACKLOG: u32 = 16_384;

/// How often stored uploads that nobody asks for are ended.
const LEFT_UPLOADS_EVERY: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    addr: SocketAddr,
    drive: Drive,
    stop: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
    working: Option<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Server {
    /// Starts serving; returns once connections are taken.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(api::Tls::open).transpose()?;
        make_data_dir(&config.data)?;
        let lock = lock_data(&config.data)?;
        let drive = open_drive(&config, None).await?;
        note_keys(&drive).await?;
        let moved = drive.moved().await?;
        let listener =
            listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let shared = Shared { drive: Arc::new(drive.clone()), metrics: api::install_metrics() };
        let (stop, mut stopped) = watch::channel(false);
        let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let has_jobs = config.roles.contains(&Role::Jobs);
        let working = (has_jobs || config.roles.contains(&Role::Blocks)).then(|| {
            let data = config.data.clone();
            tokio::spawn(jobs::serve(drive.clone(), data, has_jobs, stop.subscribe()))
        });
        let listening = Listening {
            listener,
            tls,
            connections_max: connections_max(&config),
            roles: config.roles.clone(),
        };
        let serving = tokio::spawn(api::serve(listening, shared, stopped));
        let mut background = vec![
            tokio::spawn(watch_foreign_commits(drive.clone(), moved)),
            tokio::spawn(drive.clone().gauge_forever()),
            tokio::spawn(resume_rotation(config.clone(), drive.clone())),
        ];
        if config.roles.contains(&Role::Api) {
            background.push(tokio::spawn(end_left_uploads(drive.clone())));
        }
        if has_jobs && config.scrub_rate > 0 {
            background.push(tokio::spawn(drive.clone().scrub_forever(config.scrub_rate)));
        }
        Ok(Self { addr, drive, stop, serving, working, background, _lock: lock })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Everything behind the doors, for what is done in process.
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// The store, for accounts to be added in process.
    pub fn store(&self) -> &Store {
        &self.drive.store
    }

    /// Returns when it no longer serves although nobody stopped it, which is to end the process:
    /// whoever watches it starts another.
    pub async fn broken(&mut self) -> anyhow::Error {
        match (&mut self.serving).await {
            Ok(Err(e)) => anyhow::Error::new(e).context("serving failed"),
            Err(e) => anyhow::Error::new(e).context("the server's task failed"),
            Ok(Ok(())) => anyhow::anyhow!("the server's task ended"),
        }
    }

    /// Stops in order; requests that take too long are cut off.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.drive.hub.close();
        let mut serving = self.serving;
        match timeout(DRAIN_TIME, &mut serving).await {
            Ok(ended) => ended.context("the server's task failed")??,
            Err(_) => {
                tracing::warn!(secs = DRAIN_TIME.as_secs(), "requests still run; cutting them off");
                serving.abort();
            }
        }
        if let Some(mut working) = self.working
            && timeout(DRAIN_TIME, &mut working).await.is_err()
        {
            // Its steps are transactions; the next process goes on with the job.
            working.abort();
        }
        self.background.iter().for_each(JoinHandle::abort);
        let store = self.drive.store.clone();
        host::blocking(move || store.close()).await?;
        Ok(())
    }
}

/// Opens the metadata of a data folder, for commands that work beside a running server.
pub fn open_store(config: &Config) -> anyhow::Result<Store> {
    make_data_dir(&config.data)?;
    refuse_half_restored(&config.data)?;
    Store::open(&config.metadata)
        .with_context(|| format!("cannot open the database {}", config.metadata.display()))
}

/// Everything behind the doors, for commands that work beside a running server; the data must be
/// there already.
pub async fn open_existing(config: &Config) -> anyhow::Result<Drive> {
    if !config.metadata.exists() {
        bail!(
            "there is no drivefs data at {}; give its folder with --data DIR",
            config.metadata.display()
        );
    }
    open_drive(config, None).await
}

/// Rotates the master key; one process does so at a time.
pub async fn rotate_key(
    config: &Config,
    drive: &Drive,
    progress: &Arc<Progress>,
) -> anyhow::Result<Rotated> {
    let _lock = try_lock(&config.data.join("rotate.lock"))?
        .context("another process is changing the master key")?;
    if !drive.keys.is_rotatable() {
        let serving = try_lock(&config.data.join("lock"))?.is_none();
        let knows = drive.store.read(|sql| server::note(sql, SERVING_KEYS_NOTE)).await?;
        let newest = drive.keys.fingerprint();
        if serving && !knows.unwrap_or_default().contains(&newest) {
            bail!(
                "the running server does not know the key {newest}: start it again with the same \
                 DRIVEFS_MASTER_KEY first"
            );
        }
    }
    Ok(rotate::rotate(drive, progress).await?)
}

/// Finishes a rotation that was cut off.
async fn resume_rotation(config: Config, drive: Drive) {
    let resumed = match rotate::is_pending(&drive).await {
        Ok(false) => return,
        Ok(true) => rotate_key(&config, &drive, &Arc::default()).await,
        Err(e) => Err(e.into()),
    };
    match resumed {
        Ok(rotated) => tracing::info!(new = %rotated.new, "the rotation of the master key is done"),
        Err(e) => tracing::warn!(
            error = format!("{e:#}"),
            "the rotation of the master key is not done; run drivefs-server rotate-key"
        ),
    }
}

/// A server without a socket: for simulations.
pub struct Inside {
    drive: Drive,
    door: api::Inside,
}

impl Inside {
    /// Opens a server over the metadata of `config` and these packs.
    pub async fn open(config: Config, packs: BlockStore) -> anyhow::Result<Self> {
        make_data_dir(&config.data)?;
        let drive = open_drive(&config, Some(packs)).await?;
        let shared = Shared { drive: Arc::new(drive.clone()), metrics: api::install_metrics() };
        let door = api::Inside::new(shared, &config.roles);
        Ok(Self { drive, door })
    }

    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    pub fn door(&self) -> &api::Inside {
        &self.door
    }
}

async fn open_drive(config: &Config, packs: Option<BlockStore>) -> anyhow::Result<Drive> {
    let metadata = config.clone();
    let store = host::blocking(move || open_store(&metadata)).await??;
    let known = store.read(|sql| server::note(sql, KEY_NOTE)).await?;
    let keys = KeyRing::load(&config.data, known.is_none())?;
    let fingerprint = keys.fingerprint();
    let quota = config.default_quota_bytes;
    let secret = uuid::Uuid::from_bytes(host::random()).simple().to_string()
        + &uuid::Uuid::from_bytes(host::random()).simple().to_string();
    let (noted, server_id, secret) = store
        .write(move |sql| {
            let noted = server::note_once(sql, KEY_NOTE, &fingerprint)?;
            let fresh = uuid::Uuid::from_bytes(host::random()).simple().to_string();
            if let Some(quota) = quota {
                server::set_note(sql, QUOTA_NOTE, &quota.to_string())?;
            }
            let server_id = server::note_once(sql, "server_id", &fresh)?;
            Ok::<_, DbError>((noted, server_id, server::note_once(sql, SEAL_NOTE, &secret)?))
        })
        .await?;
    if !keys.fingerprints().contains(&noted) {
        bail!(
            "the master key is not the one that this data was sealed with (fingerprint {} instead \
             of {noted}); put back {}/master.key from its backup, or check DRIVEFS_MASTER_KEY",
            keys.fingerprint(),
            config.data.display()
        );
    }
    let (dir, min_free, cold) = (config.blocks.clone(), config.min_free_bytes, config.cold.clone());
    let blocks = match packs {
        Some(packs) => packs,
        None if is_empty(&dir)? && has_packs(&store).await? => bail!(
            "{} holds no packs, and the database names some: is its disk mounted? Where packs are \
             lost for good, make the folder {} and see drivefs-server fsck",
            dir.display(),
            dir.join("00").display()
        ),
        None => {
            second_store_is_there(&store, config).await?;
            host::blocking(move || {
                let blocks = BlockStore::open_local(&dir, min_free)?;
                match cold {
                    Some(cold) => blocks.with_cold(&cold.dir, cold.slow),
                    None => Ok(blocks),
                }
            })
            .await??
        }
    };
    let seal = Seal::from_secret(&secret);
    let completion = match &config.api {
        None => Completion::Here,
        Some(to) => Completion::There(Arc::new(Link::new(to, config.insecure, seal.clone())?)),
    };
    Ok(Drive {
        store,
        blocks,
        keys,
        hub: Hub::default(),
        limits: Limits {
            file_max_bytes: config.file_max_bytes,
            cold_after_days: config.cold.as_ref().map(|cold| cold.after_days),
            session_idle_secs: config.session_idle_secs,
            token_max_secs: config.token_max_secs,
        },
        server_id,
        epoch: epochs::fresh(),
        limiter: Arc::new(Limiter::default()),
        work: Work::default(),
        seal,
        turns: Turns::default(),
        completion,
    })
}

/// Master keys that the server knows which was started last.
const SERVING_KEYS_NOTE: &str = "serving_keys";
/// Open files that connections leave to everything else, and what counts as no limit.
const FILES_RESERVED: usize = 512;
const FILES_UNLIMITED: u64 = 1 << 20;
const QUOTA_NOTE: &str = "default_quota_bytes";
const SEAL_NOTE: &str = "seal_secret";

/// Quota of an account that is added without one (bytes).
pub async fn default_quota_bytes(store: &Store, config: &Config) -> anyhow::Result<u64> {
    if let Some(quota) = config.default_quota_bytes {
        return Ok(quota);
    }
    let note = store.read(|sql| server::note(sql, QUOTA_NOTE)).await?;
    Ok(note.and_then(|text| text.parse().ok()).unwrap_or_else(crate::config::builtin_quota_bytes))
}

/// Makes the data folder, and sees to it that it is on disk before anything in it is promised.
fn make_data_dir(dir: &Path) -> anyhow::Result<()> {
    let dir = std::path::absolute(dir)?;
    let there = dir.ancestors().find(|a| a.exists()).unwrap_or(&dir).to_owned();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make the data folder {}", dir.display()))?;
    for made in dir.ancestors().take_while(|a| *a != there) {
        if let Some(parent) = made.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart does not wait for the last bytes of old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// As many connections as the limit of open files allows, less what databases and packs need.
fn connections_max(config: &Config) -> usize {
    let limit = raise_open_files();
    let open = usize::try_from(limit.unwrap_or(FILES_UNLIMITED)).unwrap_or(usize::MAX);
    let most = open.saturating_sub(FILES_RESERVED.min(open / 2)).clamp(1, Semaphore::MAX_PERMITS);
    config.connections_max.map_or(most, |asked| asked.min(most))
}

/// Takes as many open files as the system gives; answers how many that is, if there is a limit.
fn raise_open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.current = limit.maximum,
            Err(e) => tracing::warn!(error = %e, "the limit of open files stays as it is"),
        }
    }
    limit.current
}

/// What a restore has not finished is not served: it would be taken for new data.
fn refuse_half_restored(dir: &Path) -> anyhow::Result<()> {
    if dir.join(RESTORING).exists() {
        bail!(
            "a restore into {} was cut off; run the same drivefs-server restore again",
            dir.display()
        );
    }
    Ok(())
}

/// True for a folder without entries, and where there is none.
fn is_empty(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        entries => Ok(entries?.next().is_none()),
    }
}

/// Refuses to go on without the second store while packs are in it: they would look as lost.
async fn second_store_is_there(store: &Store, config: &Config) -> anyhow::Result<()> {
    let away = store.read(tiers::away).await?;
    let (cold, _) = store.read(tiers::cold).await?;
    match &config.cold {
        None if away > 0 => bail!("{away} packs lie in a second store: name it with --cold URL"),
        Some(second) if cold > 0 && is_empty(&second.dir)? => bail!(
            "{} holds no packs, and the database names {cold} in there: is its disk mounted?",
            second.dir.display()
        ),
        _ => Ok(()),
    }
}

async fn has_packs(store: &Store) -> anyhow::Result<bool> {
    Ok(!store.read(|sql| check::packs(sql, None, 1)).await?.is_empty())
}

/// For `rotate-key` beside this server.
async fn note_keys(drive: &Drive) -> anyhow::Result<()> {
    let known = drive.keys.fingerprints().join(",");
    Ok(drive.store.write(move |sql| server::set_note(sql, SERVING_KEYS_NOTE, &known)).await?)
}

/// One server per data folder: the lock goes with the process, however it ends.
fn lock_data(dir: &Path) -> anyhow::Result<File> {
    try_lock(&dir.join("lock"))?.with_context(|| {
        format!(
            "another drivefs-server already serves {}; stop it first, or give this one its own \
             --data DIR",
            dir.display()
        )
    })
}

/// None when another process holds it.
fn try_lock(path: &Path) -> anyhow::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Ends uploads that are stored and whose end was lost with a process.
async fn end_left_uploads(drive: Drive) {
    loop {
        tokio::time::sleep(LEFT_UPLOADS_EVERY).await;
        if let Err(error) = drive.end_left_uploads().await {
            tracing::warn!(%error, "uploads that were left cannot be looked for");
        }
    }
}

/// Wakes long polls whose namespaces another process has moved on since `mark`.
async fn watch_foreign_commits(drive: Drive, mut mark: u64) {
    let mut is_behind = false;
    loop {
        tokio::time::sleep(FOREIGN_COMMITS_EVERY).await;
        if !drive.hub.has_waiters() {
            continue;
        }
        is_behind |= drive.store.foreign_commits().await.unwrap_or(false);
        if is_behind {
            match drive.hint_moved(mark).await {
                Ok(now) => (mark, is_behind) = (now, false),
                Err(error) => tracing::warn!(%error, "commits of other processes are not seen"),
            }
        }
    }
}
