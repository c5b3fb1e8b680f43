//! The wall clock and fresh ids: the server's only sources of both.

use drivefs_core::node::TimeNs;

use crate::host;

/// Nanoseconds since the Unix epoch.
pub fn now_ns() -> TimeNs {
    host::now()
}

/// Seconds since the Unix epoch.
pub fn now_secs() -> i64 {
    now_ns() / 1_000_000_000
}

/// Milliseconds since the Unix epoch, for UUIDs.
pub fn now_millis() -> u64 {
    now_ns().unsigned_abs() / 1_000_000
}
