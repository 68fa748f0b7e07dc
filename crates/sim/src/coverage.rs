//! What happened in a run, and how often: a fault or a feature that never happens proves nothing.

use std::fmt;

macro_rules! happenings {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// Something that runs are for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Happening {
            $($(#[$doc])* $name,)*
        }

        impl Happening {
            /// All of them.
            pub const ALL: [Happening; [$($text),*].len()] = [$(Happening::$name),*];

            /// A few words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Happening::$name => $text,)*
                }
            }
        }
    };
}

happenings! {
    /// A worker stood still for some steps.
    Stall: "workers stood still",
    /// Control stood still for some steps.
    ControlStall: "controllers stood still",
    /// Time went ahead by up to seconds.
    ClockJump: "clocks jumped",
    /// The kernel forgot neighbours.
    Forgotten: "times neighbours were forgotten",
    /// The same policies were published again.
    Republished: "times policies were published again",
    /// The MTU of a gateway's link to the wire changed.
    MtuChange: "MTUs of links changed",
    /// The MTU of the path behind that changed.
    PathChange: "MTUs of paths changed",
    /// A worker turned with nearly full transmit rings.
    FullTx: "turns with full transmit rings",
    /// A frame came to a queue that has nothing to do with its flow.
    Reshuffled: "frames in another queue than their flow's",
    /// A run had rings that hold a few things only.
    SmallRings: "runs with small rings",
    /// A gateway stopped without warning, and began again with what its store knew.
    Restart: "gateways restarted",
    /// A run began with an SA whose IVs have an epoch.
    Epoch: "SAs with epochs at the start",
    /// Such an SA began again after a restart.
    NewEpoch: "SAs that came again with another epoch",
    /// A gateway heard from the path that a packet was too big, and could believe it.
    TooBigTold: "plausible errors about the path's MTU",
    /// An SA believed that.
    PathMtuLearned: "path MTUs learned",
    /// The attacker sent such an error.
    ForgedError: "forged errors about the path's MTU",
    /// A router fragmented a packet between gateways.
    RouterFragmented: "packets fragmented by routers",
    /// A gateway fragmented a packet, and sealed the fragments.
    SplitInside: "packets fragmented before they were sealed",
    /// A gateway sealed a packet, and fragmented that.
    SplitOutside: "packets fragmented after they were sealed",
    /// A gateway put fragments together again.
    Reassembled: "packets put together from fragments",
    /// A host sent fragments.
    HostFragments: "packets fragmented by hosts",
    /// A fragment of plaintext came out at a host.
    FragmentDelivered: "fragments delivered",
    /// An SA came to its end in octets.
    EndInBytes: "SAs at their end in octets",
    /// An SA came to its end in time.
    EndInTime: "SAs at their end in time",
    /// A dummy packet was made.
    Dummy: "dummies made",
    /// A NAT keepalive was made.
    Keepalive: "keepalives made",
    /// A packet came out of an SA whose sender pads for traffic flow confidentiality.
    Padded: "packets delivered out of padding",
    /// A packet came out of UDP in transport mode, from behind a NAT.
    TransportNat: "packets delivered out of transport mode behind a NAT",
    /// A packet came out of an SA that is found without looking at addresses.
    FoundBySpi: "packets delivered out of SAs found by SPI alone",
    /// A packet was sealed or opened for its worker by another one.
    Helped: "packets done by helpers",
    /// A packet came out of an SA that is found by its source, too.
    FoundBySource: "packets delivered out of SAs found by source, too",
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage([u64; Happening::ALL.len()]);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage([0; Happening::ALL.len()])
    }
}

impl Coverage {
    /// It happened.
    pub(crate) fn note(&mut self, what: Happening) {
        self.0[what as usize] += 1;
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, what: Happening) -> u64 {
        self.0[what as usize]
    }

    /// What happened in two runs together.
    #[must_use]
    pub fn plus(&self, other: &Coverage) -> Coverage {
        Coverage(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }
}

impl fmt::Display for Coverage {
    /// One line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in Happening::ALL {
            writeln!(f, "{} {}", self.count(what), what.text())?;
        }
        Ok(())
    }
}
