//! What a person at the desktop is shown: alerts, announced actions with a button to cancel them, what was healed.
//!
//! It decides nothing and keeps nothing: the incident's record, the bus interface and the journal have it all, so what
//! cannot be shown is dropped. Nobody is waited for: not for a bus, not for a notification daemon, and none is started.
//! Notices come from the task that owns the brain; buttons that were pressed go back there.
//!
//! ```text
//! notice → waiting (bounded) ─┐
//! shown for too long ─────────┴→ one call at a time, 2 s → shown (bounded) → button → cancel
//! ```
//!
//! The other side is the Desktop Notifications Specification 1.2,
//! <https://specifications.freedesktop.org/notification-spec/1.2/>.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending, poll_fn},
    num::NonZeroUsize,
    pin::Pin,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;
use zbus::{
    Connection, MatchRule, Message, MessageStream, Variant,
    export::futures_core::Stream,
    fdo::DBusProxy,
    message,
    names::{BusName, OwnedUniqueName},
    proxy::CacheProperties,
};

use super::{
    catalog::{Action, Severity},
    incidents::record::IncidentId,
    signal::Time,
    sources::{
        now,
        units::{CALL_LIMIT, error_name},
    },
};
use crate::config::settings::NotificationLevel;

/// The name, which is the interface, too.
const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const APP_NAME: &str = "codex-proxy";
/// The key of the one button.
const CANCEL: &str = "cancel";

/// Notices that wait for a call to end; the oldest go first.
const WAITING_MAX: usize = 32;
/// Notifications that are remembered; beyond, the oldest stay on the screen and cannot be taken back.
const SHOWN_MAX: usize = 64;
/// Signals of the daemon's that wait to be looked at.
const SIGNALS_MAX: usize = 64;
/// A daemon that did not answer is left alone for so long, unless another takes its place.
const REST: Duration = Duration::from_secs(30);
/// Longer texts are cut.
const TITLE_CHARS_MAX: usize = 120;
const TEXT_CHARS_MAX: usize = 800;

/// What there is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A person is to know of an incident. Takes the place of an earlier alert of the same incident.
    Alert {
        /// Of which incident.
        incident: IncidentId,
        /// How bad it is.
        severity: Severity,
        /// One line.
        title: String,
        /// What to do.
        text: String,
    },
    /// An action that interrupts work is done at `until`, unless somebody cancels it.
    Pending {
        /// Of which incident.
        incident: IncidentId,
        /// What will be done.
        action: Action,
        /// When; then it is not shown any more.
        until: Time,
        /// Why.
        text: String,
    },
    /// The announced action was done or cancelled: it is taken back. Alerts of the incident stay.
    Over {
        /// Of which incident.
        incident: IncidentId,
    },
    /// The incident is over: all that was shown of it is taken back, or replaced by this.
    Healed {
        /// Which incident.
        incident: IncidentId,
        /// One line.
        title: String,
        /// What helped.
        text: String,
    },
}

/// Shows notices until nobody sends any more.
///
/// `link` is the session bus while there is one. Notices are always taken at once, whatever the daemon does. `cancels`
/// gets the incidents whose announced action somebody cancelled in time.
pub async fn show(
    level: NotificationLevel,
    mut link: watch::Receiver<Option<Connection>>,
    mut notices: mpsc::Receiver<Notice>,
    cancels: mpsc::Sender<IncidentId>,
) {
    let mut desk = Desk::new(level);
    loop {
        let connection = link.borrow_and_update().clone();
        let over = match connection.filter(|_| level != NotificationLevel::None) {
            Some(connection) => attend(&connection, &mut desk, &mut link, &mut notices, &cancels).await,
            None => Over::Lost,
        };
        desk = Desk::new(level);
        match over {
            Over::Unheard => return,
            Over::Moved => {}
            Over::Lost => loop {
                // Nobody is there to show it.
                tokio::select! {
                    notice = notices.recv() => if notice.is_none() { return },
                    () = moved(&mut link) => break,
                }
            },
        }
    }
}

/// Why a connection is not used any more.
enum Over {
    /// Nobody sends notices any more.
    Unheard,
    /// There is another, or none.
    Moved,
    /// It broke.
    Lost,
}

