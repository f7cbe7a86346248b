//! The one who decides: `step` takes what happened and gives what is to be done. PURE.
//!
//! ```text
//!             ┌─────────── guard ◄──────────────┐
//!             ▼                                 │
//! Diagnosis → Deciding → Announced → Acting → Verifying → Closed
//!             ▲ ▲  │                   │          │
//!             │ │  └── alert ──────────┴──────────┘
//!             │ └► Consulting: no rule has an action left
//!             └── next rung: it failed, or the fault came again
//! ```
//!
//! The same inputs give the same commands, byte for byte. Whoever drives it records what it says before anything is sent.
//! Here is what comes in and goes out, and the walk through the phases; `brain/` has the incident that walks, its ladder
//! with what guards it, whom it asks, and the verification.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod advice;
mod incident;
mod ladder;
mod verify;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::incident::Incident;
use self::incident::{Phase, record};
use super::{
    catalog::{Action, FaultId, Proof, Severity, Tier},
    classify::{Diagnosis, Numbers, World},
    guards::{Patterns, micros},
    incidents::record::{CommandId, End, Entry, Fact, Guard, IncidentId, Outcome, Verified},
    signal::{Active, Process, SECOND_US, Signal, Source, Subject, Time, Unit},
};

/// An incident of which the next action is forbidden for so long ends as held.
const HELD_TIME_MAX_US: u64 = 3600 * SECOND_US;
/// Incidents open at once at most; beyond, diagnoses of new subjects are dropped and counted.
const OPEN_MAX: usize = 128;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// When the brain hears of it.
    pub at: Time,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Evidence.
    Signal(Signal),
    /// Time went on: [`Brain::wake`] has come.
    Tick,
    /// A command came to its end.
    Outcome {
        /// Which.
        command: CommandId,
        /// How.
        outcome: Outcome,
    },
    /// The watchdog was started.
    Began {
        /// Names the machine's boot: with another one the monotonic clock began anew.
        boot: String,
    },
    /// What the configuration says, once after [`What::Began`].
    Configured {
        /// Other numbers for rows.
        numbers: Numbers,
        /// Whether it acts, where no person said so.
        enabled: bool,
        /// It does not, whatever is said: a dry run.
        only_watch: bool,
    },
    /// The answer to a [`Command::Consult`].
    Advice {
        /// For which incident.
        incident: IncidentId,
        /// Who was asked.
        tier: Tier,
        /// What is advised; `None`: nothing is known.
        action: Option<Action>,
        /// Why.
        why: String,
    },
    /// A person does not want what was announced.
    Cancel {
        /// Of which incident.
        incident: IncidentId,
    },
    /// A person wants nothing to be done until then, in microseconds since 1970.
    Pause {
        /// When it ends.
        until_wall_us: u64,
    },
    /// A person wants it to go on.
    Resume,
    /// A person stopped the service with our own command, which says so: the manager does not show a stop of what had
    /// failed already.
    Stopped,
    /// A person says whether it acts, or only watches.
    Enable(bool),
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Keep this, before anything that follows is done.
    Record(Entry),
    /// Carry this out and tell the outcome.
    Act(Order),
    /// Say that this will be done unless it is cancelled.
    Announce {
        /// Its name.
        command: CommandId,
        /// What.
        action: Action,
        /// When.
        until: Time,
    },
    /// Tell a person.
    Alert {
        /// About which incident.
        incident: IncidentId,
        /// Which fault it is.
        fault: FaultId,
        /// How urgent.
        severity: Severity,
        /// What.
        text: String,
    },
    /// Look now instead of when it is due.
    Look(Source),
    /// Ask for advice and tell it with [`What::Advice`]; who takes long is not waited for.
    Consult {
        /// For which incident.
        incident: IncidentId,
        /// Whom.
        tier: Tier,
        /// The kind of trouble: words of ours.
        pattern: String,
        /// What was done already and did not help.
        tried: Vec<Action>,
    },
    /// Keep whether this helped.
    Learn {
        /// Which command; each is told once, and again if the same inputs are heard again.
        command: CommandId,
        /// Against which kind of trouble.
        pattern: String,
        /// What was done.
        action: Action,
        /// Whether it helped.
        outcome: Verified,
    },
}

