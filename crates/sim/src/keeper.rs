//! Whoever rekeys the tunnels: what two IKE daemons would agree on, a step at a time.
//!
//! As in RFC 7296 section 2.8: the responder installs the new SAs first, its outbound one on
//! standby; the initiator then moves to them at once; the responder moves when the first packet
//! comes, or when it hears no more of the old SA. The old inbound SAs stay until nobody sends with
//! them any more. So rekeying loses nothing, and runs without faults prove that.

use culvert_aead::Audit;
use culvert_aead::Provider;
use culvert_control::Controller;
use culvert_control::Direction;
use culvert_control::SaId;

use crate::gateway::Gateway;
use crate::model::Checked;
use crate::model::Model;
use crate::nat::Router;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::tunnel::Tunnel;

/// A gateway whose provider panics when a nonce comes twice.
pub(crate) type SimGateway = Gateway<Audit<Provider>>;

type Control = Controller<Audit<Provider>>;

/// Steps after which the responder moves, packets or not.
const PATIENCE: u64 = 20;

/// Steps for which old inbound SAs stay once nobody sends with them. Nothing is that long on its
/// way, but what a fault holds up.
const LINGER: u64 = 60;

/// The first serial number of successors; those of the tunnels at the start are below.
const FIRST_SERIAL: u32 = 100;

/// All tunnels and their successors.
#[derive(Debug)]
pub(crate) struct Keeper {
    random: Random,
    lines: Vec<Line>,
    next_serial: u32,
    /// Rekeyings that came to their end.
    pub(crate) completed: u64,
}

/// A tunnel through its rekeyings.
#[derive(Debug)]
struct Line {
    current: Tunnel,
    stage: Stage,
    /// One of its SAs has come close to its end.
    is_due: bool,
}

#[derive(Clone, Debug)]
enum Stage {
    Quiet,
    /// The responder has the new SAs.
    Offered {
        new: Tunnel,
        initiator: usize,
        since: u64,
    },
    /// The initiator has moved.
    Moved {
        new: Tunnel,
        initiator: usize,
        since: u64,
    },
    /// The responder has moved, too.
    Lingering {
        old: Tunnel,
        since: Option<u64>,
    },
}

impl Keeper {
    pub(crate) fn new(random: Random, scenario: &Scenario) -> Keeper {
        let line =
            |tunnel: &Tunnel| Line { current: tunnel.clone(), stage: Stage::Quiet, is_due: false };
        let lines = scenario.tunnels.iter().map(line).collect();
        Keeper { random, lines, next_serial: FIRST_SERIAL, completed: 0 }
    }

    /// The SA with this SPI has come close to its end.
    pub(crate) fn expire(&mut self, spi: u32) {
        let has = |tunnel: &Tunnel| tunnel.spi.iter().any(|of_side| of_side.value() == spi);
        self.lines.iter_mut().filter(|line| has(&line.current)).for_each(|line| line.is_due = true);
    }

    /// Everything that may end soon is to be replaced.
    pub(crate) fn renew(&mut self) {
        for line in &mut self.lines {
            line.is_due |= line.current.has_limits();
        }
    }

    /// The tunnels of a gateway, when none of them is being rekeyed.
    pub(crate) fn settled(&self, end: usize) -> Option<Vec<Tunnel>> {
        let lines = self.lines.iter().filter(|line| line.current.side_of(end).is_some());
        lines.map(|line| matches!(line.stage, Stage::Quiet).then(|| line.current.clone())).collect()
    }

