//! What workers tell control, as lines of the log.
//!
//! Workers limit the rate of audit records themselves, and each record says how many were not
//! written before it; what is lost between a worker and the log is said here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use culvert_control::News;
use culvert_control::SaId;
use culvert_engine::AuditRecord;
use culvert_engine::DropReason;
use culvert_engine::Notice;
use culvert_engine::Peer;
use culvert_esp::lifetime::ExpiryKind;
use tracing::debug;
use tracing::info;
use tracing::warn;

use crate::assembly::SaWords;
use crate::words;

/// Writes news to the log.
pub(super) struct NewsLog {
    /// What the configuration says of the SAs.
    sas: HashMap<SaId, SaWords>,
    /// When the workers' clock began.
    start: SystemTime,
}

impl NewsLog {
    /// For these SAs, and workers whose clock began at `start`.
    pub(super) fn new(sas: HashMap<SaId, SaWords>, start: SystemTime) -> NewsLog {
        NewsLog { sas, start }
    }

    /// Writes one line for each; `lost` is how many there were beside them.
    pub(super) fn write(&self, news: &[News], lost: u64) {
        for news in news {
            self.line(news);
        }
        if lost > 0 {
            warn!(lost, "more happened than could be told");
        }
    }

    fn line(&self, news: &News) {
        let worker = news.worker.0;
        let sa = news.sa.and_then(|id| self.sas.get(&id));
        let name = sa.and_then(|sa| sa.name.as_deref());
        match news.notice {
            Notice::Audit(record) => self.audit(worker, &record, sa),
            Notice::InvalidSpi { spi, source, port, suppressed, .. } => {
                let spi = hex(spi);
                debug!(worker, spi, %source, port, suppressed, "IKE may tell: no such SPI");
            }
            Notice::InvalidSelectors { spi, suppressed, .. } => {
                let spi = hex(spi);
                debug!(worker, name, spi, suppressed, "IKE may tell: wrong selectors");
            }
            Notice::Expire { inbound, spi, expiry, .. } => {
                let direction = if inbound { "inbound" } else { "outbound" };
                let (spi, cause) = (hex(spi), expiry.cause.name());
                match expiry.kind {
                    ExpiryKind::Soft => {
                        info!(worker, name, direction, spi, cause, "SA needs a successor");
                    }
                    ExpiryKind::Hard => warn!(worker, name, direction, spi, cause, "SA ended"),
                }
            }
            Notice::Mapping { spi, old, new, .. } => {
                let (spi, old, new) = (hex(spi), address(old), address(new));
                info!(worker, name, spi, %old, %new, "the peer sends from another address");
            }
            Notice::Acquire { policy, flow, resource, .. } => {
                let resource = resource.map(|worker| worker.0);
                let flow = words::flow(&flow);
                info!(worker, policy, flow, resource, "a policy has no SA");
            }
            Notice::UnusualEcn { spi, .. } => {
                warn!(worker, name, spi = hex(spi), "unusual ECN came out of the SA");
            }
            Notice::IcmpError { spi, reporter, kind: [kind, code], .. } => {
                let spi = hex(spi);
                info!(worker, name, spi, %reporter, kind, code, "ICMP error about the SA");
            }
            Notice::PathMtu { spi, mtu: Some(mtu), .. } => {
                info!(worker, name, spi = hex(spi), mtu, "path MTU learned");
            }
            Notice::PathMtu { spi, mtu: None, .. } => {
                info!(worker, name, spi = hex(spi), "path MTU forgotten");
            }
        }
    }

    /// What RFC 4301 section 5 and RFC 4303 section 4 ask a record to hold: date and time (in Unix
    /// seconds), protocol, SPI, source, destination, sequence number, flow label, what policy sees
    /// of the packet, and what its SA admits. What our own side sends is less of an alarm.
    fn audit(&self, worker: u8, record: &AuditRecord, sa: Option<&SaWords>) {
        let AuditRecord { seq, source, destination, flow_label, suppressed, .. } = *record;
        let (reason, spi) = (record.reason.name(), record.spi.map(hex));
        let protocol = record.protocol.map(tracing::field::debug);
        let flow = record.flow.as_ref().map(words::flow);
        let name = sa.and_then(|sa| sa.name.as_deref());
        let admitted = sa.filter(|_| record.inbound && record.reason == DropReason::Selector);
        let admitted = admitted.map(|sa| {
            let all: Vec<String> = sa.admitted.iter().map(words::selector).collect();
            all.join("; ")
        });
        let at = self.start + Duration::from_nanos(record.at);
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if record.inbound {
            warn!(
                worker, at, reason, protocol, spi, seq, %source, %destination, flow_label, flow,
                name, admitted, suppressed, "refused"
            );
        } else {
            info!(
                worker, at, reason, protocol, spi, seq, %source, %destination, flow_label, flow,
                name, suppressed, "not sent"
            );
        }
    }
}

fn hex(spi: u32) -> String {
    format!("{spi:#010x}")
}

fn address(peer: Peer) -> SocketAddr {
    SocketAddr::new(peer.address, peer.port)
}
