//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use culvert_aead::Algorithm;
use culvert_aead::Provider;
use culvert_xdp::gateway::MAX_BUSY_POLL;

use crate::bench;
use crate::config::CONTROL_SOCKET;
use crate::demo;
use crate::exec;
use crate::operator;
use crate::release;
use crate::replay;
use crate::run;
use crate::sim;
use crate::version;

const EXAMPLES: &str = "\
Examples:
  culvert run --config gw.toml
  culvert demo
  culvert replay --config gw.toml --protected-in plain.pcap --unprotected-out esp.pcap
  culvert exec -- ip -s xfrm state
  culvert bench engine --direction outbound --size 1420 --json
  culvert --version --verbose

The configuration file is described in docs/configuration.md.";

/// IPsec data plane over AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "culvert", after_help = EXAMPLES, arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Say which version this is.
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: which AEAD providers there are, and which of them would be chosen.
    #[arg(long, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway until SIGINT or SIGTERM.
    #[command(after_help = "Example:\n  culvert run --config gw.toml --report totals.json")]
    Run(RunArgs),
    /// Open the interfaces that a gateway which no longer runs has left closed.
    #[command(after_help = "Example:\n  sudo culvert release --config gw.toml")]
    Release(ReleaseArgs),
    /// Look at the SAs of a running gateway; add and delete some in a laboratory.
    #[command(subcommand)]
    Sa(operator::SaCommand),
    /// Look at the policies of a running gateway; add and delete some in a laboratory.
    #[command(subcommand)]
    Policy(operator::PolicyCommand),
    /// Say whether a gateway runs, and how many SAs and policies it has.
    #[command(after_help = "Example:\n  sudo culvert status --json")]
    Status(operator::StatusArgs),
    /// Carry real traffic through two gateways in network namespaces, and show what happened.
    #[command(after_help = "Example:\n  sudo culvert demo --workers 2")]
    Demo(DemoArgs),
    /// Run the same engine over capture files; needs no privileges.
    #[command(
        after_help = "Example:\n  culvert replay --config gw.toml --unprotected-in esp.pcap \
                            --protected-out plain.pcap --report totals.json"
    )]
    Replay(ReplayArgs),
    /// Run seeded simulations of gateways with faults and attackers; needs no privileges.
    #[command(after_help = "Examples:\n  culvert sim --seeds 1000\n  \
                            culvert sim --first-seed 17 --seeds 1")]
    Sim(SimArgs),
    /// Run an IKE daemon, or `ip xfrm`, so that its XFRM sockets lead to culvert.
    #[command(after_help = "Examples:\n  culvert exec -- /usr/sbin/charon-systemd\n  \
                            culvert exec -- ip -s xfrm state\n\n\
                            See docs/launcher.md.")]
    Exec(ExecArgs),
    /// Measure cycles and rates.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Arguments of `culvert sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 300)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub first_seed: u64,
    /// Threads; one for each core when absent.
    #[arg(long)]
    pub jobs: Option<usize>,
}

/// Arguments of `culvert exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Socket of the engine.
    #[arg(
        long,
        value_name = "PATH",
        env = "CULVERT_XFRM_SOCKET",
        default_value = CONTROL_SOCKET
    )]
    pub socket: PathBuf,
    /// Fail when nobody listens at the socket.
    #[arg(long)]
    pub require_engine: bool,
    /// Wait so many seconds for the engine before the command starts.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u16,
    /// Say what happens to the command's sockets, on standard error.
    #[arg(long)]
    pub verbose: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `culvert run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Write totals to this file (JSON) when the gateway stops.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// AEAD provider, as `culvert --version --verbose` lists them, or `auto` for the fastest.
    #[arg(long, value_name = "NAME", env = "CULVERT_PROVIDER", default_value = Provider::AUTO)]
    pub provider: String,
}

/// Arguments of `culvert release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Configuration file of the gateway, which says where it pins.
    #[arg(long, value_name = "FILE", conflicts_with = "directory")]
    pub config: Option<PathBuf>,
    /// Directory of the pins.
    #[arg(long, value_name = "DIRECTORY", default_value = culvert_xdp::PIN_DIRECTORY)]
    pub directory: PathBuf,
}

/// Arguments of `culvert demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Workers of each gateway, and queues of its interfaces.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub workers: u32,
    /// Datagrams a second of the UDP stream, for two seconds.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub udp_rate: u32,
    /// Megabytes of the TCP transfer.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tcp_megabytes: u32,
    /// The gateways run stock strongSwan, which negotiates the SAs; scripts/demo installs it.
    #[arg(long)]
    pub ike: bool,
}

