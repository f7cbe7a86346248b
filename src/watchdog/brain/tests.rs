//! The brain against simulated worlds: a manager that counts starts as systemd does, a proxy that dies, hangs, panics and
//! loses its port, a person who stops, starts, pauses and cancels, sources that repeat, delay, lose and go blind, and a
//! watchdog that is killed itself. What must never happen is looked for in each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;
use crate::{
    config::settings::FaultNumbers,
    watchdog::{
        catalog::{Proof, faults},
        signal::{Exit, Failure, Health, Observation, Ping, Port, UnitState},
    },
};

const BURST: u32 = 6;
const INTERVAL_US: u64 = 60 * SECOND_US;
/// A stop or a pause that the brain must have heard of.
const HEARD_US: u64 = 2 * SECOND_US;

/// A generator of which the same seed gives the same worlds: xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What happens to the world.
#[derive(Debug, Clone)]
enum Event {
    /// The brain hears this.
    Hear(What),
    /// A probe is due.
    Probe,
    /// Its answers are late from now on, or in time again.
    Slow(bool),
    /// Only if the proxy is still this run.
    Dies {
        run: u32,
        result: &'static str,
        status: i32,
    },
    Hangs {
        run: u32,
    },
    Panics,
    /// The manager's restart after a death.
    Restart {
        run: u32,
    },
    /// The manager's watchdog ends a run that hangs.
    Bites {
        run: u32,
    },
    Stop,
    Start,
    Recover,
    /// Somebody takes the port away while nobody holds it, and leaves it.
    PortTaken {
        stale: bool,
    },
    PortLeft,
    Pause {
        us: u64,
    },
    Cancel,
    WatchdogDies,
    Blind(Source, bool),
    /// The manager carries an order out, and its job ends a while later; the word of it may be lost.
    Execute {
        order: Order,
        lost: bool,
    },
    Finished {
        order: Order,
        outcome: Outcome,
        lost: bool,
    },
}

/// What kind of a world it is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Common,
    Stubborn,
    Crowded,
}

/// The world, and the brain in it.
struct Sim {
    kind: Kind,
    random: Random,
    now: Time,
    queue: BTreeMap<(u64, u64), Event>,
    tickets: u64,
    brain: Brain,
    /// Everything that the brain heard since it last began, and what it said; and how it was then.
    heard: Vec<(Input, Vec<Command>)>,
    began_as: Brain,
    alive: bool,
    // The manager.
    proxy: Active,
    socket: Active,
    socket_result: &'static str,
    capped: Active,
    result: &'static str,
    status: i32,
    run: u32,
    restarts: u32,
    window: Option<(u64, u32)>,
    bites: bool,
    restarts_itself: bool,
    // The proxy.
    hung: bool,
    /// It answers, but late.
    late: bool,
    fragile: u64,
    /// Every run hangs after this long.
    hangs_after: Option<u64>,
    /// Jobs of the manager take long.
    slow: bool,
    port_held: Option<bool>,
    blind: BTreeSet<Source>,
    // What is checked.
    stopped_at: Option<u64>,
    /// When the brain last began to see.
    sight_at: u64,
    paused_until: u64,
    paused_at: u64,
    flying: BTreeMap<CommandId, Subject>,
    used: BTreeSet<CommandId>,
    rest: Duration,
    acts: BTreeMap<String, Vec<u64>>,
    /// Open incidents.
    open: BTreeMap<IncidentId, Story>,
    /// Those that ended in this step.
    over: BTreeMap<IncidentId, Story>,
    ends: BTreeMap<End, u32>,
    /// What became of what was advised.
    advised: BTreeMap<Verified, u32>,
    served_at: u64,
    prompt_at: u64,
    listening_at: u64,
    /// What the brain was told last.
    told: Told,
}

/// What the brain was told last, and has not lost sight of since.
#[derive(Default)]
struct Told {
    health: Option<(Time, Health)>,
    units: BTreeMap<Unit, Active>,
}

impl Told {
    fn hears(&mut self, what: &What) {
        let signal = match what {
            What::Began { .. } => return *self = Self::default(),
            What::Signal(signal) => signal,
            _ => return,
        };
        match &signal.observation {
            Observation::Health(health) => self.health = Some((signal.at, *health)),
            Observation::Unit(state) => drop(self.units.insert(state.unit, state.active)),
            Observation::Sight { of: Source::Probe, blind: Some(_) } => self.health = None,
            Observation::Sight { of: Source::Units, blind: Some(_) } => self.units.clear(),
            _ => {}
        }
    }

    /// Whether it speaks against what was done before `since`.
    fn contradicts(&self, proof: Proof, since: u64) -> bool {
        let health = self.health.filter(|(at, _)| at.mono_us > since).map(|(_, health)| health);
        match (proof, health) {
            (Proof::Listening, _) => self.units.get(&Unit::Socket).is_some_and(|socket| *socket != Active::Active),
            (Proof::Prompt, Some(Health::Served { elapsed_us, .. })) if elapsed_us >= SECOND_US => true,
            (_, health) => health == Some(Health::Silent),
        }
    }
}

