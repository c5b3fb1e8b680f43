//! The wall clock and fresh ids: the server's only sources of both.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use drivefs_core::node::TimeNs;

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> TimeNs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Seconds since the Unix epoch.
pub fn now_secs() -> i64 {
    now_ns() / 1_000_000_000
}

/// Milliseconds since the Unix epoch, for UUIDs.
pub fn now_millis() -> u64 {
    now_ns().unsigned_abs() / 1_000_000
}
