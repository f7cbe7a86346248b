//! The members of `org.codexproxy.Watchdog1`. What they mean to callers stands in `dbus/org.codexproxy.Watchdog1.xml`; a
//! test compares the two.

use std::{collections::HashMap, fs::File, io::Write, os::fd::OwnedFd, path::PathBuf};

use rustix::fs::MemfdFlags;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
};
use tracing::info;
use zbus::{
    OwnedVariant, Variant,
    fdo::{self, Properties},
    interface,
    message::Header,
    names::InterfaceName,
    object_server::SignalEmitter,
};

use crate::watchdog::{
    catalog::FaultId,
    incidents::{
        history::{self, Filter, History, Summary},
        record::{IncidentId, Outcome, line},
        replay::Kept,
        store,
    },
    news::{Asked, News, PAUSE_MAX_S, Refusal, Shown, Wish},
};

/// `a{sv}`
type Facts = HashMap<String, OwnedVariant>;

/// What goes wrong with a call.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.codexproxy.Error")]
pub(super) enum CallError {
    #[zbus(error)]
    ZBus(zbus::Error),
    UnknownIncident(String),
    NothingPending(String),
    OutOfRange(String),
    Store(String),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::UnknownIncident("There is no such incident open.".to_owned()),
            Refusal::NothingPending => Self::NothingPending(
                "Nothing of it can be cancelled: a command was sent already, or none will be.".to_owned(),
            ),
            Refusal::NotKept(why) => {
                Self::Store(format!("It is so now, but would be forgotten if the watchdog were started anew: {why}"))
            }
            Refusal::OutOfRange => Self::OutOfRange(format!("A pause has 1 to {PAUSE_MAX_S} seconds.")),
        }
    }
}

/// The object.
pub(super) struct Watchdog1 {
    wishes: mpsc::Sender<Asked>,
    shows: watch::Receiver<Shown>,
    /// Where the journal of incidents is.
    state: PathBuf,
}

impl Watchdog1 {
    pub(super) fn new(wishes: mpsc::Sender<Asked>, shows: watch::Receiver<Shown>, state: PathBuf) -> Self {
        Self { wishes, shows, state }
    }

    /// Has it done, and waits until it is on record.
    async fn wish(&self, wish: Wish, header: Option<&Header<'_>>) -> Result<(), CallError> {
        let gone = || CallError::ZBus(zbus::Error::Failure("The watchdog is stopping.".to_owned()));
        let caller = header.and_then(|header| header.sender()).map(ToString::to_string);
        info!(codex_caller = caller, codex_wish = ?wish, "asked over the bus");
        let (answer, answered) = oneshot::channel();
        self.wishes.send((wish, answer)).await.map_err(|_| gone())?;
        Ok(answered.await.map_err(|_| gone())??)
    }
}

/// Incidents that are told if the caller does not say how many.
const LISTED: usize = 20;

impl Watchdog1 {
    /// Reads what is kept, off the thread that everything else waits for.
    async fn read<T: Send + 'static>(
        &self,
        take: impl FnOnce(Vec<Kept>) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let dir = self.state.clone();
        let reading = spawn_blocking(move || {
            let contents = store::read::<Kept>(&dir).map_err(|error| CallError::Store(error.to_string()))?;
            take(contents.entries.into_iter().map(|one| one.entry).collect())
        });
        reading.await.map_err(|error| CallError::Store(error.to_string()))?
    }
}

/// What the contract says of a filter.
fn filter(facts: &Facts) -> Result<Filter, CallError> {
    fn value<T: TryFrom<OwnedVariant>>(facts: &Facts, name: &str) -> Result<Option<T>, CallError> {
        let Some(value) = facts.get(name) else { return Ok(None) };
        let wrong = || CallError::OutOfRange(format!("{name} of the filter is of another type."));
        T::try_from(value.try_clone().map_err(|_| wrong())?).map(Some).map_err(|_| wrong())
    }
    let fault: Option<String> = value(facts, "fault")?;
    let fault = fault
        .map(|name| {
            FaultId::parse(&name).ok_or_else(|| CallError::OutOfRange(format!("There is no fault {name:?}: A1 to E5.")))
        })
        .transpose()?;
    let max = value::<u32>(facts, "max")?.map_or(LISTED, |max| usize::try_from(max).unwrap_or(usize::MAX));
    Ok(Filter { open: value(facts, "open")?, fault, since_wall_us: value(facts, "since_usec")?, max: Some(max) })
}

