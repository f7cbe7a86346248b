//! What the watchdog sees with and acts by, on a bus of its own with a scripted service manager, and with a scripted
//! `journalctl`.

use crate::support::bus::{self, Bus};
use crate::support::scratch;
use codex_proxy::watchdog::signal::{Active, Observation, Ping, Source, Unit, UnitState};
use codex_proxy::watchdog::sources::units::{self, SessionBus};
use codex_proxy::watchdog::sources::{Seen, journal, probe};
use codex_proxy::watchdog::{actuators, incidents::record::Outcome};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant, connection, interface};

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// The manager: jobs end as it is told, at once; or another job is in the way, `unit type`.
struct Manager {
    result: &'static str,
}

impl Manager {
    /// The unit and the type of the job in the way.
    fn queued(&self) -> Option<(&'static str, &'static str)> {
        self.result.split_once(' ')
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    TransactionIsDestructive(String),
    NoSuchUnit(String),
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn load_unit(&self, name: &str) -> OwnedObjectPath {
        let word = name.replace(['-', '.'], "_");
        OwnedObjectPath::try_from(format!("{MANAGER_PATH}/unit/{word}")).unwrap()
    }

    async fn start_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert_eq!(name, "codex-proxy.service");
        let mut result = self.result;
        match (mode, self.queued()) {
            ("fail", Some(_)) => return Err(Refusal::TransactionIsDestructive("a job is queued".to_owned())),
            ("fail", None) if result == "refused" => return Err(Refusal::NoSuchUnit("no".to_owned())),
            ("fail", None) => {}
            ("replace", Some(("codex-proxy-capped.service", "start"))) => result = "done",
            (mode, queued) => panic!("{mode}, {queued:?}"),
        }
        let job = |id: u32| OwnedObjectPath::try_from(format!("{MANAGER_PATH}/job/{id}")).unwrap();
        // Another job, and ours before the answer.
        Self::job_removed(&emitter, 1, job(1), "other.service", "failed").await.unwrap();
        Self::job_removed(&emitter, 2, job(2), name, result).await.unwrap();
        Ok(job(2))
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.start_unit(name, mode, emitter).await
    }

