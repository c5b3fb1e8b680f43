//! What the file API answers: the metadata shapes of the Dropbox API v2.
//!
//! `path_lower` is the path as it is: names differ by case here, and a path that was lowered would
//! lead elsewhere. `version` is ours, for `base_version`; `rev` is opaque.

use drivefs_core::node::NodeKind;
use serde::Serialize;

use crate::drive::files::entry::Entry;
use crate::drive::files::entry::Item;
use crate::drive::files::path::FilePath;
use crate::drive::files::path::shown;
use crate::drive::files::pending::Pending;
use crate::drive::files::stamp::time_text;

/// Something in a folder.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = ".tag", rename_all = "snake_case")]
pub enum Metadata {
    File(FileMetadata),
    Folder(FolderMetadata),
    Deleted(DeletedMetadata),
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FileMetadata {
    pub name: String,
    /// `id:` and what the server knows the file by, wherever it goes.
    pub id: String,
    /// When the content was changed where it comes from.
    pub client_modified: String,
    /// When the server took this version.
    pub server_modified: String,
    /// Names this version.
    pub rev: String,
    /// Counts the versions of the file, from 1.
    pub version: u64,
    /// Bytes.
    pub size: u64,
    pub path_lower: String,
    pub path_display: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symlink_info: Option<SymlinkInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing_info: Option<SharingInfo>,
    pub is_downloadable: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FolderMetadata {
    pub name: String,
    pub id: String,
    pub path_lower: String,
    pub path_display: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_folder_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing_info: Option<SharingInfo>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DeletedMetadata {
    pub name: String,
    pub path_lower: String,
    pub path_display: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SymlinkInfo {
    pub target: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SharingInfo {
    pub read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_shared_folder_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_folder_id: Option<String>,
}

/// Answer of `list_folder` and `list_folder/continue`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListFolderResult {
    pub entries: Vec<Metadata>,
    pub cursor: String,
    pub has_more: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CursorResult {
    pub cursor: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LongpollResult {
    pub changes: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListRevisionsResult {
    pub is_deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_deleted: Option<String>,
    pub entries: Vec<FileMetadata>,
    pub has_more: bool,
}

/// Answer of what changes a folder's entries.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MetadataResult<T> {
    pub metadata: T,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SessionResult {
    pub session_id: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListUploadsResult {
    pub uploads: Vec<PendingUpload>,
}

/// An upload that has begun and not ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PendingUpload {
    pub path: String,
    pub state: UploadState,
    /// Bytes, if it was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that are here.
    pub received: u64,
    pub device: String,
    pub began: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// Bytes are awaited.
    Pending,
    /// All bytes are here; the file comes into the tree next.
    Stored,
}

pub fn pending(upload: &Pending) -> PendingUpload {
    PendingUpload {
        path: upload.path.to_string(),
        state: if upload.is_stored { UploadState::Stored } else { UploadState::Pending },
        size: upload.size,
        received: upload.received,
        device: upload.device.clone(),
        began: time_text(upload.created.saturating_mul(1_000_000_000)),
    }
}

pub fn metadata(entry: &Entry) -> Metadata {
    if entry.row.kind.is_folder() {
        Metadata::Folder(folder(entry))
    } else {
        Metadata::File(file(entry))
    }
}

pub fn item(item: &Item) -> Metadata {
    match item {
        Item::Live(entry) => metadata(entry),
        Item::Deleted(path) => Metadata::Deleted(DeletedMetadata {
            name: last_name(path),
            path_lower: path.to_string(),
            path_display: path.to_string(),
        }),
    }
}

pub fn file(entry: &Entry) -> FileMetadata {
    let path = entry.path.to_string();
    let row = &entry.row;
    let is_file = row.kind == NodeKind::File;
    // What is no file has no version, and so no time of one.
    let committed = if is_file { row.committed } else { row.attrs.btime };
    FileMetadata {
        name: last_name(&entry.path),
        id: entry.rev().id(),
        client_modified: time_text(row.attrs.mtime),
        server_modified: time_text(committed),
        rev: entry.rev().to_string(),
        version: row.version,
        size: entry.size,
        path_lower: path.clone(),
        path_display: path,
        symlink_info: row
            .target
            .as_ref()
            .map(|target| SymlinkInfo { target: String::from_utf8_lossy(&target.0).into_owned() }),
        sharing_info: entry.shared_in.map(|ns| SharingInfo {
            read_only: entry.read_only,
            parent_shared_folder_id: Some(ns.0.to_string()),
            shared_folder_id: None,
        }),
        is_downloadable: is_file,
    }
}

pub fn folder(entry: &Entry) -> FolderMetadata {
    let path = entry.path.to_string();
    let is_shared = entry.shown.is_some() || entry.shared_in.is_some();
    FolderMetadata {
        name: last_name(&entry.path),
        id: entry.rev().id(),
        path_lower: path.clone(),
        path_display: path,
        shared_folder_id: entry.shown.map(|ns| ns.0.to_string()),
        sharing_info: is_shared.then(|| SharingInfo {
            read_only: entry.read_only,
            parent_shared_folder_id: entry.shared_in.map(|ns| ns.0.to_string()),
            shared_folder_id: entry.shown.map(|ns| ns.0.to_string()),
        }),
    }
}

fn last_name(path: &FilePath) -> String {
    path.0.last().map(shown).unwrap_or_default()
}
