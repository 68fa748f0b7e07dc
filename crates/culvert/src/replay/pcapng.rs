//! Packets of pcapng files, which have their link type and the unit of their timestamps in the
//! description of the interface they came from.

use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use pcap_file::pcapng::Block;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;

use super::reader::Record;
use super::reader::Stream;
use super::reader::explain;

/// Resolution where the interface states none: 10^-6 seconds.
const MICROSECONDS: u8 = 6;
/// Set when the rest of a resolution is a power of 2, not of 10.
const POWER_OF_TWO: u8 = 0x80;

/// The next packet; `None` at the end of the file. Other blocks are skipped.
///
/// # Errors
/// When the file breaks off or contradicts itself, or has packets without a timestamp.
pub(super) fn record(reader: &mut PcapNgReader<Stream>) -> anyhow::Result<Option<Record>> {
    let (interface, units, original_len, data) = loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        match block.map_err(explain)? {
            Block::EnhancedPacket(packet) => {
                // The parser takes whatever unit for nanoseconds.
                let units = packet.timestamp.as_nanos();
                let data = packet.data.into_owned();
                break (packet.interface_id, units, packet.original_len, data);
            }
            Block::Packet(_) | Block::SimplePacket(_) => {
                bail!("found a packet block of another kind: expected enhanced packet blocks")
            }
            _ => {}
        }
    };
    let described = usize::try_from(interface).ok().and_then(|at| reader.interfaces().get(at));
    let described = described.with_context(|| {
        format!("interface {interface}: expected one that the section describes")
    })?;
    Ok(Some(Record {
        timestamp: timestamp(units, described)?,
        link: described.linktype,
        cut_short: data.len() < usize::try_from(original_len).unwrap_or(usize::MAX),
        data,
    }))
}

/// The time that `units` since the epoch are on an interface.
fn timestamp(units: u128, interface: &InterfaceDescriptionBlock<'_>) -> anyhow::Result<Duration> {
    let mut resolution = MICROSECONDS;
    let mut offset = 0;
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & !POWER_OF_TWO);
    let per_second = match resolution & POWER_OF_TWO {
        0 => 10_u64.checked_pow(exponent),
        _ => 2_u64.checked_pow(exponent),
    };
    let per_second = per_second.with_context(|| {
        format!("timestamp resolution {resolution:#x}: expected a unit that 64 bits can count")
    })?;
    let per_second = u128::from(per_second);
    let seconds = u64::try_from(units / per_second).context("timestamp: expected 64 bits")?;
    let nanoseconds = (units % per_second) * 1_000_000_000 / per_second;
    let fraction = Duration::from_nanos(u64::try_from(nanoseconds).expect("less than a second"));
    // A negative offset is the two's complement of its size.
    Ok(Duration::from_secs(seconds.wrapping_add(offset)).saturating_add(fraction))
}

#[cfg(test)]
mod tests {
    use pcap_file::DataLink;

    use super::*;

    fn at(
        units: u128,
        options: &[InterfaceDescriptionOption<'static>],
    ) -> anyhow::Result<Duration> {
        let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
        interface.options = options.to_vec();
        timestamp(units, &interface)
    }

    /// Microseconds by default; else any power of 10 or 2, and an offset of either sign.
    #[test]
    fn units_of_timestamps() {
        use InterfaceDescriptionOption::IfTsOffset;
        use InterfaceDescriptionOption::IfTsResol;
        let ms = Duration::from_millis;
        assert_eq!(at(1_500_000, &[]).unwrap(), ms(1500));
        assert_eq!(at(1_500, &[IfTsResol(3)]).unwrap(), ms(1500));
        assert_eq!(at(1_500_000_000, &[IfTsResol(9)]).unwrap(), ms(1500));
        assert_eq!(at(3, &[IfTsResol(0x81)]).unwrap(), ms(1500));
        assert_eq!(at(7, &[IfTsResol(0)]).unwrap(), ms(7000));
        assert_eq!(at(1_500_000, &[IfTsOffset(2)]).unwrap(), ms(3500));
        assert_eq!(at(3_500_000, &[IfTsOffset(2_u64.wrapping_neg())]).unwrap(), ms(1500));
        assert!(at(u128::from(u64::MAX), &[IfTsResol(19)]).is_ok());
        assert!(at(0, &[IfTsResol(20)]).is_err() && at(0, &[IfTsResol(0xff)]).is_err());
    }
}
