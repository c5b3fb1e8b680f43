//! Manifests: the ordered block list of a version.
//!
//! A small file's *root* lists its blocks inline. A larger one's lists *segments*, each a run of
//! entries stored as an ordinary block under its own hash. Segments end where the content says so
//! (an entry whose hash falls in one class of `SEGMENT_ENTRIES_AVG`), at most after
//! `SEGMENT_ENTRIES_MAX`, so an insertion changes one segment and not all that follow.
//!
//! Encoding, little-endian:
//! `root    = version:u8 kind:u8 count:u32 item*`
//! `item    = hash:32 len:u32` (kind 0, inline) or `hash:32 entries:u32 bytes:u64` (kind 1)
//! `segment = "DSEG" version:u8 count:u32 (hash:32 len:u32)*`

use crate::id::BlockHash;
use crate::limits::BLOCK_MAX_BYTES;
use crate::limits::INLINE_ENTRIES_MAX;
use crate::limits::ROOT_SEGMENTS_MAX;
use crate::limits::SEGMENT_ENTRIES_AVG;
use crate::limits::SEGMENT_ENTRIES_MAX;

const VERSION: u8 = 1;
const KIND_INLINE: u8 = 0;
const KIND_SEGMENTED: u8 = 1;
const SEGMENT_MAGIC: &[u8; 4] = b"DSEG";
const ENTRY_BYTES: usize = 36;
const SEGMENT_REF_BYTES: usize = 44;

/// Bytes that are not a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is cut short or too long")]
    Length,
    #[error("unknown manifest version or kind")]
    Version,
    #[error("manifest breaks a limit")]
    Limit,
    #[error("a segment does not agree with the root that lists it")]
    Mismatch,
}

/// One block of a file: its name and its length in bytes (1 to `BLOCK_MAX_BYTES`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub hash: BlockHash,
    pub len: u32,
}

/// A segment as its root sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentRef {
    pub hash: BlockHash,
    /// Number of entries in the segment.
    pub entries: u32,
    /// Content bytes that its blocks hold together.
    pub bytes: u64,
}

/// The root of a version's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Root {
    Inline(Vec<Entry>),
    Segmented(Vec<SegmentRef>),
}

/// An encoded segment and its name, to be stored like any block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub hash: BlockHash,
    pub bytes: Vec<u8>,
}

impl Root {
    /// The root of an empty file.
    pub fn empty() -> Self {
        Self::Inline(Vec::new())
    }

