//! The common shape of evidence: what a source saw, when, and of what. PURE.
//!
//! Sources make [`Signal`]s; `classify.rs` names the fault behind them. A source that cannot see says so with
//! [`Observation::Sight`]: what is not seen is unknown, never healthy.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

/// Microseconds in a second.
pub const SECOND_US: u64 = 1_000_000;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// `CLOCK_MONOTONIC` in microseconds: every interval is measured by it, as the service manager does.
    pub mono_us: u64,
    /// Microseconds since 1970: what people read. It may jump.
    pub wall_us: u64,
}

impl Time {
    /// Microseconds since `earlier`; 0 if that is later.
    pub fn since_us(self, earlier: Self) -> u64 {
        self.mono_us.saturating_sub(earlier.mono_us)
    }

    /// The moment `us` microseconds later.
    pub fn plus_us(self, us: u64) -> Self {
        Self { mono_us: self.mono_us.saturating_add(us), wall_us: self.wall_us.saturating_add(us) }
    }
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// When the source saw it.
    pub at: Time,
    /// Who saw it.
    pub source: Source,
    /// What was seen.
    pub observation: Observation,
}

/// Where evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The service manager, over the bus.
    Units,
    /// `GET /health` and `Ping`.
    Probe,
    /// The journal, trusted fields.
    Journal,
    /// `FailureSignal` of the proxy, over the bus.
    Failures,
    /// `/proc`.
    Processes,
}

/// A unit of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// `codex-proxy.service`.
    Proxy,
    /// `codex-proxy.socket`.
    Socket,
    /// `codex-proxy-capped.service`.
    Capped,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Proxy, Self::Socket, Self::Capped];

    /// The unit's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "codex-proxy.service",
            Self::Socket => "codex-proxy.socket",
            Self::Capped => "codex-proxy-capped.service",
        }
    }
}

/// What an incident is about. Actions on one subject never overlap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The proxy's process, its unit and its port.
    Proxy,
    /// One place that serves models, `provider/model`.
    Route(String),
    /// One provider.
    Provider(String),
    /// One account, `provider/name`.
    Account(String),
    /// One model, as clients name it.
    Model(String),
    /// One Codex process or unit.
    Codex(String),
    /// One file.
    File(String),
    /// The watchdog itself and what it sees with.
    Watchdog,
}

impl Subject {
    /// What kind of thing it is, without its name.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Route(_) => "route",
            Self::Provider(_) => "provider",
            Self::Account(_) => "account",
            Self::Model(_) => "model",
            Self::Codex(_) => "codex",
            Self::File(_) => "file",
            Self::Watchdog => "watchdog",
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proxy | Self::Watchdog => f.write_str(self.kind()),
            Self::Route(name)
            | Self::Provider(name)
            | Self::Account(name)
            | Self::Model(name)
            | Self::Codex(name)
            | Self::File(name) => write!(f, "{} {name}", self.kind()),
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// A unit, as the manager describes it.
    Unit(UnitState),
    /// How often the proxy may be started: `StartLimitBurst=`, `StartLimitIntervalUSec=`.
    StartLimit {
        /// Starts.
        burst: u32,
        /// Within this many microseconds.
        interval_us: u64,
    },
    /// The manager began a start of the proxy (its journal entry "Starting"); the id of the run.
    Starting {
        /// The manager's invocation id, 32 hexadecimal digits.
        invocation: String,
    },
    /// The record of starts is complete from this moment on.
    StartsKnownSince {
        /// `CLOCK_MONOTONIC` in microseconds.
        mono_us: u64,
    },
    /// A run of the proxy ended (the manager's journal entry).
    Exit(Exit),
    /// What a `GET /health` met.
    Health(Health),
    /// What `Ping` on the bus met.
    Ping(Ping),
    /// Who listens on the proxy's port.
    Port(Port),
    /// The proxy reported a failure.
    Failure(Failure),
    /// Words in the journal that any process could have written: worth an incident, never an action.
    Words {
        /// Which signature fitted.
        signature: String,
    },
    /// Whether a source sees.
    Sight {
        /// Of which source.
        of: Source,
        /// Why it does not; `None` if it does.
        blind: Option<String>,
    },
}

