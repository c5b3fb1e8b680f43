//! The client of drivefs: a drive mounted over FUSE, its replica, and the engine that keeps it in
//! step with the server. `docs/ARCHITECTURE.md` has the floors and the walkthroughs.

pub mod cache;
mod cli;
pub mod control;
pub mod fs;
pub mod fuse;
pub mod history;
pub mod home;
pub mod host;
pub mod journal;
pub mod remote;
pub mod spool;
pub mod state;
pub mod sync;
pub mod tree;

pub use cli::main;
