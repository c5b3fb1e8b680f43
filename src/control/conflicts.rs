//! `drivefs conflicts` and `drivefs resolve`.
//!
//! A resolution drops one of two contents, so it waits until the server has what goes: then it is in
//! the history or in the trash. The origin is written first, durably, and the conflict file is
//! removed only when the server has what was written (without a server: when it is on this disk). A
//! crash anywhere leaves both files, and the same command again ends what it began.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use drivefs_core::id::VersionNo;
use drivefs_core::limits::MERGE_MAX_BYTES;
use drivefs_core::wire::Which;

use super::content::blocking;
use super::protocol::Conflict;
use super::protocol::Conflicts;
use super::protocol::Keep;
use super::protocol::Reply;
use super::protocol::Resolved;
use crate::cache::CacheError;
use crate::fs::DriveFs;
use crate::fs::Seen;
use crate::history::History;
use crate::history::HistoryError;
use crate::history::Pick;
use crate::journal::now;
use crate::spool::SpoolError;
use crate::state::Nid;
use crate::state::Node;
use crate::sync::EngineHandle;
use crate::tree::ConflictFile;
use crate::tree::Merged;
use crate::tree::Origin;
use crate::tree::TreeError;
use crate::tree::merge_texts;
use crate::tree::utc_date;

/// Longest wait for the server to have a content.
const SENT_WAIT: Duration = Duration::from_secs(30);
/// A server that was away is asked once more: this is how long it has for that.
const KNOCK_WAIT: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All conflict files.
pub(super) async fn conflicts(fs: &Arc<DriveFs>) -> Reply {
    let this = fs.clone();
    let listed = blocking(move || {
        let mut out = Vec::new();
        for file in this.tree().conflicts()? {
            out.push(told(&this, &file)?);
        }
        Ok(out)
    });
    match listed.await {
        Ok(conflicts) => {
            let filling = fs.tree().is_filling();
            Reply::Conflicts(Conflicts { filling, conflicts })
        }
        Err(e) => Reply::Failed { message: e.to_string() },
    }
}

fn told(fs: &DriveFs, file: &ConflictFile) -> Result<Conflict, TreeError> {
    let mark = file.mark.as_ref();
    Ok(Conflict {
        path: file.path.clone(),
        node: file.node.id.to_string(),
        bytes: fs.size_of(&file.node),
        on_server: fs.tree().is_sent(file.node.nid)?,
        origin: file.origin.as_ref().map(|o| o.path.clone()),
        origin_name: mark.and_then(|m| m.name.as_ref()).map(ToString::to_string),
        origin_node: mark.map(|m| m.node.to_string()),
        origin_bytes: file.origin.as_ref().map(|o| fs.size_of(&o.node)),
        base_version: mark.map(|m| m.version),
        device: mark.and_then(|m| m.device.clone()),
        at_secs: mark.and_then(|m| m.at).map(|at| at.div_euclid(1_000_000_000)),
        date: mark.and_then(|m| m.at).map(utc_date),
    })
}

/// Why a conflict stays as it is, and what else to do.
type Refusal = String;

/// Resolves the conflict at a path, which is that of the conflict file or of its origin.
pub async fn resolve(fs: &Arc<DriveFs>, engine: &EngineHandle, path: &str, keep: Keep) -> Reply {
    let at = Resolver { fs: fs.clone(), engine: engine.clone() };
    match at.resolve(path, keep).await {
        Ok(resolved) => Reply::Resolved(resolved),
        Err(message) => Reply::Failed { message },
    }
}

struct Resolver {
    fs: Arc<DriveFs>,
    engine: EngineHandle,
}

impl Resolver {
    async fn resolve(&self, path: &str, keep: Keep) -> Result<Resolved, Refusal> {
        let (this, at) = (self.fs.clone(), path.to_owned());
        let found = blocking(move || find(&this, &at)).await.map_err(|e| named(path, &e))?;
        let file = found?;
        let done = self.end(&file, keep).await;
        for nid in [Some(file.node.nid), file.origin.as_ref().map(|o| o.node.nid)] {
            if let Some(Err(error)) = nid.map(|nid| self.fs.let_go(nid)) {
                tracing::warn!(%error, "could not drop a deleted file");
            }
        }
        done
    }

