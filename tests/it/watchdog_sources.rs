//! What the watchdog sees with and acts by, on a bus of its own with a scripted service manager, and with a scripted
//! `journalctl`.

use crate::support::bus::{self, Bus};
use crate::support::manager::{self, Manager, State};
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
use zbus::{Connection, Variant, connection};

/// Nobody listens there: what is looked at here asks no port.
const PORT: u16 = 9;

/// A manager that runs the proxy, which is this process.
async fn manager(bus: &Bus, result: &'static str) -> Manager {
    let manager = Manager::start(bus, PORT, result).await;
    for unit in Unit::ALL {
        manager.set(unit, |state| (state.active, state.invocation, state.pid) = ("active", 0xab, std::process::id()));
    }
    manager
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
        manager.tells_late();
        let mut watch = watch_units(&bus);
        let limit = Observation::StartLimit { burst: 6, interval_us: 600_000_000 };
        assert_eq!(watch.next().await, (Source::Units, limit));
        let state = watch.proxy().await;
        assert_eq!((state.active, state.result.as_str(), state.pid), (Active::Active, "success", std::process::id()));
        assert_eq!(state.invocation, "ab".repeat(16));
        watch.until_sight(false).await;
        assert_eq!(*watch.manager.borrow(), Some(std::process::id()));
        assert_eq!(*watch.port.borrow(), Some(PORT));

        // What was told before the answer came is older than the answer: the next news is of what happens now.
        let died = |state: &mut State| {
            (state.active, state.result) = ("activating", "signal");
            (state.pid, state.restarts) = (0, 1);
        };
        manager.change(Unit::Proxy, died).await;
        let state = watch.proxy().await;
        assert_eq!((state.active, state.result.as_str()), (Active::Activating, "signal"));
        assert_eq!((state.pid, state.restarts), (0, 1));
        // After a reload everything is read anew.
        manager.set(Unit::Proxy, |state| state.active = "active");
        manager.reloaded().await;
        assert_eq!(watch.proxy().await.active, Active::Active);
        // Nobody but the manager is believed: the next news is the true one.
        let other = bus.connect().await;
        manager::tell(&other, Unit::Proxy, State { active: "failed", ..State::INACTIVE }).await;
        manager.change(Unit::Proxy, |state| state.active = "deactivating").await;
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
    // Read back: one start, and all starts once more by number; followed after it: another, then the child ends and is
    // started again after that one.
    let settings = scripted(
        home.path(),
        r#"start() { echo "{\"__CURSOR\":\"c$1\",\"__REALTIME_TIMESTAMP\":\"$1\",\"__MONOTONIC_TIMESTAMP\":\"$1\",\"_BOOT_ID\":\"b0\",\"_UID\":\"1000\",\"_PID\":\"34\",\"_EXE\":\"/usr/lib/systemd/systemd\",\"_SYSTEMD_USER_UNIT\":\"init.scope\",\"USER_UNIT\":\"codex-proxy.service\",\"MESSAGE_ID\":\"7d4958e842da4a758f6c1cdc7b36dcc5\",\"USER_INVOCATION_ID\":\"0000000000000000000000000000000$1\"}"; }
case "$*" in
*--follow*--after-cursor=c2*) start 3; exec sleep 60;;
*--follow*--after-cursor=c1*) start 2;;
*--follow*) exit 9;;
*--lines=256*MESSAGE_ID=*) start 0; start 1;;
*) start 1;;
esac"#,
    );
    bus::run(async {
        let (sender, mut seen) = mpsc::channel(16);
        let (_manager, pid) = watch::channel(Some(34));
        let mut tasks = JoinSet::new();
        tasks.spawn(journal::follow(settings, pid, sender));
        let mut told = Vec::new();
        while told.len() < 7 {
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
        assert_eq!(told, ["1 c1", "0 ", "1 ", "sees", "known", "2 c2", "3 c3"]);
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
