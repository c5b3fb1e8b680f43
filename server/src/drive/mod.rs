//! Use cases that all doors share. Knows no HTTP; decides who may do what.

pub mod account;
pub mod backup;
pub mod changes;
pub mod collect;
pub mod commit;
pub mod compact;
pub mod download;
pub mod events;
pub mod files;
pub mod fsck;
pub mod gauges;
pub mod gone;
pub mod history;
pub mod login;
pub mod mounts;
pub mod policy;
pub mod prune;
pub mod rotate;
pub mod scrub;
pub mod seal;
pub mod tiers;
pub mod trash;
pub mod upload;
pub mod users;

mod error;
mod load;
mod places;
mod poll;

pub use error::DriveError;

use std::sync::Arc;
use std::thread::available_parallelism;

use drivefs_core::id::Epoch;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::UserId;
use drivefs_core::wire::Role;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::auth::limiter::Limiter;
use crate::blocks::BlockStore;
use crate::blocks::KeyRing;
use crate::host;
use crate::metadata::Sql;
use crate::metadata::Store;
use crate::metadata::namespaces;
use crate::metadata::namespaces::Membership;
use crate::metadata::server;
use crate::notify::Hub;

/// Block bytes that all requests together may hold in memory (MiB).
const WORK_MIB: u32 = 256;

/// Everything the use cases work with; clones share it.
#[derive(Clone)]
pub struct Drive {
    pub store: Store,
    pub blocks: BlockStore,
    pub keys: KeyRing,
    pub hub: Hub,
    pub limits: Limits,
    /// Identity of the server's data.
    pub server_id: String,
    /// Names this run of the server.
    pub epoch: Epoch,
    pub limiter: Arc<Limiter>,
    pub work: Work,
    pub seal: seal::Seal,
    /// Who adds to which upload.
    pub turns: files::Turns,
    pub completion: files::complete::Completion,
}

impl Drive {
    /// Fails when the database does not answer.
    pub async fn check_ready(&self) -> Result<(), DriveError> {
        self.store
            .read(|sql| server::note(sql, "server_id").map(drop))
            .await
            .map_err(DriveError::Db)
    }
}

/// What the operator allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest file (bytes).
    pub file_max_bytes: u64,
    /// Packs that nobody has read for so long go to the second store; none without one.
    pub cold_after_days: Option<u32>,
    /// A device that was not seen for so long has to log in again.
    pub session_idle_secs: Option<i64>,
    /// Longest life of a token for scripts.
    pub token_max_secs: Option<i64>,
}

/// Bounds on work under way: cores for what computes, bytes for what holds blocks.
#[derive(Clone)]
pub struct Work {
    cores: Arc<Semaphore>,
    mib: Arc<Semaphore>,
}

impl Default for Work {
    fn default() -> Self {
        let cores = available_parallelism().map_or(2, usize::from);
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            mib: Arc::new(Semaphore::new(WORK_MIB as usize)),
        }
    }
}

impl Work {
    /// Runs what computes for long on a blocking thread, at most one a core.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DriveError> {
        let permit = Arc::clone(&self.cores).acquire_owned().await;
        host::blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|e| DriveError::Internal(e.to_string()))
    }

    /// Cores and MiB of blocks in use, each of how many.
    pub fn in_use(&self) -> [(usize, usize); 2] {
        let cores = available_parallelism().map_or(2, usize::from);
        let mib = WORK_MIB as usize;
        [(&self.cores, cores), (&self.mib, mib)]
            .map(|(free, all)| (all.saturating_sub(free.available_permits()), all))
    }

    /// Waits until `bytes` more may be held; they are returned with the permit.
    pub async fn hold(&self, bytes: u64) -> Result<OwnedSemaphorePermit, DriveError> {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX).saturating_add(1).min(WORK_MIB);
        Arc::clone(&self.mib)
            .acquire_many_owned(mib)
            .await
            .map_err(|e| DriveError::Internal(e.to_string()))
    }
}

/// The namespace as `user` sees it; who is no member does not learn that it exists.
fn member_of(sql: &mut dyn Sql, ns: NamespaceId, user: UserId) -> Result<Membership, DriveError> {
    namespaces::membership(sql, ns, user)?.ok_or(DriveError::NoNamespace)
}

/// As `member_of`, for who wants to write.
fn writer_of(sql: &mut dyn Sql, ns: NamespaceId, user: UserId) -> Result<Membership, DriveError> {
    let membership = member_of(sql, ns, user)?;
    if membership.role < Role::Editor {
        return Err(DriveError::ReadOnly);
    }
    Ok(membership)
}
