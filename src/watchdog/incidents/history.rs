//! What was kept, folded into incidents: for the bus, for `codex-proxyctl incidents`, and to take one incident elsewhere.
//! PURE.
//!
//! ```text
//! store ─► State Input Told Told Input Told … ─► History ─► Summary, one for each incident
//!                                             └► export  ─► one incident, for `replay::timeline`
//! ```
//!
//! It knows what the two files of the store know. An incident that began before them is told from the states in them, and
//! [`Summary::whole`] says so.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{
    record::{End, Entry, Fact, IncidentId},
    replay::{Export, Kept},
};
use crate::watchdog::{
    brain::{Brain, Incident},
    catalog::{Fault, FaultId},
    signal::{Subject, Time},
};

/// One incident, with all that the bus tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its number.
    pub id: IncidentId,
    /// The fault.
    pub fault: FaultId,
    /// Of what.
    pub subject: Subject,
    /// What was seen last.
    pub evidence: String,
    /// How often it was seen.
    pub occurrences: u32,
    /// When it was named; where the beginning was not kept, since when it had been so.
    pub opened: Time,
    /// When it ended; `None`: it is open.
    pub closed: Option<Time>,
    /// How; `None` also if it ended and what was told of that is lost.
    pub end: Option<End>,
    /// Why it ended so; empty where `end` is `None`.
    pub why: String,
    /// Whether the story has its beginning.
    pub whole: bool,
    /// What was told, oldest first.
    pub story: Vec<Entry>,
}

/// Which incidents are wanted; [`Filter::default`] takes all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those open, or only those closed.
    pub open: Option<bool>,
    /// Only of this fault.
    pub fault: Option<FaultId>,
    /// Opened not before, in microseconds since 1970.
    pub since_wall_us: Option<u64>,
    /// At most so many.
    pub max: Option<usize>,
}

/// All incidents that are kept. It grows with what it hears: made of the store's files, it is as bounded as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order they were heard of. Numbers rise, but for a brain that lost its state and began at 1 again.
    incidents: Vec<Summary>,
    /// When something was last heard.
    last: Time,
}

/// Why an incident cannot be taken elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Nothing is known of it.
    #[error("nothing is kept of {0}")]
    Unknown(IncidentId),
    /// It cannot be told again without its beginning.
    #[error("the beginning of {0} is not kept any more, and without it nothing can be told again")]
    BeginningLost(IncidentId),
}

impl Summary {
    /// One that was just named.
    pub fn new(id: IncidentId, fault: FaultId, subject: Subject, evidence: String, opened: Time) -> Self {
        Self {
            id,
            fault,
            subject,
            evidence,
            occurrences: 1,
            opened,
            closed: None,
            end: None,
            why: String::new(),
            whole: true,
            story: Vec::new(),
        }
    }

    /// The fault's row, with title and severity.
    pub fn row(&self) -> &'static Fault {
        self.fault.row()
    }

    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// One that a brain has open; of its story nothing is known.
    pub fn of_state(incident: &Incident) -> Self {
        let (subject, evidence) = (incident.subject.clone(), incident.evidence.clone());
        let new = Self::new(incident.id, incident.fault, subject, evidence, incident.since);
        Self { occurrences: incident.occurrences, whole: false, ..new }
    }
}

impl Filter {
    fn takes(&self, one: &Summary) -> bool {
        self.open.is_none_or(|open| one.is_open() == open)
            && self.fault.is_none_or(|fault| one.fault == fault)
            && self.since_wall_us.is_none_or(|since| one.opened.wall_us >= since)
    }
}

