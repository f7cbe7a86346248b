//! The built watchdog in a home of its own, with a scripted `journalctl`, and a client that looks at it on a bus.

use super::bus::{self, Bus, Facts, Signals};
use super::events::DEADLINE;
use super::process::Running;
use super::proxy::isolated;
use super::{quiet_env, scratch};
use codex_proxy::watchdog::face::{NAME, PATH};
use codex_proxy::watchdog::sources::now;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use zbus::{Connection, MatchRule};

const PROGRAM: &str = env!("CARGO_BIN_EXE_codex-watchdog");
/// Stands in the file that holds the proxy's token.
const TOKEN: &str = "planted-token-0123456789";
/// A journal with one entry of no interest; its follower ends with the watchdog.
const JOURNALCTL: &str = "#!/bin/sh\ncase \"$*\" in\n*--follow*) exec tail --pid=$PPID -f /dev/null;;\n\
                          *--lines=1*) echo '{}';;\nesac\n";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A user's home.
pub struct Home(tempfile::TempDir);

impl Home {
    /// With a token, and a journal.
    pub fn new() -> Self {
        let home = Self(scratch());
        isolated(home.0.path());
        let state = home.state();
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(state.join("token"), TOKEN).unwrap();
        let journalctl = home.0.path().join("bin/journalctl");
        std::fs::create_dir(journalctl.parent().unwrap()).unwrap();
        std::fs::write(&journalctl, JOURNALCTL).unwrap();
        std::fs::set_permissions(&journalctl, PermissionsExt::from_mode(0o755)).unwrap();
        home
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the watchdog keeps its files.
    pub fn state(&self) -> PathBuf {
        self.0.path().join("state/codex-proxy")
    }

    /// Writes the configuration.
    pub fn configure(&self, toml: &str) -> PathBuf {
        let file = self.0.path().join("config/codex-proxy/config.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, toml).unwrap();
        file
    }

    /// A program of ours, as this user runs it.
    pub fn command(&self, program: &str, bus: &Bus, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let mut variables = quiet_env();
        let path = format!("{}:{}", self.0.path().join("bin").display(), variables.remove(0).1);
        command
            .env_clear()
            .envs(variables)
            .env("PATH", path)
            .envs(isolated(self.0.path()))
            .env("DBUS_SESSION_BUS_ADDRESS", bus.address())
            .args(arguments);
        command
    }

    /// `codex-proxyctl ARGUMENTS --json`
    pub fn ctl(&self, bus: &Bus, arguments: &[&str]) -> Value {
        let mut command = self.command(env!("CARGO_BIN_EXE_codex-proxyctl"), bus, arguments);
        let output = command.arg("--json").output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Runs the watchdog to its end.
    pub fn run(&self, bus: &Bus, arguments: &[&str]) -> Output {
        self.command(PROGRAM, bus, arguments).output().unwrap()
    }

    /// Tells an export again.
    pub fn replay(&self, bus: &Bus, export: &[u8]) -> String {
        let mut command = self.command(PROGRAM, bus, &["replay", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(export).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the watchdog.
    pub fn start(&self, bus: &Bus, arguments: &[&str]) -> Running {
        Running::start("the watchdog", &mut self.command(PROGRAM, bus, arguments))
    }

    /// All that the journal of incidents holds.
    pub fn kept(&self) -> String {
        let read = |name| std::fs::read_to_string(self.state().join(name)).unwrap_or_default();
        read("incidents.1.jsonl") + &read("incidents.jsonl")
    }

    /// How many lines of the journal of incidents are facts of that kind, `opened`.
    pub fn facts(&self, kind: &str) -> usize {
        let fact = format!("\"fact\":{{\"{kind}\":");
        self.kept().lines().filter(|line| line.contains(&fact)).count()
    }

    /// What is the proxy's is no matter of the watchdog's: neither its token nor anything else of it is told or kept.
    pub fn no_secret_in(&self, log: &str) {
        for text in [log, &self.kept()] {
            assert!(!text.contains(TOKEN), "{text}");
        }
    }
}

/// A running watchdog, and a client on its bus.
pub struct Watchdog {
    pub running: Running,
    pub client: Client,
}

impl Watchdog {
    /// Starts one and waits until it has its name.
    pub async fn start(home: &Home, bus: &Bus) -> Self {
        let running = home.start(bus, &[]);
        let client = Client::connect(bus).await;
        client.until_named().await;
        Self { running, client }
    }

    /// Kills it, with no time for anything.
    pub fn kill(mut self) -> Client {
        self.running.signal(Signal::SIGKILL);
        self.running.wait_exit();
        self.client
    }

    /// Stops it in order, and gives all that it has printed.
    pub fn stop(mut self, home: &Home) -> String {
        self.running.signal(Signal::SIGTERM);
        assert!(self.running.wait_exit().success(), "{}", self.running.log());
        let log = self.running.log();
        home.no_secret_in(&log);
        log
    }
}

/// What the watchdog told in a signal.
#[derive(Debug)]
pub struct Told {
    pub member: String,
    /// Of which incident.
    pub id: String,
    /// The second argument, if it is a text: an action, or what a person is told.
    pub text: String,
    /// The last argument, if it is an `a{sv}`.
    pub facts: Facts,
    /// The last argument, if it is a time.
    pub until_usec: u64,
}

/// One who looks at the watchdog.
pub struct Client {
    pub connection: Connection,
    signals: Signals,
}

impl Client {
    pub async fn connect(bus: &Bus) -> Self {
        let connection = bus.connect().await;
        let signals = Signals::like(&connection, MatchRule::builder().path(PATH).interface(NAME)).await;
        Self { connection, signals }
    }

    /// Waits until the watchdog has its name.
    pub async fn until_named(&self) {
        let rule = MatchRule::builder().interface("org.freedesktop.DBus").member("NameOwnerChanged").arg(0, NAME);
        let mut owners = Signals::like(&self.connection, rule).await;
        let names = zbus::fdo::DBusProxy::new(&self.connection).await.unwrap();
        while !names.name_has_owner(NAME.try_into().unwrap()).await.unwrap() {
            owners.next(DEADLINE).await.expect("the watchdog takes its name");
        }
    }

    /// Its generic face.
    pub async fn face(&self) -> zbus::Proxy<'static> {
        bus::face(&self.connection, NAME, PATH).await
    }

    pub async fn call<A, T>(&self, method: &'static str, arguments: &A) -> zbus::Result<T>
    where
        A: serde::Serialize + zbus::wire::DynamicType,
        T: for<'a> zbus::wire::DynamicDeserialize<'a>,
    {
        self.face().await.call(method, arguments).await
    }

    pub async fn get<T: DeserializeOwned + zbus::Type>(&self, property: &str) -> T {
        self.face().await.get_property(property).await.unwrap()
    }

    /// Waits until a property is as wanted; each change of it must be told.
    pub async fn until<T>(&self, property: &str, wanted: impl Fn(&T) -> bool) -> T
    where
        T: DeserializeOwned + zbus::Type + std::fmt::Debug,
    {
        let rule = MatchRule::builder().path(PATH).interface(PROPERTIES).member("PropertiesChanged");
        let mut changes = Signals::like(&self.connection, rule).await;
        loop {
            let value = self.get(property).await;
            if wanted(&value) {
                return value;
            }
            assert!(changes.next(DEADLINE).await.is_some(), "{property} stays {value:?}");
        }
    }

    /// The next signal, which is this one.
    pub async fn next(&mut self, member: &str) -> Told {
        let message = self.signals.next(DEADLINE).await.unwrap_or_else(|| panic!("{member} is told"));
        let header = message.header();
        let mut told = Told {
            member: header.member().unwrap().to_string(),
            id: String::new(),
            text: String::new(),
            facts: Facts::new(),
            until_usec: 0,
        };
        let body = message.body();
        match told.member.as_str() {
            "IncidentOpened" | "IncidentClosed" => (told.id, told.facts) = body.deserialize().unwrap(),
            "Alert" | "ActionFinished" => (told.id, told.text, told.facts) = body.deserialize().unwrap(),
            "ActionPending" => (told.id, told.text, told.until_usec) = body.deserialize().unwrap(),
            other => panic!("{other}"),
        }
        assert_eq!(told.member, member, "{told:?}");
        told
    }

    /// The story of an incident without its times.
    pub async fn story(&self, id: &str) -> String {
        let mut incident: Facts = self.call("GetIncident", &id).await.unwrap();
        let story = Vec::<String>::try_from(incident.remove("story").unwrap()).unwrap();
        story.iter().map(|line| format!("{}\n", fact(line))).collect()
    }
}

/// A line of a story without time and incident.
pub fn fact(line: &str) -> &str {
    line.trim_start().splitn(3, "  ").nth(2).unwrap_or_else(|| panic!("{line}"))
}

/// Whether a moment is so many seconds ahead, or a second less.
pub fn is_ahead(until_usec: u64, seconds: u64) -> bool {
    let left_usec = until_usec.saturating_sub(now().wall_us);
    left_usec <= seconds * 1_000_000 && left_usec + 1_000_000 > seconds * 1_000_000
}
