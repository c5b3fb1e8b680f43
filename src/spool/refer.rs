//! Copying between contents by reference: whole blocks go into the other manifest, only the edges
//! are copied. No byte moves between this device and the server for it.
//!
//! Both contents are turned into blocks first. The new manifest is put together without a lock and
//! adopted only if the target is still what it was made from.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use drivefs_core::chunk::next_cut;
use drivefs_core::id::BlockHash;
use drivefs_core::limits::BLOCK_MAX_BYTES;
use drivefs_core::limits::BLOCK_MIN_BYTES;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;

use super::BlockMap;
use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::Base;
use super::freeze::owner;
use super::past::is_past;
use crate::host;
use crate::journal::now;
use crate::state::CachedBlock;

/// Ranges shorter than this (bytes) are cheaper copied, except for whole files.
const RANGE_MIN: u64 = BLOCK_MAX_BYTES as u64;
/// A file written here and not cut into blocks yet is cut for its copy from this size on (bytes).
const FRESH_MIN: u64 = BLOCK_MIN_BYTES as u64;
/// Most zeros between the end of the target and the copied range (bytes).
const GAP_MAX: u64 = 64 * 1024 * 1024;
/// Rounds before a copy gives way to those who go on writing.
pub(super) const ROUNDS_MAX: usize = 3;
/// The kernel asks for at most this much at once (bytes).
const REQUEST_MAX: u64 = 0xffff_f000;

/// A content without layers, as it was at one moment.
#[derive(Clone)]
pub struct Still {
    pub(super) root: Arc<Root>,
    pub(super) map: Arc<BlockMap>,
}

impl Still {
    /// Its encoded manifest root.
    pub fn root(&self) -> Vec<u8> {
        self.root.encode()
    }
}

/// Blocks that are to be sent with a new manifest.
#[derive(Default)]
pub(super) struct New {
    /// Written to files of their own, not in the index yet.
    pub(super) blocks: Vec<CachedBlock>,
    /// Good copies are in the cache already.
    present: Vec<BlockHash>,
}

/// The new block list of a target.
pub(super) struct Spliced {
    pub(super) entries: Vec<Entry>,
    /// How much was copied, which may be less than was asked for.
    pub(super) copied: u64,
}

impl Spool {
    /// Copies a range (inside `src`) to offset `to` of `dst` by reference. None when that does not
    /// fit the case: then the bytes have to be copied. May copy less than asked for. Blocking.
    pub fn refer(
        self: &Arc<Self>,
        src: &Arc<Content>,
        range: Range<u64>,
        dst: &Arc<Content>,
        to: u64,
    ) -> Result<Option<u64>, SpoolError> {
        if !worthwhile(src, &range, dst, to) {
            return Ok(None);
        }
        match self.try_refer(src, range, dst, to) {
            // A block next to the change, or a list of blocks, cannot be had now: the bytes
            // themselves may still be here, or their absence is told by who reads them.
            Err(SpoolError::Cache(_)) => Ok(None),
            other => other,
        }
    }

    fn try_refer(
        self: &Arc<Self>,
        src: &Arc<Content>,
        range: Range<u64>,
        dst: &Arc<Content>,
        to: u64,
    ) -> Result<Option<u64>, SpoolError> {
        // What moved here from another namespace has its blocks there until the server has linked
        // them.
        let moved = || self.db.peek(|c| c.node(src.nid));
        if !is_past(src.nid) && moved()?.is_none_or(|n| n.source.is_some()) {
            return Ok(None);
        }
        for _ in 0..ROUNDS_MAX {
            let (Some(from), Some(onto)) = (self.still(src)?, self.still(dst)?) else { continue };
            if range.end > from.map.end() {
                continue; // It was truncated meanwhile.
            }
            let mut new = New::default();
            let outcome = match self.splice((src, &from), &range, (dst, &onto), to, &mut new) {
                Ok(None) => return Ok(None),
                Ok(Some(spliced)) => {
                    self.adopt(dst, &onto, &spliced, &mut new).map(|done| (done, spliced.copied))
                }
                Err(e) => Err(e),
            };
            self.drop_unused(&new.blocks)?;
            if let (true, copied) = outcome? {
                return Ok(Some(copied));
            }
        }
        Ok(None)
    }

