//! The members of `org.codexproxy.Watchdog1`. What they mean to callers stands in `dbus/org.codexproxy.Watchdog1.xml`; a
//! test compares the two.

use std::{collections::HashMap, path::PathBuf};

use tokio::sync::{mpsc, oneshot, watch};
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
    incidents::record::{IncidentId, Outcome},
    news::{Asked, News, PAUSE_MAX_S, Refusal, Shown, Story, Wish},
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
    facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.try_to_owned().ok()?))).collect()
}

/// What the contract says of an incident.
fn facts_of(story: &Story) -> HashMap<&'static str, Variant<'_>> {
    let row = story.fault.row();
    let mut facts = HashMap::from([
        ("id", Variant::from(story.id.to_string())),
        ("fault", Variant::from(row.id)),
        ("title", Variant::from(row.title)),
        ("severity", Variant::from(row.severity.word())),
        ("subject", Variant::from(story.subject.to_string())),
        ("evidence", Variant::from(story.evidence.as_str())),
        ("occurrences", Variant::from(story.occurrences)),
        ("opened_usec", Variant::from(story.opened.wall_us)),
    ]);
    if let Some((at, end, why)) = &story.closed {
        facts.insert("closed_usec", Variant::from(at.wall_us));
        facts.insert("end", Variant::from(end.word()));
        facts.insert("why", Variant::from(why.as_str()));
    }
    facts
}
