//! The server over real HTTP on loopback: most tests run it in process, `process` the binary.
#![allow(clippy::unwrap_used)]

mod authz;
mod authz_files;
mod backup;
mod blocks;
mod changes;
mod commit;
mod cursors;
mod events;
mod files;
mod fsck;
mod gc_kills;
mod gone;
mod history;
mod kills;
mod login;
mod metrics;
mod model;
mod openapi;
mod operators;
mod poll;
mod process;
mod quota;
mod roles;
mod scrub;
mod sharing;
mod space;
mod tiers;
mod tls;
mod trash;
mod writer;

mod world;