/// Arguments of `culvert replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Configuration file; sequence numbers start where it says, each time.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Capture that arrives on the protected side.
    #[arg(long, value_name = "PCAP")]
    pub protected_in: Option<PathBuf>,
    /// Capture that arrives on the unprotected side.
    #[arg(long, value_name = "PCAP")]
    pub unprotected_in: Option<PathBuf>,
    /// Write what leaves on the protected side.
    #[arg(long, value_name = "PCAP")]
    pub protected_out: Option<PathBuf>,
    /// Write what leaves on the unprotected side.
    #[arg(long, value_name = "PCAP")]
    pub unprotected_out: Option<PathBuf>,
    /// Write totals (JSON).
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write one JSON object for each input packet, in order.
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,
    /// Write one JSON object for each record of a refused packet.
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Write one JSON object for each event that IKE would be told.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// AEAD provider, as `culvert --version --verbose` lists them, or `auto` for the fastest.
    #[arg(long, value_name = "NAME", env = "CULVERT_PROVIDER", default_value = Provider::AUTO)]
    pub provider: String,
    /// Most octets of an IP packet on either link.
    #[arg(long, default_value_t = 1600, value_parser = clap::value_parser!(u16).range(576..=9945))]
    pub mtu: u16,
    /// Link type of the captures written.
    #[arg(long, value_enum, default_value_t = LinkType::Ethernet)]
    pub link: LinkType,
}

/// Link type of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkType {
    /// Packets start at their IP header.
    Raw,
    /// Packets start at their Ethernet header.
    Ethernet,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// The worker's whole turn over memory, on pinned cores.
    #[command(after_help = "Examples:\n  culvert bench engine --size 64,1420 --sas 1,10000\n  \
                            culvert bench engine --direction outbound --workers 1,2\n  \
                            culvert bench engine --algorithm aes256gcm16 --rounds 9 --json")]
    Engine(EngineArgs),
    /// Sealing and opening batches of packets, and nothing else.
    #[command(after_help = "Example:\n  culvert bench aead --size 64,256,1420 --sas 64")]
    Aead(AeadArgs),
    /// SAs that come, are rekeyed and go while packets flow, by calls and by XFRM messages.
    #[command(after_help = "Example:\n  culvert bench control --sas 100000")]
    Control(ControlArgs),
    /// Encrypted forwarding against plain forwarding, over AF_XDP and veth; needs root.
    #[command(after_help = "Example:\n  sudo culvert bench veth --size 1420 --runs 5")]
    Veth(VethArgs),
    /// How long an idle gateway takes for a packet, over AF_XDP and veth; needs root.
    #[command(after_help = "Example:\n  sudo culvert bench latency --runs 5")]
    Latency(LatencyArgs),
    /// Send the packets of `bench veth` out of an interface until a signal comes; needs root.
    Generate(GenerateArgs),
}

/// Arguments of `culvert bench generate`.
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// Interface they leave.
    pub interface: String,
    /// Octets of the IP packet.
    #[arg(long, default_value_t = 1420, value_parser = clap::value_parser!(u16).range(46..=1500))]
    pub size: u16,
    /// Core to run on.
    #[arg(long, default_value_t = 1)]
    pub core: usize,
}

