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
use culvert_engine::Notice;
use culvert_engine::Peer;
use culvert_esp::lifetime::ExpiryCause;
use culvert_esp::lifetime::ExpiryKind;
use tracing::info;
use tracing::warn;

/// Writes news to the log.
pub(super) struct NewsLog {
    /// What the configuration calls the SAs.
    names: HashMap<SaId, String>,
    /// When the workers' clock began.
    start: SystemTime,
}

impl NewsLog {
    /// For SAs with these names, and workers whose clock began at `start`.
    pub(super) fn new(names: HashMap<SaId, String>, start: SystemTime) -> NewsLog {
        NewsLog { names, start }
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
        let name = news.sa.and_then(|id| self.names.get(&id)).map(String::as_str);
        match news.notice {
            Notice::Audit(record) => self.audit(worker, &record),
            Notice::Expire { inbound, spi, expiry, .. } => {
                let direction = if inbound { "inbound" } else { "outbound" };
                let (spi, cause) = (hex(spi), cause(expiry.cause));
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
                info!(worker, policy, ?flow, resource, "a policy has no SA");
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

    /// What RFC 4301 section 5 and RFC 4303 section 3.4 ask a record to hold: date and time (in
    /// Unix seconds), SPI, source, destination, sequence number, flow label.
    fn audit(&self, worker: u8, record: &AuditRecord) {
        let AuditRecord { seq, source, destination, flow_label, suppressed, .. } = *record;
        let (reason, spi) = (record.reason.name(), record.spi.map(hex));
        let at = self.start + Duration::from_nanos(record.at);
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        warn!(
            worker, at, reason, spi, seq, %source, %destination, flow_label, suppressed, "refused"
        );
    }
}

fn hex(spi: u32) -> String {
    format!("{spi:#010x}")
}

fn address(peer: Peer) -> SocketAddr {
    SocketAddr::new(peer.address, peer.port)
}

fn cause(cause: ExpiryCause) -> &'static str {
    match cause {
        ExpiryCause::Time => "time",
        ExpiryCause::Bytes => "bytes",
        ExpiryCause::Packets => "packets",
        ExpiryCause::Sequence => "sequence",
    }
}
