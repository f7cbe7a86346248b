//! Drives the brain: one task that takes what sources, actuators and people say, keeps what the brain answers, and has it
//! done.
//!
//! ```text
//! units ─┐                        ┌─► book (on the disk first)
//! journal├─► Seen ─┐              │
//! probe ─┘         ├─► step ──────┼─► hands: actuators, a look into /proc ──► Outcome, Seen ─┐
//! people (bus) ────┤              ├─► journal, bus, desktop                                  │
//! time ────────────┘◄─────────────┴──────────────────────────────────────────────────────────┘
//! ```
//!
//! The keep-alive to the service manager follows a completed step; when nothing happens, a step is made for it.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};

use super::{
    brain::{Brain, Command, Input, What},
    catalog::{Action, FaultId, Severity, Tier},
    classify::Numbers,
    desktop::{self, Notice},
    face::Face,
    hands::{Done, Hands},
    incidents::{
        book::Book,
        fixbook::FixBook,
        history::Summary,
        record::{CommandId, End, Entry, Fact, IncidentId, Outcome, line},
        store::{self, StoreError},
    },
    news::{Asked, News, PAUSE_MAX_S, Refusal, Shown, Wish},
    signal::{Active, Observation, Time, Unit},
    sources::{Seen, journal, now, units},
};
use crate::host::{log::chain, manager::Manager};

/// What sources have seen and nobody looked at yet.
const SEEN_MAX: usize = 256;
/// What people want and nobody did yet.
const WISHES_MAX: usize = 16;
/// What is told on the bus and the desktop; more is dropped, it is in the journal anyway.
const TOLD_MAX: usize = 256;
/// A step is made at least so often where the service manager does not ask for more.
const REST_MAX: Duration = Duration::from_secs(60);
/// Between two cursors on the disk, if nothing had to be kept: what came after the last one is read again.
const CURSOR_PAUSE: Duration = Duration::from_secs(5);
/// How far back starts of the proxy are looked for: an hour, six times its start-limit interval.
pub const READ_BACK: Duration = Duration::from_secs(3600);

/// What it runs with.
#[derive(Debug)]
pub struct Options {
    /// Where it keeps its files; `None`: nowhere, and nothing is done, told on the bus or sent to anybody: what it would
    /// do goes to `said`.
    pub state: Option<PathBuf>,
    /// The session bus.
    pub bus: units::SessionBus,
    /// The configuration, as far as it could be read.
    pub config: crate::config::settings::Watchdog,
    /// What is wrong with it.
    pub config_error: Option<String>,
    /// The proxy's installed program, absolute.
    pub proxy: String,
    /// The service manager's word on how often it wants to hear of us.
    pub manager: Manager,
    /// Takes each line of the story, besides the journal.
    pub said: fn(&str),
}

