//! Evidence to diagnoses: what is known of the world, and which rows of the fault table it fits. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    catalog::{Budget, By, Cause, Evidence, Fault, FaultId, faults},
    guards::{Ledger, micros},
    signal::{
        Active, Exit, Failure, Health, Observation, Ping, Port, SECOND_US, Signal, Source, Subject, Time, Unit,
        UnitState,
    },
};
use crate::config::settings::FaultNumbers;

/// Events remembered so that each counts once, whichever way it comes.
const SEEN_MAX: usize = 1024;
/// Subjects whose failures are counted at most.
const COUNTED_MAX: usize = 512;
/// A unit that is inactive passes through it while it is restarted; for so long it is a stop.
const SETTLE_US: u64 = SECOND_US;

/// A fault with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which.
    pub fault: FaultId,
    /// Of what.
    pub subject: Subject,
    /// What was seen, in words; no text of others.
    pub evidence: String,
    /// The cause, coarsely, in a word of ours: `killed`, `panic`. The same words for the same trouble.
    pub cause: &'static str,
    /// Since when it is so, as far as known.
    pub since: Time,
}

/// Numbers of rows as configured, by fault id; what is not there is as the row has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers(BTreeMap<String, Configured>);

/// What configuration says of one row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Configured {
    threshold: Option<u32>,
    window_us: Option<u64>,
    cooldown_us: Option<u64>,
}

impl From<&BTreeMap<String, FaultNumbers>> for Numbers {
    fn from(configured: &BTreeMap<String, FaultNumbers>) -> Self {
        let rows = configured.iter().map(|(id, numbers)| {
            let FaultNumbers { threshold, window, cooldown } = *numbers;
            (id.clone(), Configured { threshold, window_us: window.map(micros), cooldown_us: cooldown.map(micros) })
        });
        Self(rows.collect())
    }
}

impl Numbers {
    /// The threshold and the window in microseconds of a row.
    pub fn of(&self, row: &Fault) -> (u32, u64) {
        let configured = self.0.get(row.id);
        let threshold = configured.and_then(|numbers| numbers.threshold).unwrap_or(row.threshold);
        (threshold, configured.and_then(|numbers| numbers.window_us).unwrap_or_else(|| micros(row.window)))
    }

    /// How often the row acts. The cool-down of the configuration is the first rest; the later ones grow from it as the
    /// row's own do, since it is the growth that keeps an action that does not help from being repeated for ever.
    pub fn budget(&self, row: &Fault) -> Budget {
        let mut budget = row.budget;
        if let Some(cooldown_us) = self.0.get(row.id).and_then(|numbers| numbers.cooldown_us) {
            let first = budget.rest[0].as_secs().max(1);
            budget.rest =
                budget.rest.map(|rest| Duration::from_micros(cooldown_us.saturating_mul(rest.as_secs()) / first));
        }
        budget
    }
}

/// What is known of the world. What was never seen is unknown, which is not healthy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// The last word of the manager on each unit, and since when its state is so.
    units: BTreeMap<Unit, (UnitState, Time)>,
    /// Attempts to start the proxy.
    pub ledger: Ledger,
    /// Sources that see nothing, and why.
    pub blind: BTreeMap<Source, String>,
    health: Option<(Time, Health)>,
    ping: Option<(Time, Ping)>,
    /// Probes in a row that were silent on both ways.
    silent: u32,
    port: Option<(Time, Port)>,
    /// The fallback was stopped although the manager had given up: by a person.
    fallback_stopped: bool,
    /// A person said so.
    told_to_stop: bool,
    /// Ends older than this are history.
    pub horizon: Time,
    seen: Seen,
    counted: BTreeMap<String, VecDeque<Time>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(VecDeque<String>, BTreeSet<String>);

impl Seen {
    /// Whether this is the first time.
    fn first(&mut self, id: String) -> bool {
        if !self.1.insert(id.clone()) {
            return false;
        }
        self.0.push_back(id);
        if self.0.len() > SEEN_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            self.1.remove(&oldest);
        }
        true
    }
}

