//! What each finding of `doctor` means, and what to do about it. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::Serialize;

use crate::config::credentials::KeySource;
use crate::config::settings::Provider;
use crate::ctl::codex_config::{Inspected, PROVIDER_ID};
use crate::ctl::providers::remedy;
use crate::ctl::units::{self, Evidence, State, Units, Watch};
use crate::model::failure::{Failure, FailureKind};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or may; somebody should know.
    Warn,
    /// Something does not work.
    Fail,
}

impl Verdict {
    /// As printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name: `units`, `port`, `provider:deepseek` …
    pub id: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, empty if nothing.
    pub mend: String,
}

impl Check {
    /// All is well.
    pub fn ok(id: impl Into<String>, found: impl Into<String>) -> Self {
        Self { id: id.into(), verdict: Verdict::Ok, found: found.into(), mend: String::new() }
    }

    /// Somebody should know.
    pub fn warn(id: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { id: id.into(), verdict: Verdict::Warn, found: found.into(), mend: mend.into() }
    }

    /// It does not work.
    pub fn fail(id: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { id: id.into(), verdict: Verdict::Fail, found: found.into(), mend: mend.into() }
    }
}

/// The oldest manager the units are made for.
const SYSTEMD_MIN: u32 = 252;

/// The manager's version.
pub fn systemd(version: &Result<u32, String>) -> Check {
    match version {
        Ok(version) if *version >= SYSTEMD_MIN => Check::ok("systemd", format!("systemd {version}")),
        Ok(version) => Check::warn(
            "systemd",
            format!("systemd {version}; the units are made for {SYSTEMD_MIN} and later"),
            "if a unit is refused, run `codex-proxy` by hand",
        ),
        Err(why) => Check::warn("systemd", why, "run `codex-proxy` by hand"),
    }
}

/// Whether the units are there and start by themselves.
pub fn units(units: &Result<Units, String>) -> Check {
    let units = match units {
        Ok(units) if units.are_installed() => units,
        Ok(_) => {
            let mend = "install the package, or keep starting `codex-proxy` by hand";
            return Check::warn("units", "no service units are installed", mend);
        }
        Err(why) => {
            let mend = "log in directly, not by su or sudo";
            return Check::warn("units", format!("the service manager cannot be asked: {why}"), mend);
        }
    };
    let enabled = |state: &str| matches!(state, "enabled" | "enabled-runtime" | "static" | "linked");
    if enabled(&units.socket.file_state) && enabled(&units.service.file_state) {
        return Check::ok("units", "installed and enabled");
    }
    Check::warn("units", "installed, but not started at login", format!("systemctl --user enable {}", units::SERVICE))
}

/// Whether requests are served: the judgement of `status`, one check for each trouble.
pub fn service(evidence: &Evidence) -> Vec<Check> {
    let (state, troubles) = units::judge(evidence);
    if !troubles.is_empty() {
        let verdict = if state == State::Trouble { Verdict::Fail } else { Verdict::Warn };
        return troubles
            .into_iter()
            .map(|trouble| Check { id: "service".to_owned(), verdict, found: trouble.what, mend: trouble.mend })
            .collect();
    }
    let port = evidence.port;
    let installed = evidence.units.as_ref().is_ok_and(Units::are_installed);
    vec![match state {
        State::Serving => Check::ok("service", format!("serves on 127.0.0.1:{port}")),
        State::Waiting => Check::ok("service", format!("port {port} is held; the first connection starts the service")),
        State::Stopped | State::Trouble => Check::fail(
            "service",
            format!("nobody listens on 127.0.0.1:{port}"),
            match installed {
                true => "codex-proxyctl start".to_owned(),
                false if port == units::PORT => "codex-proxy".to_owned(),
                false => format!("codex-proxy --listen 127.0.0.1:{port}"),
            },
        ),
    }]
}

