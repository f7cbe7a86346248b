//! What all exchanges of one process share: settings (replaced whole on reload), secrets, connections, counters, and
//! the two signals that end it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tracing::info;

use super::{
    body::Limits,
    catalogue,
    health::Counters,
    ledger::{self, Ledger, store::Limits as LedgerLimits},
    origins::{Origins, Written},
    overrides::{OverrideError, Overrides},
    quarantine::Quarantine,
    registry::Registry,
    reports::Reports,
    route::{self, Hop},
    stored::Responses,
    upstream::Upstreams,
};
use crate::{
    codec::{relay::BlobId, seal::Sealer},
    config::{
        credentials::{KeyCache, Surroundings},
        endpoint,
        settings::{HeaderSource, Settings},
    },
    host::secretfile::Secret32,
    model::{
        failure::{Failure, FailureKind},
        request::Origin,
    },
};

/// How a trouble of the ledger begins, so that it is known again when it is over.
const LEDGER_TROUBLE: &str = "usage is not recorded: ";
/// How a trouble with storing responses begins.
pub(super) const STORED_TROUBLE: &str = "responses are not stored: ";
/// How a trouble with looking for them begins.
pub(super) const READING_TROUBLE: &str = "stored responses cannot be read: ";

/// How a trouble with the record of who gave what begins.
const ORIGINS_TROUBLE: &str = "whose thoughts are whose is not noted: ";

/// Whether and how requests are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As they should be.
    Ready,
    /// They are served; something that ought to be kept is not, and why.
    Degraded(String),
    /// Each gets one 400 with this text: file, key, value and what would be right.
    ConfigError(String),
    /// The end has begun.
    Stopping,
}

impl State {
    /// The word on the bus and in `/health`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::ConfigError(_) => "config-error",
            Self::Stopping => "stopping",
        }
    }
}

/// One running proxy.
#[derive(Debug)]
pub struct Service {
    live: Mutex<Arc<Live>>,
    state: watch::Sender<State>,
    quarantine: Arc<Quarantine>,
    origins: Origins,
    /// Empty while the token exists and cannot be read: then the state is [`State::ConfigError`].
    token: OnceLock<Secret32>,
    sealer: Sealer,
    counters: Counters,
    overrides: Mutex<Arc<Overrides>>,
    registry: Arc<Registry>,
    reports: Reports,
    ledger: Ledger,
    responses: Responses,
    /// What a reload last found wrong; empty if it found nothing.
    reload_error: Mutex<String>,
    /// Counts what others may want to show: state, settings, what is switched.
    changes: watch::Sender<u64>,
    began: Instant,
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
}

/// What a reload replaces.
#[derive(Debug)]
pub struct Live {
    /// The configuration.
    pub settings: Settings,
    /// Connections to providers.
    pub upstreams: Upstreams,
    /// The body of `GET /v1/models`.
    pub models_body: Bytes,
    /// Its entity tag.
    pub models_etag: HeaderValue,
    bodies: Arc<Semaphore>,
    keys: KeyCache,
    surroundings: Surroundings,
}

impl Live {
    fn new(settings: Settings, prompt: &Prompt) -> Self {
        let entries = route::catalogue_entries(&settings);
        let models_body = catalogue::models_body_hiding(&entries, &prompt.base_instructions, &prompt.hidden_models);
        let models_etag =
            HeaderValue::from_str(&catalogue::etag(&models_body)).unwrap_or_else(|_| HeaderValue::from_static("\"0\""));
        Self {
            upstreams: Upstreams::new(settings.proxy.connect_timeout),
            models_body: Bytes::from(models_body),
            models_etag,
            bodies: Arc::new(Semaphore::new(settings.proxy.bodies_in_flight_bytes_max)),
            keys: KeyCache::default(),
            surroundings: Surroundings::from_env(),
            settings,
        }
    }

    /// Bounds of a request body.
    pub fn body_limits(&self) -> Limits {
        Limits {
            bytes_max: self.settings.proxy.body_bytes_max,
            in_flight: Arc::clone(&self.bodies),
            stall: self.settings.proxy.body_stall,
        }
    }

