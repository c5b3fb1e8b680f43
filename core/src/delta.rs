//! Chunking a changed file again, at the cost of the change and not of the file.
//!
//! The new content is the old one with some byte ranges overwritten and a new length. Old cut
//! points stay valid up to the block that holds the first changed byte; from there blocks are cut
//! afresh until a cut meets an old one behind the change, and so on for the next change.

use std::ops::Range;

use crate::chunk::next_cut;
use crate::id::BlockHash;
use crate::limits::BLOCK_MAX_BYTES;
use crate::manifest::Entry;

/// Bytes read at once where everything ahead has changed.
const STRIDE_BYTES: u64 = 2 * BLOCK_MAX_BYTES as u64;

/// One block of the new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where the block starts in the new content (bytes).
    pub offset: u64,
    pub entry: Entry,
    /// False for a block of the old manifest at the same place.
    pub fresh: bool,
}

/// Cuts content of `new_len` bytes that differs from the blocks `old` only in `dirty` (sorted,
/// not overlapping) and past the old end. `read(offset, len)` returns exactly `len` bytes of the
/// new content. Without `old` this is plain chunking.
///
/// The result equals that of chunking the whole new content afresh.
pub fn rechunk<E>(
    old: &[Entry],
    dirty: &[Range<u64>],
    new_len: u64,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Vec<Piece>, E> {
    let old = OldCuts::new(old);
    let dirty = changed_ranges(dirty, old.end(), new_len);
    let mut pieces = Vec::new();
    let mut window = Window { start: 0, bytes: Vec::new() };
    let mut pos = 0;
    while pos < new_len {
        if let Some((index, end)) = old.block_at(pos) {
            // The last old block was cut by the end of the file, so it stays only if that stays.
            let cut_is_natural = end < old.end() || new_len == old.end();
            if cut_is_natural && end <= new_len && !touches(&dirty, pos, end) {
                pieces.push(Piece { offset: pos, entry: old.entries[index], fresh: false });
                pos = end;
                continue;
            }
        }
        let len = cut_afresh(&old, &dirty, new_len, pos, &mut window, &mut read)?;
        let bytes = window.slice(pos, len);
        let entry = Entry { hash: BlockHash::of(bytes), len: len as u32 };
        let fresh = !matches!(old.block_at(pos), Some((i, _)) if old.entries[i] == entry);
        pieces.push(Piece { offset: pos, entry, fresh });
        pos += len as u64;
    }
    Ok(pieces)
}

fn cut_afresh<E>(
    old: &OldCuts<'_>,
    dirty: &[Range<u64>],
    new_len: u64,
    pos: u64,
    window: &mut Window,
    read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<usize, E> {
    let block_limit = new_len.min(pos + BLOCK_MAX_BYTES as u64);
    let mut want = first_look(old, dirty, pos, new_len).min(new_len);
    loop {
        window.fill(pos, want, read)?;
        let have = window.slice(pos, (window.end() - pos) as usize);
        let cut = next_cut(have);
        // A cut at the window's end may be an artefact of the window: look further.
        if cut < have.len() || pos + cut as u64 >= block_limit {
            return Ok(cut);
        }
        want = old.cut_after(want).unwrap_or(u64::MAX).max(want + 1).min(new_len);
    }
}

/// How far to read at first from `pos`: far ahead in a long change, else up to the first old cut
/// behind the change, where the new cuts most likely meet the old.
fn first_look(old: &OldCuts<'_>, dirty: &[Range<u64>], pos: u64, new_len: u64) -> u64 {
    let change = dirty.iter().find(|r| r.end > pos);
    let change_end = change.map_or(pos, |r| r.end);
    if change_end >= pos + BLOCK_MAX_BYTES as u64 {
        return (pos + STRIDE_BYTES).min(change_end).min(new_len);
    }
    old.cut_after(change_end.max(pos + 1) - 1).unwrap_or(new_len)
}

/// A stretch of the new content in memory.
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn slice(&self, pos: u64, len: usize) -> &[u8] {
        let from = (pos - self.start) as usize;
        &self.bytes[from..from + len]
    }

    /// Makes the window hold `pos..want`, keeping what it has.
    fn fill<E>(
        &mut self,
        pos: u64,
        want: u64,
        read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        if pos < self.start || pos > self.end() {
            self.bytes.clear();
            self.start = pos;
        } else {
            // Drop what lies behind only when it is the larger part: no quadratic copying.
            let behind = (pos - self.start) as usize;
            if behind * 2 >= self.bytes.len() {
                self.bytes.drain(..behind);
                self.start = pos;
            }
        }
        // A long change is read in strides, so a window that still holds a whole block will do.
        let enough = want.min(pos + BLOCK_MAX_BYTES as u64);
        if self.end() < enough {
            let from = self.end();
            self.bytes.extend_from_slice(&read(from, (want - from) as usize)?);
        }
        Ok(())
    }
}

/// The old block list with its cut points.
struct OldCuts<'a> {
    entries: &'a [Entry],
    /// `starts[i]` is where block i starts; one more for the end of the content.
    starts: Vec<u64>,
}