/// Runs until `stop` is done.
///
/// # Errors
/// [`RunError`]; what is open goes on with the next run.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let dry = options.state.is_none();
    let (book, brain) = match &options.state {
        Some(dir) => Book::open(dir).map(|(book, brain)| (Some(book), brain))?,
        None => (None, None),
    };
    let cursor = options.state.as_deref().and_then(cursor);
    let settings = journal::Settings::new(cursor, READ_BACK).map_err(|source| {
        let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
        StoreError::Read { path, source }
    })?;
    let boot = settings.boot.clone();

    let (seen_sender, mut seen) = mpsc::channel(SEEN_MAX);
    let (link_sender, link) = watch::channel(None);
    let (manager_sender, manager) = watch::channel(None);
    let (port_sender, port) = watch::channel(None);
    let (wish_sender, mut wishes) = mpsc::channel::<Asked>(WISHES_MAX);
    let (news, told) = mpsc::channel(TOLD_MAX);
    let (notices, noticed) = mpsc::channel(TOLD_MAX);
    let (cancel_sender, mut cancels) = mpsc::channel(WISHES_MAX);
    let (shown, shows) = watch::channel(Shown::default());
    let (hands, probes) = Hands::new(seen_sender.clone(), link.clone(), manager.clone(), port, options.proxy.clone());
    let mut watchdog = Watchdog {
        brain: brain.unwrap_or_default(),
        book,
        fixes: options.state.as_deref().map(FixBook::open).unwrap_or_default(),
        hands,
        stories: BTreeMap::new(),
        actions: BTreeMap::new(),
        waiting: VecDeque::new(),
        aim: Aim::default(),
        news,
        notices,
        shown,
        cursor: CursorBook { dir: options.state.clone(), pending: None, saved: Instant::now() },
        config_error: options.config_error.clone(),
        begin: now(),
        dry,
        said: options.said,
    };
    watchdog.begin(&options, boot);
    // Who asks as soon as it has its name is told how it is.
    watchdog.show();

    let mut tasks = JoinSet::new();
    if let Some(state) = &options.state {
        let face = Face::connect(options.bus.clone(), wish_sender, shows, state.clone()).await;
        tasks.spawn(face.keep(told));
        tasks.spawn(desktop::show(options.config.notification_level, link, noticed, cancel_sender));
    }
    let found = units::Found { link: link_sender, manager: manager_sender, port: port_sender };
    tasks.spawn(units::watch(options.bus.clone(), found, seen_sender.clone()));
    tasks.spawn(journal::follow(settings, manager, seen_sender));
    tasks.spawn(probes);
    options.manager.ready(&watchdog.status());
    let ended = tokio::select! {
        () = watchdog.attend(&mut seen, &mut wishes, &mut cancels, options.manager, stop) => Ok(()),
        // None of them ends by itself: it ran into a defect, and without it something would be overlooked for good.
        Some(ended) = tasks.join_next() => Err(RunError::Ended(ended.err().map(|error| error.to_string()))),
    };
    tasks.shutdown().await;
    ended
}

/// Why it cannot run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store is another watchdog's, or the machine does not tell its boot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of its tasks ended.
    #[error("a part of the watchdog ended: {0:?}")]
    Ended(Option<String>),
}

/// The place up to which the journal was read before.
fn cursor(dir: &std::path::Path) -> Option<String> {
    match store::load_cursor(dir) {
        Ok(cursor) => {
            if let Some(kept_as) = &cursor.kept_as {
                warn!(codex_kept_as = %kept_as.display(), "the place in the journal is damaged, set aside; reading back");
            }
            cursor.text
        }
        Err(error) => {
            warn!(codex_error = %error, "the place in the journal cannot be read, reading back");
            None
        }
    }
}

struct Watchdog {
    brain: Brain,
    book: Option<Book>,
    fixes: FixBook,
    hands: Hands,
    /// What is open, without what was told of it.
    stories: BTreeMap<IncidentId, Summary>,
    /// What each command under way does.
    actions: BTreeMap<CommandId, Action>,
    /// What the brain is told next.
    waiting: VecDeque<What>,
    aim: Aim,
    news: mpsc::Sender<News>,
    notices: mpsc::Sender<Notice>,
    shown: watch::Sender<Shown>,
    cursor: CursorBook,
    config_error: Option<String>,
    begin: Time,
    dry: bool,
    said: fn(&str),
}

/// What probes are aimed at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Aim {
    active: bool,
    pid: u32,
}

impl Watchdog {
    /// The first step, after which the brain knows the machine and the configuration of this run.
    fn begin(&mut self, options: &Options, boot: String) {
        let open = self.brain.open().map(|incident| (incident.id, Summary::of_state(incident)));
        self.stories = open.collect();
        if !self.stories.is_empty() {
            info!(codex_incidents = self.stories.len(), "going on with what was open");
        }
        self.go(What::Began { boot });
        let numbers = Numbers::from(&options.config.faults);
        self.go(What::Configured { numbers, enabled: options.config.enabled, only_watch: self.dry });
    }

