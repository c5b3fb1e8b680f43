//! The server over real HTTP on loopback: most tests run it in process, `process` the binary.
#![allow(clippy::unwrap_used)]

mod blocks;
mod changes;
mod commit;
mod cursors;
mod events;
mod files;
mod gc_kills;
mod gone;
mod history;
mod login;
mod model;
mod openapi;
mod poll;
mod process;
mod quota;
mod sharing;
mod space;
mod tiers;
mod trash;
mod writer;

mod world;