/// Whether the watchdog runs and sees. The proxy serves without it, so it never fails; `None` where there is no service
/// that it could look after.
pub fn watchdog(evidence: &Evidence) -> Option<Check> {
    const ID: &str = "watchdog";
    let unit = &evidence.units.as_ref().ok().filter(|units| units.are_installed())?.watchdog;
    let start = "systemctl --user enable --now codex-watchdog";
    Some(match &evidence.watch {
        _ if !unit.is_installed() => {
            Check::warn(ID, format!("{} is not installed", units::WATCHDOG), "install the package that has it")
        }
        Watch::NotAsked => {
            let found = format!("{} is {}: nobody looks after the proxy", units::WATCHDOG, unit.active_state);
            Check::warn(ID, found, if unit.has_failed() { "codex-proxyctl logs" } else { start })
        }
        Watch::Fails(why) => Check::warn(ID, why, "codex-proxyctl logs"),
        Watch::Says(says) if !says.trouble.trim().is_empty() => {
            let found = format!("it does not see or keep everything: {}", says.trouble.trim());
            Check::warn(ID, found, "what it needs is said there; until then it works with the rest")
        }
        Watch::Says(says) if says.state == "paused" => Check::warn(ID, "it is paused", "codex-proxyctl resume"),
        Watch::Says(says) => Check::ok(ID, status_words(says.state.as_str())),
    })
}

fn status_words(state: &str) -> String {
    match state {
        "observing" => "it runs and sees, but only watches".to_owned(),
        "" => "it runs".to_owned(),
        state => format!("it runs and sees ({state})"),
    }
}

/// What the token's file is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFile {
    /// Not there.
    Missing,
    /// There, by its metadata.
    Found {
        /// Permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// A plain file, not a link or something else.
        plain: bool,
        /// Whether it could be read and holds one line.
        usable: bool,
    },
    /// Nobody can tell.
    Unknown(String),
}

/// The token's file, seen by the user `me`.
pub fn token(file: &TokenFile, path: &str, me: u32) -> Check {
    let renew = format!("move {path} away, then codex-proxyctl restart");
    match file {
        TokenFile::Missing => Check::ok("token", "there is none yet; the first use makes it"),
        TokenFile::Unknown(why) => Check::fail("token", format!("{path}: {why}"), "make its directory yours"),
        TokenFile::Found { plain: false, .. } => Check::fail("token", format!("{path} is not a plain file"), renew),
        TokenFile::Found { uid, .. } if *uid != me => {
            Check::fail("token", format!("{path} belongs to user {uid}"), "as root: chown it to yourself")
        }
        TokenFile::Found { usable: false, .. } => Check::fail("token", format!("{path} holds no token"), renew),
        TokenFile::Found { mode, .. } if mode & 0o077 != 0 => {
            Check::warn("token", format!("{path} can be read by others ({mode:04o})"), format!("chmod 600 {path}"))
        }
        TokenFile::Found { .. } => Check::ok("token", "readable by you alone"),
    }
}

/// Codex's configuration beside the port the proxy is on.
pub fn codex(inspected: Result<Option<Inspected>, String>, port: u16) -> Vec<Check> {
    const ID: &str = "codex-config";
    let inspected = match inspected {
        Ok(Some(inspected)) => inspected,
        Ok(None) => return vec![Check::warn(ID, "Codex has no config.toml yet", "codex-proxyctl setup")],
        Err(why) => return vec![Check::fail(ID, why, "mend the file; Codex does not start with it either")],
    };
    if !inspected.present {
        let found = format!("Codex's config.toml has no provider {PROVIDER_ID}");
        return vec![if inspected.selected {
            Check::fail(ID, format!("{found}, and selects it: Codex does not start"), "codex-proxyctl setup")
        } else {
            Check::warn(ID, found, "codex-proxyctl setup")
        }];
    }
    let mut checks = Vec::new();
    match inspected.port {
        Some(there) if there == port => {}
        Some(there) => checks.push(Check::fail(
            ID,
            format!("Codex looks for the proxy on port {there}, and it is on {port}"),
            "codex-proxyctl setup",
        )),
        None => checks.push(Check::fail(
            ID,
            format!("base_url of {PROVIDER_ID} is not http://127.0.0.1:PORT/v1"),
            "codex-proxyctl setup",
        )),
    }
    if inspected.token_port != inspected.port {
        checks.push(Check::fail(ID, "auth.args names another port than base_url", "codex-proxyctl setup"));
    }
    if inspected.name.as_deref() != Some(PROVIDER_ID) {
        let found = format!(
            "the provider's name is {:?}; Codex treats some names, such as OpenAI, in a way of their own",
            inspected.name.as_deref().unwrap_or_default()
        );
        checks.push(Check::fail(ID, found, "codex-proxyctl setup"));
    }
    if !inspected.changed.is_empty() {
        let found = format!("changed since setup: {}", inspected.changed.join(", "));
        checks.push(Check::warn(ID, found, "nothing, if you meant it; else codex-proxyctl restore, then setup"));
    }
    if inspected.has_catalogue_file {
        let found = "model_catalog_json is set: Codex takes its models from that file, not from the proxy";
        checks.push(Check::warn(ID, found, "take model_catalog_json out of Codex's config.toml"));
    }
    if !inspected.selected {
        let found = "Codex uses another provider by default";
        let mend = format!("codex -c 'model_provider=\"{PROVIDER_ID}\"' -m MODEL, or codex-proxyctl setup --default");
        checks.push(Check::warn(ID, found, mend));
    }
    if checks.is_empty() {
        checks.push(Check::ok(ID, format!("Codex uses the proxy on port {port}")));
    }
    checks
}

