//! Capture files, written and read octet for octet: nothing here is shared with the program.

use std::time::Duration;

pub(crate) const LINK_ETHERNET: u32 = 1;
pub(crate) const LINK_RAW: u32 = 101;

const SNAPLEN: u32 = 65535;

/// When captures begin.
pub(crate) const START: Duration = Duration::from_secs(1_700_000_000);

/// A packet and when it was captured.
pub(crate) type Timed = (Duration, Vec<u8>);

/// How a pcap file is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) big_endian: bool,
    pub(crate) nanoseconds: bool,
    pub(crate) link: u32,
    pub(crate) snaplen: u32,
}

impl Form {
    /// What the program itself writes on most machines.
    pub(crate) fn of(link: u32) -> Form {
        Form { big_endian: false, nanoseconds: true, link, snaplen: SNAPLEN }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A file with these packets.
    pub(crate) fn file(self, packets: &[Timed]) -> Vec<u8> {
        let whole = packets.iter().map(|(at, data)| (*at, len(data), data.as_slice()));
        self.file_cut(whole)
    }

    /// A file with packets, each with the length it says it had on the wire.
    pub(crate) fn file_cut<'a>(
        self,
        packets: impl IntoIterator<Item = (Duration, u32, &'a [u8])>,
    ) -> Vec<u8> {
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut file = self.u32(magic).to_vec();
        file.extend([self.u16(2), self.u16(4)].concat());
        file.extend(
            [self.u32(0), self.u32(0), self.u32(self.snaplen), self.u32(self.link)].concat(),
        );
        for (at, original, data) in packets {
            let seconds = u32::try_from(at.as_secs()).unwrap();
            let fraction = if self.nanoseconds { at.subsec_nanos() } else { at.subsec_micros() };
            let header = [seconds, fraction, len(data), original].map(|field| self.u32(field));
            file.extend(header.concat());
            file.extend(data);
        }
        file
    }
}

/// Packets a tenth of a millisecond apart.
pub(crate) fn timed(packets: &[Vec<u8>]) -> Vec<Timed> {
    let at = |index: u32| START + Duration::from_micros(100) * index;
    (0..).map(at).zip(packets.iter().cloned()).collect()
}

/// The packets alone.
pub(crate) fn untimed(packets: &[Timed]) -> Vec<Vec<u8>> {
    packets.iter().map(|(_, data)| data.clone()).collect()
}

/// Reads a file the program or scapy wrote: its link type and packets.
#[track_caller]
pub(crate) fn read(file: &[u8]) -> (u32, Vec<Timed>) {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let nanoseconds = match word(0) {
        0xa1b2_3c4d => 1,
        0xa1b2_c3d4 => 1000,
        other => panic!("magic number {other:#x}"),
    };
    let mut at = 24;
    let mut packets = Vec::new();
    while at < file.len() {
        let fraction = Duration::from_nanos(u64::from(word(at + 4)) * nanoseconds);
        let len = usize::try_from(word(at + 8)).unwrap();
        assert_eq!(word(at + 8), word(at + 12), "nothing is cut short");
        let data = file[at + 16..at + 16 + len].to_vec();
        packets.push((Duration::from_secs(word(at).into()) + fraction, data));
        at += 16 + len;
    }
    (word(20), packets)
}

/// One block of a pcapng file, little endian.
pub(crate) fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len().next_multiple_of(4) + 12).unwrap();
    let mut block = [kind.to_le_bytes(), len.to_le_bytes()].concat();
    block.extend(body);
    block.resize(block.len().next_multiple_of(4), 0);
    block.extend(len.to_le_bytes());
    block
}

/// A pcapng file with these packets of one interface, whose timestamps count in `unit` by an option
/// of the interface, or in microseconds without one.
pub(crate) fn pcapng(link: u16, nanoseconds: bool, packets: &[Timed]) -> Vec<u8> {
    let section = [&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat();
    let mut interface = [link.to_le_bytes(), [0; 2], [0; 2], [0; 2]].concat();
    if nanoseconds {
        interface.extend([9, 0, 1, 0, 9, 0, 0, 0]);
        interface.extend([0; 4]);
    }
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    // A block of statistics between the packets is passed over.
    let statistics = block(5, &[0; 12]);
    for (at, data) in packets {
        let units = if nanoseconds { at.as_nanos() } else { at.as_micros() };
        let (high, low) = (units >> 32, units & 0xffff_ffff);
        let words = [0, u32::try_from(high).unwrap(), u32::try_from(low).unwrap()];
        let words = [&words[..], &[len(data), len(data)]].concat();
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(data);
        file.extend(block(6, &body));
        file.extend(&statistics);
    }
    file
}

fn len(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap()
}
