//! `Content-Range` and `Range` of hostile bytes: nothing, or what makes sense.
#![no_main]

#[path = "../../server/src/api/files/range.rs"]
#[allow(dead_code)]
mod range;

use libfuzzer_sys::fuzz_target;
use range::ContentRange;
use range::Wanted;

fuzz_target!(|data: (&str, u64)| {
    let (text, len) = data;
    for text in [text.to_owned(), format!("bytes {text}"), format!("bytes={text}")] {
        if let Some(ContentRange { bytes: Some((first, last)), total }) =
            range::content_range(&text)
        {
            assert!(first <= last && last < u64::MAX);
            assert!(total.is_none_or(|total| last < total));
        }
        if let Wanted::Part(part) = range::wanted(&text, len) {
            assert!(part.start < part.end && part.end <= len);
        }
    }
});
