//! What providers said of their models, kept in two files: `catalogue.json` (whenever the user asks for it) and
//! `provider-caps.json` (local servers, which change with what their user loads). The latter goes first.

use std::{collections::BTreeMap, io, path::Path};

use serde_json::Value;
use tracing::warn;

use crate::{
    config::{
        base_url,
        settings::{Provider, Settings},
    },
    host::{capsfile, cataloguefile},
    model::listed::{Known, List},
};

/// What is kept of the providers of these settings. What cannot be read is logged, and not known.
pub fn load(settings: &Settings, state: &Path, cache: &Path) -> Known {
    let mut known = Known::default();
    let caps = read("provider-caps.json", capsfile::load(cache)).map(|caps| caps.providers);
    let lists = read("catalogue.json", cataloguefile::load(state)).map(|stored| stored.providers);
    for kept in [caps, lists].into_iter().flatten() {
        for provider in settings.providers.values() {
            if let Some(list) = list_of(&kept, provider) {
                known.add(&provider.name, &provider.listing.with_second_names(list.models));
            }
        }
    }
    known
}

/// The servers of the user's own whose word would be used: a model without a configured window is routed to them.
pub fn to_be_asked(settings: &Settings) -> Vec<&Provider> {
    let is_wanted = |provider: &&Provider| {
        let silent = settings.models.values().filter(|model| model.context_window.is_none() || model.images.is_none());
        provider.listing.is_of_the_moment()
            && base_url::is_local(&provider.base_url)
            && silent.flat_map(|model| &model.routes).any(|route| route.provider == provider.name)
    };
    settings.providers.values().filter(is_wanted).collect()
}

/// The list that is kept of a provider, if it is from the address that it has now.
pub fn list_of(kept: &BTreeMap<String, Value>, provider: &Provider) -> Option<List> {
    let list: List = serde_json::from_value(kept.get(&provider.name)?.clone()).ok()?;
    (list.address == provider.base_url.as_str()).then_some(list)
}

/// The same as it is kept.
pub fn value_of(list: &List) -> Value {
    // Texts and numbers have no way to fail.
    serde_json::to_value(list).unwrap_or_default()
}

fn read<T>(name: &str, file: io::Result<Option<T>>) -> Option<T> {
    file.unwrap_or_else(|error| {
        warn!(codex_name = name, codex_error = %error, "cannot read what is known of providers' models");
        None
    })
}
