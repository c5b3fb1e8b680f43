//! Commits whose answer is not known yet.
//!
//! A commit is noted before it is sent, with the keys of its ops, and until its answer has been taken
//! in. One whose answer was lost, with its connection or with this process, is sent again word for
//! word before anything else is asked: the server answers an op that it has done as it did the first
//! time. So what the server has of our own making is never guessed from what it shows.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::wire::Change;
use drivefs_core::wire::CommitRequest;
use serde::Deserialize;
use serde::Serialize;

use super::Tree;
use super::TreeError;
use crate::state::Conn;

/// A commit as it was sent, and what its ops stand for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unanswered {
    pub request: CommitRequest,
    /// Of each op, as in `SentOp`.
    pub blocks: Vec<Vec<BlockHash>>,
    /// The same; another process counts differently.
    #[serde(skip)]
    pub complete_to: Vec<Option<u64>>,
}

impl Tree {
    /// Notes a commit that is about to be sent, and the contents in it, so that our own puts are
    /// known again even if the server has forgotten its answer.
    pub fn note_unanswered(&self, commit: &Unanswered) -> Result<(), TreeError> {
        let json = serde_json::to_vec(commit).expect("a commit serialises");
        self.db.write(|c| {
            for op in &commit.request.ops {
                if let Change::Put { node, content, .. } = &op.change {
                    c.add_inflight(node, &content.0)?;
                }
            }
            Ok(c.set_meta(&key(commit.request.ns), &json)?)
        })
    }

    /// The commits of an earlier process that had no answer.
    pub fn unanswered(&self) -> Result<Vec<Unanswered>, TreeError> {
        self.db.peek(|c| {
            let mut out = Vec::new();
            for space in c.namespaces()? {
                let Some(json) = c.meta(&key(space.ns))? else { continue };
                match serde_json::from_slice(&json) {
                    Ok(commit) => out.push(commit),
                    // Of a version that wrote it otherwise: what the server has decides.
                    Err(error) => tracing::warn!(%error, "an unanswered commit cannot be read"),
                }
            }
            Ok(out)
        })
    }

    /// The server will never say what became of a commit.
    pub fn forget_unanswered(&self, ns: NamespaceId) -> Result<(), TreeError> {
        self.db.write(|c| self.answered(c, ns))
    }

    /// Inside the transaction that takes the answer in.
    pub(super) fn answered(&self, c: &Conn<'_>, ns: NamespaceId) -> Result<(), TreeError> {
        Ok(c.delete_meta(&key(ns))?)
    }
}

fn key(ns: NamespaceId) -> String {
    format!("commit {ns}")
}
