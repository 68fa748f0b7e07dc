//! Capture files out: pcap with nanoseconds, in the byte order of the machine.

use std::fs::File;
use std::io::BufWriter;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use pcap_file::DataLink;
use pcap_file::Endianness;
use pcap_file::TsResolution;
use pcap_file::pcap::PcapHeader;
use pcap_file::pcap::PcapPacket;
use pcap_file::pcap::PcapWriter;

use crate::cli::LinkType;

use super::link;

/// Longest packet a capture may say it holds.
const SNAPLEN: u32 = 65535;

/// An output file.
pub(super) struct Writer {
    path: PathBuf,
    pcap: PcapWriter<BufWriter<File>>,
    link: LinkType,
}

impl Writer {
    /// Writes a capture into `file`, which was created at `path`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new(path: &Path, file: File, link: LinkType) -> anyhow::Result<Writer> {
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
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Writer { path: path.to_owned(), pcap, link })
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When it cannot be written, or its time is beyond what a capture can say.
    pub(super) fn write(&mut self, timestamp: Duration, frame: &[u8]) -> anyhow::Result<()> {
        let data = link::packet(self.link, frame)?;
        let len = u32::try_from(data.len()).context("packet longer than a capture can hold")?;
        self.pcap
            .write_packet(&PcapPacket::new(timestamp, len, data))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let flushed = self.pcap.into_writer().flush();
        flushed.with_context(|| format!("cannot write {}", self.path.display()))
    }
}
