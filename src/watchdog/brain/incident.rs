//! Something that is wrong, and how far it has come: where it stands on its ladder, and how it moves on. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use super::Command;
use crate::watchdog::{
    catalog::{Action, Fault, FaultId, Tier, When},
    classify::Diagnosis,
    guards::micros,
    incidents::record::{CommandId, End, Entry, Fact, Guard, IncidentId, Outcome, Verified},
    signal::{SECOND_US, Source, Subject, Time},
};

/// What was advised waits for the end of a cool-down no longer than this.
const ADVICE_WAIT_MAX_US: u64 = 60 * SECOND_US;

/// Something that is wrong, from its first evidence to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// The fault.
    pub fault: FaultId,
    /// Of what.
    pub subject: Subject,
    /// Since when.
    pub since: Time,
    /// How often it was seen.
    pub occurrences: u32,
    /// What was seen last.
    pub evidence: String,
    /// The cause of that, coarsely, in a word of ours.
    pub(super) cause: String,
    pub(super) phase: Phase,
    /// The rung it stands on, and the act of that rung.
    pub(super) rung: usize,
    pub(super) act: usize,
    /// Commands given so far.
    pub(super) commands: u32,
    /// Since when guards forbid what is next.
    pub(super) held_since: Option<Time>,
    /// Since when it is waited for what must be looked at; a restart asks anew.
    pub(super) asked_since: Option<Time>,
    /// Something was done that the fault must be seen to yield to.
    pub(super) changed: bool,
    pub(super) alerted: bool,
    /// Who was asked for advice; each is asked once.
    pub(super) asked: Vec<Tier>,
    /// What was advised and is next, in the place of what the ladder has.
    pub(super) advised: Option<Advised>,
    /// What was advised and is left to a person.
    pub(super) suggested: Option<Action>,
    /// What was done so far: no advice repeats it.
    pub(super) tried: Vec<Action>,
    /// The last command, until it is known whether it helped.
    judged: Option<Judged>,
}

/// An action that somebody advised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Advised {
    pub(super) tier: Tier,
    pub(super) action: Action,
    pub(super) why: String,
}

/// A command of which it is not known yet whether it helped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Judged {
    command: CommandId,
    pattern: String,
    action: Action,
}

/// How far an incident is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The next rung is to be found.
    Deciding,
    /// A guard forbids it; thought over at `until`, or at every change of the world.
    Restrained { guard: Guard, until: Option<Time> },
    /// Somebody was asked for advice; without an answer until then there is none.
    Consulting { tier: Tier, until: Time },
    /// Announced, and not cancelled yet.
    Announced { command: CommandId, until: Time },
    /// A command was sent.
    Acting { command: CommandId, until: Time },
    /// Proof is waited for.
    Verifying { since: Time, proven: Option<Time> },
    /// Over.
    Closed,
}

impl Phase {
    /// Nothing is under way yet that a person could not prevent.
    pub(super) fn can_be_cancelled(&self) -> bool {
        match self {
            Self::Deciding | Self::Restrained { .. } | Self::Consulting { .. } | Self::Announced { .. } => true,
            Self::Acting { .. } | Self::Verifying { .. } | Self::Closed => false,
        }
    }
}

impl Incident {
    /// The story begins.
    pub(super) fn opened(id: IncidentId, diagnosis: &Diagnosis, at: Time, out: &mut Vec<Command>) -> Self {
        let Diagnosis { fault, subject, evidence, cause, since } = diagnosis.clone();
        let opened = Fact::Opened {
            fault,
            subject: subject.clone(),
            evidence: evidence.clone(),
            detected_after_us: at.since_us(since),
        };
        record(id, opened, at, out);
        Self {
            id,
            fault,
            subject,
            since,
            occurrences: 1,
            evidence,
            cause: cause.to_owned(),
            phase: Phase::Deciding,
            rung: 0,
            act: 0,
            commands: 0,
            held_since: None,
            asked_since: None,
            changed: false,
            alerted: false,
            asked: Vec::new(),
            advised: None,
            suggested: None,
            tried: Vec::new(),
            judged: None,
        }
    }

    /// The kind of trouble that it is, for what is learnt from one incident and used in another; no text of others.
    pub(super) fn pattern(&self) -> String {
        format!("{} {} {}", self.fault, self.subject.kind(), self.cause)
    }

    /// What is next: what was advised, else the act of the ladder.
    pub(super) fn action(&self) -> Option<Action> {
        if let Some(advised) = &self.advised {
            return Some(advised.action);
        }
        self.fault.row().ladder.get(self.rung)?.acts.get(self.act).copied()
    }

    pub(super) fn next_command(&mut self) -> CommandId {
        self.commands += 1;
        CommandId(self.id, self.commands)
    }

    pub(super) fn stand_on(&mut self, rung: usize) {
        (self.rung, self.act, self.phase) = (rung, 0, Phase::Deciding);
        self.advised = None;
    }

    /// What was to help did not, or may not be done: what was advised gives way to the rung it came before, else the next
    /// rung.
    fn step_on(&mut self) {
        if self.advised.take().is_some() {
            self.phase = Phase::Deciding;
        } else {
            self.stand_on(self.rung + 1);
        }
    }

    /// Begins a new attempt, and is not a further act of a rung.
    pub(super) fn begins_attempt(&self) -> bool {
        self.act == 0 || self.advised.is_some()
    }

