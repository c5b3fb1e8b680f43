//! The binary `drivefs-server`: reads the command line, runs the command, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use drivefs_server::cli;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drivefs-server: {e:#}");
            ExitCode::from(cli::exit_code(&e))
        }
    }
}
