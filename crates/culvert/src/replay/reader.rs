//! Capture files in: pcap (micro- and nanoseconds, either byte order) and pcapng.
//!
//! A file is read as a stream, so that it may be a pipe. Lengths that a capture states about itself
//! (its snap length, the length a packet had on the wire) are not trusted for anything: a packet is
//! the octets that are there. One that the capture cut short contradicts its own IP length and is
//! dropped as malformed, like any such packet; the reader counts them, for who wonders why.

use std::fs::File;
use std::io::Chain;
use std::io::Cursor;
use std::io::ErrorKind;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::anyhow;
use anyhow::bail;
use pcap_file::DataLink;
use pcap_file::PcapError;
use pcap_file::TsResolution;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;

use crate::cli::LinkType;

use super::link;
use super::pcapng;

/// Octets of the number that tells the formats apart.
const MAGIC_LEN: usize = 4;
/// The first octets of pcap files: either byte order, micro- and nanoseconds.
const PCAP: [[u8; MAGIC_LEN]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];
/// The first octets of pcapng files, in either byte order: the type of a section header block.
const PCAPNG: [u8; MAGIC_LEN] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A file whose first octets were looked at.
pub(super) type Stream = Chain<Cursor<Vec<u8>>, File>;

/// One packet of a capture.
pub(super) struct Captured {
    /// Position in its file, from 0.
    pub(super) index: u64,
    /// Time since the epoch of the file.
    pub(super) timestamp: Duration,
    /// The Ethernet frame.
    pub(super) frame: Vec<u8>,
}

/// A packet as its file has it.
pub(super) struct Record {
    pub(super) timestamp: Duration,
    pub(super) link: DataLink,
    /// True when the packet was longer on the wire.
    pub(super) cut_short: bool,
    pub(super) data: Vec<u8>,
}

enum Format {
    Pcap(PcapReader<Stream>),
    PcapNg(Box<PcapNgReader<Stream>>),
}

/// An input file.
pub(super) struct Reader {
    path: PathBuf,
    format: Format,
    index: u64,
    cut_short: u64,
    peeked: Option<Captured>,
}

impl Reader {
    /// Opens a capture.
    ///
    /// # Errors
    /// When there is no such file, or it is not a capture of Ethernet or raw IP.
    pub(super) fn open(path: &Path) -> anyhow::Result<Reader> {
        let format = open(path).with_context(|| path.display().to_string())?;
        Ok(Reader { path: path.to_owned(), format, index: 0, cut_short: 0, peeked: None })
    }

    /// Timestamp of the next packet; `None` at the end.
    ///
    /// # Errors
    /// When the file breaks off, or contradicts itself.
    pub(super) fn peek_timestamp(&mut self) -> anyhow::Result<Option<Duration>> {
        if self.peeked.is_none() {
            let (path, index) = (&self.path, self.index);
            let captured = read(&mut self.format)
                .with_context(|| format!("{}: packet {index}", path.display()))?;
            self.peeked = captured.map(|(record, frame)| {
                self.index += 1;
                self.cut_short += u64::from(record.cut_short);
                Captured { index, timestamp: record.timestamp, frame }
            });
        }
        Ok(self.peeked.as_ref().map(|captured| captured.timestamp))
    }

    /// The packet that was peeked at.
    pub(super) fn take(&mut self) -> Option<Captured> {
        self.peeked.take()
    }

    /// What the operator should know about the capture; `None` when there is nothing.
    pub(super) fn remark(&self) -> Option<String> {
        let Reader { path, index, cut_short, .. } = self;
        (*cut_short > 0).then(|| {
            format!(
                "{}: {cut_short} of {index} packets were longer on the wire than in the capture: \
                 an IP packet that was cut short is dropped as malformed",
                path.display()
            )
        })
    }
}

fn open(path: &Path) -> anyhow::Result<Format> {
    let mut file = File::open(path).context("cannot open")?;
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC_LEN as u64).read_to_end(&mut magic).context("cannot read")?;
    let is_pcap = PCAP.iter().any(|known| magic == known);
    let is_pcapng = magic == PCAPNG;
    let stream = Cursor::new(magic).chain(file);
    if is_pcapng {
        let reader = PcapNgReader::new(stream).map_err(explain)?;
        return Ok(Format::PcapNg(Box::new(reader)));
    }
    if !is_pcap {
        bail!("expected a pcap or pcapng file");
    }
    let reader = PcapReader::new(stream).map_err(explain)?;
    check_link(reader.header().datalink)?;
    Ok(Format::Pcap(reader))
}

fn check_link(link: DataLink) -> anyhow::Result<LinkType> {
    link::link_type(link).ok_or_else(|| anyhow!("link type {link:?}: expected Ethernet or raw IP"))
}

fn read(format: &mut Format) -> anyhow::Result<Option<(Record, Vec<u8>)>> {
    let record = match format {
        Format::Pcap(reader) => pcap_record(reader)?,
        Format::PcapNg(reader) => pcapng::record(reader)?,
    };
    let Some(record) = record else { return Ok(None) };
    let frame = link::frame(check_link(record.link)?, &record.data);
    Ok(Some((record, frame)))
}

fn pcap_record(reader: &mut PcapReader<Stream>) -> anyhow::Result<Option<Record>> {
    let header = reader.header();
    let Some(packet) = reader.next_raw_packet() else { return Ok(None) };
    let packet = packet.map_err(explain)?;
    let nanoseconds = match header.ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let fraction = Duration::from_nanos(u64::from(packet.ts_frac) * nanoseconds);
    Ok(Some(Record {
        timestamp: Duration::from_secs(packet.ts_sec.into()) + fraction,
        link: header.datalink,
        cut_short: packet.incl_len < packet.orig_len,
        data: packet.data.into_owned(),
    }))
}

/// An error of the parser in words that say what was expected.
pub(super) fn explain(error: PcapError) -> anyhow::Error {
    match error {
        PcapError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            anyhow!("the file ends where more octets were expected")
        }
        PcapError::IoError(error) => anyhow::Error::new(error).context("cannot read"),
        PcapError::InvalidField(what) => anyhow!("{what}"),
        error => anyhow!("{error}"),
    }
}
