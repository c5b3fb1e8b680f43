//! A file whose blocks are stored comes into the tree; and the upload that is one request.

use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::limits::BODY_PAUSE_SECS;
use drivefs_core::limits::PACK_BLOCKS_MAX;
use drivefs_core::limits::PACK_MAX_BYTES;
use drivefs_core::manifest::Entry as BlockEntry;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::Segment;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::OpResult;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::ByteStream;
use super::FilesError;
use super::aim;
use super::aim::Aim;
use super::aim::Aimed;
use super::aim::Content;
use super::aim::Mode;
use super::aim::Plan;
use super::aim::aimed_at;
use super::complete::Completion;
use super::entry;
use super::entry::Entry;
use super::fresh_key;
use super::fresh_node;
use super::path::Target;
use super::plain::GATHER_BYTES;
use super::plain::Gathered;
use super::plain::PlainBlock;
use super::plain::nothing;
use super::stamp::Rev;
use crate::auth::Asker;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::metadata::Sql;
use crate::metadata::accounts;
use crate::metadata::nodes;
use crate::metadata::uploads;
use crate::metadata::uploads::Upload;

/// How often a commit is decided anew because the tree has moved on.
const TRIES_MAX: usize = 8;
/// Bytes of a body that are read although nobody wants them.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A file that was put.
#[derive(Debug, Clone)]
pub struct Put {
    pub entry: Entry,
    /// It was not there before.
    pub is_new: bool,
}

/// Where a file was or will be put.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    pub ns: NamespaceId,
    pub node: NodeId,
}

impl Drive {
    /// Uploads in one request: nothing is kept of one that breaks off.
    pub async fn upload_file(
        &self,
        asker: &Asker,
        aim: Aim,
        len: Option<u64>,
        body: ByteStream,
        checked: Checked,
    ) -> Result<Put, FilesError> {
        let mut body = Body::new(body, checked);
        if let Err(e) = self.check_aim(asker, &aim, len).await {
            body.drain().await;
            return Err(e);
        }
        if let Completion::There(_) = self.completion {
            return self.upload_in_one(asker, aim, body).await;
        }
        let mut gathered = Gathered::default();
        let mut entries = Vec::new();
        let (mut total, mut is_end) = (0u64, false);
        while !is_end {
            match body.next().await? {
                Some(bytes) => {
                    total += bytes.len() as u64;
                    self.check_size(total)?;
                    gathered.push(&bytes);
                }
                None => is_end = true,
            }
            if gathered.len() >= GATHER_BYTES || is_end {
                let (rest, blocks) = self.cut(gathered, is_end).await?;
                gathered = rest;
                entries.extend(blocks.iter().map(|b| b.entry));
                self.store_plain(asker.user, blocks, nothing()).await?;
            }
        }
        body.check_end()?;
        let content = self.manifest_of(asker, &entries).await?;
        self.put_file(asker, &aim, content, &entries, None).await
    }

    /// Refuses what cannot end well before bytes are taken.
    pub(super) async fn check_aim(
        &self,
        asker: &Asker,
        aim: &Aim,
        len: Option<u64>,
    ) -> Result<Aimed, FilesError> {
        self.check_size(len.unwrap_or_default())?;
        let (asker, aim) = (asker.clone(), aim.clone());
        self.store
            .read(move |sql| {
                let aimed = aimed_at(sql, &asker, &aim)?;
                check_room(sql, &aimed, len.unwrap_or_default())?;
                if let (Mode::Base(base), false) = (&aim.mode, aim.autorename) {
                    check_base(sql, &aimed, *base)?;
                }
                Ok(aimed)
            })
            .await
    }

    pub(super) fn check_size(&self, bytes: u64) -> Result<(), FilesError> {
        let most = self.limits.file_max_bytes;
        if bytes > most {
            return Err(FilesError::TooLarge(format!(
                "a file has at most {most} bytes here, this one has {bytes} or more"
            )));
        }
        Ok(())
    }

