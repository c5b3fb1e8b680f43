//! `list_revisions` and `restore`.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use drivefs_core::limits::REVISIONS_DEFAULT;
use drivefs_core::limits::REVISIONS_MAX;

use super::args;
use super::args::ListRevisionsArg;
use super::args::RestoreArg;
use super::failure::Failure;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::shapes;
use super::shapes::FileMetadata;
use super::shapes::ListRevisionsResult;
use crate::api::Shared;
use crate::api::json::Body;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::FilesError;
use crate::drive::files::stamp::time_text;

#[utoipa::path(
    post,
    path = "/files/list_revisions",
    tag = "files",
    request_body = ListRevisionsArg,
    responses((status = 200, description = "Done", body = ListRevisionsResult), Refused),
)]
pub async fn list(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    style: Style,
    Body(arg): Body<ListRevisionsArg>,
) -> Result<Json<ListRevisionsResult>, Failure> {
    let slot = Slot::Lookup;
    let target = args::target(style, slot, &arg.path)?;
    let before = args::rev(style, slot, arg.before_rev.as_deref())?;
    let limit = arg.limit.unwrap_or(REVISIONS_DEFAULT);
    if !(1..=REVISIONS_MAX).contains(&limit) {
        let error = FilesError::BadRequest(format!("limit: from 1 to {REVISIONS_MAX}"));
        return Err(Failure { error, style, slot });
    }
    let before = before.map(|rev| rev.version);
    let found = shared.drive.list_revisions(&asker, target, before, limit).await;
    let found = found.map_err(fails(style, slot))?;
    Ok(Json(ListRevisionsResult {
        is_deleted: found.deleted.is_some(),
        server_deleted: found.deleted.map(time_text),
        entries: found.entries.iter().map(shapes::file).collect(),
        has_more: found.more,
    }))
}

#[utoipa::path(
    post,
    path = "/files/restore",
    tag = "files",
    request_body = RestoreArg,
    responses((status = 200, description = "Done", body = FileMetadata), Refused),
)]
pub async fn restore(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Body(arg): Body<RestoreArg>,
) -> Result<Json<FileMetadata>, Failure> {
    let (style, slot) = (Style::Dropbox, Slot::Restore);
    let path = args::target(style, slot, &arg.path)?;
    let rev = args::rev(style, slot, Some(&arg.rev))?;
    let Some(rev) = rev.filter(|rev| rev.version > 0) else {
        return Err(Failure { error: FilesError::NoRevision, style, slot });
    };
    let entry = shared.drive.restore_file(&asker, path, rev).await;
    Ok(Json(shapes::file(&entry.map_err(fails(style, slot))?)))
}
