//! `culvert sa`: SAs listed, shown, added and deleted.

use std::net::IpAddr;

use anyhow::bail;
use clap::Args;
use clap::ValueEnum;
use culvert_aead::Algorithm;
use culvert_keying::algorithms;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Port;
use culvert_xfrm::address::Spi;
use culvert_xfrm::replay::ReplayEsn;
use culvert_xfrm::sa::Encap;
use culvert_xfrm::sa::EncapType;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlags;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;
use culvert_xfrm::selector::Selector;

use super::Reach;
use super::client::Client;
use super::client::ClientError;
use super::given;
use super::given::KeyArgs;
use super::given::LimitArgs;
use super::given::Mode;
use super::given::Protocol;
use super::given::ScopeArgs;
use super::sa_view::SaView;
use super::table::table;
use super::unix_now;

/// Largest window that XFRM has without its newer attribute.
const OLD_WINDOW_MAX: u32 = 32;

/// Which SAs.
#[derive(Clone, Debug, Args)]
struct WhichArgs {
    /// SPI, decimal or hexadecimal with `0x`.
    #[arg(value_parser = given::spi)]
    spi: Option<u32>,
    /// Source of the SA.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Destination of the SA.
    #[arg(long, value_name = "ADDRESS")]
    destination: Option<IpAddr>,
    /// Its protocol.
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
}

/// Arguments of `culvert sa show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Show keys as well.
    #[arg(long)]
    show_keys: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `culvert sa delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    reach: Reach,
}

/// Whether an SA receives or sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    In,
    Out,
}

/// Arguments of `culvert sa add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Whether this gateway receives or sends with it.
    #[arg(long, value_enum)]
    direction: Direction,
    /// Source of its packets.
    #[arg(long, value_name = "ADDRESS")]
    source: IpAddr,
    /// Destination of its packets.
    #[arg(long, value_name = "ADDRESS")]
    destination: IpAddr,
    /// SPI, decimal or hexadecimal with `0x`.
    #[arg(long, value_parser = given::spi)]
    spi: u32,
    /// Protocol.
    #[arg(long, value_enum, default_value_t = Protocol::Esp)]
    protocol: Protocol,
    /// Mode.
    #[arg(long, value_enum, default_value_t = Mode::Tunnel)]
    mode: Mode,
    /// Algorithm, by strongSwan's keyword.
    #[arg(long)]
    algorithm: String,
    #[command(flatten)]
    key: KeyArgs,
    /// Number that templates of policies name it by.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    reqid: u32,
    /// 64-bit sequence numbers.
    #[arg(long)]
    esn: bool,
    /// Replay window of an inbound SA; 0 for none.
    #[arg(
        long, value_name = "NUMBER", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(0..=4096)
    )]
    replay_window: u32,
    /// UDP around ESP: source and destination port.
    #[arg(long, value_name = "PORT:PORT", value_parser = given::encap)]
    encap: Option<(u16, u16)>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    reach: Reach,
}

impl WhichArgs {
    fn means(&self, info: &SaInfo) -> bool {
        let is = |given: Option<IpAddr>, address: Address| {
            given.is_none_or(|given| address.ip(info.family) == Some(given))
        };
        self.spi.is_none_or(|spi| info.id.spi.0 == spi)
            && is(self.source, info.saddr)
            && is(self.destination, info.id.daddr)
            && self.protocol.is_none_or(|protocol| info.id.proto == protocol.number())
    }

    /// The SAs that are meant; at least one.
    fn find(&self, client: &mut Client) -> anyhow::Result<Vec<(SaInfo, Attributes)>> {
        if self.spi.is_none() && self.source.is_none() && self.destination.is_none() {
            bail!("which SA: expected an SPI, --source or --destination");
        }
        let mut found = Vec::new();
        each(client, |info, list| {
            if self.means(&info) {
                found.push((info, list));
            }
        })?;
        if found.is_empty() {
            bail!("there is no such SA");
        }
        Ok(found)
    }
}

/// Hands over all SAs, one after the other.
pub(super) fn each(
    client: &mut Client,
    mut take: impl FnMut(SaInfo, Attributes),
) -> Result<(), ClientError> {
    let mut odd = false;
    client.list(Body::DumpSa(Attributes::default()), |body| match body {
        Body::NewSa(info, list) => take(info, list),
        _ => odd = true,
    })?;
    if odd { Err(ClientError::Odd("no listing of SAs")) } else { Ok(()) }
}

