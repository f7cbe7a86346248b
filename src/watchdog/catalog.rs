//! The fault table: everything the watchdog can name, with its evidence, its answers and what proves them. PURE.
//!
//! The rows are in `catalog/`, one file per letter. From them come, by test, the journal's message catalogue, the table in
//! the documentation and the fault list of the bus interface. Configuration may change a row's numbers, by fault id;
//! never its evidence or its answers.
//!
//! A row whose evidence nobody produces yet stands here all the same, so that ids, texts and message ids never move; it
//! cannot fire.
#![doc = include_str!("FAULTS.md")]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod clients;
mod derived;
mod local;
mod models;
mod process;
mod upstream;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::derived::{Word, answers, message_catalogue, table, verified_by, words};

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
    /// Words in the journal that any process could have written. A row that goes by them tells a person and does nothing
    /// else, by rule or on advice: the compiler refuses one that would.
    Words {
        /// The name of the signature that fitted.
        signature: &'static str,
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

impl Cause {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Crashed => "crashed",
            Self::Panicked => "panicked",
            Self::Exited => "exited",
            Self::Hung => "hung",
            Self::OutOfMemory => "out-of-memory",
            Self::TimedOut => "timed-out",
            Self::Refused => "refused",
        }
    }
}

impl Severity {
    /// Its word, on the bus and in files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
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

impl Tier {
    /// Its name in a story.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Fixes => "fixes",
            Self::Ai => "ai",
        }
    }
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
    /// Nobody can tell it yet, so this never holds; says what it would be.
    NotYet(&'static str),
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

    /// What it is, in words that complete "decided to …".
    pub const fn words(self) -> &'static str {
        match self {
            Self::RestartProxy => "restart the proxy",
            Self::StartProxy => "start the proxy",
            Self::KillStaleProcesses => "end the leftover of ours that holds the port",
            Self::ClearSchemaCache => "forget what was learnt of a provider's refusals",
            Self::SwitchProvider => "take another route",
            Self::IncreaseTimeout => "wait longer for the provider",
            Self::RegenerateConfig => "put our keys in Codex's config.toml right",
            Self::CleanupCodexStale => "end what a Codex left running",
            Self::CleanupPids => "remove records of processes that are gone",
            Self::RefreshToken => "refresh the login",
            Self::AlertUser => "tell a person",
            Self::Suggest => "suggest something",
            Self::Ignore => "do nothing",
            Self::RetryNow => "try again at once",
            Self::CheckProxyHealth => "see whether the proxy serves",
            Self::WaitRetryAfter => "wait as long as the provider asks",
            Self::RetryWithBackoff => "try again, each time later",
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

    /// Whether a fix that helped before, or a model, may choose it. The others that change something are for a rule or a
    /// person; chosen all the same, they are a suggestion.
    pub const fn may_be_advised(self) -> bool {
        self.changes() && !matches!(self, Self::KillStaleProcesses | Self::RegenerateConfig | Self::CleanupCodexStale)
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
    /// What was wrong was looked at again, and is right: a file valid, a record true, two values equal.
    Repaired,
    /// Nothing to prove: the row does not act.
    None,
}

impl Proof {
    /// What was seen, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Serving => "it serves",
            Self::Prompt => "it answers within a second",
            Self::Listening => "the socket is held",
            Self::Completed => "a request was completed",
            Self::Repaired => "it was looked at again, and is right",
            Self::None => "nothing was to be proven",
        }
    }
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

/// The next request on the subject is completed, and the fault stays away. Without traffic nothing is proven.
const COMPLETED: Verify =
    Verify { proof: Proof::Completed, within: Duration::from_secs(600), quiet: Duration::from_secs(300) };

/// What was mended is looked at again at once.
const REPAIRED: Verify =
    Verify { proof: Proof::Repaired, within: Duration::from_secs(10), quiet: Duration::from_secs(600) };

/// For rows that do not act.
pub const NO_PROOF: Verify = Verify { proof: Proof::None, within: Duration::ZERO, quiet: Duration::ZERO };

/// Whether one of the rows could be made to change something by words that anybody may write.
const fn acts_on_words(rows: &[Fault]) -> bool {
    let mut row = 0;
    while row < rows.len() {
        if rows[row].goes_by_words() && rows[row].changes() {
            return true;
        }
        row += 1;
    }
    false
}

const _: () = assert!(
    !acts_on_words(process::ROWS)
        && !acts_on_words(upstream::ROWS)
        && !acts_on_words(models::ROWS)
        && !acts_on_words(clients::ROWS)
        && !acts_on_words(local::ROWS),
    "a row goes by words that anybody may write, and changes something"
);

/// Every row, in the table's order.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    [process::ROWS, upstream::ROWS, models::ROWS, clients::ROWS, local::ROWS].into_iter().flatten()
}

