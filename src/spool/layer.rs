//! One layer of written bytes over older content.
//!
//! A layer is a sparse data file of the content's full length, or, while the content is small, a
//! slot of a shared one. A layer *over* something also has a
//! log of what it covers (`.map`), because holes cannot tell "not written" from zeros. A write goes
//! to the data file first and to the log second, so after the death of this process every byte
//! that was acknowledged is found again.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use super::ranges::RangeSet;
use crate::cache::DataFiles;
use crate::cache::Slice;
use crate::host;
use crate::state::FileId;

const RECORD_BYTES: usize = 24;
const KIND_COVER: u32 = 0x5244_4c43;
const KIND_TRUNCATE: u32 = 0x5244_4c54;
/// Zeros written at once where holes cannot be punched.
const ZEROS_BYTES: usize = 1024 * 1024;

/// A layer that is open.
pub struct Layer {
    pub id: FileId,
    pub data: Arc<Slice>,
    pub size: u64,
    /// What lies below shows where this layer has no bytes; none when nothing does.
    pub over: Option<Below>,
}

/// How a layer covers what lies below it.
pub struct Below {
    /// Bytes written in this layer.
    pub covered: RangeSet,
    /// What lies below is visible up to here only: a truncation hid the rest.
    pub visible: u64,
    map: Arc<File>,
}

impl Layer {
    /// Starts a layer of `size` bytes: over content of `below` bytes, or over nothing.
    pub fn create(files: &DataFiles, id: FileId, below: Option<u64>) -> io::Result<Self> {
        let data = files.open_slice(id)?;
        let over = match below {
            None => None,
            Some(visible) => {
                assert!(data.capacity().is_none(), "a layer in a slot holds the whole content");
                data.set_len(0, visible)?;
                let map = Arc::new(files.open_map(id)?);
                Some(Below { covered: RangeSet::default(), visible, map })
            }
        };
        Ok(Self { id, data, size: below.unwrap_or(0), over })
    }

    /// Opens a layer that an earlier process wrote. `below`: length of what lies under it, if it
    /// is over something.
    pub fn recover(files: &DataFiles, id: FileId, below: Option<u64>) -> io::Result<Self> {
        let Some(below) = below else {
            let data = files.open_slice(id)?;
            let size = data.stored_len()?;
            data.reach(size)?;
            return Ok(Self { id, data, size, over: None });
        };
        let data = files.open_slice(id)?;
        let mut map = files.open_map(id)?;
        let mut log = Vec::new();
        map.read_to_end(&mut log)?;
        let whole = log.len() / RECORD_BYTES * RECORD_BYTES;
        // A record that was cut off was never acknowledged; the next must not follow its rest.
        map.set_len(whole as u64)?;
        let mut layer = Self {
            id,
            data,
            size: below,
            over: Some(Below { covered: RangeSet::default(), visible: below, map: Arc::new(map) }),
        };
        for record in log[..whole].chunks_exact(RECORD_BYTES) {
            layer.replay(record)?;
        }
        // Growth past the log's last word is covered bytes whose record was not acknowledged.
        layer.data.set_len(layer.size, layer.size)?;
        Ok(layer)
    }

    fn replay(&mut self, record: &[u8]) -> io::Result<()> {
        let word = |at: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&record[at..at + 8]);
            u64::from_le_bytes(b)
        };
        let kind = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
        let (a, b) = (word(8), word(16));
        let over = self.over.as_mut().expect("only layers over something have a log");
        match kind {
            KIND_COVER if a <= b => {
                over.covered.insert(a..b);
                self.size = self.size.max(b);
            }
            KIND_TRUNCATE => {
                over.covered.truncate(a);
                over.visible = over.visible.min(a);
                self.size = a;
            }
            _ => return Err(io::Error::other(format!("damaged spool log of layer {}", self.id))),
        }
        Ok(())
    }

    /// True when content of this length fits in where the layer lies.
    pub fn holds(&self, len: u64) -> bool {
        self.data.capacity().is_none_or(|most| len <= most)
    }

    /// Writes bytes; on return the death of this process cannot lose them.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.data.write_at(bytes, offset, self.size, self.size.max(end))?;
        self.cover(offset..end)?;
        self.size = self.size.max(end);
        Ok(())
    }

    /// Makes a range inside the layer read as zeros, without storing them where the disk can.
    pub fn zero(&mut self, range: Range<u64>) -> io::Result<()> {
        if self.data.punch(range.clone())? {
            return self.cover(range);
        }
        let zeros = vec![0; ZEROS_BYTES.min((range.end - range.start) as usize)];
        let mut at = range.start;
        while at < range.end {
            let len = zeros.len().min((range.end - at) as usize);
            self.write_at(at, &zeros[..len])?;
            at += len as u64;
        }
        Ok(())
    }

    /// Notes that bytes are in the data file.
    fn cover(&mut self, range: Range<u64>) -> io::Result<()> {
        if let Some(over) = &mut self.over
            && !over.covered.contains(range.clone())
        {
            log(&over.map, KIND_COVER, range.start, range.end)?;
            over.covered.insert(range);
        }
        Ok(())
    }

    /// Sets the length; growth reads as zeros.
    pub fn truncate(&mut self, size: u64) -> io::Result<()> {
        if let Some(over) = &mut self.over {
            log(&over.map, KIND_TRUNCATE, size, 0)?;
            over.covered.truncate(size);
            over.visible = over.visible.min(size);
        }
        self.data.set_len(self.size, size)?;
        self.size = size;
        Ok(())
    }

    /// The files that hold the layer, to be synced without holding a lock.
    pub fn files(&self) -> Vec<Arc<File>> {
        let map = self.over.as_ref().map(|over| over.map.clone());
        [Some(self.data.file.clone()), map].into_iter().flatten().collect()
    }
}

fn log(mut map: &File, kind: u32, a: u64, b: u64) -> io::Result<()> {
    host::before_write()?;
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&kind.to_le_bytes());
    record[8..16].copy_from_slice(&a.to_le_bytes());
    record[16..].copy_from_slice(&b.to_le_bytes());
    let n = map.write(&record)?;
    if n < RECORD_BYTES {
        // Half a record (full disk) would garble all that follow.
        let len = map.metadata()?.len();
        map.set_len(len - n as u64)?;
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zeroed_range_hides_what_lies_below_also_after_a_crash() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = DataFiles::open_dir(dir.path()).expect("opens");
        let mut layer = Layer::create(&files, 7, Some(100)).expect("creates");
        layer.write_at(10, b"abc").expect("writes");
        layer.zero(11..50).expect("zeroes");
        drop(layer);
        let layer = Layer::recover(&files, 7, Some(100)).expect("recovers");
        let mut back = [1; 40];
        layer.data.read_or_zeros(&mut back, 10).expect("reads");
        assert_eq!(back[0], b'a');
        assert_eq!(back[1..], [0; 39]);
        let over = layer.over.expect("it is over something");
        assert_eq!(over.covered.split(10..51), [(10..50, true), (50..51, false)]);
    }
}
