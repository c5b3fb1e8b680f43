//! Asking the server about the past: one question under way for all who want to know, none longer
//! than a program waits. Without the server what is known is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use drivefs_core::limits::PAST_FORMER_MAX;
use drivefs_core::limits::PAST_NAMES_MAX;
use drivefs_core::limits::PAST_VERSIONS_MAX;
use drivefs_core::limits::TRASH_ROWS_MAX;
use drivefs_core::limits::VERSIONS_ROWS_MAX;
use drivefs_core::name::Name;
use drivefs_core::wire::ErrorCode;
use drivefs_core::wire::GoneEntry;
use drivefs_core::wire::GoneRequest;
use drivefs_core::wire::VersionRow;
use drivefs_core::wire::VersionsRequest;
use drivefs_core::wire::Which;

use super::super::DriveFs;
use super::super::listing::remote;
use super::super::lock;
use super::inodes::OldVersion;
use super::told::Answer;
use super::told::Question;
use super::told::Version;
use super::told::Versions;
use super::told::Want;
use crate::cache::CacheError;
use crate::remote::Remote;
use crate::remote::RemoteError;
use crate::spool::SpoolError;
use crate::tree::TreeError;

impl DriveFs {
    /// An answer that is new enough and `good`, or the one that the server gives now.
    pub(super) async fn ask(
        &self,
        question: Question,
        want: Want,
        good: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, TreeError> {
        if let Some(answer) = self.told(&question, want)?.filter(&good) {
            return Ok(answer);
        }
        let turn = lock(&self.past.turns).entry(question.clone()).or_default().clone();
        let asked = {
            let _turn = turn.lock().await;
            match self.told(&question, want)?.filter(&good) {
                Some(answer) => Ok(answer),
                None => self.ask_server(&question).await,
            }
        };
        lock(&self.past.turns).remove(&question);
        match asked {
            Err(e) if is_offline(&e) => self.told(&question, Want::Any)?.ok_or(e),
            asked => asked,
        }
    }

    /// What was answered before, if it is new enough.
    pub(super) fn told(
        &self,
        question: &Question,
        want: Want,
    ) -> Result<Option<Answer>, TreeError> {
        let cursor = self.tree.cursor(question.ns())?;
        Ok(lock(&self.past.answers).get(question, want, cursor, Instant::now()))
    }

    async fn ask_server(&self, question: &Question) -> Result<Answer, TreeError> {
        self.check_link()?;
        // Before the question: what is committed meanwhile makes the answer old, not new.
        let cursor = self.tree.cursor(question.ns())?;
        let answer = match self.within(fetch(&self.remote, question)).await {
            Ok(answer) => answer,
            // It is not there yet, or never was; nothing else has versions but files.
            Err(e) if matches!(e.code(), Some(ErrorCode::NotFound | ErrorCode::BadRequest)) => {
                match question {
                    Question::Names(..) => Answer::Names(Arc::default()),
                    Question::Place(..) => Answer::Place(Arc::default()),
                    Question::Versions(..) => {
                        lock(&self.past.answers).forget(question);
                        return Err(TreeError::NotFound);
                    }
                }
            }
            Err(e) => {
                if !e.is_passing() {
                    tracing::warn!(error = %e, "the server does not tell the history");
                }
                return Err(remote(e));
            }
        };
        let now = Instant::now();
        lock(&self.past.answers).put(question.clone(), answer.clone(), cursor, now);
        Ok(answer)
    }

    /// The encoded manifest root of a version.
    pub(super) async fn root_of(&self, old: &OldVersion) -> Result<Vec<u8>, TreeError> {
        let question = Question::Versions(old.ns, old.node);
        if let Some(Answer::Versions(all)) = self.told(&question, Want::Any)?
            && let Some(root) = all.find(old.version).and_then(|v| v.root.as_ref())
        {
            return Ok(root.0.clone());
        }
        self.check_link()?;
        let request = VersionsRequest {
            ns: old.ns,
            of: Which::Node(old.node),
            before: Some(old.version.saturating_add(1)),
            limit: 1,
        };
        match self.within(self.remote.versions(&request)).await {
            Ok(reply) => {
                let found = reply.versions.into_iter().find(|v| v.version == old.version);
                found.map(|v| v.content.0).ok_or(TreeError::NotFound)
            }
            Err(e) if e.code() == Some(ErrorCode::NotFound) => Err(TreeError::NotFound),
            Err(e) => Err(remote(e)),
        }
    }
}

fn is_offline(e: &TreeError) -> bool {
    use TreeError::Spool;
    matches!(e, Spool(SpoolError::Cache(CacheError::Remote(RemoteError::Offline(_)))))
}

async fn fetch(remote: &Remote, question: &Question) -> Result<Answer, RemoteError> {
    match question {
        Question::Versions(ns, node) => {
            let mut request = VersionsRequest {
                ns: *ns,
                of: Which::Node(*node),
                before: None,
                limit: VERSIONS_ROWS_MAX,
            };
            let mut rows = Vec::new();
            loop {
                let page = remote.versions(&request).await?;
                rows.extend(page.versions.into_iter().map(version));
                request.before = rows.last().map(|v: &Version| v.version);
                if !page.more || rows.len() >= PAST_VERSIONS_MAX {
                    return Ok(Answer::Versions(Arc::new(Versions::new(page.row.attrs, rows))));
                }
            }
        }
        Question::Names(ns, folder) => {
            let mut request = GoneRequest {
                ns: *ns,
                folder: *folder,
                name: None,
                after: None,
                limit: TRASH_ROWS_MAX,
            };
            let mut names: BTreeMap<Vec<u8>, GoneEntry> = BTreeMap::new();
            loop {
                let page = remote.gone(&request).await?;
                let by_name = |e: GoneEntry| (e.name.as_bytes().to_vec(), e);
                names.extend(page.entries.into_iter().map(by_name));
                request.after = page.next;
                if request.after.is_none() || names.len() >= PAST_NAMES_MAX {
                    return Ok(Answer::Names(Arc::new(names)));
                }
            }
        }
        Question::Place(ns, folder, name) => {
            let name = Name::new(name.as_slice());
            let name = Some(name.map_err(|e| RemoteError::Protocol(e.to_string()))?);
            let (ns, folder) = (*ns, *folder);
            let request = GoneRequest { ns, folder, name, after: None, limit: PAST_FORMER_MAX };
            Ok(Answer::Place(Arc::new(remote.gone(&request).await?.entries)))
        }
    }
}

fn version(row: VersionRow) -> Version {
    Version {
        version: row.version,
        size: row.size,
        committed: row.committed,
        device: row.device,
        root: Some(row.content),
    }
}
