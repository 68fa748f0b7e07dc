//! Every message there is, and the messages of a datagram.

use std::fmt;

use zeroize::Zeroizing;

use crate::answer::Done;
use crate::answer::ErrorMessage;
use crate::attribute;
use crate::attribute::Attribute;
use crate::attribute::Attributes;
use crate::attribute::Rest;
use crate::error::Malformed;
use crate::event::Acquire;
use crate::event::AeId;
use crate::event::Expire;
use crate::event::Mapping;
use crate::event::PolicyExpire;
use crate::event::Report;
use crate::header::Flags;
use crate::header::Header;
use crate::header::Kind;
use crate::info::SadAttribute;
use crate::info::SpdAttribute;
use crate::octets::Field;
use crate::octets::Reader;
use crate::octets::Writer;
use crate::octets::aligned;
use crate::policy::Defaults;
use crate::policy::PolicyId;
use crate::policy::PolicyInfo;
use crate::sa::SaFlush;
use crate::sa::SaId;
use crate::sa::SaInfo;
use crate::sa::SpiRequest;

/// Most octets of an answer to one request: strongSwan reads no more of a datagram, and waits for
/// ever for an answer that is longer.
pub const ANSWER_LEN_MAX: usize = 4096;

/// Octets of an acknowledgement: its header, a number, and the header of its request.
const ACKNOWLEDGEMENT_LEN: usize = Header::LEN + 4 + Header::LEN;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Bits of [`Flags`].
    pub flags: u16,
    /// Number of the request, which its answers repeat.
    pub seq: u32,
    /// Port of the socket that asks or is answered; 0 from the kernel to many.
    pub port: u32,
    /// What it says.
    pub body: Body,
}