impl Fault {
    /// Whether its evidence can be produced at all.
    pub fn can_fire(&self) -> bool {
        self.evidence.iter().any(|evidence| !matches!(evidence, Evidence::NotYet(_)))
    }

    /// Whether words that anybody may write are enough for it.
    pub const fn goes_by_words(&self) -> bool {
        let mut at = 0;
        while at < self.evidence.len() {
            if matches!(self.evidence[at], Evidence::Words { .. }) {
                return true;
            }
            at += 1;
        }
        false
    }

    /// Whether one of its rungs changes anything.
    pub const fn changes(&self) -> bool {
        let mut rung = 0;
        while rung < self.ladder.len() {
            let acts = self.ladder[rung].acts;
            let mut act = 0;
            while act < acts.len() {
                if acts[act].changes() {
                    return true;
                }
                act += 1;
            }
            rung += 1;
        }
        false
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::signal;

    fn acts(fault: &Fault) -> impl Iterator<Item = Action> {
        fault.ladder.iter().flat_map(|rung| rung.acts.iter().copied())
    }

    #[test]
    fn the_rows_stand_in_order() {
        let letters = [('A', 7), ('B', 10), ('C', 10), ('D', 6), ('E', 5)];
        let due = letters.into_iter().flat_map(|(letter, count)| (1..=count).map(move |n| format!("{letter}{n}")));
        let ids: Vec<&str> = faults().map(|fault| fault.id).collect();
        assert_eq!(ids, due.collect::<Vec<String>>());
        assert_eq!(ids.len(), 38);
    }

    #[test]
    fn message_ids_are_well_formed_and_nobody_elses() {
        let signals = signal::Signal::ALL.iter().map(|signal| signal.row().message_id);
        let mut seen: BTreeSet<&str> = signals.collect();
        for fault in faults() {
            let id = fault.message_id;
            assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}: {id}", fault.id);
            assert!(seen.insert(id), "{}: {id} is somebody else's", fault.id);
        }
    }

    #[test]
    fn only_what_has_evidence_can_fire() {
        let can: Vec<&str> = faults().filter(|fault| fault.can_fire()).map(|fault| fault.id).collect();
        assert_eq!(can, ["A1", "A2", "A4", "A5"]);
        for fault in faults().filter(|fault| fault.can_fire()) {
            let unknown = fault.ladder.iter().any(|rung| matches!(rung.when, When::NotYet(_)));
            assert!(!unknown, "{}: it can fire, but a rung waits for what nobody can tell", fault.id);
        }
    }

    #[test]
    fn evidence_names_signals_that_exist_and_numbers_that_hold() {
        let names: BTreeSet<&str> = signal::Signal::ALL.iter().map(|signal| signal.row().name).collect();
        for fault in faults() {
            for evidence in fault.evidence {
                match evidence {
                    Evidence::Signal { name, .. } => assert!(names.contains(name), "{}: {name}", fault.id),
                    Evidence::NotYet(words) => {
                        let after = words.strip_prefix("signal ").and_then(|rest| rest.split([',', ' ']).next());
                        // The names of what is recovered from text come with the recovery.
                        if let Some(name) = after.filter(|name| !name.starts_with("parse.")) {
                            assert!(names.contains(name), "{}: {name}", fault.id);
                        }
                        check_numbers(fault, words);
                    }
                    Evidence::Words { signature } => assert!(!signature.is_empty(), "{}", fault.id),
                    Evidence::Death(_) | Evidence::GivenUp | Evidence::PortTaken | Evidence::Silence { .. } => {}
                }
            }
        }
    }

    /// What is said of a threshold and a window in words is what the row has in numbers.
    fn check_numbers(fault: &Fault, words: &str) {
        let times = match fault.threshold {
            1 => return,
            3 => "three times",
            5 => "five times",
            other => panic!("{}: no word for {other}", fault.id),
        };
        let window = match fault.window.as_secs() {
            60 => "within a minute",
            120 => "within two minutes",
            300 => "within five minutes",
            600 => "within ten minutes",
            other => panic!("{}: no word for {other} s", fault.id),
        };
        assert!(words.contains(times) && words.contains(window), "{}: {words}", fault.id);
    }