/// How a run ended, from the manager's words; `None`: without fault.
pub fn cause(result: &str, code: i32, status: i32) -> Option<Cause> {
    // Raised by a defect of the program itself: ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS.
    const DEFECTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
    const EXITED: i32 = 1;
    const PANIC: i32 = 101;
    Some(match result {
        "" | "success" => return None,
        "signal" | "core-dump" if DEFECTS.contains(&status) => Cause::Crashed,
        "signal" | "core-dump" => Cause::Killed,
        "exit-code" if code == EXITED && status == PANIC => Cause::Panicked,
        "exit-code" => Cause::Exited,
        "watchdog" => Cause::Hung,
        "oom-kill" => Cause::OutOfMemory,
        "timeout" => Cause::TimedOut,
        // Says that it may not start again, not how the last run ended.
        "start-limit-hit" => return None,
        _ => Cause::Refused,
    })
}

fn cause_words(cause: Cause, status: i32) -> String {
    match cause {
        Cause::Killed => format!("ended by signal {status}"),
        Cause::Crashed => format!("crashed with signal {status}"),
        Cause::Panicked => "panicked, exit status 101".to_owned(),
        Cause::Exited => format!("ended by itself with exit status {status}"),
        Cause::Hung => "ended by the manager, because it stood still".to_owned(),
        Cause::OutOfMemory => "ended for want of memory".to_owned(),
        Cause::TimedOut => "did not start or stop in time".to_owned(),
        Cause::Refused => "could not be started".to_owned(),
    }
}

impl World {
    /// Takes evidence in and names what it shows.
    pub fn observe(&mut self, signal: &Signal, numbers: &Numbers) -> Vec<Diagnosis> {
        let at = signal.at;
        match &signal.observation {
            Observation::Unit(state) => self.unit(state, at),
            Observation::StartLimit { burst, interval_us } => {
                self.ledger.set_limit(*burst, *interval_us);
                Vec::new()
            }
            Observation::Starting { invocation } => {
                self.ledger.add(at, invocation);
                Vec::new()
            }
            Observation::StartsKnownSince { mono_us } => {
                self.ledger.complete_since(signal.source, *mono_us);
                Vec::new()
            }
            Observation::Exit(exit) => self.exit(exit, at),
            Observation::Health(health) => self.health(*health, at),
            Observation::Ping(ping) => {
                self.ping = Some((at, *ping));
                Vec::new()
            }
            Observation::Port(port) => {
                self.port = Some((at, port.clone()));
                Vec::new()
            }
            Observation::Failure(failure) => self.failure(failure, at, numbers),
            Observation::Words { signature } => self.words(signature, at, numbers),
            Observation::Sight { of, blind } => {
                match blind {
                    Some(why) => {
                        self.blind.insert(*of, why.clone());
                        self.forget(*of);
                    }
                    None => {
                        self.blind.remove(of);
                    }
                }
                Vec::new()
            }
        }
    }

    /// What a blind source had said is not known any more.
    fn forget(&mut self, source: Source) {
        match source {
            Source::Units => {
                self.units.clear();
                self.ledger.lost(source);
            }
            Source::Probe => {
                (self.health, self.ping, self.silent) = (None, None, 0);
            }
            Source::Journal => self.ledger.lost(source),
            Source::Processes => self.port = None,
            Source::Failures => {}
        }
    }

    fn unit(&mut self, state: &UnitState, at: Time) -> Vec<Diagnosis> {
        let before = self.units.get(&state.unit).cloned();
        let same = before.as_ref().filter(|(known, _)| known.active == state.active);
        let since = same.map_or(at, |(_, since)| *since);
        self.units.insert(state.unit, (state.clone(), since));
        let before = before.map(|(state, _)| state);
        match state.unit {
            Unit::Proxy => self.proxy(state, before.as_ref(), at),
            Unit::Socket => self.socket(state, before.as_ref(), at),
            Unit::Capped => {
                let stopped = before.is_some_and(|before| before.active != Active::Inactive)
                    && state.active == Active::Inactive
                    && state.result == "success";
                if stopped && self.given_up() {
                    self.fallback_stopped = true;
                }
                Vec::new()
            }
        }
    }

