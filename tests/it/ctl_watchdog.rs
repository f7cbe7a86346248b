//! What `codex-proxyctl` asks of the watchdog: a scripted one on a bus of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lints do not know as such")]

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use zbus::{Connection, Variant, connection, interface};

use crate::ctl::{Done, Home};
use crate::ctl_service::{Managed, RUNS, STOPPED, free_port, proxy};
use crate::support::bus::{Bus, Facts};

const NAME: &str = "org.codexproxy.Watchdog1";
const PATH: &str = "/org/codexproxy/Watchdog1";

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing is to be done.
    Quiet,
    /// A restart is announced.
    Pending,
    /// It does not answer `NoteStop`.
    Deaf,
}

/// A watchdog that writes down what it is told.
struct Fake {
    part: Part,
    calls: PathBuf,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.codexproxy.Error")]
enum CallError {
    #[zbus(error)]
    ZBus(zbus::Error),
    NothingPending(String),
}

impl Fake {
    fn wrote(&self, call: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.calls).unwrap();
        writeln!(file, "{call}").unwrap();
    }
}

#[interface(name = "org.codexproxy.Watchdog1")]
impl Fake {
    #[zbus(property)]
    fn state(&self) -> String {
        if self.part == Part::Pending { "acting" } else { "watching" }.to_owned()
    }

    #[zbus(property)]
    fn trouble(&self) -> String {
        if self.part == Part::Pending { "the journal cannot be read\nthe disk is full" } else { "" }.to_owned()
    }

    #[zbus(property)]
    fn open_incidents(&self) -> u32 {
        u32::from(self.part == Part::Pending)
    }

    #[zbus(property)]
    fn pending_action(&self) -> Facts {
        let facts = [
            ("incident", Variant::from("i3")),
            ("action", Variant::from("restart_proxy")),
            ("until_usec", Variant::from(1_795_240_003_000_000_u64)),
        ];
        let facts = facts.into_iter().filter(|_| self.part == Part::Pending);
        facts.map(|(name, value)| (name.to_owned(), value.try_to_owned().unwrap())).collect::<HashMap<_, _>>()
    }

    fn cancel(&self, id: &str) -> Result<(), CallError> {
        self.wrote(&format!("Cancel {id}"));
        if self.part == Part::Pending {
            Ok(())
        } else {
            Err(CallError::NothingPending("It was sent already.".to_owned()))
        }
    }

    fn pause(&self, seconds: u64, reason: &str) {
        self.wrote(&format!("Pause {seconds} {reason:?}"));
    }

    fn resume(&self) {
        self.wrote("Resume");
    }

    async fn note_stop(&self) {
        self.wrote("NoteStop");
        if self.part == Part::Deaf {
            std::future::pending::<()>().await;
        }
    }
}

/// A bus with a watchdog on it.
struct Watched {
    bus: Bus,
    _connection: Connection,
    /// It answers while a program is waited for.
    _runtime: Runtime,
}

impl Watched {
    fn start(part: Part, home: &Home) -> Option<Self> {
        let bus = Bus::start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = Fake { part, calls: home.path("calls") };
        let building = async {
            let builder = connection::Builder::address(bus.address()).serve_at(PATH, fake).name(NAME);
            builder.build().await.unwrap()
        };
        let connection = runtime.block_on(building);
        Some(Self { bus, _connection: connection, _runtime: runtime })
    }

    fn ctl(&self, home: &Home, arguments: &[&str]) -> Done {
        on(&self.bus, home, arguments)
    }
}

fn on(bus: &Bus, home: &Home, arguments: &[&str]) -> Done {
    home.ctl_with(arguments, &[("DBUS_SESSION_BUS_ADDRESS", bus.address())])
}

/// Adds the watchdog's unit to what the manager shows.
fn install_watchdog(managed: &Managed, state: &str) {
    for shown in ["before", "after"] {
        let mut file = OpenOptions::new().append(true).open(managed.home.path(shown)).unwrap();
        let unit = "Result=success\nStatusText=Watching.\nUnitFileState=enabled";
        writeln!(file, "\nId=codex-watchdog.service\nLoadState=loaded\nActiveState={state}\nSubState=running\n{unit}")
            .unwrap();
    }
}

fn calls(home: &Home) -> String {
    std::fs::read_to_string(home.path("calls")).unwrap_or_default()
}

