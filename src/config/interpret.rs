//! Turns merged files into [`Settings`]: the schema, every range and every check. PURE.
//!
//! Reading goes on after an error, with the default in the place of what was wrong, so that one load finds them all.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::{
    base_url, defaults,
    error::{ConfigErrors, Report},
    fragment::Table,
    nearest::{hint, nearest},
    prices, provider,
    section::{Entry, Section},
    settings::{
        DEMO, Effort, FaultNumbers, Ledger, Model, NotificationLevel, Proxy, Route, Settings, Watchdog, WatchdogAi,
    },
};

/// A name in the catalogue and on the client's command line.
const MODEL_NAME_BYTES_MAX: usize = 200;

/// Rows of the watchdog's fault table: how many there are of each letter.
/// The table itself is `watchdog/catalog.rs`, which is not imported here; a test compares the two.
const FAULTS: &[(char, u32)] = &[('A', 7), ('B', 10), ('C', 10), ('D', 6), ('E', 5)];

/// What the files mean.
///
/// # Errors
/// All that is wrong with them, ordered by file and line.
pub fn interpret(merged: &Table) -> Result<Settings, ConfigErrors> {
    let mut report = Report::default();
    let mut document = Section::document(merged);
    let proxy = proxy(document.section("proxy", &mut report), &mut report);
    let mut providers = BTreeMap::new();
    // Names count as known even where the rest is wrong, lest a route be blamed for its provider's error.
    let mut provider_names = Vec::new();
    for (name, entry) in document.section("providers", &mut report).all() {
        provider_names.push(name);
        if let Some(provider) = provider::read(name, &entry, &proxy, &mut report) {
            providers.insert(name.to_owned(), provider);
        }
    }
    let mut models = BTreeMap::new();
    for (name, entry) in document.section("models", &mut report).all() {
        if let Some(model) = model(name, &entry, &proxy, &provider_names, &mut report) {
            models.insert(name.to_owned(), model);
        }
    }
    let usage = usage(document.section("usage", &mut report), &mut report);
    let prices = prices::read(document.section("prices", &mut report), &mut report);
    let watchdog = watchdog(document.section("watchdog", &mut report), &mut report);
    document.finish(&mut report);
    report.finish(Settings { proxy, providers, models, usage, prices, watchdog, ..Settings::default() })
}

fn proxy(mut section: Section<'_>, report: &mut Report) -> Proxy {
    let bytes = |value| usize::try_from(value).unwrap_or(usize::MAX);
    let body = section.number_or_default("body_bytes_max", &defaults::BODY_BYTES_MAX, report);
    let bodies = section.number_or_default("bodies_in_flight_bytes_max", &defaults::BODIES_IN_FLIGHT_BYTES_MAX, report);
    let retry_deadline = section.number_or_default("retry_deadline_s", &defaults::RETRY_DEADLINE_S, report);
    let head_hold = section.number_or_default("head_hold_s", &defaults::HEAD_HOLD_S, report);
    let keepalive = section.number_or_default("keepalive_s", &defaults::KEEPALIVE_S, report);
    let idle = section.number_or_default("upstream_idle_s", &defaults::UPSTREAM_IDLE_S, report);
    let head = section.number_or_default("upstream_head_s", &defaults::UPSTREAM_HEAD_S, report);
    let connect_timeout = section.number_or_default("connect_timeout_s", &defaults::CONNECT_TIMEOUT_S, report);
    let body_stall = section.number_or_default("body_stall_s", &defaults::BODY_STALL_S, report);
    let drain = section.number_or_default("drain_s", &defaults::DRAIN_S, report);

    // Whoever was written is blamed; of two, the one that is usually meant to be the smaller.
    if body.value > bodies.value {
        let (larger, smaller) = ("bodies_in_flight_bytes_max", "body_bytes_max");
        if let Some(place) = body.written {
            let why = format!("must be at most {larger}, which is {}", bodies.value);
            report.refuse_value(place, &section.path_of(smaller), body.value, why);
        } else if let Some(place) = bodies.written {
            let why = format!("must be at least {smaller}, which is {}", body.value);
            report.refuse_value(place, &section.path_of(larger), bodies.value, why);
        }
    }
    if head_hold.value >= idle.value {
        if let Some(place) = head_hold.written {
            let why = format!("must be less than upstream_idle_s, which is {}", idle.value);
            report.refuse_value(place, &section.path_of("head_hold_s"), head_hold.value, why);
        } else if let Some(place) = idle.written {
            let why = format!("must be more than head_hold_s, which is {}", head_hold.value);
            report.refuse_value(place, &section.path_of("upstream_idle_s"), idle.value, why);
        }
    }
    for key in ["listen", "host", "port", "address"] {
        let why = "not set here: systemd's codex-proxy.socket holds the address; by hand it is codex-proxy --listen";
        section.elsewhere(key, why, report);
    }
    section.finish(report);
    Proxy {
        body_bytes_max: bytes(body.value),
        bodies_in_flight_bytes_max: bytes(bodies.value),
        retry_deadline: retry_deadline.seconds(),
        head_hold: head_hold.seconds(),
        keepalive: keepalive.seconds(),
        upstream_idle: idle.seconds(),
        upstream_head: Some(head.seconds()).filter(|head| !head.is_zero()),
        connect_timeout: connect_timeout.seconds(),
        body_stall: body_stall.seconds(),
        drain: drain.seconds(),
    }
}