/// Another connection, or none; never if nobody will tell.
async fn moved(link: &mut watch::Receiver<Option<Connection>>) {
    if link.changed().await.is_err() {
        pending::<()>().await;
    }
}

async fn attend(
    connection: &Connection,
    desk: &mut Desk,
    link: &mut watch::Receiver<Option<Connection>>,
    notices: &mut mpsc::Receiver<Notice>,
    cancels: &mpsc::Sender<IncidentId>,
) -> Over {
    let mut listening = Box::pin(timeout(CALL_LIMIT * 2, Ear::listen(connection)));
    let mut ear = loop {
        tokio::select! {
            ear = &mut listening => match ear {
                Ok(Ok(ear)) => break ear,
                Ok(Err(_)) | Err(_) => return Over::Lost,
            },
            notice = notices.recv() => match notice {
                Some(notice) => desk.wait(notice),
                None => return Over::Unheard,
            },
            () = moved(link) => return Over::Moved,
        }
    };
    desk.server = ear.owner.take().map(Server::new);
    let mut calling: Option<Calling> = None;
    loop {
        if calling.is_none() {
            calling = desk.next(Instant::now()).map(|(owner, ask)| -> Calling {
                let connection = connection.clone();
                Box::pin(
                    async move { timeout(CALL_LIMIT, ask.send(&connection, owner)).await.unwrap_or(Answer::Silence) },
                )
            });
        }
        let due = desk.due();
        tokio::select! {
            answer = async { match &mut calling { Some(calling) => calling.await, None => pending().await } } => {
                calling = None;
                desk.answered(answer, Instant::now());
            }
            heard = ear.next() => match heard {
                Some(Heard::Owner(owner)) => {
                    // What the last one showed went with it, and what it was asked is answered by nobody.
                    calling = None;
                    desk.served_by(owner);
                }
                Some(Heard::Daemon(message)) => desk.hear(&message, calling.is_some(), Instant::now()),
                Some(Heard::Nothing) => {}
                None => return Over::Lost,
            },
            room = cancels.reserve(), if !desk.pressed.is_empty() => match (room, desk.pressed.pop_front()) {
                (Ok(room), Some(incident)) => room.send(incident),
                (Ok(_), None) | (Err(_), _) => desk.pressed.clear(),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => desk.expire(Instant::now()),
            notice = notices.recv() => match notice {
                Some(notice) => desk.wait(notice),
                None => return Over::Unheard,
            },
            () = moved(link) => return Over::Moved,
        }
    }
}

/// What is heard on the bus.
struct Ear {
    names: MessageStream,
    daemon: MessageStream,
    /// Who had the name when listening began.
    owner: Option<OwnedUniqueName>,
}

enum Heard {
    /// The name went to another, or to nobody.
    Owner(Option<OwnedUniqueName>),
    /// Somebody speaks as the daemon does.
    Daemon(Message),
    Nothing,
}

impl Ear {
    async fn listen(connection: &Connection) -> zbus::Result<Self> {
        let most = NonZeroUsize::new(SIGNALS_MAX);
        let rule = MatchRule::builder().msg_type(message::Type::Signal).sender("org.freedesktop.DBus");
        let rule = rule.member("NameOwnerChanged").arg(0, NAME).build()?;
        let names = MessageStream::for_match_rule(rule, connection, most).await?;
        let rule = MatchRule::builder().msg_type(message::Type::Signal).path(PATH).interface(NAME).build()?;
        let daemon = MessageStream::for_match_rule(rule, connection, most).await?;
        let owner = DBusProxy::new(connection).await?.get_name_owner(NAME.try_into()?).await.ok();
        Ok(Self { names, daemon, owner })
    }

    /// `None`: the bus is gone.
    async fn next(&mut self) -> Option<Heard> {
        let (names, daemon) = (&mut self.names, &mut self.daemon);
        tokio::select! {
            biased;
            message = poll_fn(|cx| Pin::new(&mut *names).poll_next(cx)) => {
                let Ok(message) = message? else { return Some(Heard::Nothing) };
                let Ok((_, _, new)) = message.body().deserialize::<(String, String, String)>() else {
                    return Some(Heard::Nothing);
                };
                Some(Heard::Owner(OwnedUniqueName::try_from(new).ok()))
            }
            message = poll_fn(|cx| Pin::new(&mut *daemon).poll_next(cx)) => {
                Some(message?.map_or(Heard::Nothing, Heard::Daemon))
            }
        }
    }
}

/// A call under way.
type Calling = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The daemon that has the name.
struct Server {
    owner: OwnedUniqueName,
    /// What it can do; `None`: not asked yet.
    can: Option<Can>,
    /// It did not answer, and is not asked before this.
    rests_until: Option<Instant>,
}

impl Server {
    const fn new(owner: OwnedUniqueName) -> Self {
        Self { owner, can: None, rests_until: None }
    }
}

/// What of a daemon's capabilities matters.
#[derive(Debug, Clone, Copy)]
struct Can {
    actions: bool,
    markup: bool,
}

/// An incident has one alert and one announcement on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alert,
    Pending,
}

