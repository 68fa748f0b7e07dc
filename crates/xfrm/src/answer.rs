//! Acknowledgements, errors, and the end of a dump.

use crate::attribute::HEADER_LEN;
use crate::attribute::Unknown;
use crate::attribute::split;
use crate::attribute::write_one;
use crate::error::Errno;
use crate::error::Malformed;
use crate::header::Flags;
use crate::header::Header;
use crate::header::Kind;
use crate::message::Body;
use crate::message::Frame;
use crate::message::Message;
use crate::octets::Writer;
use crate::octets::aligned;
use crate::secret::Secret;

/// Most attributes of an error.
const DETAILS_MAX: usize = 16;

/// Attributes of an error (`enum nlmsgerr_attrs`).
const TEXT: u16 = 1;
const OFFSET: u16 = 2;
const MISSING_KIND: u16 = 5;

/// What an asker wants to know of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Errors repeat the request's header alone (`NETLINK_CAP_ACK`).
    pub capped: bool,
    /// Errors are followed by an explanation (`NETLINK_EXT_ACK`).
    pub details: bool,
}

/// More about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What went wrong, for people.
    Text(String),
    /// Where the attribute begins that was wrong, in octets from the request's first.
    Offset(u32),
    /// The kind of attribute that is missing.
    MissingKind(u32),
    /// Something else.
    Unknown(Unknown),
}

/// An acknowledgement, or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What went wrong; nothing for an acknowledgement.
    pub errno: Option<Errno>,
    /// The header of the request, its length included.
    pub request: Header,
    /// What followed that header, unless the answer is capped. It may hold keys.
    pub rest: Option<Secret>,
    /// More about it.
    pub details: Vec<Detail>,
}

impl ErrorMessage {
    pub(crate) fn parse(header: &Header, message: &[u8]) -> Result<ErrorMessage, Malformed> {
        let error = status(message)?;
        let inner = &message[Header::LEN + 4..];
        let short = Malformed::short("nlmsgerr", 4 + Header::LEN);
        let request = Header::read(inner).ok_or(short)?;
        let mut at = Header::LEN + 4 + Header::LEN;
        let mut rest = None;
        if header.flags & Flags::CAPPED == 0 {
            let what = "the length of a request that lies inside the answer";
            let outside = Malformed::value("nlmsgerr.msg.nlmsg_len", what);
            let len = usize::try_from(request.len).map_err(|_| outside)?;
            let octets = inner.get(Header::LEN..len).ok_or(outside)?;
            rest = Some(octets.into());
            at += aligned(octets.len(), 4);
        }
        let has_details = header.flags & Flags::ACK_TLVS != 0;
        let details = if has_details { details(message, at)? } else { Vec::new() };
        Ok(ErrorMessage { errno: error, request, rest, details })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.record(&self.errno.map_or(0, |errno| errno.0.wrapping_neg()));
        let rest = self.rest.as_ref().map(Secret::octets);
        let len = rest.map(|rest| u32::try_from(Header::LEN + rest.len()).unwrap_or(u32::MAX));
        writer.record(&Header { len: len.unwrap_or(self.request.len), ..self.request });
        writer.put(rest.unwrap_or_default());
        writer.align(4);
        write_details(&self.details, writer);
    }

    pub(crate) fn flags(&self, flags: u16) -> u16 {
        let capped = if self.rest.is_none() { Flags::CAPPED } else { 0 };
        let flags = flags & !(Flags::CAPPED | Flags::ACK_TLVS) | capped;
        flags | details_flag(&self.details)
    }
}

/// The end of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What went wrong, if anything did.
    pub errno: Option<Errno>,
    /// More about it.
    pub details: Vec<Detail>,
}

impl Done {
    pub(crate) fn parse(header: &Header, message: &[u8]) -> Result<Done, Malformed> {
        let errno = status(message)?;
        let has_details = header.flags & Flags::ACK_TLVS != 0;
        let details = if has_details { details(message, Header::LEN + 4)? } else { Vec::new() };
        Ok(Done { errno, details })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.record(&self.errno.map_or(0, |errno| errno.0.wrapping_neg()));
        write_details(&self.details, writer);
    }

    pub(crate) fn flags(&self, flags: u16) -> u16 {
        flags & !Flags::ACK_TLVS | details_flag(&self.details)
    }
}

