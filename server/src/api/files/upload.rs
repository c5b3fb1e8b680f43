//! `upload`: in one request, or the begin of a resumable one; the query tells which.

use std::io;

use axum::Extension;
use axum::Json;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::wire::ErrorCode;
use futures_util::TryStreamExt;
use serde::Deserialize;

use super::args;
use super::args::CommitArg;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::resumable;
use super::resumable::BeginArg;
use super::shapes;
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::meter;
use crate::api::openapi::Octets;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::ByteStream;
use crate::drive::files::FilesError;
use crate::drive::files::aim::Mode;
use crate::drive::files::put::Checked;

/// The query of an upload.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    #[serde(default, rename = "uploadType")]
    pub upload_type: Option<String>,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub base_version: Option<u64>,
    #[serde(default)]
    pub mode: Option<String>,
    #[serde(default)]
    pub autorename: bool,
    #[serde(default)]
    pub client_modified: Option<String>,
}

#[utoipa::path(
    post,
    path = "/files/upload",
    tag = "files",
    request_body(content((Octets = "application/octet-stream"), (BeginArg = "application/json"))),
    params(UploadQuery, ("Dropbox-API-Arg" = Option<String>, Header, description = "CommitArg: where the file goes, as JSON")),
    responses((status = 200, description = "Done", body = shapes::FileMetadata), Refused),
)]
pub async fn upload(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    style: Style,
    request: Request,
) -> Result<Response, Response> {
    let query = Query::<UploadQuery>::try_from_uri(request.uri());
    let Query(query) =
        query.map_err(|e| ApiError::new(ErrorCode::BadRequest, e.body_text()).into_response())?;
    match query.upload_type.as_deref() {
        Some("resumable") => resumable::begin(&shared, &asker, request).await,
        // Our own call, however it tells the path.
        Some("media") if !request.uri().path().starts_with("/2/") => {
            media(&shared, &asker, Style::Own, &query, request).await
        }
        Some("media") => media(&shared, &asker, style, &query, request).await,
        None if request.headers().contains_key(args::ARG_HEADER) => {
            media(&shared, &asker, style, &query, request).await
        }
        _ => Err(ApiError::new(ErrorCode::BadRequest, "what kind of upload is it?")
            .hint("add ?uploadType=media or ?uploadType=resumable")
            .into_response()),
    }
}

/// The body is the file.
async fn media(
    shared: &Shared,
    asker: &Asker,
    style: Style,
    query: &UploadQuery,
    request: Request,
) -> Result<Response, Response> {
    let arg = args::of_header::<CommitArg>(request.headers());
    let arg = match (arg.map_err(IntoResponse::into_response)?, &query.path) {
        (Some(arg), _) => arg,
        (None, Some(path)) => CommitArg {
            path: path.clone(),
            mode: query.mode.clone().map(args::WriteMode::Name),
            base_version: query.base_version,
            autorename: query.autorename,
            client_modified: query.client_modified.clone(),
            strict_conflict: false,
            content_hash: None,
        },
        (None, None) => {
            return Err(ApiError::new(ErrorCode::BadRequest, "where does the file go?")
                .hint("add &path=/... or the header Dropbox-API-Arg: {\"path\": \"/...\"}")
                .into_response());
        }
    };
    // A plain upload replaces, one in the manner of that API does not.
    let default = if style == Style::Dropbox { Mode::Add } else { Mode::Overwrite };
    let fails = || fails::<FilesError>(style, Slot::Upload);
    let shown = |e| fails()(e).into_response();
    let aim = arg.aim(default).map_err(shown)?;
    let len = content_length(request.headers());
    let checked = Checked { content_hash: arg.content_hash };
    let put = shared.drive.upload_file(asker, aim, len, bytes_of(request), checked).await;
    Ok(Json(shapes::file(&put.map_err(shown)?.entry)).into_response())
}

pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body as it arrives.
pub fn bytes_of(request: Request) -> ByteStream {
    let stream = request.into_body().into_data_stream().map_err(io::Error::other);
    Box::pin(stream.inspect_ok(|bytes| meter::bytes_in(bytes.len())))
}
