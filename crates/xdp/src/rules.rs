//! Rules of a NIC that bring the packets of an SA to the queue of its worker (`ethtool -N`).
//!
//! Without them a NIC spreads ESP by addresses, so all packets between two gateways arrive at one
//! queue, or by SPI where its hash knows ESP; and what arrives elsewhere is handed over. A rule
//! names destination and SPI. ESP in UDP has its SPI behind the ports, where no rule of this kind
//! looks. Many NICs, and all virtual ones, have no such rules: the kernel says so.
//!
//! The request is `struct ethtool_rxnfc` of the kernel, in 32-bit words:
//!
//! ```text
//!  0    1          2 3   4          5..18   18..23  23..36  36..41  42 43   44        46
//!  cmd  flow_type  data  flow_type  header  ext     mask    ext     queue   location  count
//! ```

use std::net::IpAddr;

const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;

const ESP_V4_FLOW: u32 = 0x0a;
const ESP_V6_FLOW: u32 = 0x0c;

/// The driver chooses where the rule goes (`RX_CLS_LOC_ANY`).
const ANYWHERE: u32 = u32::MAX;

const HEADER_AT: usize = 5;
const MASK_AT: usize = 23;
const QUEUE_AT: usize = 42;
const LOCATION_AT: usize = 44;

/// Words of a request.
pub(crate) const WORDS: usize = 48;

/// A rule for packets of ESP, with `spi`, to `destination`: they go to `queue`.
pub(crate) fn insertion(destination: IpAddr, spi: u32, queue: u32) -> [u32; WORDS] {
    let mut request = [0; WORDS];
    request[0] = ETHTOOL_SRXCLSRLINS;
    // Addresses and SPI are in network order.
    let (flow, at, words) = match destination {
        IpAddr::V4(address) => (ESP_V4_FLOW, 1, vec![u32::from(address).to_be()]),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let words = octets.chunks_exact(4);
            let word = |octets: &[u8]| octets.try_into().map_or(0, u32::from_ne_bytes);
            (ESP_V6_FLOW, 4, words.map(word).collect())
        }
    };
    request[4] = flow;
    for (place, word) in (at..).zip(words.into_iter().chain([spi.to_be()])) {
        request[HEADER_AT + place] = word;
        request[MASK_AT + place] = u32::MAX;
    }
    let [low, high] = halves(u64::from(queue));
    [request[QUEUE_AT], request[QUEUE_AT + 1]] = [low, high];
    request[LOCATION_AT] = ANYWHERE;
    request
}

/// Where the driver put a rule.
pub(crate) fn location(answer: &[u32; WORDS]) -> u32 {
    answer[LOCATION_AT]
}

/// No rule there any more.
pub(crate) fn removal(location: u32) -> [u32; WORDS] {
    let mut request = [0; WORDS];
    request[0] = ETHTOOL_SRXCLSRLDEL;
    request[LOCATION_AT] = location;
    request
}

/// The words of a 64-bit number, as they lie in memory.
fn halves(number: u64) -> [u32; 2] {
    let octets = number.to_ne_bytes();
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(request: &[u32; WORDS]) -> Vec<u8> {
        request.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// The offsets are those of the kernel's structures (linux/ethtool.h): `fs` at 16, in it the
    /// header at 4, the mask at 76, `ring_cookie` at 152, `location` at 160; 192 octets in all.
    #[test]
    fn requests_are_the_kernels() {
        let request = octets(&insertion("192.0.2.7".parse().unwrap(), 0x1234_5678, 3));
        assert_eq!(request.len(), 192);
        assert_eq!(request[..4], ETHTOOL_SRXCLSRLINS.to_ne_bytes());
        assert_eq!(request[16..20], ESP_V4_FLOW.to_ne_bytes());
        let header = [0, 0, 0, 0, 192, 0, 2, 7, 0x12, 0x34, 0x56, 0x78];
        assert_eq!(request[20..32], header);
        assert_eq!(request[92..104], [0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(request[168..176], 3_u64.to_ne_bytes());
        assert_eq!(request[176..180], [255; 4]);
        let used = [0..4, 16..20, 24..32, 96..104, 168..176, 176..180];
        let rest = (0..192).filter(|at| !used.iter().any(|used| used.contains(at)));
        assert!(rest.into_iter().all(|at| request[at] == 0));

        let request = octets(&insertion("2001:db8::7".parse().unwrap(), 0x1234_5678, 1));
        assert_eq!(request[16..20], ESP_V6_FLOW.to_ne_bytes());
        assert_eq!(request[36..40], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(request[48..56], [0, 0, 0, 7, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(request[108..128], [255; 20]);
        assert_eq!((request[104..108].to_vec(), request[128]), (vec![0; 4], 0));

        let removal = removal(17);
        assert_eq!((removal[0], location(&removal)), (ETHTOOL_SRXCLSRLDEL, 17));
    }
}
