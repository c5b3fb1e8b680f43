//! Content-defined chunking: FastCDC (Xia et al., USENIX ATC 2016; the 2020 variant of the
//! `fastcdc` crate) with the block sizes of `limits`.
//!
//! Where a cut falls depends only on the bytes since the previous cut.

use fastcdc::v2020::FastCDC;

use crate::limits::BLOCK_AVG_BYTES;
use crate::limits::BLOCK_MAX_BYTES;
use crate::limits::BLOCK_MIN_BYTES;

/// Length of the first block of `window`, which starts at a cut and holds at least
/// `BLOCK_MAX_BYTES` bytes or all that is left of the file. `window` must not be empty.
///
/// With a shorter window the answer is right unless it equals the window's length.
pub fn next_cut(window: &[u8]) -> usize {
    assert!(!window.is_empty(), "a block has at least one byte");
    let window = &window[..window.len().min(BLOCK_MAX_BYTES)];
    let cdc = FastCDC::new(window, BLOCK_MIN_BYTES, BLOCK_AVG_BYTES, BLOCK_MAX_BYTES);
    let (_, cut) = cdc.cut(0, window.len());
    assert!(cut > 0 && cut <= window.len(), "a cut lies inside its window");
    cut
}
