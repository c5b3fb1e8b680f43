//! The pure floor of drivefs, shared by client and server.
//!
//! Nothing here does I/O, reads a clock or draws random numbers: those are passed in. That is
//! what lets every rule below be tested as a function.

pub mod chunk;
pub mod codec;
pub mod crypto;
pub mod delta;
pub mod frame;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod node;
pub mod pack;
pub mod wire;
