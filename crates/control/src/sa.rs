//! What control knows about an SA before it exists on a worker.

use std::fmt;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_esp::Encapsulation;
use culvert_esp::Spi;
use culvert_spd::Group;

/// Direction of an SA or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// A tunnel-mode ESP SA to be installed. `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct SaSpec {
    /// Direction.
    pub direction: Direction,
    /// SPI.
    pub spi: Spi,
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Key and salt.
    pub keymat: Keymat,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Last number used (outbound) or highest number seen (inbound).
    pub sequence: u64,
    /// Size of the replay window in packets; inbound only.
    pub replay_window: u32,
    /// UDP encapsulation of outbound packets. Inbound packets are accepted raw and encapsulated
    /// (RFC 7296 section 2.23).
    pub encapsulation: Option<Encapsulation>,
    /// The group policies name.
    pub group: Group,
}
