//! `culvert status`: is a gateway there, and what does it have?

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::info::PolicyCounts;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use serde::Serialize;

use super::Reach;
use super::client::Client;
use super::client::ClientError;
use super::sa;
use super::sa_view::SaView;
use super::sa_view::State;
use super::unix_now;

/// What a gateway has.
#[derive(Clone, Debug, Serialize)]
struct Status {
    running: bool,
    socket: String,
    /// Process of the gateway.
    pid: Option<i32>,
    sas: Sas,
    policies: Policies,
    defaults: DefaultsView,
}

/// What is known of a gateway that does not answer.
#[derive(Clone, Debug, Serialize)]
struct Silence {
    running: bool,
    socket: String,
    error: String,
}

/// SAs by state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sas {
    larval: u64,
    valid: u64,
    dying: u64,
}

/// Policies by direction.
#[derive(Clone, Copy, Debug, Serialize)]
struct Policies {
    out: u32,
    r#in: u32,
    fwd: u32,
}

/// What becomes of packets that no policy is for.
#[derive(Clone, Copy, Debug, Serialize)]
struct DefaultsView {
    out: &'static str,
    r#in: &'static str,
    fwd: &'static str,
}

/// Runs the command.
pub(super) fn status(reach: &Reach) -> anyhow::Result<()> {
    let socket = reach.socket.display().to_string();
    let status = match reach.connect().and_then(|client| look(client, &socket)) {
        Ok(status) => status,
        Err(error) => {
            let silence = Silence { running: false, socket, error: error.to_string() };
            reach.print(&silence, String::new)?;
            return Err(error.into());
        }
    };
    reach.print(&status, || status.text())
}

fn look(mut client: Client, socket: &str) -> Result<Status, ClientError> {
    let mut sas = Sas::default();
    let now = unix_now();
    sa::each(&mut client, |info, list| {
        let count = match SaView::new(&info, &list, now, false).state {
            State::Larval => &mut sas.larval,
            State::Valid => &mut sas.valid,
            State::Dying => &mut sas.dying,
        };
        *count += 1;
    })?;
    let counts = match client.ask(Body::GetSpdInfo(u32::MAX))? {
        Some(Body::NewSpdInfo(_, list)) => list.iter().find_map(|attribute| match attribute {
            SpdAttribute::Counts(counts) => Some(*counts),
            _ => None,
        }),
        _ => None,
    };
    let PolicyCounts { inbound, outbound, forward, .. } =
        counts.ok_or(ClientError::Odd("no counts of policies"))?;
    let Some(Body::GetDefault(defaults, _)) =
        client.ask(Body::GetDefault(Defaults::default(), Attributes::default()))?
    else {
        return Err(ClientError::Odd("no default policies"));
    };
    let word = |action| match action {
        DefaultAction::BLOCK => "discard",
        DefaultAction::ACCEPT => "bypass",
        _ => "-",
    };
    Ok(Status {
        running: true,
        socket: socket.to_owned(),
        pid: client.pid(),
        sas,
        policies: Policies { out: outbound, r#in: inbound, fwd: forward },
        defaults: DefaultsView {
            out: word(defaults.outbound),
            r#in: word(defaults.inbound),
            fwd: word(defaults.forward),
        },
    })
}

impl Status {
    fn text(&self) -> String {
        let Status { socket, sas, policies, defaults, .. } = self;
        let process = self.pid.map_or(String::new(), |pid| format!(", process {pid}"));
        format!(
            "running   {socket}{process}\n\
             SAs       {} larval, {} valid, {} dying\n\
             policies  {} out, {} in, {} fwd\n\
             default   {} out, {} in, {} fwd\n",
            sas.larval,
            sas.valid,
            sas.dying,
            policies.out,
            policies.r#in,
            policies.fwd,
            defaults.out,
            defaults.r#in,
            defaults.fwd,
        )
    }
}
