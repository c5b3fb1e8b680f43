//! History as the commands use it: versions, trash, and the past of folders, asked of the server.
//!
//! Everything is a commit like any other, made by this device: nothing that was written is taken
//! back, and no bytes travel, because the server holds the blocks. The replica hears of it as of
//! any remote change. Knows neither paths of the mount nor the terminal.

mod events;
mod past;
mod read;
mod revive;
mod rewind;

use std::time::Duration;

use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::id::VersionNo;
use drivefs_core::node::Attrs;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::KeepRequest;
use drivefs_core::wire::Op;
use drivefs_core::wire::OpResult;
use drivefs_core::wire::Place;
use drivefs_core::wire::Source;
use drivefs_core::wire::VersionRow;
use drivefs_core::wire::VersionsReply;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::Which;

use crate::journal::now;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::tree::new_id;

pub use past::PastDone;
pub use revive::Revived;
pub use rewind::Left;
pub use rewind::Rewound;
pub use rewind::Scope;
pub use rewind::Step;
pub use rewind::Verb;
pub use rewind::Whose;

/// Versions asked for at once.
const PAGE: u32 = 100;
/// Tries of a commit whose answer did not arrive: its ops have the same keys each time.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Tries against somebody who writes the same file all the time.
const RACES_MAX: u32 = 5;

/// Why something did not come back.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The server said no to a change.
    #[error("{0}")]
    Refused(String),
    /// There is no such file, version or time.
    #[error("{0}")]
    NotFound(String),
    #[error("it changes faster than it can be restored; try again")]
    Busy,
    #[error("it has {0} bytes, which is too much for this")]
    TooLarge(u64),
    /// Of what happened up to this time (nanoseconds) not everything is on record any more.
    #[error("what happened that long ago is not on record any more")]
    Pruned(TimeNs),
}

impl HistoryError {
    /// True when the server knows no such thing.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Remote(e) => e.code() == Some(ErrorCode::NotFound),
            _ => false,
        }
    }
}

/// Which version of a file is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    Number(VersionNo),
    /// The newest one that was there at this time.
    At(TimeNs),
    /// The newest one before this one.
    Before(VersionNo),
    /// The one before the current one.
    Previous,
    Current,
}

/// The history of one namespace.
#[derive(Clone)]
pub struct History {
    remote: Remote,
    ns: NamespaceId,
    /// Stands in the names of what comes back beside something else.
    date: String,
}

impl History {
    /// `date` is a calendar date in words that a file name can have.
    pub fn new(remote: Remote, ns: NamespaceId, date: impl Into<String>) -> Self {
        Self { remote, ns, date: date.into() }
    }

    /// A page of versions older than `before`, newest first.
    pub async fn versions(
        &self,
        of: &Which,
        before: Option<VersionNo>,
        limit: u32,
    ) -> Result<VersionsReply, HistoryError> {
        let request = VersionsRequest { ns: self.ns, of: of.clone(), before, limit };
        Ok(self.remote.versions(&request).await?)
    }

    /// One version of a file, with the file as it is now.
    pub async fn version(
        &self,
        of: &Which,
        pick: Pick,
    ) -> Result<(VersionsReply, VersionRow), HistoryError> {
        let mut before = match pick {
            Pick::Number(number) => Some(number.saturating_add(1)),
            Pick::Before(number) => Some(number),
            _ => None,
        };
        let mut first: Option<VersionsReply> = None;
        loop {
            let mut page = self.versions(of, before, PAGE).await?;
            let head = page.row.version;
            let fits = |v: &&VersionRow| match pick {
                Pick::Number(number) => v.version == number,
                Pick::Before(number) => v.version < number,
                Pick::At(time) => v.committed <= time,
                Pick::Previous => v.version < head,
                Pick::Current => v.version == head,
            };
            let found = page.versions.iter().find(fits).cloned();
            before = page.versions.last().map(|v| v.version);
            let more = page.more && !matches!(pick, Pick::Number(_));
            page.versions.clear();
            let file = first.get_or_insert(page);
            match found {
                Some(version) => return Ok((file.clone(), version)),
                None if more => {}
                None => return Err(HistoryError::NotFound(none_such(pick, file))),
            }
        }
    }

