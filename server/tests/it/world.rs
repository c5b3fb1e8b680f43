//! The small language of these tests: a server, people, and what they do.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use drivefs_core::codec;
use drivefs_core::frame;
use drivefs_core::frame::Frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::Root;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Account;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::CommitReply;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::ErrorBody;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::LoginReply;
use drivefs_core::wire::LoginRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::PackReply;
use drivefs_core::wire::Place;
use drivefs_server::app::Server;
use drivefs_server::config::Config;
use drivefs_server::drive::users;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub const PASSWORD: &str = "correct horse battery";
pub const QUOTA: u64 = 1 << 30;

/// A server in this process.
pub struct World {
    pub server: Server,
    pub dir: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::local(dir.path());
        change(&mut config);
        Self { server: Server::start(config).await.unwrap(), dir }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// Adds an account and logs it in.
    pub async fn person(&self, name: &str) -> Person {
        self.person_with(name, QUOTA).await
    }

    pub async fn person_with(&self, name: &str, quota: u64) -> Person {
        let email = format!("{name}@example.com");
        users::add(self.server.store(), &email, PASSWORD, quota).await.unwrap();
        Person::login(&self.url(), &email, PASSWORD, "laptop").await.unwrap()
    }
}

/// An answer that was no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    pub code: ErrorCode,
    pub message: String,
    pub retry_after: Option<u64>,
}

/// Somebody logged in.
#[derive(Clone)]
pub struct Person {
    pub http: reqwest::Client,
    pub url: String,
    pub token: String,
    pub account: Account,
    /// The namespace that the shorthands below work in, and its root.
    pub ns: NamespaceId,
    pub root: NodeId,
}

impl Person {
    pub async fn login(
        url: &str,
        email: &str,
        password: &str,
        device: &str,
    ) -> Result<Self, Refused> {
        let http = http();
        let request =
            LoginRequest { email: email.into(), password: password.into(), device: device.into() };
        let body = serde_json::to_vec(&request).unwrap();
        let LoginReply { token, account } =
            send(&http, Method::POST, &format!("{url}/auth/v1/login"), "", body).await?;
        let ns = account.root;
        let root = NodeId::from_parts(0, [0; 10]);
        let mut person = Self { http, url: url.into(), token, account, ns, root };
        person.root = person.changes(0, 1).await?.root;
        Ok(person)
    }

