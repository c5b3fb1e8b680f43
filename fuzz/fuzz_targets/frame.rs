//! A body of frames is the same whole and in pieces, or an error both ways.
#![no_main]

use drivefs_core::frame;
use drivefs_core::frame::Splitter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [cut, body @ ..] = data else { return };
    let whole = frame::parse(body);
    let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
    let read = body
        .chunks(usize::from(*cut).max(1))
        .try_for_each(|piece| splitter.push(piece, &mut pieces));
    match whole {
        Ok(frames) => {
            read.expect("in pieces, too");
            assert!(splitter.is_whole());
            assert_eq!(frames.len(), pieces.len());
            let mut again = frame::begin();
            frames.iter().for_each(|f| frame::push(&mut again, f));
            assert_eq!(again, body);
        }
        Err(_) => assert!(read.is_err() || !splitter.is_whole()),
    }
});