impl History {
    /// Of all lines of the store, oldest first.
    pub fn of<'a>(kept: impl IntoIterator<Item = &'a Kept>) -> Self {
        let mut history = Self::default();
        for line in kept {
            history.hear(line);
        }
        history
    }

    /// Takes one line more.
    pub fn hear(&mut self, line: &Kept) {
        match line {
            Kept::State(brain) => self.state(brain),
            Kept::Input(input) => self.last = input.at,
            Kept::Told(entry) => self.told(entry),
        }
    }

    /// The incident of that number; the newest, should the numbers have begun anew.
    pub fn get(&self, id: IncidentId) -> Option<&Summary> {
        self.incidents.iter().rfind(|one| one.id == id)
    }

    /// Those that the filter takes, newest first.
    pub fn list(&self, filter: &Filter) -> Vec<&Summary> {
        let found = self.incidents.iter().rev().filter(|one| filter.takes(one));
        found.take(filter.max.unwrap_or(usize::MAX)).collect()
    }

    fn open_mut(&mut self, id: IncidentId) -> Option<&mut Summary> {
        self.incidents.iter_mut().rfind(|one| one.id == id)
    }

    /// A state has the last word on what is open: what was told of it may have been lost.
    fn state(&mut self, brain: &Brain) {
        for incident in brain.open() {
            match self.open_mut(incident.id).filter(|known| known.is_open()) {
                Some(known) => {
                    known.evidence.clone_from(&incident.evidence);
                    known.occurrences = incident.occurrences;
                }
                None => self.incidents.push(Summary::of_state(incident)),
            }
        }
        let last = self.last;
        for known in self.incidents.iter_mut().filter(|known| known.is_open()) {
            if !brain.open().any(|incident| incident.id == known.id) {
                known.closed = Some(last.max(known.opened));
            }
        }
    }

    fn told(&mut self, entry: &Entry) {
        self.last = entry.at;
        if let Fact::Opened { fault, subject, evidence, .. } = &entry.fact {
            // A state that already knew it said less.
            self.incidents.retain(|one| one.id != entry.incident || one.whole || !one.is_open());
            let new = Summary::new(entry.incident, *fault, subject.clone(), evidence.clone(), entry.at);
            self.incidents.push(Summary { story: vec![entry.clone()], ..new });
            return;
        }
        // Else neither its beginning nor a state is left, and of what it was nobody knows.
        let Some(known) = self.open_mut(entry.incident) else { return };
        known.story.push(entry.clone());
        match &entry.fact {
            Fact::Again { evidence, occurrences } => {
                known.evidence.clone_from(evidence);
                known.occurrences = *occurrences;
            }
            Fact::Closed { end, why } => {
                known.closed = Some(entry.at);
                known.end = Some(*end);
                known.why.clone_from(why);
            }
            Fact::Opened { .. }
            | Fact::Decided { .. }
            | Fact::NoAdvice { .. }
            | Fact::Suggested { .. }
            | Fact::Restrained { .. }
            | Fact::Announced { .. }
            | Fact::Commanded { .. }
            | Fact::Finished { .. }
            | Fact::Proven { .. }
            | Fact::Disproven { .. }
            | Fact::Alerted { .. } => {}
        }
    }
}