    fn list_jobs(&self) -> Vec<(u32, String, String, String, OwnedObjectPath, OwnedObjectPath)> {
        let path = || OwnedObjectPath::try_from(MANAGER_PATH).unwrap();
        let job = |unit: &str, kind: &str| (7, unit.to_owned(), kind.to_owned(), "waiting".to_owned(), path(), path());
        let other = job("other.service", "stop");
        self.queued().map(|(unit, kind)| job(unit, kind)).into_iter().chain([other]).collect()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn reloading(emitter: &SignalEmitter<'_>, active: bool) -> zbus::Result<()>;
}

/// The generic face of a unit.
struct UnitFace;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitFace {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        "active"
    }

    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> Vec<u8> {
        vec![0xab; 16]
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
struct ServiceFace(Unit);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceFace {
    /// Before it answers, the proxy's tells of an earlier change.
    #[zbus(property)]
    async fn result(&self, #[zbus(connection)] connection: &Connection) -> &str {
        if self.0 == Unit::Proxy {
            tell_change(connection, HashMap::from([("Result", "core-dump".into())]), HashMap::new()).await;
        }
        "success"
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        // Whoever speaks for the proxy here is this process.
        std::process::id()
    }
}

/// What a socket has besides.
struct SocketFace;

#[interface(name = "org.freedesktop.systemd1.Socket")]
impl SocketFace {
    #[zbus(property)]
    fn result(&self) -> &str {
        "success"
    }

    #[zbus(property)]
    fn listen(&self) -> Vec<(String, String)> {
        vec![("Stream".to_owned(), "127.0.0.1:8459".to_owned())]
    }
}

async fn manager(bus: &Bus, result: &'static str) -> Connection {
    let unit = |name: &str| format!("{MANAGER_PATH}/unit/{name}");
    connection::Builder::address(bus.address())
        .serve_at(MANAGER_PATH, Manager { result })
        .serve_at(unit("codex_proxy_service"), UnitFace)
        .serve_at(unit("codex_proxy_service"), ServiceFace(Unit::Proxy))
        .serve_at(unit("codex_proxy_capped_service"), UnitFace)
        .serve_at(unit("codex_proxy_capped_service"), ServiceFace(Unit::Capped))
        .serve_at(unit("codex_proxy_socket"), UnitFace)
        .serve_at(unit("codex_proxy_socket"), SocketFace)
        .name(units::MANAGER)
        .build()
        .await
        .unwrap()
}

/// The proxy's unit changes, told in two messages as systemd does.
async fn tell_change(manager: &Connection, service: HashMap<&str, Variant<'_>>, unit: HashMap<&str, Variant<'_>>) {
    let path = format!("{MANAGER_PATH}/unit/codex_proxy_service");
    for (interface, changed) in [("Service", service), ("Unit", unit)] {
        let body = (format!("org.freedesktop.systemd1.{interface}"), changed, Vec::<String>::new());
        let of = "org.freedesktop.DBus.Properties";
        manager.emit_signal(None::<&str>, path.as_str(), of, "PropertiesChanged", &body).await.unwrap();
    }
}

struct Watch {
    seen: mpsc::Receiver<Seen>,
    manager: watch::Receiver<Option<u32>>,
    link: watch::Receiver<Option<Connection>>,
    port: watch::Receiver<Option<u16>>,
    tasks: JoinSet<()>,
}

fn watch_units(bus: &Bus) -> Watch {
    let (sender, seen) = mpsc::channel(16);
    let ((link_sender, link), (manager_sender, manager)) = (watch::channel(None), watch::channel(None));
    let (port_sender, port) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let found = units::Found { link: link_sender, manager: manager_sender, port: port_sender };
    tasks.spawn(units::watch(SessionBus::at(bus.address().to_owned()), found, sender));
    Watch { seen, manager, link, port, tasks }
}

impl Watch {
    async fn next(&mut self) -> (Source, Observation) {
        let seen = self.seen.recv().await.unwrap().signal;
        (seen.source, seen.observation)
    }

    async fn until(&mut self, wanted: impl Fn(&Observation) -> bool) -> Observation {
        loop {
            let (_, observation) = self.next().await;
            if wanted(&observation) {
                return observation;
            }
        }
    }

    async fn until_sight(&mut self, blind: bool) {
        self.until(|o| matches!(o, Observation::Sight { of: Source::Units, blind: why } if why.is_some() == blind))
            .await;
    }

    async fn proxy(&mut self) -> UnitState {
        let of_proxy = |o: &Observation| matches!(o, Observation::Unit(state) if state.unit == Unit::Proxy);
        let Observation::Unit(state) = self.until(of_proxy).await else { panic!("a unit") };
        state
    }

    /// It ends by itself when nobody listens.
    async fn end(mut self) {
        drop(self.seen);
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

#[test]
fn units_are_read_and_their_changes_are_told_whole() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let manager = manager(&bus, "done").await;
        let mut watch = watch_units(&bus);
        let limit = Observation::StartLimit { burst: 6, interval_us: 600_000_000 };
        assert_eq!(watch.next().await, (Source::Units, limit));
        let state = watch.proxy().await;
        assert_eq!((state.active, state.result.as_str(), state.pid), (Active::Active, "success", std::process::id()));
        assert_eq!(state.invocation, "ab".repeat(16));
        watch.until_sight(false).await;
        assert_eq!(*watch.manager.borrow(), Some(std::process::id()));
        assert_eq!(*watch.port.borrow(), Some(8459));

        // What was told before the answer came is older than the answer: the next news is of what happens now.
        let service =
            HashMap::from([("Result", "signal".into()), ("MainPID", 0_u32.into()), ("NRestarts", 1_u32.into())]);
        tell_change(&manager, service, HashMap::from([("ActiveState", "activating".into())])).await;
        let state = watch.proxy().await;
        assert_eq!((state.active, state.result.as_str()), (Active::Activating, "signal"));
        assert_eq!((state.pid, state.restarts), (0, 1));
        // After a reload everything is read anew.
        manager
            .emit_signal(None::<&str>, MANAGER_PATH, "org.freedesktop.systemd1.Manager", "Reloading", &false)
            .await
            .unwrap();
        assert_eq!(watch.proxy().await.active, Active::Active);
        // Nobody but the manager is believed: the next news is the true one.
        let other = bus.connect().await;
        tell_change(&other, HashMap::new(), HashMap::from([("ActiveState", "failed".into())])).await;
        tell_change(&manager, HashMap::new(), HashMap::from([("ActiveState", "deactivating".into())])).await;
        assert_eq!(watch.proxy().await.active, Active::Deactivating);
        watch.end().await;
    });
}

#[test]
fn a_lost_bus_and_a_lost_manager_are_blindness_that_ends() {
    let Some(mut bus) = Bus::start() else { return };
    bus::run(async {
        let mut watch = watch_units(&bus);
        watch.until_sight(true).await;
        let first = manager(&bus, "done").await;
        watch.until_sight(false).await;
        drop(first);
        watch.until_sight(true).await;
        let second = manager(&bus, "done").await;
        watch.until_sight(false).await;
        bus.restart();
        drop(second);
        watch.until_sight(true).await;
        watch.link.wait_for(Option::is_none).await.unwrap();
        let _third = manager(&bus, "done").await;
        watch.until_sight(false).await;
        assert!(watch.link.borrow().is_some());
        watch.end().await;
    });
}

#[test]
fn failures_are_believed_of_the_proxys_process_alone() {
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let _manager = manager(&bus, "done").await;
        let mut watch = watch_units(&bus);
        watch.until_sight(false).await;
        let tell = async |from: &Connection, id: &str| {
            let facts = HashMap::from([("model", Variant::from("work")), ("status", 502_u32.into())]);
            let body = (id, "upstream.reset", facts);
            from.emit_signal(None::<&str>, bus::PATH, bus::NAME, "FailureSignal", &body).await.unwrap();
        };
        let proxy = connection::Builder::address(bus.address()).name(bus::NAME).build().await.unwrap();
        let forger = bus.connect().await;
        tell(&forger, "evt_forged").await;
        tell(&proxy, "evt_1").await;
        let (source, Observation::Failure(failure)) = watch.next().await else { panic!("a failure") };
        assert_eq!((source, failure.event_id.as_str()), (Source::Failures, "evt_1"));
        assert_eq!((failure.signal.as_str(), failure.model.as_str(), failure.status), ("upstream.reset", "work", 502));
        // The name's owner serves nothing and answers nothing.
        assert_eq!(probe::ping(Some(&forger)).await, Ping::Silent);
        drop(proxy);
        watch.end().await;
    });
}

