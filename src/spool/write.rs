//! Writing to a content: into its live layer, which starts at the first write.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering;

use super::CAPABILITY_XATTR;
use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::decode_segment;

use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::Parts;
use super::content::Piece;
use super::layer::Layer;
use crate::cache::DataFiles;
use crate::cache::SLOT_BYTES;
use crate::cache::is_slot;
use crate::cache::read_append;
use crate::journal::now;
use crate::state::FileId;
use crate::state::Node;

impl Spool {
    /// Writes bytes at an offset. On return they survive the death of this process.
    pub fn write(&self, content: &Content, offset: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.file_max() && !bytes.is_empty() {
            return Err(SpoolError::TooLarge(self.file_max()));
        }
        let mut parts = content.parts_mut();
        self.live_layer(content, &mut parts, end, None)?.write_at(offset, bytes)?;
        let time = now();
        if std::mem::take(&mut parts.time_was_set) {
            self.db.change(|c| c.set_mtime(content.nid, time, time))?;
        }
        parts.size = parts.size.max(end);
        parts.unsaved = true;
        parts.mtime = Some(time);
        self.note_write(content.nid);
        Ok(())
    }

    /// Sets the length; growth reads as zeros.
    pub fn truncate(&self, content: &Content, size: u64) -> Result<(), SpoolError> {
        if size > self.file_max() {
            return Err(SpoolError::TooLarge(self.file_max()));
        }
        let mut parts = content.parts_mut();
        if parts.size == size && parts.live.is_none() {
            return Ok(());
        }
        self.live_layer(content, &mut parts, size, Some(size))?.truncate(size)?;
        parts.size = size;
        parts.unsaved = true;
        self.note_write(content.nid);
        Ok(())
    }

    /// Makes a content at least this long.
    pub fn grow(&self, content: &Content, size: u64) -> Result<(), SpoolError> {
        if content.size() < size {
            self.truncate(content, size)?;
            content.parts_mut().mtime = Some(now());
        }
        Ok(())
    }

