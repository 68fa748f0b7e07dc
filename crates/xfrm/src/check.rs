//! What the kernel asks of a request beyond its layout: the checks of `net/xfrm/xfrm_user.c` that
//! need nothing but the request. Whether algorithms and SAs exist is for whoever has them.

use crate::address::Family;
use crate::attribute::Attribute;
use crate::attribute::Attributes;
use crate::error::Errno;
use crate::error::Malformed;
use crate::header::Flags;
use crate::message::Body;
use crate::message::Message;
use crate::policy::Action;
use crate::policy::Direction;
use crate::policy::PolicyInfo;
use crate::policy::Share;
use crate::policy::Template;
use crate::replay::ReplayEsn;
use crate::sa;
use crate::sa::ExtraFlags;
use crate::sa::Mode;
use crate::sa::SaDirection;
use crate::sa::SaFlags;
use crate::sa::SaInfo;
use crate::sa::SpiRequest;
use crate::selector::Selector;

type Checked = Result<(), Malformed>;

/// Refuses with EINVAL unless `holds`.
fn expect(holds: bool, field: &'static str, expected: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(Malformed::value(field, expected)) }
}

impl Message {
    /// Checks the values of a request as the kernel does; messages that are none pass.
    ///
    /// # Errors
    /// [`Malformed`] says which field is wrong and what the kernel would answer.
    pub fn check(&self) -> Result<(), Malformed> {
        self.body.attributes().iter().try_for_each(check_direction)?;
        check_used(&self.body)?;
        match &self.body {
            Body::NewSa(info, attributes) | Body::UpdateSa(info, attributes) => {
                check_sa(info, attributes)
            }
            Body::AllocateSpi(request, _) => check_spi_request(request),
            Body::NewPolicy(info, attributes) | Body::UpdatePolicy(info, attributes) => {
                check_policy(info, attributes)
            }
            Body::GetPolicy(id, attributes) | Body::DeletePolicy(id, attributes) => {
                check_policy_type(attributes)?;
                check_policy_direction(id.dir)
            }
            Body::DumpPolicy(attributes) | Body::FlushPolicy(attributes) => {
                check_policy_type(attributes)
            }
            Body::PolicyExpire(expire, attributes) => {
                check_policy_type(attributes)?;
                check_policy_direction(expire.policy.dir)
            }
            Body::NewAe(_, attributes) => check_ae(self.flags, attributes),
            Body::Migrate(id, attributes) => {
                let there = attributes.migrate().is_some();
                expect(there, "XFRMA_MIGRATE", "one to six changes of addresses")?;
                check_policy_type(attributes)?;
                check_policy_direction(id.dir)
            }
            _ => Ok(()),
        }
    }
}

fn check_sa(info: &SaInfo, attributes: &Attributes) -> Checked {
    let family = info.family.prefix_bits_max().is_some();
    expect(family, "xfrm_usersa_info.family", "AF_INET or AF_INET6")?;
    let of_sa = info.flags & SaFlags::AF_UNSPEC == 0 && info.sel.family == Family::UNSPEC;
    let family = if of_sa { info.family } else { info.sel.family };
    if family != Family::UNSPEC {
        check_selector(&info.sel, family)?;
    }
    check_algorithms(info, attributes)?;
    check_replay(info, attributes)?;
    let modes = [Mode::TRANSPORT, Mode::TUNNEL, Mode::ROUTE_OPTIMIZATION, Mode::BEET, Mode::IPTFS];
    expect(modes.contains(&info.mode), "xfrm_usersa_info.mode", "a mode of SAs")?;
    let is_encap = attributes.mapping_threshold().is_none() || attributes.encap().is_some();
    expect(is_encap, "XFRMA_MTIMER_THRESH", "an SA with XFRMA_ENCAP")?;
    let is_esn = info.flags & SaFlags::ESN != 0;
    let has_high = |replay: &ReplayEsn| replay.seq >> 32 != 0 || replay.oseq >> 32 != 0;
    let fits = is_esn || !attributes.replay_esn().is_some_and(has_high);
    let fits = fits || attributes.direction().is_none();
    expect(fits, "XFRMA_REPLAY_ESN_VAL", "numbers of 32 bits without ESN")?;
    match attributes.direction() {
        Some(&SaDirection::IN) => check_inbound(info, attributes),
        Some(&SaDirection::OUT) => check_outbound(info, attributes),
        _ => Ok(()),
    }
}

/// What an SA that says that it receives cannot have.
fn check_inbound(info: &SaInfo, attributes: &Attributes) -> Checked {
    let what = "0 for an SA that receives";
    expect(info.flags & SaFlags::NO_PMTU_DISCOVERY == 0, "xfrm_usersa_info.flags", what)?;
    let extra = attributes.extra_flags().copied().unwrap_or(0);
    let of_sending = ExtraFlags::DONT_ENCAP_DSCP | ExtraFlags::OSEQ_MAY_WRAP;
    expect(extra & of_sending == 0, "XFRMA_SA_EXTRA_FLAGS", what)?;
    let sent = attributes.replay_esn().map_or(0, |replay| replay.oseq);
    expect(sent == 0, "XFRMA_REPLAY_ESN_VAL", what)
}

