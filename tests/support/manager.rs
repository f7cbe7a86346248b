//! A scripted service manager on a bus: it shows our units as it is told, and writes down what it is asked.

use super::bus::Bus;
use codex_proxy::watchdog::signal::Unit;
use codex_proxy::watchdog::sources::units;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant, connection, interface};

pub const PATH: &str = "/org/freedesktop/systemd1";
pub const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// One unit, under the manager's own names.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub active: &'static str,
    pub result: &'static str,
    /// Each of the sixteen bytes of its `InvocationID`.
    pub invocation: u8,
    pub restarts: u32,
    pub pid: u32,
}

impl State {
    /// Not started yet.
    pub const INACTIVE: Self = Self { active: "inactive", result: "success", invocation: 0, restarts: 0, pid: 0 };

    /// As `Unit` and as the unit's own kind tell it.
    fn told(self, unit: Unit) -> [(&'static str, HashMap<&'static str, Variant<'static>>); 2] {
        let invocation = vec![self.invocation; 16];
        let generic = HashMap::from([("ActiveState", self.active.into()), ("InvocationID", invocation.into())]);
        let mut own = HashMap::from([("Result", self.result.into())]);
        if unit != Unit::Socket {
            own.extend([("NRestarts", self.restarts.into()), ("MainPID", self.pid.into())]);
        }
        let kind = if unit == Unit::Socket { "Socket" } else { "Service" };
        [(kind, own), ("Unit", generic)]
    }
}

/// What all its objects look at.
#[derive(Debug, Clone)]
struct Script {
    units: Arc<Mutex<[State; 3]>>,
    port: u16,
    result: &'static str,
    late: Arc<AtomicBool>,
    asked: watch::Sender<Vec<String>>,
}

impl Script {
    fn state(&self, unit: Unit) -> State {
        self.units.lock().unwrap()[unit as usize]
    }

    fn set(&self, unit: Unit, change: impl FnOnce(&mut State)) {
        change(&mut self.units.lock().unwrap()[unit as usize]);
    }

    /// The unit and the type of the job in the way.
    fn queued(&self) -> Option<(&'static str, &'static str)> {
        self.result.split_once(' ')
    }
}

/// A running manager; leaves the bus when dropped.
pub struct Manager {
    pub connection: Connection,
    script: Script,
}

impl Manager {
    /// One whose socket unit has that port. Jobs end with `result`, at once; `refused`: there are none; `later`: when
    /// the test says so; `unit type`: another job is in the way.
    ///
    /// The units are inactive.
    pub async fn start(bus: &Bus, port: u16, result: &'static str) -> Self {
        let units = Arc::new(Mutex::new([State::INACTIVE; 3]));
        let script = Script { units, port, result, late: Arc::default(), asked: watch::Sender::default() };
        let face = |unit| UnitFace(unit, script.clone());
        let service = |unit| ServiceFace(unit, script.clone());
        let connection = connection::Builder::address(bus.address())
            .serve_at(PATH, ManagerFace(script.clone()))
            .serve_at(path(Unit::Proxy.name()), face(Unit::Proxy))
            .serve_at(path(Unit::Proxy.name()), service(Unit::Proxy))
            .serve_at(path(Unit::Capped.name()), face(Unit::Capped))
            .serve_at(path(Unit::Capped.name()), service(Unit::Capped))
            .serve_at(path(Unit::Socket.name()), face(Unit::Socket))
            .serve_at(path(Unit::Socket.name()), SocketFace(script.clone()))
            .name(units::MANAGER)
            .build()
            .await
            .unwrap();
        Self { connection, script }
    }

    /// Changes a unit and says nothing of it.
    pub fn set(&self, unit: Unit, change: impl FnOnce(&mut State)) {
        self.script.set(unit, change);
    }

    /// Changes a unit and tells it.
    pub async fn change(&self, unit: Unit, change: impl FnOnce(&mut State)) {
        self.set(unit, change);
        tell(&self.connection, unit, self.script.state(unit)).await;
    }

    /// A reload of its configuration has ended.
    pub async fn reloaded(&self) {
        self.connection.emit_signal(None::<&str>, PATH, INTERFACE, "Reloading", &false).await.unwrap();
    }

    /// The socket cannot be bound.
    pub async fn port_is_taken(&self) {
        self.change(Unit::Socket, |socket| (socket.active, socket.result) = ("failed", "resources")).await;
    }

    /// The proxy runs, and before it its socket.
    pub async fn serves(&self) {
        self.change(Unit::Socket, |socket| (socket.active, socket.result) = ("active", "success")).await;
        self.change(Unit::Proxy, |proxy| {
            (proxy.active, proxy.result) = ("active", "success");
            (proxy.invocation, proxy.pid) = (proxy.invocation + 1, std::process::id());
        })
        .await;
    }