/// `culvert sa list`.
pub(super) fn list(reach: &Reach) -> anyhow::Result<()> {
    let mut sas = Vec::new();
    let now = unix_now();
    each(&mut reach.connect()?, |info, list| sas.push(SaView::new(&info, &list, now, false)))?;
    reach.print(&sas, || {
        let rows: Vec<Vec<String>> = sas.iter().map(|sa| sa.row(now)).collect();
        table(&SaView::HEADINGS, &rows)
    })
}

/// `culvert sa show`.
pub(super) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let found = args.which.find(&mut args.reach.connect()?)?;
    let now = unix_now();
    let view = |(info, list): &(SaInfo, Attributes)| SaView::new(info, list, now, args.show_keys);
    let sas: Vec<SaView> = found.iter().map(view).collect();
    args.reach.print(&sas, || {
        let texts: Vec<String> = sas.iter().map(|sa| sa.text(now)).collect();
        texts.join("\n")
    })
}

/// `culvert sa delete`.
pub(super) fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let mut client = args.reach.connect()?;
    let found = args.which.find(&mut client)?;
    let [(info, list)] = found.as_slice() else {
        bail!(
            "{} SAs are like that: expected one; --source, --destination and --protocol tell them \
             apart",
            found.len()
        );
    };
    let SaInfo { id, family, .. } = *info;
    let id = SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto };
    let mark = list.mark().copied().map(Attribute::Mark);
    client.ask(Body::DeleteSa(id, Attributes(mark.into_iter().collect())))?;
    let view = SaView::new(info, list, unix_now(), false);
    args.reach.print(&view, || {
        let SaView { spi, protocol, source, destination, .. } = &view;
        format!("deleted {spi} {protocol} {source} > {destination}\n")
    })
}

/// `culvert sa add`.
pub(super) fn add(args: &AddArgs) -> anyhow::Result<()> {
    let (info, list) = args.sa()?;
    let view = SaView::new(&info, &list, unix_now(), false);
    args.reach.connect()?.ask(Body::NewSa(info, list))?;
    args.reach.print(&view, || {
        let SaView { spi, protocol, source, destination, .. } = &view;
        format!("added {spi} {protocol} {source} > {destination}\n")
    })
}

impl AddArgs {
    fn sa(&self) -> anyhow::Result<(SaInfo, Attributes)> {
        let algorithm = Algorithm::parse(self.protocol.aead(), &self.algorithm)?;
        let family = Family::of(self.source);
        if family != Family::of(self.destination) {
            bail!("--source and --destination: expected addresses of one family");
        }
        let keymat = self.key.read()?;
        let (expected, given) = (algorithm.keymat_len(), keymat.len());
        if expected != given {
            bail!(
                "key: expected {expected} octets for {} ({}), got {given}",
                algorithm.keyword(),
                algorithm.keymat_parts()
            );
        }
        let Some(mut list) = algorithms::attributes(algorithm, &keymat) else {
            bail!("{}: XFRM has no name for it; expected another", algorithm.keyword());
        };
        let mut flags = 0;
        if self.esn {
            flags |= SaFlags::ESN;
        }
        let (direction, window) = match self.direction {
            Direction::In => (SaDirection::IN, self.replay_window),
            Direction::Out => (SaDirection::OUT, 0),
        };
        let mut info = SaInfo {
            sel: Selector { family, ..Selector::default() },
            id: XfrmId {
                daddr: self.destination.into(),
                spi: Spi(self.spi),
                proto: self.protocol.number(),
            },
            saddr: self.source.into(),
            limits: self.limits.limits(),
            reqid: self.reqid,
            family,
            mode: self.mode.xfrm(),
            flags,
            ..SaInfo::default()
        };
        if self.mode == Mode::Tunnel {
            // Policies decide what is inside.
            (info.sel, info.flags) = (Selector::default(), flags | SaFlags::AF_UNSPEC);
        }
        if self.esn || window > OLD_WINDOW_MAX {
            let bitmap = vec![0; usize::try_from(window.div_ceil(32))?];
            let replay = ReplayEsn { replay_window: window, bitmap, ..ReplayEsn::default() };
            list.push(Attribute::ReplayEsn(replay));
        } else {
            info.replay_window = u8::try_from(window)?;
        }
        if let Some((source, destination)) = self.encap {
            list.push(Attribute::Encap(Encap {
                kind: EncapType::ESP_IN_UDP,
                sport: Port(source),
                dport: Port(destination),
                original: Address::default(),
            }));
        }
        list.push(Attribute::Direction(direction));
        list.extend(self.scope.attributes());
        Ok((info, Attributes(list)))
    }
}