    fn proxy(&mut self, state: &UnitState, before: Option<&UnitState>, at: Time) -> Vec<Diagnosis> {
        if before.is_none() {
            // Each start has a run of its own, and from here on the manager tells of every one.
            self.ledger.complete_since(Source::Units, at.mono_us);
        }
        if !matches!(state.active, Active::Inactive | Active::Failed | Active::Unknown) {
            self.ledger.add(at, &state.invocation);
        }
        if state.active == Active::Active {
            (self.fallback_stopped, self.told_to_stop) = (false, false);
        }
        if before.is_some_and(|before| before.invocation != state.invocation || before.pid != state.pid) {
            // What the last process did not answer says nothing of this one.
            self.silent = 0;
        }
        let mut found = Vec::new();
        let death = cause(&state.result, state.exit_code, state.exit_status);
        // Without fault, and yet the manager had to start it again: nobody had asked it to end.
        let by_itself = before.is_some_and(|before| state.restarts > before.restarts && !before.invocation.is_empty());
        let run = if by_itself { before.map_or("", |before| &before.invocation) } else { &state.invocation };
        if let Some(cause) = death.or(by_itself.then_some(Cause::Exited))
            && !run.is_empty()
            && self.seen.first(format!("end {run}"))
        {
            found.extend(died(cause, state.exit_status, at));
        }
        found.extend(self.newly_given_up(before, at));
        found
    }

    fn socket(&mut self, state: &UnitState, before: Option<&UnitState>, at: Time) -> Vec<Diagnosis> {
        let newly = before.is_none_or(|before| before.active != state.active || before.result != state.result);
        if state.active != Active::Failed || !newly {
            return Vec::new();
        }
        match state.result.as_str() {
            "service-start-limit-hit" | "trigger-limit-hit" => self.newly_given_up(None, at),
            // The manager tells a change in several messages, and the result before the state: on a busy machine more
            // than a moment before. The rest is to come.
            "" | "success" => Vec::new(),
            _ => {
                self.port = None;
                rows(|evidence| matches!(evidence, Evidence::PortTaken))
                    .map(|fault| Diagnosis {
                        fault,
                        subject: Subject::Proxy,
                        evidence: format!("the socket failed: {}", state.result),
                        cause: "port-taken",
                        since: at,
                    })
                    .collect()
            }
        }
    }

    fn newly_given_up(&mut self, before: Option<&UnitState>, at: Time) -> Vec<Diagnosis> {
        if !self.given_up() || before.is_some_and(|before| before.active == Active::Failed) {
            return Vec::new();
        }
        let run = self.state(Unit::Proxy).map(|proxy| proxy.invocation.clone()).unwrap_or_default();
        if !self.seen.first(format!("given up {run}")) {
            return Vec::new();
        }
        rows(|evidence| matches!(evidence, Evidence::GivenUp))
            .map(|fault| Diagnosis {
                fault,
                subject: Subject::Proxy,
                evidence: "the manager does not start it any more".to_owned(),
                cause: "given-up",
                since: at,
            })
            .collect()
    }

    fn exit(&mut self, exit: &Exit, at: Time) -> Vec<Diagnosis> {
        match cause(&exit.result, exit.code, exit.status) {
            Some(cause) if at >= self.horizon && self.seen.first(format!("end {}", exit.invocation)) => {
                died(cause, exit.status, at)
            }
            _ => Vec::new(),
        }
    }

    fn health(&mut self, health: Health, at: Time) -> Vec<Diagnosis> {
        self.health = Some((at, health));
        let ping_silent =
            self.ping.is_some_and(|(when, ping)| ping == Ping::Silent && at.since_us(when) < 10 * SECOND_US);
        match health {
            Health::Silent if ping_silent => self.silent = self.silent.saturating_add(1),
            // One of the two ways answers: slow or full, not dead.
            Health::Silent | Health::Served { .. } | Health::Refused | Health::Dropped | Health::Foreign => {
                self.silent = 0;
            }
            Health::Backlog | Health::Unknown => {}
        }
        if self.active(Unit::Proxy) != Active::Active {
            return Vec::new();
        }
        let silent = self.silent;
        // Once, when the row's number is reached.
        rows(|evidence| matches!(evidence, Evidence::Silence { streak } if *streak == silent))
            .map(|fault| Diagnosis {
                fault,
                subject: Subject::Proxy,
                evidence: format!("{silent} probes and calls in a row without an answer"),
                cause: "silent",
                since: at,
            })
            .collect()
    }

