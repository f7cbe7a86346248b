//! `codex-proxyctl status`: looks at units, port and `/health`, and says what [`units::judge`] makes of them.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::units::{self, Evidence, Health, PORT, State, Trouble, Unit, Units, Watch, Watching};
use super::watchdog::{self, WatchdogError};
use super::{CtlError, Outcome, client, codex_config, manager, setup};
use crate::config::{self, Layers};
use crate::host::paths::Paths;
use crate::host::portowner::{self, Holder};
use crate::model::listed::CONTEXT_WINDOW_UNKNOWN;
use crate::proxy::known;

/// `/health` is answered in milliseconds.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// The port to look at: the one named, else that of the socket unit, else the one that Codex is set up for.
pub fn port(named: Option<u16>, units: &Result<Units, String>, codex_home: Option<&Path>) -> u16 {
    let of_units = || units.as_ref().ok().filter(|units| units.are_installed()).and_then(Units::port);
    named.or_else(of_units).or_else(|| codex_port(codex_home)).unwrap_or(PORT)
}

/// The same, with the units looked up.
pub async fn port_or(named: Option<u16>) -> u16 {
    match named {
        Some(port) => port,
        None => port(None, &manager::units().await, None),
    }
}

/// The port that Codex is set up for.
pub(super) fn codex_port(codex_home: Option<&Path>) -> Option<u16> {
    let text = setup::read_text(&setup::config_path(codex_home).ok()?).ok()??;
    codex_config::inspect(&text).ok()?.port
}

/// Looks at everything once.
pub async fn look(named: Option<u16>, limit: Duration) -> Result<Evidence, CtlError> {
    let units = manager::units().await;
    look_at(port(named, &units, None), units, limit).await
}

/// The same of one port.
pub async fn look_at(port: u16, units: Result<Units, String>, limit: Duration) -> Result<Evidence, CtlError> {
    let me = nix::unistd::geteuid().as_raw();
    let holder = holder(port)?;
    let watch = if units.as_ref().is_ok_and(|units| units.watchdog.is_up()) {
        match watchdog::look().await {
            Ok(says) => Watch::Says(says),
            Err(WatchdogError::NotRunning) => Watch::Fails("it is not on the session bus".to_owned()),
            Err(why) => Watch::Fails(why.to_string()),
        }
    } else {
        Watch::NotAsked
    };
    let health = if Evidence::may_ask(units.as_ref().ok(), holder, me) {
        match client::health(port, limit).await {
            Ok(page) => Health::Answers(page),
            Err(why) => Health::Fails(why),
        }
    } else {
        Health::NotAsked
    };
    Ok(Evidence { units, port, holder, me, health, watch })
}

/// Who listens on a port.
pub fn holder(port: u16) -> Result<Holder, CtlError> {
    let me = nix::unistd::geteuid().as_raw();
    let listeners = portowner::listeners()
        .map_err(|error| CtlError::Unforeseen(format!("cannot tell who listens on port {port}: {error}")))?;
    Ok(portowner::holder(&listeners, port, me))
}

/// What `--json` prints; keys are only ever added.
#[derive(Serialize)]
struct Report<'a> {
    state: State,
    port: u16,
    port_owner_uid: Option<u32>,
    /// `null` if the manager cannot be asked, which `manager_error` then explains.
    units: Option<[&'a Unit; 3]>,
    manager_error: Option<&'a str>,
    health: Option<&'a Value>,
    models: Vec<String>,
    troubles: &'a [Trouble],
    /// `null` if it is not installed.
    watchdog: Option<WatchdogReport<'a>>,
    /// Models whose window nobody knows.
    windows_assumed: &'a [String],
}

#[derive(Serialize)]
struct WatchdogReport<'a> {
    unit: &'a Unit,
    /// `null` if it was not asked, since it is not up, or gave no answer, which `error` then explains.
    says: Option<&'a Watching>,
    error: Option<&'a str>,
}

/// The text, and the exit code by [`State::exit_code`].
pub async fn status(paths: &Paths, named: Option<u16>, json: bool) -> Result<Outcome, CtlError> {
    let evidence = look(named, HEALTH_LIMIT).await?;
    let (state, troubles) = units::judge(&evidence);
    let assumed = windows_assumed(paths);
    let text = if json {
        as_json(&evidence, state, &troubles, &assumed)?
    } else if assumed.is_empty() {
        for_people(&evidence, state, &troubles)
    } else {
        let line = format!(
            "window not known, {CONTEXT_WINDOW_UNKNOWN} tokens assumed: {} (codex-proxyctl models refresh may tell, \
             context_window says it)\n",
            assumed.join(", ")
        );
        for_people(&evidence, state, &troubles) + &line
    };
    Ok(Outcome { text, code: state.exit_code() })
}

/// The models whose window is neither configured nor told by a provider; none where the configuration cannot be used.
fn windows_assumed(paths: &Paths) -> Vec<String> {
    let Ok(mut settings) = config::load(&Layers::standard(&paths.config)) else { return Vec::new() };
    settings.known = known::load(&settings, &paths.state, &paths.cache);
    let unknown = settings.models.values().filter(|model| settings.context_window(model).is_none());
    unknown.map(|model| model.name.clone()).collect()
}