impl<'a> OldCuts<'a> {
    fn new(entries: &'a [Entry]) -> Self {
        let mut starts = Vec::with_capacity(entries.len() + 1);
        let mut at = 0;
        starts.push(0);
        for entry in entries {
            at += u64::from(entry.len);
            starts.push(at);
        }
        Self { entries, starts }
    }

    fn end(&self) -> u64 {
        *self.starts.last().expect("starts with a zero")
    }

    /// Index and end of the old block that starts exactly at `pos`.
    fn block_at(&self, pos: u64) -> Option<(usize, u64)> {
        let i = self.starts.binary_search(&pos).ok()?;
        (i < self.entries.len()).then(|| (i, self.starts[i + 1]))
    }

    /// The first old cut behind `pos`.
    fn cut_after(&self, pos: u64) -> Option<u64> {
        self.starts.get(self.starts.partition_point(|&s| s <= pos)).copied()
    }
}

/// The changed ranges, with growth past the old end as one more, merged and cut to the new length.
fn changed_ranges(dirty: &[Range<u64>], old_len: u64, new_len: u64) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = dirty.to_vec();
    if new_len > old_len {
        all.push(old_len..new_len);
    }
    all.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(all.len());
    for range in all {
        let range = range.start.min(new_len)..range.end.min(new_len);
        match merged.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn touches(dirty: &[Range<u64>], start: u64, end: u64) -> bool {
    let i = dirty.partition_point(|r| r.end <= start);
    dirty.get(i).is_some_and(|r| r.start < end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// Bytes that look random but come from a seed.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.finalize_xof().fill(&mut out);
        out
    }

    fn fresh(content: &[u8]) -> Vec<Entry> {
        let mut out = Vec::new();
        let mut rest = content;
        while !rest.is_empty() {
            let cut = next_cut(rest);
            out.push(Entry { hash: BlockHash::of(&rest[..cut]), len: cut as u32 });
            rest = &rest[cut..];
        }
        out
    }

    fn run(old: &[Entry], dirty: &[Range<u64>], content: &[u8]) -> (Vec<Piece>, usize) {
        let mut read_bytes = 0;
        let pieces = rechunk(old, dirty, content.len() as u64, |offset, len| {
            read_bytes += len;
            Ok::<_, Infallible>(content[offset as usize..offset as usize + len].to_vec())
        })
        .expect("infallible");
        (pieces, read_bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn rechunking_after_edits_equals_chunking_afresh(
            seed: u64,
            len in 0usize..24_000_000,
            new_len in 0usize..24_000_000,
            keep_len: bool,
            edits in proptest::collection::vec((0usize..24_000_000, 1usize..3_000_000), 0..5),
        ) {
            let before = noise(seed, len);
            let new_len = if keep_len { len } else { new_len };
            let mut after = before.clone();
            after.resize(new_len, 0);
            let mut dirty = Vec::new();
            for (i, (at, n)) in edits.iter().enumerate() {
                let start = (*at).min(new_len);
                let end = (start + n).min(new_len);
                after[start..end].copy_from_slice(&noise(seed ^ (i as u64 + 1), end - start));
                dirty.push(start as u64..end as u64);
            }
            dirty.sort_by_key(|r| r.start);
            let old = fresh(&before);
            let (pieces, _) = run(&old, &dirty, &after);
            let got: Vec<Entry> = pieces.iter().map(|p| p.entry).collect();
            prop_assert_eq!(got, fresh(&after));
            let mut at = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.offset, at);
                at += u64::from(piece.entry.len);
            }
            prop_assert_eq!(at, new_len as u64);
        }

        #[test]
        fn any_split_of_any_bytes_joins_back(content in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let (pieces, _) = run(&[], &[], &content);
            let joined: Vec<u8> = pieces
                .iter()
                .flat_map(|p| content[p.offset as usize..][..p.entry.len as usize].to_vec())
                .collect();
            prop_assert_eq!(joined, content);
        }
    }

    #[test]
    fn a_small_edit_of_a_large_file_reads_only_its_neighbourhood() {
        let mut content = noise(7, 64 << 20);
        let old = fresh(&content);
        content[30 << 20..(30 << 20) + 4096].fill(1);
        let edit = (30u64 << 20)..(30u64 << 20) + 4096;
        let (pieces, read_bytes) = run(&old, &[edit], &content);
        assert!(read_bytes <= 4 * BLOCK_MAX_BYTES, "read {read_bytes} bytes");
        let fresh_count = pieces.iter().filter(|p| p.fresh).count();
        assert!((1..=3).contains(&fresh_count), "{fresh_count} fresh blocks");
    }

    #[test]
    fn zeros_are_cut_at_the_maximum_and_joined_again() {
        let content = vec![0; 3 * BLOCK_MAX_BYTES + 5];
        let (pieces, _) = run(&[], &[], &content);
        assert_eq!(pieces.iter().map(|p| p.entry.len as usize).sum::<usize>(), content.len());
        assert_eq!(pieces.iter().map(|p| p.entry).collect::<Vec<_>>(), fresh(&content));
    }
}