#[test]
fn what_is_announced_is_cancelled() {
    let home = Home::new();
    let Some(watched) = Watched::start(Part::Pending, &home) else { return };
    let done = watched.ctl(&home, &["cancel"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.starts_with("i3: restart_proxy is given up"), "{done:?}");
    assert_eq!(watched.ctl(&home, &["cancel", "12"]).code, Some(0));
    assert_eq!(calls(&home), "Cancel i3\nCancel i12\n");
    assert_eq!(watched.ctl(&home, &["cancel", "x"]).code, Some(2));
}

#[test]
fn where_nothing_is_announced_nothing_is_cancelled() {
    let home = Home::new();
    let Some(watched) = Watched::start(Part::Quiet, &home) else { return };
    let done = watched.ctl(&home, &["cancel"]);
    assert_eq!((done.code, done.stderr.contains("nothing is announced")), (Some(1), true), "{done:?}");
    assert_eq!(calls(&home), "");
    let done = watched.ctl(&home, &["cancel", "i1"]);
    assert_eq!((done.code, done.stderr.contains("It was sent already.")), (Some(1), true), "{done:?}");
}

#[test]
fn a_pause_has_an_end() {
    let home = Home::new();
    let Some(watched) = Watched::start(Part::Quiet, &home) else { return };
    for arguments in [["pause"].as_slice(), &["pause", "30s", "--reason", "an update"], &["pause", "7d"], &["resume"]] {
        let done = watched.ctl(&home, arguments);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    }
    assert_eq!(calls(&home), "Pause 3600 \"\"\nPause 30 \"an update\"\nPause 604800 \"\"\nResume\n");
    for wrong in ["8d", "0s", "long", "10"] {
        assert_eq!(watched.ctl(&home, &["pause", wrong]).code, Some(2), "{wrong}");
    }
}

#[test]
fn without_a_watchdog_the_error_says_what_to_do() {
    let Some(bus) = Bus::start() else { return };
    let home = Home::new();
    for command in ["cancel", "pause", "resume"] {
        let done = on(&bus, &home, &[command]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("systemctl --user start codex-watchdog"), "{done:?}");
        let done = home.ctl(&[command]);
        assert_eq!((done.code, done.stderr.contains("session bus")), (Some(1), true), "{done:?}");
    }
}

#[test]
fn a_stop_is_told_to_the_watchdog_first_and_leaves_it_running() {
    for part in [Part::Quiet, Part::Deaf] {
        let managed = Managed::new(free_port(), RUNS, "stop", STOPPED);
        install_watchdog(&managed, "active");
        let Some(watched) = Watched::start(part, &managed.home) else { return };
        let done = watched.ctl(&managed.home, &["stop"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let calls = managed.calls();
        let at = |call: &str| calls.find(call).unwrap_or_else(|| panic!("{call}: {calls}"));
        assert!(at("NoteStop") < at("stop codex-proxy.socket codex-proxy.service codex-proxy-capped.service\n"));
        assert!(!calls.contains("stop codex-watchdog"), "{calls}");
    }
    // No watchdog, no bus: it stops all the same.
    let managed = Managed::new(free_port(), RUNS, "stop", STOPPED);
    let done = managed.home.ctl(&["stop"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn the_status_has_a_line_for_the_watchdog() {
    let server = proxy();
    let managed = Managed::still(server.port, RUNS);
    assert!(!managed.home.ctl(&["status"]).stdout.contains("watchdog"), "it is not installed");
    install_watchdog(&managed, "active");
    let Some(watched) = Watched::start(Part::Pending, &managed.home) else { return };
    let done = watched.ctl(&managed.home, &["status"]);
    let line = "codex-watchdog.service: active (running), acting, 1 incident open (codex-proxyctl incidents list --open); \
                about to restart_proxy for i3 (codex-proxyctl cancel); trouble: the journal cannot be read; the disk is full\n";
    assert!(done.stdout.contains(line), "{done:?}");
    assert_eq!(done.code, Some(0), "the proxy serves");
    let report: Value = serde_json::from_str(&watched.ctl(&managed.home, &["status", "--json"]).stdout).unwrap();
    assert_eq!(report["units"].as_array().unwrap().len(), 3);
    let watchdog = &report["watchdog"];
    assert_eq!((&watchdog["unit"]["active_state"], &watchdog["error"]), (&json!("active"), &Value::Null));
    let pending = json!({"incident": "i3", "action": "restart_proxy", "until_usec": 1_795_240_003_000_000_u64});
    let says = json!({"state": "acting", "open_incidents": 1, "pending_action": pending,
                      "trouble": "the journal cannot be read\nthe disk is full"});
    assert_eq!(watchdog["says"], says);
    let done = watched.ctl(&managed.home, &["doctor"]);
    assert!(done.stdout.contains("warn  watchdog: it does not see or keep everything: the journal cannot"), "{done:?}");

    // Its unit is up, and nobody is on the bus.
    let Some(empty) = Bus::start() else { return };
    let done = on(&empty, &managed.home, &["status"]);
    assert!(done.stdout.contains("active (running); it is not on the session bus"), "{done:?}");
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_watchdog_that_failed_changes_nothing_about_the_proxy() {
    let server = proxy();
    let managed = Managed::still(server.port, RUNS);
    install_watchdog(&managed, "failed");
    let done = managed.home.ctl(&["status"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("codex-watchdog.service: failed (running); nobody looks after"), "{done:?}");
    assert!(done.stdout.starts_with("codex-proxy serves on"), "{done:?}");
}
