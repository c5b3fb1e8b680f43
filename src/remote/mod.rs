//! The server as the client sees it: one method a request of the sync protocol.
//!
//! Keeps the one word on whether the server can be reached (`Link`) and counts bytes. Never
//! retries: who calls knows what a retry means.

mod error;
mod frames;
mod http;
mod link;
mod way;

pub use error::RemoteError;
pub use frames::Frames;
pub use frames::unpack;
pub use http::Remote;
pub use link::Link;
pub use way::Answer;
pub use way::Request;
pub use way::Transport;