    /// True when no rekeying is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lines.iter().all(|line| matches!(line.stage, Stage::Quiet) && !line.is_due)
    }

    /// Does what is due, and starts a rekeying in `rate` of 1000 cases.
    pub(crate) fn act(
        &mut self,
        (gateways, router, model): (&mut [SimGateway], &Router, &mut Model<'_>),
        (step, rate): (u64, u64),
    ) -> Checked<()> {
        if self.random.chance(rate) {
            let index = self.random.index(self.lines.len());
            self.lines[index].is_due = true;
        }
        for index in 0..self.lines.len() {
            match self.lines[index].stage.clone() {
                Stage::Quiet if self.lines[index].is_due => {
                    self.offer(index, (gateways, router, model), step)?;
                }
                Stage::Quiet => {}
                Stage::Offered { new, initiator, since } => {
                    self.accept(index, gateways, (&new, initiator), (step, since))?;
                }
                Stage::Moved { new, initiator, since } => {
                    let used = model.has_received(new.ends[1 - initiator], new.spi[initiator]);
                    if used || step >= since + PATIENCE {
                        self.follow(index, gateways, &new, initiator)?;
                    }
                }
                Stage::Lingering { old, since } => {
                    self.linger(index, gateways, &old, (step, since))?;
                }
            }
        }
        Ok(())
    }

    /// The responder installs the new SAs. Without room there is no rekeying now.
    fn offer(
        &mut self,
        index: usize,
        (gateways, router, model): (&mut [SimGateway], &Router, &mut Model<'_>),
        step: u64,
    ) -> Checked<()> {
        let old = &self.lines[index].current;
        let now = old.outer.map(|inside| router.seen_at(inside));
        let seen_at = match now {
            [Some(one), Some(other)] if old.seen_at.is_some() => Some([one, other]),
            _ => None,
        };
        let initiator = self.random.index(2);
        let new = old.successor(&mut self.random, self.next_serial, seen_at);
        let responder = 1 - initiator;
        let control = &mut gateways[new.ends[responder]].controller;
        move_peer(control, old, &new, responder)?;
        let Ok(inbound) = control.add_sa(&new.sa(responder, initiator)) else {
            return Ok(());
        };
        if control.add_standby(&new.sa(responder, responder)).is_err() {
            return control.remove_sa(inbound).map_err(|error| error.to_string());
        }
        self.next_serial += 1;
        model.add(&new);
        let line = &mut self.lines[index];
        line.is_due = false;
        line.stage = Stage::Offered { new, initiator, since: step };
        Ok(())
    }

    /// The initiator moves, once the responder can receive.
    fn accept(
        &mut self,
        index: usize,
        gateways: &mut [SimGateway],
        (new, initiator): (&Tunnel, usize),
        (step, since): (u64, u64),
    ) -> Checked<()> {
        let responder = 1 - initiator;
        let other = &gateways[new.ends[responder]].controller;
        let answered = step > since + self.random.below(8);
        let ready = other.find(Direction::Inbound, new.spi[initiator].value());
        if !answered || !ready.is_some_and(|id| other.is_known(id)) {
            return Ok(());
        }
        let old = self.lines[index].current.clone();
        let control = &mut gateways[new.ends[initiator]].controller;
        move_peer(control, &old, new, initiator)?;
        let old_id = find(control, Direction::Outbound, &old, initiator)?;
        let (inbound, outbound) = (new.sa(initiator, responder), new.sa(initiator, initiator));
        let line = &mut self.lines[index];
        if control.rekey(old_id, &inbound, &outbound).is_ok() {
            line.stage = Stage::Moved { new: new.clone(), initiator, since: step };
            return Ok(());
        }
        // No room: the responder takes back what it offered, and they try again later.
        (line.stage, line.is_due) = (Stage::Quiet, true);
        let control = &mut gateways[new.ends[responder]].controller;
        for (direction, sender) in
            [(Direction::Inbound, initiator), (Direction::Outbound, responder)]
        {
            let id = find(control, direction, new, sender)?;
            control.remove_sa(id).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The responder moves.
    fn follow(
        &mut self,
        index: usize,
        gateways: &mut [SimGateway],
        new: &Tunnel,
        initiator: usize,
    ) -> Checked<()> {
        let responder = 1 - initiator;
        let line = &mut self.lines[index];
        let old = std::mem::replace(&mut line.current, new.clone());
        let control = &mut gateways[new.ends[responder]].controller;
        let from = find(control, Direction::Outbound, &old, responder)?;
        let to = find(control, Direction::Outbound, new, responder)?;
        control.activate(to, Some(from)).map_err(|error| error.to_string())?;
        line.stage = Stage::Lingering { old, since: None };
        Ok(())
    }

    /// The old inbound SAs go when nothing can come for them any more.
    fn linger(
        &mut self,
        index: usize,
        gateways: &mut [SimGateway],
        old: &Tunnel,
        (step, since): (u64, Option<u64>),
    ) -> Checked<()> {
        let sends = |side: usize| {
            let control = &gateways[old.ends[side]].controller;
            control
                .ids()
                .any(|id| control.spi(id) == Some((Direction::Outbound, old.spi[side].value())))
        };
        let line = &mut self.lines[index];
        match since {
            None if sends(0) || sends(1) => {}
            None => line.stage = Stage::Lingering { old: old.clone(), since: Some(step) },
            Some(since) if step < since + LINGER => {}
            Some(_) => {
                for side in 0..2 {
                    let control = &mut gateways[old.ends[side]].controller;
                    let id = find(control, Direction::Inbound, old, 1 - side)?;
                    control.remove_sa(id).map_err(|error| error.to_string())?;
                }
                line.stage = Stage::Quiet;
                self.completed += 1;
            }
        }
        Ok(())
    }
}

/// Who rekeys learns where the peer is now.
fn move_peer(control: &mut Control, old: &Tunnel, new: &Tunnel, side: usize) -> Checked<()> {
    match new.seen_at {
        Some(seen_at) if side == 1 => {
            let id = find(control, Direction::Inbound, old, 1 - side)?;
            control.move_peer(id, seen_at[1 - side]).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

/// The SA of a tunnel that side `sender` sends with.
fn find(control: &Control, direction: Direction, tunnel: &Tunnel, sender: usize) -> Checked<SaId> {
    let spi = tunnel.spi[sender].value();
    control.find(direction, spi).ok_or_else(|| format!("{direction} SA {spi:#x} is not there"))
}
