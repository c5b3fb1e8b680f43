//! Telling the kernel what changed behind its back.
//!
//! On a thread of its own: the kernel may hold a lock that a request under way needs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Sender;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::channel;
use std::thread;

use fuser::INodeNo;
use fuser::Notifier;

use crate::tree::Felt;
use crate::tree::Invalidation;

/// Starts the thread; it ends when the sender is dropped.
/// `watchers` are told after that, if there is room: nothing waits for them.
pub fn start(notifier: Notifier, watchers: SyncSender<Felt>) -> io::Result<Sender<Invalidation>> {
    let (sender, receiver) = channel();
    thread::Builder::new().name("invalidate".into()).spawn(move || {
        for one in receiver {
            if let Invalidation::Felt(felt) = one {
                forward(&watchers, felt);
            } else if let Err(error) = tell(&notifier, &one) {
                // After the unmount there is nobody to tell.
                tracing::debug!(%error, ?one, "the kernel did not take an invalidation");
            }
        }
    })?;
    Ok(sender)
}

fn forward(watchers: &SyncSender<Felt>, felt: Vec<Felt>) {
    let all = felt.len();
    let sent = felt.into_iter().map_while(|one| watchers.try_send(one).ok()).count();
    if sent < all {
        tracing::debug!(dropped = all - sent, "too many changes to tell who watches");
    }
}

fn tell(notifier: &Notifier, one: &Invalidation) -> io::Result<()> {
    match one {
        Invalidation::Entry { parent, name } => {
            notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
        }
        // The kernel raises an event for who watches the file itself; else it is the same.
        Invalidation::Gone { parent, name, nid } => {
            match notifier.delete(INodeNo(*parent), INodeNo(*nid), OsStr::from_bytes(name)) {
                Ok(()) => Ok(()),
                Err(_) => notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name)),
            }
        }
        // A negative offset means: attributes only.
        Invalidation::Attrs { nid } => notifier.inval_inode(INodeNo(*nid), -1, 0),
        // Of a folder, the pages are its kept listing.
        Invalidation::Listing { nid } | Invalidation::Content { nid } => {
            notifier.inval_inode(INodeNo(*nid), 0, 0)
        }
        Invalidation::Felt(_) => Ok(()),
        Invalidation::Told(done) => {
            // Who asked may have given up.
            let _ = done.send(());
            Ok(())
        }
    }
}
