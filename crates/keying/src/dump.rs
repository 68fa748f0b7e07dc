//! Listings, some at a time: as much as whoever asked takes.

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::answer;
use culvert_xfrm::answer::Done;
use culvert_xfrm::header::Flags;
use culvert_xfrm::header::Header;
use culvert_xfrm::sa::AddressFilter;

use crate::listing;
use crate::plane::DataPlane;
use crate::policies::Cursor;
use crate::sas;
use crate::sas::Sa;
use crate::sas::SaNumber;
use crate::service::Asker;
use crate::service::Service;

/// SAs or policies that are listed at a time.
const CHUNK: usize = 64;

/// A listing on its way.
#[derive(Debug)]
pub struct Dump {
    request: Header,
    asker: Asker,
    what: What,
}

#[derive(Debug)]
enum What {
    Sas {
        before: SaNumber,
        proto: u8,
        filter: Option<AddressFilter>,
    },
    Policies {
        behind: Option<Cursor>,
    },
    /// Addresses have no more bits than 128.
    Refused,
    Ended,
}

impl Dump {
    pub(crate) fn sas(request: Header, asker: Asker, which: &Attributes) -> Dump {
        let proto = which.proto().copied().unwrap_or(0);
        let filter = which.address_filter().copied();
        if filter.is_some_and(|filter| filter.prefixlen_s.max(filter.prefixlen_d) > 128) {
            return Dump { request, asker, what: What::Refused };
        }
        Dump { request, asker, what: What::Sas { before: SaNumber(u64::MAX), proto, filter } }
    }

    pub(crate) fn policies(request: Header, asker: Asker) -> Dump {
        Dump { request, asker, what: What::Policies { behind: None } }
    }

    fn message(&self, body: Body) -> Message {
        Message { flags: Flags::MULTI, seq: self.request.seq, port: self.asker.port, body }
    }
}

impl Service {
    /// The next messages of a listing; none when it is over.
    pub fn next_of_dump(&mut self, plane: &mut impl DataPlane, dump: &mut Dump) -> Vec<Message> {
        let mut bodies = Vec::new();
        let mut next = None;
        let is_ours = dump.asker.is_ours;
        match &mut dump.what {
            What::Ended => return Vec::new(),
            What::Refused => {
                dump.what = What::Ended;
                let done = Done { errno: Some(Errno::EINVAL), details: Vec::new() };
                return vec![dump.message(Body::Done(done))];
            }
            What::Sas { before, proto, filter } => {
                let is_wanted = |sa: &Sa| {
                    sas::is_of_proto(sa, *proto) && filter.is_none_or(|filter| passes(&filter, sa))
                };
                let wanted = self.sas.before(*before).filter(|(_, sa)| is_wanted(sa));
                let chunk: Vec<SaNumber> = wanted.map(|(number, _)| number).take(CHUNK).collect();
                let truths = self.truths(plane, &chunk);
                for (number, truth) in chunk.iter().zip(&truths) {
                    *before = *number;
                    bodies.extend(
                        self.sas.get(*number).map(|sa| listing::listed_to(is_ours, sa, truth)),
                    );
                }
            }
            What::Policies { behind } => {
                let index = |body: &Body| match body {
                    Body::NewPolicy(info, _) => Some(info.index),
                    _ => None,
                };
                let chunk = self.policies.list(*behind).take(CHUNK);
                let used: Vec<u32> = chunk.filter_map(|(_, body)| index(&body)).collect();
                self.note_use(plane, &used);
                for (cursor, body) in self.policies.list(*behind).take(CHUNK) {
                    next = Some(cursor);
                    bodies.push(body);
                }
                *behind = next.or(*behind);
            }
        }
        if bodies.is_empty() {
            dump.what = What::Ended;
            return vec![answer::done(&dump.request, dump.asker.port)];
        }
        bodies.into_iter().map(|body| dump.message(body)).collect()
    }
}

/// True when both addresses of an SA lie in the networks of a filter.
fn passes(filter: &AddressFilter, sa: &Sa) -> bool {
    let lies_in = |address: Address, network: Address, bits: u8| {
        let bits = usize::from(bits);
        let (whole, rest) = (bits / 8, bits % 8);
        let mask = !(0xff_u16 >> rest).to_le_bytes()[0];
        address.0[..whole] == network.0[..whole]
            && (rest == 0 || (address.0[whole] ^ network.0[whole]) & mask == 0)
    };
    let says = [Family::INET, Family::INET6].contains(&filter.family);
    (!says || filter.family == sa.info.family)
        && lies_in(sa.info.saddr, filter.saddr, filter.prefixlen_s)
        && lies_in(sa.info.id.daddr, filter.daddr, filter.prefixlen_d)
}
