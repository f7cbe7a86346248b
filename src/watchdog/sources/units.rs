//! The service manager, over the session bus: what state our units are in, how often the proxy may be started, who the
//! manager is; and the failures that the proxy itself reports there.
//!
//! ```text
//! connect → listen → read all → [change → tell]… → (bus lost) blind, pause → connect …
//! ```
//!
//! Changes come as signals within milliseconds. They are merged into what was read before; after everything that may
//! have swallowed one (the manager restarted or reloaded) all is read anew, and signals that were sent before the answer
//! count no more. Nothing here starts a service: every call
//! says NO_AUTO_START and has a limit of two seconds.

use std::{
    collections::HashMap,
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::debug;
use zbus::{
    Connection, DBusError as _, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, connection,
    export::futures_core::Stream,
    fdo::{self, DBusProxy},
    message::{self, Sequence},
    names::{BusName, OwnedUniqueName},
};

use super::{Out, Seen, Sight, Unheard, now};
use crate::{
    bus,
    model::signal::Signal as Reported,
    watchdog::signal::{Active, Failure, Observation, Source, Unit, UnitState},
};

/// The manager's name on the bus.
pub const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The bus and the manager answer in milliseconds.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Signals that wait to be looked at.
const WAITING_MAX: usize = 1024;
/// The manager tells one change in several messages; what the first says is held back so long for the others.
const HALVES: Duration = Duration::from_millis(20);
/// Between attempts to connect: doubling.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest text that is taken from a failure signal.
const FACT_CHARS_MAX: usize = 512;

/// `a{sv}`
type Facts = HashMap<String, OwnedVariant>;

/// Where the session bus is.
#[derive(Debug, Clone, Default)]
pub struct SessionBus {
    address: Option<String>,
}

impl SessionBus {
    /// A bus at an address of its own, `unix:path=…`; [`SessionBus::default`] is the one that the environment names.
    pub const fn at(address: String) -> Self {
        Self { address: Some(address) }
    }

    /// A new connection, whose calls have [`CALL_LIMIT`].
    ///
    /// # Errors
    /// There is no bus, or it does not answer in time.
    pub async fn connect(&self) -> zbus::Result<Connection> {
        let late = |_| zbus::Error::Failure("the session bus does not answer".to_owned());
        timeout(CALL_LIMIT, self.builder().method_timeout(CALL_LIMIT).build()).await.map_err(late)?
    }

    /// For a connection with more to it.
    pub(in crate::watchdog) fn builder(&self) -> connection::Builder<'_> {
        match &self.address {
            Some(address) => connection::Builder::address(address.as_str()),
            None => connection::Builder::session(),
        }
    }
}

/// A job: number, unit, `start`, `stop` …, `waiting` or `running`, its object, the unit's object.
pub(in crate::watchdog) type QueuedJob = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

/// The manager's methods that are needed here.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(in crate::watchdog) trait Manager {
    /// From now on the manager sends signals.
    #[zbus(no_autostart)]
    fn subscribe(&self) -> zbus::Result<()>;

    /// The object of a unit, loaded if it is not.
    #[zbus(no_autostart)]
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    /// Gives a job.
    #[zbus(no_autostart)]
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// Gives a job.
    #[zbus(no_autostart)]
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// All jobs that wait or run.
    #[zbus(no_autostart)]
    fn list_jobs(&self) -> zbus::Result<Vec<QueuedJob>>;
}

/// What is found out on the way, for other sources and for actuators.
#[derive(Debug)]
pub struct Found {
    /// The connection while there is one.
    pub link: watch::Sender<Option<Connection>>,
    /// The process of the service manager; it stays while the bus is away, since the manager does.
    pub manager: watch::Sender<Option<u32>>,
    /// The port of the proxy's socket; it stays, too.
    pub port: watch::Sender<Option<u16>>,
}

