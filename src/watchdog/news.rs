//! What the watchdog tells those who look at it, and what they may ask of it.

use tokio::sync::oneshot;

use super::{
    catalog::{Action, FaultId, Severity},
    incidents::{
        history::Summary,
        record::{IncidentId, Outcome},
    },
    signal::Time,
};

/// The longest pause.
pub const PAUSE_MAX_S: u64 = 7 * 24 * 3600;

/// What a person asks of the watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Give up what is announced or held back.
    Cancel(IncidentId),
    /// Do nothing for so many seconds, at most [`PAUSE_MAX_S`].
    Pause {
        /// How long.
        seconds: u64,
        /// Why, for the record; may be empty.
        reason: String,
    },
    /// End a pause.
    Resume,
    /// The proxy is being stopped.
    NoteStop,
    /// Act, or only watch.
    Enable(bool),
}

/// Why a wish is not fulfilled, or not for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such incident is open.
    Unknown,
    /// Nothing of it can be cancelled any more.
    NothingPending,
    /// A number is not one of those allowed.
    OutOfRange,
    /// It is so, but only until the watchdog is started anew: it cannot be kept, for this reason.
    NotKept(String),
}

/// A wish, and where the answer goes.
pub type Asked = (Wish, oneshot::Sender<Result<(), Refusal>>);

/// Something to be told on the bus and the desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A fault was named; the story itself is not among what is told here.
    Opened(Summary),
    /// An action will be taken unless it is cancelled.
    Pending {
        /// Of which incident.
        incident: IncidentId,
        /// What.
        action: Action,
        /// When.
        until: Time,
    },
    /// What was announced is done now, or will not be done.
    Settled {
        /// Of which incident.
        incident: IncidentId,
    },
    /// A command came to its end.
    Finished {
        /// Of which incident.
        incident: IncidentId,
        /// What.
        action: Action,
        /// How.
        outcome: Outcome,
    },
    /// An incident is over.
    Closed(Summary),
    /// A person is to know.
    Alert {
        /// Of which incident.
        incident: IncidentId,
        /// Which fault it is.
        fault: FaultId,
        /// How urgent.
        severity: Severity,
        /// What.
        text: String,
    },
}

/// What is shown of the watchdog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// `watching`, `acting`, `paused`, `observing`.
    pub state: &'static str,
    /// What it cannot see with or keep, a line each.
    pub trouble: String,
    /// Whether it acts.
    pub enabled: bool,
    /// Whether rules, learnt fixes and diagnosis by a model may decide.
    pub tiers: [bool; 3],
    /// Incidents that are open.
    pub open: u32,
    /// What was announced.
    pub pending: Option<(IncidentId, Action, Time)>,
    /// Starts that count towards the limit; `None`: not known.
    pub starts: Option<u32>,
}