/// An open incident, as far as it was told.
#[derive(Debug, Clone)]
struct Story {
    fault: FaultId,
    subject: Subject,
    /// Since when it is proven to be over.
    proven: Option<u64>,
    /// Since when something is to help, or to be seen.
    since: u64,
    /// Who was asked for advice.
    asked: Vec<Tier>,
    /// Who decided what is next.
    tier: Tier,
    /// What was done.
    tried: Vec<Action>,
    /// The last command, until it is said whether it helped.
    judged: Option<(CommandId, Action)>,
    end: Option<End>,
}

impl Sim {
    fn new(seed: u64, without: Option<Part>) -> Self {
        let mut random = Random::new(seed);
        let kind = match seed % 50 {
            1 => Kind::Stubborn,
            2 => Kind::Crowded,
            _ => Kind::Common,
        };
        let observe_only = kind == Kind::Common && random.one_in(20);
        // A row rests as long as it is told.
        let rest = if random.one_in(4) { Duration::from_secs(100) } else { Duration::from_secs(30) };
        let told = FaultNumbers { cooldown: (rest.as_secs() != 30).then_some(rest), ..FaultNumbers::default() };
        let numbers: BTreeMap<String, FaultNumbers> = faults().map(|row| (row.id.to_owned(), told)).collect();
        let mut brain = Brain::new(Numbers::from(&numbers), observe_only).asking_ai(random.one_in(3));
        brain.without = without;
        let now = Time { mono_us: 1_000 * SECOND_US, wall_us: 1_700_000_000 * SECOND_US };
        let mut sim = Self {
            kind,
            now,
            queue: BTreeMap::new(),
            tickets: 0,
            began_as: brain.clone(),
            brain,
            heard: Vec::new(),
            alive: true,
            proxy: Active::Inactive,
            socket: Active::Inactive,
            socket_result: "success",
            capped: Active::Inactive,
            result: "success",
            status: 0,
            run: 0,
            restarts: 0,
            window: None,
            bites: kind == Kind::Common && !random.one_in(3),
            restarts_itself: true,
            hung: false,
            late: false,
            fragile: if random.one_in(3) { 1 + random.below(8) } else { 0 },
            hangs_after: None,
            slow: false,
            port_held: None,
            blind: BTreeSet::new(),
            stopped_at: None,
            sight_at: 0,
            paused_until: 0,
            paused_at: 0,
            flying: BTreeMap::new(),
            used: BTreeSet::new(),
            rest,
            acts: BTreeMap::new(),
            open: BTreeMap::new(),
            over: BTreeMap::new(),
            ends: BTreeMap::new(),
            advised: BTreeMap::new(),
            served_at: 0,
            prompt_at: 0,
            listening_at: 0,
            told: Told::default(),
            random,
        };
        if sim.random.one_in(3) {
            // No right to read the journal.
            sim.blind.insert(Source::Journal);
        }
        // What was before the watchdog.
        for _ in 0..sim.random.below(6) {
            sim.run += 1;
            sim.window = Some(sim.window.map_or((now.mono_us, 1), |(from, n)| (from, n + 1)));
        }
        sim
    }

    fn later(&mut self, us: u64, event: Event) {
        self.tickets += 1;
        self.queue.insert((self.now.mono_us + us, self.tickets), event);
    }

    /// The brain hears of it after a moment; perhaps twice, and if the source may lose things, perhaps never.
    fn tell(&mut self, source: Source, observation: Observation, reliable: bool) {
        if !self.alive || self.blind.contains(&source) || (!reliable && self.random.one_in(10)) {
            return;
        }
        let signal = Signal { at: self.now, source, observation };
        // The bus keeps the order of one sender.
        let delay = if source == Source::Units { 3_000 } else { self.random.below(500_000) };
        if self.random.one_in(8) {
            self.later(delay, Event::Hear(What::Signal(signal.clone())));
        }
        self.later(delay, Event::Hear(What::Signal(signal)));
    }

    fn state(&self, unit: Unit) -> UnitState {
        let (active, result) = match unit {
            Unit::Proxy => (self.proxy, self.result),
            Unit::Socket => (self.socket, self.socket_result),
            Unit::Capped => (self.capped, "success"),
        };
        UnitState {
            unit,
            active,
            result: result.to_owned(),
            invocation: if self.run == 0 { String::new() } else { format!("run{}", self.run) },
            restarts: self.restarts,
            pid: if self.proxy == Active::Active { self.run } else { 0 },
            exit_code: if result == "signal" { 2 } else { 1 },
            exit_status: self.status,
        }
    }

    fn tell_unit(&mut self, unit: Unit) {
        let state = self.state(unit);
        self.tell(Source::Units, Observation::Unit(state), true);
    }

