//! Slots: places for small contents in shared data files.
//!
//! Making a file costs the disk's file system far more than appending to one, so contents of up to
//! `SLOT_BYTES` live side by side in *heap* files, each at its own multiple of `SLOT_STRIDE`;
//! what a slot does not use stays a hole. A slot begins with a header that tells the length of what
//! is in it, so that nothing but the heap itself is needed to find the bytes after a crash.
//!
//! Numbers: a plain data file, a heap, a slot and a file of fetched blocks are all named by a
//! `FileId`; the upper bits tell which it is.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Weak;

use rustix::fs::FallocateFlags;
use rustix::fs::SeekFrom;
use rustix::fs::fallocate;
use rustix::fs::seek;
use rustix::io::Errno;

use crate::host;
use crate::state::FileId;

/// Distance of slots in a heap (bytes).
pub const SLOT_STRIDE: u64 = 64 * 1024;
/// Most bytes of content in a slot.
pub const SLOT_BYTES: u64 = SLOT_STRIDE - HEADER_BYTES;
/// Slots in a heap.
pub const SLOTS: u64 = 1024;
/// Magic and length.
const HEADER_BYTES: u64 = 16;
const MAGIC: &[u8; 8] = b"dfsslot1";

const SLOT_BIT: FileId = 1 << 62;
const HEAP_BIT: FileId = 1 << 61;
const SHARED_BIT: FileId = 1 << 60;

/// The slot `index` of the heap that has the given number.
pub fn slot_id(number: FileId, index: u64) -> FileId {
    SLOT_BIT | (number * SLOTS + index)
}

/// The heap that has the given number.
pub fn heap_id(number: FileId) -> FileId {
    HEAP_BIT | number
}

/// The file of fetched blocks (`keep`) that has the given number.
pub fn shared_id(number: FileId) -> FileId {
    SHARED_BIT | number
}

/// True for a file of fetched blocks: it was never a layer.
pub fn is_shared(id: FileId) -> bool {
    id & SHARED_BIT != 0
}

pub fn is_slot(id: FileId) -> bool {
    id & SLOT_BIT != 0
}

pub fn is_heap(id: FileId) -> bool {
    id & HEAP_BIT != 0
}

/// The number behind an id, in the order in which numbers were given out.
pub fn number_of(id: FileId) -> FileId {
    if is_slot(id) { (id & !SLOT_BIT) / SLOTS } else { id & !(HEAP_BIT | SHARED_BIT) }
}

/// The file that a slot lies in, and where its content begins. Plain files begin at 0.
pub fn place_of(id: FileId) -> (FileId, u64) {
    if !is_slot(id) {
        return (id, 0);
    }
    let index = (id & !SLOT_BIT) % SLOTS;
    (heap_id(number_of(id)), index * SLOT_STRIDE + HEADER_BYTES)
}

/// What owns the byte at `offset` of a data file: its slot, or the file itself.
pub fn owner_of(file: FileId, offset: u64) -> FileId {
    if is_heap(file) { slot_id(number_of(file), offset / SLOT_STRIDE) } else { file }
}

/// The ids of all slots of a heap, first and last.
pub fn slots_of(heap: FileId) -> (FileId, FileId) {
    let number = number_of(heap);
    (slot_id(number, 0), slot_id(number, SLOTS - 1))
}

/// An open layer or block: a data file, or a slot of one.
#[derive(Debug)]
pub struct Slice {
    pub file: Arc<File>,
    /// Where content byte 0 lies in the file.
    pub start: u64,
    slot: bool,
}

impl Slice {
    pub fn new(id: FileId, file: Arc<File>) -> Self {
        Self { file, start: place_of(id).1, slot: is_slot(id) }
    }

    /// Most bytes that fit; none where only the disk limits them.
    pub fn capacity(&self) -> Option<u64> {
        self.slot.then_some(SLOT_BYTES)
    }