/// An action to be carried out; leaves no choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its name, never used twice.
    pub command: CommandId,
    /// What.
    pub action: Action,
    /// On what.
    pub subject: Subject,
    /// The process it is about.
    pub process: Option<Process>,
}

/// All that the watchdog knows and decides by. Serialised, it is what survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Brain {
    world: World,
    numbers: Numbers,
    open: BTreeMap<IncidentId, Incident>,
    patterns: Patterns,
    incidents: u64,
    paused_until_wall_us: u64,
    observe_only: bool,
    /// Whether it acts, as a person said last.
    wished: Option<bool>,
    /// The boot that the monotonic clock belongs to.
    boot: String,
    /// Whether a model is asked where fixes know nothing.
    asks_ai: bool,
    /// Diagnoses dropped because too many incidents were open.
    pub dropped: u64,
    /// When it last heard of anything.
    last: Time,
    /// What is switched off, to see that a test notices.
    #[cfg(test)]
    #[serde(skip)]
    without: Option<Part>,
}

/// What the brain is made of, as far as it can be taken out in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A guard.
    Guard(Guard),
    /// Positive evidence of this kind is asked for.
    Proof(Proof),
    /// What speaks against it is looked for.
    Disproof(Proof),
    /// The same fault again speaks against what was done.
    Recurrence,
    /// It must stay away for a while.
    Quiet,
}

impl Brain {
    /// One that knows nothing. `numbers` are those of the configuration.
    pub fn new(numbers: Numbers, observe_only: bool) -> Self {
        Self { numbers, observe_only, ..Self::default() }
    }

    /// Lets it ask a model where fixes that helped before know nothing.
    #[must_use]
    pub fn asking_ai(self, asks_ai: bool) -> Self {
        Self { asks_ai, ..self }
    }

    /// What is open.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }

    /// What is known of the world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What was announced and will be done at that time unless it is cancelled.
    pub fn pending(&self) -> Option<(IncidentId, Action, Time)> {
        self.open.values().find_map(|incident| match incident.phase {
            Phase::Announced { until, .. } => Some((incident.id, incident.action()?, until)),
            _ => None,
        })
    }

    /// Whether an action is announced or under way.
    pub fn acts(&self) -> bool {
        self.open.values().any(|incident| matches!(incident.phase, Phase::Announced { .. } | Phase::Acting { .. }))
    }

    /// Whether a [`What::Cancel`] of the incident would change anything.
    pub fn can_cancel(&self, id: IncidentId) -> bool {
        let phase = self.open.get(&id).map(|incident| &incident.phase);
        phase.is_some_and(Phase::can_be_cancelled)
    }

    /// Until when nothing is to be done, in microseconds since 1970; it may have passed.
    pub fn paused_until_wall_us(&self) -> u64 {
        self.paused_until_wall_us
    }

    /// Whether it only watches.
    pub fn only_watches(&self) -> bool {
        self.observe_only
    }

    /// Takes what happened, gives what is to be done, in this order.
    pub fn step(&mut self, input: &Input) -> Vec<Command> {
        let mut out = Vec::new();
        let at = input.at;
        match &input.what {
            What::Signal(signal) => {
                for diagnosis in self.world.observe(signal, &self.numbers) {
                    self.diagnosed(&diagnosis, at, &mut out);
                }
            }
            What::Tick => {}
            What::Outcome { command, outcome } => self.outcome(*command, outcome, at, &mut out),
            What::Began { boot } => self.began(boot, at, &mut out),
            What::Configured { numbers, enabled, only_watch } => {
                self.numbers.clone_from(numbers);
                self.observe_only = *only_watch || !self.wished.unwrap_or(*enabled);
            }
            What::Advice { incident, tier, action, why } => {
                self.advice(*incident, *tier, *action, why, at, &mut out);
            }
            What::Cancel { incident } => self.cancel(*incident, at, &mut out),
            What::Pause { until_wall_us } => self.paused_until_wall_us = *until_wall_us,
            What::Resume => self.paused_until_wall_us = 0,
            What::Stopped => self.world.told_to_stop(),
            What::Enable(acts) => (self.wished, self.observe_only) = (Some(*acts), !acts),
        }
        self.advance(at, &mut out);
        self.last = at;
        out
    }

