//! The fault table: everything the watchdog can name, with its evidence, its answers and what proves them. PURE.
//!
//! The rows are in `catalog/`, one file per letter. From them come, by test, the journal's message catalogue, the table in
//! the documentation and the fault list of the bus interface. Configuration may change a row's numbers, by fault id;
//! never its evidence or its answers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod clients;
mod local;
mod models;
mod process;
mod upstream;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of a row: a letter and a number, `A1` to `E5`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(u8);

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// `A1`.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// Any one of these makes it.
    pub evidence: &'static [Evidence],
    /// How often within `window` before it is one.
    pub threshold: u32,
    /// For the threshold, and for what counts as the same again.
    pub window: Duration,
    /// How urgent it is.
    pub severity: Severity,
    /// The tier that answers first.
    pub start: Tier,
    /// What is done, in this order.
    pub ladder: &'static [Rung],
    /// What proves that it helped.
    pub verify: Verify,
    /// How often it is acted on.
    pub budget: Budget,
    /// For the operator: what it means and what to do.
    pub help: &'static str,
    /// 128 bits in hexadecimal; never changes.
    pub message_id: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
}

/// What makes a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A run of the proxy ended in one of these ways.
    Death(&'static [Cause]),
    /// The manager has given the proxy up.
    GivenUp,
    /// The socket cannot be had, because somebody else has the port.
    PortTaken,
    /// `/health` and `Ping` are both silent, this many probes in a row.
    Silence {
        /// Probes.
        streak: u32,
    },
    /// A failure signal of the proxy, counted by subject.
    Signal {
        /// Its name in `model/signal.rs`.
        name: &'static str,
        /// Whose fault it would be.
        by: By,
    },
    /// Nobody produces the evidence yet, so this cannot fire; says what it would be.
    NotYet(&'static str),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// By a signal from outside: KILL, TERM, INT …
    Killed,
    /// By a signal that a defect raises: SEGV, BUS, ILL, FPE, ABRT, SYS.
    Crashed,
    /// With the exit status of a panic, 101.
    Panicked,
    /// With another exit status, or without being asked to end.
    Exited,
    /// By the manager's watchdog.
    Hung,
    /// For want of memory.
    OutOfMemory,
    /// It never became ready, or did not stop in time.
    TimedOut,
    /// The manager could not start it, or another reason of its own.
    Refused,
}

/// Whose fault a failure signal would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The proxy's own.
    Proxy,
    /// Each route's.
    Route,
    /// Each provider's.
    Provider,
    /// Each account's.
    Account,
    /// Each model's.
    Model,
}

/// How urgent a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Part of the story; nobody need look.
    Info,
    /// Unusual; work goes on.
    Warning,
    /// Work stands still until it is healed.
    Critical,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The rules of this table.
    Rules,
    /// Fixes that helped before.
    Fixes,
    /// A diagnosis by a model.
    Ai,
}

/// One step of a ladder. It is passed over if `when` does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Under which condition.
    pub when: When,
    /// What is done, one after the other.
    pub acts: &'static [Action],
}

/// A condition of a rung, as the brain sees the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// The manager restarts the proxy, or has done so.
    ManagerActs,
    /// The manager has given up.
    GivenUp,
    /// The port's holder is proven to be a leftover of ours.
    StaleHolder,
    /// Nobody else has the port any more.
    PortFree,
    /// The proxy is active, and silent.
    Silent,
    /// The same again, so many times within the window.
    Repeated(u32),
}

