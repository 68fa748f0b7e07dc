//! [`Server`]: the control socket of `culvert run`, in a thread, over a gateway in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;

use culvert::config::Control;
use culvert::run::keying::Keying;
use culvert_aead::RustCrypto;
use culvert_control::ControlError;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_engine::NextHops;
use culvert_engine::Peer;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_esp::Lifetime;
use culvert_keying::DataPlane;
use culvert_keying::Report;
use culvert_sim::Gateway;
use culvert_sim::gateway::FramePool;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::gateway::Room;
use culvert_spd::DefaultAction;
use culvert_spd::Group;
use culvert_spd::Spd;
use nix::poll::PollTimeout;

/// SAs of each direction that the worker has room for.
const SLOTS: usize = 2048;

/// What tests say that workers say of SAs, by SPI.
pub(crate) type Reports = Arc<Mutex<HashMap<u32, Report>>>;

/// A gateway in memory, whose own addresses are 192.0.2.1 and 2001:db8::1.
struct Plane {
    gateway: Gateway<RustCrypto>,
    spis: HashMap<SaId, u32>,
    reports: Reports,
    epoch: u64,
    random: u32,
}

impl Plane {
    fn new(reports: Reports) -> Plane {
        let port = |side| PortConfig { side, mac: None, completes_checksums: false };
        let config = GatewayConfig {
            workers: 1,
            frames: 64,
            ports: vec![port(Side::Protected), port(Side::Unprotected)],
            ..GatewayConfig::default()
        };
        let mut pool = FramePool::of(&config);
        let room = Room { spare_slots: SLOTS, ..Room::default() };
        let next_hops = NextHops::default();
        let gateway = Gateway::in_pool(&config, &RustCrypto, next_hops, &mut pool, room);
        let gateway = gateway.expect("a gateway");
        // Its frames are the worker's until the process ends.
        std::mem::forget(pool);
        Plane { gateway, spis: HashMap::new(), reports, epoch: 1, random: 1 }
    }
}

impl DataPlane for Plane {
    fn add(&mut self, spec: &SaSpec) -> Result<SaId, ControlError> {
        let id = self.gateway.controller.add_sa(spec)?;
        self.spis.insert(id, spec.spi.value());
        Ok(id)
    }

    fn remove(&mut self, handle: SaId) {
        self.spis.remove(&handle);
        let _ = self.gateway.controller.remove_sa(handle);
    }

    fn set_lifetime(&mut self, handle: SaId, lifetime: Lifetime) -> Result<(), ControlError> {
        self.gateway.controller.set_lifetime(handle, lifetime)
    }

    fn set_peer(&mut self, handle: SaId, peer: Peer) -> Result<(), ControlError> {
        self.gateway.controller.retarget(handle, peer)
    }

    fn set_alias(&mut self, handle: SaId, alias: Group) -> Result<(), ControlError> {
        self.gateway.controller.set_alias(handle, alias)
    }

    fn set_policies(&mut self, spd: &Spd, _: &[(Group, Vec<Group>)]) -> Result<(), ControlError> {
        self.gateway.controller.set_policies(spd);
        Ok(())
    }

    fn settle(&mut self) -> bool {
        self.gateway.settle().is_ok()
    }

    fn inspect(&mut self, handles: &[SaId]) -> Vec<Option<Report>> {
        let reports = self.reports.lock().expect("no panic");
        let mut one = |handle: &SaId| {
            let spi = self.spis.get(handle)?;
            if let Some(report) = reports.get(spi) {
                return Some(report.clone());
            }
            self.gateway.controller.inspect(*handle).ok()?;
            self.gateway.settle().ok()?;
            let found = self.gateway.controller.take_inspection(*handle)?;
            let (packets, bytes, sequence) = (found.packets, found.bytes, found.sequence);
            Some(Report { packets, bytes, sequence, window: found.window, ..Report::default() })
        };
        handles.iter().map(&mut one).collect()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        ["192.0.2.1", "2001:db8::1"].iter().any(|own| own.parse() == Ok(address))
    }

    fn epoch(&mut self, next: bool) -> Result<u64, ControlError> {
        self.epoch += u64::from(next);
        Ok(self.epoch)
    }

    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random
    }
}

/// A control socket that is served until this is dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) reports: Reports,
}

impl Server {
    pub(crate) fn start() -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let stop = Arc::new(AtomicBool::new(false));
        let reports = Reports::default();
        let path = directory.path().join("xfrm.sock");
        let control = Control { socket: path, max_sas: SLOTS, mark: 0, if_id: 0 };
        let mut keying = Keying::new(&control, DefaultAction::Discard).expect("a socket");
        let (stopped, theirs) = (Arc::clone(&stop), Arc::clone(&reports));
        let thread = thread::spawn(move || {
            let mut plane = Plane::new(theirs);
            while !stopped.load(Relaxed) {
                let _ = plane.gateway.controller.poll();
                let (news, _) = plane.gateway.controller.take_news();
                if !keying.serve(&mut plane, &news) {
                    let _ = nix::poll::poll(&mut keying.poll_fds(), PollTimeout::from(10_u8));
                }
            }
        });
        Server { directory, stop, thread: Some(thread), reports }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("xfrm.sock")
    }

    /// A directory for files of the test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().expect("a thread").join();
        if !thread::panicking() {
            ended.expect("the server does not panic");
        }
    }
}
