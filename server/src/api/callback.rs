//! The completion callback: a process that stores blocks tells the one with the role `api` that the
//! last block of an upload is stored; that one brings the file into the tree and tells the others.
//!
//! Between processes over the same data: a request carries the mark of a secret that lies in it. Many
//! callbacks for one upload do it once. One that gets lost is made up for: the upload stays stored,
//! and is ended by who asks for its state next, or by the role `api` itself after a while.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
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
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::tls::Trust;
use crate::config::ApiLink;
use crate::config::ConfigError;
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
    /// None: plain HTTP.
    trust: Option<Trust>,
    seal: Seal,
}

impl Link {
    /// To a process with the role `api`. Beyond this machine encrypted, unless `insecure`.
    pub fn new(to: &ApiLink, insecure: bool, seal: Seal) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError(format!("--api-url {}: {what}", to.url));
        let uri: Uri = to.url.parse().map_err(|e| wrong(format!("{e}")))?;
        let (scheme, host) = match (uri.scheme_str(), uri.host()) {
            (Some(scheme), Some(host)) => (scheme, host.trim_matches(['[', ']'])),
            _ => return Err(wrong("write it like http://127.0.0.1:7440".into())),
        };
        let trust = match (scheme, &to.ca) {
            ("https", Some(file)) => Some(Trust::open(file)?),
            ("https", None) => {
                return Err(wrong(
                    "give the certificate that it is known by (PEM file): --api-ca FILE".into(),
                ));
            }
            ("http", Some(_)) => return Err(wrong("--api-ca goes with https://".into())),
            ("http", None) if insecure || is_this_machine(host) => None,
            ("http", None) => {
                return Err(wrong(
                    "nothing encrypts what goes there; use https://, or add --insecure on a \
                     network that you trust"
                        .into(),
                ));
            }
            _ => return Err(wrong("it begins with http:// or https://".into())),
        };
        let usual = if trust.is_some() { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        Ok(Self { host: host.to_owned(), port, trust, seal })
    }

    async fn call(&self, user: UserId, upload: UploadId) -> Result<(), FilesError> {
        let body = serde_json::to_vec(&Stored { user, upload: upload.0 })
            .map_err(|e| DriveError::Internal(e.to_string()))?;
        let mark = hex(&self.seal.mark(CONTEXT, &body));
        let request = hyper::Request::post(PATH)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(MARK_HEADER, mark)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| DriveError::Internal(e.to_string()))?;
        let ended = self.ask(request).await.map_err(|why| {
            tracing::warn!(%why, "the completion callback failed");
            FilesError::Drive(DriveError::Away)
        })?;
        match ended {
            Ended::Done => Ok(()),
            Ended::Refused(refusal) => Err(refusal.into_error()),
        }
    }

    async fn ask(&self, request: hyper::Request<Full<Bytes>>) -> Result<Ended, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|e| e.to_string())?;
        let answer = match &self.trust {
            None => exchange(stream, request).await,
            Some(trust) => {
                let stream = trust.connect(&self.host, stream).await.map_err(|e| e.to_string())?;
                exchange(stream, request).await
            }
        };
        let (status, body) = answer.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|e| e.to_string())
    }
}

/// One request on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: hyper::Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_beyond_this_machine_is_encrypted() {
        let link = |url: &str, ca: Option<&str>, insecure| {
            let to = ApiLink { url: url.into(), ca: ca.map(Into::into) };
            let made = Link::new(&to, insecure, Seal::from_secret("s"));
            made.map(|link| (link.host, link.port)).map_err(|e| e.0)
        };
        assert_eq!(link("http://127.0.0.1:7440", None, false), Ok(("127.0.0.1".into(), 7440)));
        assert_eq!(link("http://[::1]:7440", None, false), Ok(("::1".into(), 7440)));
        assert_eq!(link("http://localhost", None, false), Ok(("localhost".into(), 80)));
        assert_eq!(link("http://10.0.0.1", None, true), Ok(("10.0.0.1".into(), 80)));
        for (url, ca, told) in [
            ("http://10.0.0.1", None, "--insecure"),
            ("http://api.example.com:7440", None, "--insecure"),
            ("https://api.example.com", None, "--api-ca"),
            ("https://api.example.com", Some("/no/such/file"), "/no/such/file"),
            ("http://127.0.0.1", Some("/no/such/file"), "https://"),
            ("ftp://127.0.0.1", None, "http://"),
            ("127.0.0.1:7440", None, "http://"),
            ("", None, "--api-url"),
        ] {
            let refused = link(url, ca, false).unwrap_err();
            assert!(refused.contains(told), "{url}: {refused}");
        }
    }
}
