//! What the service manager says about our units, and what follows from it. PURE.
//!
//! `manager.rs` asks, [`parse`] reads the answer, [`judge`] puts it beside what the port and `/health` say; `status.rs`
//! prints the judgement and `control.rs` acts on it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;

use crate::host::portowner::Holder;

/// The unit that holds the port.
pub const SOCKET: &str = "codex-proxy.socket";
/// The port of the proxy's socket, unless something else holds it.
pub const PORT: u16 = 8459;
/// The proxy's unit.
pub const SERVICE: &str = "codex-proxy.service";
/// The unit that answers while the proxy may not be started.
pub const FALLBACK: &str = "codex-proxy-capped.service";
/// Those that serve, as they are shown; `stop` stops them.
pub const SERVING: [&str; 3] = [SOCKET, SERVICE, FALLBACK];
/// The unit that looks after them. It serves nobody: nothing that is said of the proxy depends on it.
pub const WATCHDOG: &str = "codex-watchdog.service";
/// All of ours.
pub const ALL: [&str; 4] = [SOCKET, SERVICE, FALLBACK, WATCHDOG];

/// What [`parse`] wants to be shown of each unit.
pub const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,StateChangeTimestamp,\
                              StatusText,UnitFileState,Environment,EnvironmentFiles,Listen";

/// One unit, in the manager's own words; what it did not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// `codex-proxy.socket`.
    pub name: String,
    /// `loaded`, `not-found` …
    pub load_state: String,
    /// `active`, `activating`, `inactive`, `failed` …
    pub active_state: String,
    /// `running`, `listening`, `auto-restart` …
    pub sub_state: String,
    /// `success`, `signal`, `start-limit-hit` …
    pub result: String,
    /// How often the manager restarted it by itself since it was last started by anybody.
    pub restarts: Option<u32>,
    /// When it last changed its state, as the manager writes times.
    pub since: String,
    /// What the program says of itself.
    pub status_text: String,
    /// `enabled`, `disabled` …
    pub file_state: String,
    /// The names of the variables its unit file sets.
    #[serde(skip)]
    pub variables: Vec<String>,
    /// Whether files set more, which nobody shows.
    #[serde(skip)]
    pub variable_files: bool,
    /// Stream addresses, of a socket.
    pub listen: Vec<SocketAddr>,
}

impl Unit {
    /// Whether there is such a unit at all.
    pub fn is_installed(&self) -> bool {
        self.load_state == "loaded"
    }

    /// Whether it runs, or listens, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading" | "activating" | "refreshing")
    }

    /// Whether the manager has given up on it.
    pub fn has_failed(&self) -> bool {
        self.active_state == "failed"
    }
}

/// The units in what `systemctl show` printed: a paragraph for each, lines `Name=value`.
pub fn parse(shown: &str) -> Vec<Unit> {
    shown.split("\n\n").filter_map(unit).collect()
}

fn unit(paragraph: &str) -> Option<Unit> {
    let mut unit = Unit::default();
    for (name, value) in paragraph.lines().filter_map(|line| line.split_once('=')) {
        let text = value.to_owned();
        match name {
            "Id" => unit.name = text,
            "LoadState" => unit.load_state = text,
            "ActiveState" => unit.active_state = text,
            "SubState" => unit.sub_state = text,
            "Result" => unit.result = text,
            "NRestarts" => unit.restarts = value.parse().ok(),
            "StateChangeTimestamp" => unit.since = text,
            "StatusText" => unit.status_text = text,
            "UnitFileState" => unit.file_state = text,
            // Values may hold blanks and keys; a word of one that looks like an assignment is one name too many.
            "Environment" => unit.variables.extend(variables(value.split_ascii_whitespace())),
            "EnvironmentFiles" => unit.variable_files |= !value.is_empty(),
            "Listen" => {
                unit.listen.extend(value.strip_suffix(" (Stream)").and_then(|value| value.parse::<SocketAddr>().ok()))
            }
            _ => {}
        }
    }
    (!unit.name.is_empty()).then_some(unit)
}

