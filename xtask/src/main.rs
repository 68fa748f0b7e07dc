//! Developers' commands of the project: `cargo xtask --help` lists them.
//!
//! - [`ebpf`]: rebuilds the checked-in XDP object, or checks that it matches its source.
//! - [`ledger`]: checks the conformance ledger against the tests.
//! - [`linker`]: the BPF linker that the rebuild hands to rustc.
//! - [`tidy`]: rules about the text of the sources that the compiler does not check.

#![forbid(unsafe_code)]

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

mod ebpf;
mod ledger;
mod linker;
mod tidy;

/// Developers' commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rebuild ebpf/prebuilt/steer.bpf.o from ebpf/steer
    Ebpf {
        /// Rebuild into a temporary directory, compare with the checked-in object, change nothing
        #[arg(long)]
        check: bool,
    },
    /// Check docs/conformance.md: every statement once, and every test it names
    Ledger {
        /// Results of a run of all tests, in which every test that is named must have passed
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Statements that are still open are no failure
        #[arg(long)]
        allow_open: bool,
        /// Print which tests cite which statement, and check nothing
        #[arg(long, conflicts_with_all = ["junit", "allow_open", "fill"])]
        scan: bool,
        /// Write the tests that cite a statement into the rows that are open
        #[arg(long, conflicts_with_all = ["junit", "allow_open"])]
        fill: bool,
    },
    /// Check line and function lengths, unsafe code, and registry hosts
    Tidy,
}

fn main() -> ExitCode {
    // rustc calls its linker by path: under that name this program is the linker.
    let mut arguments = std::env::args_os();
    let name = arguments.next().map(PathBuf::from).unwrap_or_default();
    let result = if name.file_name().is_some_and(|name| name == linker::NAME) {
        linker::run(arguments)
    } else {
        match Arguments::parse().command {
            Command::Ebpf { check: false } => ebpf::rebuild(&root()),
            Command::Ebpf { check: true } => ebpf::check(&root()),
            Command::Ledger { scan: true, .. } => ledger::print_citations(&root()),
            Command::Ledger { fill: true, .. } => ledger::fill(&root()),
            Command::Ledger { junit, allow_open, .. } => {
                ledger::check(&root(), junit.as_deref(), allow_open)
            }
            Command::Tidy => tidy::run(&root()),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Root of the repository; cargo says at run time where this package's sources are.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