/// Watches until nobody listens.
pub async fn watch(bus: SessionBus, found: Found, sender: mpsc::Sender<Seen>) {
    let out = Out { sender: sender.clone(), source: Source::Units };
    let mut sight = Sight::unknown();
    let mut pause = PAUSE_FIRST;
    loop {
        let began = Instant::now();
        let over = tokio::select! {
            over = attend(&bus, &found, &out, &mut sight) => over,
            () = sender.closed() => Over::Unheard,
        };
        found.link.send_replace(None);
        let Over::Lost(why) = over else { return };
        debug!(codex_error = why, "the service manager cannot be watched");
        if sight.tell(&out, Some(why)).await.is_err() {
            return;
        }
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE_FIRST;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = sender.closed() => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Why watching stopped.
#[derive(Debug)]
enum Over {
    Unheard,
    Lost(String),
}

impl From<Unheard> for Over {
    fn from(Unheard: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<zbus::Error> for Over {
    fn from(error: zbus::Error) -> Self {
        Self::Lost(format!("the service manager cannot be asked: {error}"))
    }
}

impl From<fdo::Error> for Over {
    fn from(error: fdo::Error) -> Self {
        Self::Lost(format!("the bus cannot be asked: {error}"))
    }
}

async fn attend(bus: &SessionBus, found: &Found, out: &Out, sight: &mut Sight) -> Over {
    let connection = match bus.connect().await {
        Ok(connection) => connection,
        Err(error) => return Over::Lost(format!("no session bus: {error}")),
    };
    match attend_connection(&connection, found, out, sight).await {
        Err(over) => over,
        Ok(()) => Over::Lost("the session bus went away".to_owned()),
    }
}

async fn attend_connection(connection: &Connection, found: &Found, out: &Out, sight: &mut Sight) -> Result<(), Over> {
    // One stream for everything, so that the order of the bus is kept.
    let mut messages = MessageStream::from(connection);
    if let Some(most) = NonZeroUsize::new(WAITING_MAX) {
        messages.set_max_queued(most);
    }
    let names = DBusProxy::new(connection).await?;
    for name in [MANAGER, bus::NAME] {
        let rule = MatchRule::builder().msg_type(message::Type::Signal).sender("org.freedesktop.DBus");
        names.add_match_rule(rule.member("NameOwnerChanged").arg(0, name).build()?).await?;
    }
    let rule = MatchRule::builder().msg_type(message::Type::Signal).path(bus::PATH).interface(bus::NAME);
    names.add_match_rule(rule.member("FailureSignal").build()?).await?;
    let rule = MatchRule::builder().msg_type(message::Type::Signal).sender(MANAGER).path(MANAGER_PATH);
    names.add_match_rule(rule.interface(MANAGER_INTERFACE).member("Reloading").build()?).await?;
    found.link.send_replace(Some(connection.clone()));

    let mut watched = Watched { connection, names, owner: None, units: Vec::new(), reporter: None, start_limit: None };
    watched.read_anew(found, out).await?;
    sight.tell(out, None).await?;
    let mut pending: Option<Instant> = None;
    let mut closed = pin!(connection.closed());
    loop {
        let next = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx));
        tokio::select! {
            biased;
            message = next => match message {
                Some(Ok(message)) => match watched.take(&message, out).await? {
                    Taken::Nothing => {}
                    Taken::Half => pending = pending.or_else(|| Some(Instant::now() + HALVES)),
                    Taken::Whole => {
                        pending = None;
                        watched.tell_changes(out).await?;
                    }
                    Taken::Anew => {
                        pending = None;
                        watched.read_anew(found, out).await?;
                    }
                },
                Some(Err(_)) | None => return Ok(()),
            },
            () = sleep_until(pending.unwrap_or_else(Instant::now)), if pending.is_some() => {
                pending = None;
                watched.tell_changes(out).await?;
            }
            () = &mut closed => return Ok(()),
        }
    }
}

/// What a message led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Nothing,
    /// Something changed and more of it is to come.
    Half,
    Whole,
    /// What is known may be stale.
    Anew,
}

/// Our units as the manager last described them.
struct Watched<'a> {
    connection: &'a Connection,
    names: DBusProxy<'a>,
    /// The manager's connection.
    owner: Option<OwnedUniqueName>,
    units: Vec<Known>,
    /// The owner of the proxy's name, and its process.
    reporter: Option<(OwnedUniqueName, u32)>,
    /// As last told.
    start_limit: Option<(u32, u64)>,
}