/// The number behind the header: 0, or a negative error.
fn status(message: &[u8]) -> Result<Option<Errno>, Malformed> {
    let octets = message.get(Header::LEN..).and_then(|octets| octets.first_chunk());
    let number = i32::from_ne_bytes(*octets.ok_or(Malformed::short("nlmsgerr.error", 4))?);
    let what = "zero or a negative error";
    match number.checked_neg() {
        Some(0) => Ok(None),
        Some(number) if number > 0 => Ok(Some(Errno(number))),
        _ => Err(Malformed::value("nlmsgerr.error", what)),
    }
}

fn details(message: &[u8], at: usize) -> Result<Vec<Detail>, Malformed> {
    let mut details = Vec::new();
    let mut at = at;
    while let Some(octets) = message.get(at..).filter(|octets| !octets.is_empty()) {
        let invalid = |expected| Malformed::value("nlmsgerr_attrs", expected).placed(at);
        let (kind, value) = split(octets).ok_or(invalid("an attribute inside the answer"))?;
        if details.len() == DETAILS_MAX {
            return Err(invalid("at most 16 attributes"));
        }
        let number = || value.first_chunk().map(|octets| u32::from_ne_bytes(*octets));
        details.push(match kind {
            TEXT => Detail::Text(text(value).ok_or(invalid("a text that ends in zero"))?),
            OFFSET => Detail::Offset(number().ok_or(invalid("an offset of four octets"))?),
            MISSING_KIND => Detail::MissingKind(number().ok_or(invalid("a kind of four octets"))?),
            _ => Detail::Unknown(Unknown { kind, octets: value.into() }),
        });
        at += aligned(HEADER_LEN + value.len(), 4);
    }
    Ok(details)
}

/// What stands before the zero at the end.
fn text(value: &[u8]) -> Option<String> {
    let text = value.strip_suffix(&[0]).filter(|text| !text.contains(&0))?;
    str::from_utf8(text).ok().map(str::to_owned)
}

fn write_details(details: &[Detail], writer: &mut Writer) {
    for detail in details {
        match detail {
            Detail::Text(text) => write_one(TEXT, writer, |writer| {
                writer.put(text.as_bytes());
                writer.put(&[0]);
            }),
            Detail::Offset(at) => write_one(OFFSET, writer, |writer| writer.record(at)),
            Detail::MissingKind(kind) => {
                write_one(MISSING_KIND, writer, |writer| writer.record(kind));
            }
            Detail::Unknown(unknown) => {
                write_one(unknown.kind, writer, |writer| writer.put(unknown.octets.octets()));
            }
        }
    }
}

fn details_flag(details: &[Detail]) -> u16 {
    if details.is_empty() { 0 } else { Flags::ACK_TLVS }
}

/// Acknowledges the request with this header, to the socket with this port.
#[must_use]
pub fn acknowledge(request: &Header, port: u32) -> Message {
    let error = ErrorMessage { errno: None, request: *request, rest: None, details: Vec::new() };
    Message { flags: 0, seq: request.seq, port, body: Body::Error(error) }
}

/// Refuses a request with `errno`, to the socket with this port.
#[must_use]
pub fn refuse(
    request: &Frame,
    port: u32,
    errno: Errno,
    details: Vec<Detail>,
    wanted: Wanted,
) -> Message {
    let rest = request.octets.get(Header::LEN..).unwrap_or_default();
    let rest = (!wanted.capped).then(|| rest.into());
    let details = if wanted.details { details } else { Vec::new() };
    let Frame { header: request, .. } = *request;
    let error = ErrorMessage { errno: Some(errno), request, rest, details };
    Message { flags: 0, seq: request.seq, port, body: Body::Error(error) }
}

/// Ends the dump that the request with this header asked for.
#[must_use]
pub fn done(request: &Header, port: u32) -> Message {
    Message { flags: Flags::MULTI, seq: request.seq, port, body: Body::Done(Done::default()) }
}

/// What an answer says of octets that are no request.
impl From<&Malformed> for Vec<Detail> {
    fn from(malformed: &Malformed) -> Vec<Detail> {
        let text = Detail::Text(malformed.to_string());
        std::iter::once(text).chain(malformed.at.map(Detail::Offset)).collect()
    }
}

/// Whether this answer ends what is said about a request: an error, an acknowledgement, the end of
/// a dump.
#[must_use]
pub fn is_last(kind: Kind) -> bool {
    matches!(kind, Kind::ERROR | Kind::DONE)
}
