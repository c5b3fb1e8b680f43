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
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api;
use crate::api::Link;
use crate::api::Shared;
use crate::auth::limiter::Limiter;
use crate::blocks::BlockStore;
use crate::blocks::KeyRing;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Role;
use crate::drive::Drive;
use crate::drive::Limits;
use crate::drive::Work;
use crate::drive::files::Turns;
use crate::drive::files::complete::Completion;
use crate::drive::seal::Seal;
use crate::host;
use crate::jobs;
use crate::metadata::DbError;
use crate::metadata::Store;
use crate::metadata::epochs;
use crate::metadata::server;
use crate::notify::Hub;

/// How long requests in flight may take once the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How often held long polls look for commits of other processes.
const FOREIGN_COMMITS_EVERY: Duration = Duration::from_millis(500);

/// How often stored uploads that nobody asks for are ended.
const LEFT_UPLOADS_EVERY: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    addr: SocketAddr,
    drive: Drive,
    stop: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
    watching: JoinHandle<()>,
    working: Option<JoinHandle<()>>,
    ending: Option<JoinHandle<()>>,
    _lock: File,
}

impl Server {
    /// Starts serving; returns once connections are taken.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        make_data_dir(&config.data)?;
        let lock = lock_data(&config.data)?;
        let drive = open_drive(&config, None).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let shared = Shared { drive: drive.clone(), metrics: api::install_metrics() };
        let (stop, mut stopped) = watch::channel(false);
        let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let has_jobs = config.roles.contains(&Role::Jobs);
        let working = (has_jobs || config.roles.contains(&Role::Blocks)).then(|| {
            let data = config.data.clone();
            tokio::spawn(jobs::serve(drive.clone(), data, has_jobs, stop.subscribe()))
        });
        let ends = config.roles.contains(&Role::Api);
        let ending = ends.then(|| tokio::spawn(end_left_uploads(drive.clone())));
        let serving = tokio::spawn(api::serve(listener, shared, config.roles, stopped));
        let watching = tokio::spawn(watch_foreign_commits(drive.clone()));
        Ok(Self { addr, drive, stop, serving, watching, working, ending, _lock: lock })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The use cases, for what is done in process.
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// The store, for accounts to be added in process.
    pub fn store(&self) -> &Store {
        &self.drive.store
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
        self.watching.abort();
        if let Some(mut working) = self.working
            && timeout(DRAIN_TIME, &mut working).await.is_err()
        {
            // Its steps are transactions; the next process goes on with the job.
            working.abort();
        }
        if let Some(ending) = &self.ending {
            ending.abort();
        }
        let store = self.drive.store.clone();
        host::blocking(move || store.close()).await?;
        Ok(())
    }
}

/// Opens the metadata of a data folder, for commands that work beside a running server.
pub fn open_store(config: &Config) -> anyhow::Result<Store> {
    make_data_dir(&config.data)?;
    Store::open(&config.metadata)
        .with_context(|| format!("cannot open the database {}", config.metadata.display()))
}

/// The use cases over a data folder, for commands that work beside a running server.
pub async fn open_beside(config: &Config) -> anyhow::Result<Drive> {
    open_drive(config, None).await
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
        let shared = Shared { drive: drive.clone(), metrics: api::install_metrics() };
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
    if noted != keys.fingerprint() {
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
        None => {
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
    let completion = match &config.api_url {
        None => Completion::Here,
        Some(url) => {
            let link =
                Link::new(url, seal.clone()).map_err(|e| ConfigError(format!("--api-url: {e}")))?;
            Completion::There(Arc::new(link))
        }
    };
    Ok(Drive {
        store,
        blocks,
        keys,
        hub: Hub::default(),
        limits: Limits {
            file_max_bytes: config.file_max_bytes,
            cold_after_days: config.cold.as_ref().map(|cold| cold.after_days),
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

const KEY_NOTE: &str = "master_key_fingerprint";
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

/// One server per data folder: the lock goes with the process, however it ends.
fn lock_data(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another drivefs-server already serves {}; stop it first, or give this one its own \
             --data DIR",
            dir.display()
        ),
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

/// Wakes held long polls when another process has committed to the same database.
async fn watch_foreign_commits(drive: Drive) {
    loop {
        tokio::time::sleep(FOREIGN_COMMITS_EVERY).await;
        if drive.hub.has_waiters() && drive.store.foreign_commits().await.unwrap_or(false) {
            drive.hub.hint_all();
        }
    }
}