    /// Stores the segments of a block list, if it has any; answers its root.
    pub(super) async fn manifest_of(
        &self,
        asker: &Asker,
        entries: &[BlockEntry],
    ) -> Result<Content, FilesError> {
        let (root, segments) = Root::build(entries);
        for batch in segment_packs(segments) {
            self.store_plain(asker.user, batch, nothing()).await?;
        }
        Ok(Content { root: root.encode(), node: fresh_node(), op: fresh_key() })
    }

    /// Brings a file into the tree whose blocks the asker's account holds. An upload of several
    /// requests is told before the commit what was decided.
    pub(super) async fn put_file(
        &self,
        asker: &Asker,
        aim: &Aim,
        content: Content,
        entries: &[BlockEntry],
        noted: Option<&Upload>,
    ) -> Result<Put, FilesError> {
        let mut noted = noted.cloned();
        for _ in 0..TRIES_MAX {
            let (who, wanted, made) = (asker.clone(), aim.clone(), content.clone());
            let plan = self.store.read(move |sql| aim::plan(sql, &who, &wanted, &made)).await?;
            let (folder, owner, ops, node, is_new) = match plan {
                Plan::Same(spot) => {
                    let who = asker.clone();
                    let entry =
                        self.store.read(move |sql| entry::of_spot(sql, &who, &spot)).await?;
                    return Ok(Put { entry, is_new: false });
                }
                Plan::Commit { folder, owner, ops, node, is_new } => {
                    (folder, owner, ops, node, is_new)
                }
            };
            let mut hashes: Vec<_> = entries.iter().map(|e| e.hash).collect();
            if let Ok(Root::Segmented(refs)) = Root::decode(&content.root) {
                hashes.extend(refs.iter().map(|s| s.hash));
            }
            self.link_plain(asker.user, owner, hashes).await?;
            let ns = folder.ns();
            if let Some(row) = noted.take() {
                noted = Some(self.decided(row, Decided { ns, node }).await?);
            }
            let request = CommitRequest { ns, at: None, ops, rewinds: None };
            let mut reply = self.commit(asker.clone(), request).await?;
            match reply.results.pop() {
                Some(OpResult::Done { version, .. }) => {
                    let entry = self.put_entry(asker, Rev { ns, node, version }).await?;
                    return Ok(Put { entry, is_new });
                }
                Some(OpResult::Conflict { .. }) => {}
                Some(OpResult::Rejected { code, message }) => return Err(refused(code, message)),
                None => return Err(DriveError::Internal("a commit without results".into()).into()),
            }
        }
        Err(DriveError::Conflict("the folder changes all the time; try again".into()).into())
    }

    async fn decided(&self, row: Upload, to: Decided) -> Result<Upload, FilesError> {
        let after = Upload { ns: Some(to.ns), node: Some(to.node), ..row.clone() };
        let next = after.clone();
        let moved = self.store.write(move |sql| uploads::advance(sql, &row, &next)).await?;
        // Somebody else ends it at this moment.
        if moved { Ok(after) } else { Err(FilesError::Offset(after.received)) }
    }

    /// The file as it is now that it was put.
    pub(super) async fn put_entry(&self, asker: &Asker, rev: Rev) -> Result<Entry, FilesError> {
        let (asker, target) = (asker.clone(), Target::Rev(rev));
        self.store.read(move |sql| entry::find(sql, &asker, &target)).await
    }
}

/// What an op was refused for.
pub fn refused(code: ErrorCode, message: String) -> FilesError {
    match code {
        ErrorCode::QuotaExceeded => FilesError::NoSpace(message),
        ErrorCode::TooLarge => FilesError::TooLarge(message),
        ErrorCode::Forbidden => FilesError::NoWrite,
        ErrorCode::NotFound => FilesError::NotFound,
        ErrorCode::MissingBlocks => FilesError::NoUpload,
        _ => FilesError::BadRequest(message),
    }
}