#[test]
fn an_action_ends_as_its_own_job_does() {
    for (result, done) in [("done", true), ("failed", false), ("canceled", false), ("refused", false)] {
        let Some(bus) = Bus::start() else { return };
        bus::run(async {
            let _manager = manager(&bus, result).await;
            let connection = SessionBus::at(bus.address().to_owned()).connect().await.unwrap();
            for outcome in [actuators::start_proxy(&connection).await, actuators::restart_proxy(&connection).await] {
                match outcome {
                    Outcome::Done => assert!(done),
                    Outcome::Failed { why } => assert!(!done && (why.contains(result) || result == "refused"), "{why}"),
                    Outcome::Unknown { why } => panic!("{why}"),
                }
            }
        });
    }
    let Some(bus) = Bus::start() else { return };
    bus::run(async {
        let connection = SessionBus::at(bus.address().to_owned()).connect().await.unwrap();
        assert!(matches!(actuators::start_proxy(&connection).await, Outcome::Failed { .. }), "there is no manager");
        assert_eq!(probe::ping(Some(&connection)).await, Ping::Nobody);
    });
}

#[test]
fn what_somebody_else_asked_for_comes_first() {
    let stop = "somebody has asked to stop codex-proxy.service, and that comes first";
    let socket = "somebody has asked to stop codex-proxy.socket, and that comes first";
    let other = "another request to the service manager is in the way, and comes first";
    for (queued, why_not) in [
        ("codex-proxy.service stop", Some(stop)),
        ("codex-proxy.socket stop", Some(socket)),
        // Ended meanwhile: it may have been a stop.
        ("strange.service verify-active", Some(other)),
        ("codex-proxy-capped.service start", None),
    ] {
        let Some(bus) = Bus::start() else { return };
        bus::run(async {
            let _manager = manager(&bus, queued).await;
            let connection = SessionBus::at(bus.address().to_owned()).connect().await.unwrap();
            let expected = why_not.map_or(Outcome::Done, |why| Outcome::Failed { why: why.to_owned() });
            assert_eq!(actuators::start_proxy(&connection).await, expected, "{queued}");
            assert_eq!(actuators::restart_proxy(&connection).await, expected, "{queued}");
        });
    }
}

/// A `journalctl` that does what the script says with its arguments.
fn scripted(home: &std::path::Path, script: &str) -> journal::Settings {
    let program = home.join("journalctl");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings = journal::Settings::new(None, Duration::from_secs(600)).unwrap();
    (settings.program, settings.uid, settings.boot) = (program, 1000, "b0".to_owned());
    settings
}