    /// Bytes of content: what the header says, or the length of the file.
    pub fn stored_len(&self) -> io::Result<u64> {
        if !self.slot {
            return Ok(self.file.metadata()?.len());
        }
        let mut header = [0; HEADER_BYTES as usize];
        let got = self.file.read_at(&mut header, self.start - HEADER_BYTES)?;
        if got < header.len() || header[..8] != *MAGIC {
            return Ok(0);
        }
        let len = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if len > SLOT_BYTES {
            return Err(io::Error::other("a slot's header is damaged"));
        }
        Ok(len)
    }

    /// Reads into `buf` from `offset`; what lies past the end of the file reads as zeros.
    pub fn read_or_zeros(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], self.start + offset + done as u64) {
                Ok(0) => {
                    buf[done..].fill(0);
                    return Ok(());
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes bytes that make the content `len` long, where it was `before` long.
    pub fn write_at(&self, bytes: &[u8], offset: u64, before: u64, len: u64) -> io::Result<()> {
        host::before_write()?;
        if self.slot && offset == 0 && len == bytes.len() as u64 && len != before {
            // The common case of a whole small file: header and bytes in one go.
            let mut all = Vec::with_capacity(bytes.len() + HEADER_BYTES as usize);
            all.extend_from_slice(&header(len));
            all.extend_from_slice(bytes);
            return self.file.write_all_at(&all, self.start - HEADER_BYTES);
        }
        if self.slot && offset > before {
            self.zeros(before, offset)?;
        }
        self.file.write_all_at(bytes, self.start + offset)?;
        // The header last: bytes that it does not count were not acknowledged.
        if self.slot && len != before { self.set_header(len) } else { Ok(()) }
    }

    /// Sets the length; growth reads as zeros.
    pub fn set_len(&self, before: u64, len: u64) -> io::Result<()> {
        host::before_write()?;
        if !self.slot {
            return self.file.set_len(len);
        }
        if len > before {
            // Written, not left out: the heap may end before here, and bytes may lie here that a
            // crash kept from being counted.
            self.zeros(before, len)?;
        }
        // Bytes behind the new length stay: growth writes zeros over them, and a step that could
        // fail behind the header would leave the header right and the caller wrong.
        self.set_header(len)
    }

    /// True when a slot was never written, or power loss kept it from the disk.
    pub fn is_blank(&self) -> io::Result<bool> {
        if !self.slot {
            return Ok(false);
        }
        let mut magic = [0; 8];
        let got = self.file.read_at(&mut magic, self.start - HEADER_BYTES)?;
        Ok(got < magic.len() || magic != *MAGIC)
    }

    /// After a crash: makes the heap as long as the header of its last slot says. A write that was
    /// cut off after the header would else leave a content that ends behind its file.
    pub fn reach(&self, len: u64) -> io::Result<()> {
        let end = self.start + len;
        if self.slot && len > 0 && self.file.metadata()?.len() < end {
            self.file.write_all_at(&[0], end - 1)?;
        }
        Ok(())
    }

    fn zeros(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.write_all_at(&vec![0; (to - from) as usize], self.start + from)
    }

    /// Makes a range inside the content a hole. False where there cannot be one: then it has to be
    /// overwritten.
    pub fn punch(&self, range: Range<u64>) -> io::Result<bool> {
        if self.slot {
            return Ok(false);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The first byte from `range.start` on that the disk holds as data, or as a hole; none when
    /// there is none in the range.
    pub fn seek(&self, range: Range<u64>, data: bool) -> io::Result<Option<u64>> {
        let from = self.start + range.start;
        let whence = if data { SeekFrom::Data(from) } else { SeekFrom::Hole(from) };
        // The position that this moves is used by nobody.
        match seek(&*self.file, whence) {
            Ok(at) => Ok(Some(at - self.start).filter(|at| *at < range.end)),
            // From there on the file has nothing: zeros.
            Err(Errno::NXIO) => Ok((!data).then_some(range.start)),
            Err(e) => Err(e.into()),
        }
    }

    fn set_header(&self, len: u64) -> io::Result<()> {
        host::before_write()?;
        self.file.write_all_at(&header(len), self.start - HEADER_BYTES)
    }
}

/// What is in a slot of a heap, by nothing but its header; none where nothing was written.
pub fn read_slot(heap: &File, index: u64) -> io::Result<Option<Vec<u8>>> {
    let start = index * SLOT_STRIDE + HEADER_BYTES;
    let mut header = [0; HEADER_BYTES as usize];
    match heap.read_exact_at(&mut header, start - HEADER_BYTES) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
    if header[..8] != *MAGIC || len == 0 || len > SLOT_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    let mut done = 0;
    while done < bytes.len() {
        match heap.read_at(&mut bytes[done..], start + done as u64) {
            Ok(0) => break, // Cut off by a crash: zeros, as when the daemon reads it.
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(bytes))
}

fn header(len: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&len.to_le_bytes());
    header
}

/// A set of slots of one heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet([u64; (SLOTS / 64) as usize]);

impl Default for SlotSet {
    fn default() -> Self {
        Self([0; (SLOTS / 64) as usize])
    }
}

impl SlotSet {
    pub fn insert(&mut self, index: u64) {
        self.0[(index / 64) as usize] |= 1 << (index % 64);
    }

    pub fn remove(&mut self, index: u64) {
        self.0[(index / 64) as usize] &= !(1 << (index % 64));
    }

    pub fn contains(&self, index: u64) -> bool {
        self.0[(index / 64) as usize] & (1 << (index % 64)) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Which slots are given out, in use and free again. One process's view: what an earlier one left
/// is found by `sweep`.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The heap that slots are taken from, and the next one in it.
    current: Option<(FileId, u64)>,
    /// Slots of each heap of this process that were given out and did not come back. A set, not a
    /// number: a slot may come back twice.
    out: HashMap<FileId, SlotSet>,
    /// Open slices, so that no slot is cleared under a reader.
    open: HashMap<FileId, Weak<Slice>>,
    /// Slots that nothing refers to any more and whose bytes wait to be given back.
    retired: Vec<FileId>,
}

impl Slots {
    /// Takes a slot of the current heap; none when a new heap has to be started.
    pub fn take(&mut self) -> Option<FileId> {
        let (number, next) = self.current?;
        if next == SLOTS {
            return None;
        }
        self.current = Some((number, next + 1));
        self.out.entry(number).or_default().insert(next);
        Some(slot_id(number, next))
    }

    pub fn start_heap(&mut self, number: FileId) {
        self.current = Some((number, 0));
    }

    pub fn opened(&mut self, id: FileId, slice: &Arc<Slice>) {
        self.open.insert(id, Arc::downgrade(slice));
    }

    pub fn slice(&self, id: FileId) -> Option<Arc<Slice>> {
        self.open.get(&id).and_then(Weak::upgrade)
    }

    pub fn retire(&mut self, id: FileId) {
        self.retired.push(id);
        if let Some(out) = self.out.get_mut(&number_of(id)) {
            out.remove((id & !SLOT_BIT) % SLOTS);
        }
    }

    /// Retired slots that nobody has open any more, and of their heaps those that may go as a
    /// whole as far as this process knows.
    pub fn take_retired(&mut self) -> (Vec<FileId>, Vec<FileId>) {
        self.open.retain(|_, slice| slice.strong_count() > 0);
        let open = &self.open;
        let (held, free): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.retired).into_iter().partition(|id| open.contains_key(id));
        self.retired = held;
        let mut heaps: Vec<FileId> = free.iter().map(|&id| number_of(id)).collect();
        heaps.sort_unstable();
        heaps.dedup();
        let held: Vec<FileId> = self.open.keys().chain(&self.retired).copied().collect();
        heaps.retain(|number| {
            self.current.is_none_or(|c| c.0 != *number)
                && self.out.get(number).is_none_or(SlotSet::is_empty)
                && !held.iter().any(|id| number_of(*id) == *number)
        });
        for number in &heaps {
            self.out.remove(number);
        }
        (free, heaps.into_iter().map(heap_id).collect())
    }
}
