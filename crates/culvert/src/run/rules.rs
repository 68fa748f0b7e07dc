//! [`Rules`]: rules of NICs that bring the packets of inbound SAs to their workers.

use std::collections::HashMap;

use culvert_control::Placement;
use culvert_control::SaId;
use culvert_xdp::Control;
use culvert_xdp::Side;
use tracing::info;

/// The rules in force, and where there are none.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Port and number of the rules of an SA.
    of: HashMap<SaId, Vec<(usize, u32)>>,
    /// Ports whose NIC refused a rule: their packets are handed over between workers.
    without: Vec<usize>,
}

impl Rules {
    /// Makes the rules follow SAs.
    pub(super) fn follow(&mut self, control: &Control, placements: Vec<Placement>) {
        for Placement { id, spi, destination, worker } in placements {
            self.remove(control, id);
            let Some(worker) = worker else { continue };
            for (number, port) in control.ports().iter().enumerate() {
                if port.side() != Side::Unprotected || self.without.contains(&number) {
                    continue;
                }
                match port.interface().add_rule(destination, spi, worker.0.into()) {
                    Ok(rule) => self.of.entry(id).or_default().push((number, rule)),
                    Err(error) => {
                        let interface = port.interface().name();
                        info!(interface, %error, "no further rules of the NIC for SAs: packets \
                              that arrive at other workers are handed over");
                        self.without.push(number);
                    }
                }
            }
        }
    }

    /// Takes all rules back.
    pub(super) fn end(&mut self, control: &Control) {
        let all: Vec<SaId> = self.of.keys().copied().collect();
        all.into_iter().for_each(|id| self.remove(control, id));
    }

    fn remove(&mut self, control: &Control, id: SaId) {
        for (port, rule) in self.of.remove(&id).unwrap_or_default() {
            if let Err(error) = control.ports()[port].interface().remove_rule(rule) {
                let interface = control.ports()[port].interface().name();
                info!(interface, rule, %error, "a rule of the NIC could not be removed");
            }
        }
    }
}
