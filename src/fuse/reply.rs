//! Answers: results of the file system as replies to the kernel.

use std::time::Duration;

use fuser::Errno;
use fuser::FileHandle;
use fuser::FopenFlags;
use fuser::Generation;
use fuser::ReplyAttr;
use fuser::ReplyCreate;
use fuser::ReplyEmpty;
use fuser::ReplyEntry;
use fuser::ReplyOpen;
use fuser::ReplyXattr;

use super::convert::file_attr;
use super::errno::errno;
use crate::fs::Attr;
use crate::fs::is_past_folder;
use crate::tree::TreeError;

/// How long the kernel may keep names and attributes: changes invalidate them.
pub const TTL: Duration = Duration::from_secs(24 * 3600);
/// The same for folders of the past: what there is of them changes without a word.
const PAST_TTL: Duration = Duration::ZERO;
/// Numbers are used once, so no generation is needed.
pub const GENERATION: Generation = Generation(0);

/// How long the kernel may keep what it is told of something. An old version never changes.
pub fn ttl(attr: &Attr) -> Duration {
    if is_past_folder(attr) { PAST_TTL } else { TTL }
}

pub fn done(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

pub fn empty(reply: ReplyEmpty, result: Result<(), TreeError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

pub fn opened(reply: ReplyOpen, result: Result<u64, TreeError>) {
    match result {
        Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
        // The name leads to a newer inode by now: let the kernel look it up again.
        Err(TreeError::NotFound) => reply.error(Errno::from_i32(libc::ESTALE)),
        Err(e) => reply.error(errno(&e)),
    }
}

/// A new file and its first handle.
pub fn created(reply: ReplyCreate, result: Result<(Attr, u64), TreeError>) {
    match result {
        Ok((attr, handle)) => reply.created(
            &TTL,
            &file_attr(&attr),
            GENERATION,
            FileHandle(handle),
            FopenFlags::FOPEN_KEEP_CACHE,
        ),
        Err(e) => reply.error(errno(&e)),
    }
}

pub fn entry(reply: ReplyEntry, result: Result<Attr, TreeError>) {
    let ttl = result.as_ref().map_or(TTL, ttl);
    entry_for(reply, result, &ttl);
}

/// The same, for the kernel to keep so long.
pub fn entry_for(reply: ReplyEntry, result: Result<Attr, TreeError>, ttl: &Duration) {
    match result {
        Ok(attr) => reply.entry(ttl, &file_attr(&attr), GENERATION),
        Err(e) => reply.error(errno(&e)),
    }
}

pub fn attr(reply: ReplyAttr, result: Result<Attr, TreeError>) {
    match result {
        Ok(attr) => reply.attr(&ttl(&attr), &file_attr(&attr)),
        Err(e) => reply.error(errno(&e)),
    }
}

pub fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
