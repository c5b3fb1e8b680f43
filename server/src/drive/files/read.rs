//! The bytes of a file, or of one of its versions, piece by piece.
//!
//! Each block is opened, decoded and checked before a byte of it goes out. An answer of any length
//! holds a few blocks. A damaged block ends the answer with an error, never with wrong bytes.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Entry as BlockEntry;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;
use drivefs_core::node::NodeKind;
use futures_util::Stream;
use futures_util::stream;
use tokio::sync::mpsc;

use super::FilesError;
use super::entry;
use super::entry::Entry;
use super::path::Target;
use super::stamp::Rev;
use crate::auth::Asker;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::history::visible;
use crate::drive::member_of;
use crate::drive::places;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::versions;

/// Plain bytes that are made ready at a time.
const PORTION_BYTES: u64 = 2 * 1024 * 1024;
/// Portions made ready while an earlier one is sent.
const PORTIONS_AHEAD: usize = 1;

/// A version that can be read.
#[derive(Debug, Clone)]
pub struct Readable {
    /// As of that version.
    pub entry: Entry,
    owner: UserId,
    root: Root,
}

impl Drive {
    /// Finds a file, or with a rev one of its versions, which may be that of a deleted file.
    pub async fn readable(
        &self,
        asker: &Asker,
        target: Target,
        rev: Option<Rev>,
    ) -> Result<Readable, FilesError> {
        let asker = asker.clone();
        self.store.read(move |sql| find(sql, &asker, &target, rev)).await
    }

    /// The bytes of a range, which lies inside the file. The first piece is loaded before this
    /// returns: its errors have a status.
    pub async fn read_file(
        &self,
        file: &Readable,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, FilesError> {
        let mut rest =
            Rest { owner: file.owner, wanted: range, at: 0, parts: parts_of(&file.root) };
        let first = self.next_portion(&mut rest).await?;
        let (sender, receiver) = mpsc::channel(PORTIONS_AHEAD);
        let drive = self.clone();
        if !rest.is_done() {
            tokio::spawn(async move {
                while !rest.is_done() {
                    let portion = drive.next_portion(&mut rest).await.map_err(|error| {
                        tracing::warn!(%error, "a download ends early");
                        io::Error::other(error.to_string())
                    });
                    let ends = portion.is_err();
                    if sender.send(portion).await.is_err() || ends {
                        return; // The client is gone, or hears of the error.
                    }
                }
            });
        }
        let begin = stream::iter(first.into_iter().map(Ok));
        let later = stream::unfold(receiver, |mut receiver| async {
            let portion = receiver.recv().await?;
            let pieces: Vec<io::Result<Bytes>> = match portion {
                Ok(pieces) => pieces.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(e)],
            };
            Some((stream::iter(pieces), receiver))
        });
        use futures_util::StreamExt;
        Ok(begin.chain(later.flatten()))
    }

    /// The next blocks that the range touches, cut to it.
    async fn next_portion(&self, rest: &mut Rest) -> Result<Vec<Bytes>, FilesError> {
        let mut wanted: Vec<(u64, BlockEntry)> = Vec::new();
        let mut bytes = 0;
        while bytes < PORTION_BYTES && !rest.is_done() {
            match rest.parts.pop() {
                None => break,
                Some(Part::Segment(listed)) if rest.at + listed.bytes <= rest.wanted.start => {
                    rest.at += listed.bytes;
                }
                Some(Part::Segment(listed)) => {
                    let entries = self.segment(rest.owner, listed).await?;
                    rest.parts.extend(entries.into_iter().rev().map(Part::Block));
                }
                Some(Part::Block(entry)) => {
                    let len = u64::from(entry.len);
                    if rest.at + len > rest.wanted.start {
                        wanted.push((rest.at, entry));
                        bytes += len;
                    }
                    rest.at += len;
                }
            }
        }
        let _held = self.work.hold(2 * bytes).await?;
        let loaded = self.load_blocks(rest.owner, wanted.iter().map(|(_, e)| e.hash)).await?;
        let mut out = Vec::with_capacity(wanted.len());
        for (at, entry) in wanted {
            let block = loaded.get(&entry.hash).cloned();
            let block = block.filter(|b| b.len() == entry.len as usize);
            let block = block.ok_or_else(|| DriveError::MissingBlocks(vec![entry.hash]))?;
            let from = rest.wanted.start.saturating_sub(at) as usize;
            let to = (rest.wanted.end - at).min(u64::from(entry.len)) as usize;
            out.push(block.slice(from..to));
        }
        Ok(out)
    }

