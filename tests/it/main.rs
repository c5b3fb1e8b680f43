//! Tests of the client as a whole: the shape of the source, and stories of two devices without a
//! kernel, against the real server in the same process. Real mounts are in `tests/shell`.

mod random;
mod stories;
mod story;
mod tidy;
