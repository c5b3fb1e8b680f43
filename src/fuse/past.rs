//! Requests below `.versions`: what has to come from the server is answered by a task, so that the
//! session thread goes on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::Errno;
use fuser::FileHandle;
use fuser::FopenFlags;
use fuser::INodeNo;
use fuser::ReplyEntry;
use fuser::ReplyOpen;

use super::adapter::Adapter;
use super::errno::errno;
use super::reply::entry;
use super::reply::opened;

impl Adapter {
    /// A name below `.versions`.
    pub(super) fn look_up_past(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        self.runtime.spawn(async move {
            entry(reply, fs.past_lookup(parent.0, name.as_bytes()).await);
        });
    }

    /// An old version.
    pub(super) fn open_past(&self, ino: INodeNo, writes: bool, reply: ReplyOpen) {
        if writes {
            return reply.error(Errno::EROFS);
        }
        let fs = self.fs.clone();
        self.runtime.spawn(async move { opened(reply, fs.past_open(ino.0).await) });
    }

    /// A folder below `.versions`. The kernel keeps no listing of it: nobody would tell that it is old.
    pub(super) fn open_past_folder(&self, ino: INodeNo, reply: ReplyOpen) {
        let fs = self.fs.clone();
        self.runtime.spawn(async move {
            match fs.past_opendir(ino.0).await {
                Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }
}
