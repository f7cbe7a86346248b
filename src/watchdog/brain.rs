//! The one who decides: `step` takes what happened and gives what is to be done. PURE.
//!
//! ```text
//!             ┌─────────── guard ◄──────────────┐
//!             ▼                                 │
//! Diagnosis → Deciding → Announced → Acting → Verifying → Closed
//!             ▲    │                   │          │
//!             │    └── alert ──────────┴──────────┘
//!             └── next rung: it failed, or the fault came again
//! ```
//!
//! The same inputs give the same commands, byte for byte. Whoever drives it records what it says before anything is sent.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    catalog::{Action, Fault, FaultId, Proof, Severity, When},
    classify::{Diagnosis, Numbers, World},
    guards::{Patterns, Verdict, micros},
    incidents::record::{CommandId, End, Entry, Fact, Guard, IncidentId, Outcome},
    signal::{Active, Health, Port, Process, SECOND_US, Signal, Source, Subject, Time, Unit},
};

/// A command of which nobody hears for so long has an unknown outcome.
const OUTCOME_TIME_MAX_US: u64 = 45 * SECOND_US;
/// Between the announcement of an action that interrupts work, and the action.
const ANNOUNCED_US: u64 = 3 * SECOND_US;
/// For what must be looked at before it can be decided.
const LOOK_TIME_MAX_US: u64 = 3 * SECOND_US;
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

