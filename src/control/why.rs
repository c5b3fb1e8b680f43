//! `drivefs why`: all that is known of a file or folder, and what to do about it.

use std::sync::Arc;
use std::time::Instant;

use drivefs_core::node::NodeKind;

use super::content::blocking;
use super::content::find;
use super::protocol::Reply;
use super::protocol::Why;
use super::server::Daemon;
use super::server::is_under;
use super::server::queue;
use super::server::queue_entry;
use crate::journal::now;
use crate::spool::Holdings;
use crate::state::Node;
use crate::tree::QueueItem;
use crate::tree::TreeError;

/// Lines of the queue told.
const QUEUE_LINES: usize = 20;

pub(super) async fn why(daemon: &Arc<Daemon>, path: String) -> Reply {
    let items = match queue(daemon).await {
        Ok(items) => items,
        Err(e) => return Reply::Failed { message: e.to_string() },
    };
    let (this, name) = (daemon.clone(), path.clone());
    match blocking(move || gather(&this, name, &items)).await {
        Ok(why) => Reply::Why(Box::new(why)),
        Err(TreeError::NotFound) => {
            Reply::Failed { message: format!("{path}: there is no such file in the drive") }
        }
        Err(e) => Reply::Failed { message: format!("{path}: {e}") },
    }
}

fn gather(daemon: &Daemon, path: String, items: &[QueueItem]) -> Result<Why, TreeError> {
    let tree = daemon.fs.tree();
    let node = find(daemon, &path)?;
    let engine = daemon.engine.status();
    let mut sum = Holdings::default();
    let mut conflict = false;
    tree.each_file(node.nid, |nodes| {
        for file in &nodes {
            conflict |= file.xattrs.contains_key(crate::tree::CONFLICT_XATTR);
            if file.kind == NodeKind::File {
                sum.add(daemon.fs.spool().holdings(file)?);
            }
        }
        Ok(())
    })?;
    let mine: Vec<&QueueItem> = items.iter().filter(|i| is_under(i, Some(&path))).collect();
    let online = daemon.link.is_online();
    let locked_out = daemon.link.is_locked_out();
    let uploading = mine.iter().any(|i| i.node.is_some_and(|n| engine.uploading.contains(&n)));
    let state = match () {
        () if conflict => "conflict",
        () if mine.is_empty() => "synced",
        () if !online || locked_out => "offline",
        () if uploading => "uploading",
        () => "pending",
    };
    let time = now();
    let mut why = Why {
        kind: kind_of(&node).to_owned(),
        state: state.to_owned(),
        online,
        locked_out,
        reason: if online { engine.error.clone() } else { Some(daemon.link.reason()) },
        files: sum.files,
        bytes: sum.bytes,
        here_bytes: sum.here,
        blocks: sum.blocks,
        here_blocks: sum.blocks_here,
        pinned_by: tree.pinned_by(node.nid)?,
        version: (node.kind == NodeKind::File).then_some(node.version),
        node: node.id.to_string(),
        waiting: mine.len() as u64,
        waiting_bytes: mine.iter().map(|i| i.bytes).sum(),
        queue: mine
            .iter()
            .take(QUEUE_LINES)
            .map(|i| queue_entry(i, time, &engine.uploading))
            .collect(),
        error: mine.iter().find_map(|i| i.error.clone()),
        next_try_secs: mine
            .iter()
            .filter_map(|i| engine.refused.get(&i.node?))
            .map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64())
            .min_by(f64::total_cmp),
        last_read_error: daemon.fs.spool().cache().trouble(),
        path,
        advice: Vec::new(),
    };
    why.advice = advice(&why);
    Ok(why)
}

fn kind_of(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::File => "file",
        kind if kind.is_folder() => "folder",
        _ => "other",
    }
}

/// What to do, in plain words; the most pressing first.
fn advice(why: &Why) -> Vec<String> {
    let mut out = Vec::new();
    if why.locked_out {
        out.push(
            "this device is logged out: `drivefs login` with the same account brings it back, also \
             while the drive is mounted; what is waiting is safe here and goes up then",
        );
    } else if let Some(error) = &why.error {
        let full = error.contains("quota") || error.contains("space");
        out.push(if full {
            "there is no room on the server: free some of the quota there or ask for more; it goes \
             on by itself"
        } else {
            "the server refuses the change; when its reason is gone, `drivefs sync` tries at once"
        });
    } else if why.waiting > 0 && !why.online {
        out.push(
            "it is safe on this device and is sent when the server can be reached again; \
             `drivefs doctor` checks the connection",
        );
    } else if why.waiting > 0 {
        out.push("nothing to do: it is on its way; `drivefs sync` waits for it");
    }
    if why.state == "conflict" {
        out.push(
            "two devices changed it at once: `drivefs conflicts` lists both files, `drivefs resolve` \
             keeps the one, the other, both, or merges them",
        );
    }
    if why.here_bytes < why.bytes {
        out.push(if why.online && !why.locked_out {
            "reading it fetches what is missing; `drivefs pin` fetches it now and keeps it here"
        } else {
            "what is missing can be read when the server is back; `drivefs pin` keeps files here \
             for such times"
        });
    }
    if out.is_empty() {
        out.push("nothing to do: it is on the server, and here in full");
    }
    out.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_what_is_wrong() {
        let fine = Why { online: true, bytes: 5, here_bytes: 5, ..Why::default() };
        assert!(advice(&fine)[0].contains("nothing to do"));
        let absent = Why { here_bytes: 0, ..fine.clone() };
        assert!(advice(&absent)[0].contains("pin"));
        let away = Why { online: false, waiting: 1, ..fine.clone() };
        assert!(advice(&away)[0].contains("safe on this device"));
        let out = Why { waiting: 1, locked_out: true, ..fine.clone() };
        assert!(advice(&out)[0].contains("drivefs login"));
        let full = Why { waiting: 1, error: Some("over the quota".into()), ..fine };
        assert!(advice(&full)[0].contains("no room"));
    }
}