    /// Removes the files of blocks that the index did not take.
    pub(super) fn drop_unused(&self, blocks: &[CachedBlock]) -> Result<(), SpoolError> {
        for block in blocks {
            self.cache.remove_unused(owner(block))?;
        }
        Ok(())
    }

    /// A content as blocks alone, turned into them if need be. None when somebody wrote meanwhile.
    pub(super) fn still(
        self: &Arc<Self>,
        content: &Arc<Content>,
    ) -> Result<Option<Still>, SpoolError> {
        let has_layers = {
            let parts = content.parts();
            parts.frozen.is_some() || (parts.live.is_some() && parts.size > 0)
        };
        if has_layers {
            let failed = self.freeze(std::slice::from_ref(content))?;
            if let Some((_, e)) = failed.into_iter().next() {
                return Err(e);
            }
        }
        host::block_on(&self.runtime, self.load_map(content))?;
        let parts = content.parts();
        if parts.frozen.is_some() {
            return Ok(None);
        }
        if parts.live.is_some() {
            // A new file: its layer is empty.
            let none =
                Still { root: Arc::new(Root::empty()), map: Arc::new(BlockMap::new(vec![])) };
            return Ok((parts.size == 0).then_some(none));
        }
        let map = parts.base.map.clone();
        Ok(map.map(|map| Still { root: parts.base.root.clone(), map }))
    }

    /// Puts the target's new block list together. Blocks made for its edges are in `new`, also
    /// when it fails. None when no whole block lies in the range.
    fn splice(
        self: &Arc<Self>,
        (src, from): (&Arc<Content>, &Still),
        range: &Range<u64>,
        (dst, onto): (&Arc<Content>, &Still),
        to: u64,
        new: &mut New,
    ) -> Result<Option<Spliced>, SpoolError> {
        let first = from.map.first_from(range.start);
        let last = from.map.find(range.end).unwrap_or(from.map.entries.len());
        if first >= last {
            return Ok(None);
        }
        let whole = from.map.offset(first)..from.map.offset(last);
        let mut end = range.end;
        if range.end - range.start >= REQUEST_MAX {
            // More is to come: that goes on with a whole block.
            end = whole.end;
        }
        let copied = end - range.start;
        // What lies before, up to the block that holds the first copied byte.
        let kept = onto.map.find(to).unwrap_or(onto.map.entries.len());
        let mut entries = onto.map.entries[..kept].to_vec();
        let head = onto.map.offset(kept)..to;
        let bytes = self.head(dst, onto, head, (src, from), range.start..whole.start)?;
        self.cut_edge(&bytes, &mut entries, new)?;
        entries.extend_from_slice(&from.map.entries[first..last]);
        // What lies behind, from the block on that starts behind the last copied byte.
        let behind = to + copied;
        let next = onto.map.first_from(behind.min(onto.map.end()));
        let mut bytes = self.bytes_of(src, from, whole.end..end)?;
        if behind < onto.map.end() {
            bytes.extend(self.bytes_of(dst, onto, behind..onto.map.offset(next))?);
        }
        self.cut_edge(&bytes, &mut entries, new)?;
        if behind < onto.map.end() {
            entries.extend_from_slice(&onto.map.entries[next..]);
        }
        Ok(Some(Spliced { entries, copied }))
    }

    /// Bytes of the target (zeros behind its end), then bytes of the source.
    fn head(
        self: &Arc<Self>,
        dst: &Arc<Content>,
        onto: &Still,
        kept: Range<u64>,
        (src, from): (&Arc<Content>, &Still),
        copied: Range<u64>,
    ) -> Result<Vec<u8>, SpoolError> {
        let end = kept.end.min(onto.map.end()).max(kept.start);
        let mut bytes = self.bytes_of(dst, onto, kept.start..end)?;
        bytes.resize((kept.end - kept.start) as usize, 0);
        bytes.extend(self.bytes_of(src, from, copied)?);
        Ok(bytes)
    }