    /// When a [`What::Tick`] is wanted, if nothing else happens before.
    pub fn wake(&self, now: Time) -> Option<Time> {
        self.open.values().filter_map(|incident| self.due(incident, now)).min()
    }

    fn due(&self, incident: &Incident, now: Time) -> Option<Time> {
        let row = incident.fault.row();
        let second = now.plus_us(SECOND_US);
        let own = match &incident.phase {
            Phase::Deciding | Phase::Closed => Some(now),
            // Wall time may jump: looked at again each second.
            Phase::Restrained { guard: Guard::Pause, .. } => Some(second),
            Phase::Restrained { until, .. } => {
                let end = incident.held_since.map(|since| since.plus_us(HELD_TIME_MAX_US));
                [*until, end].into_iter().flatten().min()
            }
            Phase::Consulting { until, .. } | Phase::Announced { until, .. } | Phase::Acting { until, .. } => {
                Some(*until)
            }
            Phase::Verifying { since, proven: None } => Some(since.plus_us(micros(row.verify.within))),
            Phase::Verifying { proven: Some(proven), .. } => Some(proven.plus_us(micros(row.verify.quiet))),
        };
        // What is due and was left as it is waits for something else: looked at again each second.
        let own = own.map(|own| if own <= now { second } else { own });
        // A stop by a person settles within a second, and nobody else would say so.
        let stops = self.world.active(Unit::Proxy) != Active::Active;
        if stops { Some(own.map_or(second, |own| own.min(second))) } else { own }
    }

    fn diagnosed(&mut self, diagnosis: &Diagnosis, at: Time, out: &mut Vec<Command>) {
        let recurrence = self.has(Part::Recurrence);
        let known = self.open.values_mut().find(|i| i.fault == diagnosis.fault && i.subject == diagnosis.subject);
        if let Some(incident) = known {
            incident.occurrences += 1;
            incident.evidence.clone_from(&diagnosis.evidence);
            incident.cause = diagnosis.cause.to_owned();
            let again = Fact::Again { evidence: diagnosis.evidence.clone(), occurrences: incident.occurrences };
            record(incident.id, again, at, out);
            if recurrence && matches!(incident.phase, Phase::Verifying { .. }) {
                incident.disproven(format!("again: {}", diagnosis.evidence), at, out);
            }
            return;
        }
        if self.open.len() >= OPEN_MAX {
            self.dropped += 1;
            return;
        }
        self.incidents += 1;
        let id = IncidentId(self.incidents);
        self.open.insert(id, Incident::opened(id, diagnosis, at, out));
    }

    fn outcome(&mut self, command: CommandId, outcome: &Outcome, at: Time, out: &mut Vec<Command>) {
        let Some(incident) = self.open.get_mut(&command.0) else { return };
        if !matches!(incident.phase, Phase::Acting { command: sent, .. } if sent == command) {
            // Its time was over before; what it did shows in the evidence.
            return;
        }
        incident.finished(command, outcome.clone(), at, out);
    }

    fn began(&mut self, boot: &str, at: Time, out: &mut Vec<Command>) {
        let same_boot = self.boot.is_empty() || self.boot == boot;
        boot.clone_into(&mut self.boot);
        // Each end counts once, however often it is told. So it does not matter how far back they are told, and this must
        // not move: the run before may have ended before it had read what was missed.
        let horizon = if self.last == Time::default() { at } else { self.world.horizon };
        if !same_boot {
            for incident in self.open.values_mut() {
                incident.close(End::Unproven, "the machine was started anew", at, out);
            }
            self.open.clear();
            self.world = World::default();
            self.world.horizon = at;
            self.patterns = Patterns::default();
            return;
        }
        // Sources tell everything anew; what happened meanwhile is in the journal, and counts.
        self.world.restarted(horizon);
        for incident in self.open.values_mut() {
            incident.asked_since = None;
            match incident.phase {
                // What was looked for must be looked for again.
                Phase::Announced { .. } | Phase::Restrained { guard: Guard::Evidence, .. } => {
                    (incident.phase, incident.held_since) = (Phase::Deciding, None);
                }
                Phase::Verifying { .. } => incident.phase = Phase::Verifying { since: at, proven: None },
                // What was sent may still be under way at the manager: live until its time is over. Nobody is asked twice.
                Phase::Acting { .. }
                | Phase::Consulting { .. }
                | Phase::Deciding
                | Phase::Restrained { .. }
                | Phase::Closed => {}
            }
        }
        out.push(Command::Look(Source::Probe));
    }