/// One incident, to be told again elsewhere: the last state before the input that opened it, and all inputs up to the one
/// that closed it, or to the end.
///
/// Other incidents that were open meanwhile are told with it, since the same brain decided on both.
///
/// # Errors
/// [`ExportError`]: nothing, or not its beginning, is among the lines.
pub fn export(kept: &[Kept], incident: IncidentId) -> Result<Export, ExportError> {
    /// From the state before the input that opened it, to the input that closed it.
    struct Span<'a> {
        begin: Option<(usize, &'a Brain)>,
        end: Option<usize>,
    }
    let (mut state, mut input) = (None, None);
    let mut span: Option<Span<'_>> = None;
    let mut heard_of = false;
    for (at, line) in kept.iter().enumerate() {
        match line {
            Kept::State(brain) => {
                state = Some((at, &**brain));
                heard_of |= brain.open().any(|open| open.id == incident);
            }
            // With the state before it: one that comes later says nothing of this input.
            Kept::Input(_) => input = Some((at, state)),
            Kept::Told(entry) if entry.incident == incident => {
                heard_of = true;
                match (&entry.fact, &mut span) {
                    (Fact::Opened { .. }, span) => {
                        *span = Some(Span { begin: input.and_then(|(_, state)| state), end: None });
                    }
                    (Fact::Closed { .. }, Some(span)) => span.end = input.map(|(at, _)| at),
                    (_, _) => {}
                }
            }
            Kept::Told(_) => {}
        }
    }
    let Some(Span { begin: Some((begin, brain)), end }) = span else {
        return Err(if heard_of { ExportError::BeginningLost(incident) } else { ExportError::Unknown(incident) });
    };
    let lines = kept.iter().take(end.map_or(kept.len(), |end| end + 1)).skip(begin);
    let inputs = lines.filter_map(|line| match line {
        Kept::Input(input) => Some(input.clone()),
        Kept::State(_) | Kept::Told(_) => None,
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Export { version, state: Box::new(brain.clone()), inputs: inputs.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::{
        brain::{Command, Input, What},
        classify::Numbers,
        incidents::replay::retell,
        signal::{Active, Observation, Signal, Source, Unit, UnitState},
    };

    fn at(second: u64) -> Time {
        Time::default().plus_us(1_000_000_000 + second * 1_000_000)
    }

    fn unit(second: u64, unit: Unit, active: Active, run: u8) -> Input {
        let died = unit == Unit::Proxy && active != Active::Active;
        let state = UnitState {
            unit,
            active,
            result: if died { "signal" } else { "success" }.to_owned(),
            invocation: format!("{run:032}"),
            restarts: 0,
            pid: u32::from(!died),
            exit_code: if died { 2 } else { 0 },
            exit_status: if died { 9 } else { 0 },
        };
        let signal = Signal { at: at(second), source: Source::Units, observation: Observation::Unit(state) };
        Input { at: at(second), what: What::Signal(signal) }
    }

    /// Two runs that die, each seen until nothing is open any more.
    fn inputs() -> Vec<Input> {
        let mut inputs = vec![Input { at: at(0), what: What::Began { boot: "b0".to_owned() } }];
        for (run, begin) in [(1, 10), (2, 200)] {
            inputs.push(unit(begin, Unit::Socket, Active::Active, run));
            inputs.push(unit(begin, Unit::Proxy, Active::Active, run));
            inputs.push(unit(begin + 1, Unit::Proxy, Active::Activating, run));
            inputs.extend((2..60).map(|second| Input { at: at(begin + second), what: What::Tick }));
        }
        inputs
    }

    /// As the watchdog keeps it: what comes while nothing is open is not kept, but the state before what opens something.
    fn kept() -> Vec<Kept> {
        let mut brain = Brain::new(Numbers::default(), false);
        let mut kept = Vec::new();
        for input in inputs() {
            let before = brain.clone();
            let said = brain.step(&input);
            let opens = brain.open().any(|one| before.open().all(|other| other.id != one.id));
            if opens {
                kept.push(Kept::State(Box::new(before.clone())));
            }
            if opens || before.open().next().is_some() {
                kept.push(Kept::Input(input));
            }
            kept.extend(said.into_iter().filter_map(|command| match command {
                Command::Record(entry) => Some(Kept::Told(entry)),
                _ => None,
            }));
        }
        assert_eq!(brain.open().count(), 0);
        kept
    }

    fn opened(kept: &[Kept], id: IncidentId) -> usize {
        let opens = |line: &Kept| matches!(line, Kept::Told(entry) if entry.incident == id && matches!(entry.fact, Fact::Opened { .. }));
        kept.iter().position(opens).unwrap()
    }

    const ONE: IncidentId = IncidentId(1);
    const TWO: IncidentId = IncidentId(2);

    #[test]
    fn a_story_is_told_as_it_was() {
        let kept = kept();
        let history = History::of(&kept);
        let ids = |filter: &Filter| history.list(filter).iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(ids(&Filter::default()), [TWO, ONE], "newest first");
        assert_eq!(ids(&Filter { max: Some(1), ..Filter::default() }), [TWO]);
        assert_eq!(ids(&Filter { open: Some(true), ..Filter::default() }), []);
        assert_eq!(ids(&Filter { since_wall_us: Some(at(100).wall_us), ..Filter::default() }), [TWO]);
        assert_eq!(ids(&Filter { fault: FaultId::parse("A2"), ..Filter::default() }), []);
        let one = history.get(ONE).unwrap();
        assert_eq!((one.fault.name(), one.evidence.as_str(), one.opened), ("A1", "ended by signal 9", at(11)));
        assert_eq!(one.end, one.closed.and(Some(End::Unproven)));
        assert!(one.whole && !one.why.is_empty());
        assert_eq!(history.get(IncidentId(3)), None);
    }

    #[test]
    fn each_incident_can_be_taken_elsewhere_alone() {
        let kept = kept();
        let history = History::of(&kept);
        for id in [ONE, TWO] {
            let told = retell(&export(&kept, id).unwrap());
            assert_eq!(told, history.get(id).unwrap().story);
        }
        assert_eq!(export(&kept, IncidentId(3)), Err(ExportError::Unknown(IncidentId(3))));
    }

    #[test]
    fn an_open_one_is_taken_as_far_as_it_goes() {
        let mut kept = kept();
        kept.truncate(opened(&kept, TWO) + 1);
        let history = History::of(&kept);
        assert!(history.get(TWO).unwrap().is_open());
        let told = retell(&export(&kept, TWO).unwrap());
        assert!(told.starts_with(&history.get(TWO).unwrap().story), "{told:?}");
    }

    #[test]
    fn what_began_before_the_files_is_known_by_their_state() {
        let mut kept = kept();
        let begin = opened(&kept, TWO) + 1;
        let before: Vec<Kept> = kept.drain(..begin).collect();
        let brain = super::super::replay::recover(&before).unwrap();
        let snapshot = [Kept::State(Box::new(brain))];
        let history = History::of(snapshot.iter().chain(&kept));
        let two = history.get(TWO).unwrap();
        assert!(!two.whole && !two.is_open() && !two.story.is_empty());
        assert_eq!((two.fault.name(), two.end.is_some()), ("A1", true));
        assert_eq!(history.get(ONE), None);
        let all: Vec<Kept> = snapshot.into_iter().chain(kept).collect();
        assert_eq!(export(&all, TWO), Err(ExportError::BeginningLost(TWO)));
        assert_eq!(export(&all, ONE), Err(ExportError::Unknown(ONE)));
        // Only what was told is left: of what it was, nobody knows.
        assert_eq!(History::of(&all[1..]).get(TWO), None);
        assert_eq!(export(&all[1..], TWO), Err(ExportError::BeginningLost(TWO)));
    }

    #[test]
    fn an_end_nobody_told_of_shows_in_the_next_state() {
        let mut kept = kept();
        kept.retain(|line| !matches!(line, Kept::Told(entry) if matches!(entry.fact, Fact::Closed { .. })));
        let history = History::of(&kept);
        let one = history.get(ONE).unwrap();
        assert!(!one.is_open() && one.end.is_none(), "the state before the second one knows that it is over");
        assert!(history.get(TWO).unwrap().is_open());
    }

    #[test]
    fn a_state_between_an_opening_and_its_telling_makes_no_second_incident() {
        let mut kept = kept();
        let begin = opened(&kept, TWO);
        let brain = super::super::replay::recover(&kept[..begin]).unwrap();
        kept.insert(begin, Kept::State(Box::new(brain)));
        let history = History::of(&kept);
        assert_eq!(history.list(&Filter::default()).len(), 2);
        assert!(history.get(TWO).unwrap().whole);
        let story = history.get(TWO).unwrap().story.clone();
        assert_eq!(retell(&export(&kept, TWO).unwrap()), story);
    }

    #[test]
    fn numbers_that_begin_anew_name_the_newest() {
        let first = kept();
        let history = History::of(first.iter().chain(&first));
        assert_eq!(history.list(&Filter::default()).len(), 4);
        assert_eq!(history.get(ONE).unwrap().story, History::of(&first).get(ONE).unwrap().story);
    }
}