    async fn end(&self, file: &ConflictFile, keep: Keep) -> Result<Resolved, Refusal> {
        let path = file.path.as_str();
        let tree = self.fs.tree();
        tree.check_resolvable(file).map_err(|e| named(path, &e))?;
        let mut done = Resolved { kept: keep, path: file.path.clone(), removed: None };
        if keep == Keep::Both {
            tree.unmark_conflict(file.node.nid).map_err(|e| named(path, &e))?;
            return Ok(done);
        }
        self.refuse_nested(file)?;
        let Some(origin) = file.origin.clone() else {
            done.path = self.without_origin(file, keep).await?;
            return Ok(done);
        };
        let taken = match keep {
            Keep::Mine => Some(self.take_mine(file, &origin).await?),
            Keep::Merge => Some(self.merge(file, &origin).await?),
            Keep::Theirs | Keep::Both => None,
        };
        match &taken {
            Some(_) => self.until_sent(origin.node.nid, &origin.path, false).await?,
            None => self.until_sent(file.node.nid, &file.path, true).await?,
        }
        self.drop_file(file, taken).await?;
        self.refuse_if_moved(&origin)?;
        done.path = origin.path;
        done.removed = Some(file.path.clone());
        Ok(done)
    }

    /// A conflict file that has conflicts of its own is the origin of those.
    fn refuse_nested(&self, file: &ConflictFile) -> Result<(), Refusal> {
        let all = self.fs.tree().conflicts().map_err(|e| named(&file.path, &e))?;
        let own: Vec<&ConflictFile> = all.iter().filter(|c| stems_from(c, file)).collect();
        if own.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} was itself changed on two devices at once; resolve this first:{}",
            file.path,
            lines(&own)
        ))
    }

    /// The origin was removed: its name may be given back, nothing can be merged or dropped.
    async fn without_origin(&self, file: &ConflictFile, keep: Keep) -> Result<String, Refusal> {
        if self.fs.tree().is_filling() {
            return Err(format!(
                "{}: the list of files is not all here yet; `drivefs sync` waits for it",
                file.path
            ));
        }
        let name = file.mark.as_ref().and_then(|m| m.name.as_ref()).map(ToString::to_string);
        let Some(name) = name else {
            return Err(format!(
                "{}: its origin was removed, and its name is not known. `--keep both` makes this an \
                 ordinary file, `mv` renames it",
                file.path
            ));
        };
        if keep != Keep::Mine {
            return Err(format!(
                "{}: its origin {name} was removed, so nothing else is left to keep. `--keep mine` \
                 gives this file that name, `--keep both` makes it an ordinary file, `rm` removes it",
                file.path
            ));
        }
        let (this, moved) = (self.fs.clone(), file.clone());
        match blocking(move || this.tree().put_back(&moved)).await {
            Err(TreeError::Exists) => Err(format!(
                "{}: its origin was removed, and another file is called {name} now. `--keep both` \
                 makes this an ordinary file; `mv` gives it another name",
                file.path
            )),
            other => other.map_err(|e| named(&file.path, &e)),
        }
    }

    /// The conflict file's content becomes the origin's. Returns what was taken.
    async fn take_mine(&self, file: &ConflictFile, origin: &Origin) -> Result<Vec<u8>, Refusal> {
        self.until_sent(origin.node.nid, &origin.path, true).await?;
        // What moved here from another shared folder has no blocks here until it is sent, and an
        // empty file has none before.
        if file.node.source.is_some() || self.fs.size_of(&file.node) == 0 {
            self.until_sent(file.node.nid, &file.path, true).await?;
        }
        let this = self.fs.clone();
        let (from, to) = (file.node.clone(), origin.node.clone());
        let taken = blocking(move || this.replace_by_reference(&from, &to)).await;
        match taken {
            Err(TreeError::CrossDevice) => Err(format!(
                "{} and {} lie in folders of different owners: `cp` the one over the other, then \
                 `--keep theirs`",
                file.path, origin.path
            )),
            other => other.map_err(|e| named(&origin.path, &e)),
        }
    }

    /// A three-way merge becomes the origin's content. Returns what of the conflict file is in it.
    async fn merge(&self, file: &ConflictFile, origin: &Origin) -> Result<Vec<u8>, Refusal> {
        let else_do = "nothing was changed. Open both files, put into one what you want, then \
                       `--keep theirs` or `--keep mine`; `--keep both` keeps them side by side";
        let cannot = |why: &str| format!("{} cannot be merged: {why}; {else_do}", origin.path);
        for at in [(&file.node, &file.path), (&origin.node, &origin.path)] {
            if self.fs.size_of(at.0) > MERGE_MAX_BYTES {
                let max = MERGE_MAX_BYTES >> 20;
                return Err(cannot(&format!("{} is larger than {max} MiB", at.1)));
            }
        }
        let Some(version) = file.mark.as_ref().map(|m| m.version).filter(|v| *v > 0) else {
            return Err(cannot("the two files were made separately, without a common version"));
        };
        self.until_sent(origin.node.nid, &origin.path, true).await?;
        self.until_sent(file.node.nid, &file.path, true).await?;
        let base = self.version_of(&origin.node, version).await.map_err(|e| {
            cannot(&match e {
                e if e.is_not_found() => format!(
                    "version {version}, which both were made from, is not in the history any more"
                ),
                e => format!(
                    "version {version}, which both were made from, cannot be fetched now ({e})"
                ),
            })
        })?;
        let (this, mine, theirs) = (self.fs.clone(), file.node.nid, origin.node.clone());
        let merged = blocking(move || {
            let (mine, theirs) = (this.see(mine)?, this.see_sent(&theirs)?);
            let texts = (this.seen_bytes(&theirs)?, this.seen_bytes(&mine)?);
            Ok((merge_texts(&base, &texts.0, &texts.1), mine.root(), theirs))
        });
        let (merged, taken, seen): (Merged, Vec<u8>, Seen) =
            merged.await.map_err(|e| named(&origin.path, &e))?;
        let bytes = match merged {
            Merged::Clean(bytes) => bytes,
            Merged::Overlapping(places) => {
                return Err(cannot(&format!("both changed the same lines, in {places} place(s)")));
            }
            Merged::NotText => return Err(cannot("it is not a text")),
            Merged::TooDifferent => {
                return Err(cannot("too much was changed to compare it line by line"));
            }
        };
        let this = self.fs.clone();
        blocking(move || this.replace_by_bytes(&seen, &bytes))
            .await
            .map_err(|e| named(&origin.path, &e))?;
        Ok(taken)
    }

    async fn version_of(&self, node: &Node, version: VersionNo) -> Result<Vec<u8>, HistoryError> {
        let history = History::new(self.fs.remote().clone(), node.ns, utc_date(now()));
        let (_, row) = history.version(&Which::Node(node.id), Pick::Number(version)).await?;
        history.read(&row.content, MERGE_MAX_BYTES).await
    }

    /// Waits until the server has the content of a file. `goes`: it is about to be dropped, so
    /// without a server nothing happens.
    async fn until_sent(&self, nid: Nid, path: &str, goes: bool) -> Result<(), Refusal> {
        let began = Instant::now();
        let mut asked = false;
        loop {
            let this = self.fs.clone();
            match blocking(move || this.tree().is_sent(nid)).await {
                // Gone: something newer took its place, so it was sent.
                Ok(true) | Err(TreeError::NotFound) => return Ok(()),
                Ok(false) => {}
                Err(e) => return Err(named(path, &e)),
            }
            if !asked {
                // At once, also what is open, was refused, or waits for the server to come back.
                self.engine.begin_sync().map_err(|e| named(path, &e))?;
                asked = true;
            }
            let offline = !self.fs.remote().link().is_online() && began.elapsed() > KNOCK_WAIT;
            if offline && !goes {
                return Ok(());
            }
            if offline || began.elapsed() > SENT_WAIT {
                return Err(self.not_sent(path, goes, !offline));
            }
            self.engine.next_round(LOOK_EVERY).await;
        }
    }

    fn not_sent(&self, path: &str, goes: bool, online: bool) -> Refusal {
        let why = match (online, self.engine.status().error) {
            (false, _) => format!("offline: {}", self.fs.remote().link().reason()),
            (true, Some(error)) => error,
            (true, None) => "it takes long".to_owned(),
        };
        if goes {
            format!(
                "{path} is not on the server yet ({why}), and what a resolution drops must be there \
                 first; nothing was changed. Wait for `drivefs sync`, then again; `--keep both` \
                 works at once"
            )
        } else {
            format!(
                "{path} has its new content, which is not on the server yet ({why}); the conflict \
                 file stays until it is. Wait for `drivefs sync`, then again"
            )
        }
    }

    async fn drop_file(&self, file: &ConflictFile, taken: Option<Vec<u8>>) -> Result<(), Refusal> {
        let (this, nid) = (self.fs.clone(), file.node.nid);
        let dropped = blocking(move || this.tree().drop_conflict(nid, taken.as_deref()));
        dropped.await.map_err(|e| match e {
            TreeError::Moved => {
                format!("{} changed meanwhile and stays; look at it, then again", file.path)
            }
            e => named(&file.path, &e),
        })
    }

    /// When another device changed the origin at the same moment, what was written here is a
    /// conflict file of its own.
    fn refuse_if_moved(&self, origin: &Origin) -> Result<(), Refusal> {
        let all = self.fs.tree().conflicts().map_err(|e| named(&origin.path, &e))?;
        match all.iter().find(|c| c.node.nid == origin.node.nid && c.node.id != origin.node.id) {
            None => Ok(()),
            Some(anew) => Err(format!(
                "{} was changed on another device at the same moment; what you keep is in {} now: \
                 look at both, then again",
                origin.path, anew.path
            )),
        }
    }
}

