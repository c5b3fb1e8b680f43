//! Calls about folders and what is in them. All are answered in the shapes of the Dropbox API v2.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use drivefs_core::limits::FOLDER_ENTRIES_DEFAULT;
use drivefs_core::limits::LONGPOLL_SECS_MAX;
use drivefs_core::limits::LONGPOLL_SECS_MIN;

use super::args;
use super::args::CreateFolderArg;
use super::args::CursorArg;
use super::args::DeleteArg;
use super::args::GetMetadataArg;
use super::args::ListFolderArg;
use super::args::LongpollArg;
use super::args::PathArg;
use super::args::RelocationArg;
use super::failure::Failure;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::shapes;
use super::shapes::CursorResult;
use super::shapes::FolderMetadata;
use super::shapes::ListFolderResult;
use super::shapes::ListUploadsResult;
use super::shapes::LongpollResult;
use super::shapes::Metadata;
use super::shapes::MetadataResult;
use crate::api::Shared;
use crate::api::json::Body;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::FilesError;
use crate::drive::files::since::Begin;
use crate::drive::files::since::Listed;

type Known = Extension<Asker>;
type Answer<T> = Result<Json<T>, Failure>;

const STYLE: Style = Style::Dropbox;

#[utoipa::path(
    post,
    path = "/files/list_folder",
    tag = "files",
    request_body = ListFolderArg,
    responses((status = 200, description = "Done", body = ListFolderResult), Refused),
)]
pub async fn list(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<ListFolderArg>,
) -> Answer<ListFolderResult> {
    let begin = begin(&arg)?;
    let listed = shared.drive.list_folder(&asker, begin).await;
    Ok(shown(&listed.map_err(fails(STYLE, Slot::Lookup))?))
}

#[utoipa::path(
    post,
    path = "/files/list_folder/continue",
    tag = "files",
    request_body = CursorArg,
    responses((status = 200, description = "Done", body = ListFolderResult), Refused),
)]
pub async fn list_on(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<CursorArg>,
) -> Answer<ListFolderResult> {
    let listed = shared.drive.list_folder_on(&asker, &arg.cursor).await;
    Ok(shown(&listed.map_err(fails(STYLE, Slot::Cursor))?))
}

#[utoipa::path(
    post,
    path = "/files/list_folder/get_latest_cursor",
    tag = "files",
    request_body = ListFolderArg,
    responses((status = 200, description = "Done", body = CursorResult), Refused),
)]
pub async fn latest_cursor(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<ListFolderArg>,
) -> Answer<CursorResult> {
    let begin = begin(&arg)?;
    let cursor = shared.drive.latest_cursor(&asker, begin).await;
    Ok(Json(CursorResult { cursor: cursor.map_err(fails(STYLE, Slot::Lookup))? }))
}

#[utoipa::path(
    post,
    path = "/files/list_folder/longpoll",
    tag = "files",
    request_body = LongpollArg,
    responses((status = 200, description = "Done", body = LongpollResult), Refused),
    security(()),
)]
pub async fn longpoll(
    State(shared): State<Shared>,
    Body(arg): Body<LongpollArg>,
) -> Answer<LongpollResult> {
    let secs = arg.timeout.unwrap_or(LONGPOLL_SECS_MIN).min(LONGPOLL_SECS_MAX);
    let changes = shared.drive.wait_for_changes(&arg.cursor, secs).await;
    Ok(Json(LongpollResult { changes: changes.map_err(fails(STYLE, Slot::Cursor))? }))
}

#[utoipa::path(
    post,
    path = "/files/get_metadata",
    tag = "files",
    request_body = GetMetadataArg,
    responses((status = 200, description = "Done", body = Metadata), Refused),
)]
pub async fn get_metadata(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<GetMetadataArg>,
) -> Answer<Metadata> {
    let fails = || fails(STYLE, Slot::Lookup);
    let target = args::target(STYLE, Slot::Lookup, &arg.path)?;
    let item = shared.drive.item_at(&asker, target, arg.include_deleted).await;
    Ok(Json(shapes::item(&item.map_err(fails())?)))
}