/// The bodies that are a record and attributes, by kind.
macro_rules! bodies {
    ($($(#[$meta:meta])* $variant:ident($record:ty) = $kind:ident $name:literal,)*) => {
        /// What a message says. Which messages are requests, answers or events: see [`Kind`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body {
            $($(#[$meta])* $variant($record, Attributes),)*
            /// GETSA for all: which of them.
            DumpSa(Attributes),
            /// GETPOLICY for all: which of them.
            DumpPolicy(Attributes),
            /// FLUSHPOLICY.
            FlushPolicy(Attributes),
            /// GETSADINFO, with flags that mean nothing.
            GetSadInfo(u32),
            /// NEWSADINFO, with the flags of its request.
            NewSadInfo(u32, Vec<SadAttribute>),
            /// GETSPDINFO, with flags that mean nothing.
            GetSpdInfo(u32),
            /// NEWSPDINFO, with the flags of its request.
            NewSpdInfo(u32, Vec<SpdAttribute>),
            /// ERROR: an acknowledgement or an error.
            Error(ErrorMessage),
            /// DONE: the end of a dump.
            Done(Done),
            /// NOOP.
            Noop,
            /// OVERRUN.
            Overrun,
        }

        impl Body {
            /// The kind of message.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $(Body::$variant(..) => Kind::$kind,)*
                    Body::DumpSa(_) => Kind::GETSA,
                    Body::DumpPolicy(_) => Kind::GETPOLICY,
                    Body::FlushPolicy(_) => Kind::FLUSHPOLICY,
                    Body::GetSadInfo(_) => Kind::GETSADINFO,
                    Body::NewSadInfo(..) => Kind::NEWSADINFO,
                    Body::GetSpdInfo(_) => Kind::GETSPDINFO,
                    Body::NewSpdInfo(..) => Kind::NEWSPDINFO,
                    Body::Error(_) => Kind::ERROR,
                    Body::Done(_) => Kind::DONE,
                    Body::Noop => Kind::NOOP,
                    Body::Overrun => Kind::OVERRUN,
                }
            }

            /// The attributes of SAs and policies that it has; none for one that has others.
            pub(crate) fn attributes(&self) -> &[Attribute] {
                match self {
                    $(Body::$variant(_, list) => &list.0,)*
                    Body::DumpSa(list) | Body::DumpPolicy(list) | Body::FlushPolicy(list) => {
                        &list.0
                    }
                    _ => &[],
                }
            }

            /// Reads a body that is a record and attributes, if it is one.
            fn parse_record(kind: Kind, octets: &[u8]) -> Option<Result<Body, Malformed>> {
                match kind {
                    $(Kind::$kind => Some(record(octets, $name).and_then(|(record, at)| {
                        let list = attribute::parse(octets, at, Rest::Refuse)?;
                        Ok(Body::$variant(record, Attributes(list)))
                    })),)*
                    _ => None,
                }
            }

            fn write(&self, writer: &mut Writer) {
                match self {
                    $(Body::$variant(record, attributes) => {
                        writer.record(record);
                        writer.align(4);
                        attribute::write(&attributes.0, writer);
                    })*
                    _ => self.write_other(writer),
                }
            }
        }
    };
}

bodies! {
    /// NEWSA.
    NewSa(SaInfo) = NEWSA "xfrm_usersa_info",
    /// UPDSA.
    UpdateSa(SaInfo) = UPDSA "xfrm_usersa_info",
    /// DELSA.
    DeleteSa(SaId) = DELSA "xfrm_usersa_id",
    /// GETSA for one.
    GetSa(SaId) = GETSA "xfrm_usersa_id",
    /// FLUSHSA.
    FlushSa(SaFlush) = FLUSHSA "xfrm_usersa_flush",
    /// ALLOCSPI.
    AllocateSpi(SpiRequest) = ALLOCSPI "xfrm_userspi_info",
    /// NEWPOLICY.
    NewPolicy(PolicyInfo) = NEWPOLICY "xfrm_userpolicy_info",
    /// UPDPOLICY.
    UpdatePolicy(PolicyInfo) = UPDPOLICY "xfrm_userpolicy_info",
    /// DELPOLICY.
    DeletePolicy(PolicyId) = DELPOLICY "xfrm_userpolicy_id",
    /// GETPOLICY for one.
    GetPolicy(PolicyId) = GETPOLICY "xfrm_userpolicy_id",
    /// NEWAE.
    NewAe(AeId) = NEWAE "xfrm_aevent_id",
    /// GETAE.
    GetAe(AeId) = GETAE "xfrm_aevent_id",
    /// MIGRATE.
    Migrate(PolicyId) = MIGRATE "xfrm_userpolicy_id",
    /// SETDEFAULT.
    SetDefault(Defaults) = SETDEFAULT "xfrm_userpolicy_default",
    /// GETDEFAULT.
    GetDefault(Defaults) = GETDEFAULT "xfrm_userpolicy_default",
    /// ACQUIRE.
    Acquire(Acquire) = ACQUIRE "xfrm_user_acquire",
    /// EXPIRE.
    Expire(Expire) = EXPIRE "xfrm_user_expire",
    /// POLEXPIRE.
    PolicyExpire(PolicyExpire) = POLEXPIRE "xfrm_user_polexpire",
    /// MAPPING.
    Mapping(Mapping) = MAPPING "xfrm_user_mapping",
    /// REPORT.
    Report(Report) = REPORT "xfrm_user_report",
}

/// The record behind the header, and where attributes begin.
fn record<T: Field>(message: &[u8], name: &'static str) -> Result<(T, usize), Malformed> {
    let octets = message.get(Header::LEN..Header::LEN + T::LEN);
    let record = octets.and_then(|octets| T::read(&mut Reader::new(octets)));
    let record = record.ok_or(Malformed::short(name, T::LEN))?;
    Ok((record, Header::LEN + aligned(T::LEN, 4)))
}

impl Body {
    fn parse(header: &Header, octets: &[u8]) -> Result<Body, Malformed> {
        if header.is_dump() {
            let list = Attributes(attribute::parse(octets, Header::LEN, Rest::Ignore)?);
            let is_sa = header.kind == Kind::GETSA;
            return Ok(if is_sa { Body::DumpSa(list) } else { Body::DumpPolicy(list) });
        }
        if let Some(body) = Body::parse_record(header.kind, octets) {
            return body;
        }
        let flags = || record::<u32>(octets, "flags");
        match header.kind {
            Kind::FLUSHPOLICY => attribute::parse(octets, Header::LEN, Rest::Refuse)
                .map(|list| Body::FlushPolicy(Attributes(list))),
            Kind::GETSADINFO => flags().map(|(flags, _)| Body::GetSadInfo(flags)),
            Kind::NEWSADINFO => {
                let (flags, at) = flags()?;
                Ok(Body::NewSadInfo(flags, attribute::parse(octets, at, Rest::Refuse)?))
            }
            Kind::GETSPDINFO => flags().map(|(flags, _)| Body::GetSpdInfo(flags)),
            Kind::NEWSPDINFO => {
                let (flags, at) = flags()?;
                Ok(Body::NewSpdInfo(flags, attribute::parse(octets, at, Rest::Refuse)?))
            }
            Kind::ERROR => ErrorMessage::parse(header, octets).map(Body::Error),
            Kind::DONE => Done::parse(header, octets).map(Body::Done),
            Kind::NOOP => Ok(Body::Noop),
            Kind::OVERRUN => Ok(Body::Overrun),
            _ => Err(Malformed::value("nlmsg_type", "a message of XFRM")),
        }
    }

    fn write_other(&self, writer: &mut Writer) {
        match self {
            Body::DumpSa(list) | Body::DumpPolicy(list) | Body::FlushPolicy(list) => {
                attribute::write(&list.0, writer);
            }
            Body::GetSadInfo(flags) | Body::GetSpdInfo(flags) => writer.record(flags),
            Body::NewSadInfo(flags, list) => {
                writer.record(flags);
                attribute::write(list, writer);
            }
            Body::NewSpdInfo(flags, list) => {
                writer.record(flags);
                attribute::write(list, writer);
            }
            Body::Error(error) => error.write(writer),
            Body::Done(done) => done.write(writer),
            _ => {}
        }
    }
}

impl Message {
    /// Reads the message that is `octets`, or that they begin with.
    ///
    /// Octets of a kind of attribute that is not known here are kept, as is the order of all; what
    /// some dumps have in front of their attributes, and octets between them, are not.
    ///
    /// # Errors
    /// [`Malformed`] says which field is wrong and what the kernel would answer. Values are not
    /// looked at: see [`Message::check`].
    pub fn parse(octets: &[u8]) -> Result<Message, Malformed> {
        let (header, octets) = split(octets)?;
        let Header { flags, seq, port, .. } = header;
        Ok(Message { flags, seq, port, body: Body::parse(&header, octets)? })
    }

    /// The octets of this message. They may be secret, and are wiped when dropped.
    ///
    /// # Panics
    /// When an attribute has 64 KiB or more, or a bitmap is larger than that; what was parsed has
    /// not.
    #[must_use]
    pub fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = match self.body {
            // Most answers are acknowledgements.
            Body::Error(_) => Writer::with_capacity(ACKNOWLEDGEMENT_LEN),
            _ => Writer::new(),
        };
        writer.record(&self.header());
        self.body.write(&mut writer);
        let len = u32::try_from(writer.len()).expect("a message of less than 4 GiB");
        writer.patch(0, len.to_ne_bytes());
        writer.finish()
    }

    /// Its header, but for the length, which is 0.
    #[must_use]
    pub fn header(&self) -> Header {
        let Message { flags, seq, port, ref body } = *self;
        Header { len: 0, kind: body.kind(), flags: body.flags(flags), seq, port }
    }
}

