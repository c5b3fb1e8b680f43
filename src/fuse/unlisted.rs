//! Names that only the server knows: asked for by a task, so that the session thread goes on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::Errno;
use fuser::INodeNo;
use fuser::ReplyEntry;

use super::adapter::Adapter;
use super::reply::entry;
use crate::fs::DriveFs;
use crate::tree::TreeError;

impl Adapter {
    /// A name that is not here: with `--strict` the server is asked, and the kernel keeps no word of
    /// what is not there.
    pub(super) fn look_up_newest(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(strict) = self.strict.clone() else { return reply.error(Errno::ENOENT) };
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.runtime.spawn(async move {
            if let Err(e) = strict.newest().await {
                return reply.error(e);
            }
            let listed = fs.list_folders(&fs.unlisted(&[parent.0])).await;
            entry(reply, listed.and_then(|()| fs.lookup(parent.0, name.as_bytes())));
        });
    }

    /// Runs `then` when these folders show all that they have: at once, but for folders that the
    /// first fill of the replica has not brought yet. Those are asked for by a task.
    pub(super) fn when_listed(
        &self,
        folders: &[u64],
        then: impl FnOnce(&DriveFs, Result<(), TreeError>) + Send + 'static,
    ) {
        let unlisted = self.fs.unlisted(folders);
        if unlisted.is_empty() {
            return then(&self.fs, Ok(()));
        }
        let fs = self.fs.clone();
        self.runtime.spawn(async move {
            let listed = fs.list_folders(&unlisted).await;
            then(&fs, listed);
        });
    }
}