    /// The layer that takes writes, with room for `end` bytes; started if there is none.
    /// `truncated_to`: a length that is set right after; at 0 nothing below will show.
    pub(super) fn live_layer<'a>(
        &self,
        content: &Content,
        parts: &'a mut Parts,
        end: u64,
        truncated_to: Option<u64>,
    ) -> Result<&'a mut Layer, SpoolError> {
        if parts.superseded.is_some() {
            return Err(SpoolError::Superseded);
        }
        if parts.live.is_none() {
            self.start_layer(content, parts, end, truncated_to)?;
        } else if parts.live.as_ref().is_some_and(|layer| !layer.holds(end)) {
            self.move_to_file(content, parts)?;
        }
        Ok(parts.live.as_mut().expect("started above"))
    }

    fn start_layer(
        &self,
        content: &Content,
        parts: &mut Parts,
        end: u64,
        truncated_to: Option<u64>,
    ) -> Result<(), SpoolError> {
        let files = self.cache.files();
        let below = if truncated_to == Some(0) { 0 } else { parts.size };
        // Small content is copied, so that it has no need of a file and a log of its own. Not what
        // is to survive power loss: a copy that has not come to the disk would hide it.
        let is_small = end.max(below) <= SLOT_BYTES;
        let copied = match is_small && !(below > 0 && content.synced.load(Ordering::Acquire)) {
            true => self.read_small(parts, below)?,
            false => None,
        };
        let over = below > 0 && copied.is_none();
        // The bytes first: without them the row would claim that nothing lies below.
        let layer = match &copied {
            Some(bytes) => {
                let id = files.allocate_slot(&self.db)?;
                kept_or_removed(files, id, filled(files, id, bytes))?
            }
            None => {
                let id = files.allocate(&self.db)?;
                kept_or_removed(files, id, Layer::create(files, id, over.then_some(below)))?
            }
        };
        let id = layer.id;
        let noted = self.db.change(|c| {
            let mut node = c.node(content.nid)?.ok_or(SpoolError::Gone)?;
            if node.superseded {
                return Err(SpoolError::Superseded);
            }
            self.journal.note_node(c, &node)?;
            // Privileges that the old bytes had go, whoever writes.
            if node.xattrs.remove(CAPABILITY_XATTR).is_some() {
                content.capability.store(false, Ordering::Relaxed);
                c.update_node(&node)?;
            }
            c.set_live(content.nid, id, over)?;
            // Later writes have it in memory until the close; a crash leaves this one.
            let time = now();
            Ok::<_, SpoolError>(c.set_mtime(content.nid, time, time)?)
        });
        if let Err(e) = noted {
            drop(layer);
            files.remove(id)?;
            return Err(e);
        }
        parts.live = Some(layer);
        self.journal.wake();
        Ok(())
    }

    /// The first `len` bytes of a content that fits in a slot; none when they are not all here.
    fn read_small(&self, parts: &Parts, len: u64) -> Result<Option<Vec<u8>>, SpoolError> {
        let mut bytes = Vec::with_capacity(len as usize);
        let Ok(plan) = parts.plan(0..len) else { return Ok(None) };
        for (range, piece) in plan {
            let len = (range.end - range.start) as usize;
            match piece {
                Piece::Zeros => {}
                Piece::Local { data, offset } => {
                    read_append(&data.file, data.start + offset, len, &mut bytes)?;
                }
                Piece::Block { hash, within } => {
                    if !self.cache.read_local(&hash, within, len, &mut bytes)? {
                        return Ok(None);
                    }
                }
            }
            bytes.resize(range.end as usize, 0);
        }
        bytes.resize(len as usize, 0);
        Ok(Some(bytes))
    }

    /// Moves a layer that outgrows its slot into a file of its own.
    fn move_to_file(&self, content: &Content, parts: &mut Parts) -> Result<(), SpoolError> {
        let files = self.cache.files();
        let Some(small) = &parts.live else { return Ok(()) };
        let mut bytes = vec![0; small.size as usize];
        small.data.read_or_zeros(&mut bytes, 0)?;
        let id = files.allocate(&self.db)?;
        let layer = kept_or_removed(files, id, filled(files, id, &bytes))?;
        // The slot may be on the disk already: what takes its place must be too, and before it.
        let durable = content.synced.load(Ordering::Acquire);
        if durable {
            layer.data.file.sync_data()?;
            files.sync_folder(id)?;
        }
        let noted = self.db.change(|c| {
            if c.node(content.nid)?.is_none() {
                return Err(SpoolError::Gone);
            }
            Ok::<_, SpoolError>(c.set_live(content.nid, id, false)?)
        });
        if let Err(e) = noted {
            files.remove(id)?;
            return Err(e);
        }
        let slot = parts.live.replace(layer).expect("it was there above").id;
        // Its bytes go when the change is durable (`reclaim`).
        Ok(files.remove(slot)?)
    }

    /// Brings size and mtime in the database up to date.
    pub fn save_size(&self, content: &Content) -> Result<(), SpoolError> {
        let mut parts = content.parts_mut();
        if !parts.unsaved {
            return Ok(());
        }
        let (size, written) = (parts.size, parts.mtime);
        self.db.change(|c| match c.node(content.nid)? {
            Some(node) => {
                let mtime = written.unwrap_or(node.attrs.mtime);
                c.set_size_and_times(node.nid, size, mtime, written.unwrap_or(node.ctime))
            }
            None => Ok(()),
        })?;
        parts.unsaved = false;
        parts.mtime = None;
        Ok(())
    }

    /// Makes all that was written to this content durable against power loss.
    pub fn sync(&self, content: &Content) -> Result<(), SpoolError> {
        // From here on whoever turns layers into blocks makes those durable first (`absorb`).
        content.synced.store(true, Ordering::Release);
        self.save_size(content)?;
        let files = self.cache.files();
        let (open, folders) = {
            let parts = content.parts();
            let layers = [&parts.live, &parts.frozen].into_iter().flatten();
            let (mut open, mut folders) = (Vec::new(), Vec::new());
            for layer in layers {
                open.extend(layer.files());
                folders.push(layer.id);
            }
            (open, folders)
        };
        for file in open {
            file.sync_data()?;
        }
        for folder in folders {
            files.sync_folder(folder)?;
        }
        self.db.flush()?;
        // Blocks that became cache and wait to be sent are this file's only copy as well. Those
        // of the row as it is now: what was made of layers before `synced` stood is in it.
        let row = self.db.peek(|c| c.node(content.nid))?;
        let mut synced = HashSet::new();
        for hash in self.hashes_here(row.and_then(|n| n.content))? {
            let block = self.db.peek(|c| c.cached(&hash))?;
            if let Some(block) = block.filter(|b| b.unsent && !synced.contains(&b.file)) {
                files.open(block.file)?.sync_data()?;
                files.sync_folder(block.file)?;
                synced.insert(block.file);
            }
        }
        Ok(())
    }

    /// The blocks of a manifest and of its segments, as far as the segments are here: what is not
    /// came from the server.
    fn hashes_here(&self, content: Option<Vec<u8>>) -> Result<Vec<BlockHash>, SpoolError> {
        let Some(content) = content else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        match Root::decode(&content)? {
            Root::Inline(entries) => out.extend(entries.iter().map(|e| e.hash)),
            Root::Segmented(segments) => {
                for listed in &segments {
                    out.push(listed.hash);
                    if let Some(bytes) = self.cache.get_local(&listed.hash)? {
                        out.extend(decode_segment(&bytes, listed)?.iter().map(|e| e.hash));
                    }
                }
            }
        }
        Ok(out)
    }

    /// Drops a deleted node's layers.
    pub fn discard(&self, node: &Node) -> Result<(), SpoolError> {
        let files = self.cache.files();
        for (id, _) in [node.live, node.frozen].into_iter().flatten() {
            files.remove(id)?;
        }
        Ok(())
    }

    /// Repairs what an earlier process left: sizes, because the layers know better than the rows,
    /// and rows that name a slot which power loss kept from the disk.
    pub fn recover(&self) -> Result<Vec<Node>, SpoolError> {
        for node in self.db.read(|c| c.nodes_to_recover())? {
            self.drop_blank_layers(&node)?;
        }
        let nodes = self.db.read(|c| c.nodes_to_recover())?;
        for node in nodes.iter().filter(|n| n.links > 0) {
            let content = self.content(node.nid)?;
            self.save_size(&content)?;
        }
        Ok(nodes)
    }

    /// A slot without a header over older content is a copy of it that never came to the disk: the
    /// older content shows again. (Without older content it is an empty file.)
    fn drop_blank_layers(&self, node: &Node) -> Result<(), SpoolError> {
        let files = self.cache.files();
        let is_blank = |layer: Option<(FileId, bool)>| match layer {
            Some((id, false)) if is_slot(id) => Ok(files.open_slice(id)?.is_blank()?),
            _ => Ok::<_, SpoolError>(false),
        };
        let base = match &node.content {
            Some(bytes) => Root::decode(bytes)?.size() > 0,
            None => false,
        };
        let frozen_goes = base && is_blank(node.frozen)?;
        let something_below = base || (node.frozen.is_some() && !frozen_goes);
        let live_goes = something_below && is_blank(node.live)?;
        if !frozen_goes && !live_goes {
            return Ok(());
        }
        tracing::warn!(nid = node.nid, "what was last written did not reach the disk");
        let mut kept = node.clone();
        kept.frozen = kept.frozen.filter(|_| !frozen_goes);
        kept.live = kept.live.filter(|_| !live_goes);
        if kept.live.is_none() && kept.frozen.is_none() {
            kept.size = match &node.content {
                Some(bytes) => Root::decode(bytes)?.size(),
                None => 0,
            };
        }
        Ok(self.db.change(|c| c.update_node(&kept))?)
    }
}

/// A layer in a place of its own that holds these bytes.
fn filled(files: &DataFiles, id: FileId, bytes: &[u8]) -> io::Result<Layer> {
    let mut layer = Layer::create(files, id, None)?;
    if !bytes.is_empty() {
        layer.write_at(0, bytes)?;
    }
    Ok(layer)
}

/// A layer that could not be made leaves no file.
fn kept_or_removed(
    files: &DataFiles,
    id: FileId,
    made: io::Result<Layer>,
) -> Result<Layer, SpoolError> {
    if made.is_err() {
        files.remove(id)?;
    }
    Ok(made?)
}
