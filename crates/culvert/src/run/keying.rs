//! [`Keying`]: the databases that IKE writes, and the socket over which it does.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use culvert_control::Epochs;
use culvert_control::News;
use culvert_keying::DataPlane;
use culvert_keying::Policies;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_spd::DefaultAction;
use culvert_xfrm::policy::DefaultAction as XfrmDefault;
use culvert_xfrm::policy::Defaults;
use nix::poll::PollFd;
use tracing::info;

use super::journal::JournalFile;
use super::socket::ControlSocket;
use crate::config::Config;
use crate::config::Control;

/// What IKE and operators drive the gateway with.
#[derive(Debug)]
pub struct Keying {
    service: Service,
    socket: ControlSocket,
    journal: JournalFile,
    /// The second in which time was last let go by.
    ticked: u64,
}

impl Keying {
    /// Empty databases and the socket, and the epochs of the SAs to come.
    pub(super) fn open(control: &Control, config: &Config) -> anyhow::Result<(Keying, Epochs)> {
        let epochs = Epochs::open(&config.state_directory)?;
        Ok((Keying::new(control, config.default)?, epochs))
    }

    /// Databases with what the journal beside the socket says, and the socket.
    ///
    /// # Errors
    /// When socket or journal cannot be made, with a message for the operator.
    pub fn new(control: &Control, default: DefaultAction) -> anyhow::Result<Keying> {
        let socket = ControlSocket::open(&control.socket)?;
        let mut policies = Policies::new();
        let action = match default {
            DefaultAction::Discard => XfrmDefault::BLOCK,
            DefaultAction::Bypass => XfrmDefault::ACCEPT,
        };
        policies.set_defaults(&Defaults { inbound: action, forward: action, outbound: action });
        let scope = Scope { mark: control.mark, if_id: control.if_id };
        let mut service = Service::new(policies, scope);
        let journal = JournalFile::open(&control.socket, &mut service, unix_now())?;
        let (_, policies) = service.counts();
        info!(
            socket = %control.socket.display(),
            policies,
            lost_sas = service.lost(),
            "SAs and policies come from IKE"
        );
        Ok(Keying { service, socket, journal, ticked: 0 })
    }

    /// What to wait for.
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        self.socket.poll_fds()
    }

    /// Takes note of what happened, and serves the clients. True when there is more to do at once.
    pub fn serve(&mut self, gateway: &mut impl DataPlane, news: &[News]) -> bool {
        let now = unix_now();
        for news in news {
            self.service.notice(gateway, news, now);
        }
        if now != self.ticked {
            self.ticked = now;
            self.service.tick(gateway, now);
        }
        self.socket.serve(&mut self.service, gateway, &mut self.journal, now)
    }

    /// Puts the policies of before the start into force.
    pub fn restore(&mut self, gateway: &mut impl DataPlane) {
        self.service.settle(gateway);
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