    fn cancel(&mut self, id: IncidentId, at: Time, out: &mut Vec<Command>) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        if incident.phase.can_be_cancelled() {
            let action = incident.action().unwrap_or(Action::Ignore);
            record(id, Fact::Restrained { action, guard: Guard::Cancelled, until: None }, at, out);
            incident.close(End::Held, Guard::Cancelled.words(), at, out);
        }
    }

    /// Moves every open incident as far as it goes now.
    fn advance(&mut self, at: Time, out: &mut Vec<Command>) {
        let ids: Vec<IncidentId> = self.open.keys().copied().collect();
        for id in ids {
            let Some(mut incident) = self.open.remove(&id) else { continue };
            // Each round ends in a phase that waits, or moves on by a rung or an act: there are few of them.
            for _ in 0..32 {
                let before = incident.phase.clone();
                self.advance_one(&mut incident, at, out);
                if incident.phase == before && before != Phase::Deciding {
                    break;
                }
            }
            if incident.phase != Phase::Closed {
                self.open.insert(id, incident);
            }
        }
    }

    fn advance_one(&mut self, incident: &mut Incident, at: Time, out: &mut Vec<Command>) {
        let of_proxy = incident.subject == Subject::Proxy;
        let own_command = self.acts_on(&incident.subject) || matches!(incident.phase, Phase::Acting { .. });
        if of_proxy
            && !own_command
            && incident.phase != Phase::Closed
            && self.has(Part::Guard(Guard::UserStop))
            && self.world.stopped_by_user(at)
        {
            let action = incident.action().unwrap_or(Action::Ignore);
            record(incident.id, Fact::Restrained { action, guard: Guard::UserStop, until: None }, at, out);
            return incident.close(End::Held, Guard::UserStop.words(), at, out);
        }
        let row = incident.fault.row();
        match incident.phase.clone() {
            Phase::Closed => {}
            Phase::Deciding => self.decide(incident, row, at, out),
            Phase::Restrained { guard, .. }
                if incident.held_since.is_some_and(|since| at.since_us(since) >= HELD_TIME_MAX_US) =>
            {
                incident.close(End::Held, guard.words(), at, out);
            }
            Phase::Restrained { guard, until } => {
                let over = until.is_some_and(|until| at >= until);
                let gone = match guard {
                    Guard::Evidence => self.rung_holds(incident, row, at).is_some(),
                    _ => self.guard(incident, row, at).is_none_or(|(now, _)| now != guard),
                };
                if self.rung_holds(incident, row, at) == Some(false) {
                    // The world has moved on: thought over from the beginning.
                    incident.stand_on(0);
                } else if over || gone {
                    incident.phase = Phase::Deciding;
                }
            }
            Phase::Consulting { tier, until } => {
                if at >= until {
                    incident.advise(tier, None, "nobody answered in time", at, out);
                }
            }
            Phase::Announced { command, until } => {
                if self.rung_holds(incident, row, at) == Some(false) {
                    record(incident.id, Fact::Disproven { why: "it is not needed any more".to_owned() }, at, out);
                    return incident.stand_on(0);
                }
                if let Some((guard, until)) = self.guard(incident, row, at) {
                    return incident.held_back(guard, until, at, out);
                }
                if at >= until {
                    self.send(incident, row, command, at, out);
                }
            }
            Phase::Acting { command, until } => {
                if at >= until {
                    let why = "nobody told how it ended".to_owned();
                    incident.finished(command, Outcome::Unknown { why }, at, out);
                }
            }
            // What another does to the same subject would be taken for what became of this.
            Phase::Verifying { .. } if self.acts_on(&incident.subject) => {}
            Phase::Verifying { since, proven } => self.verify(incident, row, since, proven, at, out),
        }
    }

    /// Always, but where a test has taken the part out.
    fn has(&self, part: Part) -> bool {
        #[cfg(test)]
        return self.without != Some(part);
        #[cfg(not(test))]
        {
            let _ = (self, part);
            true
        }
    }
}

#[cfg(test)]
mod tests;
