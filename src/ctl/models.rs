//! `codex-proxyctl models`: asks providers which models they have, keeps what they say, and shows it.
//!
//! What is kept (`catalogue.json`) tells the proxy how much a model holds and whether it takes pictures, wherever the
//! configuration does not. A provider that does not answer keeps its old list.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::task::JoinSet;

use super::providers::{named, settings};
use super::{CtlError, Outcome, json_line, lines, proxy_bus, table, times};
use crate::config::base_url;
use crate::config::settings::{Provider, Settings};
use crate::host::paths::Paths;
use crate::host::{capsfile, cataloguefile};
use crate::model::listed::{Known, List, Listed};
use crate::proxy::upstream::Upstreams;
use crate::proxy::{known, listing};

/// Asks one provider, or all, and keeps what they say. The exit code is 1 if one did not answer.
pub async fn refresh(only: Option<&str>, paths: &Paths, json: bool) -> Result<Outcome, CtlError> {
    let settings = settings(paths)?;
    let chosen: Vec<&Provider> = match only {
        Some(name) => vec![named(&settings, name)?],
        None => settings.providers.values().collect(),
    };
    if chosen.is_empty() && !json {
        let text = "no provider is configured; codex-proxyctl providers add NAME --preset …\n";
        return Ok(Outcome { text: text.to_owned(), code: 1 });
    }
    let mut asking = JoinSet::new();
    for provider in chosen {
        let (provider, connect) = (provider.clone(), settings.proxy.connect_timeout);
        asking.spawn(async move {
            let asked = listing::ask_with_first_key(&Upstreams::new(connect), &provider).await;
            (provider, asked)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let now_s = now_s();
    let fresh: Vec<(&Provider, List)> = answers
        .iter()
        .filter_map(|(provider, asked)| Some((provider, asked.as_ref().ok()?)))
        .map(|(provider, models)| {
            (provider, List { address: provider.base_url.to_string(), asked_s: now_s, models: models.clone() })
        })
        .collect();
    let kept = cataloguefile::load(&paths.state)
        .map_err(|error| CtlError::io("read the catalogue in", &paths.state, &error))?;
    let kept = kept.unwrap_or_default().providers;
    let mut notes = Vec::new();
    if !fresh.is_empty() {
        cataloguefile::update(&paths.state, |stored| {
            // What is not configured any more goes.
            stored.providers.retain(|name, _| settings.providers.contains_key(name));
            stored
                .providers
                .extend(fresh.iter().map(|(provider, list)| (provider.name.clone(), known::value_of(list))));
        })
        .map_err(|error| CtlError::io("write the catalogue in", &paths.state, &error))?;
    }
    let local: Vec<&(&Provider, List)> =
        fresh.iter().filter(|(provider, _)| base_url::is_local(&provider.base_url)).collect();
    if !local.is_empty() {
        let update = capsfile::update(&paths.cache, |caps| {
            caps.providers.retain(|name, _| settings.providers.contains_key(name));
            caps.providers.extend(local.iter().map(|(provider, list)| (provider.name.clone(), known::value_of(list))));
        });
        if let Err(error) = update {
            // It may vanish at any time, so it may be missing, too.
            notes.push(format!("note: {}: {error}", paths.cache.join(capsfile::NAME).display()));
        }
    }
    let code = u8::from(fresh.len() < answers.len() || answers.is_empty());
    notes.extend(remarks(&settings, &fresh));
    if !fresh.is_empty() {
        notes.push(proxy_bus::reload().await.sentence());
    }
    if json {
        let entries = answers.iter().map(|(provider, asked)| RefreshEntry {
            name: &provider.name,
            models: asked.as_ref().ok().map(Vec::len),
            error: asked.as_ref().err().map(String::as_str),
        });
        let text = json_line(&RefreshReport { ok: code == 0, providers: entries.collect(), notes: &notes })?;
        return Ok(Outcome { text, code });
    }
    let mut report = Vec::new();
    for (provider, asked) in &answers {
        report.push(match asked {
            Ok(models) => format!("{}: {} models", provider.name, models.len()),
            Err(why) => {
                let old = known::list_of(&kept, provider);
                let stays = old.map_or("nothing is known of its models".to_owned(), |old| {
                    format!("what it said {} stays: {} models", age(old.asked_s, now_s), old.models.len())
                });
                format!("{}: failed: {why}; {stays}", provider.name)
            }
        });
    }
    report.extend(notes);
    Ok(Outcome { text: lines(&report), code })
}

#[derive(Serialize)]
struct RefreshReport<'a> {
    ok: bool,
    providers: Vec<RefreshEntry<'a>>,
    /// Sentences for people.
    notes: &'a [String],
}

#[derive(Serialize)]
struct RefreshEntry<'a> {
    name: &'a str,
    /// How many it lists; `null` if it did not answer, which `error` then explains.
    models: Option<usize>,
    error: Option<&'a str>,
}

/// What a person should know of the models that the configuration uses.
fn remarks(settings: &Settings, fresh: &[(&Provider, List)]) -> Vec<String> {
    let mut remarks = Vec::new();
    for model in settings.models.values() {
        for route in &model.routes {
            let Some((provider, list)) = fresh.iter().find(|(provider, _)| provider.name == route.provider) else {
                continue;
            };
            let is_same = |listed: &str| provider.listing.is_same(listed, &route.model);
            let place = format!("{}/{}", route.provider, route.model);
            let Some(listed) = list.models.iter().find(|listed| is_same(&listed.id)) else {
                remarks.push(format!("note: {}: {place} is not on the list of {}", model.name, route.provider));
                continue;
            };
            if listed.facts.tools == Some(false) {
                remarks.push(format!("note: {}: {place} does not call tools, and Codex works by tools", model.name));
            }
            if let (Some(configured), Some(served)) = (model.context_window, listed.facts.context_window)
                && configured > served
            {
                remarks.push(format!(
                    "note: {}: context_window = {configured} is configured, and {place} holds {served}",
                    model.name
                ));
            }
        }
    }
    remarks
}

#[derive(Serialize)]
struct Report<'a> {
    providers: Vec<ListReport<'a>>,
}

