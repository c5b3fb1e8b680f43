//! Fetching blocks: one flight a block however many ask for it, several blocks in one request.
//!
//! A flight is a task of its own: a reader that gives up does not end it for the others. A reader
//! waits as long as bytes arrive and for `FETCH_WAIT` of silence, never longer than `READ_WAIT`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::time::Instant;

use super::BlockCache;
use super::CacheError;
use super::lock;
use crate::host;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::remote::unpack;

/// Longest silence that a reader waits through; a read must fail within 5 s.
const FETCH_WAIT: Duration = Duration::from_millis(4_500);
/// Longest wait of a reader on a link that is slow, but not silent.
const READ_WAIT: Duration = Duration::from_secs(60);
/// Tries to get blocks to the disk while others evict.
const TO_DISK_ROUNDS: usize = 3;
/// Requests under way at once that somebody waits for, and that were made ahead of readers.
const DEMANDS_MAX: usize = 8;
const AHEADS_MAX: usize = 3;
/// Blocks of one request made ahead: bytes and number.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;
const AHEAD_BLOCKS: usize = 512;

type Outcome = Result<Bytes, RemoteError>;
type Watcher = watch::Receiver<Option<Outcome>>;

/// Fetches under way, and their turns.
pub(super) struct Flights {
    by_hash: Mutex<HashMap<BlockHash, Watcher>>,
    demands: Semaphore,
    aheads: Semaphore,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            by_hash: Mutex::default(),
            demands: Semaphore::new(DEMANDS_MAX),
            aheads: Semaphore::new(AHEADS_MAX),
        }
    }
}

/// One block of a flight; whatever becomes of the flight, the block leaves the table.
struct Claim {
    cache: Arc<BlockCache>,
    hash: BlockHash,
    told: watch::Sender<Option<Outcome>>,
    landed: bool,
}

impl Claim {
    /// Tells those who wait. Out of the table first: who asks again after that starts anew.
    fn land(mut self, outcome: Outcome) {
        lock(&self.cache.flights.by_hash).remove(&self.hash);
        self.landed = true;
        self.told.send_replace(Some(outcome));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.landed {
            lock(&self.cache.flights.by_hash).remove(&self.hash);
        }
    }
}

impl BlockCache {
    /// A block from memory, from this disk or from the server, verified.
    pub async fn get(
        self: &Arc<Self>,
        ns: NamespaceId,
        hash: BlockHash,
    ) -> Result<Bytes, CacheError> {
        let this = self.clone();
        let local = host::blocking(move || this.get_local(&hash)).await?;
        match local {
            Some(block) => Ok(block),
            None => self.fetch(ns, hash).await,
        }
    }

    /// A block from the server, verified and kept.
    pub async fn fetch(
        self: &Arc<Self>,
        ns: NamespaceId,
        hash: BlockHash,
    ) -> Result<Bytes, CacheError> {
        let mut blocks = self.fetch_all(ns, &[hash]).await?;
        Ok(blocks.pop().expect("one asked, one answered"))
    }

    /// Blocks from the server in the order asked, in one request as far as nobody else fetches them
    /// already.
    pub async fn fetch_all(
        self: &Arc<Self>,
        ns: NamespaceId,
        hashes: &[BlockHash],
    ) -> Result<Vec<Bytes>, CacheError> {
        let mut watchers = self.board(ns, hashes, Turn::Demand);
        let mut out = Vec::with_capacity(hashes.len());
        for (hash, watcher) in hashes.iter().zip(&mut watchers) {
            let mut outcome = self.outcome(watcher).await;
            // It shared its request with blocks that the server refused: once more, alone.
            if outcome.as_ref().is_err_and(|e| !matches!(e, RemoteError::Offline(_))) {
                let mut alone = self.board(ns, std::slice::from_ref(hash), Turn::Demand);
                outcome = self.outcome(&mut alone[0]).await;
            }
            self.note_trouble(outcome.as_ref().err().map(|e| format!("read failed: {e}")));
            out.push(outcome?);
        }
        Ok(out)
    }