/// The names in `NAME=value` words or lines.
pub fn variables<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.filter_map(|word| Some(word.trim_start_matches('"').split_once('=')?.0.to_owned())).collect()
}

/// Our units together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    /// [`SOCKET`].
    pub socket: Unit,
    /// [`SERVICE`].
    pub service: Unit,
    /// [`FALLBACK`].
    pub fallback: Unit,
    /// [`WATCHDOG`].
    pub watchdog: Unit,
}

impl Units {
    /// Sorts what was shown; a unit that was not is left empty.
    pub fn new(shown: Vec<Unit>) -> Self {
        let mut units = Self::default();
        for unit in shown {
            match unit.name.as_str() {
                SOCKET => units.socket = unit,
                SERVICE => units.service = unit,
                FALLBACK => units.fallback = unit,
                WATCHDOG => units.watchdog = unit,
                _ => {}
            }
        }
        units
    }

    /// Those of [`SERVING`].
    pub fn serving(&self) -> [&Unit; 3] {
        [&self.socket, &self.service, &self.fallback]
    }

    /// Whether the package's units are there.
    pub fn are_installed(&self) -> bool {
        self.socket.is_installed() && self.service.is_installed()
    }

    /// The port of the socket, as its file and drop-ins say.
    pub fn port(&self) -> Option<u16> {
        self.socket.listen.first().map(SocketAddr::port)
    }
}

/// What came of asking `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody was asked: nobody listens, it is a stranger, or asking would start the service.
    NotAsked,
    /// The page.
    Answers(Value),
    /// There was no answer, or not one of ours; why.
    Fails(String),
}

impl Health {
    /// The page, if it is one of ours.
    pub fn page(&self) -> Option<&Value> {
        match self {
            Self::Answers(page) if page["state"].is_string() => Some(page),
            Self::Answers(_) | Self::NotAsked | Self::Fails(_) => None,
        }
    }

    /// The names of the models it tells.
    pub fn models(&self) -> Vec<String> {
        let routes = self.page().and_then(|page| page["routes"].as_array());
        routes.into_iter().flatten().filter_map(|route| route["model"].as_str().map(str::to_owned)).collect()
    }
}

/// What came of asking the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// It was not asked: its unit is not up.
    NotAsked,
    /// What it says of itself.
    Says(Watching),
    /// Its unit is up and it gives no answer; why.
    Fails(String),
}

/// What the watchdog says of itself, in the words of its bus interface; what it did not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Watching {
    /// `watching`, `acting`, `paused`, `observing`.
    pub state: String,
    /// What it cannot see with or keep, a line each.
    pub trouble: String,
    /// How many incidents are open.
    pub open_incidents: Option<u32>,
    /// What it will do unless it is cancelled.
    pub pending_action: Option<Pending>,
}

/// An action that is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// For which incident.
    pub incident: String,
    /// What.
    pub action: String,
    /// When, in microseconds since 1970.
    pub until_usec: Option<u64>,
}

/// What was found out.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The manager's words, or why there are none.
    pub units: Result<Units, String>,
    /// The port that was looked at.
    pub port: u16,
    /// Who listens there.
    pub holder: Holder,
    /// Who asks.
    pub me: u32,
    /// What they say.
    pub health: Health,
    /// What the watchdog says.
    pub watch: Watch,
}

impl Evidence {
    /// Whether `/health` may be asked: of ourselves only, and never where asking would start the service.
    pub fn may_ask(units: Option<&Units>, holder: Holder, me: u32) -> bool {
        let only_the_socket =
            units.is_some_and(|units| units.socket.is_up() && !units.service.is_up() && !units.fallback.is_up());
        holder == Holder::User(me) && !only_the_socket
    }
}

/// How it is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Requests are served.
    Serving,
    /// The socket listens, and the first connection starts the service.
    Waiting,
    /// Nobody is there, and nothing says that somebody should be.
    Stopped,
    /// Requests are not served as they should be.
    Trouble,
}

