//! From layers to blocks: the live layer stops taking writes, is cut into blocks around what
//! changed, and its blocks become cache entries that wait to be sent. The node's content is then
//! a manifest again, and new writes start a new layer over it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use drivefs_core::delta::Piece as Cut;
use drivefs_core::delta::rechunk;
use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;

use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::Base;
use super::content::BlockMap;
use super::content::NeedsMap;
use super::content::Piece;
use crate::cache::CacheError;
use crate::cache::owner_of;
use crate::cache::place_of;
use crate::cache::read_append;
use crate::host;
use crate::state::CachedBlock;
use crate::state::Conn;
use crate::state::DbError;
use crate::state::FileId;

/// The data files that hold the blocks of these cuts, new ones and those that were there.
fn files_of<'a>(
    c: &Conn<'_>,
    cuts: impl Iterator<Item = &'a Cuts>,
) -> Result<HashSet<FileId>, DbError> {
    let mut out = HashSet::new();
    for cut in cuts {
        out.extend(cut.blocks.iter().map(|b| b.file));
        for hash in &cut.present {
            out.extend(c.cached(hash)?.map(|b| b.file));
        }
    }
    Ok(out)
}

/// The file or slot that a block lies in.
pub(super) fn owner(block: &CachedBlock) -> FileId {
    owner_of(block.file, block.offset)
}

/// A frozen layer that has been cut, ready for `absorb`.
pub struct Cuts {
    content: Arc<Content>,
    layer: FileId,
    root: Root,
    map: BlockMap,
    size: u64,
    blocks: Vec<CachedBlock>,
    /// Blocks of the new content that the cache has already and must keep until they are sent.
    present: Vec<BlockHash>,
}