/// A unit's `ActiveState`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Active {
    /// Runs.
    Active,
    /// Is being started, or waits for its restart.
    Activating,
    /// Is being stopped.
    Deactivating,
    /// Stopped, by somebody's wish.
    Inactive,
    /// Given up by the manager.
    Failed,
    /// Nobody could say.
    #[default]
    Unknown,
}

impl Active {
    /// The manager's word; `reloading` and `refreshing` run.
    pub fn parse(word: &str) -> Self {
        match word {
            "active" | "reloading" | "refreshing" => Self::Active,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

/// One unit at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Which.
    pub unit: Unit,
    /// Its state.
    pub active: Active,
    /// `success`, `signal`, `exit-code`, `watchdog`, `oom-kill`, `start-limit-hit`, `resources` …
    pub result: String,
    /// The id of the run; empty before the first.
    pub invocation: String,
    /// Restarts by the manager since the last start by anybody.
    pub restarts: u32,
    /// Its main process; 0: none.
    pub pid: u32,
    /// `waitid(2)`'s code of the last end: 1 exited, 2 killed, 3 dumped; 0: none yet.
    pub exit_code: i32,
    /// Exit status or number of the signal.
    pub exit_status: i32,
}

/// How one run of the proxy ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The run.
    pub invocation: String,
    /// The manager's word for the result; `success` for an end without fault.
    pub result: String,
    /// As in [`UnitState`].
    pub code: i32,
    /// As in [`UnitState`].
    pub status: i32,
}

/// What a `GET /health` met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The proxy answered 200.
    Served {
        /// Until the answer was complete.
        elapsed_us: u64,
        /// The answering process, by the peer credentials of the bus or the manager; 0 if unknown.
        pid: u32,
    },
    /// Connected, and no byte within the limit.
    Silent,
    /// Refused.
    Refused,
    /// No connection within the limit: the backlog is full, which is load, not death.
    Backlog,
    /// Connected and cut off.
    Dropped,
    /// Something else answered.
    Foreign,
    /// The probe could not be made: nothing follows from it.
    Unknown,
}

/// What `Ping` met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ping {
    /// Answered.
    Answered,
    /// Nothing within two seconds.
    Silent,
    /// Nobody has the name.
    Nobody,
    /// No bus, or an error of another kind.
    Unknown,
}

/// Who listens on the proxy's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// Nobody.
    Free,
    /// The manager for us, or a unit of ours.
    Ours,
    /// A process of this user's with our program, in none of our units, without a terminal: proven.
    Stale(Process),
    /// A process of this user's, not proven to be a leftover of ours.
    Other(Process),
    /// Another user.
    User {
        /// Its id.
        uid: u32,
    },
    /// It cannot be told.
    Unknown,
}

/// A process, named so that no other can be taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// Its program, without " (deleted)".
    pub exe: String,
    /// The inode of the listening socket.
    pub inode: u64,
    /// Whether it has a controlling terminal: somebody may be looking at it.
    pub terminal: bool,
}

/// A failure signal of the proxy (`model/signal.rs`), from the bus or the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `event_id` on the bus, `CODEX_EVENT_ID` in the journal: one event counts once.
    pub event_id: String,
    /// `panic`, `upstream.reset` …
    pub signal: String,
    /// Empty if unknown, as all below.
    pub request_id: String,
    /// The thread.
    pub thread_id: String,
    /// The model.
    pub model: String,
    /// The route.
    pub route: String,
    /// The provider.
    pub provider: String,
    /// The account.
    pub account: String,
    /// The provider's status; 0: none.
    pub status: u32,
    /// `request`, `waiting`, `streaming`.
    pub phase: String,
}
