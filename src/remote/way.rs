//! The way to the server: HTTP, or what a simulation puts in its place.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drivefs_core::wire;
use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use reqwest::header::HeaderMap;

use super::RemoteError;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Longest silence of a server that should be answering. Uncached reads must fail within 5 s.
pub(super) const QUICK_SILENCE: Duration = Duration::from_secs(4);
/// Longest silence where the server works or waits: commits, packs, long polls.
const WORK_SILENCE: Duration = Duration::from_secs(100);
/// Bytes of a request line and a status line beside path, headers and body, about.
const LINES_BYTES: usize = 36;
/// Bytes of user-agent, host and content-length, which are added below this layer, about.
const ADDED_BYTES: usize = 80;

/// A request before it is on its way.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub token: Option<String>,
    /// The body is JSON.
    pub json: bool,
    pub body: Vec<Bytes>,
    pub(super) patience: Patience,
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// The server answers at once.
    Quick,
    /// The server works, or waits.
    Working,
    /// The answer is here as a whole within this time.
    UpTo(Duration),
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Stands for network and server in a simulation. An error is a server that cannot be reached.
pub trait Transport: Send + Sync {
    fn send(
        &self,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send>>;
}

/// How requests reach the server.
#[derive(Clone)]
pub(super) enum Way {
    Http {
        /// For requests that the server answers at once.
        quick: reqwest::Client,
        /// For requests that make the server work, or wait.
        patient: reqwest::Client,
        base: String,
    },
    Given(Arc<dyn Transport>),
}

/// An answer, whose body may be on its way.
pub(super) enum Response {
    Http(reqwest::Response),
    Whole { status: StatusCode, body: Option<Bytes> },
}

/// No answer, or half of one.
pub(super) struct Broken {
    pub cause: String,
    /// It did not come in time.
    pub silent: bool,
}

impl Way {
    pub fn http(base: String) -> Result<Self, RemoteError> {
        // A second install finds the first: both are the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |silence: Duration| {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_WAIT)
                .read_timeout(silence)
                .tcp_nodelay(true)
                .pool_idle_timeout(Duration::from_secs(80))
                .user_agent(concat!("drivefs/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|e| RemoteError::Protocol(chain(&e)))
        };
        Ok(Self::Http { quick: client(QUICK_SILENCE)?, patient: client(WORK_SILENCE)?, base })
    }

    /// Sends; `sent` is told how many bytes go before they do.
    pub async fn send(
        &self,
        request: Request,
        sent: impl FnOnce(usize),
    ) -> Result<Result<Response, Broken>, RemoteError> {
        let (quick, patient, base) = match self {
            Self::Http { quick, patient, base } => (quick, patient, base),
            Self::Given(transport) => {
                return Ok(match transport.send(request).await {
                    Ok(Answer { status, body }) => Ok(Response::Whole {
                        status: StatusCode::from_u16(status)
                            .map_err(|e| RemoteError::Protocol(e.to_string()))?,
                        body: Some(body),
                    }),
                    Err(cause) => Err(Broken { cause, silent: false }),
                });
            }
        };
        let client = if request.patience == Patience::Quick { quick } else { patient };
        let path_len = request.path.len();
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|e| RemoteError::Protocol(e.to_string()))?;
        let len: usize = request.body.iter().map(Bytes::len).sum();
        let mut builder = client
            .request(method, format!("{base}{}", request.path))
            .header(wire::WIRE_HEADER, wire::WIRE_VERSION);
        if let Some(token) = &request.token {
            builder = builder.bearer_auth(token);
        }
        if request.json {
            builder = builder.header("content-type", "application/json");
        }
        if let Patience::UpTo(wait) = request.patience {
            builder = builder.timeout(wait);
        }
        let mut body = request.body;
        builder = match body.len() {
            0 => builder,
            1 => builder.body(body.remove(0)),
            _ => {
                let pieces = futures_util::stream::iter(body.into_iter().map(Ok::<_, Infallible>));
                builder.header(CONTENT_LENGTH, len).body(reqwest::Body::wrap_stream(pieces))
            }
        };
        let request = builder.build().map_err(|e| RemoteError::Protocol(chain(&e)))?;
        let head = head_bytes(request.headers());
        sent(LINES_BYTES + path_len + head + ADDED_BYTES + len);
        Ok(match client.execute(request).await {
            Ok(response) => Ok(Response::Http(response)),
            Err(e) => Err(broken(&e)),
        })
    }
}

impl Response {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Http(response) => response.status(),
            Self::Whole { status, .. } => *status,
        }
    }

    /// Bytes of status line and headers.
    pub fn head_bytes(&self) -> usize {
        match self {
            Self::Http(response) => LINES_BYTES + head_bytes(response.headers()),
            Self::Whole { .. } => 0,
        }
    }

    /// The next piece of the body; none at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        match self {
            Self::Http(response) => response.chunk().await.map_err(|e| broken(&e)),
            Self::Whole { body, .. } => Ok(body.take()),
        }
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Broken> {
        match self {
            Self::Http(response) => response.bytes().await.map_err(|e| broken(&e)),
            Self::Whole { body, .. } => Ok(body.unwrap_or_default()),
        }
    }
}

fn broken(e: &reqwest::Error) -> Broken {
    // The innermost cause says it: refused, timed out, no route.
    let mut cause: &dyn std::error::Error = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Broken { cause: cause.to_string(), silent: e.is_timeout() }
}

fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 4).sum()
}

/// An error with all its causes: reqwest's own text leaves out the interesting part.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