    async fn attend(
        &mut self,
        seen: &mut mpsc::Receiver<Seen>,
        wishes: &mut mpsc::Receiver<Asked>,
        cancels: &mut mpsc::Receiver<IncidentId>,
        manager: Manager,
        stop: impl Future<Output = ()>,
    ) {
        let rest = manager.keepalive().unwrap_or(REST_MAX).min(REST_MAX);
        let mut alive = Instant::now();
        let mut status = String::new();
        let mut stop: Pin<&mut _> = std::pin::pin!(stop);
        loop {
            while let Some(what) = self.waiting.pop_front() {
                self.go(what);
            }
            self.aim();
            self.show();
            if alive.elapsed() >= rest / 2 {
                manager.alive();
                alive = Instant::now();
            }
            let text = self.status();
            if text != status {
                manager.status(&text);
                status = text;
            }
            let wake = self.wake().min(alive + rest);
            tokio::select! {
                () = &mut stop => {
                    manager.stopping(Duration::from_secs(1));
                    return;
                }
                Some(seen) = seen.recv() => self.see(seen),
                Some(done) = self.hands.next() => self.done(done),
                Some((wish, answer)) = wishes.recv() => {
                    let answered = self.wish(&wish);
                    // Who asked may be gone.
                    let _ = answer.send(answered);
                }
                Some(incident) = cancels.recv() => {
                    let answered = self.wish(&Wish::Cancel(incident));
                    info!(codex_incident = incident.to_string(), codex_refusal = ?answered.err(), "cancelled at the desktop");
                }
                () = sleep_until(wake) => {
                    self.go(What::Tick);
                    manager.alive();
                    alive = Instant::now();
                }
            }
        }
    }

    fn wake(&self) -> Instant {
        let at = now();
        let due = self.brain.wake(at).map_or(u64::MAX, |wake| wake.since_us(at));
        let mends = self.book.as_ref().and_then(Book::rest).unwrap_or(REST_MAX);
        Instant::now() + Duration::from_micros(due).min(REST_MAX).min(mends)
    }

    fn see(&mut self, seen: Seen) {
        if let Observation::Unit(state) = &seen.signal.observation
            && state.unit == Unit::Proxy
        {
            self.aim = Aim { active: state.active == Active::Active, pid: state.pid };
        }
        // After a restart the journal tells all starts again; what is known need not be kept once more.
        if let Observation::Starting { invocation } = &seen.signal.observation
            && self.brain.world().ledger.knows(invocation)
        {
            return;
        }
        let kept = self.step(What::Signal(seen.signal));
        if let Some(cursor) = seen.cursor {
            self.cursor.passed(cursor, kept.unwrap_or(false));
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Command { command, outcome } => {
                self.go(What::Outcome { command, outcome });
            }
            Done::Look => {}
        }
    }

    /// Probes are made while the manager says that the proxy is active, and never otherwise: a connection would start it.
    fn aim(&mut self) {
        // A blind source knows no state.
        let active = self.aim.active && self.brain.world().active(Unit::Proxy) == Active::Active;
        self.hands.aim(active.then_some(self.aim.pid));
    }

    fn wish(&mut self, wish: &Wish) -> Result<(), Refusal> {
        let what = match wish {
            Wish::Cancel(incident) if !self.stories.contains_key(incident) => return Err(Refusal::Unknown),
            Wish::Cancel(incident) if !self.brain.can_cancel(*incident) => return Err(Refusal::NothingPending),
            Wish::Cancel(incident) => What::Cancel { incident: *incident },
            Wish::Pause { seconds, .. } if !(1..=PAUSE_MAX_S).contains(seconds) => return Err(Refusal::OutOfRange),
            Wish::Pause { seconds, .. } => What::Pause { until_wall_us: now().wall_us + seconds * 1_000_000 },
            Wish::Resume => What::Resume,
            Wish::NoteStop => What::Stopped,
            Wish::Enable(acts) => What::Enable(*acts),
        };
        self.step(what).map(drop).map_err(Refusal::NotKept)
    }

    /// A step of which nobody waits to hear: that something cannot be kept is told by the book.
    fn go(&mut self, what: What) {
        drop(self.step(what));
    }

    /// One step: the brain answers, the answer is kept, then done. Says whether anything had to be kept and was.
    ///
    /// # Errors
    /// Why it could not be kept.
    fn step(&mut self, what: What) -> Result<bool, String> {
        let input = Input { at: now(), what };
        let before = self.book.as_ref().is_some_and(Book::needs_before).then(|| self.brain.clone());
        let commands = self.brain.step(&input);
        let kept = match &mut self.book {
            Some(book) => book.keep(before, &input, &commands, &self.brain),
            None => Ok(()),
        };
        let kept = kept.map_err(|error| chain(&error));
        let any = !commands.is_empty();
        for command in commands {
            self.obey(command, kept.as_ref().err().map(String::as_str));
        }
        kept.map(|()| any)
    }

