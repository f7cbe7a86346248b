//! The configuration as meant: typed, complete, checked. PURE.
//!
//! `interpret.rs` makes these values and is the place where every check is made; whoever holds a [`Settings`] may rely
//! on them: every route's provider exists, every number is in its range, no key stands in clear.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use http::HeaderName;
use url::Url;

use super::{
    base_url,
    credentials::{KeySource, Secret},
    defaults, endpoint,
};
pub use crate::codec::Protocol;
pub use crate::model::price::{Price, Prices};
use crate::{
    codec::{NativeTools, chat::dialect::Dialect, listing::Listing},
    model::listed::Known,
};

/// The model that is built in: scripted, without a network. No configured name may be this.
pub use crate::model::demo::MODEL as DEMO;

/// Everything that can be configured. [`Settings::default`] is what holds without any file: only [`DEMO`] is offered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The files that were read, lowest layer first.
    pub files: Vec<PathBuf>,
    /// The HTTP service.
    pub proxy: Proxy,
    /// By name.
    pub providers: BTreeMap<String, Provider>,
    /// By the name the client asks for.
    pub models: BTreeMap<String, Model>,
    /// What is kept of finished requests.
    pub usage: Ledger,
    /// What tokens cost.
    pub prices: Prices,
    /// The healer.
    pub watchdog: Watchdog,
    /// What providers said of their models; not configured, see `proxy/known.rs`.
    pub known: Known,
}

/// Limits and times of the HTTP service; see `defaults.rs` for the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// One request body after decompression, in bytes; at most `bodies_in_flight_bytes_max`.
    pub body_bytes_max: usize,
    /// All request bodies held at once, in bytes.
    pub bodies_in_flight_bytes_max: usize,
    /// Retries and fail-over end so long after the request came.
    pub retry_deadline: Duration,
    /// The answer's head is held back so long; less than `upstream_idle`, also of every provider and model.
    pub head_hold: Duration,
    /// Between keep-alives.
    pub keepalive: Duration,
    /// Silence after which an upstream counts as dead; providers and models may set their own.
    pub upstream_idle: Duration,
    /// How long a provider may take to begin its answer; `None`: grows with the conversation.
    pub upstream_head: Option<Duration>,
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Silence after which a request body is given up.
    pub body_stall: Duration,
    /// How long running answers may go on at shutdown.
    pub drain: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        let bytes = |range: defaults::Range| usize::try_from(range.default).unwrap_or(usize::MAX);
        let seconds = |range: defaults::Range| Duration::from_secs(range.default);
        Self {
            body_bytes_max: bytes(defaults::BODY_BYTES_MAX),
            bodies_in_flight_bytes_max: bytes(defaults::BODIES_IN_FLIGHT_BYTES_MAX),
            retry_deadline: seconds(defaults::RETRY_DEADLINE_S),
            head_hold: seconds(defaults::HEAD_HOLD_S),
            keepalive: seconds(defaults::KEEPALIVE_S),
            upstream_idle: seconds(defaults::UPSTREAM_IDLE_S),
            upstream_head: Some(seconds(defaults::UPSTREAM_HEAD_S)).filter(|head| !head.is_zero()),
            connect_timeout: seconds(defaults::CONNECT_TIMEOUT_S),
            body_stall: seconds(defaults::BODY_STALL_S),
            drain: seconds(defaults::DRAIN_S),
        }
    }
}

/// What is kept of finished requests, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Whether anything is.
    pub enabled: bool,
    /// Rows older than this are deleted.
    pub keep: Duration,
    /// Of more rows the oldest are deleted.
    pub rows_max: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            enabled: true,
            keep: Duration::from_secs(defaults::KEEP_DAYS.default * 86_400),
            rows_max: defaults::ROWS_MAX.default,
        }
    }
}

/// A place that serves models.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Its key in the configuration; holds no `/`.
    pub name: String,
    /// Normalised: no trailing slash, no endpoint.
    pub base_url: Url,
    /// What it is spoken to in.
    pub protocol: Protocol,
    /// Its peculiarities in Chat Completions; the neutral row for other protocols.
    pub dialect: &'static Dialect,
    /// In the order of the file, names unique. Empty: requests carry no key.
    pub accounts: Vec<Account>,
    /// Further request headers. Never one that the proxy sets itself.
    pub headers: Vec<(HeaderName, HeaderSource)>,
    /// Silence after which its streams count as dead, if it has a limit of its own.
    pub upstream_idle: Option<Duration>,
    /// Whether its models take pictures, unless a model says otherwise.
    pub images: bool,
    /// How it says which models it has.
    pub listing: Listing,
    /// An answer that met a limit of tokens is gone on with at most this often; 0: never. For `gemini` only.
    pub continue_max: u32,
    /// Which of the client's tools it knows. For `responses` only; all, elsewhere.
    pub native_tools: NativeTools,
}

impl Provider {
    /// Where requests for `model` go.
    pub fn request_url(&self, model: &str) -> Url {
        endpoint::url(&self.base_url, self.protocol, model)
    }