    /// Makes an old version the newest of a file that is there. Answers its number; none when the
    /// file has that content already.
    pub async fn restore_version(
        &self,
        node: NodeId,
        version: &VersionRow,
    ) -> Result<Option<VersionNo>, HistoryError> {
        for _ in 0..RACES_MAX {
            let file = self.versions(&Which::Node(node), None, 1).await?;
            let row = file.row;
            if row.content.as_ref() == Some(&version.content) {
                return Ok(None);
            }
            let revert = revert(node, row.version, version.version);
            match self.commit(vec![revert]).await?.pop() {
                Some(OpResult::Done { version, .. }) => return Ok(Some(version)),
                Some(OpResult::Rejected { message, .. }) => {
                    return Err(HistoryError::Refused(message));
                }
                // Somebody was faster: their version stays in the history, too.
                Some(OpResult::Conflict { .. }) | None => {}
            }
        }
        Err(HistoryError::Busy)
    }

    /// Makes a new file with the content of a version, in this or another namespace.
    pub async fn copy_version(
        &self,
        file: &VersionsReply,
        version: &VersionRow,
        to: (NamespaceId, Place),
    ) -> Result<(), HistoryError> {
        let (ns, place) = to;
        let source = (ns != self.ns).then_some(Source { ns: self.ns, node: file.row.node });
        let attrs = Attrs { mtime: version.committed, btime: now(), ..file.row.attrs };
        let change = Change::Put {
            node: new_id(),
            create: Some(place),
            base_version: 0,
            content: version.content.clone(),
            attrs,
            xattrs: file.row.xattrs.clone(),
            source,
        };
        let there = Self { ns, ..self.clone() };
        match there.commit(vec![change]).await?.pop() {
            Some(OpResult::Done { .. }) => Ok(()),
            Some(OpResult::Rejected { message, .. } | OpResult::Conflict { message }) => {
                Err(HistoryError::Refused(message))
            }
            None => Err(HistoryError::Busy),
        }
    }

    /// Pins a version, or lets it go; answers how many are kept.
    pub async fn keep(
        &self,
        node: NodeId,
        version: VersionNo,
        keep: bool,
    ) -> Result<u32, HistoryError> {
        let request = KeepRequest { ns: self.ns, node, version, keep };
        Ok(self.remote.keep(&request).await?.kept)
    }

    /// Commits changes; one result each.
    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<OpResult>, HistoryError> {
        self.commit_as(changes, None).await
    }

    /// The same; `rewinds` names the device whose work it undoes.
    async fn commit_as(
        &self,
        changes: Vec<Change>,
        rewinds: Option<String>,
    ) -> Result<Vec<OpResult>, HistoryError> {
        let ops = changes.into_iter().map(|change| Op { key: OpKey(new_id().0), change }).collect();
        let request = CommitRequest { ns: self.ns, at: None, ops, rewinds };
        let mut tries = 1;
        loop {
            match self.remote.commit(&request).await {
                Ok(reply) if reply.results.len() == request.ops.len() => return Ok(reply.results),
                Ok(_) => {
                    return Err(RemoteError::Protocol("an answer is missing".into()).into());
                }
                Err(e) if e.is_passing() && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// An older version of a file that is there becomes the newest.
fn revert(node: NodeId, base_version: VersionNo, version: VersionNo) -> Change {
    Change::Revert { node, base_version, version }
}

/// New content for a file that is there. Programs see by its time that it changed.
fn put(node: NodeId, base_version: VersionNo, content: Blob, attrs: Attrs) -> Change {
    Change::Put {
        node,
        create: None,
        base_version,
        content,
        attrs: Attrs { mtime: now(), ..attrs },
        xattrs: Xattrs::new(),
        source: None,
    }
}

fn none_such(pick: Pick, file: &VersionsReply) -> String {
    match pick {
        Pick::Number(number) => format!(
            "there is no version {number}; `drivefs versions` lists those there are, up to {}",
            file.row.version
        ),
        Pick::At(_) => "the file is younger than that: no version is that old".to_owned(),
        Pick::Before(number) => format!("there is no version before {number}"),
        Pick::Previous => "the file has one version only".to_owned(),
        Pick::Current => "the file has no content yet".to_owned(),
    }
}
