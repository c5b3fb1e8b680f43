//! In-process HTTP tests of the server.