/// The conflict that a path means.
fn find(fs: &DriveFs, path: &str) -> Result<Result<ConflictFile, Refusal>, TreeError> {
    let names: Vec<&[u8]> = path.split('/').filter(|n| !n.is_empty()).map(str::as_bytes).collect();
    let node = fs.tree().resolve_path(&names)?;
    let all = fs.tree().conflicts()?;
    if let Some(file) = all.iter().find(|c| c.node.nid == node.nid) {
        return Ok(Ok(file.clone()));
    }
    let of_it: Vec<&ConflictFile> =
        all.iter().filter(|c| c.origin.as_ref().is_some_and(|o| o.node.nid == node.nid)).collect();
    Ok(match of_it.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(format!("{path} has no conflict; `drivefs conflicts` lists those there are")),
        several => Err(format!(
            "{path} has {} conflicts; name the one to resolve:{}",
            several.len(),
            lines(several)
        )),
    })
}

fn stems_from(one: &ConflictFile, file: &ConflictFile) -> bool {
    one.origin.as_ref().is_some_and(|o| o.node.nid == file.node.nid)
}

fn lines(files: &[&ConflictFile]) -> String {
    files.iter().map(|c| format!("\n  {}", c.path)).collect()
}

fn named(path: &str, e: &TreeError) -> Refusal {
    match e {
        TreeError::NotFound => format!("{path}: there is no such file in the drive"),
        TreeError::ReadOnly => format!(
            "{path}: this folder is shared with you for reading only; its owner, or an editor, \
             resolves it"
        ),
        TreeError::Moved => format!("{path} changed meanwhile; look at it, then again"),
        TreeError::Spool(SpoolError::Cache(CacheError::Remote(e))) => format!(
            "{path}: what this needs of it is not on this device ({e}); nothing was changed. Again \
             when the server is back; `--keep both` works at once"
        ),
        e => format!("{path}: {e}"),
    }
}
