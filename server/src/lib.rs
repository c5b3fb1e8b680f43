//! The companion server of drivefs as a library, so that tests run it in process.
//!
//! Floors, each importing only what stands below it: `cli` and `app` (composition), `api` (the
//! door), `jobs` (background work), `drive` (use cases), `auth`, then `metadata`, `blocks`, `notify`, `clock`, and `host`.

pub mod api;
pub mod app;
pub mod auth;
pub mod blocks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drive;
pub mod host;
pub mod jobs;
pub mod metadata;
pub mod notify;