/// The assignments of a `.env` file, as Codex reads them at its start; it leaves out names that begin with `CODEX_`.
pub fn dotenv(text: &str) -> Vec<(String, String)> {
    let assignment = |line: &str| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let bare = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        let lawful = !name.is_empty() && !name.starts_with('#') && !name.to_ascii_uppercase().starts_with("CODEX_");
        lawful.then(|| (name.to_owned(), bare.unwrap_or(value).to_owned()))
    };
    text.lines().filter_map(assignment).collect()
}

/// What asking a provider for its models came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Reached {
    /// It lists so many.
    Listed(usize),
    /// It does not; by the same classes as everywhere.
    Failed(Failure),
    /// It did not answer in time.
    Slow(u64),
    /// There is no key to ask with: why, and what to do.
    NoKey(String, &'static str),
    /// The key is only there inside the service.
    KeyElsewhere,
}

/// One provider, by that name (or one account of it); `through` the proxy of the environment.
pub fn provider(name: &str, provider: &Provider, through: Option<&str>, reached: Reached) -> Check {
    let id = format!("provider:{name}");
    let host = provider.base_url.host_str().unwrap_or_default();
    let through = through.map(|name| format!(" (through the proxy of {name})")).unwrap_or_default();
    match reached {
        // Whether it looked at the key is not known: some list their models to everybody.
        Reached::Listed(count) => Check::ok(id, format!("{host} lists {count} models{through}")),
        Reached::Failed(failure) => {
            let status = failure.upstream_status;
            let found = format!("{host}{through}: {}", failure.message);
            let mend = remedy::of(failure.kind, status.is_some(), provider);
            match failure.kind {
                _ if matches!(status, Some(404 | 405 | 501)) => {
                    let mend = match remedy::longer_address(provider) {
                        Some(longer) => format!("base_url has no path; if requests fail, try {longer:?}"),
                        None => "if requests fail, check base_url".to_owned(),
                    };
                    Check::warn(id, format!("{host} answers, but has no list of models there{through}"), mend)
                }
                FailureKind::RateLimit | FailureKind::Overload => Check::warn(id, found, mend),
                FailureKind::Upstream | FailureKind::Caller | FailureKind::Operator if status.is_some() => {
                    Check::warn(id, found, mend)
                }
                _ => Check::fail(id, found, mend),
            }
        }
        Reached::Slow(seconds) => {
            let mend = remedy::of(FailureKind::Timeout, false, provider);
            Check::fail(id, format!("no answer from {host} within {seconds} s{through}"), mend)
        }
        Reached::NoKey(why, mend) => Check::fail(id, why, mend),
        Reached::KeyElsewhere => Check::warn(id, "not asked: its key is given to the service alone", "nothing"),
    }
}