    fn obey(&mut self, command: Command, not_kept: Option<&str>) {
        match command {
            Command::Record(entry) => self.tell(entry),
            Command::Act(order) => match not_kept {
                // A command that is not on record might be sent twice.
                Some(why) => {
                    let outcome = Outcome::Failed { why: format!("it was not sent, because it cannot be kept: {why}") };
                    self.waiting.push_back(What::Outcome { command: order.command, outcome });
                }
                None => self.hands.act(order),
            },
            Command::Announce { command, action, until } => {
                self.pass(News::Pending { incident: command.0, action, until });
            }
            Command::Alert { incident, fault, severity, text } => {
                if self.dry {
                    return;
                }
                let (id, name) = (incident.to_string(), fault.name());
                let message_id = fault.row().message_id;
                match severity {
                    Severity::Critical => {
                        error!(MESSAGE_ID = message_id, codex_incident = id, codex_fault = name, "{text}");
                    }
                    Severity::Warning => {
                        warn!(MESSAGE_ID = message_id, codex_incident = id, codex_fault = name, "{text}");
                    }
                    Severity::Info => {
                        info!(MESSAGE_ID = message_id, codex_incident = id, codex_fault = name, "{text}");
                    }
                }
                self.pass(News::Alert { incident, fault, severity, text });
            }
            Command::Look(source) => self.hands.look(source),
            Command::Consult { incident, tier, pattern, tried } => {
                let advised = match tier {
                    Tier::Fixes => self.fixes.advise(&pattern, &tried),
                    // Rules do not ask rules, and no model is asked.
                    Tier::Rules | Tier::Ai => None,
                };
                let (action, why) = match advised {
                    Some((action, why)) => (Some(action), why),
                    None => (None, "nothing is known that helped".to_owned()),
                };
                self.waiting.push_back(What::Advice { incident, tier, action, why });
            }
            Command::Learn { command, pattern, action, outcome } => {
                self.fixes.learn(command, &pattern, action, outcome);
            }
        }
    }

    /// Writes a fact into the journal, and passes on what others want to know of it.
    fn tell(&mut self, entry: Entry) {
        let id = entry.incident.to_string();
        (self.said)(&line(&entry, self.begin));
        let Entry { at, incident, fact } = entry;
        if !self.dry {
            log(&id, self.stories.get(&incident), &fact);
        }
        match fact {
            Fact::Opened { fault, subject, evidence, .. } => {
                let story = Summary::new(incident, fault, subject, evidence, at);
                self.stories.insert(incident, story.clone());
                self.pass(News::Opened(story));
            }
            Fact::Again { evidence, occurrences } => {
                if let Some(story) = self.stories.get_mut(&incident) {
                    (story.evidence, story.occurrences) = (evidence, occurrences);
                }
            }
            Fact::Commanded { command, action } => {
                self.actions.insert(command, action);
                self.pass(News::Settled { incident });
            }
            Fact::Finished { command, outcome } => {
                if let Some(action) = self.actions.remove(&command) {
                    self.pass(News::Finished { incident, action, outcome });
                }
            }
            Fact::Closed { end, why } => {
                self.actions.retain(|command, _| command.0 != incident);
                if let Some(mut story) = self.stories.remove(&incident) {
                    (story.closed, story.end, story.why) = (Some(at), Some(end), why);
                    self.pass(News::Closed(story));
                }
            }
            Fact::Restrained { .. } | Fact::Disproven { .. } => self.pass(News::Settled { incident }),
            Fact::Decided { .. }
            | Fact::NoAdvice { .. }
            | Fact::Suggested { .. }
            | Fact::Announced { .. }
            | Fact::Proven { .. }
            | Fact::Alerted { .. } => {}
        }
    }

