//! The sync protocol over HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use bytes::Bytes;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire;
use drivefs_core::wire::Account;
use drivefs_core::wire::ErrorBody;
use drivefs_core::wire::ErrorCode;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Link;
use super::RemoteError;
use super::frames::Frames;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Longest silence of a server that should be answering. Uncached reads must fail within 5 s.
const QUICK_SILENCE: Duration = Duration::from_secs(4);
/// Longest silence where the server works or waits: commits, packs, long polls.
const WORK_SILENCE: Duration = Duration::from_secs(100);
/// Bytes of a request line and a status line beside path, headers and body, about.
const LINES_BYTES: usize = 36;

/// A client of one server under one account. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    /// For requests that the server answers at once.
    quick: reqwest::Client,
    /// For requests that make the server work, or wait.
    patient: reqwest::Client,
    base: String,
    token: Arc<RwLock<Option<String>>>,
    link: Arc<Link>,
}

impl Remote {
    /// A client of the server at `url`; without a token only `login` works.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, RemoteError> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(RemoteError::Protocol(format!(
                "'{url}' is not a server address; it should look like https://drive.example.org"
            )));
        }
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
        Ok(Self {
            quick: client(QUICK_SILENCE)?,
            patient: client(WORK_SILENCE)?,
            base,
            token: Arc::new(RwLock::new(token)),
            link: Arc::default(),
        })
    }

    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// True when this is not the token that is in use.
    pub fn has_other_token(&self, token: &str) -> bool {
        self.token.read().unwrap_or_else(PoisonError::into_inner).as_deref() != Some(token)
    }

    /// Goes on with another token, as do all clones of this.
    pub fn set_token(&self, token: String) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    pub fn url(&self) -> &str {
        &self.base
    }

    pub async fn login(&self, r: &wire::LoginRequest) -> Result<wire::LoginReply, RemoteError> {
        self.post(&self.patient, "/auth/v1/login", r).await
    }

    pub async fn logout(&self) -> Result<(), RemoteError> {
        let request = self.request(&self.quick, Method::POST, "/auth/v1/logout");
        self.send(request, 0, "/auth/v1/logout").await.map(drop)
    }

    pub async fn account(&self) -> Result<Account, RemoteError> {
        self.get("/sync/v1/account").await
    }

    pub async fn tokens(&self) -> Result<wire::TokenList, RemoteError> {
        self.get("/auth/v1/tokens").await
    }

    pub async fn create_token(
        &self,
        r: &wire::TokenRequest,
    ) -> Result<wire::TokenReply, RemoteError> {
        self.post(&self.quick, "/auth/v1/tokens", r).await
    }

    pub async fn revoke_token(&self, name: &str) -> Result<(), RemoteError> {
        let path = format!("/auth/v1/tokens/{}", path_segment(name));
        let request = self.request(&self.quick, Method::DELETE, &path);
        self.send(request, 0, &path).await.map(drop)
    }

    /// Which of these blocks the namespace's owner does not hold.
    pub async fn missing(
        &self,
        ns: NamespaceId,
        hashes: Vec<BlockHash>,
    ) -> Result<Vec<BlockHash>, RemoteError> {
        let request = wire::MissingRequest { ns, hashes };
        let reply: wire::MissingReply =
            self.post(&self.patient, "/sync/v1/missing", &request).await?;
        Ok(reply.missing)
    }

    /// Stores blocks; when this returns they are durable.
    pub async fn put_pack(&self, ns: NamespaceId, body: Vec<Bytes>) -> Result<(), RemoteError> {
        let path = format!("/sync/v1/packs?ns={ns}");
        let len = body.iter().map(Bytes::len).sum();
        let pieces = futures_util::stream::iter(body.into_iter().map(Ok::<_, Infallible>));
        let request = self
            .request(&self.patient, Method::POST, &path)
            .header(CONTENT_LENGTH, len)
            .body(reqwest::Body::wrap_stream(pieces));
        let response = self.send(request, len, &path).await?;
        let _: wire::PackReply = self.json(response).await?;
        Ok(())
    }

    /// Fetches blocks; the answer is read frame by frame.
    pub async fn blocks(&self, request: &wire::BlocksRequest) -> Result<Frames, RemoteError> {
        let path = "/sync/v1/blocks";
        let body = to_json(request)?;
        let len = body.len();
        let request = self.json_request(&self.quick, path, body);
        let response = self.send(request, len, path).await?;
        Ok(Frames::new(self.clone(), response))
    }

    pub async fn commit(&self, r: &wire::CommitRequest) -> Result<wire::CommitReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/commit", r).await
    }

    pub async fn changes(
        &self,
        r: &wire::ChangesRequest,
    ) -> Result<wire::ChangesReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/changes", r).await
    }

    /// One page of a folder's entries.
    pub async fn list(&self, r: &wire::ListRequest) -> Result<wire::ListReply, RemoteError> {
        self.post(&self.quick, "/sync/v1/list", r).await
    }

    /// Versions of a file.
    pub async fn versions(
        &self,
        r: &wire::VersionsRequest,
    ) -> Result<wire::VersionsReply, RemoteError> {
        self.post(&self.quick, "/sync/v1/versions", r).await
    }

    /// Pins a version, or lets it go.
    pub async fn keep(&self, r: &wire::KeepRequest) -> Result<wire::KeepReply, RemoteError> {
        self.post(&self.quick, "/sync/v1/keep", r).await
    }

    /// What a folder held at a time.
    pub async fn past(&self, r: &wire::PastRequest) -> Result<wire::PastReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/past", r).await
    }

    /// What was deleted out of a folder.
    pub async fn gone(&self, r: &wire::GoneRequest) -> Result<wire::GoneReply, RemoteError> {
        self.post(&self.quick, "/sync/v1/gone", r).await
    }

    /// What happened in a namespace.
    pub async fn events(&self, r: &wire::EventsRequest) -> Result<wire::EventsReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/events", r).await
    }

    pub async fn trash(&self, r: &wire::TrashRequest) -> Result<wire::TrashReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/trash", r).await
    }

    pub async fn empty_trash(
        &self,
        r: &wire::EmptyRequest,
    ) -> Result<wire::EmptyReply, RemoteError> {
        self.post(&self.patient, "/sync/v1/trash/empty", r).await
    }

    /// Held by the server until something changed or the time is up.
    pub async fn poll(&self, r: &wire::PollRequest) -> Result<wire::PollReply, RemoteError> {
        let body = to_json(r)?;
        let len = body.len();
        let wait = Duration::from_secs(r.timeout_secs) + QUICK_SILENCE;
        let request = self.json_request(&self.patient, "/sync/v1/poll", body).timeout(wait);
        let response = self.send(request, len, "/sync/v1/poll").await?;
        self.json(response).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RemoteError> {
        let request = self.request(&self.quick, Method::GET, path);
        let response = self.send(request, 0, path).await?;
        self.json(response).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        http: &reqwest::Client,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        let body = to_json(body)?;
        let len = body.len();
        let response = self.send(self.json_request(http, path, body), len, path).await?;
        self.json(response).await
    }

    fn json_request(&self, http: &reqwest::Client, path: &str, body: Vec<u8>) -> RequestBuilder {
        self.request(http, Method::POST, path).header("content-type", "application/json").body(body)
    }

    fn request(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let request = http
            .request(method, format!("{}{path}", self.base))
            .header(wire::WIRE_HEADER, wire::WIRE_VERSION);
        match &*self.token.read().unwrap_or_else(PoisonError::into_inner) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends and judges the status; the body is still to be read.
    async fn send(
        &self,
        request: RequestBuilder,
        body_len: usize,
        path: &str,
    ) -> Result<Response, RemoteError> {
        let (http, request) = request.build_split();
        let request = request.map_err(|e| RemoteError::Protocol(chain(&e)))?;
        // user-agent, host and content-length are added below this layer.
        let sent = LINES_BYTES + path.len() + head_bytes(request.headers()) + 80 + body_len;
        self.link.count(sent, 0);
        let response = match http.execute(request).await {
            Ok(response) => response,
            Err(e) => return Err(self.broken(&e)),
        };
        self.link.count(0, LINES_BYTES + head_bytes(response.headers()));
        if response.status().is_success() {
            self.link.up();
            self.link.set_locked_out(false);
            return Ok(response);
        }
        let status = response.status();
        let body = self.body(response).await?;
        let error = refused(status, &body, &self.base);
        if matches!(error, RemoteError::Unauthorized(_)) {
            self.link.set_locked_out(true);
        }
        // A proxy in front of a dead server also answers; that is not "online".
        match &error {
            RemoteError::Offline(why) => self.link.down(why),
            _ => self.link.up(),
        }
        Err(error)
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, RemoteError> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|e| RemoteError::Protocol(e.to_string()))
    }

    async fn body(&self, response: Response) -> Result<Bytes, RemoteError> {
        let body = response.bytes().await.map_err(|e| self.broken(&e))?;
        self.link.count(0, body.len());
        Ok(body)
    }

    pub(super) fn broken(&self, e: &reqwest::Error) -> RemoteError {
        // The innermost cause says it: refused, timed out, no route.
        let mut cause: &dyn std::error::Error = e;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let why = if e.is_timeout() {
            format!("{} does not answer in time", self.base)
        } else {
            format!("cannot reach {}: {cause}", self.base)
        };
        if e.is_timeout() {
            self.link.fell_silent(&why);
        } else {
            self.link.down(&why);
        }
        RemoteError::Offline(why)
    }
}

fn to_json(body: &impl Serialize) -> Result<Vec<u8>, RemoteError> {
    serde_json::to_vec(body).map_err(|e| RemoteError::Protocol(e.to_string()))
}

fn refused(status: StatusCode, body: &[u8], url: &str) -> RemoteError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => match error.code {
            ErrorCode::Unauthorized => RemoteError::Unauthorized(format!(
                "this device is logged out at {url}: {}; log in again with `drivefs login {url}`. \
                 Until then all that is here can be used, and nothing of it is lost",
                error.message
            )),
            code => RemoteError::Refused { code, message: error.message, hint: error.hint },
        },
        Err(_) if matches!(status.as_u16(), 502..=504) => {
            RemoteError::Offline(format!("the gateway answered {status}"))
        }
        Err(_) => RemoteError::Protocol(format!("status {status}, and not from drivefs-server")),
    }
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

fn path_segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
