//! Upload sessions as the Dropbox API v2 has them: bytes first, the place at the end.

use axum::Extension;
use axum::Json;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;

use super::args;
use super::args::SessionAppendArg;
use super::args::SessionFinishArg;
use super::args::SessionStartArg;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::resumable::upload_id;
use super::shapes;
use super::shapes::SessionResult;
use super::upload::bytes_of;
use crate::api::Shared;
use crate::api::openapi::Octets;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::FilesError;
use crate::drive::files::aim::Mode;
use crate::drive::files::put::Checked;

type Known = Extension<Asker>;

fn shown(slot: Slot) -> impl Fn(FilesError) -> Response {
    move |error| fails::<FilesError>(Style::Dropbox, slot)(error).into_response()
}

#[utoipa::path(
    post,
    path = "/files/upload_session/start",
    tag = "files",
    request_body(content = Octets, content_type = "application/octet-stream"),
    params(("Dropbox-API-Arg" = Option<String>, Header, description = "SessionStartArg, as JSON")),
    responses((status = 200, description = "Done", body = SessionResult), Refused),
)]
pub async fn start(
    State(shared): State<Shared>,
    Extension(asker): Known,
    request: Request,
) -> Result<Json<SessionResult>, Response> {
    let arg = args::of_header::<SessionStartArg>(request.headers());
    let arg = arg.map_err(IntoResponse::into_response)?.unwrap_or_default();
    let shown = || shown(Slot::Append);
    let id = shared.drive.start_upload(&asker).await.map_err(shown())?;
    let checked = Checked { content_hash: arg.content_hash };
    shared
        .drive
        .append_upload(&asker, id, 0, arg.close, bytes_of(request), checked)
        .await
        .map_err(shown())?;
    Ok(Json(SessionResult { session_id: id.0.simple().to_string() }))
}

#[utoipa::path(
    post,
    path = "/files/upload_session/append_v2",
    tag = "files",
    request_body(content = Octets, content_type = "application/octet-stream"),
    params(("Dropbox-API-Arg" = Option<String>, Header, description = "SessionAppendArg, as JSON")),
    responses((status = 200, description = "Done"), Refused),
)]
pub async fn append(
    State(shared): State<Shared>,
    Extension(asker): Known,
    request: Request,
) -> Result<Json<Value>, Response> {
    let arg = args::needs_header::<SessionAppendArg>(request.headers());
    let arg = arg.map_err(IntoResponse::into_response)?;
    let shown = || shown(Slot::Append);
    let id = upload_id(&arg.cursor.session_id).map_err(shown())?;
    let checked = Checked { content_hash: arg.content_hash };
    shared
        .drive
        .append_upload(&asker, id, arg.cursor.offset, arg.close, bytes_of(request), checked)
        .await
        .map_err(shown())?;
    Ok(Json(Value::Null))
}

#[utoipa::path(
    post,
    path = "/files/upload_session/finish",
    tag = "files",
    request_body(content = Octets, content_type = "application/octet-stream"),
    params(("Dropbox-API-Arg" = Option<String>, Header, description = "SessionFinishArg, as JSON")),
    responses((status = 200, description = "Done", body = shapes::FileMetadata), Refused),
)]
pub async fn finish(
    State(shared): State<Shared>,
    Extension(asker): Known,
    request: Request,
) -> Result<Json<shapes::FileMetadata>, Response> {
    let arg = args::needs_header::<SessionFinishArg>(request.headers());
    let arg = arg.map_err(IntoResponse::into_response)?;
    let shown = || shown(Slot::Finish);
    let id = upload_id(&arg.cursor.session_id).map_err(shown())?;
    let aim = arg.commit.aim(Mode::Add).map_err(shown())?;
    let checked = Checked { content_hash: arg.content_hash };
    let put = shared
        .drive
        .finish_upload(&asker, id, arg.cursor.offset, aim, bytes_of(request), checked)
        .await
        .map_err(shown())?;
    Ok(Json(shapes::file(&put.entry)))
}
