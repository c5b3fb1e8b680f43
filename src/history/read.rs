//! The bytes of a version, straight from the server and verified; nothing is kept.

use std::collections::HashMap;
use std::collections::HashSet;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::limits::PACK_MAX_BYTES;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::ManifestError;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::decode_segment;
use drivefs_core::wire::Blob;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;

use super::History;
use super::HistoryError;
use crate::remote::RemoteError;
use crate::remote::unpack;

/// Blocks asked for at once: their number, and about their bytes.
const BLOCKS_AT_ONCE: usize = 256;

impl History {
    /// The whole content behind an encoded manifest root, of at most `bytes_max`.
    pub async fn read(&self, content: &Blob, bytes_max: u64) -> Result<Vec<u8>, HistoryError> {
        let root = Root::decode(&content.0).map_err(broken)?;
        if root.size() > bytes_max {
            return Err(HistoryError::TooLarge(root.size()));
        }
        let entries = match root {
            Root::Inline(entries) => entries,
            Root::Segmented(refs) => {
                let hashes: Vec<BlockHash> = refs.iter().map(|s| s.hash).collect();
                let mut entries = Vec::new();
                for (listed, bytes) in refs.iter().zip(self.blocks(&hashes).await?) {
                    entries.extend(decode_segment(&bytes, listed).map_err(broken)?);
                }
                entries
            }
        };
        let mut out = Vec::with_capacity(usize::try_from(bytes_max.min(1 << 20)).unwrap_or(0));
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(batch_len(rest));
            let hashes: Vec<BlockHash> = batch.iter().map(|e| e.hash).collect();
            for (entry, bytes) in batch.iter().zip(self.blocks(&hashes).await?) {
                if bytes.len() != entry.len as usize {
                    return Err(broken(ManifestError::Mismatch));
                }
                out.extend_from_slice(&bytes);
            }
            rest = behind;
        }
        Ok(out)
    }

    /// Blocks in the order asked.
    async fn blocks(&self, hashes: &[BlockHash]) -> Result<Vec<Bytes>, HistoryError> {
        let mut found: HashMap<BlockHash, Bytes> = HashMap::new();
        for batch in hashes.chunks(BLOCKS_AT_ONCE) {
            let wanted: HashSet<BlockHash> = batch.iter().copied().collect();
            let blocks = wanted.into_iter().map(|hash| WantedBlock { hash, base: None }).collect();
            let mut frames = self.remote.blocks(&BlocksRequest { ns: self.ns, blocks }).await?;
            while let Some(frame) = frames.next().await? {
                found.insert(frame.hash, unpack(frame)?);
            }
        }
        let get = |hash: &BlockHash| {
            found.get(hash).cloned().ok_or_else(|| {
                RemoteError::Protocol(format!("block {hash} is not in the answer")).into()
            })
        };
        hashes.iter().map(get).collect()
    }
}

/// How many entries one request takes.
fn batch_len(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take(BLOCKS_AT_ONCE).take_while(|e| {
        bytes += e.len as usize;
        bytes <= PACK_MAX_BYTES
    });
    fits.count().max(1)
}

fn broken(e: ManifestError) -> HistoryError {
    RemoteError::Protocol(format!("the content of a version: {e}")).into()
}
