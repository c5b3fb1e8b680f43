//! The server over real HTTP on loopback: most tests run it in process, `process` the binary.
#![allow(clippy::unwrap_used)]

mod authz;
mod backup;
mod blocks;
mod changes;
mod commit;
mod events;
mod fsck;
mod gone;
mod history;
mod kills;
mod login;
mod metrics;
mod model;
mod operators;
mod poll;
mod process;
mod quota;
mod scrub;
mod sharing;
mod tls;
mod trash;
mod writer;

mod world;
