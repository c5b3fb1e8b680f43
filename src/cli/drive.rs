//! What the history commands share: the daemon for paths and waiting, the server for the rest.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::name::Name;
use drivefs_core::wire::PollCursor;
use drivefs_core::wire::PollRequest;
use drivefs_core::wire::Which;

use super::when;
use crate::control::Control;
use crate::control::Located;
use crate::control::Reply;
use crate::control::Request;
use crate::control::Space;
use crate::history::History;
use crate::home::AccountFile;
use crate::home::Home;
use crate::remote::Remote;
use crate::remote::RemoteError;

/// How long a listing waits for changes that are on their way (seconds).
const SETTLE_SECS: f64 = 1.0;

/// The mounted drive of this home, and its server.
pub struct Drive {
    control: Control,
    /// Folder where it is mounted.
    pub mount: String,
    remote: Remote,
    runtime: tokio::runtime::Runtime,
}

impl Drive {
    pub fn open() -> anyhow::Result<Self> {
        let (control, mount) = super::daemon()?;
        let home = Home::from_env()?;
        let account = AccountFile::load(&home)?
            .context("this device is not logged in; `drivefs login URL --email E` does it")?;
        let remote = Remote::new(&account.url, Some(account.token))?;
        Ok(Self { control, mount, remote, runtime: super::runtime()? })
    }

    /// Where a path that the user gave lies.
    pub fn locate(&mut self, path: &Path) -> anyhow::Result<Located> {
        let below = super::below_mount(path, &self.mount)?;
        self.locate_below(below)
    }

    /// Where a path below the mount lies.
    pub fn locate_below(&mut self, path: String) -> anyhow::Result<Located> {
        match self.control.ask(&Request::Locate { path }, |_| {})? {
            Reply::Located(located) => Ok(*located),
            other => unexpected(other),
        }
    }

    /// The path of a node below the mount; none while it is not there.
    pub fn path_of(&mut self, node: NodeId) -> anyhow::Result<Option<String>> {
        match self.control.ask(&Request::PathOf { node }, |_| {})? {
            Reply::Path { path } => Ok(path),
            other => unexpected(other),
        }
    }

    /// The namespaces in the mount.
    pub fn spaces(&mut self) -> anyhow::Result<Vec<Space>> {
        match self.control.ask(&Request::Spaces, |_| {})? {
            Reply::Spaces { spaces } => Ok(spaces),
            other => unexpected(other),
        }
    }

    pub fn history(&self, ns: NamespaceId) -> History {
        History::new(self.remote.clone(), ns, when::today())
    }

    /// Waits until one of the namespaces has moved on from its cursor; tells which.
    pub async fn poll(
        &self,
        cursors: Vec<PollCursor>,
        timeout_secs: u64,
    ) -> Result<Vec<NamespaceId>, RemoteError> {
        let reply = self.remote.poll(&PollRequest { cursors, timeout_secs }).await?;
        if let Some(secs) = reply.backoff_secs {
            tokio::time::sleep(Duration::from_secs(secs)).await;
        }
        Ok(reply.changed)
    }

    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Sends what is ahead at and below a path, and takes in all that the server has.
    pub fn sync(&mut self, path: &str) -> anyhow::Result<()> {
        super::sync::wait(&mut self.control, &self.mount, Some(path.to_owned()), None)
    }

    /// Sends unsent changes at and below a path first, and says so: what is about to come is not to
    /// meet them as a conflict. Fails at once where there is no server to send to.
    pub fn send_first(&mut self, located: &Located) -> anyhow::Result<()> {
        self.wait(self.remote.account())?;
        if located.waiting {
            eprintln!("{}: sending unsent changes first", shown(&located.path));
        }
        // Programs may have written what the daemon has not heard of yet.
        self.sync(&located.path)
    }

    /// Gives what was just changed a moment to reach the server.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.wait(self.remote.account())?;
        let all = Some(String::new());
        // Large uploads take their time; what is asked for does not wait for them.
        let _ = super::sync::wait(&mut self.control, &self.mount, all, Some(SETTLE_SECS));
        Ok(())
    }
}

/// What a located path means to the server.
pub fn which(located: &Located) -> Which {
    match &located.node {
        Some(node) => Which::Node(node.node),
        None => Which::Path(located.names.clone()),
    }
}

/// A path below the mount for people.
pub fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// A path of names in a namespace, as a path below the mount.
pub fn joined(space: &str, names: &[Name]) -> String {
    let mut parts: Vec<String> = Vec::with_capacity(names.len() + 1);
    if !space.is_empty() {
        parts.push(space.to_owned());
    }
    parts.extend(names.iter().map(ToString::to_string));
    parts.join("/")
}

fn unexpected<T>(reply: Reply) -> anyhow::Result<T> {
    match reply {
        Reply::Failed { message } => bail!("{message}"),
        other => bail!("unexpected answer of the daemon: {other:?}"),
    }
}