/// A file that is nowhere on a disk.
fn in_memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    use std::io::Seek;
    let mut file = File::from(rustix::fs::memfd_create("incident", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn owned(facts: HashMap<&'static str, Variant<'_>>) -> Facts {
    facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.try_to_owned().ok()?))).collect()
}

fn parse(id: &str) -> Result<IncidentId, CallError> {
    IncidentId::parse(id)
        .ok_or_else(|| CallError::UnknownIncident(format!("{id:?} names no incident: they are i1, i2 …")))
}

#[interface(name = "org.codexproxy.Watchdog1")]
impl Watchdog1 {
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.shows.borrow().state.to_owned()
    }

    #[zbus(property)]
    fn trouble(&self) -> String {
        self.shows.borrow().trouble.clone()
    }

    #[zbus(property)]
    fn enabled(&self) -> bool {
        self.shows.borrow().enabled
    }

    #[zbus(property)]
    async fn set_enabled(&self, enabled: bool, #[zbus(header)] header: Option<Header<'_>>) -> fdo::Result<()> {
        self.wish(Wish::Enable(enabled), header.as_ref()).await.map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    #[zbus(property)]
    fn tiers(&self) -> Vec<bool> {
        self.shows.borrow().tiers.to_vec()
    }

    #[zbus(property)]
    fn open_incidents(&self) -> u32 {
        self.shows.borrow().open
    }

    #[zbus(property)]
    fn pending_action(&self) -> Facts {
        pending(&self.shows.borrow())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn restarts_in_window(&self) -> u32 {
        self.shows.borrow().starts.unwrap_or(0)
    }

    #[zbus(out_args("incidents"))]
    async fn list_incidents(&self, filter: Facts) -> Result<Vec<Facts>, CallError> {
        let filter = self::filter(&filter)?;
        self.read(move |kept| {
            Ok(History::of(&kept).list(&filter).into_iter().map(|one| owned(facts_of(one))).collect())
        })
        .await
    }

    #[zbus(out_args("incident"))]
    async fn get_incident(&self, id: &str) -> Result<Facts, CallError> {
        let id = parse(id)?;
        self.read(move |kept| {
            let history = History::of(&kept);
            let one = history.get(id).ok_or_else(|| CallError::UnknownIncident(format!("Nothing is kept of {id}.")))?;
            let mut facts = facts_of(one);
            let story: Vec<String> = one.story.iter().map(|entry| line(entry, one.opened)).collect();
            facts.insert("story", Variant::from(story));
            Ok(owned(facts))
        })
        .await
    }

    #[zbus(out_args("file"))]
    async fn export(&self, id: &str) -> Result<zbus::OwnedFd, CallError> {
        let id = parse(id)?;
        self.read(move |kept| {
            let export = history::export(&kept, id).map_err(|error| CallError::UnknownIncident(error.to_string()))?;
            let broken = |error: &dyn std::fmt::Display| CallError::Store(format!("it cannot be written: {error}"));
            let text = serde_json::to_vec(&export).map_err(|error| broken(&error))?;
            Ok(in_memory(&text).map_err(|error| broken(&error))?.into())
        })
        .await
    }

    async fn cancel(&self, id: &str, #[zbus(header)] header: Header<'_>) -> Result<(), CallError> {
        self.wish(Wish::Cancel(parse(id)?), Some(&header)).await
    }

    async fn pause(&self, seconds: u64, reason: &str, #[zbus(header)] header: Header<'_>) -> Result<(), CallError> {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        self.wish(Wish::Pause { seconds, reason }, Some(&header)).await
    }

    async fn resume(&self, #[zbus(header)] header: Header<'_>) -> Result<(), CallError> {
        self.wish(Wish::Resume, Some(&header)).await
    }

    async fn note_stop(&self, #[zbus(header)] header: Header<'_>) -> Result<(), CallError> {
        self.wish(Wish::NoteStop, Some(&header)).await
    }

    #[zbus(signal)]
    async fn incident_opened(
        emitter: &SignalEmitter<'_>,
        id: &str,
        incident: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn action_pending(emitter: &SignalEmitter<'_>, id: &str, action: &str, until_usec: u64) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn action_finished(
        emitter: &SignalEmitter<'_>,
        id: &str,
        action: &str,
        facts: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn incident_closed(
        emitter: &SignalEmitter<'_>,
        id: &str,
        incident: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn alert(
        emitter: &SignalEmitter<'_>,
        id: &str,
        text: &str,
        facts: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;
}

/// Sends the signal for a piece of news.
pub(super) async fn tell(emitter: &SignalEmitter<'_>, news: &News) -> zbus::Result<()> {
    match news {
        News::Opened(story) => Watchdog1::incident_opened(emitter, &story.id.to_string(), facts_of(story)).await,
        News::Closed(story) => Watchdog1::incident_closed(emitter, &story.id.to_string(), facts_of(story)).await,
        News::Pending { incident, action, until } => {
            Watchdog1::action_pending(emitter, &incident.to_string(), action.word(), until.wall_us).await
        }
        // Shows in PendingAction.
        News::Settled { .. } => Ok(()),
        News::Finished { incident, action, outcome } => {
            let mut facts = HashMap::new();
            let (word, why) = match outcome {
                Outcome::Done => ("done", None),
                Outcome::Failed { why } => ("failed", Some(why)),
                Outcome::Unknown { why } => ("unknown", Some(why)),
            };
            facts.insert("outcome", Variant::from(word));
            if let Some(why) = why {
                facts.insert("why", Variant::from(why.as_str()));
            }
            Watchdog1::action_finished(emitter, &incident.to_string(), action.word(), facts).await
        }
        News::Alert { incident, fault, severity, text } => {
            let facts =
                HashMap::from([("fault", Variant::from(fault.name())), ("severity", Variant::from(severity.word()))]);
            Watchdog1::alert(emitter, &incident.to_string(), text, facts).await
        }
    }
}

/// Tells which properties are not any more as they were.
pub(super) async fn tell_changes(now: &Shown, before: &Shown, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
    let mut changed = HashMap::new();
    if now.state != before.state {
        changed.insert("State", Variant::from(now.state));
    }
    if now.trouble != before.trouble {
        changed.insert("Trouble", Variant::from(now.trouble.as_str()));
    }
    if now.enabled != before.enabled {
        changed.insert("Enabled", Variant::from(now.enabled));
    }
    if now.tiers != before.tiers {
        changed.insert("Tiers", Variant::from(now.tiers.to_vec()));
    }
    if now.open != before.open {
        changed.insert("OpenIncidents", Variant::from(now.open));
    }
    if now.pending != before.pending {
        changed.insert("PendingAction", Variant::from(pending(now)));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let name = InterfaceName::from_static_str_unchecked(super::NAME);
    Properties::properties_changed(emitter, name, changed, Vec::new().into()).await
}

fn pending(shown: &Shown) -> Facts {
    let Some((incident, action, until)) = &shown.pending else { return Facts::new() };
    let facts = [
        ("incident", Variant::from(incident.to_string())),
        ("action", Variant::from(action.word())),
        ("until_usec", Variant::from(until.wall_us)),
    ];
    owned(HashMap::from(facts))
}

/// What the contract says of an incident.
fn facts_of(one: &Summary) -> HashMap<&'static str, Variant<'_>> {
    let row = one.row();
    let mut facts = HashMap::from([
        ("id", Variant::from(one.id.to_string())),
        ("fault", Variant::from(row.id)),
        ("title", Variant::from(row.title)),
        ("severity", Variant::from(row.severity.word())),
        ("subject", Variant::from(one.subject.to_string())),
        ("evidence", Variant::from(one.evidence.as_str())),
        ("occurrences", Variant::from(one.occurrences)),
        ("opened_usec", Variant::from(one.opened.wall_us)),
    ]);
    if let Some(at) = one.closed {
        facts.insert("closed_usec", Variant::from(at.wall_us));
        facts.insert("why", Variant::from(one.why.as_str()));
    }
    if let Some(end) = one.end {
        facts.insert("end", Variant::from(end.word()));
    }
    facts
}