    /// What sources tell when they begin.
    fn tell_all(&mut self) {
        self.sight_at = self.now.mono_us;
        self.tell(Source::Units, Observation::StartLimit { burst: BURST, interval_us: INTERVAL_US }, true);
        for unit in Unit::ALL {
            self.tell_unit(unit);
        }
        for source in [Source::Journal, Source::Units] {
            if self.blind.contains(&source) {
                let blind = Some("may not be read".to_owned());
                let signal = Signal { at: self.now, source, observation: Observation::Sight { of: source, blind } };
                self.later(0, Event::Hear(What::Signal(signal)));
            }
        }
        if !self.blind.contains(&Source::Journal) {
            let from = self.window.map_or(1, |(_, n)| n);
            for n in 0..from {
                let run = self.run.saturating_sub(n);
                if run > 0 {
                    self.tell(Source::Journal, Observation::Starting { invocation: format!("run{run}") }, true);
                }
            }
            let mono_us = self.now.mono_us.saturating_sub(INTERVAL_US + SECOND_US);
            self.later(
                600_000,
                Event::Hear(What::Signal(Signal {
                    at: self.now,
                    source: Source::Journal,
                    observation: Observation::StartsKnownSince { mono_us },
                })),
            );
        }
    }

    /// As `ratelimit_below` of systemd: a fixed window from the first start on.
    fn within_limit(&mut self) -> bool {
        let now = self.now.mono_us;
        match &mut self.window {
            Some((from, n)) if *from + INTERVAL_US >= now => {
                *n += 1;
                *n <= BURST
            }
            window => {
                *window = Some((now, 1));
                true
            }
        }
    }

    /// The manager starts the proxy; false: refused.
    fn start(&mut self) -> bool {
        if self.port_held.is_some() && self.socket != Active::Active {
            (self.socket, self.socket_result) = (Active::Failed, "resources");
            self.tell_unit(Unit::Socket);
            return true;
        }
        if !self.within_limit() {
            self.proxy = Active::Failed;
            (self.socket, self.socket_result) = (Active::Failed, "service-start-limit-hit");
            self.capped = Active::Active;
            self.tell_unit(Unit::Proxy);
            self.tell_unit(Unit::Socket);
            self.tell_unit(Unit::Capped);
            return false;
        }
        self.run += 1;
        if self.socket != Active::Active {
            (self.socket, self.socket_result) = (Active::Active, "success");
            self.tell_unit(Unit::Socket);
        }
        if self.capped == Active::Active {
            self.capped = Active::Inactive;
            self.tell_unit(Unit::Capped);
        }
        (self.proxy, self.result, self.status, self.hung) = (Active::Active, "success", 0, false);
        self.tell_unit(Unit::Proxy);
        self.tell(Source::Journal, Observation::Starting { invocation: format!("run{}", self.run) }, true);
        let run = self.run;
        if let Some(wait) = self.hangs_after {
            self.later(wait, Event::Hangs { run });
        }
        if self.fragile > 0 && self.random.one_in(2) {
            let wait = self.random.below(self.fragile * SECOND_US);
            self.later(wait, Event::Dies { run, result: "exit-code", status: 101 });
        }
        true
    }