    /// The job that would end later is done.
    pub async fn job_done(&self) {
        let job = OwnedObjectPath::try_from(format!("{PATH}/job/2")).unwrap();
        let body = (2_u32, job, Unit::Proxy.name(), "done");
        self.connection.emit_signal(None::<&str>, PATH, INTERFACE, "JobRemoved", &body).await.unwrap();
    }

    /// From now on, whenever somebody reads the proxy's unit, news of an earlier change come before the answer.
    pub fn tells_late(&self) {
        self.script.late.store(true, Ordering::SeqCst);
    }

    /// What it was asked to do, `StartUnit codex-proxy.service fail`, oldest first.
    pub fn asked(&self) -> Vec<String> {
        self.script.asked.borrow().clone()
    }

    /// Waits until it was asked to do something, and gives all that it was asked.
    pub async fn until_asked(&self) -> Vec<String> {
        let mut asked = self.script.asked.subscribe();
        asked.wait_for(|asked| !asked.is_empty()).await.unwrap().clone()
    }
}

/// Tells how a unit is, in two messages as systemd does.
pub async fn tell(from: &Connection, unit: Unit, state: State) {
    for (interface, changed) in state.told(unit) {
        let body = (format!("org.freedesktop.systemd1.{interface}"), changed, Vec::<String>::new());
        let of = "org.freedesktop.DBus.Properties";
        from.emit_signal(None::<&str>, path(unit.name()).as_str(), of, "PropertiesChanged", &body).await.unwrap();
    }
}

fn path(unit: &str) -> String {
    format!("{PATH}/unit/{}", unit.replace(['-', '.'], "_"))
}

struct ManagerFace(Script);

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    TransactionIsDestructive(String),
    NoSuchUnit(String),
}

impl ManagerFace {
    async fn job(
        &self,
        verb: &str,
        name: &str,
        mode: &str,
        emitter: &SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert_eq!(name, Unit::Proxy.name());
        self.0.asked.send_modify(|asked| asked.push(format!("{verb} {name} {mode}")));
        let mut result = self.0.result;
        match (mode, self.0.queued()) {
            ("fail", Some(_)) => return Err(Refusal::TransactionIsDestructive("a job is queued".to_owned())),
            ("fail", None) if result == "refused" => return Err(Refusal::NoSuchUnit("no".to_owned())),
            ("fail", None) => {}
            ("replace", Some(("codex-proxy-capped.service", "start"))) => result = "done",
            (mode, queued) => panic!("{mode}, {queued:?}"),
        }
        let job = |id: u32| OwnedObjectPath::try_from(format!("{PATH}/job/{id}")).unwrap();
        // Another job, and ours before the answer.
        Self::job_removed(emitter, 1, job(1), "other.service", "failed").await.unwrap();
        if result != "later" {
            Self::job_removed(emitter, 2, job(2), name, result).await.unwrap();
        }
        Ok(job(2))
    }
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl ManagerFace {
    fn subscribe(&self) {}

    fn load_unit(&self, name: &str) -> OwnedObjectPath {
        OwnedObjectPath::try_from(path(name)).unwrap()
    }

    async fn start_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job("StartUnit", name, mode, &emitter).await
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.job("RestartUnit", name, mode, &emitter).await
    }

    fn list_jobs(&self) -> Vec<(u32, String, String, String, OwnedObjectPath, OwnedObjectPath)> {
        let path = || OwnedObjectPath::try_from(PATH).unwrap();
        let job = |unit: &str, kind: &str| (7, unit.to_owned(), kind.to_owned(), "waiting".to_owned(), path(), path());
        let other = job("other.service", "stop");
        self.0.queued().map(|(unit, kind)| job(unit, kind)).into_iter().chain([other]).collect()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// The generic face of a unit.
struct UnitFace(Unit, Script);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitFace {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        self.1.state(self.0).active
    }

    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> Vec<u8> {
        vec![self.1.state(self.0).invocation; 16]
    }

    #[zbus(property)]
    fn start_limit_burst(&self) -> u32 {
        6
    }

    #[zbus(property, name = "StartLimitIntervalUSec")]
    fn start_limit_interval_usec(&self) -> u64 {
        600_000_000
    }
}

/// What a service has besides.
struct ServiceFace(Unit, Script);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceFace {
    #[zbus(property)]
    async fn result(&self, #[zbus(connection)] connection: &Connection) -> &str {
        let state = self.1.state(self.0);
        if self.0 == Unit::Proxy && self.1.late.load(Ordering::SeqCst) {
            tell(connection, self.0, State { result: "core-dump", ..state }).await;
        }
        state.result
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        self.1.state(self.0).pid
    }

    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.1.state(self.0).restarts
    }
}

/// What a socket has besides.
struct SocketFace(Script);

#[interface(name = "org.freedesktop.systemd1.Socket")]
impl SocketFace {
    #[zbus(property)]
    fn result(&self) -> &str {
        self.0.state(Unit::Socket).result
    }

    #[zbus(property)]
    fn listen(&self) -> Vec<(String, String)> {
        vec![("Stream".to_owned(), format!("127.0.0.1:{}", self.0.port))]
    }
}