/// What an SA that says that it sends cannot have.
fn check_outbound(info: &SaInfo, attributes: &Attributes) -> Checked {
    let what = "0 for an SA that sends";
    let of_receiving = SaFlags::DECAP_DSCP | SaFlags::ICMP | SaFlags::WILD_RECEIVE;
    expect(info.flags & of_receiving == 0, "xfrm_usersa_info.flags", what)?;
    expect(info.replay_window == 0, "xfrm_usersa_info.replay_window", what)?;
    let received = attributes.replay_esn().is_some_and(|replay| {
        replay.seq != 0 || replay.replay_window != 0 || !replay.bitmap.is_empty()
    });
    expect(!received, "XFRMA_REPLAY_ESN_VAL", what)?;
    let received = attributes.replay().is_some_and(|replay| replay.seq != 0 || replay.bitmap != 0);
    expect(!received, "XFRMA_REPLAY_VAL", what)?;
    let is_unset = attributes.mapping_threshold().is_none();
    expect(is_unset, "XFRMA_MTIMER_THRESH", "an SA that does not send")
}

fn check_selector(sel: &Selector, family: Family) -> Checked {
    let bits = family.prefix_bits_max();
    let bits = bits.ok_or(Malformed::value("xfrm_selector.family", "AF_INET or AF_INET6"))?;
    let what = "at most the bits of an address";
    expect(sel.prefixlen_d <= bits, "xfrm_selector.prefixlen_d", what)?;
    expect(sel.prefixlen_s <= bits, "xfrm_selector.prefixlen_s", what)
}

/// Algorithms that fit the protocol.
fn check_algorithms(info: &SaInfo, attributes: &Attributes) -> Checked {
    let auth = attributes.alg_auth().is_some() || attributes.alg_auth_trunc().is_some();
    let crypt = attributes.alg_crypt().is_some();
    let aead = attributes.alg_aead().is_some();
    let comp = attributes.alg_comp().is_some();
    let padding = attributes.tfc_padding().is_some();
    match info.id.proto {
        sa::ESP => {
            expect(!comp, "XFRMA_ALG_COMP", "no compression in ESP")?;
            let what = "an algorithm of encryption or integrity for ESP";
            expect(auth || crypt || aead, "XFRMA_ALG_AEAD", what)?;
            expect(!aead || !(auth || crypt), "XFRMA_ALG_AEAD", "no other algorithm beside it")?;
            let is_tunnel = !padding || info.mode == Mode::TUNNEL;
            expect(is_tunnel, "XFRMA_TFCPAD", "tunnel mode")
        }
        sa::AH => {
            expect(auth, "XFRMA_ALG_AUTH_TRUNC", "an algorithm of integrity for AH")?;
            let others = aead || crypt || comp || padding;
            expect(!others, "XFRMA_ALG_AUTH_TRUNC", "integrity alone for AH")
        }
        sa::IPCOMP => {
            expect(comp, "XFRMA_ALG_COMP", "an algorithm of compression for IPComp")?;
            let others = aead || crypt || auth || padding;
            expect(!others, "XFRMA_ALG_COMP", "compression alone for IPComp")?;
            expect(info.id.spi.0 < 0x1_0000, "xfrm_id.spi", "a CPI of 16 bits")
        }
        sa::DESTINATION_OPTIONS | sa::ROUTING => {
            let others = comp || auth || aead || crypt || padding;
            expect(!others, "xfrm_id.proto", "no algorithms for Mobile IPv6")?;
            let there = attributes.care_of_address().is_some();
            expect(there, "XFRMA_COADDR", "a care-of address for Mobile IPv6")
        }
        _ => Err(Malformed::value("xfrm_id.proto", "ESP, AH or IPComp")),
    }
}

fn check_replay(info: &SaInfo, attributes: &Attributes) -> Checked {
    let Some(replay) = attributes.replay_esn() else {
        let is_esn = info.flags & SaFlags::ESN != 0;
        return expect(!is_esn, "XFRMA_REPLAY_ESN_VAL", "numbers of 64 bits for ESN");
    };
    let has_numbers = matches!(info.id.proto, sa::ESP | sa::AH);
    expect(has_numbers, "XFRMA_REPLAY_ESN_VAL", "an SA of ESP or AH")?;
    let what = "zero beside XFRMA_REPLAY_ESN_VAL";
    expect(info.replay_window == 0, "xfrm_usersa_info.replay_window", what)?;
    let bits = 32 * u64::try_from(replay.bitmap.len()).unwrap_or(0);
    let fits = u64::from(replay.replay_window) <= bits;
    expect(fits, "XFRMA_REPLAY_ESN_VAL", "a window that its bitmap has room for")
}