struct Known {
    path: OwnedObjectPath,
    state: UnitState,
    /// The places of the answers that it was read from; what came before one is older than it.
    read: Vec<(&'static str, Sequence)>,
    told: Option<UnitState>,
}

impl Watched<'_> {
    /// Finds the manager and reads all; tells what is new.
    async fn read_anew(&mut self, found: &Found, out: &Out) -> Result<(), Over> {
        let owner = self.names.get_name_owner(MANAGER.try_into()?).await;
        let owner = owner.map_err(|error| Over::Lost(format!("no service manager on the session bus: {error}")))?;
        let pid = self.names.get_connection_unix_process_id(BusName::Unique(owner.as_ref())).await?;
        found.manager.send_if_modified(|known| known.replace(pid) != Some(pid));
        let proxy = ManagerProxy::builder(self.connection)
            .destination(owner.clone())
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await?;
        match proxy.subscribe().await {
            Ok(()) => {}
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            Err(error) => return Err(error.into()),
        }
        self.owner = Some(owner);
        for unit in Unit::ALL {
            let path = proxy.load_unit(unit.name()).await?;
            let at = self.units.iter().position(|known| known.state.unit == unit);
            if at.is_none_or(|at| self.units[at].path != path) {
                let rule = MatchRule::builder().msg_type(message::Type::Signal).sender(MANAGER);
                let rule = rule.path(path.clone()).interface(PROPERTIES).member("PropertiesChanged").build()?;
                self.names.add_match_rule(rule).await?;
            }
            let (state, read) = self.read(unit, &path, found, out).await?;
            let told = at.and_then(|at| self.units.remove(at).told);
            self.units.push(Known { path, state, read, told });
        }
        self.find_reporter().await;
        self.tell_changes(out).await?;
        Ok(())
    }

