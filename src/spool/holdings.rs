//! How much of a content is on this disk.

use drivefs_core::id::BlockHash;
use drivefs_core::manifest::Root;

use super::Spool;
use super::SpoolError;
use crate::state::Node;

/// Bytes of a content, and how many of them need no network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    pub files: u64,
    pub bytes: u64,
    pub here: u64,
    pub blocks: u64,
    pub blocks_here: u64,
    /// The server does not have these yet: layers, and blocks that wait.
    pub unsent: u64,
}

impl Holdings {
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.here += other.here;
        self.blocks += other.blocks;
        self.blocks_here += other.blocks_here;
        self.unsent += other.unsent;
    }
}

impl Spool {
    /// What of a file is here. A content whose list of blocks is not here counts as absent.
    pub fn holdings(&self, node: &Node) -> Result<Holdings, SpoolError> {
        let mut out = Holdings { files: 1, bytes: node.size, ..Holdings::default() };
        let whole_layer = |layer: Option<(u64, bool)>| layer.is_some_and(|(_, over)| !over);
        if whole_layer(node.live) || whole_layer(node.frozen) {
            out.here = node.size;
            out.unsent = node.size;
            return Ok(out);
        }
        let Some(content) = &node.content else {
            out.here = node.size;
            return Ok(out);
        };
        let root = Root::decode(content)?;
        let Some(entries) = self.entries_here(&root)? else { return Ok(out) };
        for entry in entries {
            out.blocks += 1;
            let row = self.db.peek(|c| c.cached(&entry.hash))?;
            let here = row.is_some() || self.cache.is_in_memory(&entry.hash);
            if here {
                out.blocks_here += 1;
                out.here += u64::from(entry.len);
            }
            if row.is_some_and(|row| row.unsent) {
                out.unsent += u64::from(entry.len);
            }
        }
        // What a layer covers is here as well; how much of it overlaps is not worth the look.
        out.here = out.here.min(out.bytes);
        Ok(out)
    }

    /// All blocks of a content with their lengths, its segments first; none when a segment is not
    /// here.
    pub fn blocks_here(&self, node: &Node) -> Result<Option<Vec<(BlockHash, u32)>>, SpoolError> {
        let Some(content) = &node.content else { return Ok(Some(Vec::new())) };
        let root = Root::decode(content)?;
        let mut out = segments(&root);
        let Some(entries) = self.entries_here(&root)? else { return Ok(None) };
        out.extend(entries.iter().map(|e| (e.hash, e.len)));
        Ok(Some(out))
    }
}

/// The segments of a manifest, of unknown length (0).
pub fn segments(root: &Root) -> Vec<(BlockHash, u32)> {
    match root {
        Root::Inline(_) => Vec::new(),
        Root::Segmented(refs) => refs.iter().map(|listed| (listed.hash, 0)).collect(),
    }
}