    /// A command is sent; from now on it is to help.
    pub(super) fn sends(&mut self, command: CommandId, action: Action) {
        if !self.tried.contains(&action) {
            self.tried.push(action);
        }
        self.judged = Some(Judged { command, pattern: self.pattern(), action });
        self.changed = true;
        self.held_since = None;
    }

    /// It is known whether the last command helped. Says so once.
    fn learn(&mut self, outcome: Verified, out: &mut Vec<Command>) {
        if let Some(Judged { command, pattern, action }) = self.judged.take() {
            out.push(Command::Learn { command, pattern, action, outcome });
        }
    }

    /// After an act: the next of the rung, else the next rung.
    pub(super) fn next_act(&mut self, row: &Fault) {
        self.act += 1;
        self.phase = Phase::Deciding;
        if self.action().is_none() && self.rung < row.ladder.len() {
            self.stand_on(self.rung + 1);
        }
    }

    pub(super) fn finished(&mut self, command: CommandId, outcome: Outcome, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Finished { command, outcome: outcome.clone() }, at, out);
        match outcome {
            Outcome::Failed { .. } => {
                self.learn(Verified::Failed, out);
                self.step_on();
            }
            Outcome::Done | Outcome::Unknown { .. } => {
                let acts = self.fault.row().ladder.get(self.rung).map_or(0, |rung| rung.acts.len());
                let more = self.advised.is_none() && self.act + 1 < acts;
                if more && outcome == Outcome::Done {
                    self.act += 1;
                    self.phase = Phase::Deciding;
                } else {
                    self.phase = Phase::Verifying { since: at, proven: None };
                    out.push(Command::Look(Source::Probe));
                }
            }
        }
    }

    /// What was done did not help: the next rung. What was only watched is thought over from the beginning.
    pub(super) fn disproven(&mut self, why: String, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Disproven { why }, at, out);
        self.learn(Verified::Failed, out);
        let watched = self.action().is_some_and(|action| !action.changes());
        let again = watched
            && matches!(self.phase, Phase::Verifying { since, .. } if at.since_us(since) < micros(self.fault.row().verify.within));
        if again || (watched && matches!(self.phase, Phase::Verifying { proven: Some(_), .. })) {
            // Another life of the process: the manager acts again.
            (self.since, self.asked_since) = (at, None);
            self.stand_on(0);
        } else {
            if self.advised.is_some() {
                // What rules watch from here on is to be seen from here on.
                (self.since, self.asked_since) = (at, None);
            }
            self.step_on();
        }
    }

    /// A guard forbids what is next.
    pub(super) fn held_back(&mut self, guard: Guard, until: Option<Time>, at: Time, out: &mut Vec<Command>) {
        let action = self.action().unwrap_or(Action::Ignore);
        // A person waits to be told: advice is no reason to wait for long.
        let soon = until.is_some_and(|until| until.since_us(at) <= ADVICE_WAIT_MAX_US);
        let passes = match guard {
            Guard::Budget | Guard::ObserveOnly => false,
            Guard::CoolDown => self.advised.is_none() || soon,
            Guard::RestartLedger | Guard::LedgerIncomplete | Guard::Busy | Guard::Evidence => self.advised.is_none(),
            Guard::Pause | Guard::Cancelled | Guard::UserStop => true,
        };
        if passes {
            return self.restrain(guard, until, at, out);
        }
        record(self.id, Fact::Restrained { action, guard, until }, at, out);
        if guard == Guard::ObserveOnly && self.advised.is_none() {
            self.close(End::Held, guard.words(), at, out);
        } else {
            self.step_on();
        }
    }

    pub(super) fn restrain(&mut self, guard: Guard, until: Option<Time>, at: Time, out: &mut Vec<Command>) {
        let action = self.action().unwrap_or(Action::Ignore);
        record(self.id, Fact::Restrained { action, guard, until }, at, out);
        self.held_since.get_or_insert(at);
        self.phase = Phase::Restrained { guard, until };
    }

    pub(super) fn close(&mut self, end: End, why: &str, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Closed { end, why: why.to_owned() }, at, out);
        self.phase = Phase::Closed;
        self.learn(if end == End::Healed { Verified::Succeeded } else { Verified::Unproven }, out);
    }

    pub(super) fn why(&self, row: &Fault, runs: bool) -> String {
        let when = row.ladder.get(self.rung).map_or(When::Always, |rung| rung.when);
        match when {
            When::Always => "nothing before it is left".to_owned(),
            When::ManagerActs if runs => "it runs; to be seen whether it serves".to_owned(),
            When::ManagerActs => "the manager restarts it; to be seen whether it serves".to_owned(),
            When::GivenUp => "the manager has given up".to_owned(),
            When::StaleHolder => "the port is held by a leftover of ours".to_owned(),
            When::PortFree => "the port is free again".to_owned(),
            When::Silent => "it runs and does not answer".to_owned(),
            When::NotYet(what) => what.to_owned(),
            When::Repeated(times) => format!("{} times, which is {times} or more", self.occurrences),
        }
    }
}

pub(super) fn record(incident: IncidentId, fact: Fact, at: Time, out: &mut Vec<Command>) {
    out.push(Command::Record(Entry { at, incident, fact }));
}