    /// Reads one unit; tells the proxy's start limit if it is new.
    async fn read(
        &mut self,
        unit: Unit,
        path: &OwnedObjectPath,
        found: &Found,
        out: &Out,
    ) -> Result<(UnitState, Vec<(&'static str, Sequence)>), Over> {
        let kind =
            if unit == Unit::Socket { "org.freedesktop.systemd1.Socket" } else { "org.freedesktop.systemd1.Service" };
        let (mut facts, generic) = self.get_all(path, UNIT_INTERFACE).await?;
        let (special, specific) = self.get_all(path, kind).await?;
        facts.extend(special);
        let mut state = unknown(unit);
        merge(&mut state, &facts);
        if let Some(port) = value::<Vec<(String, String)>>(&facts, "Listen").as_deref().and_then(stream_port) {
            found.port.send_if_modified(|known| known.replace(port) != Some(port));
        }
        if unit == Unit::Proxy
            && let (Some(burst), Some(interval_us)) =
                (number(&facts, "StartLimitBurst"), number(&facts, "StartLimitIntervalUSec"))
            && self.start_limit != Some((burst, interval_us))
        {
            self.start_limit = Some((burst, interval_us));
            out.tell(Observation::StartLimit { burst, interval_us }).await?;
        }
        Ok((state, vec![(UNIT_INTERFACE, generic), (kind, specific)]))
    }

    /// All properties of an interface, and the place of the answer in what comes from the bus. It is asked of the
    /// manager's connection, not of its name: nothing is started by that.
    async fn get_all(&self, path: &OwnedObjectPath, interface: &str) -> zbus::Result<(Facts, Sequence)> {
        let Some(owner) = &self.owner else { return Err(zbus::Error::Failure("no service manager".to_owned())) };
        let answer =
            self.connection.call_method(Some(owner.as_str()), path, Some(PROPERTIES), "GetAll", &interface).await?;
        Ok((answer.body().deserialize()?, answer.recv_position()))
    }

    async fn tell_changes(&mut self, out: &Out) -> Result<(), Unheard> {
        for known in &mut self.units {
            if known.told.as_ref() != Some(&known.state) {
                known.told = Some(known.state.clone());
                out.tell(Observation::Unit(known.state.clone())).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: &Message, out: &Out) -> Result<Taken, Over> {
        let header = message.header();
        if header.message_type() != message::Type::Signal {
            return Ok(Taken::Nothing);
        }
        let member = header.member().map(|member| member.as_str()).unwrap_or_default();
        let interface = header.interface().map(|interface| interface.as_str()).unwrap_or_default();
        let sender = header.sender().map(|sender| sender.as_str()).unwrap_or_default();
        let of_manager = self.owner.as_ref().is_some_and(|owner| owner.as_str() == sender);
        match (interface, member) {
            ("org.freedesktop.DBus", "NameOwnerChanged") if sender == "org.freedesktop.DBus" => {
                let Ok((name, _, new)) = message.body().deserialize::<(String, String, String)>() else {
                    return Ok(Taken::Nothing);
                };
                match name.as_str() {
                    MANAGER if new.is_empty() => Err(Over::Lost("the service manager left the bus".to_owned())),
                    MANAGER => Ok(Taken::Anew),
                    bus::NAME => {
                        self.find_reporter().await;
                        Ok(Taken::Nothing)
                    }
                    _ => Ok(Taken::Nothing),
                }
            }
            // False: it is over.
            (MANAGER_INTERFACE, "Reloading") if of_manager => {
                let begins = message.body().deserialize::<bool>().unwrap_or(false);
                Ok(if begins { Taken::Nothing } else { Taken::Anew })
            }
            (PROPERTIES, "PropertiesChanged") if of_manager => {
                let path = header.path().map(|path| path.as_str()).unwrap_or_default();
                let Some(known) = self.units.iter_mut().find(|known| known.path.as_str() == path) else {
                    return Ok(Taken::Nothing);
                };
                let body = message.body();
                let Ok((of, changed, gone)) = body.deserialize::<(String, Facts, Vec<String>)>() else {
                    return Ok(Taken::Anew);
                };
                if known.read.iter().any(|(interface, at)| *interface == of && message.recv_position() < *at) {
                    return Ok(Taken::Nothing);
                }
                merge(&mut known.state, &changed);
                if gone.iter().any(|name| OURS.contains(&name.as_str())) {
                    return Ok(Taken::Anew);
                }
                // A unit that is about to be restarted is `failed` for a moment, one that is about to start `inactive`.
                let passing = matches!(known.state.active, Active::Failed | Active::Inactive);
                Ok(if of == UNIT_INTERFACE && !passing { Taken::Whole } else { Taken::Half })
            }
            (bus::NAME, "FailureSignal") => {
                if self.is_of_proxy(sender).await?
                    && let Some(failure) = failure(message)
                {
                    out.tell_as(Source::Failures, now(), Observation::Failure(failure), None).await?;
                }
                Ok(Taken::Nothing)
            }
            _ => Ok(Taken::Nothing),
        }
    }

    /// Who holds the proxy's name.
    async fn find_reporter(&mut self) {
        self.reporter = None;
        let Ok(name) = bus::NAME.try_into() else { return };
        let Ok(owner) = self.names.get_name_owner(name).await else { return };
        if let Ok(pid) = self.names.get_connection_unix_process_id(BusName::Unique(owner.as_ref())).await {
            self.reporter = Some((owner, pid));
        }
    }

    /// Whether a sender is the proxy that the manager runs.
    async fn is_of_proxy(&self, sender: &str) -> Result<bool, Over> {
        let Some(pid) = self.reporter.as_ref().filter(|(name, _)| name.as_str() == sender).map(|(_, pid)| *pid) else {
            return Ok(false);
        };
        let Some(known) = self.units.iter().find(|known| known.state.unit == Unit::Proxy) else { return Ok(false) };
        if known.state.pid == pid {
            return Ok(true);
        }
        // The signal may have overtaken the news of a start.
        let (facts, _) = self.get_all(&known.path, "org.freedesktop.systemd1.Service").await?;
        Ok(number::<u32>(&facts, "MainPID").is_some_and(|main| main == pid && main != 0))
    }
}

/// The name of an error that the other side, or the bus in its place, answered with; `None`: there was no answer.
pub(in crate::watchdog) fn error_name(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, ..) => Some(name.to_string()),
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::ZBus(error) => error_name(error),
            error => Some(error.name().to_string()),
        },
        _ => None,
    }
}

