//! JSON bodies of the sync protocol: read, written, read again: the same.
#![no_main]

use drivefs_core::wire::ChangesReply;
use drivefs_core::wire::ChangesRequest;
use drivefs_core::wire::CommitRequest;
use drivefs_core::wire::EventsReply;
use drivefs_core::wire::PastRequest;
use drivefs_core::wire::TrashRequest;
use drivefs_core::wire::VersionsRequest;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn round<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&value).expect("serialises");
        let again: T = serde_json::from_slice(&text).expect("reads what it wrote");
        assert_eq!(serde_json::to_vec(&again).expect("serialises"), text);
    }
}

fuzz_target!(|data: &[u8]| {
    round::<CommitRequest>(data);
    round::<ChangesRequest>(data);
    round::<ChangesReply>(data);
    round::<EventsReply>(data);
    round::<PastRequest>(data);
    round::<TrashRequest>(data);
    round::<VersionsRequest>(data);
});