    async fn segment(
        &self,
        owner: UserId,
        listed: SegmentRef,
    ) -> Result<Vec<BlockEntry>, FilesError> {
        let loaded = self.load_blocks(owner, [listed.hash].into_iter()).await?;
        let bytes = loaded.get(&listed.hash);
        let bytes = bytes.ok_or_else(|| DriveError::MissingBlocks(vec![listed.hash]))?;
        decode_segment(bytes, &listed)
            .map_err(|e| DriveError::Internal(format!("segment {}: {e}", listed.hash)).into())
    }

    async fn load_blocks(
        &self,
        owner: UserId,
        hashes: impl Iterator<Item = BlockHash>,
    ) -> Result<std::collections::HashMap<BlockHash, Bytes>, FilesError> {
        let hashes: Vec<_> = hashes.collect();
        let held = self
            .store
            .read(move |sql| {
                let mut held = Vec::new();
                for hash in hashes {
                    held.extend(blocks::find(sql, owner, hash)?);
                }
                Ok::<_, DriveError>(held)
            })
            .await?;
        let loaded = self.load(held).await?;
        Ok(loaded.into_iter().map(|(hash, b)| (hash, Bytes::from(b.plain))).collect())
    }
}

/// What is left of a read.
struct Rest {
    owner: UserId,
    wanted: Range<u64>,
    /// Offset of the next part.
    at: u64,
    /// Last first.
    parts: Vec<Part>,
}

enum Part {
    Block(BlockEntry),
    Segment(SegmentRef),
}

impl Rest {
    fn is_done(&self) -> bool {
        self.at >= self.wanted.end || self.wanted.is_empty() || self.parts.is_empty()
    }
}

fn parts_of(root: &Root) -> Vec<Part> {
    match root {
        Root::Inline(entries) => entries.iter().rev().copied().map(Part::Block).collect(),
        Root::Segmented(refs) => refs.iter().rev().copied().map(Part::Segment).collect(),
    }
}

fn find(
    sql: &mut dyn Sql,
    asker: &Asker,
    target: &Target,
    rev: Option<Rev>,
) -> Result<Readable, FilesError> {
    let rev = rev.or(match target {
        Target::Rev(rev) if rev.version > 0 => Some(*rev),
        _ => None,
    });
    let (mut entry, version) = match rev {
        None => {
            let entry = entry::find(sql, asker, target)?;
            let version = entry.row.version;
            (entry, version)
        }
        Some(rev) => (of_rev(sql, asker, rev)?, rev.version),
    };
    if entry.row.kind != NodeKind::File {
        return Err(FilesError::NotFile);
    }
    let found = versions::content(sql, entry.ns, entry.row.node, version)?;
    let (content, size) = found.ok_or(FilesError::NoRevision)?;
    if version != entry.row.version {
        let committed = versions::committed(sql, entry.ns, entry.row.node, version)?;
        entry.row.committed = committed.unwrap_or_default();
        entry.row.attrs.mtime = entry.row.committed;
        entry.row.version = version;
    }
    entry.row.content = None;
    entry.size = size;
    let root =
        Root::decode(&content).map_err(|e| DriveError::Internal(format!("stored root: {e}")))?;
    let owner = member_of(sql, entry.ns, asker.user)?.namespace.owner;
    Ok(Readable { entry, owner, root })
}

/// The file of a rev, be it deleted, as long as it is in the trash.
pub fn of_rev(sql: &mut dyn Sql, asker: &Asker, rev: Rev) -> Result<Entry, FilesError> {
    let space = member_of(sql, rev.ns, asker.user)?;
    let row = visible(sql, &space.namespace, Some(rev.node)).map_err(|e| match e {
        DriveError::NotFound(_) => FilesError::NotFound,
        other => other.into(),
    })?;
    let mut path = super::walk::path_to(sql, asker, rev.ns)?;
    path.0.extend(places::path_of(sql, &space.namespace, rev.node)?);
    entry::of_row(sql, asker, (rev.ns, space.role), path, row)
}
