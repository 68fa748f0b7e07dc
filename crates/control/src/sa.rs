//! What control knows about an SA before it exists on a worker.

use std::fmt;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_engine::WorkerId;
use culvert_engine::options::Lookup;
use culvert_engine::options::Receiving;
use culvert_engine::options::Sending;
use culvert_esp::Encapsulation;
use culvert_esp::HeaderOptions;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_esp::WindowState;
use culvert_spd::Group;
use culvert_spd::Selector;

/// Direction of an SA or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// ESP to plaintext.
    Inbound,
    /// Plaintext to ESP.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        })
    }
}

/// An SA to be installed. `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct SaSpec {
    /// Direction.
    pub direction: Direction,
    /// What of a packet it protects.
    pub mode: Mode,
    /// SPI.
    pub spi: Spi,
    /// Outer source address; in transport mode that of the packets.
    pub source: IpAddr,
    /// Outer destination address; in transport mode that of the packets.
    pub destination: IpAddr,
    /// Algorithm, and with it the protocol: ESP or AH.
    pub algorithm: Algorithm,
    /// Encryption key, integrity key, salt, as far as the algorithm has them.
    pub keymat: Keymat,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Last number used (outbound) or highest number seen (inbound).
    pub sequence: u64,
    /// Of a key that IKE negotiated: an [epoch](crate::Epochs) that no controller before this one
    /// had, of this or any process: what is remembered of SAs goes with the controller. It is part
    /// of an outbound SA's IVs, and numbers end at 2^40 - 1. Such a key may come again when its SA
    /// is gone: the SA goes on where it ended. Without an epoch, the key is one in a file, whose
    /// numbers are leased from disk.
    pub epoch: Option<u64>,
    /// Of an inbound SA: what its window has seen already. Without it, everything up to `sequence`.
    pub window: Option<WindowState>,
    /// Size of the replay window in packets, 64 to 65536, or 0 for no anti-replay; inbound only.
    pub replay_window: u32,
    /// UDP encapsulation of outbound packets. Inbound packets are accepted raw and encapsulated
    /// (RFC 7296 section 2.23).
    pub encapsulation: Option<Encapsulation>,
    /// The group policies name.
    pub group: Group,
    /// Of an outbound SA: a second group, of which it is the one and only member: for policies that
    /// name this very SA. When several SAs have the same one, it is the latest that is ready.
    pub alias: Option<Group>,
    /// Lifetime, soft and hard.
    pub lifetime: Lifetime,
    /// Of an outbound SA: the worker whose own SA this is (RFC 9611). Without one it serves all.
    pub resource: Option<WorkerId>,
    /// Of an inbound SA: which outer addresses take part in finding it (RFC 4303 section 2.1).
    pub lookup: Lookup,
    /// Of an inbound SA: selectors of its own; empty leaves it to the policies.
    pub selectors: Vec<Selector>,
    /// Of an inbound SA: how it treats what comes out.
    pub receiving: Receiving,
    /// Of an outbound SA: how it treats what goes in.
    pub sending: Sending,
    /// Of an outbound SA in tunnel mode: the outer header.
    pub header: HeaderOptions,
}

impl SaSpec {
    /// A tunnel-mode SA with the usual options: 32-bit numbers from 1, a window of 1024, no
    /// lifetime.
    #[must_use]
    pub fn new(
        direction: Direction,
        spi: Spi,
        (source, destination): (IpAddr, IpAddr),
        (algorithm, keymat): (Algorithm, Keymat),
        group: Group,
    ) -> SaSpec {
        SaSpec {
            direction,
            mode: Mode::Tunnel,
            spi,
            source,
            destination,
            algorithm,
            keymat,
            esn: false,
            sequence: 0,
            epoch: None,
            window: None,
            replay_window: 1024,
            encapsulation: None,
            group,
            alias: None,
            lifetime: Lifetime::default(),
            resource: None,
            lookup: Lookup::default(),
            selectors: Vec::new(),
            receiving: Receiving::default(),
            sending: Sending::default(),
            header: HeaderOptions::default(),
        }
    }

    /// The groups that the SA is a member of.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let alias = self.alias.filter(|_| self.direction == Direction::Outbound);
        [Some(self.group), alias].into_iter().flatten()
    }
}
