//! `codex-proxyctl doctor`: looks at everything that the proxy, its service and Codex need of each other.
//!
//! Here is the looking, side by side and each with a time limit; what a finding means is said in [`judge`].

pub mod judge;

use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use self::judge::{Check, Reached, TokenFile, Verdict};
use super::providers::remedy;
use super::units::Units;
use super::{CtlError, Outcome, catalogue, codex_config, json_line, lines, logs, manager, setup, status};
use crate::config::credentials::{KeyError, KeySource, Surroundings};
use crate::config::settings::{HeaderSource, Provider};
use crate::config::{self, Layers, Settings};
use crate::host::log::chain;
use crate::host::paths::Paths;
use crate::host::{cataloguefile, secretfile};
use crate::proxy::listing;
use crate::proxy::upstream::Upstreams;

/// For one provider; a slow network needs a name, a connection and a handshake in it.
const PROVIDER_LIMIT: Duration = Duration::from_secs(14);
/// Of these; less, so that it is told which of them was slow.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

/// Runs all checks; the exit code is 1 if one failed.
pub async fn doctor(
    paths: &Paths,
    named_port: Option<u16>,
    codex_home: Option<&Path>,
    json: bool,
) -> Result<Outcome, CtlError> {
    let units = manager::units().await;
    let port = status::port(named_port, &units, codex_home);
    let loaded = config::load(&Layers::standard(&paths.config));
    let config_file = setup::config_path(codex_home)?;
    let variables = service_variables(&units).await;
    let (service, version, journal, client_version, providers, lingers) = tokio::join!(
        status::look_at(port, units.clone(), HEALTH_LIMIT),
        manager::version(),
        logs::readable(),
        catalogue::client_version(),
        probe_providers(loaded.as_ref().ok(), variables.as_deref()),
        manager::lingers(),
    );
    let evidence = service?;
    let mut checks = vec![judge::systemd(&version), judge::units(&units)];
    checks.extend(judge::service(&evidence));
    checks.extend(judge::watchdog(&evidence));
    checks.push(token(&paths.state));
    checks.extend(judge::codex(inspect(&config_file), port));
    checks.push(environment(config_file.parent().unwrap_or(Path::new(""))));
    checks.push(match &loaded {
        Ok(settings) => Check::ok("config", format!("can be used; models: {}", settings.offered().join(", "))),
        Err(errors) => {
            Check::fail("config", errors.to_string(), "mend it; `codex-proxy --check` tells when it is right")
        }
    });
    checks.extend(loaded.iter().flat_map(|settings| keys_for_service(settings, variables.as_deref())));
    checks.extend(providers);
    checks.push(match journal {
        Ok(()) => Check::ok("journal", "readable"),
        Err(why) => Check::warn("journal", why, "until then `codex-proxyctl logs` shows nothing"),
    });
    let stored = cataloguefile::load(&paths.state).ok().flatten();
    let stored = stored.filter(cataloguefile::Stored::has_prompt).map(|stored| stored.client_version);
    checks.push(judge::catalogue(stored.as_deref(), client_version.as_deref()));
    checks.push(judge::lingering(lingers, &manager::user_name()));
    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let text = if json { json_line(&Report { ok, checks: &checks })? } else { for_people(&checks) };
    Ok(Outcome { text, code: u8::from(!ok) })
}

fn for_people(checks: &[Check]) -> String {
    let mut report = Vec::new();
    for check in checks {
        report.push(format!(
            "{:<4}  {}: {}",
            check.verdict.word(),
            check.id,
            check.found.trim_end().replace('\n', "\n      ")
        ));
        if !check.mend.is_empty() {
            report.push(format!("      → {}", check.mend));
        }
    }
    lines(&report)
}

/// The names of the variables the service gets, if that can be told.
async fn service_variables(units: &Result<Units, String>) -> Option<Vec<String>> {
    let service = &units.as_ref().ok().filter(|units| units.are_installed())?.service;
    if service.variable_files {
        return None;
    }
    let mut names = manager::environment().await.ok()?;
    names.extend(service.variables.iter().cloned());
    Some(names)
}

fn keys_for_service(settings: &Settings, variables: Option<&[String]>) -> Vec<Check> {
    let accounts = settings
        .providers
        .values()
        .flat_map(|provider| provider.accounts.iter().map(move |account| (provider, account)));
    accounts
        .filter(|(_, account)| account.enabled)
        .filter_map(|(provider, account)| {
            judge::key_for_service(&name_of(provider, &account.name), &account.key, variables)
        })
        .collect()
}