    /// How long a provider may take to begin: 60 s, more for long conversations and for tools, at most 300 s (the
    /// client's own patience within a stream).
    pub fn head_time_max(&self, items: usize, tools: bool) -> Duration {
        if let Some(fixed) = self.settings.proxy.upstream_head {
            return fixed;
        }
        let seconds = 60 + 2 * u64::try_from(items).unwrap_or(u64::MAX).min(120) + if tools { 60 } else { 0 };
        Duration::from_secs(seconds.min(300))
    }

    /// The headers a provider gets: ours, the configured ones, and the account's key.
    pub async fn provider_headers(&self, hop: &Hop) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        // Compressed streams arrive in lumps.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let Some(provider) = self.settings.providers.get(&hop.provider) else { return Ok(headers) };
        let operator = |message: String| Failure::new(FailureKind::Operator, message);
        for (name, value) in &provider.headers {
            let value = match value {
                HeaderSource::Literal(value) => value.clone(),
                HeaderSource::Key(source) => source.resolve(&self.surroundings).await.map_err(|error| {
                    operator(format!("The header {name} of provider {} has no value: {error}.", provider.name))
                })?,
            };
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
                operator(format!(
                    "The header {name} of provider {} has characters that a header cannot have.",
                    provider.name
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        for (name, value) in endpoint::fixed_headers(provider.protocol) {
            headers.entry(*name).or_insert(HeaderValue::from_static(value));
        }
        let Some(account) = hop.account.and_then(|at| provider.accounts.get(at)) else { return Ok(headers) };
        let key = match self.keys.get(&provider.name, &account.name) {
            Some(key) => key,
            None => {
                let key = account.key.resolve(&self.surroundings).await.map_err(|error| {
                    operator(format!("No key for account {} of provider {}: {error}.", account.name, provider.name))
                })?;
                self.keys.put(&provider.name, &account.name, key.clone());
                key
            }
        };
        let (name, before) = endpoint::key_header(provider.protocol);
        let mut value = HeaderValue::from_str(&format!("{before}{}", key.expose())).map_err(|_| {
            operator(format!(
                "The key for account {} of provider {} has characters that a header cannot have.",
                account.name, provider.name
            ))
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(headers)
    }

    /// Reads a refused key anew. True if it is another one now: it was replaced where it is kept, and is worth a try.
    pub async fn key_changed(&self, hop: &Hop) -> bool {
        let account = hop.account.and_then(|at| self.settings.providers.get(&hop.provider)?.accounts.get(at));
        let Some(account) = account else { return false };
        let refused = self.keys.get(&hop.provider, &account.name);
        self.keys.forget(&hop.provider, &account.name);
        match account.key.resolve(&self.surroundings).await {
            Ok(key) => {
                let changed = refused.is_some_and(|refused| refused != key);
                self.keys.put(&hop.provider, &account.name, key);
                changed
            }
            // The next request finds out, and says, that there is no key.
            Err(_) => false,
        }
    }
}

/// What the catalogue says beside the models.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The system prompt that Codex is to use.
    pub base_instructions: String,
    /// The client's own models, which nobody here serves: hidden from its picker.
    pub hidden_models: Vec<String>,
}

#[derive(Serialize)]
struct Health<'a> {
    ok: bool,
    state: &'a str,
    version: &'a str,
    uptime_s: u64,
    memory_mb: Option<f64>,
    requests_total: u64,
    active_streams: u64,
    routes: Vec<HealthRoute<'a>>,
}

#[derive(Serialize)]
struct HealthRoute<'a> {
    model: &'a str,
    routes: Vec<String>,
}

impl Service {
    /// A service that has not begun to serve.
    pub fn new(settings: Settings, token: Option<Secret32>, sealer: Sealer, prompt: &Prompt) -> Self {
        Self {
            live: Mutex::new(Arc::new(Live::new(settings, prompt))),
            state: watch::Sender::new(State::Ready),
            quarantine: Arc::new(Quarantine::without_files()),
            origins: Origins::default(),
            token: token.map(OnceLock::from).unwrap_or_default(),
            sealer,
            counters: Counters::default(),
            overrides: Mutex::default(),
            registry: Arc::default(),
            reports: Reports::default(),
            ledger: Ledger::default(),
            responses: Responses::default(),
            reload_error: Mutex::default(),
            changes: watch::Sender::new(0),
            began: Instant::now(),
            draining: watch::Sender::new(false),
            closing: watch::Sender::new(false),
        }
    }