/// Arguments of `culvert bench veth`.
#[derive(Clone, Debug, Args)]
pub struct VethArgs {
    /// Octets of the inner IP packet.
    #[arg(long, default_value_t = 1420, value_parser = clap::value_parser!(u16).range(46..=1420))]
    pub size: u16,
    /// Algorithm, by strongSwan's keyword.
    #[arg(long, default_value = "aes128gcm16")]
    pub algorithm: Algorithm,
    /// AEAD provider, as `culvert --version --verbose` lists them; the fastest when absent.
    #[arg(long)]
    pub provider: Option<String>,
    /// Windows of each forwarder, taken in turn.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Seconds of each window.
    #[arg(long, default_value_t = 0.3)]
    pub seconds: f64,
    /// Core of the forwarder.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Core of the packet generator.
    #[arg(long, default_value_t = 1)]
    pub generator_core: usize,
    /// Busy polling, so many packets in a round; none when absent.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_BUSY_POLL)))]
    pub busy_poll: Option<u16>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `culvert bench latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// Octets of the inner IP packet.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(46..=1420))]
    pub size: u16,
    /// Packets of each turn.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub packets: u32,
    /// Turns of each forwarder.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Milliseconds between packets, at least.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub interval: u64,
    /// Core of culvert's worker.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Core of the sender, which looks for the packet's arrival as well.
    #[arg(long, default_value_t = 1)]
    pub sender_core: usize,
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `culvert bench control`.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    /// SAs of each direction that come and go.
    #[arg(long, default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=400_000))]
    pub sas: u32,
    /// Policies that come by messages.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub policies: u32,
    /// AEAD provider, as `culvert --version --verbose` lists them; the fastest when absent.
    #[arg(long)]
    pub provider: Option<String>,
    /// Core of the control thread.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Core of the worker.
    #[arg(long, default_value_t = 1)]
    pub worker_core: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `culvert bench engine`. Each combination of the lists is a cell of the table.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Directions of the packets.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "outbound,inbound")]
    pub direction: Vec<BenchDirection>,
    /// Algorithm, by strongSwan's keyword; one of AH with `ah-` in front.
    #[arg(long, default_value = "aes128gcm16", value_parser = bench::engine::algorithm)]
    pub algorithm: Algorithm,
    /// AEAD providers; the fastest that runs here when absent.
    #[arg(long, value_delimiter = ',')]
    pub provider: Vec<String>,
    /// Octets of the inner IP packet.
    #[arg(long, value_delimiter = ',', default_value = "1420")]
    #[arg(value_parser = clap::value_parser!(u16).range(28..=9000))]
    pub size: Vec<u16>,
    /// SAs of each worker.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sas: Vec<u32>,
    /// Workers, each on a core of its own, with SAs of its own.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Vec<u16>,
    /// With several workers, give all packets to one SA of the first one, and let the others help.
    #[arg(long)]
    pub spread: bool,
    /// Policies of each worker, each for one destination; one for each SA when absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub policies: Option<u32>,
    /// Flows that packets of a worker go round, each of a policy of its own; all policies when
    /// absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flows: Option<u32>,
    /// Seconds of timed turns in each round.
    #[arg(long, default_value_t = 0.2)]
    pub seconds: f64,
    /// Rounds, each of which visits all cells; a figure is the median of its rounds' medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Extended sequence numbers.
    #[arg(long)]
    pub esn: bool,
    /// Packets in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub batch: u16,
    /// Core of the first worker; others follow.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Print one JSON object for each cell, a line each.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `culvert bench aead`.
#[derive(Clone, Debug, Args)]
pub struct AeadArgs {
    /// Algorithm, by strongSwan's keyword.
    #[arg(long, default_value = "aes128gcm16")]
    pub algorithm: Algorithm,
    /// AEAD provider; the fastest that runs here when absent.
    #[arg(long)]
    pub provider: Option<String>,
    /// Octets of text.
    #[arg(long, value_delimiter = ',', default_value = "64,128,256,512,1024,1420")]
    #[arg(value_parser = clap::value_parser!(u16).range(4..=9000))]
    pub size: Vec<u16>,
    /// SAs that packets of a batch take in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sas: u16,
    /// Seconds of timed batches of each size in each round.
    #[arg(long, default_value_t = 0.02)]
    pub seconds: f64,
    /// Rounds; a figure is the median of its rounds' medians.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Packets in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub batch: u16,
    /// Core to run on.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Print one JSON object for each cell, a line each.
    #[arg(long)]
    pub json: bool,
}

/// Direction of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchDirection {
    /// Plaintext to ESP.
    Outbound,
    /// ESP to plaintext.
    Inbound,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// With a message for the operator.
    pub fn execute(self) -> anyhow::Result<()> {
        let Some(command) = self.command else {
            return version::print(self.verbose);
        };
        match command {
            Command::Run(args) => run::run(&args),
            Command::Release(args) => release::release(&args),
            Command::Sa(command) => operator::sa(&command),
            Command::Policy(command) => operator::policy(&command),
            Command::Status(args) => operator::status(&args),
            Command::Demo(args) => demo::demo(&args),
            Command::Replay(args) => replay::replay(&args),
            Command::Sim(args) => sim::run(&args),
            Command::Exec(args) => exec::run(args),
            Command::Bench(BenchCommand::Engine(args)) => bench::engine::run(&args),
            Command::Bench(BenchCommand::Aead(args)) => bench::aead::run(&args),
            Command::Bench(BenchCommand::Control(args)) => bench::control::run(&args),
            Command::Bench(BenchCommand::Veth(args)) => bench::veth::run(&args),
            Command::Bench(BenchCommand::Latency(args)) => bench::latency::run(&args),
            Command::Bench(BenchCommand::Generate(args)) => bench::generate::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The version stands alone, `--verbose` never without it, and no command means help.
    #[test]
    fn version_stands_alone() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        assert!(parse("culvert --version").is_ok_and(|cli| cli.version && !cli.verbose));
        assert!(parse("culvert --verbose -V").is_ok_and(|cli| cli.version && cli.verbose));
        for wrong in ["culvert", "culvert --verbose", "culvert --version sim"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("culvert sim --seeds 1").is_ok_and(|cli| cli.command.is_some()));
    }

    /// The command line is consistent with itself.
    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }
}
