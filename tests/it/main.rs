//! Tests of the client as a whole: the shape of the source, and stories of two devices without a
//! kernel, against the real server in the same process, and the mount against a plain folder.
//! More real mounts are in `tests/shell`.

mod cache;
mod conflicts;
mod filling;
mod history;
mod model;
mod network;
mod past;
mod power;
mod random;
mod reset;
mod sim;
mod stories;
mod story;
mod tidy;
mod unanswered;
mod unnamed;
