//! The members of `org.codexproxy.Proxy1`. What they mean to callers stands in `dbus/org.codexproxy.Proxy1.xml`; a test
//! compares the two.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::UNIX_EPOCH,
};

use tracing::info;
use zbus::{
    Connection, OwnedVariant, Variant,
    fdo::{DBusProxy, Properties},
    interface,
    message::Header,
    names::InterfaceName,
    object_server::SignalEmitter,
};

use super::Face;
use crate::{
    host::clock,
    proxy::{
        health::memory_bytes,
        overrides::{OverrideError, Overrides, route_name},
        registry::InFlight,
        reports::Report,
    },
};

/// `a{sv}`
type Facts = HashMap<String, OwnedVariant>;

/// What goes wrong with a call.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.codexproxy.Error")]
pub(super) enum CallError {
    #[zbus(error)]
    ZBus(zbus::Error),
    UnknownRoute(String),
    UnknownModel(String),
    UnknownAccount(String),
    UnknownRequest(String),
    NotARouteOf(String),
    OutOfRange(String),
    Configuration(String),
}

impl From<OverrideError> for CallError {
    fn from(error: OverrideError) -> Self {
        let text = error.to_string();
        match error {
            OverrideError::UnknownRoute(_) => Self::UnknownRoute(text),
            OverrideError::UnknownModel(_) => Self::UnknownModel(text),
            OverrideError::UnknownAccount { .. } => Self::UnknownAccount(text),
            OverrideError::NotARouteOf { .. } => Self::NotARouteOf(text),
            OverrideError::Factor(_) => Self::OutOfRange(text),
        }
    }
}

/// The object.
pub(super) struct Proxy1 {
    face: Arc<Face>,
}

impl Proxy1 {
    pub(super) fn new(face: Arc<Face>) -> Self {
        Self { face }
    }
}

/// Who called, for the log.
struct Caller {
    name: String,
    pid: Option<u32>,
}

impl Caller {
    async fn of(header: &Header<'_>, connection: &Connection) -> Self {
        let Some(sender) = header.sender() else { return Self { name: String::new(), pid: None } };
        let pid = match DBusProxy::new(connection).await {
            Ok(bus) => bus.get_connection_unix_process_id(sender.clone().into()).await.ok(),
            Err(_) => None,
        };
        Self { name: sender.to_string(), pid }
    }
}

#[interface(name = "org.codexproxy.Proxy1")]
impl Proxy1 {
    #[zbus(property)]
    fn state(&self) -> String {
        self.face.service.state().borrow().word().to_owned()
    }

    #[zbus(property)]
    fn listen(&self) -> Vec<String> {
        self.face.listen.clone()
    }

    #[zbus(property)]
    fn config_path(&self) -> String {
        config_path(&self.face)
    }

    #[zbus(property)]
    fn config_error(&self) -> String {
        self.face.service.config_error()
    }

    #[zbus(property)]
    fn routes(&self) -> Vec<Facts> {
        routes(&self.face).into_iter().map(RouteShown::facts).collect()
    }

