//! Reading a content: from local files at once where all is here, else from the server.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::BLOCK_AVG_BYTES;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::decode_segment;

use super::BlockMap;
use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::NeedsMap;
use super::content::Piece;

/// Blocks fetched ahead of a sequential reader.
const READ_AHEAD_BLOCKS: usize = 6;
/// Rounds of fetch and read before a read gives up (the cache may be smaller than the read).
const ROUNDS_MAX: usize = 4;

impl Spool {
    /// Reads up to `len` bytes at `offset`, short only at the end of the content. None when some
    /// of it is not on this disk: then `read` must be asked.
    pub fn read_here(
        &self,
        content: &Content,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, SpoolError> {
        let range = offset..offset.saturating_add(len as u64);
        let plan = content.parts().plan(range);
        let plan = match plan {
            Ok(plan) => plan,
            Err(NeedsMap) if self.load_map_here(content)? => {
                let again = content.parts().plan(offset..offset.saturating_add(len as u64));
                again.expect("the map was just loaded")
            }
            Err(NeedsMap) => return Ok(None),
        };
        let end = plan.last().map_or(offset, |(r, _)| r.end);
        let mut buf = vec![0; (end - offset) as usize];
        for (range, piece) in &plan {
            let part = &mut buf[(range.start - offset) as usize..(range.end - offset) as usize];
            match piece {
                Piece::Zeros => {}
                Piece::Local { data, offset } => data.read_or_zeros(part, *offset)?,
                Piece::Block { hash, within } => {
                    if !self.cache.read_local(hash, *within, part)? {
                        return Ok(None);
                    }
                }
            }
        }
        content.last_read_end.store(end, Ordering::Relaxed);
        Ok(Some(buf))
    }

    /// Reads like `read_here`, fetching what is missing.
    pub async fn read(
        self: &Arc<Self>,
        content: &Arc<Content>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        let sequential = content.last_read_end.load(Ordering::Relaxed) == offset && offset > 0;
        self.load_map(content).await?;
        for _ in 0..ROUNDS_MAX {
            let wanted = self.absent_blocks(content, offset..offset + len as u64)?;
            if sequential {
                self.read_ahead(content, offset + len as u64);
            }
            let fetches = wanted.into_iter().map(|hash| self.cache.fetch(content.ns, hash));
            for result in futures_util::future::join_all(fetches).await {
                result?;
            }
            let (this, content) = (self.clone(), content.clone());
            let read = tokio::task::spawn_blocking(move || this.read_here(&content, offset, len))
                .await
                .expect("reading does not panic")?;
            if let Some(bytes) = read {
                return Ok(bytes);
            }
        }
        Err(SpoolError::Disk(std::io::Error::other("the block cache is too small for this read")))
    }

    /// `read` on a thread that may wait.
    pub fn read_blocking(
        self: &Arc<Self>,
        content: &Arc<Content>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        self.runtime.block_on(self.read(content, offset, len))
    }

    /// Blocks of a range that are not on this disk.
    fn absent_blocks(
        &self,
        content: &Content,
        range: Range<u64>,
    ) -> Result<HashSet<drivefs_core::id::BlockHash>, SpoolError> {
        let plan = content.parts().plan(range).map_err(|NeedsMap| SpoolError::Gone)?;
        let mut out = HashSet::new();
        for (_, piece) in plan {
            if let Piece::Block { hash, .. } = piece
                && self.db.peek(|c| c.cached(&hash))?.is_none()
            {
                out.insert(hash);
            }
        }
        Ok(out)
    }

    /// Starts fetching the blocks behind `offset`; failures show when somebody reads there.
    fn read_ahead(self: &Arc<Self>, content: &Arc<Content>, offset: u64) {
        let ahead = (READ_AHEAD_BLOCKS * BLOCK_AVG_BYTES) as u64;
        let Ok(absent) = self.absent_blocks(content, offset..offset + ahead) else { return };
        for hash in absent {
            let (cache, ns) = (self.cache.clone(), content.ns);
            self.runtime.spawn(async move {
                if let Err(error) = cache.fetch(ns, hash).await {
                    tracing::debug!(%error, "read-ahead failed");
                }
            });
        }
    }

    /// Loads the block map from this disk; false when a segment is not here.
    pub fn load_map_here(&self, content: &Content) -> Result<bool, SpoolError> {
        let root = {
            let parts = content.parts();
            if parts.base.map.is_some() {
                return Ok(true);
            }
            parts.base.root.clone()
        };
        let Some(entries) = self.entries_here(&root)? else { return Ok(false) };
        Self::set_map(content, &root, entries);
        Ok(true)
    }

    /// Loads the block map, fetching segments that are not here.
    pub async fn load_map(self: &Arc<Self>, content: &Arc<Content>) -> Result<(), SpoolError> {
        let root = {
            let parts = content.parts();
            if parts.base.map.is_some() {
                return Ok(());
            }
            parts.base.root.clone()
        };
        let entries = self.entries(content.ns, &root).await?;
        Self::set_map(content, &root, entries);
        Ok(())
    }

    fn set_map(content: &Content, root: &Arc<Root>, entries: Vec<Entry>) {
        let mut parts = content.parts_mut();
        if Arc::ptr_eq(&parts.base.root, root) {
            parts.base.map = Some(Arc::new(BlockMap::new(entries)));
        }
    }

    /// The entries of a manifest, if all its segments are on this disk.
    pub fn entries_here(&self, root: &Root) -> Result<Option<Vec<Entry>>, SpoolError> {
        let refs = match root {
            Root::Inline(entries) => return Ok(Some(entries.clone())),
            Root::Segmented(refs) => refs,
        };
        let mut out = Vec::new();
        for listed in refs {
            match self.cache.get_local(&listed.hash)? {
                Some(bytes) => out.extend(decode_segment(&bytes, listed)?),
                None => return Ok(None),
            }
        }
        Ok(Some(out))
    }

    /// The entries of a manifest.
    pub async fn entries(
        self: &Arc<Self>,
        ns: NamespaceId,
        root: &Root,
    ) -> Result<Vec<Entry>, SpoolError> {
        let refs = match root {
            Root::Inline(entries) => return Ok(entries.clone()),
            Root::Segmented(refs) => refs,
        };
        let fetches = refs.iter().map(|listed| self.cache.get(ns, listed.hash));
        let mut out = Vec::new();
        for (bytes, listed) in futures_util::future::join_all(fetches).await.into_iter().zip(refs) {
            out.extend(decode_segment(&bytes?, listed)?);
        }
        Ok(out)
    }
}
