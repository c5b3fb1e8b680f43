//! Operations on ranges of files: allocate, punch, zero, find holes, copy.

use std::ops::Range;
use std::sync::Arc;

use super::DriveFs;
use super::ReadHere;
use crate::spool::Content;
use crate::spool::SpoolError;
use crate::state::Nid;
use crate::tree::TreeError;

/// Bytes copied by one call where they have to be copied; callers go on with the rest.
const COPY_MAX: u64 = 16 * 1024 * 1024;
/// Bytes read and written at once meanwhile.
const COPY_STEP: u64 = 1024 * 1024;

/// What fallocate(2) does with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// The file reaches to the end of the range.
    Grow,
    /// Nothing: space is found when bytes come.
    Reserve,
    /// What lies in the file reads as zeros.
    Punch,
    /// The same, and the file reaches to the end of the range.
    Zero,
}

impl Allocate {
    /// From the flags of fallocate(2); none for those that are not supported.
    pub fn from_flags(flags: i32) -> Option<Self> {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        match flags {
            0 => Some(Self::Grow),
            KEEP => Some(Self::Reserve),
            PUNCH | ZERO_KEEP => Some(Self::Punch),
            ZERO => Some(Self::Zero),
            _ => None,
        }
    }
}

/// A place in an open file.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub nid: Nid,
    pub handle: u64,
    pub offset: u64,
}

impl DriveFs {
    /// fallocate(2). `kill` as in `write`.
    pub fn fallocate(
        &self,
        nid: Nid,
        handle: u64,
        offset: u64,
        length: u64,
        how: Allocate,
        kill: bool,
    ) -> Result<(), TreeError> {
        if how == Allocate::Reserve {
            return Ok(());
        }
        let content = self.content(nid, handle)?;
        let end = offset.saturating_add(length);
        let allocate = || {
            if how != Allocate::Punch {
                self.spool.grow(&content, end)?;
            }
            if how != Allocate::Grow {
                self.spool.zero(&content, offset..end)?;
            }
            Ok(())
        };
        self.with_room(0, || self.rescued(nid, allocate))?;
        self.kill_suid(&content, kill)
    }

    /// The first offset from `offset` on with data, or in a hole; none when there is none.
    /// `write_back` makes the kernel hand over what was written to mappings of the file: without
    /// that a hole may have bytes in it by now.
    pub fn seek(
        &self,
        nid: Nid,
        handle: u64,
        offset: u64,
        data: bool,
        write_back: impl FnOnce(),
    ) -> Result<Option<u64>, TreeError> {
        let content = self.content(nid, handle)?;
        let found = self.spool.seek(&content, offset, data)?;
        let dense = if data { Some(offset) } else { Some(content.size()) };
        if found == dense || offset >= content.size() {
            return Ok(found);
        }
        write_back();
        Ok(self.spool.seek(&content, offset, data)?)
    }

    /// copy_file_range(2): by reference where that fits, else the bytes. Returns how much was
    /// copied, which may be less than asked for. `kill` as in `write`. Blocking.
    pub fn copy_range(&self, from: Spot, to: Spot, len: u64, kill: bool) -> Result<u64, TreeError> {
        let src = self.content(from.nid, from.handle)?;
        let dst = self.content(to.nid, to.handle)?;
        let end = from.offset.saturating_add(len).min(src.size());
        if from.offset >= end {
            return Ok(0);
        }
        let range = from.offset..end;
        let max = self.spool.file_max();
        if to.offset.saturating_add(end - from.offset) > max {
            return Err(SpoolError::TooLarge(max).into());
        }
        let spool = &self.spool;
        let refer = || spool.refer(&src, range.clone(), &dst, to.offset);
        let referred = self.with_room(0, || self.rescued(to.nid, refer))?;
        let copied = match referred {
            Some(copied) => copied,
            None => self.copy_bytes(&src, range, from.handle, to)?,
        };
        self.kill_suid(&dst, kill)?;
        Ok(copied)
    }

    fn copy_bytes(
        &self,
        src: &Arc<Content>,
        range: Range<u64>,
        handle: u64,
        to: Spot,
    ) -> Result<u64, TreeError> {
        let end = range.end.min(range.start.saturating_add(COPY_MAX));
        let mut at = range.start;
        while at < end {
            let len = COPY_STEP.min(end - at) as usize;
            let bytes = match self.read_here(src.nid, handle, at, len)? {
                ReadHere::Bytes(bytes) => bytes,
                ReadHere::Elsewhere(content) => self.spool.read_blocking(&content, at, len)?,
            };
            if bytes.is_empty() {
                break; // It was truncated meanwhile.
            }
            self.write(to.nid, to.handle, to.offset + (at - range.start), &bytes, false)?;
            at += bytes.len() as u64;
        }
        Ok(at - range.start)
    }
}