impl Body {
    /// The flags of a message with this body, some of which say how to read it.
    fn flags(&self, flags: u16) -> u16 {
        match self {
            Body::DumpSa(_) | Body::DumpPolicy(_) if flags & Flags::DUMP == 0 => {
                flags | Flags::DUMP | Flags::REQUEST
            }
            Body::DumpSa(_) | Body::DumpPolicy(_) => flags | Flags::REQUEST,
            Body::GetSa(..) | Body::GetPolicy(..) if flags & Flags::REQUEST != 0 => {
                flags & !Flags::DUMP
            }
            Body::Error(error) => error.flags(flags),
            Body::Done(done) => done.flags(flags),
            _ => flags,
        }
    }
}

/// Header and octets of the message that `octets` begin with.
fn split(octets: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let header = Header::read(octets).ok_or(Malformed::short("nlmsghdr", Header::LEN))?;
    let len = usize::try_from(header.len).ok().filter(|len| *len >= Header::LEN);
    let octets = len.and_then(|len| octets.get(..len));
    let what = "the length of a message that lies inside the datagram";
    Ok((header, octets.ok_or(Malformed::value("nlmsg_len", what))?))
}

/// A message of a datagram that has not been read yet: its header, and all of its octets.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its octets, the header included.
    pub octets: &'a [u8],
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Frame").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The messages of a datagram. After octets that are no message, which are an error, there is
/// none; the kernel does not answer those.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let frame = split(rest).map(|(header, octets)| Frame { header, octets });
        let len = frame.map_or(usize::MAX, |frame| aligned(frame.octets.len(), 4));
        rest = rest.get(len..).unwrap_or_default();
        Some(frame)
    })
}