    /// Builds root and segments of a block list. The result depends on the list alone.
    pub fn build(entries: &[Entry]) -> (Self, Vec<Segment>) {
        if entries.len() <= INLINE_ENTRIES_MAX {
            return (Self::Inline(entries.to_vec()), Vec::new());
        }
        let mut refs = Vec::new();
        let mut segments = Vec::new();
        let mut start = 0;
        for (i, entry) in entries.iter().enumerate() {
            let count = i + 1 - start;
            if count == SEGMENT_ENTRIES_MAX || ends_segment(entry) || i + 1 == entries.len() {
                let run = &entries[start..=i];
                let bytes = encode_segment(run);
                let hash = BlockHash::of(&bytes);
                refs.push(SegmentRef {
                    hash,
                    entries: run.len() as u32,
                    bytes: run.iter().map(|e| u64::from(e.len)).sum(),
                });
                segments.push(Segment { hash, bytes });
                start = i + 1;
            }
        }
        (Self::Segmented(refs), segments)
    }

    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(entries) => entries.iter().map(|e| u64::from(e.len)).sum(),
            Self::Segmented(refs) => refs.iter().map(|s| s.bytes).sum(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let (kind, count) = match self {
            Self::Inline(entries) => (KIND_INLINE, entries.len()),
            Self::Segmented(refs) => (KIND_SEGMENTED, refs.len()),
        };
        let mut out = Vec::with_capacity(6 + count * SEGMENT_REF_BYTES);
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&(count as u32).to_le_bytes());
        match self {
            Self::Inline(entries) => entries.iter().for_each(|e| put_entry(&mut out, e)),
            Self::Segmented(refs) => {
                for s in refs {
                    out.extend_from_slice(&s.hash.0);
                    out.extend_from_slice(&s.entries.to_le_bytes());
                    out.extend_from_slice(&s.bytes.to_le_bytes());
                }
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (head, body) = bytes.split_at_checked(6).ok_or(ManifestError::Length)?;
        if head[0] != VERSION {
            return Err(ManifestError::Version);
        }
        let count = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        match head[1] {
            KIND_INLINE if count > INLINE_ENTRIES_MAX => Err(ManifestError::Limit),
            KIND_INLINE => decode_entries(body, count).map(Self::Inline),
            KIND_SEGMENTED if count > ROOT_SEGMENTS_MAX => Err(ManifestError::Limit),
            KIND_SEGMENTED => decode_refs(body, count).map(Self::Segmented),
            _ => Err(ManifestError::Version),
        }
    }
}

fn ends_segment(entry: &Entry) -> bool {
    u16::from_le_bytes([entry.hash.0[0], entry.hash.0[1]]).is_multiple_of(SEGMENT_ENTRIES_AVG)
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(&entry.hash.0);
    out.extend_from_slice(&entry.len.to_le_bytes());
}

fn encode_segment(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + entries.len() * ENTRY_BYTES);
    out.extend_from_slice(SEGMENT_MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    entries.iter().for_each(|e| put_entry(&mut out, e));
    out
}

/// Decodes a segment and checks it against the root's word on it.
pub fn decode_segment(bytes: &[u8], listed: &SegmentRef) -> Result<Vec<Entry>, ManifestError> {
    let (head, body) = bytes.split_at_checked(9).ok_or(ManifestError::Length)?;
    if &head[..4] != SEGMENT_MAGIC || head[4] != VERSION {
        return Err(ManifestError::Version);
    }
    let count = u32::from_le_bytes([head[5], head[6], head[7], head[8]]) as usize;
    if count > SEGMENT_ENTRIES_MAX {
        return Err(ManifestError::Limit);
    }
    let entries = decode_entries(body, count)?;
    let total: u64 = entries.iter().map(|e| u64::from(e.len)).sum();
    if entries.len() != listed.entries as usize || total != listed.bytes {
        return Err(ManifestError::Mismatch);
    }
    Ok(entries)
}

fn decode_entries(body: &[u8], count: usize) -> Result<Vec<Entry>, ManifestError> {
    if body.len() != count * ENTRY_BYTES {
        return Err(ManifestError::Length);
    }
    body.chunks_exact(ENTRY_BYTES)
        .map(|item| {
            let (hash, len) = item.split_at(32);
            let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
            if len == 0 || len as usize > BLOCK_MAX_BYTES {
                return Err(ManifestError::Limit);
            }
            let hash = BlockHash::from_slice(hash).map_err(|_| ManifestError::Length)?;
            Ok(Entry { hash, len })
        })
        .collect()
}

fn decode_refs(body: &[u8], count: usize) -> Result<Vec<SegmentRef>, ManifestError> {
    if body.len() != count * SEGMENT_REF_BYTES {
        return Err(ManifestError::Length);
    }
    body.chunks_exact(SEGMENT_REF_BYTES)
        .map(|item| {
            let hash = BlockHash::from_slice(&item[..32]).map_err(|_| ManifestError::Length)?;
            let entries = u32::from_le_bytes([item[32], item[33], item[34], item[35]]);
            let mut eight = [0; 8];
            eight.copy_from_slice(&item[36..44]);
            let bytes = u64::from_le_bytes(eight);
            let most = u64::from(entries) * BLOCK_MAX_BYTES as u64;
            if entries == 0 || entries as usize > SEGMENT_ENTRIES_MAX || bytes > most {
                return Err(ManifestError::Limit);
            }
            Ok(SegmentRef { hash, entries, bytes })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(max: usize) -> impl Strategy<Value = Vec<Entry>> {
        proptest::collection::vec((any::<[u8; 32]>(), 1u32..=BLOCK_MAX_BYTES as u32), 0..max)
            .prop_map(|v| v.into_iter().map(|(h, len)| Entry { hash: BlockHash(h), len }).collect())
    }

    fn expand(root: &Root, segments: &[Segment]) -> Vec<Entry> {
        match root {
            Root::Inline(entries) => entries.clone(),
            Root::Segmented(refs) => refs
                .iter()
                .zip(segments)
                .flat_map(|(r, s)| decode_segment(&s.bytes, r).expect("own segment"))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn a_manifest_comes_back_as_it_was_built(list in entries(3000)) {
            let (root, segments) = Root::build(&list);
            let again = Root::decode(&root.encode()).expect("own encoding");
            prop_assert_eq!(&again, &root);
            prop_assert_eq!(root.size(), list.iter().map(|e| u64::from(e.len)).sum::<u64>());
            prop_assert_eq!(expand(&again, &segments), list);
        }

        #[test]
        fn one_changed_entry_changes_few_segments(list in entries(3000), at: prop::sample::Index) {
            prop_assume!(list.len() > INLINE_ENTRIES_MAX);
            let mut edited = list.clone();
            let i = at.index(list.len());
            edited[i].hash = BlockHash::of(b"edited");
            let (_, before) = Root::build(&list);
            let (_, after) = Root::build(&edited);
            let new = after.iter().filter(|s| !before.contains(s)).count();
            // At most the segment itself and, where a cut moved against the count limit, those
            // up to the next content-defined cut.
            prop_assert!(new <= 2 + list.len() / SEGMENT_ENTRIES_MAX, "{new} new segments");
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_valid_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(root) = Root::decode(&bytes) {
                prop_assert_eq!(root.encode(), bytes.clone());
            }
            let listed = SegmentRef { hash: BlockHash([0; 32]), entries: 3, bytes: 9 };
            let _ = decode_segment(&bytes, &listed);
        }

        #[test]
        fn a_damaged_segment_never_passes_for_another_length(list in entries(200), at: prop::sample::Index, bit in 0u8..8) {
            prop_assume!(list.len() > INLINE_ENTRIES_MAX);
            let (root, segments) = Root::build(&list);
            let Root::Segmented(refs) = root else { unreachable!("long list") };
            let mut bytes = segments[0].bytes.clone();
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            if let Ok(got) = decode_segment(&bytes, &refs[0]) {
                prop_assert_eq!(got.iter().map(|e| u64::from(e.len)).sum::<u64>(), refs[0].bytes);
            }
        }
    }
}