    /// What is in force now. Exchanges keep what was in force when they began.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other settings in force for requests to come.
    pub fn reload(&self, settings: Settings, prompt: &Prompt) {
        let before = self.live();
        let mut live = Live::new(settings, prompt);
        if live.settings.proxy.bodies_in_flight_bytes_max == before.settings.proxy.bodies_in_flight_bytes_max {
            // Bodies that are in memory count on.
            live.bodies = Arc::clone(&before.bodies);
        }
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.changed();
    }

    /// What is switched by hand.
    pub fn overrides(&self) -> Arc<Overrides> {
        Arc::clone(&self.overrides.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Switches something for requests to come.
    ///
    /// # Errors
    /// What `change` says; nothing is switched then.
    pub fn switch(
        &self,
        change: impl FnOnce(&mut Overrides, &Settings) -> Result<(), OverrideError>,
    ) -> Result<(), OverrideError> {
        let live = self.live();
        let mut held = self.overrides.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Overrides::clone(&held);
        change(&mut next, &live.settings)?;
        *held = Arc::new(next);
        drop(held);
        self.changed();
        Ok(())
    }

    /// The requests under way.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Failure signals that go to the bus.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The record of usage.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Responses that may be continued.
    pub fn responses(&self) -> &Responses {
        &self.responses
    }

    /// Says what keeps something from being written, unless something else is said already; `None`: that is over. `what`
    /// is how such a trouble begins.
    pub(super) fn set_trouble(&self, what: &str, trouble: Option<&str>) {
        let changed = self.state.send_if_modified(|now| {
            let next = match (&*now, trouble) {
                (State::Ready, Some(trouble)) => State::Degraded(format!("{what}{trouble}")),
                (State::Degraded(why), None) if why.starts_with(what) => State::Ready,
                (State::Ready | State::Degraded(_) | State::ConfigError(_) | State::Stopping, _) => return false,
            };
            *now = next;
            true
        });
        if changed {
            self.changed();
        }
    }

    /// What is wrong with the configuration files: what keeps requests from being served, else what a reload found.
    /// Empty if nothing is.
    pub fn config_error(&self) -> String {
        if let State::ConfigError(text) = &*self.state.borrow() {
            return text.clone();
        }
        self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what a reload found; empty: nothing.
    pub fn set_reload_error(&self, error: String) {
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        self.changed();
    }

    /// Changes whenever the state, the settings or what is switched may have.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The same, with a record of what is in flight.
    pub fn with_quarantine(self, quarantine: Quarantine) -> Self {
        Self { quarantine: Arc::new(quarantine), ..self }
    }

    /// The same, with a record of who gave what only they can read.
    pub fn with_origins(self, origins: Origins) -> Self {
        Self { origins, ..self }
    }

    /// Who gave what only they can read.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Notes that `origin` gave these.
    pub(super) fn note_origin(&self, origin: &Origin, blobs: &[BlobId]) {
        self.tell_noted(self.origins.record(origin, blobs));
    }

    /// Notes that a host could not read some of these, as [`Origins::refuse`] says.
    pub(super) fn note_refused(&self, blobs: &[BlobId]) {
        self.tell_noted(self.origins.refuse(blobs));
    }

    fn tell_noted(&self, written: Option<Written>) {
        match written {
            Some(Written::Not(why)) => self.set_trouble(ORIGINS_TROUBLE, Some(&why)),
            Some(Written::Again) => {
                self.set_trouble(ORIGINS_TROUBLE, None);
                info!("whose thoughts are whose is noted again");
            }
            None => {}
        }
    }

    /// Who is suspected of killing the process.
    pub fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }

    /// How requests are served now; wait on it to learn of changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Changes that. Stopping is for good.
    pub fn set_state(&self, state: State) {
        self.state.send_if_modified(|now| {
            let changes = *now != State::Stopping && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
        self.changed();
    }

    /// One line for `systemctl status`.
    pub fn status_line(&self) -> String {
        match &*self.state.borrow() {
            State::Ready => format!("Serving {} models.", self.live().settings.models.len() + 1),
            State::Degraded(why) => format!("Serving, but {why}"),
            State::ConfigError(text) => {
                format!("The configuration cannot be used: {}", text.lines().next().unwrap_or(""))
            }
            State::Stopping => "Stopping.".to_owned(),
        }
    }

    /// Opens and seals opaque data.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Since start.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// False while the token exists and cannot be read.
    pub fn has_token(&self) -> bool {
        self.token.get().is_some()
    }

    /// Takes a token that can be read now. The first one stands.
    pub fn set_token(&self, token: Secret32) {
        // A second one loses: the processes that know the first go on being served.
        let _ = self.token.set(token);
    }

    /// True if an `Authorization` header holds our token.
    pub fn knows(&self, authorization: Option<&HeaderValue>) -> bool {
        let presented = authorization.map(HeaderValue::as_bytes).unwrap_or_default();
        match (presented.split_at_checked(7), self.token.get()) {
            (Some((scheme, presented)), Some(token)) => {
                scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(presented.trim_ascii())
            }
            _ => false,
        }
    }

    /// The page that probes read.
    pub fn health(&self, memory_bytes: Option<u64>) -> Bytes {
        let live = self.live();
        let routes = live
            .settings
            .models
            .values()
            .map(|model| HealthRoute {
                model: &model.name,
                routes: model.routes.iter().map(|r| format!("{}/{}", r.provider, r.model)).collect(),
            })
            .collect();
        let state = self.state.borrow().word();
        let health = Health {
            ok: true,
            state,
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.uptime().as_secs(),
            memory_mb: memory_bytes.map(|b| (b as f64 / 1_048_576.0 * 10.0).round() / 10.0),
            requests_total: self.counters.total(),
            active_streams: self.counters.active(),
            routes,
        };
        Bytes::from(serde_json::to_vec(&health).unwrap_or_default())
    }

    /// A fresh id: `req_` and 128 random bits in hexadecimal.
    pub fn new_request_id(&self) -> String {
        self.new_id("req_")
    }

    /// A fresh id with that prefix.
    pub fn new_id(&self, prefix: &str) -> String {
        let mut id = String::with_capacity(prefix.len() + 32);
        id.push_str(prefix);
        for byte in self.random_bytes::<16>() {
            id.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            id.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        id
    }

    /// Random bytes; of the clock's, should the system have none, which ids survive and nonces, with a counter per
    /// process, too.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        if getrandom::fill(&mut bytes).is_err() {
            let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            for (byte, clock) in bytes.iter_mut().zip(nanos.to_le_bytes()) {
                *byte = clock;
            }
        }
        bytes
    }

    /// A random number from 0 to 1.
    pub fn random_fraction(&self) -> f64 {
        f64::from(u16::from_le_bytes(self.random_bytes())) / f64::from(u16::MAX)
    }

    /// Becomes true when no new requests are wanted.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Becomes true when requests under way must end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Says so.
    pub fn begin_draining(&self) {
        self.set_state(State::Stopping);
        self.draining.send_replace(true);
    }

    /// Says so.
    pub fn begin_closing(&self) {
        self.closing.send_replace(true);
    }
}

impl ledger::Owner for Service {
    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn limits(&self) -> LedgerLimits {
        let usage = &self.live().settings.usage;
        LedgerLimits { keep: usage.keep, rows_max: usage.rows_max }
    }

    fn trouble(&self, trouble: Option<&str>) {
        self.set_trouble(LEDGER_TROUBLE, trouble);
    }
}
