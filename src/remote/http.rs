//! The sync protocol over HTTP.

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
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Link;
use super::RemoteError;
use super::frames::Frames;
use super::way::Broken;
use super::way::Patience;
use super::way::QUICK_SILENCE;
use super::way::Request;
use super::way::Response;
use super::way::Transport;
use super::way::Way;

/// A client of one server under one account. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    way: Way,
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
        Ok(Self {
            way: Way::http(base.clone())?,
            base,
            token: Arc::new(RwLock::new(token)),
            link: Arc::default(),
        })
    }

    /// A client whose requests a simulation takes.
    pub fn over(transport: Arc<dyn Transport>, token: Option<String>) -> Self {
        let base = "http://simulated".to_owned();
        Self {
            way: Way::Given(transport),
            base,
            token: Arc::new(RwLock::new(token)),
            link: Arc::default(),
        }
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
        self.post(Patience::Working, "/auth/v1/login", r).await
    }

    pub async fn logout(&self) -> Result<(), RemoteError> {
        self.send(self.request("POST", "/auth/v1/logout", Patience::Quick)).await.map(drop)
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
        self.post(Patience::Quick, "/auth/v1/tokens", r).await
    }

    pub async fn revoke_token(&self, name: &str) -> Result<(), RemoteError> {
        let path = format!("/auth/v1/tokens/{}", path_segment(name));
        self.send(self.request("DELETE", &path, Patience::Quick)).await.map(drop)
    }

    /// Which of these blocks the namespace's owner does not hold.
    pub async fn missing(
        &self,
        ns: NamespaceId,
        hashes: Vec<BlockHash>,
    ) -> Result<Vec<BlockHash>, RemoteError> {
        let request = wire::MissingRequest { ns, hashes };
        let reply: wire::MissingReply =
            self.post(Patience::Working, "/sync/v1/missing", &request).await?;
        Ok(reply.missing)
    }

    /// Stores blocks; when this returns they are durable.
    pub async fn put_pack(&self, ns: NamespaceId, body: Vec<Bytes>) -> Result<(), RemoteError> {
        let path = format!("/sync/v1/packs?ns={ns}");
        let request = Request { body, ..self.request("POST", &path, Patience::Working) };
        let response = self.send(request).await?;
        let _: wire::PackReply = self.json(response).await?;
        Ok(())
    }

    /// Fetches blocks; the answer is read frame by frame.
    pub async fn blocks(&self, request: &wire::BlocksRequest) -> Result<Frames, RemoteError> {
        let body = to_json(request)?;
        let request = self.json_request("/sync/v1/blocks", body, Patience::Quick);
        let response = self.send(request).await?;
        Ok(Frames::new(self.clone(), response))
    }

    pub async fn commit(&self, r: &wire::CommitRequest) -> Result<wire::CommitReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/commit", r).await
    }

    pub async fn changes(
        &self,
        r: &wire::ChangesRequest,
    ) -> Result<wire::ChangesReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/changes", r).await
    }

    /// One page of a folder's entries.
    pub async fn list(&self, r: &wire::ListRequest) -> Result<wire::ListReply, RemoteError> {
        self.post(Patience::Quick, "/sync/v1/list", r).await
    }

    /// Versions of a file.
    pub async fn versions(
        &self,
        r: &wire::VersionsRequest,
    ) -> Result<wire::VersionsReply, RemoteError> {
        self.post(Patience::Quick, "/sync/v1/versions", r).await
    }

    /// Pins a version, or lets it go.
    pub async fn keep(&self, r: &wire::KeepRequest) -> Result<wire::KeepReply, RemoteError> {
        self.post(Patience::Quick, "/sync/v1/keep", r).await
    }

    /// What a folder held at a time.
    pub async fn past(&self, r: &wire::PastRequest) -> Result<wire::PastReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/past", r).await
    }

    /// What was deleted out of a folder.
    pub async fn gone(&self, r: &wire::GoneRequest) -> Result<wire::GoneReply, RemoteError> {
        self.post(Patience::Quick, "/sync/v1/gone", r).await
    }

    /// What happened in a namespace.
    pub async fn events(&self, r: &wire::EventsRequest) -> Result<wire::EventsReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/events", r).await
    }

    pub async fn trash(&self, r: &wire::TrashRequest) -> Result<wire::TrashReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/trash", r).await
    }

    pub async fn empty_trash(
        &self,
        r: &wire::EmptyRequest,
    ) -> Result<wire::EmptyReply, RemoteError> {
        self.post(Patience::Working, "/sync/v1/trash/empty", r).await
    }

    /// Held by the server until something changed or the time is up.
    pub async fn poll(&self, r: &wire::PollRequest) -> Result<wire::PollReply, RemoteError> {
        let wait = Duration::from_secs(r.timeout_secs) + QUICK_SILENCE;
        let request = self.json_request("/sync/v1/poll", to_json(r)?, Patience::UpTo(wait));
        let response = self.send(request).await?;
        self.json(response).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RemoteError> {
        let response = self.send(self.request("GET", path, Patience::Quick)).await?;
        self.json(response).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        patience: Patience,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        let response = self.send(self.json_request(path, to_json(body)?, patience)).await?;
        self.json(response).await
    }

    fn json_request(&self, path: &str, body: Vec<u8>, patience: Patience) -> Request {
        Request { json: true, body: vec![body.into()], ..self.request("POST", path, patience) }
    }

    fn request(&self, method: &'static str, path: &str, patience: Patience) -> Request {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let path = path.to_owned();
        Request { method, path, token, json: false, body: Vec::new(), patience }
    }

    /// Sends and judges the status; the body is still to be read.
    async fn send(&self, request: Request) -> Result<Response, RemoteError> {
        let sent = self.way.send(request, |bytes| self.link.count(bytes, 0)).await?;
        let response = sent.map_err(|e| self.broken(e))?;
        self.link.count(0, response.head_bytes());
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
        let body = response.bytes().await.map_err(|e| self.broken(e))?;
        self.link.count(0, body.len());
        Ok(body)
    }

    pub(super) fn broken(&self, broken: Broken) -> RemoteError {
        let why = if broken.silent {
            format!("{} does not answer in time", self.base)
        } else {
            format!("cannot reach {}: {}", self.base, broken.cause)
        };
        if broken.silent {
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