/// How far an incident is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// The next rung is to be found.
    Deciding,
    /// A guard forbids it; thought over at `until`, or at every change of the world.
    Restrained { guard: Guard, until: Option<Time> },
    /// Announced, and not cancelled yet.
    Announced { command: CommandId, until: Time },
    /// A command was sent.
    Acting { command: CommandId, until: Time },
    /// Proof is waited for.
    Verifying { since: Time, proven: Option<Time> },
    /// Over.
    Closed,
}

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
    phase: Phase,
    /// The rung it stands on, and the act of that rung.
    rung: usize,
    act: usize,
    /// Commands given so far.
    commands: u32,
    /// Since when guards forbid what is next.
    held_since: Option<Time>,
    /// Something was done that the fault must be seen to yield to.
    changed: bool,
    alerted: bool,
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
    /// Positive evidence is asked for.
    Proof,
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
        matches!(phase, Some(Phase::Announced { .. } | Phase::Restrained { .. } | Phase::Deciding))
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
            Phase::Announced { until, .. } | Phase::Acting { until, .. } => Some(*until),
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
        let incident = Incident {
            id,
            fault: diagnosis.fault,
            subject: diagnosis.subject.clone(),
            since: diagnosis.since,
            occurrences: 1,
            evidence: diagnosis.evidence.clone(),
            phase: Phase::Deciding,
            rung: 0,
            act: 0,
            commands: 0,
            held_since: None,
            changed: false,
            alerted: false,
        };
        let opened = Fact::Opened {
            fault: diagnosis.fault,
            subject: diagnosis.subject.clone(),
            evidence: diagnosis.evidence.clone(),
            detected_after_us: at.since_us(diagnosis.since),
        };
        record(id, opened, at, out);
        self.open.insert(id, incident);
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
        let horizon = if self.last == Time::default() { at } else { self.last };
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
            match incident.phase {
                Phase::Announced { .. } => incident.phase = Phase::Deciding,
                Phase::Verifying { .. } => incident.phase = Phase::Verifying { since: at, proven: None },
                // What was sent may still be under way at the manager: live until its time is over.
                Phase::Acting { .. } | Phase::Deciding | Phase::Restrained { .. } | Phase::Closed => {}
            }
        }
        out.push(Command::Look(Source::Probe));
    }

    fn cancel(&mut self, id: IncidentId, at: Time, out: &mut Vec<Command>) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        if matches!(incident.phase, Phase::Announced { .. } | Phase::Restrained { .. } | Phase::Deciding) {
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
            Phase::Announced { command, until } => {
                if self.rung_holds(incident, row, at) == Some(false) {
                    record(incident.id, Fact::Disproven { why: "it is not needed any more".to_owned() }, at, out);
                    return incident.stand_on(0);
                }
                if let Some((guard, until)) = self.guard(incident, row, at) {
                    return incident.restrain(guard, until, at, out);
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

    /// Finds the rung that fits, and begins it.
    fn decide(&mut self, incident: &mut Incident, row: &'static Fault, at: Time, out: &mut Vec<Command>) {
        while let Some(rung) = row.ladder.get(incident.rung) {
            let holds = if incident.act > 0 { Some(true) } else { self.holds(rung.when, incident, at) };
            match holds {
                Some(true) => break,
                Some(false) => incident.stand_on(incident.rung + 1),
                None => {
                    out.push(Command::Look(Source::Processes));
                    return incident.restrain(Guard::Evidence, Some(at.plus_us(LOOK_TIME_MAX_US)), at, out);
                }
            }
        }
        let Some(action) = incident.action() else {
            let (end, why) = if incident.alerted {
                (End::Alerted, "a person was told")
            } else {
                (End::Unproven, "nothing is left to do")
            };
            return incident.close(end, why, at, out);
        };
        if let Some((guard, until)) = self.guard(incident, row, at) {
            match guard {
                // For good: what is left is to tell a person.
                Guard::Budget => {
                    record(incident.id, Fact::Restrained { action, guard, until }, at, out);
                    return incident.stand_on(incident.rung + 1);
                }
                Guard::ObserveOnly => {
                    record(incident.id, Fact::Restrained { action, guard, until: None }, at, out);
                    return incident.close(End::Held, guard.words(), at, out);
                }
                Guard::Pause
                | Guard::RestartLedger
                | Guard::LedgerIncomplete
                | Guard::CoolDown
                | Guard::Busy
                | Guard::Evidence
                | Guard::Cancelled
                | Guard::UserStop => return incident.restrain(guard, until, at, out),
            }
        }
        if action == Action::AlertUser && incident.alerted {
            // Once is enough.
            return incident.next_act(row);
        }
        let why = incident.why(row, self.world.runs());
        record(incident.id, Fact::Decided { tier: row.start, action, why }, at, out);
        if action == Action::AlertUser {
            let text = self.alert_text(incident, row);
            record(incident.id, Fact::Alerted { text: text.clone() }, at, out);
            out.push(Command::Alert { incident: incident.id, fault: incident.fault, severity: row.severity, text });
            incident.alerted = true;
            incident.next_act(row);
            return;
        }
        if !action.changes() {
            incident.held_since = None;
            incident.phase = Phase::Verifying { since: at.min(incident.since), proven: None };
            out.push(Command::Look(Source::Probe));
            return;
        }
        let command = incident.next_command();
        if action.interrupts() && (self.world.runs() || action == Action::KillStaleProcesses) {
            let until = at.plus_us(ANNOUNCED_US);
            record(incident.id, Fact::Announced { command, action, until }, at, out);
            out.push(Command::Announce { command, action, until });
            incident.phase = Phase::Announced { command, until };
        } else {
            self.send(incident, row, command, at, out);
        }
    }

    fn send(&mut self, incident: &mut Incident, row: &Fault, command: CommandId, at: Time, out: &mut Vec<Command>) {
        let Some(action) = incident.action() else { return };
        let process = match self.world.port_since(Time::default()) {
            Some(Port::Stale(process)) if action == Action::KillStaleProcesses => Some(process.clone()),
            _ => None,
        };
        record(incident.id, Fact::Commanded { command, action }, at, out);
        let subject = incident.subject.clone();
        // One attempt of the row, however many acts its rung has.
        if incident.act == 0 {
            self.patterns.acted(incident.fault, &subject, at, &row.budget);
        }
        incident.held_since = None;
        out.push(Command::Act(Order { command, action, subject, process }));
        incident.changed = true;
        incident.phase = Phase::Acting { command, until: at.plus_us(OUTCOME_TIME_MAX_US) };
    }

    /// Looks for proof and for its opposite.
    fn verify(
        &self,
        incident: &mut Incident,
        row: &Fault,
        since: Time,
        proven: Option<Time>,
        at: Time,
        out: &mut Vec<Command>,
    ) {
        if let Some(proven) = proven {
            if at.since_us(proven) >= micros(row.verify.quiet) || !self.has(Part::Quiet) {
                incident.close(End::Healed, "seen to be well, and it stayed away", at, out);
            }
            return;
        }
        if self.proof(row.verify.proof, since) || !self.has(Part::Proof) {
            let after_us = at.since_us(incident.since);
            record(incident.id, Fact::Proven { proof: row.verify.proof, after_us }, at, out);
            incident.phase = Phase::Verifying { since, proven: Some(at) };
            return;
        }
        if !incident.changed && self.world.given_up() {
            incident.stand_on(0);
            return;
        }
        if at.since_us(since) < micros(row.verify.within) {
            return;
        }
        match self.disproof(row.verify.proof, since) {
            Some(why) => incident.disproven(why, at, out),
            None => incident.close(End::Unproven, "nothing was seen that proves anything", at, out),
        }
    }

    fn proof(&self, proof: Proof, since: Time) -> bool {
        let health = self.world.health_since(since);
        match proof {
            Proof::Serving => matches!(health, Some(Health::Served { .. })) && self.world.runs(),
            Proof::Prompt => {
                matches!(health, Some(Health::Served { elapsed_us, .. }) if elapsed_us < SECOND_US) && self.world.runs()
            }
            Proof::Listening => self.world.active(Unit::Socket) == Active::Active,
            // Nobody tells of completed requests and repaired files yet.
            Proof::Completed | Proof::Repaired => false,
            Proof::None => true,
        }
    }

    /// What speaks against it; `None` if nothing is known either way.
    fn disproof(&self, proof: Proof, since: Time) -> Option<String> {
        match proof {
            Proof::Serving | Proof::Prompt => match (self.world.active(Unit::Proxy), self.world.health_since(since)) {
                (_, Some(Health::Silent | Health::Refused | Health::Dropped | Health::Foreign)) => {
                    Some("the proxy does not answer".to_owned())
                }
                (_, Some(Health::Served { .. })) if proof == Proof::Prompt => {
                    Some("the proxy answers slowly".to_owned())
                }
                (Active::Failed | Active::Inactive, _) => Some("the proxy does not run".to_owned()),
                _ => None,
            },
            Proof::Listening => {
                (self.world.active(Unit::Socket) != Active::Unknown).then(|| "the socket is not held".to_owned())
            }
            Proof::Completed | Proof::Repaired | Proof::None => None,
        }
    }

    /// Whether the condition of the rung that the incident stands on holds; `None` also if there is no such rung.
    fn rung_holds(&self, incident: &Incident, row: &Fault, at: Time) -> Option<bool> {
        let rung = row.ladder.get(incident.rung)?;
        // Later acts of a rung follow from the first, which has changed what it went by.
        if incident.act > 0 { Some(true) } else { self.holds(rung.when, incident, at) }
    }

    /// Whether a rung's condition holds; `None` if it must be looked at first.
    fn holds(&self, when: When, incident: &Incident, at: Time) -> Option<bool> {
        let asked = matches!(incident.phase, Phase::Deciding) && at.since_us(incident.since) >= LOOK_TIME_MAX_US;
        if when != When::Always
            && incident.subject == Subject::Proxy
            && !asked
            && self.world.active(Unit::Proxy) == Active::Unknown
        {
            return None;
        }
        let port = || match self.world.port_since(incident.since) {
            None if asked => Some(&Port::Unknown),
            port => port,
        };
        Some(match when {
            When::Always => true,
            When::ManagerActs => self.world.manager_acts(),
            When::GivenUp => self.world.given_up(),
            When::StaleHolder => matches!(port()?, Port::Stale(_)),
            When::PortFree => matches!(port()?, Port::Free),
            When::Silent => self.world.runs() && self.world.silent() > 0,
            When::Repeated(times) => incident.occurrences >= times,
            When::NotYet(_) => false,
        })
    }

    /// What forbids the action that is next, and until when.
    fn guard(&self, incident: &Incident, row: &Fault, at: Time) -> Option<(Guard, Option<Time>)> {
        let action = incident.action()?;
        if self.has(Part::Guard(Guard::Pause)) && self.paused_until_wall_us > at.wall_us {
            return Some((Guard::Pause, None));
        }
        if !action.changes() {
            return None;
        }
        if self.has(Part::Guard(Guard::ObserveOnly)) && self.observe_only {
            return Some((Guard::ObserveOnly, None));
        }
        if self.has(Part::Guard(Guard::Busy)) && self.acts_on(&incident.subject) {
            return Some((Guard::Busy, None));
        }
        // Further acts of a rung belong to the attempt that began with the first.
        if incident.act == 0
            && let Some((guard, until)) = self.patterns.guard(incident.fault, &incident.subject, at, &row.budget)
            && self.has(Part::Guard(guard))
        {
            return Some((guard, Some(until)));
        }
        if action.starts() {
            match self.world.ledger.verdict(at) {
                Verdict::Wait(until) if self.has(Part::Guard(Guard::RestartLedger)) => {
                    return Some((Guard::RestartLedger, Some(until)));
                }
                Verdict::Incomplete if self.has(Part::Guard(Guard::LedgerIncomplete)) => {
                    return Some((Guard::LedgerIncomplete, self.world.ledger.complete_at(at)));
                }
                Verdict::Allow | Verdict::Wait(_) | Verdict::Incomplete => {}
            }
        }
        None
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

    /// Whether another incident has an action on the subject announced or under way.
    fn acts_on(&self, subject: &Subject) -> bool {
        let live = |phase: &Phase| matches!(phase, Phase::Announced { .. } | Phase::Acting { .. });
        // The one that asks is not among them: it was taken out.
        self.open.values().any(|other| other.subject == *subject && live(&other.phase))
    }

    fn alert_text(&self, incident: &Incident, row: &Fault) -> String {
        let holder = match self.world.port_since(incident.since) {
            Some(Port::User { uid }) => format!(" It is held by user {uid}."),
            Some(Port::Other(process)) => {
                let terminal = if process.terminal { ", which has a terminal" } else { "" };
                format!(" It is held by process {} ({}){terminal}.", process.pid, process.exe)
            }
            _ => String::new(),
        };
        // Its last paragraph says what to do.
        let advice = row.help.rsplit("\n\n").next().unwrap_or_default().replace('\n', " ");
        format!("{}: {}.{holder} {advice}", row.title, incident.evidence)
    }
}

impl Incident {
    /// What is next on the ladder.
    fn action(&self) -> Option<Action> {
        self.fault.row().ladder.get(self.rung)?.acts.get(self.act).copied()
    }

    fn next_command(&mut self) -> CommandId {
        self.commands += 1;
        CommandId(self.id, self.commands)
    }

    fn stand_on(&mut self, rung: usize) {
        (self.rung, self.act, self.phase) = (rung, 0, Phase::Deciding);
    }

    /// After an act: the next of the rung, else the next rung.
    fn next_act(&mut self, row: &Fault) {
        self.act += 1;
        self.phase = Phase::Deciding;
        if self.action().is_none() && self.rung < row.ladder.len() {
            self.stand_on(self.rung + 1);
        }
    }

    fn finished(&mut self, command: CommandId, outcome: Outcome, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Finished { command, outcome: outcome.clone() }, at, out);
        match outcome {
            Outcome::Failed { .. } => self.stand_on(self.rung + 1),
            Outcome::Done | Outcome::Unknown { .. } => {
                let more = self.fault.row().ladder.get(self.rung).is_some_and(|rung| self.act + 1 < rung.acts.len());
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
    fn disproven(&mut self, why: String, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Disproven { why }, at, out);
        let watched = self.action().is_some_and(|action| !action.changes());
        let again = watched
            && matches!(self.phase, Phase::Verifying { since, .. } if at.since_us(since) < micros(self.fault.row().verify.within));
        if again || (watched && matches!(self.phase, Phase::Verifying { proven: Some(_), .. })) {
            // Another life of the process: the manager acts again.
            self.since = at;
            self.stand_on(0);
        } else {
            self.stand_on(self.rung + 1);
        }
    }

    fn restrain(&mut self, guard: Guard, until: Option<Time>, at: Time, out: &mut Vec<Command>) {
        let action = self.action().unwrap_or(Action::Ignore);
        record(self.id, Fact::Restrained { action, guard, until }, at, out);
        self.held_since.get_or_insert(at);
        self.phase = Phase::Restrained { guard, until };
    }

    fn close(&mut self, end: End, why: &str, at: Time, out: &mut Vec<Command>) {
        record(self.id, Fact::Closed { end, why: why.to_owned() }, at, out);
        self.phase = Phase::Closed;
    }

    fn why(&self, row: &Fault, runs: bool) -> String {
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

fn record(incident: IncidentId, fact: Fact, at: Time, out: &mut Vec<Command>) {
    out.push(Command::Record(Entry { at, incident, fact }));
}

#[cfg(test)]
mod tests;
