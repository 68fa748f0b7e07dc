//! [`DataPlane`]: what the databases need of the gateway.

use std::net::IpAddr;

use culvert_control::ControlError;
use culvert_control::SaId as Handle;
use culvert_control::SaSpec;
use culvert_engine::Peer;
use culvert_esp::Lifetime;
use culvert_esp::WindowState;
use culvert_spd::Group;
use culvert_spd::Spd;

/// The truth about an SA, from the worker that owns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of those.
    pub bytes: u64,
    /// When it was first used, in seconds since 1970.
    pub first_used: Option<u64>,
    /// When it was last used, in seconds since 1970.
    pub last_used: Option<u64>,
    /// Last number sent, or highest received.
    pub sequence: u64,
    /// What its window has seen; inbound only.
    pub window: Option<WindowState>,
    /// Packets left of the window, seen before, and not authentic.
    pub refused: [u64; 3],
}

/// The gateway, as the databases see it. What is asked is done when [`settle`](Self::settle) says
/// so, unless it says otherwise.
pub trait DataPlane {
    /// Installs an SA.
    ///
    /// # Errors
    /// When it is impossible; nothing is installed then.
    fn add(&mut self, spec: &SaSpec) -> Result<Handle, ControlError>;

    /// Removes an SA.
    fn remove(&mut self, handle: Handle);

    /// Gives an SA other limits; what was used stays.
    ///
    /// # Errors
    /// When there is no such SA.
    fn set_lifetime(&mut self, handle: Handle, lifetime: Lifetime) -> Result<(), ControlError>;

    /// Sends the packets of an outbound SA to another port of its peer.
    ///
    /// # Errors
    /// When there is no such SA, or the port is IKE's.
    fn set_peer(&mut self, handle: Handle, peer: Peer) -> Result<(), ControlError>;

    /// Makes an outbound SA the one and only member of a second group.
    ///
    /// # Errors
    /// When there is no such SA, or SAs of that group live on another worker.
    fn set_alias(&mut self, handle: Handle, alias: Group) -> Result<(), ControlError>;

    /// Replaces the policies, and the groups that are several SAs, innermost first.
    ///
    /// # Errors
    /// When groups cannot be put together; the policies that name them have no SA then.
    fn set_policies(
        &mut self,
        spd: &Spd,
        bundles: &[(Group, Vec<Group>)],
    ) -> Result<(), ControlError>;

    /// Waits until every worker does what was asked: a barrier. False when one does not.
    fn settle(&mut self) -> bool;

    /// Asks workers about SAs and waits for the answers, which are in the same order; nothing for
    /// an SA that is not there.
    fn inspect(&mut self, handles: &[Handle]) -> Vec<Option<Report>>;

    /// True for an address of this gateway.
    fn is_own(&self, address: IpAddr) -> bool;

    /// The epoch of SAs that are added now; with `next`, a later one.
    ///
    /// # Errors
    /// When it cannot be recorded.
    fn epoch(&mut self, next: bool) -> Result<u64, ControlError>;

    /// Any number, as likely as any other.
    fn random(&mut self) -> u32;
}