    #[test]
    fn rows_that_act_have_a_proof_and_a_budget() {
        for fault in faults() {
            let Fault { id, verify, budget, .. } = fault;
            assert!(fault.threshold >= 1 && !fault.window.is_zero(), "{id}");
            assert_eq!(fault.changes(), acts(fault).any(Action::changes), "{id}");
            if fault.changes() {
                assert_ne!(verify.proof, Proof::None, "{id}: it acts, and nothing proves that it helped");
                assert!(budget.attempts_max >= 1 && !budget.per.is_zero(), "{id}");
            }
            assert_eq!(verify.proof == Proof::None, verify.within.is_zero(), "{id}");
            assert_eq!(verify.proof == Proof::None, verify.quiet.is_zero(), "{id}");
            assert!(budget.rest.is_sorted(), "{id}: the rests do not grow");
        }
    }

    #[test]
    fn a_row_that_goes_by_words_changes_nothing() {
        let evidence: &[Evidence] = &[Evidence::GivenUp, Evidence::Words { signature: "database malformed" }];
        for fault in faults() {
            // With such evidence beside its own each row that acts would be refused, and no other.
            assert_eq!(acts_on_words(&[Fault { evidence, ..*fault }]), fault.changes(), "{}", fault.id);
            assert!(!acts_on_words(&[*fault]), "{}", fault.id);
        }
    }

    #[test]
    fn every_ladder_ends_for_good() {
        for fault in faults() {
            let last = fault.ladder.last().unwrap();
            assert_eq!(last.when, When::Always, "{}", fault.id);
            let end = last.acts.last().unwrap();
            assert!(matches!(end, Action::AlertUser | Action::Suggest | Action::Ignore), "{}: {end:?}", fault.id);
            for rung in fault.ladder {
                assert!(!rung.acts.is_empty(), "{}: a rung without an action", fault.id);
                if let When::Repeated(times) = rung.when {
                    assert!(times > fault.threshold, "{}: {times} times is no repetition", fault.id);
                }
            }
            // What nobody need look at does not call anybody at the first time.
            let first = fault.ladder.iter().find(|rung| !matches!(rung.when, When::Repeated(_))).unwrap();
            let calls = first.acts.contains(&Action::AlertUser);
            assert!(fault.severity != Severity::Info || !calls, "{}", fault.id);
        }
    }

    #[test]
    fn texts_fit_the_catalogue_and_the_table() {
        for fault in faults() {
            let Fault { id, title, help, source, .. } = fault;
            assert!(!title.ends_with('.') && !title.is_empty() && !source.is_empty(), "{id}");
            assert!(!title.contains(['\n', '|', '<', '`']), "{id}: {title}");
            assert!(help.split("\n\n").count() >= 2, "{id}: what it means, an empty line, what to do");
            assert!(!help.contains('\t') && !help.contains("\n\n\n") && help.ends_with('.'), "{id}: {help}");
            assert!(help.lines().all(|line| line.trim() == line && line.len() <= 130), "{id}: {help}");
            // A line that begins so would begin another entry, or be a comment.
            assert!(help.lines().all(|line| !line.starts_with("--") && !line.starts_with('#')), "{id}: {help}");
        }
        let titles: BTreeSet<&str> = faults().map(|fault| fault.title).collect();
        assert_eq!(titles.len(), faults().count(), "two rows have one title");
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for fault in faults() {
            let id = FaultId::parse(fault.id).unwrap();
            assert_eq!((id.name(), id.row().message_id), (fault.id, fault.message_id));
            let text = serde_json::to_string(&id).unwrap();
            assert_eq!(text, format!("\"{}\"", fault.id));
            assert_eq!(serde_json::from_str::<FaultId>(&text).unwrap(), id);
        }
        for wrong in ["", "A", "A0", "A8", "a1", "A01", "B11", "E6", "F1", " A1"] {
            assert_eq!(FaultId::parse(wrong), None, "{wrong}");
            assert!(serde_json::from_str::<FaultId>(&format!("\"{wrong}\"")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_the_names_in_files() {
        let words: BTreeSet<&str> = Action::ALL.iter().map(|action| action.word()).collect();
        assert_eq!(words.len(), Action::ALL.len());
        for action in Action::ALL {
            assert_eq!(serde_json::to_string(&action).unwrap(), format!("\"{}\"", action.word()));
        }
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            assert_eq!(serde_json::to_string(&severity).unwrap(), format!("\"{}\"", severity.word()));
        }
    }
}