impl Spool {
    /// Turns everything written to these contents so far into blocks, in one transaction at the
    /// end. Blocking; may fetch base blocks next to a change. Contents that fail are left as they
    /// were and reported.
    pub fn freeze(
        self: &Arc<Self>,
        contents: &[Arc<Content>],
    ) -> Result<Vec<(Arc<Content>, SpoolError)>, SpoolError> {
        let mut cuts = Vec::new();
        let mut failed = Vec::new();
        // No two callers with several contents have one in common, so their order does not matter.
        let _alone: Vec<_> = contents
            .iter()
            .map(|c| c.freezing.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        for content in contents {
            let mut blocks = Vec::new();
            match self.cut(content, &mut blocks) {
                Ok(Some(cut)) => cuts.push(cut),
                Ok(None) => {}
                Err(e) => {
                    // On a full disk they would only add up.
                    let layer = content.parts().frozen.as_ref().map(|f| f.id);
                    for id in blocks.iter().map(owner).filter(|id| Some(*id) != layer) {
                        self.cache.files().remove(id)?;
                    }
                    failed.push((content.clone(), e));
                }
            }
        }
        self.absorb(cuts)?;
        Ok(failed)
    }

    /// Freezes the live layer, if there is one, and cuts the frozen content into blocks.
    /// Blocks written to files of their own are in `blocks` also when it fails.
    fn cut(
        self: &Arc<Self>,
        content: &Arc<Content>,
        blocks: &mut Vec<CachedBlock>,
    ) -> Result<Option<Cuts>, SpoolError> {
        self.stop_writes(content)?;
        host::block_on(&self.runtime, self.load_map(content))?;
        let (layer, size, whole, dirty, old) = {
            let parts = content.parts();
            let Some(layer) = &parts.frozen else { return Ok(None) };
            let map = parts.base.map.clone().ok_or(SpoolError::Gone)?;
            match &layer.over {
                None => (layer.id, layer.size, true, Vec::new(), None),
                Some(over) => {
                    // Bytes that a truncation hid and growth brought back are zeros: a change.
                    let mut dirty = over.covered.clone();
                    dirty.insert(over.visible..layer.size.max(over.visible));
                    (layer.id, layer.size, false, dirty.as_slice().to_vec(), Some(map))
                }
            }
        };
        let old_entries = old.as_ref().map_or(&[][..], |m| &m.entries);
        let pieces = rechunk(old_entries, &dirty, size, |offset, len| {
            self.read_frozen(content, offset, len)
        })?;
        let mut present = Vec::new();
        for piece in pieces.iter().filter(|p| p.fresh) {
            match self.place(content, layer, whole, piece)? {
                Some(block) => blocks.push(block),
                None => present.push(piece.entry.hash),
            }
        }
        let entries: Vec<_> = pieces.iter().map(|p| p.entry).collect();
        let (root, segments) = Root::build(&entries);
        for segment in segments {
            if self.verified_here(&segment.hash)? {
                present.push(segment.hash);
            } else {
                blocks.push(self.cache.write_block(&segment.hash, &segment.bytes, true)?);
            }
        }
        let map = BlockMap::new(entries);
        let (content, blocks) = (content.clone(), std::mem::take(blocks));
        Ok(Some(Cuts { content, layer, root, map, size, blocks, present }))
    }

    /// Where a fresh block lies: in the layer's own data file if that holds all of it, else in a
    /// file of its own. None when a good copy is in the cache already.
    fn place(
        self: &Arc<Self>,
        content: &Arc<Content>,
        layer: FileId,
        whole: bool,
        piece: &Cut,
    ) -> Result<Option<CachedBlock>, SpoolError> {
        let hash = piece.entry.hash;
        // Verified, not just listed: this may be about to become the only copy. A damaged one is
        // forgotten on the way.
        if self.verified_here(&hash)? {
            return Ok(None);
        }
        if whole {
            let (file, start) = place_of(layer);
            return Ok(Some(CachedBlock {
                hash,
                file,
                offset: start + piece.offset,
                len: piece.entry.len,
                unsent: true,
            }));
        }
        let bytes = self.read_frozen(content, piece.offset, piece.entry.len as usize)?;
        if BlockHash::of(&bytes) != hash {
            return Err(std::io::Error::other("a frozen layer changed while it was read").into());
        }
        Ok(Some(self.cache.write_block(&hash, &bytes, true)?))
    }

    pub(super) fn verified_here(&self, hash: &BlockHash) -> Result<bool, SpoolError> {
        match self.cache.is_on_disk(hash) {
            // Damaged and not sent: what is at hand now takes its place.
            Err(CacheError::Lost(_)) => Ok(self.cache.drop_lost(hash)?),
            other => Ok(other?),
        }
    }

    /// Moves the live layer to the frozen place, unless one is there already.
    fn stop_writes(&self, content: &Content) -> Result<(), SpoolError> {
        let mut parts = content.parts_mut();
        if parts.frozen.is_some() || parts.live.is_none() {
            return Ok(());
        }
        let (size, written) = (parts.size, parts.mtime);
        self.db.change(|c| {
            let node = c.node(content.nid)?.ok_or(SpoolError::Gone)?;
            Ok::<_, SpoolError>(c.freeze_layer(
                content.nid,
                size,
                written.unwrap_or(node.attrs.mtime),
            )?)
        })?;
        parts.unsaved = false;
        parts.mtime = None;
        parts.frozen = parts.live.take();
        Ok(())
    }

    /// Reads exactly `len` bytes of the frozen content, fetching base blocks if need be.
    fn read_frozen(
        self: &Arc<Self>,
        content: &Arc<Content>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        let range = offset..offset + len as u64;
        let plan = content.parts().plan_frozen(range).map_err(|NeedsMap| SpoolError::Gone)?;
        let mut out = Vec::with_capacity(len);
        for (range, piece) in plan {
            let len = (range.end - range.start) as usize;
            let until = out.len() + len;
            match piece {
                Piece::Zeros => {}
                Piece::Local { data, offset } => {
                    read_append(&data.file, data.start + offset, len, &mut out)?;
                }
                Piece::Block { hash, within } => {
                    if !self.cache.read_local(&hash, within, len, &mut out)? {
                        let fetch = self.cache.fetch(content.ns, hash);
                        let block = host::block_on(&self.runtime, fetch)?;
                        out.extend_from_slice(&block[within as usize..][..len]);
                    }
                }
            }
            out.resize(until, 0);
        }
        Ok(out)
    }

    fn sync_files(&self, ids: HashSet<FileId>) -> Result<(), SpoolError> {
        let files = self.cache.files();
        for id in ids {
            match files.open(id) {
                Ok(file) => file.sync_data()?,
                // Evicted meanwhile: then the cut is dropped.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e.into()),
            }
            files.sync_folder(id)?;
        }
        Ok(())
    }

    /// Makes the cut blocks the content of their nodes, all in one transaction. A cut whose layer is
    /// not the frozen one any more, or whose blocks were evicted meanwhile, is dropped: the layer
    /// stands as it was and is cut again.
    fn absorb(&self, cuts: Vec<Cuts>) -> Result<(), SpoolError> {
        if cuts.is_empty() {
            return Ok(());
        }
        let mut durable = cuts.iter().any(|c| c.content.synced.load(Ordering::Acquire));
        if durable {
            let written = self.db.peek(|c| files_of(c, cuts.iter()))?;
            self.sync_files(written)?;
        }
        let taken = self.db.write(|c| {
            // Asked again where nobody can flush before this is committed: an fsync that began
            // meanwhile has made the layers durable and will not look at them again.
            let late = |cut: &&Cuts| cut.content.synced.load(Ordering::Acquire);
            if !durable && cuts.iter().any(|cut| late(&cut)) {
                durable = true;
                self.sync_files(files_of(c, cuts.iter().filter(late))?)?;
            }
            let mut taken = Vec::new();
            for cut in &cuts {
                let node = c.node(cut.content.nid)?;
                let Some(node) = node.filter(|n| n.frozen.map(|f| f.0) == Some(cut.layer)) else {
                    taken.push(false);
                    continue;
                };
                let mut all_here = true;
                for hash in &cut.present {
                    all_here &= c.mark_unsent(hash)?;
                }
                taken.push(all_here);
                if !all_here {
                    continue;
                }
                self.cache.index(c, &cut.blocks)?;
                c.set_content(node.nid, &cut.root.encode(), cut.size)?;
            }
            Ok::<_, SpoolError>(taken)
        })?;
        if durable {
            // The layers go now: what replaces them must be as durable as they were.
            self.db.flush()?;
        }
        for (cut, taken) in cuts.into_iter().zip(taken) {
            if taken {
                let mut parts = cut.content.parts_mut();
                if parts.frozen.as_ref().is_some_and(|f| f.id == cut.layer) {
                    let mut base = Base::new(cut.root);
                    base.map = Some(Arc::new(cut.map));
                    parts.base = base;
                    parts.frozen = None;
                }
            }
            // Files of blocks that another copy made superfluous, and a layer that was not adopted.
            let used = cut.blocks.iter().map(owner).chain([cut.layer]);
            for id in used.collect::<HashSet<_>>() {
                self.cache.remove_unused(id)?;
            }
        }
        Ok(())
    }
}