    /// Where it lists its models.
    pub fn models_url(&self) -> Url {
        base_url::under(&self.base_url, "/models")
    }

    /// Whether it runs on this machine, so that requests to it pass no HTTP proxy.
    pub fn is_loopback(&self) -> bool {
        base_url::is_loopback(&self.base_url)
    }
}

/// A key to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Unique within the provider.
    pub name: String,
    /// Where the key is found.
    pub key: KeySource,
    /// Whether the user wants it used; its health is another matter and kept elsewhere.
    pub enabled: bool,
}

/// Where the value of a request header comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// It stands in the configuration; a lawful header value.
    Literal(Secret),
    /// It is found there when needed.
    Key(KeySource),
}

/// How much a model is to think. The order is that of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all: thinking is switched off.
    Off,
    /// Hardly.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
    /// As much as it can.
    Max,
}

impl Effort {
    /// The ladder, lowest first.
    pub const ALL: [Self; 7] = [Self::Off, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.name() == name)
    }
}

/// A model as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What the client asks for.
    pub name: String,
    /// Where it is served, most wanted first; at least one, none twice.
    pub routes: Vec<Route>,
    /// Tokens the model can hold; unknown if `None`.
    pub context_window: Option<u64>,
    /// Tokens from which on the client compacts; below `context_window`.
    pub compact_limit: Option<u64>,
    /// Tokens it can generate at most; at most `context_window`.
    pub max_output_tokens: Option<u64>,
    /// Overrides what the client asks for; a route's own goes before it.
    pub effort: Option<Effort>,
    /// What the catalogue offers, lowest first, each once; empty: what is usual.
    pub efforts: Vec<Effort>,
    /// Whether it takes pictures; `None`: as its provider says.
    pub images: Option<bool>,
    /// Name for people.
    pub display_name: Option<String>,
    /// A line for people.
    pub description: Option<String>,
    /// Silence after which its streams count as dead, if it has a limit of its own.
    pub upstream_idle: Option<Duration>,
}

/// One place where a model is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name of a provider that exists.
    pub provider: String,
    /// The model's id there; may hold `/`.
    pub model: String,
    /// Its share beside the other routes, 1 to 1000.
    pub weight: u32,
    /// Overrides the model's.
    pub effort: Option<Effort>,
}

/// What is meant by a model's name.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// The built-in model.
    Demo,
    /// A configured one.
    Model(&'a Model),
    /// `provider/model`, straight to a configured provider.
    Direct {
        /// The provider.
        provider: &'a Provider,
        /// The model's id there; not empty, may hold `/`.
        model: &'a str,
    },
    /// Nothing.
    Unknown {
        /// What could have been asked for, sorted; `NAME/…` stands for any model of a provider.
        offered: Vec<String>,
    },
}

impl Settings {
    /// What is meant by `name`: the built-in model, else a configured one, else `provider/model`.
    pub fn find<'a>(&'a self, name: &'a str) -> Found<'a> {
        if name == DEMO {
            return Found::Demo;
        }
        if let Some(model) = self.models.get(name) {
            return Found::Model(model);
        }
        let direct = name.split_once('/').filter(|(_, model)| !model.is_empty());
        if let Some((provider, model)) = direct
            && let Some(provider) = self.providers.get(provider)
        {
            return Found::Direct { provider, model };
        }
        Found::Unknown { offered: self.offered() }
    }

    /// What can be asked for, sorted; `NAME/…` stands for any model of a provider.
    pub fn offered(&self) -> Vec<String> {
        let models = self.models.keys().cloned();
        let providers = self.providers.keys().map(|name| format!("{name}/…"));
        let mut offered: Vec<String> = models.chain(providers).chain([DEMO.to_owned()]).collect();
        offered.sort();
        offered
    }

    /// Whether that model takes pictures: as configured for it, else as its provider said, else as configured there.
    pub fn accepts_images(&self, provider: &Provider, model_id: &str, model: Option<&Model>) -> bool {
        let configured = model.and_then(|model| model.images);
        configured.or(self.known.facts(&provider.name, model_id).images).unwrap_or(provider.images)
    }

    /// Tokens the model can hold: as configured, else the least of what is known of its routes. Nothing if nothing is
    /// known of the first, which is the one that is used as a rule.
    pub fn context_window(&self, model: &Model) -> Option<u64> {
        let known = |route: &Route| self.known.facts(&route.provider, &route.model).window();
        model.context_window.or_else(|| {
            model.routes.first().and_then(known)?;
            model.routes.iter().filter_map(known).min()
        })
    }

    /// Prices by the names they are for that fit no configured provider and model: mistyped, as a rule.
    pub fn prices_of_nothing(&self) -> Vec<&str> {
        let routes = || self.models.values().flat_map(|model| &model.routes);
        let is_of_nothing = |name: &&str| {
            let fits = |other: &str| match name.strip_suffix('*') {
                Some(stem) => other.starts_with(stem),
                None => other == *name,
            };
            // One without a slash may be of any model that is asked for at a provider directly.
            name.split_once('/').is_some_and(|(provider, _)| !self.providers.contains_key(provider))
                && !self.models.keys().any(|name| fits(name))
                && !routes().any(|route| fits(&route.model))
        };
        self.prices.by_name.keys().map(String::as_str).filter(is_of_nothing).collect()
    }

