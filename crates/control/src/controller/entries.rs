//! From the description of an SA to what a worker owns.

use std::sync::Arc;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Protocol;
use culvert_engine::InboundEntry;
use culvert_engine::OutboundEntry;
use culvert_engine::mailbox::Peer;
use culvert_esp::InboundSa;
use culvert_esp::Layout;
use culvert_esp::Lifetime;
use culvert_esp::OutboundSa;
use culvert_esp::Template;
use culvert_esp::Usage;
use culvert_esp::Window;
use culvert_esp::WindowState;
use culvert_esp::outbound::EPOCH_SHIFT;
use culvert_frame::SlabBox;

use super::ControlError;
use super::Controller;
use super::SaId;
use super::leases::LEASE_LOW;
use super::lifecycle::check_port;
use super::record::Entry;
use crate::sa::Direction;
use crate::sa::SaSpec;

impl<A: Aead> Controller<A> {
    /// The entry of a new SA. An outbound one has its first lease when this returns.
    pub(super) fn entry(&mut self, id: SaId, spec: &SaSpec) -> Result<Entry<A::Key>, ControlError> {
        if let Some(ports) = spec.encapsulation {
            check_port(ports.source_port)?;
            check_port(ports.destination_port)?;
        }
        if spec.algorithm.protocol() == Protocol::Ah && spec.sending.dummy_interval.is_some() {
            return Err(ControlError::DummiesOfAh);
        }
        match spec.direction {
            Direction::Inbound => {
                let key = self.aead.key(spec.algorithm, &spec.keymat)?;
                let (receiver, seen) = self.leases.receiver(spec)?;
                let mut entry = inbound(spec, key, seen.as_ref())?;
                entry.lent_key = self.lent_key(spec.algorithm, &spec.keymat)?;
                self.leases.receive(id, receiver);
                Ok(Entry::Inbound(SlabBox::new(entry)))
            }
            Direction::Outbound => {
                // The IVs that the provider makes have the epoch as well.
                let iv_base = spec.epoch.unwrap_or(0) << EPOCH_SHIFT;
                let keymat = spec.keymat.clone().with_iv_base(iv_base);
                let key = self.aead.key(spec.algorithm, &keymat)?;
                let lent_key = self.lent_key(spec.algorithm, &keymat)?;
                let mut entry = self.outbound(id, spec, key)?;
                entry.lent_key = lent_key;
                Ok(Entry::Outbound(SlabBox::new(entry)))
            }
        }
    }

    /// The key of an SA once more, if others may help with it.
    fn lent_key(
        &self,
        algorithm: Algorithm,
        keymat: &Keymat,
    ) -> Result<Option<Arc<A::Key>>, ControlError> {
        if !self.lends_keys || algorithm.protocol() == Protocol::Ah {
            return Ok(None);
        }
        Ok(Some(Arc::new(self.aead.key(algorithm, keymat)?)))
    }

    fn outbound(
        &mut self,
        id: SaId,
        spec: &SaSpec,
        key: A::Key,
    ) -> Result<OutboundEntry<A::Key>, ControlError> {
        let template = Template::with_options(
            spec.source,
            spec.destination,
            spec.algorithm.protocol(),
            spec.encapsulation,
            spec.header.clone(),
        )?;
        let grant = self.leases.grant(id, spec)?;
        let layout = Layout::of(spec.algorithm);
        // The worker starts the lifetime when it gets the SA: only it has the clock.
        let usage = Usage::new(Lifetime::UNLIMITED, 0);
        let mut sa = OutboundSa::new(spec.spi, spec.esn, grant.last, layout, key, template, usage);
        if let Some(epoch) = spec.epoch {
            sa.set_epoch(epoch);
        }
        let mut lease_low = 0;
        if let Some(ceiling) = grant.ceiling {
            sa.sequence.set_ceiling(ceiling);
            lease_low = LEASE_LOW;
        }
        let mut entry = OutboundEntry::new(sa, lease_low);
        entry.protocol = spec.algorithm.protocol();
        entry.mode = spec.mode;
        entry.sending = spec.sending;
        entry.lifetime = spec.lifetime;
        Ok(entry)
    }
}

/// An inbound SA, whose window has `seen` something already.
fn inbound<K>(
    spec: &SaSpec,
    key: K,
    seen: Option<&WindowState>,
) -> Result<InboundEntry<K>, ControlError> {
    let window = match (spec.replay_window, seen) {
        (0, _) if spec.esn => return Err(ControlError::EsnWithoutWindow),
        (0, _) => Window::off(),
        (size, Some(seen)) => Window::from_state(size, spec.esn, seen)?,
        (size, None) => Window::new(size, spec.esn, spec.sequence)?,
    };
    let layout = Layout::of(spec.algorithm);
    let usage = Usage::new(Lifetime::UNLIMITED, 0);
    let sa = InboundSa::new(spec.spi, spec.destination, layout, key, window, usage);
    let mut entry = InboundEntry::new(sa, spec.group);
    entry.protocol = spec.algorithm.protocol();
    entry.mode = spec.mode;
    entry.receiving = spec.receiving.clone();
    entry.selectors.clone_from(&spec.selectors);
    entry.lifetime = spec.lifetime;
    entry.peer =
        spec.encapsulation.map(|ports| Peer { address: spec.source, port: ports.source_port });
    Ok(entry)
}
