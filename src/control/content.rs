//! What the socket answers about content on this disk: pin, unpin, cache, evict.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::protocol::CacheStatus;
use super::protocol::Evicted;
use super::protocol::Pinned;
use super::protocol::Reply;
use super::server::Daemon;
use super::server::say;
use crate::spool::Holdings;
use crate::spool::SpoolError;
use crate::state::DbError;
use crate::state::Node;
use crate::sync::size_below;
use crate::tree::TreeError;

/// Longest time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Runs what reads the database and files on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TreeError> + Send + 'static,
) -> Result<T, TreeError> {
    tokio::task::spawn_blocking(work).await.expect("answering does not panic")
}

/// The node at a path below the mount.
pub(super) fn find(daemon: &Daemon, path: &str) -> Result<Node, TreeError> {
    let names: Vec<&[u8]> = path.split('/').filter(|n| !n.is_empty()).map(str::as_bytes).collect();
    daemon.fs.tree().resolve_path(&names)
}

fn failed(path: &str, e: &dyn std::error::Error) -> Reply {
    let path = if path.is_empty() { "/" } else { path };
    Reply::Failed { message: format!("{path}: {e}") }
}

pub(super) async fn pin(
    daemon: &Arc<Daemon>,
    path: String,
    write: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<Reply> {
    // Right after the first mount the list of files may still be on its way.
    while daemon.fs.tree().is_filling() {
        if !daemon.link.is_online() {
            let why = daemon.link.reason();
            let message = format!("the list of files is not all here yet, and offline: {why}");
            return Ok(Reply::Failed { message });
        }
        let (files, files_total, bytes, bytes_total) = (0, 0, 0, 0);
        let online = true;
        say(write, &Reply::Fetching { files, files_total, bytes, bytes_total, online }).await?;
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
    let (this, name) = (daemon.clone(), path.clone());
    let sized = blocking(move || {
        let node = find(&this, &name)?;
        Ok((node.nid, size_below(this.fs.tree(), node.nid)?))
    });
    let (nid, total) = match sized.await {
        Ok(sized) => sized,
        Err(e) => return Ok(failed(&path, &e)),
    };
    let (sender, progress) = watch::channel(Holdings::default());
    let mut pinning = std::pin::pin!(daemon.pins.pin(nid, &sender));
    loop {
        let waited = tokio::time::timeout(PROGRESS_EVERY, pinning.as_mut()).await;
        match waited {
            Ok(Ok(done)) => {
                let pinned = Pinned { path, files: done.files, bytes: done.bytes };
                return Ok(Reply::Pinned(pinned));
            }
            Ok(Err(e)) => {
                let message = format!(
                    "{path}: {e}\nIt stays pinned, and what is missing is fetched when that works \
                     again; `drivefs why` tells how far it is"
                );
                return Ok(Reply::Failed { message });
            }
            Err(_) => {
                let now = *progress.borrow();
                let reply = Reply::Fetching {
                    files: now.files,
                    files_total: total.files,
                    bytes: now.here,
                    bytes_total: total.bytes,
                    online: daemon.link.is_online(),
                };
                say(write, &reply).await?;
            }
        }
    }
}

pub(super) async fn unpin(daemon: &Arc<Daemon>, path: &str) -> Reply {
    let tree = daemon.fs.tree();
    let node = match find(daemon, path) {
        Ok(node) => node,
        Err(e) => return failed(path, &e),
    };
    let gone = match daemon.pins.unpin(node.nid).await {
        Ok(gone) => gone,
        Err(e) => return failed(path, &e),
    };
    match tree.pinned_by(node.nid) {
        Ok(Some(above)) => Reply::Failed {
            message: format!(
                "{path} is kept here by the pin of {}; `drivefs unpin` that",
                if above.is_empty() { "the whole drive" } else { &above }
            ),
        },
        Ok(None) if gone == 0 => Reply::Failed { message: format!("{path} is not pinned") },
        Ok(None) => Reply::Unpinned { pins: gone as u64 },
        Err(e) => failed(path, &e),
    }
}

pub(super) async fn cache(daemon: &Arc<Daemon>) -> Reply {
    match cache_status(daemon).await {
        Ok(status) => Reply::Cache(status),
        Err(message) => Reply::Failed { message },
    }
}

pub(super) async fn cache_status(daemon: &Arc<Daemon>) -> Result<CacheStatus, String> {
    let this = daemon.clone();
    let facts = blocking(move || {
        let cache = this.fs.spool().cache();
        let (pinned, unsent) = this
            .fs
            .tree()
            .db()
            .read(|c| Ok::<_, DbError>((c.pinned_bytes()?, c.cached_bytes()?.1)))?;
        let disk = cache.disk().map_err(SpoolError::from)?;
        Ok((cache.usage(), cache.counts(), pinned, unsent, disk))
    });
    let ((bytes, limit_bytes), counts, pinned_bytes, waiting_bytes, disk) =
        facts.await.map_err(|e| e.to_string())?;
    Ok(CacheStatus {
        bytes,
        limit_bytes,
        pinned_bytes,
        waiting_bytes,
        free_bytes: disk.free,
        keep_free_bytes: disk.keep_free,
        memory_hits: counts.memory_hits,
        disk_hits: counts.disk_hits,
        fetched_blocks: counts.fetched_blocks,
        fetched_bytes: counts.fetched_bytes,
        ahead_blocks: counts.ahead_blocks,
        requests: counts.requests,
        ahead_requests: counts.ahead_requests,
        evicted_blocks: counts.evicted_blocks,
    })
}

pub(super) async fn evict(daemon: &Arc<Daemon>, path: String) -> Reply {
    let (this, name) = (daemon.clone(), path.clone());
    let dropped = blocking(move || {
        let node = find(&this, &name)?;
        if let Some(above) = this.fs.tree().pinned_by(node.nid)? {
            return Ok(Err(above));
        }
        drop_below(&this, &node).map(Ok)
    });
    match dropped.await {
        Ok(Ok(evicted)) => Reply::Evicted(Evicted { path, ..evicted }),
        Ok(Err(above)) => Reply::Failed {
            message: format!(
                "{path} is pinned{}; `drivefs unpin` it first",
                if above == path { String::new() } else { format!(" by {above}") }
            ),
        },
        Err(e) => failed(&path, &e),
    }
}

fn drop_below(daemon: &Daemon, node: &Node) -> Result<Evicted, TreeError> {
    let (tree, spool) = (daemon.fs.tree(), daemon.fs.spool());
    let mut out = Evicted::default();
    tree.each_file(node.nid, |nodes| {
        for file in nodes {
            out.files += 1;
            let Some(blocks) = spool.blocks_here(&file)? else { continue };
            let mut going = Vec::with_capacity(blocks.len());
            for (hash, len) in blocks {
                if tree.db().peek(|c| c.is_block_pinned(&hash))? {
                    out.pinned_bytes += u64::from(len);
                } else {
                    going.push(hash);
                }
            }
            let dropped = spool.cache().drop_blocks(&going).map_err(SpoolError::from)?;
            out.dropped_bytes += dropped.dropped;
            out.waiting_bytes += dropped.unsent;
            if file.live.is_some() || file.frozen.is_some() {
                out.waiting_bytes += file.size;
            }
        }
        Ok(())
    })?;
    Ok(out)
}
