//! The binary `drivefs-server`: reads the command line, runs the command, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use drivefs_server::cli;

/// Large buffers come and go on many threads: with this one the process gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drivefs-server: {e:#}");
            ExitCode::from(cli::exit_code(&e))
        }
    }
}