#[derive(Serialize)]
struct ListReport<'a> {
    name: &'a str,
    /// Seconds since 1970; missing: it never answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_s: Option<u64>,
    models: Vec<Listed>,
}

/// Shows what is kept.
pub fn list(only: Option<&str>, paths: &Paths, json: bool) -> Result<Outcome, CtlError> {
    let settings = settings(paths)?;
    let chosen: Vec<&Provider> = match only {
        Some(name) => vec![named(&settings, name)?],
        None => settings.providers.values().collect(),
    };
    let kept = cataloguefile::load(&paths.state)
        .map_err(|error| CtlError::io("read the catalogue in", &paths.state, &error))?;
    let kept = kept.unwrap_or_default().providers;
    let known: Known = known::load(&settings, &paths.state, &paths.cache);
    let lists: Vec<ListReport<'_>> = chosen
        .iter()
        .map(|provider| {
            let list = known::list_of(&kept, provider);
            let asked_s = list.as_ref().map(|list| list.asked_s);
            let mut models = list.map(|list| list.models).unwrap_or_default();
            // What a local server said later goes first, as it does in the proxy.
            for model in &mut models {
                model.facts = known.facts(&provider.name, &model.id);
            }
            ListReport { name: &provider.name, asked_s, models }
        })
        .collect();
    if json {
        return json_line(&Report { providers: lists }).map(Outcome::of);
    }
    let now_s = now_s();
    let mut text = String::new();
    for list in &lists {
        let Some(asked_s) = list.asked_s else {
            text.push_str(&format!("{}: no list yet; codex-proxyctl models refresh {}\n", list.name, list.name));
            continue;
        };
        text.push_str(&format!("{}, asked {}:\n", list.name, age(asked_s, now_s)));
        text.push_str(&table(&["MODEL", "WINDOW", "OUTPUT", "TOOLS", "PICTURES"], list.models.iter().map(row)));
    }
    if lists.is_empty() {
        text.push_str("no provider is configured; codex-proxyctl providers add NAME --preset …\n");
    }
    Ok(Outcome::of(text))
}

fn row(model: &Listed) -> Vec<String> {
    let facts = &model.facts;
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let flag = |flag| match flag {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "-".to_owned(),
    };
    let window = match (facts.context_window, facts.context_window_max) {
        (None, Some(max)) => format!("at most {max}"),
        (window, _) => number(window),
    };
    vec![model.id.clone(), window, number(facts.output_tokens_max), flag(facts.tools), flag(facts.images)]
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn age(then_s: u64, now_s: u64) -> String {
    match now_s.saturating_sub(then_s) {
        0..60 => "just now".to_owned(),
        seconds => format!("{} ago", times::words(std::time::Duration::from_secs(coarse(seconds)))),
    }
}

/// Whole minutes, hours or days.
fn coarse(seconds: u64) -> u64 {
    match seconds {
        0..3600 => seconds / 60 * 60,
        3600..86_400 => seconds / 3600 * 3600,
        _ => seconds / 86_400 * 86_400,
    }
}
