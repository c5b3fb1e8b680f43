//! Holes: making ranges read as zeros, and finding where data lies.
//!
//! What is told to be a hole reads as zeros; what reads as zeros is not always told to be one.

use std::ops::Range;
use std::sync::LazyLock;

use drivefs_core::id::BlockHash;
use drivefs_core::limits::BLOCK_MAX_BYTES;

use super::BlockMap;
use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::NeedsMap;
use super::content::Piece;
use crate::journal::now;

/// A long run of zeros is cut into these.
static ZERO_BLOCK: LazyLock<BlockHash> = LazyLock::new(|| BlockHash::of(&vec![0; BLOCK_MAX_BYTES]));

impl Spool {
    /// Makes the part of a range that lies inside the content read as zeros.
    pub fn zero(&self, content: &Content, range: Range<u64>) -> Result<(), SpoolError> {
        let mut parts = content.parts_mut();
        let range = range.start..range.end.min(parts.size);
        if range.is_empty() {
            return Ok(());
        }
        let size = parts.size;
        self.live_layer(content, &mut parts, size, None)?.zero(range)?;
        parts.unsaved = true;
        parts.mtime = Some(now());
        self.note_write(content.nid);
        Ok(())
    }

    /// The first offset from `offset` on that holds data, or lies in a hole, as SEEK_DATA and
    /// SEEK_HOLE of lseek(2) define it. None when there is none.
    pub fn seek(
        &self,
        content: &Content,
        offset: u64,
        data: bool,
    ) -> Result<Option<u64>, SpoolError> {
        let known = self.load_map_here(content)?;
        let parts = content.parts();
        let size = parts.size;
        if offset >= size {
            return Ok(None);
        }
        let plan = match parts.plan(offset..size) {
            Ok(plan) => plan,
            // The list of blocks is on the server, and no reason to wait: it may all be data.
            Err(NeedsMap) => {
                debug_assert!(!known);
                return Ok(Some(if data { offset } else { size }));
            }
        };
        for (range, piece) in plan {
            let found = match piece {
                Piece::Zeros => (!data).then_some(range.start),
                Piece::Block { .. } => {
                    let map = parts.base.map.as_ref().ok_or(SpoolError::Gone)?;
                    (is_zeros(map, range.start) != data).then_some(range.start)
                }
                Piece::Local { data: layer, offset } => {
                    let len = range.end - range.start;
                    let found = layer.seek(offset..offset + len, data)?;
                    found.map(|at| range.start + (at - offset))
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        // Behind the last byte there is always a hole.
        Ok((!data).then_some(size))
    }
}

/// True when the block at an offset is known to hold zeros alone.
fn is_zeros(map: &BlockMap, offset: u64) -> bool {
    let Some(i) = map.find(offset) else { return false };
    let (hash, len) = (map.entries[i].hash, map.entries[i].len as usize);
    if len == BLOCK_MAX_BYTES {
        return hash == *ZERO_BLOCK;
    }
    // The rest of such a run at the end of a file is shorter.
    let ends = i + 1 == map.entries.len();
    let follows = i == 0 || map.entries[i - 1].hash == *ZERO_BLOCK;
    ends && follows && hash == BlockHash::of(&vec![0; len])
}