    fn pass(&self, news: News) {
        if let Some(notice) = self.notice(&news)
            && let Err(mpsc::error::TrySendError::Full(_)) = self.notices.try_send(notice)
        {
            debug!("the desktop does not take what is told, dropping it");
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.news.try_send(news) {
            debug!("the bus does not take what is told, dropping it");
        }
    }

    /// What of it concerns a person who sits there.
    fn notice(&self, news: &News) -> Option<Notice> {
        Some(match news {
            News::Alert { incident, fault, severity, text } => Notice::Alert {
                incident: *incident,
                severity: *severity,
                title: fault.row().title.to_owned(),
                text: text.clone(),
            },
            News::Pending { incident, action, until } => {
                let text = self.stories.get(incident).map(|story| format!("{}: {}", story.row().title, story.evidence));
                let text = text.unwrap_or_default();
                Notice::Pending { incident: *incident, action: *action, until: *until, text }
            }
            News::Closed(story) if story.end == Some(End::Healed) => Notice::Healed {
                incident: story.id,
                title: format!("Healed: {}", story.row().title),
                text: format!("{}; {}", story.evidence, story.why),
            },
            News::Closed(Summary { id: incident, .. }) | News::Settled { incident } => {
                Notice::Over { incident: *incident }
            }
            News::Opened(_) | News::Finished { .. } => return None,
        })
    }

    fn shows(&self) -> Shown {
        let at = now();
        let paused = self.brain.paused_until_wall_us() > at.wall_us;
        let state = match (self.brain.acts(), paused, self.brain.only_watches()) {
            (true, ..) => "acting",
            (_, true, _) => "paused",
            (_, _, true) => "observing",
            _ => "watching",
        };
        let mut trouble: Vec<String> = self.brain.world().blind.values().cloned().collect();
        trouble.extend(self.book.as_ref().and_then(Book::trouble).map(str::to_owned));
        trouble.extend(self.config_error.iter().map(|error| format!("the configuration cannot be used: {error}")));
        Shown {
            state,
            trouble: trouble.join("\n"),
            enabled: !self.brain.only_watches(),
            tiers: [true, true, false],
            open: u32::try_from(self.stories.len()).unwrap_or(u32::MAX),
            pending: self.brain.pending(),
            starts: self.brain.world().ledger.in_window(at),
        }
    }

    fn show(&self) {
        let shows = self.shows();
        self.shown.send_if_modified(|shown| {
            let changed = *shown != shows;
            *shown = shows;
            changed
        });
    }

    /// For `systemctl status`.
    fn status(&self) -> String {
        let Shown { state, trouble, open, .. } = self.shows();
        let mut text = state.to_owned();
        if open > 0 {
            text.push_str(&format!(", {open} open"));
        }
        if let Some(first) = trouble.lines().next() {
            text.push_str(&format!("; {first}"));
        }
        text
    }
}

/// The level of an entry is part of its call site.
fn log(id: &str, story: Option<&Summary>, fact: &Fact) {
    let fault = match fact {
        Fact::Opened { fault, .. } => Some(*fault),
        _ => story.map(|story| story.fault),
    };
    let name = fault.map(FaultId::name);
    match fact {
        Fact::Opened { fault, .. } if fault.row().severity > Severity::Info => {
            let message_id = fault.row().message_id;
            warn!(MESSAGE_ID = message_id, codex_incident = id, codex_fault = name, "{id}: {fact}");
        }
        Fact::Opened { fault, .. } => {
            let message_id = fault.row().message_id;
            info!(MESSAGE_ID = message_id, codex_incident = id, codex_fault = name, "{id}: {fact}");
        }
        // Told in full where a person is told.
        Fact::Alerted { .. } => {}
        _ => info!(codex_incident = id, codex_fault = name, "{id}: {fact}"),
    }
}

/// Keeps the place in the journal: at once after what had to be kept, else now and then.
struct CursorBook {
    dir: Option<PathBuf>,
    pending: Option<String>,
    saved: Instant,
}

impl CursorBook {
    fn passed(&mut self, cursor: String, at_once: bool) {
        self.pending = Some(cursor);
        if at_once || self.saved.elapsed() >= CURSOR_PAUSE {
            self.save();
        }
    }

    fn save(&mut self) {
        let (Some(dir), Some(cursor)) = (&self.dir, self.pending.take()) else { return };
        self.saved = Instant::now();
        if let Err(error) = store::save_cursor(dir, &cursor) {
            // It costs a repeated reading, and the book says what is wrong with the directory.
            debug!(codex_error = %error, "the place in the journal cannot be kept");
        }
    }
}
