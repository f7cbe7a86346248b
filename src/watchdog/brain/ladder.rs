//! The ladder: which rung fits the world, what forbids its action, and how it is begun. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Brain, Command, Incident, Order, Part, Phase, record};
use crate::watchdog::{
    catalog::{Action, Fault, Tier, When},
    guards::Verdict,
    incidents::record::{CommandId, End, Fact, Guard},
    signal::{Active, Port, SECOND_US, Source, Subject, Time, Unit},
};

/// A command of which nobody hears for so long has an unknown outcome.
const OUTCOME_TIME_MAX_US: u64 = 45 * SECOND_US;
/// Between the announcement of an action that interrupts work, and the action.
const ANNOUNCED_US: u64 = 3 * SECOND_US;
/// For what must be looked at before it can be decided.
const LOOK_TIME_MAX_US: u64 = 3 * SECOND_US;
/// For the manager to say how the units are, after a restart or without a bus.
const UNTOLD_TIME_MAX_US: u64 = 10 * SECOND_US;

impl Brain {
    /// Finds the rung that fits, and begins it.
    pub(super) fn decide(&mut self, incident: &mut Incident, row: &'static Fault, at: Time, out: &mut Vec<Command>) {
        while let Some(rung) = row.ladder.get(incident.rung) {
            let holds = if incident.act > 0 { Some(true) } else { self.holds(rung.when, incident, at) };
            match holds {
                Some(true) => {
                    incident.asked_since = None;
                    break;
                }
                Some(false) => incident.stand_on(incident.rung + 1),
                None => {
                    // What is looked for depends on what the manager says: the look counts from then on.
                    if self.world.is_told() {
                        incident.asked_since.get_or_insert(at);
                    }
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
            return incident.held_back(guard, until, at, out);
        }
        if let Some(tier) = self.whom_to_ask(incident, row, at) {
            return incident.consult(tier, at, out);
        }
        if action == Action::AlertUser && incident.alerted {
            // Once is enough.
            return incident.next_act(row);
        }
        let (tier, why) = match &incident.advised {
            Some(advised) => (advised.tier, advised.why.clone()),
            None => (Tier::Rules, incident.why(row, self.world.runs())),
        };
        record(incident.id, Fact::Decided { tier, action, why }, at, out);
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

    pub(super) fn send(
        &mut self,
        incident: &mut Incident,
        row: &Fault,
        command: CommandId,
        at: Time,
        out: &mut Vec<Command>,
    ) {
        let Some(action) = incident.action() else { return };
        let process = match self.world.port_since(Time::default()) {
            Some(Port::Stale(process)) if action == Action::KillStaleProcesses => Some(process.clone()),
            _ => None,
        };
        record(incident.id, Fact::Commanded { command, action }, at, out);
        let subject = incident.subject.clone();
        // One attempt of the row, however many acts its rung has.
        if incident.begins_attempt() {
            self.patterns.acted(incident.fault, &subject, at, &self.numbers.budget(row));
        }
        incident.sends(command, action);
        out.push(Command::Act(Order { command, action, subject, process }));
        incident.phase = Phase::Acting { command, until: at.plus_us(OUTCOME_TIME_MAX_US) };
    }

    /// Whether the condition of the rung that the incident stands on holds; `None` also if there is no such rung.
    pub(super) fn rung_holds(&self, incident: &Incident, row: &Fault, at: Time) -> Option<bool> {
        let rung = row.ladder.get(incident.rung)?;
        // Later acts of a rung follow from the first, which has changed what it went by.
        if incident.act > 0 { Some(true) } else { self.holds(rung.when, incident, at) }
    }

    /// Whether a rung's condition holds; `None` if it must be looked at first.
    fn holds(&self, when: When, incident: &Incident, at: Time) -> Option<bool> {
        let deciding = matches!(incident.phase, Phase::Deciding);
        let for_us = |since: Option<Time>, us| deciding && since.is_some_and(|since| at.since_us(since) >= us);
        let untold = for_us(incident.held_since, UNTOLD_TIME_MAX_US);
        let asked = untold || for_us(incident.asked_since, LOOK_TIME_MAX_US);
        if when != When::Always && incident.subject == Subject::Proxy && !untold && !self.world.is_told() {
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
    pub(super) fn guard(&self, incident: &Incident, row: &Fault, at: Time) -> Option<(Guard, Option<Time>)> {
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
        if incident.begins_attempt()
            && let Some((guard, until)) = self.rests(incident, row, at)
        {
            return Some((guard, Some(until)));
        }
        // A rule names the state of the world it starts something in; advice does not.
        if incident.advised.is_some() && action.starts() {
            if self.has(Part::Guard(Guard::Evidence)) && self.world.active(Unit::Proxy) == Active::Unknown {
                return Some((Guard::Evidence, None));
            }
            if self.has(Part::Guard(Guard::Busy)) && self.world.manager_just_acted(at) {
                return Some((Guard::Busy, None));
            }
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

    /// Whether the row has acted often or lately enough.
    pub(super) fn rests(&self, incident: &Incident, row: &Fault, at: Time) -> Option<(Guard, Time)> {
        let rests = self.patterns.guard(incident.fault, &incident.subject, at, &self.numbers.budget(row));
        rests.filter(|(guard, _)| self.has(Part::Guard(*guard)))
    }

    /// Whether another incident has an action on the subject announced or under way.
    pub(super) fn acts_on(&self, subject: &Subject) -> bool {
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
        let suggested = incident.suggested.map(|action| format!(" It was suggested to do {}.", action.word()));
        let suggested = suggested.unwrap_or_default();
        format!("{}: {}.{holder}{suggested} {advice}", row.title, incident.evidence)
    }
}
