//! The XDP program's decision, in user space: the same function, the same prefixes.

use std::net::IpAddr;

use culvert_control::SaSpec;
use culvert_engine::Side;
use culvert_spd::Spd;
use culvert_steer::PrefixValue;
use culvert_steer::Prefixes;
use culvert_steer::Recent;
use culvert_steer::prefixes::EVERYTHING;

use crate::assembly;
use crate::assembly::Prefix;
use crate::config::Take;

/// Datagrams whose fragments are followed at a time.
const DATAGRAMS: usize = 256;

/// The prefixes of both sides, and the decision over them.
pub(super) struct Steering {
    protected: List,
    unprotected: List,
    fragments: Recent<DATAGRAMS>,
}

/// Prefixes with their values; the longest match is the first match.
struct List(Vec<(ipnet::IpNet, PrefixValue)>);

impl Steering {
    /// Of a gateway with these SAs and policies, which is at the near ends of its tunnels.
    pub(super) fn new(sas: &[SaSpec], spd: &Spd, take: Take) -> Steering {
        let own = assembly::own_addresses(sas);
        let exception = |_| PrefixValue::exception(u8::MAX);
        Steering {
            protected: List::new(&assembly::protected_prefixes(spd), &own, take, exception),
            unprotected: List::new(
                &assembly::unprotected_prefixes(spd),
                &own,
                take,
                PrefixValue::own,
            ),
            fragments: Recent::new(),
        }
    }

    /// True when the program would redirect the frame to the engine.
    pub(super) fn takes(&mut self, side: Side, frame: &[u8]) -> bool {
        match side {
            Side::Unprotected => {
                culvert_steer::unprotected(frame, &self.unprotected, &mut self.fragments).redirect()
            }
            Side::Protected => culvert_steer::protected(frame, &self.protected).redirect(),
        }
    }
}

impl List {
    /// Prefixes, and the values of own addresses that they hold, made from the length of the
    /// longest that does. With everything, those that no prefix holds are exceptions.
    fn new(
        prefixes: &[Prefix],
        own: &[IpAddr],
        take: Take,
        value: impl Fn(u8) -> PrefixValue,
    ) -> List {
        let net = |&(network, bits): &Prefix| {
            ipnet::IpNet::new(network, bits).expect("a prefix of its family")
        };
        let mut nets: Vec<ipnet::IpNet> = prefixes.iter().map(net).collect();
        nets.sort_unstable_by_key(|net| std::cmp::Reverse(net.prefix_len()));
        let holding = |address: &IpAddr| nets.iter().find(|net| net.contains(address));
        let everything = EVERYTHING.iter().filter(|_| take == Take::All).map(net);
        let own = own.iter().filter_map(|address| {
            let value = match holding(address) {
                Some(net) => value(net.prefix_len()),
                None if take == Take::All => PrefixValue::exception(u8::MAX),
                None => return None,
            };
            Some(((*address).into(), value))
        });
        let own: Vec<(ipnet::IpNet, PrefixValue)> = own.collect();
        nets.extend(everything);
        nets.sort_by_key(|net| std::cmp::Reverse(net.prefix_len()));
        let protected = nets.iter().map(|&net| (net, PrefixValue::protected(net.prefix_len())));
        List(own.into_iter().chain(protected).collect())
    }

    fn longest(&self, destination: IpAddr) -> Option<PrefixValue> {
        self.0.iter().find(|(net, _)| net.contains(&destination)).map(|&(_, value)| value)
    }
}

impl Prefixes for List {
    fn match4(&self, destination: [u8; 4]) -> Option<PrefixValue> {
        self.longest(destination.into())
    }

    fn match6(&self, destination: [u8; 16]) -> Option<PrefixValue> {
        self.longest(destination.into())
    }
}