/// Attributes of SAs are for requests that make them.
fn check_used(body: &Body) -> Checked {
    let (has_direction, has_cpu) = match body {
        Body::NewSa(..) | Body::UpdateSa(..) | Body::AllocateSpi(..) => (true, true),
        Body::Acquire(..) => (false, true),
        Body::DumpSa(_) | Body::DumpPolicy(_) => (true, true),
        _ => (false, false),
    };
    let is_alien = |attribute: &Attribute| match attribute {
        Attribute::Direction(_) => !has_direction,
        Attribute::Cpu(_) => !has_cpu,
        _ => false,
    };
    let is_alien = body.attributes().iter().any(is_alien);
    expect(!is_alien, "XFRMA_SA_DIR", "no attributes of SAs alone")
}

/// Of whatever message: the kernel's table of attributes says so.
fn check_direction(attribute: &Attribute) -> Checked {
    match *attribute {
        Attribute::Direction(direction)
            if ![SaDirection::IN, SaDirection::OUT].contains(&direction) =>
        {
            Err(Malformed {
                errno: Errno::ERANGE,
                ..Malformed::value("XFRMA_SA_DIR", "1 for inbound or 2 for outbound")
            })
        }
        _ => Ok(()),
    }
}

fn check_spi_request(request: &SpiRequest) -> Checked {
    let SpiRequest { info, min, max } = request;
    let proto = info.id.proto;
    let known = matches!(proto, sa::ESP | sa::AH | sa::IPCOMP);
    expect(known, "xfrm_id.proto", "ESP, AH or IPComp")?;
    let fits = proto != sa::IPCOMP || *max < 0x1_0000;
    expect(fits, "xfrm_userspi_info.max", "a CPI of 16 bits")?;
    expect(min <= max, "xfrm_userspi_info.min", "at most the highest SPI")
}

fn check_policy(info: &PolicyInfo, attributes: &Attributes) -> Checked {
    let field = "xfrm_userpolicy_info.share";
    expect(info.share <= Share::UNIQUE, field, "ANY, SESSION, USER or UNIQUE")?;
    expect(info.action <= Action::BLOCK, "xfrm_userpolicy_info.action", "ALLOW or BLOCK")?;
    check_selector(&info.sel, info.sel.family)?;
    check_policy_direction(info.dir)?;
    let agrees = info.index == 0 || info.index & 3 == u32::from(info.dir.0);
    expect(agrees, "xfrm_userpolicy_info.index", "an index of its direction, or 0")?;
    check_policy_type(attributes)?;
    let templates = attributes.templates().map(Vec::as_slice).unwrap_or_default();
    check_templates(templates, info.sel.family, info.dir)
}

fn check_policy_direction(dir: Direction) -> Checked {
    expect(dir <= Direction::FORWARD, "xfrm_userpolicy_info.dir", "IN, OUT or FWD")
}

fn check_policy_type(attributes: &Attributes) -> Checked {
    let is_main = attributes.policy_type().is_none_or(|policy_type| policy_type.kind == 0);
    expect(is_main, "XFRMA_POLICY_TYPE", "the main policies")
}

/// Families that follow from each other: only a tunnel may change it. What leaves cannot do without
/// a tunnel, which would change where it goes.
fn check_templates(templates: &[Template], selected: Family, dir: Direction) -> Checked {
    let mut inner = selected;
    for template in templates {
        let unsaid = template.family == Family::UNSPEC;
        let family = if unsaid { selected } else { template.family };
        let tunnels = [Mode::TUNNEL, Mode::BEET, Mode::IPTFS].contains(&template.mode);
        let what = "the family inside, or a tunnel";
        expect(tunnels || family == inner, "xfrm_user_tmpl.family", what)?;
        let may_lack = template.optional != 0 && dir == Direction::OUT;
        let what = "0 for a tunnel of packets that leave";
        expect(!(tunnels && may_lack), "xfrm_user_tmpl.optional", what)?;
        expect(template.mode <= Mode::IPTFS, "xfrm_user_tmpl.mode", "a mode of SAs")?;
        let known = family.prefix_bits_max().is_some();
        expect(known, "xfrm_user_tmpl.family", "AF_INET or AF_INET6")?;
        let protos = [sa::ESP, sa::AH, sa::IPCOMP, sa::ROUTING, sa::DESTINATION_OPTIONS];
        let known = protos.contains(&template.id.proto);
        expect(known, "xfrm_user_tmpl.id.proto", "a protocol of IPsec")?;
        inner = family;
    }
    Ok(())
}

fn check_ae(flags: u16, attributes: &Attributes) -> Checked {
    let something = attributes.usage().is_some()
        || attributes.replay().is_some()
        || attributes.replay_esn().is_some()
        || attributes.timer_threshold().is_some()
        || attributes.replay_threshold().is_some();
    expect(something, "XFRMA_REPLAY_VAL", "something to set")?;
    expect(flags & Flags::REPLACE != 0, "nlmsg_flags", "NLM_F_REPLACE")
}