fn model(name: &str, entry: &Entry<'_>, proxy: &Proxy, providers: &[&str], report: &mut Report) -> Option<Model> {
    let mut section = entry.section(report)?;
    if name == DEMO {
        entry.refuse("\"demo\" is the built-in model and cannot be configured; take another name", report);
        return None;
    }
    let unspeakable = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MODEL_NAME_BYTES_MAX || name.contains(unspeakable) {
        let why = format!("a model's name must have 1 to {MODEL_NAME_BYTES_MAX} bytes without white space");
        entry.refuse(why, report);
    }
    let routes = routes(&mut section, providers, report);
    let context_window = section.number("context_window", &defaults::CONTEXT_WINDOW, report);
    let compact_limit = section.number("compact_limit", &defaults::COMPACT_LIMIT, report);
    let max_output_tokens = section.number("max_output_tokens", &defaults::MAX_OUTPUT_TOKENS, report);
    if let (Some(window), Some(limit)) = (context_window, compact_limit)
        && limit.value >= window.value
        && let Some(place) = limit.written
    {
        let why = format!("must be less than context_window, which is {}", window.value);
        report.refuse_value(place, &section.path_of("compact_limit"), limit.value, why);
    }
    if let (Some(window), Some(output)) = (context_window, max_output_tokens)
        && output.value > window.value
        && let Some(place) = output.written
    {
        let why = format!("must be at most context_window, which is {}", window.value);
        report.refuse_value(place, &section.path_of("max_output_tokens"), output.value, why);
    }
    let efforts = efforts(&mut section, report);
    let effort = effort(&mut section, report);
    let model = Model {
        name: name.to_owned(),
        routes,
        context_window: context_window.map(|number| number.value),
        compact_limit: compact_limit.map(|number| number.value),
        max_output_tokens: max_output_tokens.map(|number| number.value),
        effort,
        efforts,
        images: section.flag("images", report),
        display_name: section.line("display_name", 200, report),
        description: section.line("description", 2000, report),
        upstream_idle: provider::idle(&mut section, proxy, report),
    };
    section.finish(report);
    Some(model)
}

fn routes(section: &mut Section<'_>, providers: &[&str], report: &mut Report) -> Vec<Route> {
    let expected = "an array of routes: \"provider/model\", or { provider = …, model = … }";
    let Some(entry) = section.entry("routes") else {
        report.refuse(section.place, &section.path_of("routes"), format!("missing; must be {expected}"));
        return Vec::new();
    };
    let Some(items) = entry.items(expected, report) else { return Vec::new() };
    if items.is_empty() {
        entry.refuse("must name at least one route: \"provider/model\"", report);
    }
    let mut routes: Vec<Route> = Vec::new();
    for item in items {
        let Some(route) = route(&item, providers, report) else { continue };
        if routes.iter().any(|other| (&other.provider, &other.model) == (&route.provider, &route.model)) {
            let name = format!("{}/{}", route.provider, route.model);
            report.refuse_value(&item.node.place, &item.key, name, "stands in this list already");
        }
        routes.push(route);
    }
    routes
}

