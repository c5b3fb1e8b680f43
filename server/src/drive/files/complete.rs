//! The end of an upload: its blocks are stored, and the file comes into the tree, once.
//!
//! Before the commit the row notes where the file goes and as which node; the commit has the upload's
//! own key. So whoever comes after a crash finds out whether it was done, and does it if not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Entry as BlockEntry;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::OpResult;
use serde::Deserialize;
use serde::Serialize;

use super::FilesError;
use super::aim::Aim;
use super::aim::Content;
use super::entry::Entry;
use super::error::Taken;
use super::path::FilePath;
use super::put::Put;
use super::session::aim_of;
use super::session::loose_text;
use super::stamp::Rev;
use crate::auth::Asker;
use crate::clock;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::metadata::DbError;
use crate::metadata::accounts;
use crate::metadata::ops;
use crate::metadata::uploads;
use crate::metadata::uploads::State;
use crate::metadata::uploads::Upload;
use crate::metadata::uploads::UploadId;

/// Stored uploads older than this are ended by the server (seconds).
const LEFT_SECS: i64 = 60;
const LEFT_AT_ONCE: u32 = 100;
/// Result of a stored upload that the tree did not take.
const REFUSED: &str = "refused";

/// What an upload came to, for whoever asks again.
#[derive(Serialize, Deserialize)]
struct Outcome {
    path: String,
    ns: NamespaceId,
    row: NodeRow,
    size: u64,
    shared_in: Option<NamespaceId>,
    is_new: bool,
}

/// Who brings stored uploads into the tree.
#[derive(Clone, Default)]
pub enum Completion {
    #[default]
    Here,
    /// Another process, which is told.
    There(Arc<dyn Callback>),
}

/// Tells another process that an upload is stored; returns when the file is in the tree.
pub trait Callback: Send + Sync {
    fn stored(
        &self,
        user: UserId,
        upload: UploadId,
    ) -> Pin<Box<dyn Future<Output = Result<(), FilesError>> + Send + '_>>;
}

/// Why a file did not come into the tree, as processes tell each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    Taken(Taken, String),
    NoWrite,
    NoSpace(String),
    TooLarge(String),
    NoUpload,
    NotFound,
    Other(String),
}

impl Refusal {
    pub fn of(error: &FilesError) -> Self {
        let text = error.to_string();
        match error {
            FilesError::Conflict(taken, _) => Self::Taken(*taken, text),
            FilesError::NoWrite => Self::NoWrite,
            FilesError::NoSpace(_) => Self::NoSpace(text),
            FilesError::TooLarge(_) => Self::TooLarge(text),
            FilesError::NoUpload => Self::NoUpload,
            FilesError::NotFound => Self::NotFound,
            _ => Self::Other(text),
        }
    }

    pub fn into_error(self) -> FilesError {
        match self {
            Self::Taken(taken, text) => FilesError::Conflict(taken, text),
            Self::NoWrite => FilesError::NoWrite,
            Self::NoSpace(text) => FilesError::NoSpace(text),
            Self::TooLarge(text) => FilesError::TooLarge(text),
            Self::NoUpload => FilesError::NoUpload,
            Self::NotFound => FilesError::NotFound,
            Self::Other(text) => FilesError::BadRequest(text),
        }
    }
}

impl Drive {
    /// Brings a stored upload into the tree, or has it brought there.
    pub(super) async fn complete(&self, asker: &Asker, row: Upload) -> Result<Put, FilesError> {
        match &self.completion {
            Completion::Here => self.complete_here(asker, row).await,
            Completion::There(callback) => {
                callback.stored(row.user, row.upload).await?;
                self.put_again(&self.upload_row(row.user, row.upload).await?)
            }
        }
    }

    /// Ends an upload for whoever began it: its last block is stored.
    pub async fn end_upload(&self, user: UserId, upload: UploadId) -> Result<(), FilesError> {
        let row = self.upload_row(user, upload).await?;
        if row.state == State::Pending || aim_of(&row).is_err() {
            return Err(FilesError::Offset(row.received));
        }
        let account = self.store.read(move |sql| accounts::by_id(sql, user)).await?;
        let account = account.filter(|a| !a.disabled).ok_or(FilesError::NoWrite)?;
        let asker = Asker {
            user,
            email: account.email,
            root: account.root_ns,
            device: 0,
            device_name: row.device.clone(),
            last_seen: clock::now_secs(),
        };
        self.complete_here(&asker, row).await.map(drop)
    }

    /// Ends uploads that are stored and that nobody asks for any more: whoever was to end them died.
    pub async fn end_left_uploads(&self) -> Result<(), FilesError> {
        let before = clock::now_secs() - LEFT_SECS;
        let left = self.store.read(move |sql| uploads::left(sql, before, LEFT_AT_ONCE)).await?;
        for (user, upload) in left {
            if let Err(error) = self.end_upload(user, upload).await {
                tracing::debug!(%error, "an upload that was left cannot be ended");
            }
        }
        Ok(())
    }

    /// One that is in the tree already answers what it came to.
    async fn complete_here(&self, asker: &Asker, row: Upload) -> Result<Put, FilesError> {
        if let Some(done) = self.done_before(asker, &row).await? {
            return Ok(done);
        }
        let entries = self.blocks_of(&row).await?;
        let content = self.manifest_of(asker, &entries).await?;
        let content = Content { op: row.op, ..content };
        let aim = aim_of(&row)?;
        let put = match self.put_file(asker, &aim, content, &entries, Some(&row)).await {
            Ok(put) => put,
            Err(e) => {
                // Its other half may have been faster.
                let row = self.upload_row(row.user, row.upload).await?;
                if let Some(done) = self.done_before(asker, &row).await? {
                    return Ok(done);
                }
                if !matches!(e, FilesError::Drive(_)) {
                    self.note_refused(row).await?;
                }
                return Err(e);
            }
        };
        self.end(row, put).await
    }