/// One notification on the screen.
#[derive(Debug)]
struct Shown {
    incident: IncidentId,
    kind: Kind,
    /// The daemon's number for it.
    id: u32,
    /// An announcement that can still be cancelled, until then.
    until: Option<Instant>,
}

/// What is shown, and what is to be.
struct Desk {
    level: NotificationLevel,
    server: Option<Server>,
    waiting: VecDeque<Notice>,
    /// Oldest first.
    shown: VecDeque<Shown>,
    /// To be taken from the screen.
    closing: VecDeque<u32>,
    /// Incidents whose action somebody cancelled.
    pressed: VecDeque<IncidentId>,
    /// Numbers whose button was pressed before the daemon's answer told what they are.
    early: VecDeque<u32>,
}

impl Desk {
    const fn new(level: NotificationLevel) -> Self {
        Self {
            level,
            server: None,
            waiting: VecDeque::new(),
            shown: VecDeque::new(),
            closing: VecDeque::new(),
            pressed: VecDeque::new(),
            early: VecDeque::new(),
        }
    }

    fn wait(&mut self, notice: Notice) {
        push(&mut self.waiting, notice, WAITING_MAX);
    }

    fn served_by(&mut self, owner: Option<OwnedUniqueName>) {
        self.server = owner.map(Server::new);
        self.shown.clear();
        self.closing.clear();
        self.early.clear();
    }

    /// The next call, and to whom. What nobody can show now is dropped.
    fn next(&mut self, at: Instant) -> Option<(OwnedUniqueName, Ask)> {
        let server = self.server.as_ref().filter(|server| server.rests_until.is_none_or(|until| at >= until));
        let Some(server) = server else {
            self.waiting.clear();
            self.closing.clear();
            return None;
        };
        let owner = server.owner.clone();
        if let Some(id) = self.closing.pop_front() {
            return Some((owner, Ask::Close { id }));
        }
        let Some(can) = server.can else {
            return (!self.waiting.is_empty()).then_some((owner, Ask::Capabilities));
        };
        while let Some(notice) = self.waiting.pop_front() {
            if let Some(ask) = self.ask_for(notice, can, at) {
                return Some((owner, ask));
            }
        }
        self.closing.pop_front().map(|id| (owner, Ask::Close { id }))
    }

    fn ask_for(&mut self, notice: Notice, can: Can, at: Instant) -> Option<Ask> {
        match notice {
            Notice::Alert { incident, severity, title, text } => {
                let wanted = severity >= Severity::Warning || self.level == NotificationLevel::All;
                let new = New { incident, kind: Kind::Alert, until: None, severity };
                wanted.then(|| self.ask_to_show(new, &title, &text, can))
            }
            Notice::Pending { incident, action, until, text } => {
                let left_us = until.since_us(now());
                if left_us == 0 {
                    return None;
                }
                let until = Some(at + Duration::from_micros(left_us));
                let new = New { incident, kind: Kind::Pending, until, severity: Severity::Warning };
                Some(self.ask_to_show(new, announcement(action), &text, can))
            }
            Notice::Over { incident } => {
                self.take_back(incident, Kind::Pending);
                None
            }
            Notice::Healed { incident, title, text } => {
                self.take_back(incident, Kind::Pending);
                if self.level != NotificationLevel::All {
                    self.take_back(incident, Kind::Alert);
                    return None;
                }
                let new = New { incident, kind: Kind::Alert, until: None, severity: Severity::Info };
                Some(self.ask_to_show(new, &title, &text, can))
            }
        }
    }

