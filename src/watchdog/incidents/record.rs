//! The shape of an incident's story, one entry per fact. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::watchdog::{
    catalog::{Action, FaultId, Proof, Tier},
    signal::{SECOND_US, Subject, Time},
};

/// An incident's number; counts up for as long as the store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(pub u64);

impl IncidentId {
    /// `i12`, as it is written everywhere.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('i')?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse().ok().filter(|_| plain).map(Self)
    }
}

/// A command's name: the incident and a number within it. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandId(pub IncidentId, pub u32);

/// One fact of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// Of which incident.
    pub incident: IncidentId,
    /// What.
    pub fact: Fact,
}

/// What can happen to an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A fault was named.
    Opened {
        /// Which.
        fault: FaultId,
        /// Of what.
        subject: Subject,
        /// What was seen.
        evidence: String,
        /// How long it had been so, in microseconds, when it was named.
        detected_after_us: u64,
    },
    /// The same again.
    Again {
        /// What was seen.
        evidence: String,
        /// Which time this is.
        occurrences: u32,
    },
    /// What is to be done.
    Decided {
        /// Who decided.
        tier: Tier,
        /// What.
        action: Action,
        /// Why.
        why: String,
    },
    /// Whom the brain asked knows nothing, or nothing that was not tried.
    NoAdvice {
        /// Who was asked.
        tier: Tier,
        /// Why.
        why: String,
    },
    /// Whom the brain asked named what only a person may choose.
    Suggested {
        /// Who was asked.
        tier: Tier,
        /// What.
        action: Action,
        /// Why.
        why: String,
    },
    /// What is not done, or not yet.
    Restrained {
        /// What would be done.
        action: Action,
        /// What forbids it.
        guard: Guard,
        /// When it is thought over again; `None`: when the world changes.
        until: Option<Time>,
    },
    /// An action that interrupts work was announced.
    Announced {
        /// Which.
        command: CommandId,
        /// What.
        action: Action,
        /// When it is done, unless it is cancelled.
        until: Time,
    },
    /// A command is about to be sent.
    Commanded {
        /// Which.
        command: CommandId,
        /// What.
        action: Action,
    },
    /// What became of it.
    Finished {
        /// Which.
        command: CommandId,
        /// How.
        outcome: Outcome,
    },
    /// Positive evidence came.
    Proven {
        /// Which.
        proof: Proof,
        /// Since the fault, in microseconds.
        after_us: u64,
    },
    /// It did not help.
    Disproven {
        /// What was seen instead.
        why: String,
    },
    /// A person was told.
    Alerted {
        /// What.
        text: String,
    },
    /// The end.
    Closed {
        /// Which.
        end: End,
        /// Why.
        why: String,
    },
}

/// What forbids an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A person paused the watchdog.
    Pause,
    /// It only watches: `enabled = false`, or a dry run.
    ObserveOnly,
    /// The manager would refuse one start more, and stop the proxy for good.
    RestartLedger,
    /// It is not known how many starts there were.
    LedgerIncomplete,
    /// It rests after an action.
    CoolDown,
    /// It acted as often as it may.
    Budget,
    /// Another action on the same subject is under way.
    Busy,
    /// What must be known is not known.
    Evidence,
    /// A person cancelled it.
    Cancelled,
    /// A person stopped the service.
    UserStop,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out; whether it helped is another question.
    Done,
    /// It could not be carried out.
    Failed {
        /// Why.
        why: String,
    },
    /// Nobody knows whether it was carried out.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Whether what was done helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// Positive evidence came, and the fault stayed away.
    Succeeded,
    /// It could not be carried out, evidence speaks against it, or the fault came again.
    Failed,
    /// Nothing was seen either way: neither credit nor blame.
    Unproven,
}

/// How an incident ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Positive evidence, and the fault stayed away.
    Healed,
    /// A person was told; nothing is left to do.
    Alerted,
    /// A guard forbade what was left to do.
    Held,
    /// Nothing was seen that proves anything.
    Unproven,
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Guard {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Pause => "the watchdog is paused",
            Self::ObserveOnly => "the watchdog only watches",
            Self::RestartLedger => "one start more would exceed the manager's limit",
            Self::LedgerIncomplete => "it is not known how often the proxy was started",
            Self::CoolDown => "it rests after the last action",
            Self::Budget => "it was done as often as it may",
            Self::Busy => "another action is under way",
            Self::Evidence => "too little is known",
            Self::Cancelled => "a person cancelled it",
            Self::UserStop => "a person stopped the service",
        }
    }
}

impl End {
    /// Its word, on the bus and in files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healed => "healed",
            Self::Alerted => "alerted",
            Self::Held => "held",
            Self::Unproven => "unproven",
        }
    }
}

/// Seconds with milliseconds.
fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / SECOND_US, us % SECOND_US / 1000)
}

/// One line of an operator's story.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { fault, subject, evidence, detected_after_us } => {
                let row = fault.row();
                let after = seconds(*detected_after_us);
                write!(f, "{fault} {}: {subject}: {evidence} (seen after {after})", row.title)
            }
            Self::Again { evidence, occurrences } => write!(f, "again, {occurrences} times now: {evidence}"),
            Self::Decided { tier, action, why } => write!(f, "decided by {}: {}: {why}", tier.word(), action.word()),
            Self::NoAdvice { tier, why } => write!(f, "no advice by {}: {why}", tier.word()),
            Self::Suggested { tier, action, why } => {
                write!(f, "suggested by {}, for a person to decide: {}: {why}", tier.word(), action.word())
            }
            Self::Restrained { action, guard, until } => {
                write!(f, "not done: {}: {}", action.word(), guard.words())?;
                if until.is_some() { f.write_str(", for now") } else { Ok(()) }
            }
            Self::Announced { command, action, .. } => write!(f, "announced {command}: {}", action.word()),
            Self::Commanded { command, action } => write!(f, "sent {command}: {}", action.word()),
            Self::Finished { command, outcome } => match outcome {
                Outcome::Done => write!(f, "{command} was carried out"),
                Outcome::Failed { why } => write!(f, "{command} failed: {why}"),
                Outcome::Unknown { why } => write!(f, "whether {command} was carried out is not known: {why}"),
            },
            Self::Proven { proof, after_us } => {
                write!(f, "seen to help after {}: {}", seconds(*after_us), proof.words())
            }
            Self::Disproven { why } => write!(f, "did not help: {why}"),
            Self::Alerted { text } => write!(f, "told a person: {text}"),
            Self::Closed { end, why } => write!(f, "{}: {why}", end.word()),
        }
    }
}

/// One line of a timeline: seconds since `begin`, the incident, the fact.
pub fn line(entry: &Entry, begin: Time) -> String {
    format!("{:>12}  {}  {}", seconds(entry.at.since_us(begin)), entry.incident, entry.fact)
}
