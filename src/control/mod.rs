//! The control socket: how the commands talk to the daemon of their home.
//!
//! One JSON line asks, JSON lines answer; the last one is the result. The socket lies in the home
//! (mode 0700), so whoever can reach it may ask.

mod client;
mod conflicts;
mod content;
mod locate;
mod protocol;
mod server;
mod why;

pub use client::Control;
pub use client::ControlError;
pub use conflicts::resolve;
pub use protocol::Alarm;
pub use protocol::CacheStatus;
pub use protocol::Conflict;
pub use protocol::Conflicts;
pub use protocol::Evicted;
pub use protocol::Keep;
pub use protocol::Located;
pub use protocol::Pinned;
pub use protocol::QueueEntry;
pub use protocol::Reply;
pub use protocol::Request;
pub use protocol::Resolved;
pub use protocol::Space;
pub use protocol::Status;
pub use protocol::Why;
pub use server::ALARM_TIME;
pub use server::Daemon;
pub use server::serve;