    fn ask_to_show(&self, new: New, title: &str, text: &str, can: Can) -> Ask {
        let replaces = self.shown.iter().find(|shown| (shown.incident, shown.kind) == (new.incident, new.kind));
        let text = clean(text, TEXT_CHARS_MAX, true);
        Ask::Show {
            new,
            replaces: replaces.map_or(0, |shown| shown.id),
            title: clean(title, TITLE_CHARS_MAX, false),
            text: if can.markup { escape(&text) } else { text },
            button: can.actions && new.until.is_some(),
        }
    }

    fn take_back(&mut self, incident: IncidentId, kind: Kind) {
        if let Some(at) = self.shown.iter().position(|shown| (shown.incident, shown.kind) == (incident, kind))
            && let Some(shown) = self.shown.remove(at)
        {
            push(&mut self.closing, shown.id, SHOWN_MAX);
        }
    }

    fn answered(&mut self, answer: Answer, at: Instant) {
        match answer {
            Answer::Can(can) => {
                if let Some(server) = &mut self.server {
                    server.can = Some(can);
                }
            }
            Answer::Shown { new, id } => {
                // A number is one notification's; and an incident has one of a kind.
                self.shown.retain(|shown| shown.id != id && (shown.incident, shown.kind) != (new.incident, new.kind));
                let shown = Shown { incident: new.incident, kind: new.kind, id, until: new.until };
                push(&mut self.shown, shown, SHOWN_MAX);
                if self.early.contains(&id) {
                    self.press(id, at);
                }
            }
            Answer::Refused | Answer::Done => {}
            Answer::Silence => {
                if let Some(server) = &mut self.server {
                    server.rests_until = Some(at + REST);
                }
            }
        }
        self.early.clear();
    }

    /// What the daemon tells; whoever else speaks like it is not heard.
    fn hear(&mut self, message: &Message, calling: bool, at: Instant) {
        let header = message.header();
        let sender = header.sender().map(|sender| sender.as_str());
        if self.server.as_ref().map(|server| server.owner.as_str()) != sender {
            return;
        }
        match header.member().map(|member| member.as_str()) {
            Some("ActionInvoked") => {
                let Ok((id, key)) = message.body().deserialize::<(u32, String)>() else { return };
                if key != CANCEL {
                    return;
                }
                if self.shown.iter().any(|shown| shown.id == id) {
                    self.press(id, at);
                } else if calling {
                    push(&mut self.early, id, SIGNALS_MAX);
                }
            }
            Some("NotificationClosed") => {
                if let Ok((id, _)) = message.body().deserialize::<(u32, u32)>() {
                    self.shown.retain(|shown| shown.id != id);
                }
            }
            _ => {}
        }
    }

    /// The button counts once, and in time.
    fn press(&mut self, id: u32, at: Instant) {
        if let Some(shown) = self.shown.iter_mut().find(|shown| shown.id == id)
            && shown.until.is_some_and(|until| at < until)
        {
            shown.until = None;
            push(&mut self.pressed, shown.incident, SHOWN_MAX);
        }
    }

    /// When the next announcement has had its time.
    fn due(&self) -> Option<Instant> {
        self.shown.iter().filter_map(|shown| shown.until).min()
    }