    /// Cuts the bytes of an edge into blocks of their own.
    pub(super) fn cut_edge(
        &self,
        bytes: &[u8],
        entries: &mut Vec<Entry>,
        new: &mut New,
    ) -> Result<(), SpoolError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (block, behind) = rest.split_at(next_cut(rest));
            let hash = BlockHash::of(block);
            self.keep(&hash, block, new)?;
            entries.push(Entry { hash, len: block.len() as u32 });
            rest = behind;
        }
        Ok(())
    }

    /// Stores a block that is to be sent, unless a good copy is here.
    fn keep(&self, hash: &BlockHash, bytes: &[u8], new: &mut New) -> Result<(), SpoolError> {
        if self.verified_here(hash)? {
            new.present.push(*hash);
        } else if !new.blocks.iter().any(|b| b.hash == *hash) {
            new.blocks.push(self.cache.write_block(hash, bytes, true)?);
        }
        Ok(())
    }

    /// Bytes of a content's blocks, fetched if they are not here.
    pub(super) fn bytes_of(
        self: &Arc<Self>,
        content: &Arc<Content>,
        still: &Still,
        range: Range<u64>,
    ) -> Result<Vec<u8>, SpoolError> {
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let i = still.map.find(at).ok_or(SpoolError::Gone)?;
            let (entry, start) = (still.map.entries[i], still.map.start(i));
            let within = (at - start) as usize;
            let len = (entry.len as usize - within).min((range.end - at) as usize);
            if !self.cache.read_local(&entry.hash, within as u32, len, &mut out)? {
                let fetch = self.cache.fetch(content.ns, entry.hash);
                let block = host::block_on(&self.runtime, fetch)?;
                out.extend_from_slice(&block[within..within + len]);
            }
            at += len as u64;
        }
        Ok(out)
    }

    /// Makes a block list the content of the target. False when the target is not what the list
    /// was made from any more, or a block that was here is not.
    pub(super) fn adopt(
        &self,
        dst: &Content,
        onto: &Still,
        spliced: &Spliced,
        new: &mut New,
    ) -> Result<bool, SpoolError> {
        let files = self.cache.files();
        let (root, segments) = Root::build(&spliced.entries);
        for segment in &segments {
            self.keep(&segment.hash, &segment.bytes, new)?;
        }
        let durable = dst.synced.load(Ordering::Acquire);
        if durable {
            // What fsync made durable in the old blocks must be so in the new ones.
            for block in &new.blocks {
                files.open(block.file)?.sync_data()?;
                files.sync_folder(block.file)?;
            }
        }
        let mut parts = dst.parts_mut();
        if parts.superseded.is_some() {
            return Err(SpoolError::Superseded);
        }
        let untouched = match &parts.live {
            Some(_) => parts.size == 0 && onto.map.entries.is_empty(),
            None => Arc::ptr_eq(&parts.base.root, &onto.root),
        };
        if !untouched || parts.frozen.is_some() {
            return Ok(false);
        }
        let (time, size) = (now(), root.size());
        let taken = self.db.change(|c| {
            let mut node = c.node(dst.nid)?.ok_or(SpoolError::Gone)?;
            if node.superseded {
                return Err(SpoolError::Superseded);
            }
            for hash in &new.present {
                if !c.mark_unsent(hash)? {
                    return Ok(false);
                }
            }
            self.journal.note_node(c, &node)?;
            self.cache.index(c, &new.blocks)?;
            node.content = Some(root.encode());
            node.live = None;
            node.size = size;
            node.attrs.mtime = time;
            node.ctime = time;
            c.update_node(&node)?;
            Ok::<_, SpoolError>(true)
        })?;
        if !taken {
            return Ok(false);
        }
        let empty = parts.live.take();
        let mut base = Base::new(root);
        base.map = Some(Arc::new(BlockMap::new(spliced.entries.clone())));
        parts.base = base;
        parts.size = size;
        parts.mtime = None;
        parts.unsaved = false;
        drop(parts);
        if let Some(layer) = empty {
            files.remove(layer.id)?;
        }
        if durable {
            self.db.flush()?;
        }
        self.note_write(dst.nid);
        self.journal.wake();
        Ok(true)
    }
}

fn worthwhile(src: &Content, range: &Range<u64>, dst: &Content, to: u64) -> bool {
    if src.ns != dst.ns || range.is_empty() {
        return false;
    }
    let (size, fresh) = {
        let parts = src.parts();
        (parts.size, parts.live.is_some() || parts.frozen.is_some())
    };
    let len = range.end - range.start;
    let onto = dst.size();
    let whole_file = len == size && onto == 0 && to == 0;
    let enough = if whole_file { !fresh || len >= FRESH_MIN } else { len >= RANGE_MIN };
    enough && to.saturating_sub(onto) <= GAP_MAX
}