    #[zbus(property)]
    fn accounts(&self) -> Vec<Facts> {
        accounts(&self.face).into_iter().map(AccountShown::facts).collect()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn started_u_sec(&self) -> u64 {
        self.face.started_usec
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn requests_total(&self) -> u64 {
        self.face.service.counters().total()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn requests_failed(&self) -> u64 {
        self.face.service.counters().failed()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn active_streams(&self) -> u32 {
        u32::try_from(self.face.service.counters().active()).unwrap_or(u32::MAX)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_bytes(&self) -> u64 {
        memory_bytes().unwrap_or(0)
    }

    #[zbus(out_args("monotonic_usec"))]
    fn ping(&self) -> u64 {
        clock::monotonic_usec()
    }

    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        info!(codex_caller = caller.name, codex_caller_pid = caller.pid, "reload asked for over the bus");
        self.face.reloader.reload().await.map_err(CallError::Configuration)
    }

    #[zbus(out_args("requests"))]
    fn list_requests(&self, max: u32) -> Vec<Facts> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        self.face.service.registry().list(max).into_iter().map(request_facts).collect()
    }

    async fn cancel_request(
        &self,
        request_id: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        if !self.face.service.registry().cancel(request_id) {
            return Err(CallError::UnknownRequest("There is no such request under way.".to_owned()));
        }
        info!(
            codex_caller = caller.name,
            codex_caller_pid = caller.pid,
            codex_request_id = request_id,
            "request cancelled over the bus"
        );
        Ok(())
    }

    async fn set_route_enabled(
        &self,
        route: &str,
        enabled: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        self.face.service.switch(|overrides, settings| overrides.set_route_enabled(settings, route, enabled))?;
        info!(
            codex_caller = caller.name,
            codex_caller_pid = caller.pid,
            codex_route = route,
            codex_enabled = enabled,
            "route switched over the bus"
        );
        Ok(())
    }

    async fn switch_route(
        &self,
        model: &str,
        route: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        self.face.service.switch(|overrides, settings| overrides.switch_route(settings, model, route))?;
        info!(
            codex_caller = caller.name,
            codex_caller_pid = caller.pid,
            codex_model = model,
            codex_route = route,
            "route put first over the bus"
        );
        Ok(())
    }

    async fn set_account_enabled(
        &self,
        provider: &str,
        account: &str,
        enabled: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        self.face
            .service
            .switch(|overrides, settings| overrides.set_account_enabled(settings, provider, account, enabled))?;
        info!(
            codex_caller = caller.name,
            codex_caller_pid = caller.pid,
            codex_provider = provider,
            codex_account = account,
            codex_enabled = enabled,
            "account switched over the bus"
        );
        Ok(())
    }

    async fn set_timeout_factor(
        &self,
        route: &str,
        factor: f64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), CallError> {
        let caller = Caller::of(&header, connection).await;
        self.face.service.switch(|overrides, settings| overrides.set_timeout_factor(settings, route, factor))?;
        info!(
            codex_caller = caller.name,
            codex_caller_pid = caller.pid,
            codex_route = route,
            codex_factor = factor,
            "time limits changed over the bus"
        );
        Ok(())
    }

    #[zbus(signal)]
    async fn failure_signal(
        emitter: &SignalEmitter<'_>,
        event_id: &str,
        signal: &str,
        facts: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<()>;
}

/// Sends the signal for a report.
pub(super) async fn send_report(emitter: &SignalEmitter<'_>, report: &Report) -> zbus::Result<()> {
    let mut facts = HashMap::new();
    for (name, value) in [
        ("request_id", &report.request_id),
        ("thread_id", &report.thread_id),
        ("model", &report.model),
        ("route", &report.route),
        ("provider", &report.provider),
        ("account", &report.account),
    ] {
        if !value.is_empty() {
            facts.insert(name, Variant::from(value.as_str()));
        }
    }
    if let Some(status) = report.status {
        facts.insert("status", Variant::from(u32::from(status)));
    }
    facts.insert("phase", Variant::from(report.phase.word()));
    facts.insert("elapsed_ms", Variant::from(u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX)));
    Proxy1::failure_signal(emitter, &report.id, report.signal.row().name, facts).await
}

/// The signalled properties at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    state: String,
    config_path: String,
    config_error: String,
    routes: Vec<RouteShown>,
    accounts: Vec<AccountShown>,
}

impl Shown {
    pub(super) fn of(face: &Face) -> Self {
        Self {
            state: face.service.state().borrow().word().to_owned(),
            config_path: config_path(face),
            config_error: face.service.config_error(),
            routes: routes(face),
            accounts: accounts(face),
        }
    }

    /// One `PropertiesChanged` with what is other than `before`; none if nothing is.
    pub(super) async fn tell_changes(&self, before: &Self, emitter: &SignalEmitter<'_>) -> zbus::Result<()> {
        let mut changed = HashMap::new();
        if self.state != before.state {
            changed.insert("State", Variant::from(self.state.clone()));
        }
        if self.config_path != before.config_path {
            changed.insert("ConfigPath", Variant::from(self.config_path.clone()));
        }
        if self.config_error != before.config_error {
            changed.insert("ConfigError", Variant::from(self.config_error.clone()));
        }
        if self.routes != before.routes {
            let routes: Vec<Facts> = self.routes.iter().cloned().map(RouteShown::facts).collect();
            changed.insert("Routes", Variant::from(routes));
        }
        if self.accounts != before.accounts {
            let accounts: Vec<Facts> = self.accounts.iter().cloned().map(AccountShown::facts).collect();
            changed.insert("Accounts", Variant::from(accounts));
        }
        if changed.is_empty() {
            return Ok(());
        }
        let name = InterfaceName::from_static_str_unchecked(super::NAME);
        Properties::properties_changed(emitter, name, changed, Vec::new().into()).await
    }
}

/// The file of the highest layer: the one a person edits.
fn config_path(face: &Face) -> String {
    face.service.live().settings.files.last().map(|file| file.display().to_string()).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq)]
struct RouteShown {
    model: String,
    route: String,
    provider: String,
    position: u32,
    enabled: bool,
    timeout_factor: f64,
}

impl RouteShown {
    fn facts(self) -> Facts {
        facts([
            ("model", Variant::from(self.model)),
            ("route", Variant::from(self.route)),
            ("provider", Variant::from(self.provider)),
            ("position", Variant::from(self.position)),
            ("enabled", Variant::from(self.enabled)),
            ("timeout_factor", Variant::from(self.timeout_factor)),
        ])
    }
}

fn routes(face: &Face) -> Vec<RouteShown> {
    let (live, overrides) = (face.service.live(), face.service.overrides());
    let of_model = |model| overrides.ordered(model).into_iter().zip(0..).map(move |(route, at)| (model, route, at));
    let shown = live.settings.models.values().flat_map(of_model);
    shown.map(|(model, route, position)| route_shown(&overrides, &model.name, route, position)).collect()
}

fn route_shown(
    overrides: &Overrides,
    model: &str,
    route: &crate::config::settings::Route,
    position: u32,
) -> RouteShown {
    let name = route_name(route);
    RouteShown {
        model: model.to_owned(),
        provider: route.provider.clone(),
        position,
        enabled: overrides.route_enabled(&name),
        timeout_factor: overrides.timeout_factor(&name),
        route: name,
    }
}

#[derive(Debug, Clone, PartialEq)]
struct AccountShown {
    provider: String,
    account: String,
    enabled: bool,
}

impl AccountShown {
    fn facts(self) -> Facts {
        facts([
            ("provider", Variant::from(self.provider)),
            ("account", Variant::from(self.account)),
            ("enabled", Variant::from(self.enabled)),
        ])
    }
}

fn accounts(face: &Face) -> Vec<AccountShown> {
    let (live, overrides) = (face.service.live(), face.service.overrides());
    let all = live.settings.providers.values().flat_map(|p| p.accounts.iter().map(move |account| (p, account)));
    all.map(|(provider, account)| AccountShown {
        provider: provider.name.clone(),
        account: account.name.clone(),
        enabled: overrides.account_enabled(provider, account),
    })
    .collect()
}

fn request_facts(request: InFlight) -> Facts {
    let since = request.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    facts([
        ("id", Variant::from(request.id)),
        ("model", Variant::from(request.model)),
        ("route", Variant::from(request.route)),
        ("thread_id", Variant::from(request.thread)),
        ("since_usec", Variant::from(u64::try_from(since.as_micros()).unwrap_or(0))),
        ("attempts", Variant::from(request.attempts)),
        ("state", Variant::from(if request.streaming { "streaming" } else { "waiting" })),
    ])
}

/// None of the values holds a descriptor, so none is lost on the way.
fn facts<const N: usize>(values: [(&str, Variant<'_>); N]) -> Facts {
    let owned = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.try_to_owned().ok()?)));
    owned.collect::<BTreeMap<_, _>>().into_iter().collect()
}
