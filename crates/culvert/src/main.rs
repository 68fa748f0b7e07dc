//! The `culvert` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use culvert::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("culvert: {error:#}");
            ExitCode::FAILURE
        }
    }
}