#[test]
fn the_journal_is_read_back_then_followed() {
    let home = scratch();
    // Read back: one start; followed after it: another, then the child ends and is started again after that one.
    let settings = scripted(
        home.path(),
        r#"start() { echo "{\"__CURSOR\":\"c$1\",\"__REALTIME_TIMESTAMP\":\"$1\",\"__MONOTONIC_TIMESTAMP\":\"$1\",\"_BOOT_ID\":\"b0\",\"_UID\":\"1000\",\"_PID\":\"34\",\"_EXE\":\"/usr/lib/systemd/systemd\",\"_SYSTEMD_USER_UNIT\":\"init.scope\",\"USER_UNIT\":\"codex-proxy.service\",\"MESSAGE_ID\":\"7d4958e842da4a758f6c1cdc7b36dcc5\",\"USER_INVOCATION_ID\":\"0000000000000000000000000000000$1\"}"; }
case "$*" in
*--follow*--after-cursor=c2*) start 3; exec sleep 60;;
*--follow*--after-cursor=c1*) start 2;;
*--follow*) exit 9;;
*) start 1;;
esac"#,
    );
    bus::run(async {
        let (sender, mut seen) = mpsc::channel(16);
        let (_manager, pid) = watch::channel(Some(34));
        let mut tasks = JoinSet::new();
        tasks.spawn(journal::follow(settings, pid, sender));
        let mut told = Vec::new();
        while told.len() < 5 {
            let seen = seen.recv().await.unwrap();
            told.push(match seen.signal.observation {
                Observation::Starting { invocation } => {
                    format!("{} {}", &invocation[31..], seen.cursor.unwrap_or_default())
                }
                Observation::Sight { blind: None, .. } => "sees".to_owned(),
                Observation::StartsKnownSince { .. } => "known".to_owned(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(told, ["1 c1", "sees", "known", "2 c2", "3 c3"]);
        drop(seen);
        tasks.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn how_a_run_ended_is_told_also_when_the_reader_dies_in_between() {
    let home = scratch();
    let settings = scripted(
        home.path(),
        r#"entry() { echo "{\"__CURSOR\":\"c$1\",\"__REALTIME_TIMESTAMP\":\"$1\",\"__MONOTONIC_TIMESTAMP\":\"$1\",\"_BOOT_ID\":\"b0\",\"_UID\":\"1000\",\"_PID\":\"34\",\"_EXE\":\"/usr/lib/systemd/systemd\",\"_SYSTEMD_USER_UNIT\":\"init.scope\",\"USER_UNIT\":\"codex-proxy.service\",\"USER_INVOCATION_ID\":\"00000000000000000000000000000001\",$2}"; }
case "$*" in
*--follow*--after-cursor=c2*) entry 3 '"MESSAGE_ID":"d9b373ed55a64feb8242e02dbe79a49c","UNIT_RESULT":"signal"'; exec sleep 60;;
*--follow*) entry 2 '"MESSAGE_ID":"98e322203f7a4ed290d09fe03c09fe15","COMMAND":"ExecStart","EXIT_CODE":"killed","EXIT_STATUS":"9"';;
*) entry 1 '"MESSAGE_ID":"00000000000000000000000000000000"';;
esac"#,
    );
    bus::run(async {
        let (sender, mut seen) = mpsc::channel(16);
        let (_manager, pid) = watch::channel(Some(34));
        let mut tasks = JoinSet::new();
        tasks.spawn(journal::follow(settings, pid, sender));
        let exit = loop {
            if let Observation::Exit(exit) = seen.recv().await.unwrap().signal.observation {
                break exit;
            }
        };
        assert_eq!((exit.result.as_str(), exit.code, exit.status), ("signal", 2, 9));
        drop(seen);
        tasks.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn a_journal_that_may_not_be_read_is_blindness() {
    let denied = "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1";
    for (script, words) in [(denied, "insufficient permissions"), ("exit 0", "no entry of this user")] {
        let home = scratch();
        let settings = scripted(home.path(), script);
        bus::run(async {
            let (sender, mut seen) = mpsc::channel(16);
            let (_manager, pid) = watch::channel(Some(34));
            let mut tasks = JoinSet::new();
            tasks.spawn(journal::follow(settings, pid, sender));
            let first = seen.recv().await.unwrap().signal.observation;
            let Observation::Sight { of: Source::Journal, blind: Some(why) } = first else { panic!("{first:?}") };
            assert!(why.contains(words), "{why}");
            drop(seen);
            tasks.join_next().await.unwrap().unwrap();
        });
    }
}