fn check_room(sql: &mut dyn Sql, aimed: &Aimed, len: u64) -> Result<(), FilesError> {
    let owner = accounts::by_id(sql, aimed.folder.space.namespace.owner)?;
    let owner = owner.ok_or(FilesError::NotFound)?;
    let old = match &aimed.there {
        Some(spot) => {
            let row = nodes::row(sql, spot.space.namespace.ns, spot.node)?;
            let root = row.and_then(|r| r.content).and_then(|c| Root::decode(&c.0).ok());
            root.map_or(0, |root| root.size())
        }
        None => 0,
    };
    let room = owner.quota_bytes.saturating_sub(owner.used_bytes);
    if len > old && len - old > room {
        return Err(FilesError::NoSpace(format!(
            "{} more bytes do not fit: {} of {} are used",
            len - old,
            owner.used_bytes,
            owner.quota_bytes
        )));
    }
    Ok(())
}

fn check_base(sql: &mut dyn Sql, aimed: &Aimed, base: u64) -> Result<(), FilesError> {
    let head = match &aimed.there {
        Some(spot) if spot.kind.is_folder() => {
            return Err(aim::taken_error(super::error::Taken::Folder, &spot.path));
        }
        Some(spot) => {
            nodes::state(sql, spot.space.namespace.ns, spot.node)?.map_or(0, |s| s.version)
        }
        None => 0,
    };
    if head == base { Ok(()) } else { Err(aim::base_error(base, head)) }
}

/// Segments in packs that keep the limits.
fn segment_packs(segments: Vec<Segment>) -> Vec<Vec<PlainBlock>> {
    let mut packs: Vec<Vec<PlainBlock>> = Vec::new();
    let mut bytes = usize::MAX;
    for segment in segments {
        let len = segment.bytes.len();
        let is_full = packs.last().is_none_or(|p| p.len() >= PACK_BLOCKS_MAX);
        if is_full || bytes.saturating_add(len) > PACK_MAX_BYTES / 2 {
            packs.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        let block = PlainBlock {
            entry: BlockEntry { hash: segment.hash, len: len as u32 },
            bytes: segment.bytes.into(),
        };
        packs.last_mut().expect("pushed above").push(block);
    }
    packs
}

/// What is known of a body beforehand.
#[derive(Debug, Default)]
pub struct Checked {
    /// Dropbox's hash of the whole body (hexadecimal), if the sender told it.
    pub content_hash: Option<String>,
}

/// A body that is read with patience, but not for ever.
pub struct Body {
    stream: ByteStream,
    hash: Option<(super::hash::ContentHash, String)>,
}

impl Body {
    pub fn new(stream: ByteStream, checked: Checked) -> Self {
        let hash = checked.content_hash.map(|text| (super::hash::ContentHash::default(), text));
        Self { stream, hash }
    }

    /// The next bytes; none at the end. An error is a connection that broke.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, FilesError> {
        let wait = Duration::from_secs(BODY_PAUSE_SECS);
        let broken = |why: String| FilesError::BadRequest(format!("the body broke off: {why}"));
        match timeout(wait, self.stream.next()).await {
            Err(_) => Err(broken(format!("no byte for {BODY_PAUSE_SECS} seconds"))),
            Ok(Some(Err(e))) => Err(broken(e.to_string())),
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => {
                if let Some((hash, _)) = &mut self.hash {
                    hash.update(&bytes);
                }
                Ok(Some(bytes))
            }
        }
    }

    /// Reads on for a while, so that a client that sends all before it listens hears why not.
    pub async fn drain(&mut self) {
        let mut left = DRAIN_BYTES_MAX;
        while let Ok(Some(bytes)) = self.next().await {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                return;
            }
        }
    }

    /// At the end: the bytes must be those that the sender meant.
    pub fn check_end(self) -> Result<(), FilesError> {
        let Some((hash, told)) = self.hash else { return Ok(()) };
        if hash.finish().eq_ignore_ascii_case(&told) { Ok(()) } else { Err(FilesError::Hash) }
    }
}
