//! Fetching blocks: one request a block however many ask for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;
use tokio::sync::OnceCell;

use super::BlockCache;
use super::CacheError;
use super::lock;
use crate::remote::RemoteError;

/// Longest wait for a turn and an answer together; a read must fail within 5 s.
const FETCH_WAIT: Duration = Duration::from_millis(4_500);

type Flight = Arc<OnceCell<Result<Bytes, RemoteError>>>;

/// Fetches under way.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashMap<BlockHash, Flight>>);

impl BlockCache {
    /// A block from this disk or from the server, verified.
    pub async fn get(
        self: &Arc<Self>,
        ns: NamespaceId,
        hash: BlockHash,
    ) -> Result<Bytes, CacheError> {
        let this = self.clone();
        let local = tokio::task::spawn_blocking(move || this.get_local(&hash))
            .await
            .expect("reading a block does not panic")?;
        match local {
            Some(block) => Ok(block.into()),
            None => self.fetch(ns, hash).await,
        }
    }

    /// A block from the server, verified and kept.
    pub async fn fetch(
        self: &Arc<Self>,
        ns: NamespaceId,
        hash: BlockHash,
    ) -> Result<Bytes, CacheError> {
        let flight = lock(&self.in_flight.0).entry(hash).or_default().clone();
        let result = flight.get_or_init(|| self.fetch_once(ns, hash)).await.clone();
        let mut flights = lock(&self.in_flight.0);
        if flights.get(&hash).is_some_and(|f| Arc::ptr_eq(f, &flight)) {
            flights.remove(&hash);
        }
        drop(flights);
        self.note_trouble(result.as_ref().err().map(|e| format!("read failed: {e}")));
        Ok(result?)
    }

    async fn fetch_once(
        self: &Arc<Self>,
        ns: NamespaceId,
        hash: BlockHash,
    ) -> Result<Bytes, RemoteError> {
        let remote = self
            .remote
            .as_ref()
            .ok_or_else(|| RemoteError::Offline("no server is set up".into()))?;
        let request = BlocksRequest { ns, blocks: vec![WantedBlock { hash, base: None }] };
        if remote.link().is_silent() {
            return Err(RemoteError::Offline(remote.link().reason()));
        }
        let body = tokio::time::timeout(FETCH_WAIT, async {
            let _turn = self.fetches.acquire().await.expect("never closed");
            remote.blocks(&request).await
        })
        .await
        .map_err(|_| {
            let why = format!("{} does not answer in time", remote.url());
            remote.link().fell_silent(&why);
            RemoteError::Offline(why)
        })??;
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.unpack(&hash, &body))
            .await
            .expect("decoding a block does not panic")
    }

    /// Decodes and verifies the answer, and keeps the block.
    fn unpack(&self, hash: &BlockHash, body: &[u8]) -> Result<Bytes, RemoteError> {
        let bad = |what: String| RemoteError::Protocol(format!("block {hash}: {what}"));
        let frames = frame::parse(body).map_err(|e| bad(e.to_string()))?;
        let [one] = frames.as_slice() else {
            return Err(bad(format!("{} blocks instead of one", frames.len())));
        };
        let block = codec::decode(one.codec, one.encoded, one.block_len as usize, None)
            .map_err(|e| bad(e.to_string()))?;
        if BlockHash::of(&block) != *hash {
            return Err(bad("its bytes do not match its name".into()));
        }
        // A full disk must not fail the read: the block is served all the same.
        if let Err(error) = self.put(hash, &block, false) {
            tracing::warn!(%error, "could not keep a fetched block");
        }
        Ok(block.into())
    }
}