fn route(item: &Entry<'_>, providers: &[&str], report: &mut Report) -> Option<Route> {
    use super::fragment::Value;
    let route = match &item.node.value {
        Value::String(text) => {
            let Some((provider, model)) = text.split_once('/').filter(|(p, m)| !p.is_empty() && !m.is_empty()) else {
                let why = "must be \"provider/model\", the provider being one of [providers]";
                report.refuse_value(&item.node.place, &item.key, text, why);
                return None;
            };
            Route { provider: provider.to_owned(), model: model.to_owned(), weight: 1, effort: None }
        }
        Value::Table(_) => {
            let mut section = item.section(report)?;
            let mut required = |key: &'static str, report: &mut Report| {
                let text = section.text(key, report).map(|(_, text)| text.to_owned());
                if text.as_ref().is_none_or(String::is_empty) {
                    report.refuse(section.place, &section.path_of(key), "must be a string that is not empty");
                }
                text
            };
            let (provider, model) = (required("provider", report), required("model", report));
            let weight = section.number_or_default("weight", &defaults::WEIGHT, report);
            let effort = effort(&mut section, report);
            section.finish(report);
            Route {
                provider: provider?,
                model: model?,
                weight: u32::try_from(weight.value).unwrap_or(u32::MAX),
                effort,
            }
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime | Value::Array(_) => {
            item.refuse_type("\"provider/model\", or { provider = …, model = … }", report);
            return None;
        }
    };
    if !route.provider.is_empty() && !providers.contains(&route.provider.as_str()) {
        let why = format!("no such provider; {}", hint(&route.provider, providers.iter().copied()));
        report.refuse_value(&item.node.place, &item.key, format!("{}/{}", route.provider, route.model), why);
        return None;
    }
    Some(route)
}

fn effort(section: &mut Section<'_>, report: &mut Report) -> Option<Effort> {
    section.text("effort", report).and_then(|(entry, _)| effort_of(&entry, report))
}

fn efforts(section: &mut Section<'_>, report: &mut Report) -> Vec<Effort> {
    let Some(items) =
        section.entry("efforts").and_then(|entry| entry.items("an array such as [\"low\", \"high\"]", report))
    else {
        return Vec::new();
    };
    let mut efforts: Vec<Effort> = items.iter().filter_map(|item| effort_of(item, report)).collect();
    efforts.sort_unstable();
    efforts.dedup();
    efforts
}

fn effort_of(entry: &Entry<'_>, report: &mut Report) -> Option<Effort> {
    let text = entry.text(report)?;
    let effort = Effort::named(text);
    if effort.is_none() {
        let names: Vec<&str> = Effort::ALL.iter().map(|effort| effort.name()).collect();
        let meant =
            nearest(text, names.iter().copied()).map_or(String::new(), |name| format!("; did you mean {name:?}?"));
        let why = format!("must be one of {}{meant}", names.join(", "));
        report.refuse_value(&entry.node.place, &entry.key, text, why);
    }
    effort
}

fn usage(mut section: Section<'_>, report: &mut Report) -> Ledger {
    let days = section.number_or_default("keep_days", &defaults::KEEP_DAYS, report).value;
    let ledger = Ledger {
        enabled: section.flag("enabled", report).unwrap_or(Ledger::default().enabled),
        keep: std::time::Duration::from_secs(days * 86_400),
        rows_max: section.number_or_default("rows_max", &defaults::ROWS_MAX, report).value,
    };
    section.finish(report);
    ledger
}

fn watchdog(mut section: Section<'_>, report: &mut Report) -> Watchdog {
    let standard = Watchdog::default();
    let memory_mb = section.number_or_default("max_memory_mb", &defaults::MAX_MEMORY_MB, report).value;
    let level = section.text("notification_level", report).and_then(|(entry, text)| {
        let level = NotificationLevel::ALL.into_iter().find(|level| level.name() == text);
        if level.is_none() {
            report.refuse_value(&entry.node.place, &entry.key, text, "must be one of none, important, all");
        }
        level
    });
    let watchdog = Watchdog {
        enabled: section.flag("enabled", report).unwrap_or(standard.enabled),
        memory_bytes_max: (memory_mb > 0).then_some(memory_mb << 20),
        notification_level: level.unwrap_or(standard.notification_level),
        auto_switch: section.flag("auto_switch", report).unwrap_or(standard.auto_switch),
        ai: watchdog_ai(section.section("ai", report), report),
        faults: section
            .section("faults", report)
            .all()
            .filter_map(|(id, entry)| Some((id.to_owned(), fault(id, &entry, report)?)))
            .collect(),
    };
    section.finish(report);
    watchdog
}

