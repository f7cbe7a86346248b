//! Which places can answer for a model, in order. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use url::Url;

use super::{catalogue::Entry, overrides::Overrides};
use crate::{
    codec::Target,
    config::settings::{Found, Model, Provider, Route, Settings},
    model::{demo, request::Origin},
};

/// Where a request can go.
#[derive(Debug)]
pub enum Choice {
    /// To the built-in model.
    Demo,
    /// To these, first to last. Never empty.
    Routes(Vec<Hop>),
}

/// One place: a provider, a model there, an account.
#[derive(Debug)]
pub struct Hop {
    /// The provider's name in the configuration.
    pub provider: String,
    /// Index of the account to use; `None` for providers that want no key.
    pub account: Option<usize>,
    /// That account's name.
    pub account_name: Option<String>,
    /// Where to send.
    pub url: Url,
    /// How to say it.
    pub target: Target,
    /// Longest silence within the answer.
    pub idle: Duration,
    /// What limits of time are to be multiplied with; `idle` already is.
    pub patience: f64,
    label: String,
}

impl Hop {
    /// `provider/model`, for people.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// No place for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nobody configured it.
    #[error("There is no model {model:?} here. There are: {}.", offered.join(", "))]
    Unknown {
        /// As the client named it, shortened.
        model: String,
        /// What there is, sorted; `NAME/…` stands for any model of a provider.
        offered: Vec<String>,
    },
    /// Every route or account is switched off.
    #[error(
        "Every route or account that could serve the model {model:?} is switched off (`enabled` in the configuration, or by codex-proxyctl or the watchdog)."
    )]
    Disabled {
        /// As the client named it.
        model: String,
    },
}

/// Chooses places for a model: a configured name, or `provider/model`.
pub fn choose(settings: &Settings, overrides: &Overrides, name: &str) -> Result<Choice, RouteError> {
    let hops: Vec<Hop> = match settings.find(name) {
        Found::Demo => return Ok(Choice::Demo),
        Found::Model(model) => overrides
            .ordered(model)
            .into_iter()
            .filter_map(|route| Some((settings.providers.get(&route.provider)?, route)))
            .flat_map(|(provider, route)| hops(settings, overrides, provider, &route.model, Some((model, route))))
            .collect(),
        Found::Direct { provider, model } => hops(settings, overrides, provider, model, None),
        Found::Unknown { offered } => {
            return Err(RouteError::Unknown { model: name.chars().take(100).collect(), offered });
        }
    };
    if hops.is_empty() { Err(RouteError::Disabled { model: name.to_owned() }) } else { Ok(Choice::Routes(hops)) }
}

/// One hop for each account that may be used.
fn hops(
    settings: &Settings,
    overrides: &Overrides,
    provider: &Provider,
    model_id: &str,
    configured: Option<(&Model, &Route)>,
) -> Vec<Hop> {
    let label = format!("{}/{model_id}", provider.name);
    if !overrides.route_enabled(&label) {
        return Vec::new();
    }
    let patience = overrides.timeout_factor(&label);
    let hop = |account: Option<usize>| Hop {
        provider: provider.name.clone(),
        account,
        account_name: account.and_then(|at| provider.accounts.get(at)).map(|account| account.name.clone()),
        url: provider.request_url(model_id),
        target: Target {
            origin: Origin::new(&provider.name, model_id),
            model: model_id.to_owned(),
            protocol: provider.protocol,
            dialect: provider.dialect,
            effort: configured.and_then(|(model, route)| route.effort.or(model.effort)).map(|e| e.name().to_owned()),
            accepts_images: settings.accepts_images(provider, model_id, configured.map(|(model, _)| model)),
            max_output_tokens: configured.and_then(|(model, _)| model.max_output_tokens),
            native_tools: provider.native_tools,
        },
        idle: settings.upstream_idle(provider, configured.map(|(model, _)| model)).mul_f64(patience),
        patience,
        label: label.clone(),
    };
    if provider.accounts.is_empty() {
        return vec![hop(None)];
    }
    let enabled =
        provider.accounts.iter().enumerate().filter(|(_, account)| overrides.account_enabled(provider, account));
    enabled.map(|(at, _)| hop(Some(at))).collect()
}

/// What the catalogue says of every model, configured ones first, the built-in one last.
pub fn catalogue_entries(settings: &Settings) -> Vec<Entry> {
    let configured = settings.models.values().map(|model| {
        let first = model.routes.first().and_then(|route| Some((settings.providers.get(&route.provider)?, route)));
        let context_window = settings.context_window(model);
        Entry {
            slug: model.name.clone(),
            display_name: model.display_name.clone().unwrap_or_else(|| model.name.clone()),
            description: model.description.clone().unwrap_or_else(|| {
                let routes: Vec<String> = model.routes.iter().map(|r| format!("{}/{}", r.provider, r.model)).collect();
                format!("Served by {}.", routes.join(", then "))
            }),
            context_window,
            efforts: model.efforts.iter().map(|e| e.name().to_owned()).collect(),
            default_effort: model.effort.map(|e| e.name().to_owned()),
            images: first.is_some_and(|(provider, route)| settings.accepts_images(provider, &route.model, Some(model))),
            // A window that was learnt can be smaller than what the configuration had in mind.
            auto_compact_token_limit: model
                .compact_limit
                .filter(|limit| context_window.is_none_or(|window| *limit < window)),
        }
    });
    let demo = Entry {
        slug: demo::MODEL.to_owned(),
        display_name: "codex-proxy demo".to_owned(),
        description: "A built-in script that shows an editing session. No network, no account.".to_owned(),
        context_window: None,
        efforts: Vec::new(),
        default_effort: None,
        images: false,
        auto_compact_token_limit: None,
    };
    configured.chain([demo]).collect()
}