/// The closed list of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names are their contract; see `Action::row`")]
pub enum Action {
    RestartProxy,
    StartProxy,
    KillStaleProcesses,
    ClearSchemaCache,
    SwitchProvider,
    IncreaseTimeout,
    RegenerateConfig,
    CleanupCodexStale,
    CleanupPids,
    RefreshToken,
    AlertUser,
    Suggest,
    Ignore,
    RetryNow,
    CheckProxyHealth,
    WaitRetryAfter,
    RetryWithBackoff,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::RestartProxy,
        Self::StartProxy,
        Self::KillStaleProcesses,
        Self::ClearSchemaCache,
        Self::SwitchProvider,
        Self::IncreaseTimeout,
        Self::RegenerateConfig,
        Self::CleanupCodexStale,
        Self::CleanupPids,
        Self::RefreshToken,
        Self::AlertUser,
        Self::Suggest,
        Self::Ignore,
        Self::RetryNow,
        Self::CheckProxyHealth,
        Self::WaitRetryAfter,
        Self::RetryWithBackoff,
    ];

    /// Its word, on the bus and in files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RestartProxy => "restart_proxy",
            Self::StartProxy => "start_proxy",
            Self::KillStaleProcesses => "kill_stale_processes",
            Self::ClearSchemaCache => "clear_schema_cache",
            Self::SwitchProvider => "switch_provider",
            Self::IncreaseTimeout => "increase_timeout",
            Self::RegenerateConfig => "regenerate_config",
            Self::CleanupCodexStale => "cleanup_codex_stale",
            Self::CleanupPids => "cleanup_pids",
            Self::RefreshToken => "refresh_token",
            Self::AlertUser => "alert_user",
            Self::Suggest => "suggest",
            Self::Ignore => "ignore",
            Self::RetryNow => "retry_now",
            Self::CheckProxyHealth => "check_proxy_health",
            Self::WaitRetryAfter => "wait_retry_after",
            Self::RetryWithBackoff => "retry_with_backoff",
        }
    }

    /// Whether it changes anything outside: only such actions are guarded, verified and counted.
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::AlertUser
                | Self::Suggest
                | Self::Ignore
                | Self::CheckProxyHealth
                | Self::WaitRetryAfter
                | Self::RetryWithBackoff
        )
    }

    /// Whether it costs one of the starts that the manager allows.
    pub const fn starts(self) -> bool {
        matches!(self, Self::RestartProxy | Self::StartProxy)
    }

    /// Whether it interrupts work that goes on: announced, and cancellable.
    pub const fn interrupts(self) -> bool {
        matches!(self, Self::RestartProxy | Self::KillStaleProcesses)
    }
}

/// What proves that an action helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// The evidence.
    pub proof: Proof,
    /// It must come within this time after the action.
    pub within: Duration,
    /// And the fault must stay away for this long.
    pub quiet: Duration,
}

/// Positive evidence, on the same subject and after the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// `/health` is answered.
    Serving,
    /// `/health` is answered within a second.
    Prompt,
    /// The manager holds the socket.
    Listening,
    /// A request was completed.
    Completed,
    /// Nothing to prove: the row does not act.
    None,
}

/// How often a row acts, and how long it rests in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Actions.
    pub attempts_max: u32,
    /// Within this time.
    pub per: Duration,
    /// Rest after the first, the second, and every further action.
    pub rest: [Duration; 3],
}

/// 30, 60, then 300 seconds; the fourth time a person is told instead.
pub const BUDGET: Budget = Budget {
    attempts_max: 3,
    per: Duration::from_secs(3600),
    rest: [Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(300)],
};

/// For rows that do not act.
pub const NO_PROOF: Verify = Verify { proof: Proof::None, within: Duration::ZERO, quiet: Duration::ZERO };

/// Every row, in the table's order.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    [process::ROWS, upstream::ROWS, models::ROWS, clients::ROWS, local::ROWS].into_iter().flatten()
}

impl Fault {
    /// Whether its evidence can be produced at all.
    pub fn can_fire(&self) -> bool {
        self.evidence.iter().any(|evidence| !matches!(evidence, Evidence::NotYet(_)))
    }
}

impl FaultId {
    /// The row of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let at = faults().position(|fault| fault.id == name)?;
        u8::try_from(at).ok().map(Self)
    }

    /// The row.
    #[expect(clippy::expect_used, reason = "made by `parse` only, from a position in the same table")]
    pub fn row(self) -> &'static Fault {
        faults().nth(usize::from(self.0)).expect("a position in the table")
    }

    /// `A1`.
    pub fn name(self) -> &'static str {
        self.row().id
    }
}

impl std::fmt::Debug for FaultId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for FaultId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for FaultId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for FaultId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom(format_args!("no such fault: {name}")))
    }
}