    /// What was told to have failed does not come later by itself; who asks again may be luckier.
    async fn note_refused(&self, row: Upload) -> Result<(), FilesError> {
        let after = Upload { result: Some(REFUSED.to_owned()), ..row.clone() };
        self.store.write(move |sql| uploads::advance(sql, &row, &after)).await?;
        Ok(())
    }

    /// What became of an upload that somebody has brought to its end, or nearly.
    async fn done_before(&self, asker: &Asker, row: &Upload) -> Result<Option<Put>, FilesError> {
        if row.state == State::Uploaded {
            return self.put_again(row).map(Some);
        }
        let (Some(ns), Some(node), op) = (row.ns, row.node, row.op) else { return Ok(None) };
        let Some(text) = self.store.read(move |sql| ops::find(sql, ns, op)).await? else {
            return Ok(None);
        };
        let result = serde_json::from_str(&text).map_err(|_| DbError::Decode("op result"))?;
        let OpResult::Done { version, .. } = result else { return Ok(None) };
        let entry = self.put_entry(asker, Rev { ns, node, version }).await?;
        let put = Put { entry, is_new: version == 1 };
        self.end(row.clone(), put).await.map(Some)
    }

    /// Notes what it came to, and lets its parts go: a version names the blocks now.
    async fn end(&self, row: Upload, put: Put) -> Result<Put, FilesError> {
        let outcome = Outcome {
            path: put.entry.path.to_string(),
            ns: put.entry.ns,
            row: NodeRow { content: None, ..put.entry.row.clone() },
            size: put.entry.size,
            shared_in: put.entry.shared_in,
            is_new: put.is_new,
        };
        let text =
            serde_json::to_string(&outcome).map_err(|e| DriveError::Internal(e.to_string()))?;
        let ns = put.entry.ns;
        self.store
            .write(move |sql| {
                let Some(row) = uploads::find(sql, row.user, row.upload)? else { return Ok(()) };
                let touched = clock::now_secs();
                let after =
                    Upload { state: State::Uploaded, result: Some(text), touched, ..row.clone() };
                uploads::advance(sql, &row, &after)?;
                uploads::remove_parts(sql, row.user, row.upload)
            })
            .await?;
        self.hub.hint(ns);
        Ok(put)
    }

    /// The answer of an upload that has ended.
    pub(super) fn put_again(&self, row: &Upload) -> Result<Put, FilesError> {
        let text = row.result.as_deref().ok_or(DbError::Decode("upload result"))?;
        let outcome: Outcome =
            serde_json::from_str(text).map_err(|_| DbError::Decode("upload result"))?;
        let entry = Entry {
            path: FilePath::parse(&outcome.path)?,
            ns: outcome.ns,
            row: outcome.row,
            size: outcome.size,
            shown: None,
            shared_in: outcome.shared_in,
            read_only: false,
        };
        Ok(Put { entry, is_new: outcome.is_new })
    }

    /// Tells a stored upload its place.
    pub(super) async fn aimed(&self, row: Upload, aim: &Aim) -> Result<Upload, FilesError> {
        let after = Upload { aim: loose_text(aim)?, ..row.clone() };
        let next = after.clone();
        let moved = self.store.write(move |sql| uploads::advance(sql, &row, &next)).await?;
        if moved { Ok(after) } else { self.upload_row(after.user, after.upload).await }
    }

    /// The file's blocks, which must follow each other from its first byte to its last.
    async fn blocks_of(&self, row: &Upload) -> Result<Vec<BlockEntry>, FilesError> {
        let (user, upload) = (row.user, row.upload);
        let parts = self.store.read(move |sql| uploads::parts(sql, user, upload, true)).await?;
        let mut at = 0;
        for part in &parts {
            if part.at != at {
                return Err(DbError::Decode("upload part").into());
            }
            at += u64::from(part.len);
        }
        if at != row.received || Some(at) != row.size {
            // Somebody else has ended it and let its parts go.
            return Err(FilesError::NoUpload);
        }
        Ok(parts.iter().map(|p| BlockEntry { hash: p.hash, len: p.len }).collect())
    }

    /// The bytes behind the last cut of an upload.
    pub(super) async fn tail_of(&self, row: &Upload) -> Result<super::plain::Gathered, FilesError> {
        let (user, upload) = (row.user, row.upload);
        let (parts, held) = self
            .store
            .read(move |sql| {
                let parts = uploads::parts(sql, user, upload, false)?;
                let mut held = Vec::new();
                for part in &parts {
                    held.extend(crate::metadata::blocks::find(sql, user, part.hash)?);
                }
                Ok::<_, DbError>((parts, held))
            })
            .await?;
        let mut gathered = super::plain::Gathered::default();
        let loaded = self.load(held).await?;
        let mut at = row.cut;
        for part in parts {
            let Some(block) = loaded.get(&part.hash) else {
                return Err(FilesError::NoUpload);
            };
            if part.at != at {
                return Err(DbError::Decode("upload part").into());
            }
            gathered.push(&block.plain);
            at += u64::from(part.len);
        }
        if at != row.received {
            // Somebody else was there between two looks.
            return Err(FilesError::Offset(0));
        }
        Ok(gathered)
    }
}