    fn failure(&mut self, failure: &Failure, at: Time, numbers: &Numbers) -> Vec<Diagnosis> {
        if failure.event_id.is_empty() || !self.seen.first(format!("event {}", failure.event_id)) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for row in faults() {
            for evidence in row.evidence {
                let Evidence::Signal { name, by } = evidence else { continue };
                if *name != failure.signal {
                    continue;
                }
                let (Some(subject), Some(fault)) = (subject(*by, failure), FaultId::parse(row.id)) else { continue };
                let (threshold, window_us) = numbers.of(row);
                if self.count(&format!("{fault} {subject}"), at, window_us) >= threshold {
                    let evidence = format!("signal {name}");
                    found.push(Diagnosis { fault, subject, evidence, cause: name, since: at });
                }
            }
        }
        found
    }

    /// Anybody may have written them, and they name nobody: a person is told of them, as of the proxy, and nothing is done.
    fn words(&mut self, signature: &str, at: Time, numbers: &Numbers) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        for row in faults() {
            let fits =
                |evidence: &&Evidence| matches!(evidence, Evidence::Words { signature: known } if *known == signature);
            let Some(Evidence::Words { signature }) = row.evidence.iter().find(fits) else { continue };
            let Some(fault) = FaultId::parse(row.id) else { continue };
            let (threshold, window_us) = numbers.of(row);
            if self.count(&format!("{fault} {signature}"), at, window_us) >= threshold {
                let evidence = format!("words, {signature}");
                found.push(Diagnosis { fault, subject: Subject::Proxy, evidence, cause: signature, since: at });
            }
        }
        found
    }

    fn count(&mut self, key: &str, at: Time, window_us: u64) -> u32 {
        let times = self.counted.entry(key.to_owned()).or_default();
        times.retain(|time| at.since_us(*time) < window_us);
        times.push_back(at);
        if times.len() > SEEN_MAX {
            times.pop_front();
        }
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        if self.counted.len() > COUNTED_MAX {
            let oldest = self.counted.iter().min_by_key(|(_, times)| times.back().copied()).map(|(key, _)| key.clone());
            oldest.map(|key| self.counted.remove(&key));
        }
        count
    }

    fn state(&self, unit: Unit) -> Option<&UnitState> {
        self.units.get(&unit).map(|(state, _)| state)
    }

    /// A unit's state; unknown if the manager was not heard.
    pub fn active(&self, unit: Unit) -> Active {
        self.state(unit).map_or(Active::Unknown, |state| state.active)
    }

    /// Whether the manager has said enough of the proxy to go by. Units are told one by one: what it means that the
    /// proxy does not run depends on its socket.
    pub fn is_told(&self) -> bool {
        match self.active(Unit::Proxy) {
            Active::Unknown => false,
            Active::Failed | Active::Inactive => self.active(Unit::Socket) != Active::Unknown,
            Active::Active | Active::Activating | Active::Deactivating => true,
        }
    }

    /// The manager starts the proxy, or runs it, and it is not known to be silent.
    pub fn manager_acts(&self) -> bool {
        match self.active(Unit::Proxy) {
            Active::Activating | Active::Deactivating => true,
            Active::Active => self.silent == 0,
            // On its way to the restart it passes through these for a moment.
            Active::Failed | Active::Inactive => self.active(Unit::Socket) == Active::Active,
            Active::Unknown => false,
        }
    }

    /// The manager is starting or stopping the proxy, or just did: whether that helps is to be seen first, it may need the
    /// starts that are left, and a stop by a person shows after a moment only.
    pub fn manager_just_acted(&self, now: Time) -> bool {
        let moved = |(_, since): &(UnitState, Time)| now.since_us(*since) < 2 * SETTLE_US;
        (!self.runs() && self.manager_acts())
            || self.units.values().any(moved)
            || self.ledger.started_within(10 * SECOND_US, now)
    }

    /// The manager does not start the proxy any more.
    pub fn given_up(&self) -> bool {
        self.active(Unit::Proxy) == Active::Failed
            && self.state(Unit::Socket).is_some_and(|socket| {
                socket.active == Active::Failed
                    && matches!(socket.result.as_str(), "service-start-limit-hit" | "trigger-limit-hit")
            })
    }

    /// A person stopped the service; true until it runs again.
    pub fn told_to_stop(&mut self) {
        self.told_to_stop = true;
    }

    /// A person stopped it, and nobody is to start it again.
    pub fn stopped_by_user(&self, now: Time) -> bool {
        let settled = |unit| self.units.get(&unit).is_some_and(|(_, since)| now.since_us(*since) >= SETTLE_US);
        if self.told_to_stop && !self.runs() {
            return true;
        }
        match (self.active(Unit::Proxy), self.active(Unit::Socket)) {
            // While the proxy is started its socket is there a moment before.
            (Active::Inactive, Active::Active | Active::Inactive) => settled(Unit::Proxy) && settled(Unit::Socket),
            (Active::Failed, Active::Inactive) => settled(Unit::Proxy) && settled(Unit::Socket),
            _ => self.given_up() && self.fallback_stopped && settled(Unit::Capped),
        }
    }

    /// The watchdog was restarted: sources tell everything anew, and ends since `horizon` count.
    pub fn restarted(&mut self, horizon: Time) {
        self.horizon = horizon;
        self.units.clear();
        (self.health, self.ping, self.silent, self.port) = (None, None, 0, None);
        self.blind.clear();
        self.ledger.lost(Source::Units);
        self.ledger.lost(Source::Journal);
    }

    /// Whether the proxy runs, so that an action would interrupt it.
    pub fn runs(&self) -> bool {
        self.active(Unit::Proxy) == Active::Active
    }

    /// The port's holder, if it was looked at after `since`.
    pub fn port_since(&self, since: Time) -> Option<&Port> {
        self.port.as_ref().filter(|(at, _)| *at >= since).map(|(_, port)| port)
    }

    /// The last probe, if it is younger than `since`.
    pub fn health_since(&self, since: Time) -> Option<Health> {
        self.health.filter(|(at, _)| *at > since).map(|(_, health)| health)
    }

    /// Probes in a row without any answer.
    pub fn silent(&self) -> u32 {
        self.silent
    }
}