fn token(state: &Path) -> Check {
    let path = state.join(secretfile::TOKEN);
    let file = match path.symlink_metadata() {
        Ok(found) => TokenFile::Found {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            plain: found.is_file(),
            usable: found.is_file() && holds_a_line(&path),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => TokenFile::Missing,
        Err(error) => TokenFile::Unknown(error.to_string()),
    };
    judge::token(&file, &path.display().to_string(), nix::unistd::geteuid().as_raw())
}

/// Looks only: `secretfile` would mend what it finds.
fn holds_a_line(path: &Path) -> bool {
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path);
    let mut text = String::new();
    opened.and_then(|file| file.take(4096).read_to_string(&mut text)).is_ok()
        && text.trim_end().len() == secretfile::TEXT_BYTES
}

fn inspect(config: &Path) -> Result<Option<codex_config::Inspected>, String> {
    match setup::read_text(config) {
        Ok(Some(text)) => {
            codex_config::inspect(&text).map(Some).map_err(|error| format!("{}: {error}", config.display()))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Codex reads `.env` in its directory at its start, over the variables it was started with.
fn environment(codex_home: &Path) -> Check {
    let file = codex_home.join(".env");
    let from_file = judge::dotenv(&std::fs::read_to_string(&file).unwrap_or_default());
    let own = |name: &str| std::env::var(name).ok();
    let merged = |name: &str| {
        from_file.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.clone()).or_else(|| own(name))
    };
    match setup::environment_note(merged) {
        None => Check::ok("environment", "Codex reaches loopback without another proxy"),
        Some(note) => {
            let place =
                if setup::environment_note(own).is_none() { format!(" ({})", file.display()) } else { String::new() };
            Check::fail("environment", format!("{note}{place}"), "export NO_PROXY=127.0.0.1,localhost")
        }
    }
}

fn name_of(provider: &Provider, account: &str) -> String {
    if provider.accounts.len() > 1 { format!("{}/{account}", provider.name) } else { provider.name.clone() }
}

/// Asks every provider, with each of its keys, for its models: it costs nothing anywhere.
async fn probe_providers(settings: Option<&Settings>, variables: Option<&[String]>) -> Vec<Check> {
    let mut probes = JoinSet::new();
    for provider in settings.iter().flat_map(|settings| settings.providers.values()) {
        let mut keys: Vec<(String, Option<KeySource>)> = provider
            .accounts
            .iter()
            .filter(|account| account.enabled)
            .map(|account| (name_of(provider, &account.name), Some(account.key.clone())))
            .collect();
        if provider.accounts.is_empty() {
            keys.push((provider.name.clone(), None));
        }
        for (name, key) in keys {
            let provider = provider.clone();
            // What the service has and this shell has not is no fault.
            let of_the_service =
                matches!((&key, variables), (Some(KeySource::Env(name)), Some(known)) if known.contains(name));
            probes.spawn(async move {
                let reached = match reach(&provider, key.as_ref()).await {
                    Reached::NoKey(..) if of_the_service => Reached::KeyElsewhere,
                    reached => reached,
                };
                let through = if provider.is_loopback() { None } else { proxy_variable() };
                judge::provider(&name, &provider, through, reached)
            });
        }
    }
    let mut checks = probes.join_all().await;
    checks.sort_by(|one, other| one.id.cmp(&other.id));
    checks
}

/// Which variable names the proxy to the world, if one does.
pub(super) fn proxy_variable() -> Option<&'static str> {
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    names.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

async fn reach(provider: &Provider, key: Option<&KeySource>) -> Reached {
    let surroundings = Surroundings::from_env();
    let ask = async {
        let key = match key {
            Some(key) => match key.resolve(&surroundings).await {
                Ok(key) => Some(key),
                Err(KeyError::NoDirectory(KeySource::Credential(_), _)) => return Reached::KeyElsewhere,
                Err(error) => return Reached::NoKey(chain(&error), remedy::of_key(&error)),
            },
            None => None,
        };
        let of_the_unit = |source: &HeaderSource| matches!(source, HeaderSource::Key(KeySource::Credential(_)));
        if surroundings.credentials_directory.is_none()
            && provider.headers.iter().any(|(_, source)| of_the_unit(source))
        {
            return Reached::KeyElsewhere;
        }
        match listing::ask(&Upstreams::new(CONNECT_LIMIT), provider, key.as_ref(), &surroundings).await {
            Ok(models) => Reached::Listed(models.len()),
            Err(failure) => Reached::Failed(failure),
        }
    };
    let slow = Reached::Slow(PROVIDER_LIMIT.as_secs());
    tokio::time::timeout(PROVIDER_LIMIT, ask).await.unwrap_or(slow)
}
