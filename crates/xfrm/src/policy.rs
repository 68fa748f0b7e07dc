//! Policies, their names, their templates, and the default policies.

use crate::address::Address;
use crate::address::Family;
use crate::lifetime::Limits;
use crate::lifetime::Usage;
use crate::octets::code;
use crate::octets::record;
use crate::sa::Mode;
use crate::sa::XfrmId;
use crate::selector::Selector;

code! {
    /// Which packets a policy looks at.
    pub struct Direction(u8) {
        /// Those for this machine.
        IN = 0,
        /// Those that leave.
        OUT = 1,
        /// Those that came in and go on.
        FORWARD = 2,
    }
}

code! {
    /// What becomes of a packet; with templates, ALLOW is to protect it.
    pub struct Action(u8) {
        /// It passes, protected if there are templates.
        ALLOW = 0,
        /// It is dropped.
        BLOCK = 1,
    }
}

code! {
    /// Who may share an SA.
    pub struct Share(u8) {
        /// All.
        ANY = 0,
        /// One session.
        SESSION = 1,
        /// One user.
        USER = 2,
        /// Nobody.
        UNIQUE = 3,
    }
}

/// Bits of [`PolicyInfo::flags`].
#[derive(Clone, Copy, Debug)]
pub struct PolicyFlags;

impl PolicyFlags {
    /// Sockets may have policies of their own.
    pub const LOCAL_OK: u8 = 1;
    /// ICMP errors about what it is for as well.
    pub const ICMP: u8 = 2;
}

record! {
    /// `struct xfrm_userpolicy_info`: a policy but for what attributes say.
    pub struct PolicyInfo: 168 {
        /// Packets that it is for.
        pub sel: Selector,
        /// What may be used.
        pub limits: Limits,
        /// What was used.
        pub usage: Usage,
        /// The lowest comes first.
        pub priority: u32,
        /// Its number, whose low bits are the direction; 0 in a request for any.
        pub index: u32,
        /// Which packets it looks at.
        pub dir: Direction,
        /// What becomes of them.
        pub action: Action,
        /// Bits of [`PolicyFlags`].
        pub flags: u8,
        /// Who may share its SAs.
        pub share: Share,
    }
}

record! {
    /// `struct xfrm_userpolicy_id`: how requests name a policy.
    pub struct PolicyId: 64 {
        /// Its selector, if there is no index.
        pub sel: Selector,
        /// Its number; 0 for none.
        pub index: u32,
        /// Which packets it looks at.
        pub dir: Direction,
    }
}

record! {
    /// `struct xfrm_user_tmpl`: an SA that a policy asks for.
    pub struct Template: 64 {
        /// Its name, zero as far as any will do.
        pub id: XfrmId,
        /// Family of its addresses.
        pub family: Family,
        /// Its source, zero for any.
        pub saddr: Address,
        /// Number that templates and SAs have in common; 0 for any.
        pub reqid: u32,
        /// Its mode.
        pub mode: Mode,
        /// Who may share it.
        pub share: Share,
        /// 1 if packets may do without it.
        pub optional: u8,
        /// Algorithms of integrity that may be used, as bits.
        pub aalgos: u32,
        /// Algorithms of encryption that may be used, as bits.
        pub ealgos: u32,
        /// Algorithms of compression that may be used, as bits.
        pub calgos: u32,
    }
}

record! {
    /// `struct xfrm_userpolicy_type`: which of the policy databases is meant.
    pub struct PolicyType: 6 {
        /// 0 for the one that everybody uses, 1 for that of Mobile IPv6.
        pub kind: u8,
        /// Zero.
        pub reserved1: u16,
        /// Zero.
        pub reserved2: u8,
    }
}

code! {
    /// What becomes of packets that no policy is for.
    pub struct DefaultAction(u8) {
        /// In a request: what it was.
        UNSPEC = 0,
        /// They are dropped.
        BLOCK = 1,
        /// They pass.
        ACCEPT = 2,
    }
}

record! {
    /// `struct xfrm_userpolicy_default`: what becomes of packets that no policy is for.
    pub struct Defaults: 3 {
        /// Those for this machine.
        pub inbound: DefaultAction,
        /// Those that came in and go on.
        pub forward: DefaultAction,
        /// Those that leave.
        pub outbound: DefaultAction,
    }
}