    /// Silence after which a stream of `model` at `provider` counts as dead: the model's limit, else the provider's,
    /// else the service's.
    pub fn upstream_idle(&self, provider: &Provider, model: Option<&Model>) -> Duration {
        model.and_then(|model| model.upstream_idle).or(provider.upstream_idle).unwrap_or(self.proxy.upstream_idle)
    }
}

/// The healer.
#[derive(Debug, Clone, PartialEq)]
pub struct Watchdog {
    /// Whether it acts at all.
    pub enabled: bool,
    /// Memory of the proxy at which it acts, in bytes; `None`: 80 % of the unit's `MemoryHigh=`.
    pub memory_bytes_max: Option<u64>,
    /// What it tells the desktop.
    pub notification_level: NotificationLevel,
    /// Whether it may switch routes, within a model's own list.
    pub auto_switch: bool,
    /// The third tier; `None`: off.
    pub ai: Option<WatchdogAi>,
    /// Other numbers for rows of the fault table, by fault id.
    pub faults: BTreeMap<String, FaultNumbers>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_bytes_max: None,
            notification_level: NotificationLevel::Important,
            auto_switch: true,
            ai: None,
            faults: BTreeMap::new(),
        }
    }
}

/// What the watchdog tells the desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationLevel {
    /// Nothing.
    None,
    /// What a person must see to.
    Important,
    /// Also what was healed.
    All,
}

impl NotificationLevel {
    /// All of them, least first.
    pub const ALL: [Self; 3] = [Self::None, Self::Important, Self::All];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Important => "important",
            Self::All => "all",
        }
    }
}

/// The model that the watchdog may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchdogAi {
    /// Normalised.
    pub base_url: Url,
    /// Its id there.
    pub model: String,
    /// Where the key is found; `None` for servers without one.
    pub key: Option<KeySource>,
    /// US dollars per million tokens read.
    pub price_in: f64,
    /// US dollars per million tokens written.
    pub price_out: f64,
    /// US dollars it may spend in a calendar month.
    pub budget_usd_month: f64,
}

/// Numbers of one row of the fault table; `None` leaves the row's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultNumbers {
    /// Occurrences from which on it counts.
    pub threshold: Option<u32>,
    /// Within this time.
    pub window: Option<Duration>,
    /// Rest after an action.
    pub cooldown: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn settings(text: &str) -> Settings {
        parse(&[(Path::new("config.toml"), text)]).unwrap()
    }

    #[test]
    fn without_configuration_there_is_the_demo() {
        let settings = Settings::default();
        assert_eq!(settings, self::settings("").without_files());
        assert_eq!(settings.find("demo"), Found::Demo);
        assert_eq!(settings.find("gpt-5"), Found::Unknown { offered: vec!["demo".to_owned()] });
    }

    impl Settings {
        fn without_files(mut self) -> Self {
            self.files.clear();
            self
        }
    }

    #[test]
    fn names_are_found_in_order() {
        let settings = settings(
            "[providers.deepseek]\npreset = 'deepseek'\nkey = { env = 'K' }\n\
             [models.work]\nroutes = ['deepseek/a']\n[models.'deepseek/b']\nroutes = ['deepseek/c']\n",
        );
        assert!(matches!(settings.find("work"), Found::Model(model) if model.name == "work"));
        assert!(matches!(settings.find("deepseek/b"), Found::Model(model) if model.routes[0].model == "c"));
        assert!(
            matches!(settings.find("deepseek/x/y"), Found::Direct { model: "x/y", provider } if provider.name == "deepseek")
        );
        for unknown in ["", "deepseek", "deepseek/", "other/x", "Work"] {
            let Found::Unknown { offered } = settings.find(unknown) else { panic!("{unknown}") };
            assert_eq!(offered, ["deepseek/b", "deepseek/…", "demo", "work"]);
        }
    }

    #[test]
    fn the_nearest_idle_limit_holds() {
        let settings = settings(
            "[proxy]\nupstream_idle_s = 100\n[providers.a]\nbase_url = 'http://localhost:1/v1'\nupstream_idle_s = 90\n\
             [providers.b]\nbase_url = 'http://localhost:2/v1'\n\
             [models.m]\nroutes = ['a/x']\nupstream_idle_s = 80\n",
        );
        let (a, b, m) = (&settings.providers["a"], &settings.providers["b"], &settings.models["m"]);
        assert_eq!(settings.upstream_idle(a, Some(m)).as_secs(), 80);
        assert_eq!(settings.upstream_idle(a, None).as_secs(), 90);
        assert_eq!(settings.upstream_idle(b, None).as_secs(), 100);
    }
}