/// Whether the service sees a key that the shell may see: services do not inherit a shell's variables.
///
/// `known` are the variables the service gets; `None` if that cannot be told.
pub fn key_for_service(name: &str, key: &KeySource, known: Option<&[String]>) -> Option<Check> {
    match (key, known) {
        (KeySource::Env(variable), Some(known)) if !known.contains(variable) => Some(Check::fail(
            format!("key:{name}"),
            format!("{variable} is not set for the service, which does not see your shell's variables"),
            format!(
                "put the key into a file (chmod 600) and say key = {{ file = \"…\" }}, or set {variable} in ~/.config/environment.d"
            ),
        )),
        (KeySource::Env(_) | KeySource::File(_) | KeySource::Credential(_) | KeySource::Command { .. }, _) => None,
    }
}

/// The client that is installed beside the one whose prompt is stored.
pub fn catalogue(stored: Option<&str>, client: Option<&str>) -> Check {
    const ID: &str = "catalogue";
    let refresh = "codex-proxyctl catalogue refresh, then codex-proxyctl restart";
    match (stored, client) {
        (_, None) => Check::warn(ID, "no `codex` is on the PATH", "install Codex"),
        (None, Some(_)) => {
            Check::warn(ID, "no system prompt of your Codex is stored; models get a built-in one", refresh)
        }
        (Some(stored), Some(client)) if stored == client => {
            Check::ok(ID, format!("the system prompt is that of Codex {client}"))
        }
        (Some(stored), Some(client)) => Check::warn(
            ID,
            format!("the stored system prompt is that of Codex {stored}, and {client} is installed"),
            refresh,
        ),
    }
}

