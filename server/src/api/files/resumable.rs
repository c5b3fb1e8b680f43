//! Resumable uploads: a session is begun, parts are put to its address, its state can be asked.
//!
//! 308 means "go on behind this byte", 200 that the file is there, 404 and 410 that there is
//! no such session (any more).

use axum::Extension;
use axum::Json;
use axum::extract::FromRequest;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::limits::UPLOAD_UNIT_BYTES;
use drivefs_core::wire::ErrorCode;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use super::args::CommitArg;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::range;
use super::range::ContentRange;
use super::shapes;
use super::upload::bytes_of;
use super::upload::content_length;
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::json::Body;
use crate::api::openapi::Octets;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::FilesError;
use crate::drive::files::aim::Mode;
use crate::drive::files::session::Span;
use crate::drive::files::session::Status;
use crate::metadata::uploads::UploadId;

/// `POST /files/upload?uploadType=resumable`
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct BeginArg {
    #[serde(flatten)]
    pub commit: CommitArg,
    /// Length of the file (bytes), if it is known.
    #[serde(default)]
    pub size: Option<u64>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BeginResult {
    pub upload_id: String,
    /// Where the parts go, as in the header `Location`.
    pub location: String,
}

/// A failure of our own routes.
fn shown(error: FilesError) -> Response {
    fails::<FilesError>(Style::Own, Slot::Upload)(error).into_response()
}

pub async fn begin(shared: &Shared, asker: &Asker, request: Request) -> Result<Response, Response> {
    let headers = request.headers().clone();
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let Body(arg) = Body::<BeginArg>::from_request(request, shared)
        .await
        .map_err(IntoResponse::into_response)?;
    let aim = arg.commit.aim(Mode::Overwrite).map_err(shown)?;
    let id = shared.drive.begin_upload(asker, aim, arg.size).await.map_err(shown)?;
    let upload_id = id.0.simple().to_string();
    let location = location(&headers, authority.as_deref(), &upload_id);
    let mut response = Json(BeginResult { upload_id, location: location.clone() }).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The address of a session as the client sees the server; behind a proxy for TLS that is what the
/// proxy says.
fn location(headers: &HeaderMap, authority: Option<&str>, upload: &str) -> String {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    match text("host").or(authority) {
        Some(host) => format!("{scheme}://{host}/files/upload/{upload}"),
        None => format!("/files/upload/{upload}"),
    }
}

#[utoipa::path(
    put,
    path = "/files/upload/{upload}",
    tag = "files",
    params(
        ("upload" = String, Path, description = "Id of the upload"),
        (
            "Content-Range" = Option<String>,
            Header,
            description = "bytes A-B/N, bytes A-B/*, or bytes */N to ask the state"
        ),
    ),
    request_body(content = Octets, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The file is there", body = shapes::FileMetadata),
        (status = 308, description = "Go on behind the byte that the header Range ends with"),
        Refused
    ),
)]
pub async fn part(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Path(upload): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let id = upload_id(&upload).map_err(shown)?;
    let len = content_length(request.headers());
    let range = match request.headers().get(header::CONTENT_RANGE) {
        None => None,
        Some(value) => {
            let range = value.to_str().ok().and_then(range::content_range);
            Some(range.ok_or_else(|| bad_range("not one like bytes 0-262143/1000000"))?)
        }
    };
    let drive = &shared.drive;
    let status = match range {
        Some(ContentRange { bytes: None, total }) => drive.upload_state(&asker, id, total).await,
        Some(ContentRange { bytes: Some((first, last)), total }) => {
            let end = last + 1;
            let is_aligned = |bytes: u64| bytes.is_multiple_of(UPLOAD_UNIT_BYTES);
            if total != Some(end) && !is_aligned(end) && !is_aligned(end - first) {
                return Err(bad_range("all parts but the last are multiples of 262144 bytes"));
            }
            if len.is_some_and(|len| len != end - first) {
                return Err(bad_range("the body has another length"));
            }
            let span = Span { at: first, end: Some(end), total };
            drive.add_part(&asker, id, span, bytes_of(request)).await
        }
        // Without a range the body is all of the file.
        None => match len {
            Some(len) => {
                let span = Span { at: 0, end: Some(len), total: Some(len) };
                drive.add_part(&asker, id, span, bytes_of(request)).await
            }
            None => return Err(bad_range("it is needed where the length is not told")),
        },
    };
    Ok(answer(status.map_err(shown)?))
}

#[utoipa::path(
    delete,
    path = "/files/upload/{upload}",
    tag = "files",
    params(("upload" = String, Path, description = "Id of the upload")),
    responses((status = 204, description = "Done"), Refused),
)]
pub async fn cancel(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    Path(upload): Path<String>,
) -> Result<StatusCode, Response> {
    let id = upload_id(&upload).map_err(shown)?;
    shared.drive.cancel_upload(&asker, id).await.map_err(shown)?;
    Ok(StatusCode::NO_CONTENT)
}

fn answer(status: Status) -> Response {
    match status {
        Status::Pending(received) => {
            let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
            if received > 0
                && let Ok(range) = HeaderValue::from_str(&format!("bytes=0-{}", received - 1))
            {
                response.headers_mut().insert(header::RANGE, range);
            }
            response
        }
        // Not 201: clients in use take 200 alone for the end.
        Status::Uploaded(put) => Json(shapes::file(&put.entry)).into_response(),
    }
}

pub fn upload_id(text: &str) -> Result<UploadId, FilesError> {
    Uuid::try_parse(text).map(UploadId).map_err(|_| FilesError::NoUpload)
}

fn bad_range(why: &str) -> Response {
    ApiError::new(ErrorCode::BadRequest, format!("the header Content-Range: {why}")).into_response()
}
