//! Capture files in and out.
//!
//! Reads pcap (micro- and nanoseconds, either byte order) with Ethernet or raw IP packets, and
//! writes pcap with nanoseconds. The engine sees Ethernet frames only: raw packets get a synthetic
//! header when they come in, and lose it when they go out.

use std::fs::File;
use std::io::BufReader;
use std::io::BufWriter;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use pcap_file::DataLink;
use pcap_file::Endianness;
use pcap_file::TsResolution;
use pcap_file::pcap::PcapHeader;
use pcap_file::pcap::PcapPacket;
use pcap_file::pcap::PcapReader;
use pcap_file::pcap::PcapWriter;

use crate::cli::LinkType;

/// Longest packet a capture may say it holds.
const SNAPLEN: u32 = 65535;

/// Stations on the synthetic links.
pub(super) const OUR_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
pub(super) const THEIR_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x02]);

/// One packet of a capture.
pub(super) struct Captured {
    /// Position in its file, from 0.
    pub(super) index: u64,
    /// Time since the epoch of the file.
    pub(super) timestamp: Duration,
    /// The Ethernet frame.
    pub(super) frame: Vec<u8>,
}

/// An input file.
pub(super) struct Reader {
    path: PathBuf,
    pcap: PcapReader<BufReader<File>>,
    link: LinkType,
    index: u64,
    peeked: Option<Captured>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> anyhow::Result<Reader> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let pcap = PcapReader::new(BufReader::new(file))
            .with_context(|| format!("{shown}: expected a pcap file"))?;
        let link = match pcap.header().datalink {
            DataLink::ETHERNET => LinkType::Ethernet,
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => LinkType::Raw,
            other => bail!("{shown}: link type {other:?}: expected Ethernet or raw IP"),
        };
        Ok(Reader { path: path.to_owned(), pcap, link, index: 0, peeked: None })
    }

    /// Timestamp of the next packet; `None` at the end.
    pub(super) fn peek_timestamp(&mut self) -> anyhow::Result<Option<Duration>> {
        if self.peeked.is_none() {
            self.peeked = self.read()?;
        }
        Ok(self.peeked.as_ref().map(|captured| captured.timestamp))
    }

    /// The packet that was peeked at.
    pub(super) fn take(&mut self) -> Option<Captured> {
        self.peeked.take()
    }

    fn read(&mut self) -> anyhow::Result<Option<Captured>> {
        let Some(packet) = self.pcap.next_packet() else { return Ok(None) };
        let index = self.index;
        let packet = packet.with_context(|| format!("{}: packet {index}", self.path.display()))?;
        self.index += 1;
        let frame = match self.link {
            LinkType::Ethernet => packet.data.to_vec(),
            LinkType::Raw => with_link_header(&packet.data),
        };
        Ok(Some(Captured { index, timestamp: packet.timestamp, frame }))
    }
}

/// Puts a synthetic Ethernet header in front of an IP packet.
fn with_link_header(packet: &[u8]) -> Vec<u8> {
    let ether_type = match packet.first() {
        Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::emit(&mut frame, OUR_MAC, THEIR_MAC, None, ether_type);
    frame.extend_from_slice(packet);
    frame
}

/// An output file.
pub(super) struct Writer {
    pcap: PcapWriter<BufWriter<File>>,
    link: LinkType,
}

impl Writer {
    pub(super) fn create(path: &Path, link: LinkType) -> anyhow::Result<Writer> {
        let shown = path.display();
        let file = File::create(path).with_context(|| format!("cannot create {shown}"))?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: match link {
                LinkType::Ethernet => DataLink::ETHERNET,
                LinkType::Raw => DataLink::RAW,
            },
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let pcap = PcapWriter::with_header(BufWriter::new(file), header)
            .with_context(|| format!("cannot write {shown}"))?;
        Ok(Writer { pcap, link })
    }

    pub(super) fn write(&mut self, timestamp: Duration, frame: &[u8]) -> anyhow::Result<()> {
        let data = match self.link {
            LinkType::Ethernet => frame,
            LinkType::Raw => &frame[ethernet::parse(frame)?.payload_at..],
        };
        let len = u32::try_from(data.len()).context("packet longer than a capture can hold")?;
        self.pcap.write_packet(&PcapPacket::new(timestamp, len, data))?;
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        use std::io::Write;
        self.pcap.into_writer().flush().context("cannot write a capture")
    }
}
