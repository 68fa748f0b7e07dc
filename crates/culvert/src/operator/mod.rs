//! `culvert sa`, `culvert policy` and `culvert status`: what an operator sees of a gateway that
//! runs, and what a laboratory changes in it.
//!
//! They are clients of its control socket, as IKE daemons are, and speak XFRM. What they print is
//! in the field's terms; `--json` has the same names for good.

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use clap::Args;
use clap::Subcommand;
use serde::Serialize;

use crate::config::CONTROL_SOCKET;
use client::Client;
use client::ClientError;

mod client;
mod given;
mod policy;
mod policy_view;
mod sa;
mod sa_view;
mod status;
mod table;
mod view;

/// How to reach the gateway, and how to say what it answers.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// Control socket of the gateway.
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    socket: PathBuf,
    /// Longest wait for an answer, in seconds; a whole listing may take ten times as long.
    #[arg(
        long, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `culvert sa`.
#[derive(Debug, Subcommand)]
pub enum SaCommand {
    /// List the SAs.
    #[command(visible_alias = "ls", after_help = "Example:\n  sudo culvert sa list")]
    List(Reach),
    /// Show all there is to know of an SA.
    #[command(after_help = "Examples:\n  sudo culvert sa show 0xc0000001\n  \
                            sudo culvert sa show --source 192.0.2.1 --destination 192.0.2.2")]
    Show(sa::ShowArgs),
    /// Add an SA with a static key, for laboratories.
    #[command(after_help = "Example:\n  sudo culvert sa add --direction out --source 192.0.2.1 \
                            --destination 192.0.2.2 --spi 0x1001 --algorithm aes128gcm16 \
                            --reqid 1 --key-file key.hex")]
    Add(Box<sa::AddArgs>),
    /// Delete an SA.
    #[command(after_help = "Example:\n  sudo culvert sa delete 0x1001")]
    Delete(sa::DeleteArgs),
}

/// `culvert policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies, the youngest first.
    #[command(visible_alias = "ls", after_help = "Example:\n  sudo culvert policy list")]
    List(Reach),
    /// Add a policy, for laboratories.
    #[command(after_help = "Example:\n  sudo culvert policy add --direction out --source \
                            10.1.0.0/16 --destination 10.2.0.0/16 --template \
                            \"src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel reqid 1\"")]
    Add(Box<policy::AddArgs>),
    /// Delete a policy.
    #[command(after_help = "Examples:\n  sudo culvert policy delete --direction out --source \
                            10.1.0.0/16 --destination 10.2.0.0/16\n  \
                            sudo culvert policy delete --direction out --index 9")]
    Delete(Box<policy::DeleteArgs>),
}

/// `culvert status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    reach: Reach,
}

/// Runs `culvert sa`.
///
/// # Errors
/// With a message for the operator.
pub fn sa(command: &SaCommand) -> anyhow::Result<()> {
    match command {
        SaCommand::List(reach) => sa::list(reach),
        SaCommand::Show(args) => sa::show(args),
        SaCommand::Add(args) => sa::add(args),
        SaCommand::Delete(args) => sa::delete(args),
    }
}

/// Runs `culvert policy`.
///
/// # Errors
/// With a message for the operator.
pub fn policy(command: &PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::List(reach) => policy::list(reach),
        PolicyCommand::Add(args) => policy::add(args),
        PolicyCommand::Delete(args) => policy::delete(args),
    }
}

/// Runs `culvert status`.
///
/// # Errors
/// With a message for the operator; also when no gateway answers.
pub fn status(args: &StatusArgs) -> anyhow::Result<()> {
    status::status(&args.reach)
}

impl Reach {
    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket, Duration::from_secs(self.timeout))
    }

    /// Prints `text`, or `json` where that is wanted.
    fn print(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let said = if self.json { serde_json::to_string_pretty(json)? + "\n" } else { text() };
        match io::stdout().lock().write_all(said.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