    /// The same person in another namespace.
    pub async fn at(&self, ns: NamespaceId) -> Self {
        let mut person = Self { ns, ..self.clone() };
        person.root = person.changes(0, 1).await.unwrap().root;
        person
    }

    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Refused> {
        send(&self.http, method, &format!("{}{path}", self.url), &self.token, body).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Refused> {
        self.call(Method::POST, path, serde_json::to_vec(body).unwrap()).await
    }

    pub async fn account(&self) -> Result<Account, Refused> {
        self.call(Method::GET, "/sync/v1/account", Vec::new()).await
    }

    pub async fn used(&self) -> u64 {
        self.account().await.unwrap().used_bytes
    }

    pub async fn changes(&self, cursor: u64, limit: u32) -> Result<ChangesReply, Refused> {
        let request = ChangesRequest {
            ns: self.ns,
            cursor,
            limit,
            trail: Vec::new(),
            tombstones: false,
            began: 0,
        };
        self.post("/sync/v1/changes", &request).await
    }

    pub async fn commit(&self, changes: Vec<Change>) -> Result<CommitReply, Refused> {
        let ops = changes.into_iter().map(|change| Op { key: op_key(), change }).collect();
        self.commit_ops(ops).await
    }

    pub async fn commit_ops(&self, ops: Vec<Op>) -> Result<CommitReply, Refused> {
        let request = CommitRequest { ns: self.ns, at: None, ops, rewinds: None };
        self.post("/sync/v1/commit", &request).await
    }

    /// Commits one change and answers what became of it.
    pub async fn try_one(&self, change: Change) -> OpResult {
        self.commit(vec![change]).await.unwrap().results.remove(0)
    }

    /// Commits one change, which must be done; answers its version.
    pub async fn one(&self, change: Change) -> u64 {
        match self.try_one(change).await {
            OpResult::Done { version, .. } => version,
            other => panic!("not done: {other:?}"),
        }
    }

    pub async fn conflicts(&self, change: Change) {
        let result = self.try_one(change).await;
        assert!(matches!(result, OpResult::Conflict { .. }), "{result:?}");
    }

    pub async fn rejected(&self, change: Change) -> ErrorCode {
        match self.try_one(change).await {
            OpResult::Rejected { code, .. } => code,
            other => panic!("not rejected: {other:?}"),
        }
    }

    /// Uploads a body of frames.
    pub async fn upload_body(&self, body: Vec<u8>) -> Result<u32, Refused> {
        let path = format!("/sync/v1/packs?ns={}", self.ns);
        let reply: PackReply = self.call(Method::POST, &path, body).await?;
        Ok(reply.stored)
    }

    /// Uploads blocks as the client would; answers how many were new.
    pub async fn upload(&self, blocks: &[Vec<u8>]) -> u32 {
        self.upload_body(body_of(blocks)).await.unwrap()
    }

    /// Uploads one block and answers the content that it makes.
    pub async fn content(&self, block: &[u8]) -> Blob {
        self.upload(&[block.to_vec()]).await;
        content_of(&[block])
    }

    pub fn place(&self, name: &str) -> Place {
        place(self.root, name)
    }

    /// Makes a file of one block in the root.
    pub async fn file(&self, name: &str, block: &[u8]) -> NodeId {
        let node = node_id();
        let content = self.content(block).await;
        self.one(create(node, self.place(name), content)).await;
        node
    }

    pub async fn dir(&self, parent: NodeId, name: &str) -> NodeId {
        let node = node_id();
        self.one(mkdir(node, place(parent, name))).await;
        node
    }
}

/// A client. In a build together with the client's crate reqwest speaks TLS and wants to know by
/// which provider, although these tests use none.
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn send<T: DeserializeOwned>(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    token: &str,
    body: Vec<u8>,
) -> Result<T, Refused> {
    let request = http.request(method, url).header("x-drivefs-wire", "1").body(body);
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get("retry-after").map(|v| v.to_str().unwrap().parse().unwrap());
    let bytes = response.bytes().await.unwrap();
    if status == 204 {
        return Ok(serde_json::from_str("null").unwrap());
    }
    if status == 200 {
        return Ok(serde_json::from_slice(&bytes).unwrap());
    }
    let ErrorBody { error } = serde_json::from_slice(&bytes).unwrap();
    Err(Refused { status, code: error.code, message: error.message, retry_after })
}

// ------------------------------------------------------------ values

fn unique() -> [u8; 10] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut out = [0; 10];
    out[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    out
}

pub fn node_id() -> NodeId {
    NodeId::from_parts(1, unique())
}

pub fn op_key() -> OpKey {
    OpKey::from_parts(2, unique())
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes().to_vec()).unwrap()
}

pub fn place(parent: NodeId, text: &str) -> Place {
    Place { parent, name: name(text) }
}

pub fn attrs() -> Attrs {
    Attrs { mode: 0o644, uid: None, gid: None, mtime: 5, btime: 4 }
}

/// Bytes that do not compress, by seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

pub fn entry_of(block: &[u8]) -> Entry {
    Entry { hash: BlockHash::of(block), len: block.len() as u32 }
}

pub fn content_of(blocks: &[&[u8]]) -> Blob {
    let entries: Vec<_> = blocks.iter().map(|b| entry_of(b)).collect();
    Blob(Root::build(&entries).0.encode())
}

pub fn body_of(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut body = frame::begin();
    for block in blocks {
        let encoded = codec::encode(block, 1).unwrap();
        let frame = Frame {
            hash: BlockHash::of(block),
            codec: encoded.codec,
            block_len: block.len() as u32,
            base: None,
            encoded: &encoded.bytes,
        };
        frame::push(&mut body, &frame);
    }
    body
}

// ------------------------------------------------------------ changes

pub fn create(node: NodeId, at: Place, content: Blob) -> Change {
    Change::Put {
        node,
        create: Some(at),
        base_version: 0,
        content,
        attrs: attrs(),
        xattrs: Xattrs::new(),
        source: None,
    }
}

pub fn put(node: NodeId, base_version: u64, content: Blob) -> Change {
    Change::Put {
        node,
        create: None,
        base_version,
        content,
        attrs: attrs(),
        xattrs: Xattrs::new(),
        source: None,
    }
}

pub fn mkdir(node: NodeId, place: Place) -> Change {
    Change::Mkdir { node, place, attrs: attrs(), xattrs: Xattrs::new() }
}

pub fn relocate(node: NodeId, from: Place, to: Place, replace: Option<NodeId>) -> Change {
    Change::Move { node, from, to, replace, replaced_version: None, exchange: false }
}

pub fn exchange(node: NodeId, from: Place, to: Place) -> Change {
    Change::Move { node, from, to, replace: None, replaced_version: None, exchange: true }
}