/// Everything is checked also while it is switched off, so that switching it on brings no surprise.
fn watchdog_ai(mut section: Section<'_>, report: &mut Report) -> Option<WatchdogAi> {
    let enabled = section.flag("enabled", report).unwrap_or(false);
    let base_url = section
        .text("base_url", report)
        .and_then(|(entry, text)| base_url::normalise(text, "").map_err(|why| entry.refuse(why, report)).ok());
    let model = section.line("model", MODEL_NAME_BYTES_MAX, report);
    let key = section.entry("key").and_then(|entry| provider::key_source(&entry, report));
    let price_in = section.amount("price_in", report).unwrap_or(0.0);
    let price_out = section.amount("price_out", report).unwrap_or(0.0);
    let budget_usd_month = section.amount("budget_usd_month", report).unwrap_or(defaults::BUDGET_USD_MONTH);
    for key in ["base_url", "model"] {
        if enabled && !section.holds(key) {
            report.refuse(section.place, &section.path_of(key), "missing; enabled = true needs it");
        }
    }
    section.finish(report);
    if !enabled {
        return None;
    }
    Some(WatchdogAi { base_url: base_url?, model: model?, key, price_in, price_out, budget_usd_month })
}

fn fault(id: &str, entry: &Entry<'_>, report: &mut Report) -> Option<FaultNumbers> {
    let mut section = entry.section(report)?;
    let exists = FAULTS.iter().any(|(letter, count)| {
        let number = id.strip_prefix(*letter).filter(|digits| !digits.starts_with(['0', '+']));
        number.and_then(|digits| digits.parse().ok()).is_some_and(|number: u32| (1..=*count).contains(&number))
    });
    if !exists {
        let ids: Vec<String> = FAULTS.iter().map(|(letter, count)| format!("{letter}1 to {letter}{count}")).collect();
        entry.refuse(format!("no such fault; they are {}", ids.join(", ")), report);
    }
    let numbers = FaultNumbers {
        threshold: section
            .number("threshold", &defaults::FAULT_THRESHOLD, report)
            .and_then(|number| u32::try_from(number.value).ok()),
        window: section.number("window_s", &defaults::FAULT_WINDOW_S, report).map(|number| number.seconds()),
        cooldown: section.number("cooldown_s", &defaults::FAULT_COOLDOWN_S, report).map(|number| number.seconds()),
    };
    section.finish(report);
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    #[test]
    fn a_full_configuration_is_understood() {
        let settings = parse(&[(
            Path::new("config.toml"),
            "[proxy]\nkeepalive_s = 20\n\
             [providers.deepseek]\npreset = 'deepseek'\nkey = { env = 'K' }\n\
             [providers.router]\npreset = 'openrouter'\naccounts = [{ name = 'a', key = { file = '~/k' } }]\n\
             [models.work]\nroutes = ['deepseek/pro', { provider = 'router', model = 'x/pro', weight = 3, effort = 'high' }]\n\
             context_window = 1000000\ncompact_limit = 900000\nefforts = ['high', 'low', 'low']\neffort = 'off'\n\
             [watchdog]\nmax_memory_mb = 500\n\
             [watchdog.ai]\nenabled = true\nbase_url = 'http://localhost:1/v1'\nmodel = 'small'\nprice_in = 1\n\
             [watchdog.faults.B10]\nthreshold = 3\n",
        )])
        .unwrap();
        assert_eq!(settings.proxy.keepalive.as_secs(), 20);
        let model = &settings.models["work"];
        assert_eq!(model.efforts, [Effort::Low, Effort::High]);
        assert_eq!(model.effort, Some(Effort::Off));
        let route = Route { provider: "router".into(), model: "x/pro".into(), weight: 3, effort: Some(Effort::High) };
        assert_eq!(model.routes[1], route);
        assert_eq!(settings.watchdog.memory_bytes_max, Some(500 << 20));
        let ai = settings.watchdog.ai.unwrap();
        assert_eq!((ai.price_in, ai.budget_usd_month), (1.0, 2.0));
        assert_eq!(settings.watchdog.faults["B10"].threshold, Some(3));
    }

    #[test]
    fn the_ladder_is_named_in_order() {
        assert!(Effort::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(Effort::ALL.iter().all(|effort| Effort::named(effort.name()) == Some(*effort)));
    }

    #[test]
    fn header_values_are_not_printed() {
        let text = "[providers.p]\nbase_url = 'http://localhost:1/v1'\nheaders = { x-a = 'sk-1' }";
        assert!(!format!("{:?}", parse(&[(Path::new("c"), text)]).unwrap()).contains("sk-1"));
    }
}