    /// Daemons need not heed the time that they are given.
    fn expire(&mut self, at: Instant) {
        while let Some(shown) = self
            .shown
            .iter()
            .position(|shown| shown.until.is_some_and(|until| until <= at))
            .and_then(|found| self.shown.remove(found))
        {
            push(&mut self.closing, shown.id, SHOWN_MAX);
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// What is about to be shown.
#[derive(Debug, Clone, Copy)]
struct New {
    incident: IncidentId,
    kind: Kind,
    until: Option<Instant>,
    severity: Severity,
}

/// A call to the daemon.
enum Ask {
    Capabilities,
    Show { new: New, replaces: u32, title: String, text: String, button: bool },
    Close { id: u32 },
}

/// What came of it.
enum Answer {
    Can(Can),
    Shown {
        new: New,
        id: u32,
    },
    /// An error that the daemon answered with.
    Refused,
    /// Done, and there is nothing to keep.
    Done,
    /// No answer.
    Silence,
}

/// The daemon's methods. Every call goes to its connection, not to the name: that could start another.
#[zbus::proxy(interface = "org.freedesktop.Notifications", default_path = "/org/freedesktop/Notifications")]
trait Notifications {
    #[zbus(no_autostart)]
    fn get_capabilities(&self) -> zbus::Result<Vec<String>>;

    #[expect(clippy::too_many_arguments, reason = "the specification's")]
    #[zbus(no_autostart)]
    fn notify(
        &self,
        app_name: &str,
        replaces_id: u32,
        app_icon: &str,
        summary: &str,
        body: &str,
        actions: &[&str],
        hints: &HashMap<&str, Variant<'_>>,
        expire_timeout: i32,
    ) -> zbus::Result<u32>;

    #[zbus(no_autostart)]
    fn close_notification(&self, id: u32) -> zbus::Result<()>;
}

impl Ask {
    async fn send(self, connection: &Connection, owner: OwnedUniqueName) -> Answer {
        let of_capabilities = matches!(self, Self::Capabilities);
        match self.try_send(connection, owner).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(codex_error = %error, "a desktop notification was not shown");
                match error_name(&error) {
                    // The bus says so in the place of a daemon that ended.
                    Some(name) if name == "org.freedesktop.DBus.Error.NoReply" => Answer::Silence,
                    Some(_) if of_capabilities => Answer::Can(Can { actions: false, markup: false }),
                    // Such as "too many notifications".
                    Some(_) => Answer::Refused,
                    None => Answer::Silence,
                }
            }
        }
    }

    async fn try_send(self, connection: &Connection, owner: OwnedUniqueName) -> zbus::Result<Answer> {
        let daemon = NotificationsProxy::builder(connection)
            .destination(BusName::from(owner))
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(match self {
            Self::Capabilities => {
                let all = daemon.get_capabilities().await?;
                let has = |name: &str| all.iter().any(|one| one == name);
                Answer::Can(Can { actions: has("actions"), markup: has("body-markup") })
            }
            Self::Show { new, replaces, title, text, button } => {
                let (urgency, icon) = look(new.severity);
                let actions: &[&str] = if button { &[CANCEL, "Cancel"] } else { &[] };
                let hints = HashMap::from([("urgency", Variant::from(urgency))]);
                let left = new.until.map(|until| until.saturating_duration_since(Instant::now()).as_millis());
                // -1: as long as the daemon likes; 0 would be for ever.
                let expires_ms = left.map_or(-1, |left| i32::try_from(left).unwrap_or(i32::MAX).max(1));
                let id = daemon.notify(APP_NAME, replaces, icon, &title, &text, actions, &hints, expires_ms).await?;
                Answer::Shown { new, id }
            }
            Self::Close { id } => {
                daemon.close_notification(id).await?;
                Answer::Done
            }
        })
    }
}

/// The urgency of the specification, and an icon of the icon naming specification.
const fn look(severity: Severity) -> (u8, &'static str) {
    match severity {
        Severity::Info => (0, "dialog-information"),
        Severity::Warning => (1, "dialog-warning"),
        Severity::Critical => (2, "dialog-error"),
    }
}

/// The title of an announcement. Only what interrupts work is announced; the rest says so by its word.
const fn announcement(action: Action) -> &'static str {
    match action {
        Action::RestartProxy => "The Codex proxy is about to be restarted",
        Action::KillStaleProcesses => "A leftover process of the Codex proxy is about to be ended",
        other => other.word(),
    }
}

/// Text without control characters nor such as turn the writing direction, cut at so many characters.
fn clean(text: &str, chars_max: usize, lines: bool) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out: String = text
        .chars()
        .take(chars_max)
        .filter(|c| !turns(*c))
        .map(|c| if c.is_control() && !(lines && c == '\n') { ' ' } else { c })
        .collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

/// For daemons that read markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_hold_nothing_that_acts() {
        assert_eq!(clean("a\x1b[31m\u{202e}b\r\nc\0", 99, true), "a [31mb \nc ");
        assert_eq!(clean("a\nb", 99, false), "a b");
        assert_eq!(clean("äöü", 2, true), "äö…");
        assert_eq!(clean("äö", 2, true), "äö");
        assert_eq!(escape("<b>&'\""), "&lt;b&gt;&amp;&#39;&quot;");
    }
}
