//! Reading a content: from memory and local files at once where all is here, else from the server.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::decode_segment;

use super::BlockMap;
use super::Content;
use super::Spool;
use super::SpoolError;
use super::ahead::WINDOW_LAST_BYTES;
use super::content::NeedsMap;
use super::content::Piece;
use crate::cache::read_append;
use crate::host;

/// Rounds of fetch and read before a read gives up (the cache may be smaller than the read).
const ROUNDS_MAX: usize = 4;
/// A window of read-ahead takes at most this share of the cache.
const CACHE_SHARE: u64 = 4;

/// Blocks that a read holds beside the cache's own.
type Held = HashMap<BlockHash, Bytes>;

impl Spool {
    /// Reads up to `len` bytes at `offset`, short only at the end of the content. None when some
    /// of it is not on this disk: then `read` must be asked. Starts what is worth fetching ahead.
    pub fn read_here(
        &self,
        content: &Content,
        offset: u64,
        len: usize,
    ) -> Result<Option<Bytes>, SpoolError> {
        let range = offset..offset.saturating_add(len as u64);
        let read = self.compose(content, range.clone(), &Held::new(), true)?;
        if let Some(ahead) = content.streams().note(range, self.window_max()) {
            self.fetch_ahead(content, ahead)?;
        }
        Ok(read)
    }

    /// Reads like `read_here`, fetching what is missing.
    pub async fn read(
        self: &Arc<Self>,
        content: &Arc<Content>,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, SpoolError> {
        let range = offset..offset.saturating_add(len as u64);
        self.load_map(content).await?;
        for _ in 0..ROUNDS_MAX {
            let absent = self.absent_blocks(content, range.clone())?;
            let hashes: Vec<BlockHash> = absent.iter().map(|b| b.0).collect();
            let blocks = self.cache.fetch_all(content.ns, &hashes).await?;
            let held: Held = hashes.into_iter().zip(blocks).collect();
            if let Some(bytes) = self.compose(content, range.clone(), &held, false)? {
                return Ok(bytes);
            }
            let (this, content, range) = (self.clone(), content.clone(), range.clone());
            let read = host::blocking(move || this.compose(&content, range, &held, true)).await?;
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
    ) -> Result<Bytes, SpoolError> {
        host::block_on(&self.runtime, self.read(content, offset, len))
    }

    /// Puts a range together from what is held and what is here; none when something is missing.
    /// Without `disk` only memory is looked at.
    fn compose(
        &self,
        content: &Content,
        range: Range<u64>,
        held: &Held,
        disk: bool,
    ) -> Result<Option<Bytes>, SpoolError> {
        let plan = content.parts().plan(range.clone());
        let plan = match plan {
            Ok(plan) => plan,
            Err(NeedsMap) if disk && self.load_map_here(content)? => {
                content.parts().plan(range).expect("the map was just loaded")
            }
            Err(NeedsMap) => return Ok(None),
        };
        let memory = |hash| held.get(hash).cloned().or_else(|| self.cache.in_memory(hash));
        // The common case: one block. From memory it costs no copy.
        if let [(range, Piece::Block { hash, within })] = plan.as_slice() {
            let len = (range.end - range.start) as usize;
            let from = *within as usize;
            if let Some(block) = memory(hash) {
                return Ok(Some(block.slice(from..from + len)));
            }
            let mut out = Vec::with_capacity(len);
            let here = disk && self.cache.read_disk(hash, *within, len, &mut out)?;
            return Ok(here.then(|| out.into()));
        }
        let end = plan.last().map_or(0, |(r, _)| r.end);
        let start = plan.first().map_or(0, |(r, _)| r.start);
        let mut out = Vec::with_capacity((end - start) as usize);
        for (range, piece) in &plan {
            let len = (range.end - range.start) as usize;
            let until = out.len() + len;
            match piece {
                Piece::Zeros => {}
                Piece::Local { .. } if !disk => return Ok(None),
                // Past the end of a layer's file there are zeros.
                Piece::Local { data, offset } => {
                    read_append(&data.file, data.start + offset, len, &mut out)?;
                }
                Piece::Block { hash, within } => match memory(hash) {
                    Some(block) => {
                        out.extend_from_slice(&block[*within as usize..*within as usize + len]);
                    }
                    None if disk && self.cache.read_disk(hash, *within, len, &mut out)? => {}
                    None => return Ok(None),
                },
            }
            out.resize(until, 0);
        }
        Ok(Some(out.into()))
    }

    /// Blocks of a range that are neither in memory nor on this disk, each once, with their
    /// lengths.
    fn absent_blocks(
        &self,
        content: &Content,
        range: Range<u64>,
    ) -> Result<Vec<(BlockHash, u32)>, SpoolError> {
        let (plan, map) = {
            let parts = content.parts();
            let plan = parts.plan(range).map_err(|NeedsMap| SpoolError::Gone)?;
            (plan, parts.base.map.clone())
        };
        let mut out: Vec<(BlockHash, u32)> = Vec::new();
        for (range, piece) in plan {
            if let Piece::Block { hash, within } = piece
                && !out.iter().any(|(seen, _)| *seen == hash)
                && !self.cache.is_listed(&hash)?
            {
                let entry = map.as_ref().and_then(|map| {
                    Some(map.entries[map.find(range.start)?]).filter(|entry| entry.hash == hash)
                });
                out.push((hash, entry.map_or(within, |entry| entry.len)));
            }
        }
        Ok(out)
    }

    /// Starts to fetch what is absent of a range.
    fn fetch_ahead(&self, content: &Content, range: Range<u64>) -> Result<(), SpoolError> {
        let absent = match self.absent_blocks(content, range) {
            Err(SpoolError::Gone) => return Ok(()),
            absent => absent?,
        };
        if !absent.is_empty() {
            let _inside = self.runtime.enter();
            self.cache.fetch_ahead(content.ns, &absent);
        }
        Ok(())
    }

    fn window_max(&self) -> u64 {
        WINDOW_LAST_BYTES.min(self.cache.usage().1 / CACHE_SHARE)
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
