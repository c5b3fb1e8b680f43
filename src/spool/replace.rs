//! Giving a file another content as a whole, in one step: that of another file by reference, or
//! bytes. A crash leaves the old content or the new one.

use std::sync::Arc;

use super::Content;
use super::Spool;
use super::SpoolError;
use super::refer::New;
use super::refer::ROUNDS_MAX;
use super::refer::Spliced;
use super::refer::Still;

impl Spool {
    /// A content as it is now, turned into blocks if need be. None while somebody goes on writing
    /// to it. Blocking; may need the server where a block list or a block next to a change is not
    /// here.
    pub fn hold_still(
        self: &Arc<Self>,
        content: &Arc<Content>,
    ) -> Result<Option<Still>, SpoolError> {
        for _ in 0..ROUNDS_MAX {
            if let Some(still) = self.still(content)? {
                return Ok(Some(still));
            }
        }
        Ok(None)
    }

    /// All bytes of what `hold_still` gave, fetched if they are not here. Blocking.
    pub fn still_bytes(
        self: &Arc<Self>,
        content: &Arc<Content>,
        still: &Still,
    ) -> Result<Vec<u8>, SpoolError> {
        self.bytes_of(content, still, 0..still.map.end())
    }

    /// Makes the content `from` that of `dst`, if that still is `onto`; else false. Both are of one
    /// namespace. Blocking.
    pub fn replace_by_reference(
        self: &Arc<Self>,
        dst: &Content,
        onto: &Still,
        from: &Still,
    ) -> Result<bool, SpoolError> {
        let spliced = Spliced { entries: from.map.entries.clone(), copied: from.map.end() };
        self.replace(dst, onto, &spliced, New::default())
    }

    /// Makes bytes the content of `dst`, if that still is `onto`; else false. Blocking.
    pub fn replace_by_bytes(
        self: &Arc<Self>,
        dst: &Content,
        onto: &Still,
        bytes: &[u8],
    ) -> Result<bool, SpoolError> {
        let mut spliced = Spliced { entries: Vec::new(), copied: bytes.len() as u64 };
        let mut new = New::default();
        match self.cut_edge(bytes, &mut spliced.entries, &mut new) {
            Ok(()) => self.replace(dst, onto, &spliced, new),
            Err(e) => {
                self.drop_unused(&new.blocks)?;
                Err(e)
            }
        }
    }

    fn replace(
        &self,
        dst: &Content,
        onto: &Still,
        spliced: &Spliced,
        mut new: New,
    ) -> Result<bool, SpoolError> {
        let max = self.file_max();
        if spliced.copied > max {
            return Err(SpoolError::TooLarge(max));
        }
        let done = self.adopt(dst, onto, spliced, &mut new);
        self.drop_unused(&new.blocks)?;
        done
    }
}