/// Ours: uploads that have begun, which no list shows before they end.
#[utoipa::path(
    post,
    path = "/files/list_uploads",
    tag = "files",
    request_body = PathArg,
    responses((status = 200, description = "Done", body = ListUploadsResult), Refused),
)]
pub async fn list_uploads(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<PathArg>,
) -> Answer<ListUploadsResult> {
    let (style, slot) = (Style::Own, Slot::Lookup);
    let target = args::target(style, slot, &arg.path)?;
    let pending = shared.drive.pending_uploads(&asker, target).await;
    let pending = pending.map_err(fails(style, slot))?;
    Ok(Json(ListUploadsResult { uploads: pending.iter().map(shapes::pending).collect() }))
}

#[utoipa::path(
    post,
    path = "/files/create_folder_v2",
    tag = "files",
    request_body = CreateFolderArg,
    responses((status = 200, description = "Done", body = MetadataResult<FolderMetadata>), Refused),
)]
pub async fn create(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<CreateFolderArg>,
) -> Answer<MetadataResult<FolderMetadata>> {
    let path = args::target(STYLE, Slot::Create, &arg.path)?;
    let entry = shared.drive.create_folder(&asker, path, arg.autorename).await;
    let entry = entry.map_err(fails(STYLE, Slot::Create))?;
    Ok(Json(MetadataResult { metadata: shapes::folder(&entry) }))
}

#[utoipa::path(
    post,
    path = "/files/move_v2",
    tag = "files",
    request_body = RelocationArg,
    responses((status = 200, description = "Done", body = MetadataResult<Metadata>), Refused),
)]
pub async fn relocate(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<RelocationArg>,
) -> Answer<MetadataResult<Metadata>> {
    let from = args::target(STYLE, Slot::From, &arg.from_path)?;
    let to = args::target(STYLE, Slot::To, &arg.to_path)?;
    let moved = shared.drive.move_path(&asker, from, to, arg.autorename).await;
    let entry = moved.map_err(|side| Failure::side(STYLE, side))?;
    Ok(Json(MetadataResult { metadata: shapes::metadata(&entry) }))
}

#[utoipa::path(
    post,
    path = "/files/copy_v2",
    tag = "files",
    request_body = RelocationArg,
    responses((status = 200, description = "Done", body = MetadataResult<Metadata>), Refused),
)]
pub async fn copy(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<RelocationArg>,
) -> Answer<MetadataResult<Metadata>> {
    let from = args::target(STYLE, Slot::From, &arg.from_path)?;
    let to = args::target(STYLE, Slot::To, &arg.to_path)?;
    let copied = shared.drive.copy_path(&asker, from, to, arg.autorename).await;
    let entry = copied.map_err(|side| Failure::side(STYLE, side))?;
    Ok(Json(MetadataResult { metadata: shapes::metadata(&entry) }))
}

#[utoipa::path(
    post,
    path = "/files/delete_v2",
    tag = "files",
    request_body = DeleteArg,
    responses((status = 200, description = "Done", body = MetadataResult<Metadata>), Refused),
)]
pub async fn delete(
    State(shared): State<Shared>,
    Extension(asker): Known,
    Body(arg): Body<DeleteArg>,
) -> Answer<MetadataResult<Metadata>> {
    let path = args::target(STYLE, Slot::Delete, &arg.path)?;
    let rev = args::rev(STYLE, Slot::Delete, arg.parent_rev.as_deref())?;
    let entry = shared.drive.delete_path(&asker, path, rev).await;
    let entry = entry.map_err(fails(STYLE, Slot::Delete))?;
    Ok(Json(MetadataResult { metadata: shapes::metadata(&entry) }))
}

fn begin(arg: &ListFolderArg) -> Result<Begin, Failure> {
    let error = |error| Failure { error, style: STYLE, slot: Slot::Lookup };
    if arg.limit == Some(0) {
        return Err(error(FilesError::BadRequest("limit: at least 1".into())));
    }
    Ok(Begin {
        folder: args::target(STYLE, Slot::Lookup, &arg.path)?,
        recursive: arg.recursive,
        deleted: arg.include_deleted,
        limit: arg.limit.unwrap_or(FOLDER_ENTRIES_DEFAULT),
    })
}

fn shown(listed: &Listed) -> Json<ListFolderResult> {
    Json(ListFolderResult {
        entries: listed.items.iter().map(shapes::item).collect(),
        cursor: listed.cursor.clone(),
        has_more: listed.more,
    })
}
