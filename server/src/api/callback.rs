//! The completion callback: a process that stores blocks tells the one with the role `api` that the
//! last block of an upload is stored; that one brings the file into the tree and tells the others.
//!
//! Between processes over the same data: a request carries the mark of a secret that lies in it. Many
//! callbacks for one upload do it once. One that gets lost is made up for: the upload stays stored,
//! and is ended by who asks for its state next, or by the role `api` itself after a while.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Uri;
use axum::http::header;
use drivefs_core::id::UserId;
use drivefs_core::wire::ErrorCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use crate::drive::DriveError;
use crate::drive::files::FilesError;
use crate::drive::files::complete::Callback;
use crate::drive::files::complete::Refusal;
use crate::drive::seal::Seal;
use crate::metadata::uploads::UploadId;

pub const PATH: &str = "/internal/v1/uploads/stored";
const MARK_HEADER: &str = "x-drivefs-mark";
const CONTEXT: &str = "drivefs completion callback";
/// Longest time for a callback: a commit, and the manifest of a large file before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The upload that is meant.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    user: UserId,
    upload: Uuid,
}

/// Whether the file is there now.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    Refused(Refusal),
}

/// The side of the role `api`.
pub async fn stored(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Ended>, ApiError> {
    let mark = headers.get(MARK_HEADER).and_then(|v| v.to_str().ok()).and_then(unhex);
    if !mark.is_some_and(|mark| shared.drive.seal.is_mark(CONTEXT, &body, &mark)) {
        return Err(ApiError::new(ErrorCode::Unauthorized, "this is between servers"));
    }
    let stored: Stored = serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(ErrorCode::BadRequest, e.to_string()))?;
    let ended = shared.drive.end_upload(stored.user, UploadId(stored.upload)).await;
    Ok(Json(match ended {
        Ok(()) => Ended::Done,
        Err(FilesError::Drive(e)) => return Err(e.into()),
        Err(e) => Ended::Refused(Refusal::of(&e)),
    }))
}

/// The side of the role `blocks`.
pub struct Link {
    host: String,
    port: u16,
    seal: Seal,
}

impl Link {
    /// `url`: `http://HOST:PORT` of a process with the role `api`.
    pub fn new(url: &str, seal: Seal) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => {
                Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), seal })
            }
            _ => Err(format!("{url:?} is not an address like http://127.0.0.1:7440")),
        }
    }

    async fn call(&self, user: UserId, upload: UploadId) -> Result<(), FilesError> {
        let away = |why: String| {
            tracing::warn!(%why, "the completion callback failed");
            FilesError::Drive(DriveError::Away)
        };
        let body = serde_json::to_vec(&Stored { user, upload: upload.0 })
            .map_err(|e| DriveError::Internal(e.to_string()))?;
        let mark = hex(&self.seal.mark(CONTEXT, &body));
        let request = hyper::Request::post(PATH)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(MARK_HEADER, mark)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| DriveError::Internal(e.to_string()))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = TokioIo::new(stream.map_err(|e| away(e.to_string()))?);
        let (mut sender, connection) =
            http1::handshake(stream).await.map_err(|e| away(e.to_string()))?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| away(e.to_string()))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| away(e.to_string()))?;
        connection.abort();
        if !status.is_success() {
            return Err(away(format!("it answered {status}")));
        }
        match serde_json::from_slice(&body.to_bytes()).map_err(|e| away(e.to_string()))? {
            Ended::Done => Ok(()),
            Ended::Refused(refusal) => Err(refusal.into_error()),
        }
    }
}

impl Callback for Link {
    fn stored(
        &self,
        user: UserId,
        upload: UploadId,
    ) -> Pin<Box<dyn Future<Output = Result<(), FilesError>> + Send + '_>> {
        Box::pin(async move {
            let call = timeout(PATIENCE, self.call(user, upload)).await;
            call.unwrap_or(Err(FilesError::Drive(DriveError::Away)))
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..64).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}