/// Whether services go on without a login; `None` if that cannot be told.
pub fn lingering(lingers: Option<bool>, user: &str) -> Check {
    let found = match lingers {
        Some(true) => "the services also run while you are not logged in".to_owned(),
        Some(false) => {
            format!("the services end with your last login; if Codex runs without one: loginctl enable-linger {user}")
        }
        None => "cannot tell whether services end with the last login".to_owned(),
    };
    // Most people are logged in while they use it.
    Check::ok("lingering", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected() -> Inspected {
        Inspected {
            present: true,
            selected: true,
            port: Some(8459),
            token_port: Some(8459),
            name: Some(PROVIDER_ID.to_owned()),
            changed: Vec::new(),
            has_catalogue_file: false,
        }
    }

    #[test]
    fn codex_must_look_where_the_proxy_is() {
        let judged =
            |inspected: Inspected| codex(Ok(Some(inspected)), 8459).into_iter().map(|check| check.verdict).max();
        assert_eq!(judged(inspected()), Some(Verdict::Ok));
        assert_eq!(judged(Inspected { port: Some(9), token_port: Some(9), ..inspected() }), Some(Verdict::Fail));
        assert_eq!(judged(Inspected { token_port: None, ..inspected() }), Some(Verdict::Fail));
        assert_eq!(judged(Inspected { name: Some("OpenAI".to_owned()), ..inspected() }), Some(Verdict::Fail));
        assert_eq!(judged(Inspected { changed: vec!["x".to_owned()], ..inspected() }), Some(Verdict::Warn));
        assert_eq!(judged(Inspected { has_catalogue_file: true, ..inspected() }), Some(Verdict::Warn));
        assert_eq!(judged(Inspected { selected: false, ..inspected() }), Some(Verdict::Warn));
        assert_eq!(judged(Inspected { present: false, ..inspected() }), Some(Verdict::Fail), "a dangling selection");
        assert_eq!(codex(Ok(None), 8459)[0].verdict, Verdict::Warn);
        assert_eq!(codex(Err("line 2".to_owned()), 8459)[0].verdict, Verdict::Fail);
    }

    #[test]
    fn the_proxy_serves_without_a_watchdog() {
        use crate::ctl::units::{Health, Unit, Watching};
        use crate::host::portowner::Holder;
        let loaded =
            |state: &str| Unit { load_state: "loaded".to_owned(), active_state: state.to_owned(), ..Unit::default() };
        let judged = |unit: Unit, watch: Watch| {
            let units =
                Units { socket: loaded("active"), service: loaded("active"), watchdog: unit, ..Units::default() };
            let (holder, health) = (Holder::Nobody, Health::NotAsked);
            watchdog(&Evidence { units: Ok(units), port: 1, holder, me: 1, health, watch }).map(|check| check.verdict)
        };
        let says = |state: &str, trouble: &str| {
            Watch::Says(Watching { state: state.to_owned(), trouble: trouble.to_owned(), ..Watching::default() })
        };
        assert_eq!(judged(Unit::default(), Watch::NotAsked), Some(Verdict::Warn));
        assert_eq!(judged(loaded("inactive"), Watch::NotAsked), Some(Verdict::Warn));
        assert_eq!(judged(loaded("active"), Watch::Fails("x".to_owned())), Some(Verdict::Warn));
        assert_eq!(judged(loaded("active"), says("watching", "the journal cannot be read")), Some(Verdict::Warn));
        assert_eq!(judged(loaded("active"), says("paused", "")), Some(Verdict::Warn));
        assert_eq!(judged(loaded("active"), says("observing", "")), Some(Verdict::Ok));
        assert_eq!(judged(loaded("active"), says("watching", "")), Some(Verdict::Ok));
    }

    #[test]
    fn a_token_must_be_ones_own_and_closed() {
        let found = |mode, uid, plain, usable| token(&TokenFile::Found { mode, uid, plain, usable }, "/t", 7).verdict;
        assert_eq!(found(0o600, 7, true, true), Verdict::Ok);
        assert_eq!(found(0o640, 7, true, true), Verdict::Warn);
        assert_eq!(found(0o600, 8, true, true), Verdict::Fail);
        assert_eq!(found(0o600, 7, false, true), Verdict::Fail);
        assert_eq!(found(0o600, 7, true, false), Verdict::Fail);
        assert_eq!(token(&TokenFile::Missing, "/t", 7).verdict, Verdict::Ok);
    }

    #[test]
    fn dotenv_lines_are_read_as_codex_reads_them() {
        let text = "# c\nexport HTTP_PROXY='http://p:1'\nNO_PROXY = \"a\"\nCODEX_HOME=/x\nnothing\n";
        let expected = [("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "a")];
        assert_eq!(dotenv(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_provider_fails_where_it_cannot_serve() {
        let text = "[providers.p]\nbase_url = 'http://127.0.0.1:1'\n";
        let settings = crate::config::parse(&[(std::path::Path::new("c"), text)]).unwrap();
        let judged = |reached: Reached| provider("p", &settings.providers["p"], None, reached);
        let failed = |kind, status: Option<u16>| {
            Reached::Failed(Failure { upstream_status: status, ..Failure::new(kind, "why") })
        };
        assert_eq!(judged(Reached::Listed(2)).verdict, Verdict::Ok);
        for (kind, status) in [
            (FailureKind::Operator, Some(404)),
            (FailureKind::RateLimit, Some(429)),
            (FailureKind::Upstream, Some(502)),
            (FailureKind::Overload, Some(503)),
        ] {
            assert_eq!(judged(failed(kind, status)).verdict, Verdict::Warn, "{kind:?}");
        }
        for reached in [
            failed(FailureKind::Credentials, Some(400)),
            failed(FailureKind::Upstream, None),
            failed(FailureKind::NameResolution, None),
            Reached::Slow(1),
            Reached::NoKey(String::new(), ""),
        ] {
            assert_eq!(judged(reached.clone()).verdict, Verdict::Fail, "{reached:?}");
        }
        assert!(judged(failed(FailureKind::Operator, Some(404))).mend.contains("127.0.0.1:1/v1"));
    }

    #[test]
    fn a_variable_of_the_shell_is_not_one_of_the_service() {
        let key = KeySource::Env("K".to_owned());
        assert!(key_for_service("p", &key, Some(&["PATH".to_owned()])).is_some());
        assert!(key_for_service("p", &key, Some(&["K".to_owned()])).is_none());
        assert!(key_for_service("p", &key, None).is_none());
    }

    #[test]
    fn versions_are_compared() {
        assert_eq!(systemd(&Ok(252)).verdict, Verdict::Ok);
        assert_eq!(systemd(&Ok(249)).verdict, Verdict::Warn);
        assert_eq!(catalogue(Some("1"), Some("1")).verdict, Verdict::Ok);
        assert_eq!(catalogue(Some("1"), Some("2")).verdict, Verdict::Warn);
        assert_eq!(catalogue(None, Some("2")).verdict, Verdict::Warn);
    }
}