    /// Starts to fetch blocks that nobody waits for yet, in the order given; failures show when
    /// somebody reads them. Those that are in memory or under way are left out; the caller leaves
    /// out those on disk.
    pub fn fetch_ahead(self: &Arc<Self>, ns: NamespaceId, blocks: &[(BlockHash, u32)]) {
        if self.remote.as_ref().is_none_or(|r| !r.link().is_online()) {
            return;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (hash, len) in blocks {
            if self.memory.has(hash) {
                continue;
            }
            if bytes + u64::from(*len) > AHEAD_BYTES && !batch.is_empty()
                || batch.len() >= AHEAD_BLOCKS
            {
                self.board(ns, &batch, Turn::Ahead);
                batch.clear();
                bytes = 0;
            }
            batch.push(*hash);
            bytes += u64::from(*len);
        }
        self.board(ns, &batch, Turn::Ahead);
    }

    /// Makes sure that these blocks are on this disk, telling of each group of them.
    pub async fn fetch_to_disk(
        self: &Arc<Self>,
        ns: NamespaceId,
        blocks: &[(BlockHash, u32)],
    ) -> Result<(), CacheError> {
        for _ in 0..TO_DISK_ROUNDS {
            let mut absent = Vec::new();
            for (hash, _) in blocks {
                if self.db.peek(|c| c.cached(hash))?.is_none() {
                    absent.push(*hash);
                }
            }
            if absent.is_empty() {
                return Ok(());
            }
            for (hash, block) in absent.iter().zip(self.fetch_all(ns, &absent).await?) {
                // Fetched by a reader just before: it may be in memory alone.
                if self.db.peek(|c| c.cached(hash))?.is_none() && !self.memory.waits(hash) {
                    self.memory.put_unwritten(*hash, block.clone());
                    self.keep(*hash, block).await;
                }
            }
            self.memory.until_written(&absent).await;
        }
        Err(CacheError::NoRoom)
    }

    /// The flights of these blocks; those that are not under way take off, in one request.
    fn board(self: &Arc<Self>, ns: NamespaceId, hashes: &[BlockHash], turn: Turn) -> Vec<Watcher> {
        let mut watchers = Vec::with_capacity(hashes.len());
        let mut claims = Vec::new();
        {
            let mut flights = lock(&self.flights.by_hash);
            for hash in hashes {
                if let Some(watcher) = flights.get(hash) {
                    watchers.push(watcher.clone());
                    continue;
                }
                let (told, watcher) = watch::channel(None);
                // Landed between the caller's look and this one.
                if let Some(block) = self.memory.get(hash) {
                    told.send_replace(Some(Ok(block)));
                    watchers.push(watcher);
                    continue;
                }
                flights.insert(*hash, watcher.clone());
                watchers.push(watcher);
                claims.push(Claim { cache: self.clone(), hash: *hash, told, landed: false });
            }
        }
        if !claims.is_empty() {
            let this = self.clone();
            tokio::spawn(async move { this.fly(ns, claims, turn).await });
        }
        watchers
    }

    /// Waits for a flight, as long as the server is not silent.
    async fn outcome(&self, watcher: &mut Watcher) -> Outcome {
        let began = Instant::now();
        loop {
            let heard = self.last_heard().map_or(began, |heard| heard.max(began));
            let until = (heard + FETCH_WAIT).min(began + READ_WAIT);
            match tokio::time::timeout_at(until, watcher.wait_for(Option::is_some)).await {
                Ok(Ok(outcome)) => {
                    return outcome.clone().expect("waited for");
                }
                Ok(Err(_)) => return Err(RemoteError::Offline("the fetch broke off".into())),
                Err(_) if self.last_heard().is_some_and(|now| now > heard) => {}
                Err(_) => return Err(self.silence()),
            }
            if began.elapsed() >= READ_WAIT {
                return Err(self.silence());
            }
        }
    }

    fn last_heard(&self) -> Option<Instant> {
        self.remote.as_ref()?.link().last_heard().map(Instant::from_std)
    }

    fn silence(&self) -> RemoteError {
        let Some(remote) = &self.remote else { return no_server() };
        let why = format!("{} does not answer in time", remote.url());
        remote.link().fell_silent(&why);
        RemoteError::Offline(why)
    }

    /// Fetches the claimed blocks and tells those who wait, one by one as they arrive.
    async fn fly(self: &Arc<Self>, ns: NamespaceId, mut claims: Vec<Claim>, turn: Turn) {
        if let Err(error) = self.fly_on(ns, &mut claims, turn).await {
            if turn == Turn::Ahead {
                tracing::debug!(%error, blocks = claims.len(), "fetching ahead failed");
            }
            for claim in claims {
                claim.land(Err(error.clone()));
            }
        }
    }

    /// Takes out of `claims` what has landed.
    async fn fly_on(
        self: &Arc<Self>,
        ns: NamespaceId,
        claims: &mut Vec<Claim>,
        turn: Turn,
    ) -> Result<(), RemoteError> {
        let remote = self.remote.as_ref().ok_or_else(no_server)?;
        let turns = match turn {
            Turn::Demand => &self.flights.demands,
            Turn::Ahead => &self.flights.aheads,
        };
        let _turn = turns.acquire().await.expect("never closed");
        if remote.link().is_silent() {
            return Err(RemoteError::Offline(remote.link().reason()));
        }
        let blocks = claims.iter().map(|c| WantedBlock { hash: c.hash, base: None }).collect();
        self.counters.request(turn == Turn::Ahead);
        let mut frames = self.first_answer(remote, &BlocksRequest { ns, blocks }).await?;
        while let Some(frame) = frames.next().await? {
            let Some(at) = claims.iter().position(|c| c.hash == frame.hash) else {
                return Err(RemoteError::Protocol(format!("block {} was not asked", frame.hash)));
            };
            let claim = claims.remove(at);
            let outcome = unpack(frame);
            if let Ok(block) = &outcome {
                self.counters.fetched(block.len(), turn == Turn::Ahead);
                // In memory before it leaves the table: whoever asks finds it in one of them.
                self.memory.put_unwritten(claim.hash, block.clone());
            }
            let hash = claim.hash;
            claim.land(outcome.clone());
            if let Ok(block) = outcome {
                self.keep(hash, block).await;
            }
        }
        match claims.first() {
            None => Ok(()),
            Some(claim) => {
                Err(RemoteError::Protocol(format!("block {} is not in the answer", claim.hash)))
            }
        }
    }

    async fn first_answer(
        &self,
        remote: &Remote,
        request: &BlocksRequest,
    ) -> Result<crate::remote::Frames, RemoteError> {
        let answer = tokio::time::timeout(FETCH_WAIT, remote.blocks(request)).await;
        answer.unwrap_or_else(|_| Err(self.silence()))
    }
}

/// Whether somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Demand,
    Ahead,
}

fn no_server() -> RemoteError {
    RemoteError::Offline("no server is set up".into())
}
