//! Requests whose answers have not come. If the engine goes, each of them is answered here.

use std::collections::VecDeque;

use culvert_xfrm::answer::is_last;
use culvert_xfrm::header::Flags;
use culvert_xfrm::header::Header;
use culvert_xfrm::header::Kind;
use culvert_xfrm::message::messages;

/// Most requests of a socket that wait. With as many, the socket is not read.
const WAITING_MAX: usize = 1024;

/// Requests that wait, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Request>);

#[derive(Debug)]
struct Request {
    header: Header,
    /// An answer came, and only the acknowledgement is missing.
    answered: bool,
}

/// Whether the asker waits: for an answer, or for an acknowledgement.
fn is_awaited(header: &Header) -> bool {
    let asks = [
        Kind::GETSA,
        Kind::GETPOLICY,
        Kind::ALLOCSPI,
        Kind::GETAE,
        Kind::GETSADINFO,
        Kind::GETSPDINFO,
        Kind::GETDEFAULT,
    ];
    header.is_request() && (header.wants_ack() || asks.contains(&header.kind))
}

impl Waiting {
    /// Whether more requests may be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < WAITING_MAX || self.0.iter().any(|request| request.answered)
    }

    /// These requests were sent.
    pub(crate) fn sent(&mut self, datagram: &[u8]) {
        for frame in messages(datagram).map_while(Result::ok) {
            if is_awaited(&frame.header) {
                // An engine that answers and never acknowledges shall not fill this.
                if self.0.len() >= WAITING_MAX
                    && let Some(at) = self.0.iter().position(|request| request.answered)
                {
                    self.0.remove(at);
                }
                self.0.push_back(Request { header: frame.header, answered: false });
            }
        }
    }

    /// These answers or events came for the socket with this port.
    pub(crate) fn received(&mut self, datagram: &[u8], port: u32) {
        for frame in messages(datagram).map_while(Result::ok) {
            let Header { seq, kind, flags, port: to, .. } = frame.header;
            // An event has no number, which is a number that a request may have, and no port.
            let is_answer = |request: &Request| {
                request.header.seq == seq && (seq != 0 || to == port || is_last(kind))
            };
            let Some(at) = self.0.iter().position(is_answer) else {
                continue;
            };
            if is_last(kind) || flags & Flags::MULTI == 0 && !self.0[at].header.wants_ack() {
                self.0.remove(at);
            } else {
                self.0[at].answered = flags & Flags::MULTI == 0;
            }
        }
    }

    /// Takes all of them, for nobody will answer.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Header> {
        std::mem::take(&mut self.0).into_iter().map(|request| request.header)
    }
}

#[cfg(test)]
mod tests {
    use culvert_xfrm::Message;
    use culvert_xfrm::answer;
    use culvert_xfrm::message::Body;

    use super::*;

    fn octets(kind: Kind, flags: u16, seq: u32, port: u32) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend(20u32.to_ne_bytes());
        octets.extend(kind.0.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend(seq.to_ne_bytes());
        octets.extend(port.to_ne_bytes());
        octets.extend([0; 4]);
        octets
    }

    fn numbers(waiting: &mut Waiting) -> Vec<u32> {
        waiting.take().map(|header| header.seq).collect()
    }

    /// A request waits until its answer, its acknowledgement, or the end of its dump.
    #[test]
    fn a_request_waits_for_its_last_answer() {
        let mut waiting = Waiting::default();
        waiting.sent(&octets(Kind::GETSA, Flags::REQUEST, 1, 0));
        waiting.sent(&octets(Kind::DELSA, Flags::REQUEST | Flags::ACK, 2, 0));
        waiting.sent(&octets(Kind::GETPOLICY, Flags::REQUEST | Flags::DUMP, 3, 0));
        waiting.sent(&octets(Kind::GETAE, Flags::REQUEST | Flags::ACK, 4, 0));
        waiting.received(&octets(Kind::NEWSA, 0, 1, 9), 9);
        let deletion = Header::read(&octets(Kind::DELSA, Flags::REQUEST, 2, 0)).unwrap();
        waiting.received(&answer::acknowledge(&deletion, 9).to_octets(), 9);
        waiting.received(&octets(Kind::NEWPOLICY, Flags::MULTI, 3, 9), 9);
        waiting.received(&octets(Kind::NEWAE, 0, 4, 9), 9);
        assert_eq!(
            waiting.0.iter().map(|request| request.answered).collect::<Vec<_>>(),
            [false, true]
        );
        let dump = Header::read(&octets(Kind::GETPOLICY, 0, 3, 0)).unwrap();
        waiting.received(&answer::done(&dump, 9).to_octets(), 9);
        assert_eq!(numbers(&mut waiting), [4]);
    }

    /// Nobody waits for a request that only speaks if it fails.
    #[test]
    fn silent_requests_do_not_wait() {
        let mut waiting = Waiting::default();
        waiting.sent(&octets(Kind::NEWSA, Flags::REQUEST, 1, 0));
        waiting.sent(&octets(Kind::GETSA, 0, 2, 0));
        waiting.sent(&Message { flags: 1, seq: 3, port: 0, body: Body::Noop }.to_octets());
        assert_eq!(numbers(&mut waiting), [0u32; 0]);
    }

    /// An event is not taken for the answer to a request whose number is zero.
    #[test]
    fn events_answer_nothing() {
        let mut waiting = Waiting::default();
        waiting.sent(&octets(Kind::GETSA, Flags::REQUEST, 0, 0));
        waiting.received(&octets(Kind::EXPIRE, 0, 0, 0), 9);
        assert_eq!(waiting.0.len(), 1);
        waiting.received(&octets(Kind::NEWSA, 0, 0, 9), 9);
        assert_eq!(waiting.0.len(), 0);
    }

    /// Requests that wait are bounded, and those that miss nothing but an acknowledgement go first.
    #[test]
    fn waiting_requests_are_bounded() {
        let mut waiting = Waiting::default();
        let flags = Flags::REQUEST | Flags::ACK;
        for seq in 1..=1024 {
            assert!(waiting.has_room());
            waiting.sent(&octets(Kind::GETSA, flags, seq, 0));
        }
        assert!(!waiting.has_room());
        waiting.received(&octets(Kind::NEWSA, 0, 7, 9), 9);
        assert!(waiting.has_room());
        waiting.sent(&octets(Kind::GETSA, flags, 2000, 0));
        let numbers = numbers(&mut waiting);
        assert_eq!((numbers.len(), numbers.contains(&7), numbers[1023]), (1024, false, 2000));
    }
}