impl State {
    /// The exit code of `status`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Serving | Self::Waiting => 0,
            Self::Trouble => 1,
            Self::Stopped => 3,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// A sentence.
    pub what: String,
    /// What to do about it: a command, or a few words.
    pub mend: String,
}

/// Puts the evidence together: how it is, and what is wrong, the most telling first.
pub fn judge(evidence: &Evidence) -> (State, Vec<Trouble>) {
    let units = evidence.units.as_ref().ok();
    let mut troubles = Vec::new();
    let mut add = |what: String, mend: &str| troubles.push(Trouble { what, mend: mend.to_owned() });
    let stranger = match evidence.holder {
        Holder::User(uid) if uid != evidence.me => Some(uid),
        Holder::User(_) | Holder::Nobody => None,
    };
    if let Some(uid) = stranger {
        add(
            format!("port {} is held by user {uid}, not by you: nothing is sent there", evidence.port),
            "codex-proxyctl setup    (takes a free port and tells Codex)",
        );
    }
    if let Some(units) = units {
        let capped = units.fallback.is_up() || units.socket.result == "service-start-limit-hit";
        if capped {
            add(
                "the proxy crashed six times in ten minutes and is not started any more".to_owned(),
                "codex-proxyctl recover    (codex-proxyctl logs shows why it crashed)",
            );
        } else if units.service.has_failed() {
            add(format!("{SERVICE} has failed ({})", units.service.result), "codex-proxyctl recover");
        } else if units.socket.has_failed() && stranger.is_none() {
            add(format!("{SOCKET} has failed ({})", units.socket.result), "codex-proxyctl recover");
        }
    }
    match (&evidence.health, evidence.health.page()) {
        (_, Some(page)) if page["state"] == "config-error" => {
            let said = units.map(|units| units.service.status_text.as_str()).filter(|text| !text.is_empty());
            add(
                said.unwrap_or("the configuration cannot be used").to_owned(),
                "codex-proxy --check, mend the file, then systemctl --user reload codex-proxy",
            );
        }
        (Health::Fails(why), _) => {
            add(format!("port {} does not answer as it should: {why}", evidence.port), "codex-proxyctl restart");
        }
        (Health::Answers(_), None) => add(
            format!("another program of yours answers on port {}", evidence.port),
            "end it, or codex-proxyctl setup    (takes a free port and tells Codex)",
        ),
        (Health::NotAsked | Health::Answers(_), _) => {}
    }
    if !troubles.is_empty() {
        return (State::Trouble, troubles);
    }
    if let Some(page) = evidence.health.page() {
        // Requests are served all the same.
        if page["state"] == "degraded" {
            let said = units.map(|units| units.service.status_text.as_str()).filter(|text| !text.is_empty());
            let what = said.unwrap_or("the proxy serves, but cannot keep something it should").to_owned();
            // The page is open to every user, so it does not say which file; one started by hand says it where it runs.
            let mend = match units.is_some_and(|units| units.service.is_up()) {
                true => "codex-proxyctl logs",
                false => "its output, where it was started, names the file and why",
            };
            troubles.push(Trouble { what, mend: mend.to_owned() });
        }
        return (State::Serving, troubles);
    }
    let waiting = units.is_some_and(|units| units.socket.is_up());
    (if waiting { State::Waiting } else { State::Stopped }, troubles)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ME: u32 = 1000;

    fn up(active: &str) -> Unit {
        Unit { load_state: "loaded".to_owned(), active_state: active.to_owned(), ..Unit::default() }
    }

    fn evidence(socket: &str, service: &str, fallback: &str, state: Option<&str>) -> Evidence {
        Evidence {
            units: Ok(Units {
                socket: up(socket),
                service: up(service),
                fallback: up(fallback),
                watchdog: up("failed"),
            }),
            port: 8459,
            holder: if state.is_some() || socket == "active" { Holder::User(ME) } else { Holder::Nobody },
            me: ME,
            health: state.map_or(Health::NotAsked, |state| Health::Answers(json!({"state": state}))),
            watch: Watch::NotAsked,
        }
    }

    #[test]
    fn a_paragraph_is_a_unit() {
        let shown = "Listen=/run/x (Stream)\nListen=127.0.0.1:9000 (Stream)\nId=codex-proxy.socket\nLoadState=loaded\n\
                     ActiveState=active\nUnitFileState=enabled\n\n\
                     Id=codex-proxy.service\nLoadState=loaded\nNRestarts=2\nStatusText=Serving a=b.\n\
                     Environment=A=1 \"B=x y\" C=3\nEnvironmentFiles=\n\nId=codex-proxy-capped.service\nLoadState=not-found\n";
        let units = Units::new(parse(shown));
        assert_eq!(units.port(), Some(9000));
        assert!(units.are_installed() && units.socket.is_up() && !units.fallback.is_installed());
        assert_eq!((units.service.restarts, units.service.status_text.as_str()), (Some(2), "Serving a=b."));
        assert_eq!(
            (units.service.variables, units.service.variable_files),
            (vec!["A".into(), "B".into(), "C".into()], false)
        );
        assert_eq!(parse("\n\nnothing\n"), []);
    }

    #[test]
    fn each_state_has_its_word() {
        let state = |evidence: &Evidence| judge(evidence).0;
        assert_eq!(state(&evidence("active", "active", "inactive", Some("ready"))), State::Serving);
        assert_eq!(state(&evidence("active", "active", "inactive", Some("degraded"))), State::Serving);
        assert_eq!(state(&evidence("active", "inactive", "inactive", None)), State::Waiting);
        assert_eq!(state(&evidence("inactive", "inactive", "inactive", None)), State::Stopped);
        assert_eq!(state(&evidence("inactive", "inactive", "inactive", Some("ready"))), State::Serving, "by hand");
        for trouble in [
            evidence("failed", "failed", "active", Some("degraded")),
            evidence("failed", "failed", "inactive", None),
            evidence("active", "active", "inactive", Some("config-error")),
            Evidence { holder: Holder::User(7), ..evidence("failed", "inactive", "inactive", None) },
            Evidence { health: Health::Fails("x".to_owned()), ..evidence("active", "active", "inactive", None) },
            Evidence { health: Health::Answers(json!({})), ..evidence("inactive", "inactive", "inactive", None) },
        ] {
            assert_eq!(state(&trouble), State::Trouble, "{trouble:?}");
        }
        let no_manager = Evidence { units: Err("no bus".to_owned()), ..evidence("", "", "", Some("ready")) };
        assert_eq!(state(&no_manager), State::Serving);
    }

    #[test]
    fn trouble_names_the_command_that_mends_it() {
        let mend = |evidence: &Evidence| judge(evidence).1[0].mend.clone();
        assert!(mend(&evidence("failed", "failed", "active", Some("degraded"))).contains("recover"));
        assert_eq!(mend(&evidence("active", "active", "inactive", Some("degraded"))), "codex-proxyctl logs");
        assert!(mend(&evidence("inactive", "inactive", "inactive", Some("degraded"))).contains("its output"));
        let stranger = Evidence { holder: Holder::User(7), ..evidence("failed", "inactive", "inactive", None) };
        assert!(mend(&stranger).contains("setup"));
        assert_eq!(judge(&stranger).1.len(), 1, "the failed socket is the same trouble");
    }

    #[test]
    fn asking_never_starts_the_service_nor_meets_a_stranger() {
        let units = |evidence: Evidence| evidence.units.unwrap();
        let waiting = units(evidence("active", "inactive", "inactive", None));
        assert!(!Evidence::may_ask(Some(&waiting), Holder::User(ME), ME));
        let running = units(evidence("active", "active", "inactive", None));
        assert!(Evidence::may_ask(Some(&running), Holder::User(ME), ME));
        assert!(!Evidence::may_ask(Some(&running), Holder::User(7), ME));
        assert!(Evidence::may_ask(None, Holder::User(ME), ME));
    }
}