    fn dies(&mut self, result: &'static str, status: i32) {
        (self.proxy, self.result, self.status) = (Active::Activating, result, status);
        self.hung = false;
        self.restarts += 1;
        self.tell_unit(Unit::Proxy);
        let exit = Exit { invocation: format!("run{}", self.run), result: result.to_owned(), code: 2, status };
        self.tell(Source::Journal, Observation::Exit(exit), true);
        let run = self.run;
        self.later(100_000, Event::Restart { run });
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Hear(what) => {
                if self.alive {
                    self.step(what)?;
                }
            }
            Event::Probe => {
                if self.alive && self.proxy == Active::Active {
                    let (health, ping) = if self.hung {
                        (Health::Silent, Ping::Silent)
                    } else {
                        let elapsed_us = if self.late { 3 * SECOND_US } else { 900 };
                        (Health::Served { elapsed_us, pid: self.run }, Ping::Answered)
                    };
                    self.tell(Source::Probe, Observation::Ping(ping), false);
                    self.tell(Source::Probe, Observation::Health(health), false);
                }
                self.later(5 * SECOND_US, Event::Probe);
            }
            Event::Dies { run, result, status } => {
                if self.proxy == Active::Active && run == self.run {
                    self.dies(result, status);
                }
            }
            Event::Hangs { run } => {
                if self.proxy == Active::Active && run == self.run {
                    self.hung = true;
                    if self.bites {
                        self.later(10 * SECOND_US, Event::Bites { run });
                    }
                }
            }
            Event::Slow(late) => self.late = late,
            Event::Bites { run } => {
                if self.hung && self.proxy == Active::Active && run == self.run {
                    self.dies("watchdog", 9);
                }
            }
            Event::Panics if self.proxy != Active::Active => {}
            Event::Panics => {
                let event_id = format!("evt{}", self.tickets);
                let failure = Failure { event_id, signal: "panic".to_owned(), ..Failure::default() };
                // Over the bus and in the journal: one event.
                self.tell(Source::Failures, Observation::Failure(failure.clone()), false);
                self.tell(Source::Journal, Observation::Failure(failure), true);
            }
            Event::Restart { run } => {
                if self.proxy == Active::Activating && run == self.run && self.restarts_itself {
                    self.start();
                }
            }
            Event::Stop => {
                self.stopped_at = Some(self.now.mono_us);
                // The manager's stop takes the place of the jobs that wait.
                for event in self.queue.values_mut() {
                    if let Event::Execute { order, lost } = event
                        && order.action.starts()
                    {
                        let outcome = Outcome::Failed { why: "canceled".to_owned() };
                        *event = Event::Finished { order: order.clone(), outcome, lost: *lost };
                    }
                }
                if self.proxy != Active::Failed {
                    self.proxy = Active::Inactive;
                }
                self.hung = false;
                if self.socket != Active::Failed {
                    (self.socket, self.socket_result) = (Active::Inactive, "success");
                }
                self.capped = Active::Inactive;
                for unit in Unit::ALL {
                    self.tell_unit(unit);
                }
                // By our own command, which says so; the manager alone does not show a stop of what had failed.
                if self.alive && self.socket == Active::Failed {
                    self.step(What::Stopped)?;
                }
            }
            Event::Start => {
                self.stopped_at = None;
                if self.proxy != Active::Active {
                    self.start();
                }
            }
            Event::Recover => {
                self.stopped_at = None;
                self.window = None;
                if self.proxy != Active::Active {
                    self.start();
                }
            }
            Event::PortTaken { stale } => {
                if self.socket != Active::Active && self.capped != Active::Active {
                    self.port_held = Some(stale);
                }
            }
            Event::PortLeft => self.port_held = None,
            Event::Pause { us } => {
                self.paused_at = self.now.mono_us;
                self.paused_until = self.now.mono_us + us;
                let until_wall_us = self.now.wall_us + us;
                if self.alive {
                    self.step(What::Pause { until_wall_us })?;
                }
            }
            Event::Cancel => {
                let incident = self.open.keys().next().copied();
                if let (true, Some(incident)) = (self.alive, incident) {
                    self.step(What::Cancel { incident })?;
                }
            }
            Event::WatchdogDies => self.restart_watchdog()?,
            Event::Blind(source, blind) => {
                let changed = if blind { self.blind.insert(source) } else { self.blind.remove(&source) };
                if changed && self.alive {
                    let why = blind.then(|| "cannot see".to_owned());
                    let observation = Observation::Sight { of: source, blind: why };
                    let signal = Signal { at: self.now, source, observation };
                    self.step(What::Signal(signal))?;
                    if !blind {
                        self.tell_all();
                    }
                }
            }
            Event::Execute { order, lost } => {
                let outcome = self.execute(&order)?;
                let wait = if self.slow || self.random.one_in(8) { 30 * SECOND_US } else { 20_000 };
                self.later(wait, Event::Finished { order, outcome, lost });
            }
            Event::Finished { order, outcome, lost } => {
                self.flying.remove(&order.command);
                if !lost && self.alive {
                    self.step(What::Outcome { command: order.command, outcome })?;
                }
            }
        }
        Ok(())
    }

    /// What the manager does when it is asked.
    fn execute(&mut self, order: &Order) -> Result<Outcome, String> {
        let refused = || Err(format!("{order:?} was one start too many"));
        match order.action {
            Action::StartProxy if self.proxy == Active::Active => {}
            Action::StartProxy => {
                if !self.start() {
                    return refused();
                }
                if self.proxy != Active::Active {
                    return Ok(Outcome::Failed { why: "dependency".to_owned() });
                }
            }
            Action::RestartProxy => {
                if !self.start() {
                    return refused();
                }
            }
            Action::KillStaleProcesses => {
                if order.process.is_none() {
                    return Err("a kill without a process".to_owned());
                }
                if self.port_held != Some(true) {
                    return Ok(Outcome::Failed { why: "it is another process now".to_owned() });
                }
                self.port_held = None;
            }
            // Advised by somebody who does not know better.
            _ => return Ok(Outcome::Failed { why: "it is not for this".to_owned() }),
        }
        Ok(Outcome::Done)
    }

    /// `kill -9`, and the state as it was stored: with everything that was recorded.
    fn restart_watchdog(&mut self) -> Result<(), String> {
        let stored = serde_json::to_vec(&self.brain).map_err(|error| error.to_string())?;
        let without = self.brain.without;
        self.replay()?;
        self.brain = serde_json::from_slice(&stored).map_err(|error| error.to_string())?;
        self.brain.without = without;
        self.began_as = self.brain.clone();
        self.heard.clear();
        // What was on its way to it is lost.
        self.queue.retain(|_, event| !matches!(event, Event::Hear(_)));
        for event in self.queue.values_mut() {
            if let Event::Execute { lost, .. } | Event::Finished { lost, .. } = event {
                *lost = true;
            }
        }
        self.step(What::Began { boot: "b0".to_owned() })?;
        self.tell_all();
        Ok(())
    }

    /// The same inputs give the same commands, byte for byte.
    fn replay(&self) -> Result<(), String> {
        let mut again = self.began_as.clone();
        for (input, said) in &self.heard {
            let now = again.step(input);
            if serde_json::to_string(&now).ok() != serde_json::to_string(said).ok() {
                return Err(format!("{input:?} gave {said:?}, and then {now:?}"));
            }
        }
        if serde_json::to_string(&again).ok() != serde_json::to_string(&self.brain).ok() {
            return Err("the replay ended elsewhere".to_owned());
        }
        Ok(())
    }

    fn step(&mut self, what: What) -> Result<(), String> {
        let input = Input { at: self.now, what };
        self.told.hears(&input.what);
        if matches!(input.what, What::Began { .. }) {
            self.open.values_mut().for_each(|story| story.since = self.now.mono_us);
        }
        let said = self.brain.step(&input);
        self.heard.push((input, said.clone()));
        for command in &said {
            self.check(command)?;
        }
        for (id, story) in std::mem::take(&mut self.over) {
            if story.judged.is_some() {
                return Err(format!("{id}: ended, and nothing was learnt: {story:?}"));
            }
        }
        for command in said {
            match command {
                Command::Act(order) => {
                    let lost = self.random.one_in(15);
                    let wait = self.random.below(2 * SECOND_US);
                    if self.random.one_in(20) {
                        // It never comes to where it should be carried out.
                        let outcome = Outcome::Unknown { why: "nobody answered".to_owned() };
                        self.later(wait, Event::Finished { order, outcome, lost });
                    } else {
                        self.later(wait, Event::Execute { order, lost });
                    }
                }
                Command::Consult { incident, tier, .. } => self.answer(incident, tier),
                Command::Look(Source::Processes) => {
                    let port = match (self.port_held, self.socket) {
                        (Some(stale), _) => {
                            let process = Process { pid: 7, start: 1, exe: "x".to_owned(), inode: 1, terminal: false };
                            if stale { Port::Stale(process) } else { Port::Other(process) }
                        }
                        (None, Active::Active) => Port::Ours,
                        (None, _) => Port::Free,
                    };
                    self.tell(Source::Processes, Observation::Port(port), false);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whoever is asked answers sensibly, wildly, twice, late, or never.
    fn answer(&mut self, incident: IncidentId, tier: Tier) {
        let action = match self.random.below(6) {
            0 => None,
            1 => Some(Action::ALL[self.random.below(Action::ALL.len() as u64) as usize]),
            2 => Some(Action::StartProxy),
            _ => Some(Action::RestartProxy),
        };
        let advice = What::Advice { incident, tier, action, why: "it helped 1 of 1 times".to_owned() };
        match self.random.below(8) {
            0 => {}
            1 => self.later(40 * SECOND_US, Event::Hear(advice)),
            2 => {
                self.later(1_000, Event::Hear(advice.clone()));
                self.later(900_000, Event::Hear(advice));
            }
            _ => self.later(1_000, Event::Hear(advice)),
        }
    }

    fn check(&mut self, command: &Command) -> Result<(), String> {
        let now = self.now.mono_us;
        match command {
            Command::Act(order) => {
                if !self.used.insert(order.command) {
                    return Err(format!("{order:?} was sent twice"));
                }
                if self.brain.observe_only {
                    return Err(format!("{order:?} though it only watches"));
                }
                if self.flying.values().any(|subject| *subject == order.subject) {
                    return Err(format!("{order:?} beside another on the same subject"));
                }
                if self.paused_until > now && self.paused_at + HEARD_US < now {
                    return Err(format!("{order:?} in a pause"));
                }
                if self.stopped_and_known() {
                    return Err(format!("{order:?} though a person stopped it"));
                }
                let Some(story) = self.open.get_mut(&order.command.0) else {
                    return Err(format!("{order:?} without an incident"));
                };
                let (fault, subject, advised) = (story.fault, story.subject.clone(), story.tier != Tier::Rules);
                if advised && !order.action.may_be_advised() {
                    return Err(format!("{order:?} on advice"));
                }
                if advised && order.action.starts() && !self.told.units.contains_key(&Unit::Proxy) {
                    return Err(format!("{order:?} on advice, though nothing is known of the unit"));
                }
                if advised && story.tried.contains(&order.action) {
                    return Err(format!("{order:?} on advice, though it was done before"));
                }
                story.tried.push(order.action);
                story.judged = Some((order.command, order.action));
                let budget = fault.row().budget;
                let times = self.acts.entry(format!("{fault} {subject}")).or_default();
                // A rung of two acts is one attempt.
                if advised || order.action != Action::StartProxy || fault.name() != "A2" {
                    times.retain(|at| at + micros(budget.per) > now);
                    if let Some(last) = times.last()
                        && now - last < micros(self.rest)
                    {
                        return Err(format!("{order:?} without a rest"));
                    }
                    times.push(now);
                    if times.len() > budget.attempts_max as usize {
                        return Err(format!("{order:?} exceeds the budget"));
                    }
                }
                self.flying.insert(order.command, order.subject.clone());
            }
            Command::Alert { .. } => {
                if self.stopped_and_known() {
                    return Err("an alert though a person stopped it".to_owned());
                }
            }
            Command::Consult { incident, tier, tried, .. } => {
                if self.stopped_and_known() || self.brain.observe_only {
                    return Err(format!("{incident}: asked for what may not be done"));
                }
                if self.paused_until > now && self.paused_at + HEARD_US < now {
                    return Err(format!("{incident}: asked in a pause"));
                }
                if *tier == Tier::Rules || (*tier == Tier::Ai && !self.brain.asks_ai) {
                    return Err(format!("{incident}: {tier:?} is not to be asked"));
                }
                let Some(story) = self.open.get_mut(incident) else {
                    return Err(format!("{incident}: asked without an incident"));
                };
                if story.asked.iter().any(|asked| asked >= tier) {
                    return Err(format!("{incident}: asked {tier:?} after {:?}", story.asked));
                }
                story.asked.push(*tier);
                if story.tried.iter().any(|done| !tried.contains(done)) {
                    return Err(format!("{incident}: did not say what was tried"));
                }
            }
            Command::Learn { command, action, outcome, .. } => {
                // It may come right after the end.
                let Some(story) = self.open.get_mut(&command.0).or(self.over.get_mut(&command.0)) else {
                    return Err(format!("{command}: learnt from nothing"));
                };
                if story.judged.take() != Some((*command, *action)) {
                    return Err(format!("{command}: learnt from {action:?} in {story:?}"));
                }
                let due = match story.end {
                    None => Verified::Failed,
                    Some(End::Healed) => Verified::Succeeded,
                    Some(_) => Verified::Unproven,
                };
                if *outcome != due {
                    return Err(format!("{command}: {outcome:?} in {story:?}"));
                }
                if story.tier != Tier::Rules {
                    *self.advised.entry(*outcome).or_default() += 1;
                }
            }
            Command::Record(entry) => self.check_story(&entry.fact, entry.incident)?,
            Command::Announce { .. } | Command::Look(_) => {}
        }
        Ok(())
    }

    /// A person stopped it, and the brain has had the time and the sight to know.
    fn stopped_and_known(&self) -> bool {
        let known = !self.blind.contains(&Source::Units) && self.now.mono_us > self.sight_at + HEARD_US;
        known && self.stopped_at.is_some_and(|at| at + HEARD_US < self.now.mono_us)
    }

    fn check_story(&mut self, fact: &Fact, id: IncidentId) -> Result<(), String> {
        let now = self.now.mono_us;
        let (served, prompt, listening) = (self.served_at, self.prompt_at, self.listening_at);
        let known = self.open.get_mut(&id);
        match (fact, known) {
            (Fact::Opened { fault, subject, .. }, None) => {
                let story = Story {
                    fault: *fault,
                    subject: subject.clone(),
                    proven: None,
                    since: now,
                    asked: Vec::new(),
                    tier: Tier::Rules,
                    tried: Vec::new(),
                    judged: None,
                    end: None,
                };
                self.open.insert(id, story);
            }
            (_, None) | (Fact::Opened { .. }, Some(_)) => return Err(format!("{id}: {fact:?} out of place")),
            (Fact::Proven { proof, .. }, Some(story)) => {
                story.proven = Some(now);
                let seen = match proof {
                    Proof::Serving => served,
                    Proof::Prompt => prompt,
                    Proof::Listening => listening,
                    Proof::Completed | Proof::Repaired | Proof::None => 0,
                };
                if now - seen > 12 * SECOND_US {
                    return Err(format!("{id}: proven by nothing"));
                }
            }
            (Fact::Again { .. } | Fact::Disproven { .. }, Some(story)) => story.proven = None,
            (Fact::Decided { tier, .. }, Some(story)) => {
                (story.proven, story.since, story.tier) = (None, now, *tier);
            }
            (Fact::Finished { .. }, Some(story)) => (story.proven, story.since) = (None, now),
            (Fact::Closed { end, .. }, Some(story)) => {
                let row = story.fault.row();
                if *end == End::Healed {
                    let Some(proven) = story.proven else { return Err(format!("{id}: healed without proof")) };
                    if now - proven < micros(row.verify.quiet) {
                        return Err(format!("{id}: healed too early"));
                    }
                }
                if *end == End::Unproven && self.told.contradicts(row.verify.proof, story.since) {
                    return Err(format!("{id}: left open though it was seen not to help"));
                }
                *self.ends.entry(*end).or_default() += 1;
                if let Some(mut story) = self.open.remove(&id) {
                    story.end = Some(*end);
                    self.over.insert(id, story);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn run_until(&mut self, end_us: u64) -> Result<(), String> {
        loop {
            let due = self.queue.keys().next().map(|(at, _)| *at);
            let wake = self.brain.wake(self.now).filter(|_| self.alive).map(|at| at.mono_us.max(self.now.mono_us + 1));
            let next = [due, wake].into_iter().flatten().min().unwrap_or(end_us);
            if next >= end_us {
                self.now = self.now.plus_us(end_us.saturating_sub(self.now.mono_us));
                return Ok(());
            }
            self.now = self.now.plus_us(next - self.now.mono_us);
            if self.proxy == Active::Active && !self.hung {
                self.served_at = next;
                if !self.late {
                    self.prompt_at = next;
                }
            }
            if self.socket == Active::Active {
                self.listening_at = next;
            }
            if due == Some(next) {
                if let Some((_, event)) = self.queue.pop_first() {
                    self.happens(event)?;
                }
            } else {
                self.step(What::Tick)?;
            }
        }
    }

    /// A few minutes of trouble, then peace until every incident is over.
    fn live(&mut self) -> Result<(), String> {
        self.step(What::Began { boot: "b0".to_owned() })?;
        self.later(0, Event::Start);
        self.later(1, Event::Probe);
        self.tell_all();
        let begun = self.now.mono_us;
        for _ in 0..self.random.below(7) {
            let at = self.random.below(240 * SECOND_US);
            if self.random.one_in(20) {
                self.later(at + 5 * SECOND_US, Event::PortLeft);
            }
            let event = match self.random.below(15) {
                0 | 1 => Event::Dies { run: 0, result: "signal", status: 9 },
                2 => Event::Dies { run: 0, result: "exit-code", status: 1 },
                3 | 4 => Event::Hangs { run: 0 },
                5 => Event::Panics,
                6 => Event::Stop,
                7 => Event::Start,
                8 if self.random.one_in(2) => Event::Recover,
                8 => Event::PortTaken { stale: self.random.one_in(2) },
                9 => Event::Pause { us: self.random.below(100 * SECOND_US) },
                10 => Event::Cancel,
                11 | 12 => Event::WatchdogDies,
                13 => {
                    let lasts = self.random.below(60 * SECOND_US);
                    self.later(at + lasts, Event::Slow(false));
                    Event::Slow(true)
                }
                _ => Event::Blind([Source::Units, Source::Journal, Source::Probe][self.random.below(3) as usize], true),
            };
            self.later(at, event);
        }
        let trouble_us = match self.kind {
            // Comes back as bad as it was, for more than an hour.
            Kind::Stubborn => {
                self.hangs_after = Some(20 * SECOND_US);
                5000 * SECOND_US
            }
            // Somebody else has the port at the start, and the manager is slow.
            Kind::Crowded => {
                self.hangs_after = Some(0);
                self.slow = true;
                self.later(2 * SECOND_US, Event::Stop);
                self.later(4 * SECOND_US, Event::PortTaken { stale: true });
                self.later(5 * SECOND_US, Event::Start);
                250 * SECOND_US
            }
            Kind::Common => 250 * SECOND_US,
        };
        // Which run it is shows when it comes to it.
        let end = begun + trouble_us;
        while let Some(((at, _), _)) = self.queue.first_key_value()
            && *at < end
        {
            let at = *at;
            let run = self.run;
            if let Some(Event::Dies { run: which, .. } | Event::Hangs { run: which }) =
                self.queue.first_entry().map(|entry| entry.into_mut())
                && *which == 0
            {
                *which = run;
            }
            self.run_until(at + 1)?;
        }
        (self.fragile, self.hangs_after, self.slow, self.late) = (0, None, false, false);
        self.port_held = None;
        self.run_until(end + 4000 * SECOND_US)?;
        self.replay()?;
        if let Some((id, incident)) = self.open.first_key_value() {
            return Err(format!("{id} never ended: {incident:?} {:?}", self.brain.open));
        }
        Ok(())
    }
}

/// One world; what went wrong in it, with the end of its story.
fn world(seed: u64, without: Option<Part>) -> Result<Sim, String> {
    let mut sim = Sim::new(seed, without);
    match sim.live() {
        Ok(()) => Ok(sim),
        Err(why) => {
            let told: Vec<String> =
                sim.heard.iter().rev().take(25).rev().map(|(i, o)| format!("{i:?}\n    {o:?}")).collect();
            Err(format!("world {seed} at {}: {why}\n{}", sim.now.mono_us, told.join("\n")))
        }
    }
}

#[test]
fn nothing_forbidden_happens_in_any_world() {
    let (mut ends, mut advised) = (BTreeMap::<End, u32>::new(), BTreeMap::<Verified, u32>::new());
    for seed in 0..10_000 {
        match world(seed, None) {
            Ok(sim) => {
                sim.ends.into_iter().for_each(|(end, n)| *ends.entry(end).or_default() += n);
                sim.advised.into_iter().for_each(|(outcome, n)| *advised.entry(outcome).or_default() += n);
            }
            Err(why) => panic!("{why}"),
        }
    }
    // Every way to end was gone.
    assert_eq!(ends.len(), 4, "{ends:?}");
    // And what was advised helped, did not, and was left open.
    assert_eq!(advised.len(), 3, "{advised:?}");
}

/// Worlds looked at before a part that is missing counts as unnoticed.
const WORLDS_MAX: u64 = 3000;

#[test]
fn every_guard_and_every_verification_is_needed() {
    let guards = [
        Guard::Pause,
        Guard::ObserveOnly,
        Guard::RestartLedger,
        Guard::LedgerIncomplete,
        Guard::CoolDown,
        Guard::Budget,
        Guard::Busy,
        Guard::Evidence,
        Guard::UserStop,
    ];
    // Each kind of proof that a row which can fire goes by.
    let mut kinds: Vec<Proof> = faults().filter(|row| row.can_fire()).map(|row| row.verify.proof).collect();
    kinds.sort_by_key(|kind| kind.words());
    kinds.dedup();
    let proofs = kinds.into_iter().flat_map(|kind| [Part::Proof(kind), Part::Disproof(kind)]);
    let parts = guards.map(Part::Guard).into_iter().chain(proofs).chain([Part::Recurrence, Part::Quiet]);
    let unnoticed: Vec<Part> =
        parts.filter(|part| (0..WORLDS_MAX).all(|seed| world(seed, Some(*part)).is_ok())).collect();
    assert!(unnoticed.is_empty(), "nothing noticed that these were missing: {unnoticed:?}");
}

/// A watchdog that is restarted knows nothing of the world for a moment; what it had announced or held back goes on all
/// the same, however old it is.
#[test]
fn a_restart_looks_again_before_it_gives_up() {
    let boot = || What::Began { boot: "b0".to_owned() };
    let unit = |unit, active, result: &str| {
        let (result, invocation) = (result.to_owned(), if unit == Unit::Proxy { "7" } else { "" }.to_owned());
        let (restarts, pid, exit_code, exit_status) = (0, 0, 0, 0);
        Observation::Unit(UnitState { unit, active, result, invocation, restarts, pid, exit_code, exit_status })
    };
    let leftover = Process { pid: 9, start: 1, exe: "/usr/bin/codex-proxy".to_owned(), inode: 5, terminal: false };
    let taken = [unit(Unit::Proxy, Active::Inactive, "success"), unit(Unit::Socket, Active::Failed, "resources")];
    let capped =
        [unit(Unit::Proxy, Active::Failed, "success"), unit(Unit::Socket, Active::Failed, "service-start-limit-hit")];
    let limit = Observation::StartLimit { burst: 1, interval_us: 600 * SECOND_US };
    for (units, port) in [(taken, Some(Port::Stale(leftover))), (capped, None)] {
        let mut brain = Brain::new(Numbers::default(), false);
        let mut told = Vec::new();
        let tell = |brain: &mut Brain, second: u64, what: What| -> Vec<Fact> {
            let at = Time::default().plus_us((10_000 + second) * SECOND_US);
            let said = brain.step(&Input { at, what });
            said.into_iter()
                .filter_map(|one| if let Command::Record(entry) = one { Some(entry.fact) } else { None })
                .collect()
        };
        let see = |observation: &Observation, second: u64| {
            let at = Time::default().plus_us((10_000 + second) * SECOND_US);
            What::Signal(Signal { at, source: Source::Units, observation: observation.clone() })
        };
        for begin in [0, 20] {
            told.extend(tell(&mut brain, begin, boot()));
            told.extend(tell(&mut brain, begin, see(&limit, begin)));
            told.extend(units.iter().flat_map(|unit| tell(&mut brain, begin, see(unit, begin))).collect::<Vec<_>>());
            told.extend(
                port.iter()
                    .flat_map(|port| tell(&mut brain, begin + 1, see(&Observation::Port(port.clone()), begin + 1)))
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(brain.open().map(|one| one.id).collect::<Vec<_>>(), [IncidentId(1)], "{told:#?}");
        assert_eq!(brain.pending().is_some(), port.is_some(), "{told:#?}");
    }
}

/// A run of the watchdog that ends before it has read the journal back hides nothing from the next.
#[test]
fn what_two_restarts_missed_is_told_by_the_third_run() {
    let at = |second: u64| Time::default().plus_us((10_000 + second) * SECOND_US);
    let mut brain = Brain::default();
    let mut hear = |second: u64, what: What| -> Vec<Command> { brain.step(&Input { at: at(second), what }) };
    let begin = || What::Began { boot: "b0".to_owned() };
    let limit = Observation::StartLimit { burst: 6, interval_us: 600 * SECOND_US };
    let seen = |second: u64, source, observation| What::Signal(Signal { at: at(second), source, observation });
    hear(0, begin());
    // It dies; while nobody watches, so does the proxy. The next run hears of something else only.
    hear(20, begin());
    hear(21, seen(21, Source::Units, limit));
    hear(30, begin());
    let exit = Exit { invocation: "7".to_owned(), result: "signal".to_owned(), code: 2, status: 9 };
    let opened = |said: &[Command]| {
        let of = |one: &&Command| matches!(one, Command::Record(Entry { fact: Fact::Opened { .. }, .. }));
        said.iter().filter(of).count()
    };
    let told = hear(31, seen(10, Source::Journal, Observation::Exit(exit.clone())));
    assert_eq!(opened(&told), 1, "{told:?}");
    assert_eq!(opened(&hear(32, seen(10, Source::Journal, Observation::Exit(exit)))), 0, "it counts once");
}

/// The manager tells the state of a unit and its result in two messages, on a busy machine far apart.
#[test]
fn a_socket_that_failed_without_a_reason_waits_for_it() {
    let mut brain = Brain::default();
    let mut hear = |result: &str| {
        let (active, result, invocation) = (Active::Failed, result.to_owned(), String::new());
        let (restarts, pid, exit_code, exit_status) = (0, 0, 0, 0);
        let unit = Unit::Socket;
        let state = UnitState { unit, active, result, invocation, restarts, pid, exit_code, exit_status };
        let at = Time::default().plus_us(SECOND_US);
        let signal = Signal { at, source: Source::Units, observation: Observation::Unit(state) };
        brain.step(&Input { at, what: What::Signal(signal) });
        brain.open().map(|incident| incident.fault.name()).collect::<Vec<_>>()
    };
    assert_eq!(hear("success"), [""; 0]);
    assert_eq!(hear("resources"), ["A2"]);
}
