//! The XDP program's decision, in user space: the same function, the same prefixes.

use std::net::IpAddr;

use culvert_engine::Side;
use culvert_steer::PrefixValue;
use culvert_steer::Prefixes;

/// The protected prefixes and the decision over them.
pub(super) struct Steering {
    prefixes: List,
}

struct List(Vec<(IpAddr, u8)>);

impl Steering {
    pub(super) fn new(prefixes: &[(IpAddr, u8)]) -> Steering {
        let mut list = prefixes.to_vec();
        // The longest match is the first match.
        list.sort_unstable_by_key(|&(_, bits)| std::cmp::Reverse(bits));
        Steering { prefixes: List(list) }
    }

    /// True when the program would redirect the frame to the engine.
    pub(super) fn takes(&self, side: Side, frame: &[u8]) -> bool {
        match side {
            Side::Unprotected => culvert_steer::unprotected(frame).redirect(),
            Side::Protected => culvert_steer::protected(frame, &self.prefixes).redirect(),
        }
    }
}

impl List {
    fn longest(&self, destination: IpAddr) -> Option<PrefixValue> {
        let holds = |&&(network, bits): &&(IpAddr, u8)| {
            ipnet::IpNet::new(network, bits).is_ok_and(|net| net.contains(&destination))
        };
        self.0.iter().find(holds).map(|&(_, bits)| PrefixValue::protected(bits))
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