fn as_json(
    evidence: &Evidence,
    state: State,
    troubles: &[Trouble],
    windows_assumed: &[String],
) -> Result<String, CtlError> {
    let report = Report {
        state,
        port: evidence.port,
        port_owner_uid: match evidence.holder {
            Holder::User(uid) => Some(uid),
            Holder::Nobody => None,
        },
        units: evidence.units.as_ref().ok().map(Units::serving),
        manager_error: evidence.units.as_ref().err().map(String::as_str),
        health: evidence.health.page(),
        models: evidence.health.models(),
        troubles,
        watchdog: evidence.units.as_ref().ok().filter(|units| units.watchdog.is_installed()).map(|units| {
            let (says, error) = match &evidence.watch {
                Watch::NotAsked => (None, None),
                Watch::Says(says) => (Some(says), None),
                Watch::Fails(why) => (None, Some(why.as_str())),
            };
            WatchdogReport { unit: &units.watchdog, says, error }
        }),
        windows_assumed,
    };
    super::json_line(&report)
}

/// The same for a person: the answer first, what it rests on below.
pub fn for_people(evidence: &Evidence, state: State, troubles: &[Trouble]) -> String {
    let port = evidence.port;
    let first = match state {
        State::Serving => format!("codex-proxy serves on 127.0.0.1:{port}"),
        State::Waiting => format!("codex-proxy listens on 127.0.0.1:{port}; the first connection starts it"),
        State::Stopped => format!("codex-proxy is not running (port {port} is free)"),
        State::Trouble => "codex-proxy is in trouble".to_owned(),
    };
    let mut lines = vec![first];
    for trouble in troubles {
        lines.push(format!("  wrong: {}", trouble.what));
        lines.push(format!("  mend:  {}", trouble.mend));
    }
    match &evidence.units {
        Ok(units) if units.are_installed() => {
            lines.extend(units.serving().into_iter().filter(|unit| unit.is_installed()).map(unit_line));
            if units.watchdog.is_installed() {
                lines.push(watchdog_line(&units.watchdog, &evidence.watch));
            }
            if state == State::Stopped {
                lines.push("start it: codex-proxyctl start".to_owned());
            } else if state == State::Serving && !units.service.is_up() {
                lines.push("it was started by hand, not by the service manager".to_owned());
            }
        }
        Ok(_) => lines.push("no service units are installed: it is started by hand, `codex-proxy`".to_owned()),
        Err(why) => lines.push(format!("the service manager cannot be asked: {why}")),
    }
    lines.push(match evidence.holder {
        Holder::Nobody => format!("port {port}: nobody listens"),
        Holder::User(uid) if uid == evidence.me => format!("port {port}: yours"),
        Holder::User(uid) => format!("port {port}: held by user {uid}"),
    });
    if let Some(page) = evidence.health.page() {
        lines.push(format!(
            "health: {}, version {}, up {} s, {} requests so far, {} streams now",
            page["state"].as_str().unwrap_or_default(),
            page["version"].as_str().unwrap_or_default(),
            page["uptime_s"],
            page["requests_total"],
            page["active_streams"]
        ));
        let models = evidence.health.models();
        lines.push(format!("models: {}", if models.is_empty() { "demo only".to_owned() } else { models.join(", ") }));
    }
    super::lines(&lines)
}

fn watchdog_line(unit: &Unit, watch: &Watch) -> String {
    let mut line = format!("{}: {} ({})", unit.name, unit.active_state, unit.sub_state);
    match watch {
        Watch::NotAsked => line.push_str("; nobody looks after the proxy: systemctl --user start codex-watchdog"),
        Watch::Fails(why) => line.push_str(&format!("; {why}")),
        Watch::Says(says) => line.push_str(&format!(", {}", watching(says))),
    }
    line
}

/// What the watchdog says, in one line.
pub fn watching(says: &Watching) -> String {
    let mut line = says.state.clone();
    match says.open_incidents {
        Some(0) => line.push_str(", no incident open"),
        Some(1) => line.push_str(", 1 incident open (codex-proxyctl incidents list --open)"),
        Some(open) => line.push_str(&format!(", {open} incidents open (codex-proxyctl incidents list --open)")),
        None => {}
    }
    if let Some(pending) = &says.pending_action {
        line.push_str(&format!("; about to {} for {} (codex-proxyctl cancel)", pending.action, pending.incident));
    }
    let trouble: Vec<&str> = says.trouble.lines().filter(|line| !line.is_empty()).collect();
    if !trouble.is_empty() {
        line.push_str(&format!("; trouble: {}", trouble.join("; ")));
    }
    line
}

fn unit_line(unit: &Unit) -> String {
    let mut line = format!("{}: {} ({})", unit.name, unit.active_state, unit.sub_state);
    if !matches!(unit.result.as_str(), "" | "success") {
        line.push_str(&format!(", result {}", unit.result));
    }
    if let Some(restarts) = unit.restarts.filter(|restarts| *restarts > 0) {
        line.push_str(&format!(", restarted {restarts} times"));
    }
    if !unit.since.is_empty() {
        line.push_str(&format!(", since {}", unit.since));
    }
    // The manager keeps the last words of a program that is gone.
    if unit.is_up() && !unit.status_text.is_empty() {
        line.push_str(&format!(": {}", unit.status_text));
    }
    line
}
