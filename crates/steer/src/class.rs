//! The classes of frames: what steering tells apart, and what each is called in reports.

/// What a frame is, as far as steering is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Class {
    /// ESP in IPv4.
    Esp4,
    /// ESP in IPv6.
    Esp6,
    /// AH in IPv4.
    Ah4,
    /// AH in IPv6.
    Ah6,
    /// ESP in UDP in IPv4.
    UdpEsp4,
    /// ESP in UDP in IPv6.
    UdpEsp6,
    /// UDP to port 4500 that is too short for ESP, and neither keepalive nor IKE.
    Runt,
    /// Outer fragment of ESP, of AH, or of UDP that carries ESP.
    IpsecFragment,
    /// ICMP error about ESP, AH or UDP from port 4500.
    IcmpError,
    /// IPv4 packet in clear, from the unprotected side, to a destination that inbound policy
    /// protects.
    Plain4,
    /// IPv6 packet in clear, from the unprotected side, to a destination that inbound policy
    /// protects.
    Plain6,
    /// NAT-T keepalive.
    Keepalive,
    /// UDP to port 4500 with the non-ESP marker.
    Ike,
    /// Outer fragment of anything else, IKE included.
    Fragment,
    /// IPv4 packet to a protected prefix.
    Protected4,
    /// IPv6 packet to a protected prefix.
    Protected6,
    /// IP packet, from the protected side, to an unprotected destination.
    NotProtected,
    /// Header that contradicts itself: IP version or header length, UDP length below 8.
    Malformed,
    /// Frame that ends before a field the decision needs.
    Short,
    /// Anything else.
    Other,
}

impl Class {
    /// Every class, in numeric order.
    pub const ALL: [Class; 20] = [
        Class::Esp4,
        Class::Esp6,
        Class::Ah4,
        Class::Ah6,
        Class::UdpEsp4,
        Class::UdpEsp6,
        Class::Runt,
        Class::IpsecFragment,
        Class::IcmpError,
        Class::Plain4,
        Class::Plain6,
        Class::Keepalive,
        Class::Ike,
        Class::Fragment,
        Class::Protected4,
        Class::Protected6,
        Class::NotProtected,
        Class::Malformed,
        Class::Short,
        Class::Other,
    ];

    /// True when frames of this class are for the engine, false when they stay with the kernel.
    #[must_use]
    #[inline(always)]
    pub const fn is_for_engine(self) -> bool {
        matches!(
            self,
            Class::Esp4
                | Class::Esp6
                | Class::Ah4
                | Class::Ah6
                | Class::UdpEsp4
                | Class::UdpEsp6
                | Class::Runt
                | Class::IpsecFragment
                | Class::IcmpError
                | Class::Plain4
                | Class::Plain6
                | Class::Protected4
                | Class::Protected6
        )
    }

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Esp4 => "esp4",
            Class::Esp6 => "esp6",
            Class::Ah4 => "ah4",
            Class::Ah6 => "ah6",
            Class::UdpEsp4 => "udp_esp4",
            Class::UdpEsp6 => "udp_esp6",
            Class::Runt => "runt",
            Class::IpsecFragment => "ipsec_fragment",
            Class::IcmpError => "icmp_error",
            Class::Plain4 => "plain4",
            Class::Plain6 => "plain6",
            Class::Keepalive => "keepalive",
            Class::Ike => "ike",
            Class::Fragment => "fragment",
            Class::Protected4 => "protected4",
            Class::Protected6 => "protected6",
            Class::NotProtected => "not_protected",
            Class::Malformed => "malformed",
            Class::Short => "short",
            Class::Other => "other",
        }
    }
}
