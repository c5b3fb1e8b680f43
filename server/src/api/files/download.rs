//! `download`: whole files and ranges, of the newest version or an older one.

use axum::Extension;
use axum::body::Body as HttpBody;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::wire::ErrorBody;
use drivefs_core::wire::ErrorCode;

use super::args;
use super::args::DownloadArg;
use super::failure::Failure;
use super::failure::Slot;
use super::failure::Style;
use super::failure::fails;
use super::range;
use super::range::Wanted;
use super::shapes;
use super::shapes::FileMetadata;
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::json::Body;
use crate::api::meter;
use crate::api::openapi::Refused;
use crate::auth::Asker;
use crate::drive::files::FilesError;

/// Header of an answer that carries the file's metadata, as in the Dropbox API.
const RESULT_HEADER: &str = "dropbox-api-result";

#[utoipa::path(
    method(get, head, post),
    path = "/files/download",
    tag = "files",
    params(
        ("path" = Option<String>, Query, description = "Path, id or rev of the file"),
        ("rev" = Option<String>, Query, description = "Version, if not the newest"),
        ("Range" = Option<String>, Header, description = "bytes=A-B"),
        ("If-None-Match" = Option<String>, Header, description = "ETag that the client has"),
        ("Dropbox-API-Arg" = Option<String>, Header, description = "DownloadArg, as JSON"),
    ),
    request_body = Option<DownloadArg>,
    responses(
        (status = 200, description = "The bytes", content_type = "application/octet-stream"),
        (status = 206, description = "Some of them", content_type = "application/octet-stream"),
        (status = 304, description = "The client has them"),
        (status = 416, description = "No bytes are in that range", body = ErrorBody),
        Refused
    ),
)]
pub async fn download(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
    style: Style,
    request: Request,
) -> Result<Response, Response> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let arg = arg_of(request, &shared).await.map_err(IntoResponse::into_response)?;
    answer(&shared, &asker, style, &method, &headers, arg)
        .await
        .map_err(IntoResponse::into_response)
}

/// The argument: of the header, the query, or else the body.
async fn arg_of(request: Request, shared: &Shared) -> Result<DownloadArg, ApiError> {
    if let Some(arg) = args::of_header(request.headers())? {
        return Ok(arg);
    }
    if request.uri().query().is_some_and(|q| !q.is_empty()) {
        let Query(arg) = Query::<DownloadArg>::try_from_uri(request.uri())
            .map_err(|e| ApiError::new(ErrorCode::BadRequest, e.body_text()))?;
        return Ok(arg);
    }
    if request.method() != Method::POST {
        return Err(ApiError::new(ErrorCode::BadRequest, "say which file: ?path=/..."));
    }
    use axum::extract::FromRequest;
    let Body(arg) = Body::<DownloadArg>::from_request(request, shared).await?;
    Ok(arg)
}

async fn answer(
    shared: &Shared,
    asker: &Asker,
    style: Style,
    method: &Method,
    asked: &HeaderMap,
    arg: DownloadArg,
) -> Result<Response, Failure> {
    let fails = || fails::<FilesError>(style, Slot::Lookup);
    let target = args::target(style, Slot::Lookup, &arg.path)?;
    let rev = args::rev(style, Slot::Lookup, arg.rev.as_deref())?;
    let file = shared.drive.readable(asker, target, rev).await.map_err(fails())?;
    let shape = shapes::file(&file.entry);
    let len = file.entry.size;
    let tag = format!("\"{}\"", shape.rev);
    let heads = heads_of(&shape, &tag);
    if is_matched(asked, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, heads).into_response());
    }
    // A range of another version than the one that is there would not fit to what the client has.
    let is_current = asked.get(header::IF_RANGE).is_none_or(|v| v.as_bytes() == tag.as_bytes());
    let text = asked.get(header::RANGE).filter(|_| is_current).and_then(|v| v.to_str().ok());
    let (status, span) = match text.map_or(Wanted::Whole, |text| range::wanted(text, len)) {
        Wanted::Whole => (StatusCode::OK, 0..len),
        Wanted::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
        Wanted::Nothing => return Ok(out_of_range(heads, len)),
    };
    let body = match *method {
        Method::HEAD => HttpBody::empty(),
        _ => {
            let stream = shared.drive.read_file(&file, span.clone()).await.map_err(fails())?;
            use futures_util::StreamExt;
            HttpBody::from_stream(stream.inspect(|piece| {
                if let Ok(piece) = piece {
                    meter::bytes_out(piece.len());
                }
            }))
        }
    };
    let mut response = (status, heads, body).into_response();
    let heads = response.headers_mut();
    heads.insert(header::CONTENT_LENGTH, (span.end - span.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{len}", span.start, span.end - 1);
        heads.insert(header::CONTENT_RANGE, value(&text));
    }
    Ok(response)
}

fn heads_of(shape: &FileMetadata, tag: &str) -> HeaderMap {
    let mut heads = HeaderMap::new();
    let octets = HeaderValue::from_static("application/octet-stream");
    heads.insert(header::CONTENT_TYPE, octets);
    heads.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    heads.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    heads.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    heads.insert(header::ETAG, value(tag));
    if let Ok(text) = serde_json::to_string(shape) {
        heads.insert(RESULT_HEADER, value(&ascii(&text)));
    }
    heads
}

/// True when the client has this version.
fn is_matched(asked: &HeaderMap, tag: &str) -> bool {
    let tags = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    tags.flat_map(|v| v.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn out_of_range(mut heads: HeaderMap, len: u64) -> Response {
    heads.insert(header::CONTENT_RANGE, value(&format!("bytes */{len}")));
    heads.remove(header::CONTENT_TYPE);
    let error = ApiError::new(ErrorCode::BadRequest, "the file has no bytes in that range");
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    response.headers_mut().extend(heads);
    response
}

/// A text of ASCII as a header.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// JSON with nothing but printable ASCII in it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}