/// The properties that are looked at; the manager signals changes of each (seen with 252 and 257).
const OURS: [&str; 7] =
    ["ActiveState", "Result", "InvocationID", "NRestarts", "MainPID", "ExecMainCode", "ExecMainStatus"];

fn unknown(unit: Unit) -> UnitState {
    UnitState {
        unit,
        active: Active::Unknown,
        result: String::new(),
        invocation: String::new(),
        restarts: 0,
        pid: 0,
        exit_code: 0,
        exit_status: 0,
    }
}

/// Puts what is told over what is known.
fn merge(state: &mut UnitState, facts: &Facts) {
    if let Some(word) = text(facts, "ActiveState") {
        state.active = Active::parse(&word);
    }
    if let Some(result) = text(facts, "Result") {
        state.result = result;
    }
    if let Some(id) = value::<Vec<u8>>(facts, "InvocationID") {
        state.invocation = id.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    for (name, field) in [("NRestarts", &mut state.restarts), ("MainPID", &mut state.pid)] {
        if let Some(number) = number(facts, name) {
            *field = number;
        }
    }
    for (name, field) in [("ExecMainCode", &mut state.exit_code), ("ExecMainStatus", &mut state.exit_status)] {
        if let Some(number) = number(facts, name) {
            *field = number;
        }
    }
}

fn value<T: TryFrom<OwnedVariant>>(facts: &Facts, name: &str) -> Option<T> {
    T::try_from(facts.get(name)?.try_clone().ok()?).ok()
}

fn text(facts: &Facts, name: &str) -> Option<String> {
    value(facts, name)
}

fn number<T: TryFrom<OwnedVariant>>(facts: &Facts, name: &str) -> Option<T> {
    value(facts, name)
}

/// The port of the first stream in a socket's `Listen`.
fn stream_port(listen: &[(String, String)]) -> Option<u16> {
    listen.iter().find(|(kind, _)| kind == "Stream")?.1.parse().ok().map(|address: std::net::SocketAddr| address.port())
}

/// A failure signal, if it is one of the table.
fn failure(message: &Message) -> Option<Failure> {
    let (event_id, name, facts) = message.body().deserialize::<(String, String, Facts)>().ok()?;
    let reported = Reported::ALL.into_iter().find(|signal| signal.row().name == name)?;
    if event_id.is_empty() {
        return None;
    }
    let short = |text: String| -> String { text.chars().take(FACT_CHARS_MAX).collect() };
    let fact = |name| text(&facts, name).map(short).unwrap_or_default();
    Some(Failure {
        event_id: short(event_id),
        signal: reported.row().name.to_owned(),
        request_id: fact("request_id"),
        thread_id: fact("thread_id"),
        model: fact("model"),
        route: fact("route"),
        provider: fact("provider"),
        account: fact("account"),
        status: number(&facts, "status").unwrap_or(0),
        phase: fact("phase"),
    })
}