fn died(cause: Cause, status: i32, at: Time) -> Vec<Diagnosis> {
    rows(|evidence| matches!(evidence, Evidence::Death(causes) if causes.contains(&cause)))
        .map(|fault| Diagnosis {
            fault,
            subject: Subject::Proxy,
            evidence: cause_words(cause, status),
            cause: cause.word(),
            since: at,
        })
        .collect()
}

fn rows(fits: impl Fn(&Evidence) -> bool) -> impl Iterator<Item = FaultId> {
    faults().filter(move |row| row.evidence.iter().any(&fits)).filter_map(|row| FaultId::parse(row.id))
}

/// Whose fault the failure would be; `None` if it does not say.
fn subject(by: By, failure: &Failure) -> Option<Subject> {
    let named = |name: &String| (!name.is_empty()).then(|| name.clone());
    Some(match by {
        By::Proxy => Subject::Proxy,
        By::Route => Subject::Route(named(&failure.route)?),
        By::Provider => Subject::Provider(named(&failure.provider)?),
        By::Account => Subject::Account(format!("{}/{}", named(&failure.provider)?, named(&failure.account)?)),
        By::Model => Subject::Model(named(&failure.model)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_changes_the_numbers_it_names() {
        let row = FaultId::parse("A4").unwrap().row();
        let seconds = Duration::from_secs;
        let numbers = |numbers| Numbers::from(&BTreeMap::from([("A4".to_owned(), numbers)]));
        let nothing = numbers(FaultNumbers::default());
        assert_eq!((nothing.of(row), nothing.budget(row)), ((row.threshold, micros(row.window)), row.budget));
        let all = FaultNumbers { threshold: Some(7), window: Some(seconds(60)), cooldown: Some(seconds(100)) };
        assert_eq!(numbers(all).of(row), (7, 60 * SECOND_US));
        assert_eq!(numbers(all).budget(row).rest, [seconds(100), seconds(200), seconds(1000)]);
        assert_eq!(numbers(all).budget(row).attempts_max, row.budget.attempts_max);
        let none = FaultNumbers { cooldown: Some(seconds(0)), ..FaultNumbers::default() };
        assert_eq!(numbers(none).budget(row).rest, [seconds(0); 3]);
        // Only of the row that it names.
        let other = FaultId::parse("A1").unwrap().row();
        assert_eq!(numbers(all).budget(other), other.budget);
    }
}
