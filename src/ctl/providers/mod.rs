//! `codex-proxyctl providers`: which there could be, which there are, one more, and whether one works.
//!
//! `add` edits the user's own `config.toml` (`edit.rs`, PURE) and writes nothing that the configuration's own reader
//! would refuse. `test` is `trial.rs`; `remedy.rs` (PURE) says what to do about what it finds.

pub mod edit;
pub mod remedy;
pub mod trial;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::edit::{EditError, Key, Wanted};
use super::proxy_bus::{self, Reload};
use super::setup::{config_path, difference, exchange, follow_links, read_text};
use super::{CtlError, Outcome, codex_config, json_line, lines, table};
use crate::config::credentials::{KEY_BYTES_MAX, Surroundings, looks_like_a_key};
use crate::config::presets::{PRESETS, Preset};
use crate::config::settings::{Account, Provider};
use crate::config::{self, ConfigError, ConfigErrors, Layers, Settings};
use crate::host::files;
use crate::host::log::chain;
use crate::host::paths::Paths;

/// How often a file that changes under our hands is taken up again.
const TRIES_MAX: usize = 5;
/// Names of variables are rarely so long, and keys rarely shorter.
const VARIABLE_LENGTH_ODD: usize = 24;
/// As `--preset`: the name is not to be taken for that of a preset.
const NO_PRESET: &str = "none";

#[derive(Serialize)]
struct PresetList<'a> {
    presets: Vec<PresetEntry<'a>>,
}

#[derive(Serialize)]
struct PresetEntry<'a> {
    name: &'a str,
    title: &'a str,
    base_url: &'a str,
    protocol: &'a str,
    dialect: &'a str,
    key_variable: Option<&'a str>,
    needs_key: bool,
    images: bool,
    lists_models_at: Option<&'a str>,
    /// Whether this version can use it.
    built: bool,
}

/// The table of presets; of them those whose name or title holds `filter`.
pub fn presets(filter: Option<&str>, json: bool) -> Result<Outcome, CtlError> {
    let filter = filter.unwrap_or_default().to_lowercase();
    let fits = |preset: &&Preset| preset.name.contains(&filter) || preset.title.to_lowercase().contains(&filter);
    let found: Vec<&Preset> = PRESETS.iter().filter(fits).collect();
    if json {
        let some = |text: &'static str| (!text.is_empty()).then_some(text);
        let entry = |preset: &&'static Preset| PresetEntry {
            name: preset.name,
            title: preset.title,
            base_url: preset.base_url,
            protocol: preset.protocol,
            dialect: preset.dialect,
            key_variable: some(preset.key_variable),
            needs_key: preset.needs_key,
            images: preset.images,
            lists_models_at: some(preset.listing.describe()),
            built: preset.is_built(),
        };
        return json_line(&PresetList { presets: found.iter().map(entry).collect() }).map(Outcome::of);
    }
    if found.is_empty() {
        return Ok(Outcome { text: format!("no preset has {filter:?} in its name or title\n"), code: 1 });
    }
    let rows = found.iter().map(|preset| {
        let protocol = if preset.is_built() { preset.protocol.to_owned() } else { format!("{}*", preset.protocol) };
        let key = if preset.key_variable.is_empty() { "-" } else { preset.key_variable };
        vec![preset.name.to_owned(), preset.title.to_owned(), protocol, preset.base_url.to_owned(), key.to_owned()]
    });
    let mut text = table(&["PRESET", "", "PROTOCOL", "ADDRESS", "USUAL VARIABLE"], rows);
    if found.iter().any(|preset| !preset.is_built()) {
        text.push_str("* not built yet\n");
    }
    Ok(Outcome::of(text))
}

/// The configuration, or the error that it is.
pub(super) fn settings(paths: &Paths) -> Result<Settings, CtlError> {
    config::load(&Layers::standard(&paths.config))
        .map_err(|errors| CtlError::Configuration(format!("the configuration cannot be used:\n{errors}")))
}

/// The provider of that name, or an error that names those there are.
pub(super) fn named<'a>(settings: &'a Settings, name: &str) -> Result<&'a Provider, CtlError> {
    settings.providers.get(name).ok_or_else(|| {
        let known: Vec<&str> = settings.providers.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "none is configured; codex-proxyctl providers add NAME --preset …".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        CtlError::Arguments(format!("no provider {name:?}; {known}"))
    })
}

#[derive(Serialize)]
struct ProviderList<'a> {
    providers: Vec<ProviderEntry<'a>>,
}

#[derive(Serialize)]
struct ProviderEntry<'a> {
    name: &'a str,
    protocol: &'a str,
    dialect: &'a str,
    base_url: &'a str,
    accounts: Vec<AccountEntry<'a>>,
    /// Models with a route to it.
    models: Vec<&'a str>,
}

#[derive(Serialize)]
struct AccountEntry<'a> {
    name: &'a str,
    enabled: bool,
    /// Where the key is found; never the key.
    key_from: String,
}

/// The configured providers.
pub fn list(paths: &Paths, json: bool) -> Result<Outcome, CtlError> {
    let settings = settings(paths)?;
    let uses = |provider: &Provider| -> Vec<&str> {
        let models = settings.models.values();
        let uses = models.filter(|model| model.routes.iter().any(|route| route.provider == provider.name));
        uses.map(|model| model.name.as_str()).collect()
    };
    if json {
        let account = |account: &'_ Account| (account.enabled, account.key.to_string());
        let entries = settings.providers.values().map(|provider| ProviderEntry {
            name: &provider.name,
            protocol: provider.protocol.name(),
            dialect: provider.dialect.name,
            base_url: provider.base_url.as_str(),
            accounts: provider
                .accounts
                .iter()
                .map(|one| {
                    let (enabled, key_from) = account(one);
                    AccountEntry { name: &one.name, enabled, key_from }
                })
                .collect(),
            models: uses(provider),
        });
        return json_line(&ProviderList { providers: entries.collect() }).map(Outcome::of);
    }
    if settings.providers.is_empty() {
        let text = "no provider is configured; `codex-proxyctl providers presets` shows what there could be, and \
                    `codex-proxyctl providers add NAME --preset …` adds one\n";
        return Ok(Outcome::of(text.to_owned()));
    }
    let rows = settings.providers.values().map(|provider| {
        let keys: Vec<String> = provider.accounts.iter().map(|account| key_words(provider, account)).collect();
        let keys = if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") };
        let models = uses(provider);
        let models = if models.is_empty() { "-".to_owned() } else { models.join(", ") };
        vec![provider.name.clone(), provider.protocol.name().to_owned(), provider.base_url.to_string(), keys, models]
    });
    Ok(Outcome::of(table(&["PROVIDER", "PROTOCOL", "ADDRESS", "KEY FROM", "MODELS"], rows)))
}

fn key_words(provider: &Provider, account: &Account) -> String {
    let name = if provider.accounts.len() > 1 { format!("{}: ", account.name) } else { String::new() };
    let rests = if account.enabled { "" } else { " (switched off)" };
    format!("{name}{}{rests}", account.key)
}

/// What `add` is told.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// The provider's name.
    pub name: String,
    /// A preset, or [`NO_PRESET`]; the name itself, if it is one.
    pub preset: Option<String>,
    /// Its address.
    pub base_url: Option<String>,
    /// What it is spoken to in.
    pub protocol: Option<String>,
    /// The peculiarities of its Chat Completions.
    pub dialect: Option<String>,
    /// Where the key is; at most one of these.
    pub key_env: Option<String>,
    /// See `key_env`.
    pub key_file: Option<PathBuf>,
    /// See `key_env`.
    pub key_credential: Option<String>,
    /// See `key_env`; words.
    pub key_command: Option<String>,
    /// See `key_env`; the key itself comes on standard input.
    pub key_stdin: bool,
    /// See `key_env`; it needs none.
    pub no_key: bool,
    /// The key itself was given as an argument, which is refused.
    pub key_itself: bool,
    /// `ID` or `NAME=ID`.
    pub models: Vec<String>,
    /// Write over what is there.
    pub replace: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// Adds a provider to the user's configuration.
pub async fn add(options: &AddOptions, paths: &Paths) -> Result<Outcome, CtlError> {
    let key_file = paths.config.join("keys").join(&options.name);
    let wanted = wanted(options, &key_file, paths)?;
    // First what the flags mean alone, so that an error can name the flag.
    let path = Path::new("flags");
    config::parse(&[(path, &edit::alone(&wanted))]).map_err(|errors| CtlError::Arguments(of_flags(&errors)))?;

    let config = paths.config.join("config.toml");
    let layers = Layers::standard(&paths.config);
    let mut report = Vec::new();
    // Its address is another's, so the name may mean something else.
    let taken_for = implied_preset(options).filter(|_| options.base_url.is_some()).map(|preset| {
        format!(
            "note: it is taken for the preset {} ({}); --preset {NO_PRESET} if it is not",
            preset.name, preset.title
        )
    });
    // What is wrong is said before a key is asked for.
    let change = || change(&wanted, &config, &layers, options.replace);
    change()?;
    let secret = if options.key_stdin { Some(read_key()?) } else { None };
    if options.dry_run {
        let Change { old, new, notes, .. } = change()?;
        if secret.is_some() {
            report.push(format!("{}: the key would be written, for you alone", key_file.display()));
        }
        report.push(format!("{}: would change", config.display()));
        report.extend(difference(old.as_deref().unwrap_or_default(), &new));
        report.extend(notes);
        report.extend(taken_for);
        return Ok(Outcome::of(lines(&report)));
    }
    if let Some(secret) = &secret {
        // Before the configuration that names it: a killed run leaves a file that nobody refers to, never the reverse.
        write_key(&key_file, secret, options.replace)?;
        report.push(format!("{}: the key, for you alone", key_file.display()));
    }
    let notes = write(change, &config)?;
    report.push(format!("{}: provider {} added", config.display(), wanted.name));
    report.extend(notes);
    if key_file.exists() && wanted.key != Some(Key::File(written_path(&key_file, &paths.home)?)) {
        report.push(format!("note: {} holds a key that {} does not use; delete it", key_file.display(), wanted.name));
    }
    report.extend(taken_for);
    report.extend(key_note(&wanted, &layers).await);
    let reload = proxy_bus::reload().await;
    report.push(reload.sentence());
    report.push(format!("does it work? codex-proxyctl providers test {}", wanted.name));
    report.extend(wanted.models.first().map(|(name, _)| usage(name)));
    Ok(Outcome { text: lines(&report), code: u8::from(matches!(reload, Reload::Refused(_))) })
}

/// How Codex comes to use a model.
fn usage(model: &str) -> String {
    let codex = config_path(None).and_then(|file| read_text(&file)).ok().flatten();
    let inspected = codex.and_then(|text| codex_config::inspect(&text).ok());
    if inspected.is_some_and(|found| found.present && found.selected) {
        format!("use it: codex -m {model}; codex-proxyctl setup --model {model} makes it Codex's default")
    } else {
        format!("use it: codex-proxyctl setup --model {model}, which tells Codex of the proxy; then codex")
    }
}

/// The preset that the name stands for.
fn implied_preset(options: &AddOptions) -> Option<&'static Preset> {
    Preset::named(&options.name).filter(|_| options.preset.is_none())
}

/// The flags as what is to be written.
fn wanted(options: &AddOptions, key_file: &Path, paths: &Paths) -> Result<Wanted, CtlError> {
    let preset = match options.preset.as_deref() {
        Some(NO_PRESET) => None,
        Some(preset) => Some(preset.to_owned()),
        None => implied_preset(options).map(|preset| preset.name.to_owned()),
    };
    if preset.is_none() && options.base_url.is_none() {
        if options.preset.is_some() {
            return Err(CtlError::Arguments(format!("--base-url is needed with --preset {NO_PRESET}")));
        }
        let why = Preset::unknown(&options.name);
        return Err(CtlError::Arguments(format!(
            "--preset or --base-url is needed: as a preset, {} is {why}",
            options.name
        )));
    }
    refuse_keys(options)?;
    let key = if let Some(name) = &options.key_env {
        Some(Key::Env(name.clone()))
    } else if let Some(path) = &options.key_file {
        Some(Key::File(written_path(path, &paths.home)?))
    } else if let Some(name) = &options.key_credential {
        Some(Key::Credential(name.clone()))
    } else if let Some(command) = &options.key_command {
        if command.contains(['"', '\'', '\\', '$', '`']) {
            let why = "no shell reads it, so quotes mean nothing; write `key = { command = [\"program\", \"argument\"] }` by hand";
            return Err(CtlError::Arguments(format!("--key-command: {why}")));
        }
        Some(Key::Command(command.split_whitespace().map(str::to_owned).collect()))
    } else if options.key_stdin {
        Some(Key::File(written_path(key_file, &paths.home)?))
    } else {
        options.no_key.then_some(Key::Nothing)
    };
    let mut models = Vec::new();
    for model in &options.models {
        let (name, id) = match model.split_once('=') {
            Some((name, id)) => (name, id),
            None => (model.rsplit('/').next().unwrap_or(model), model.as_str()),
        };
        if name.is_empty() || id.is_empty() {
            return Err(CtlError::Arguments(format!("--model: must be ID or NAME=ID, found {model:?}")));
        }
        models.push((name.to_owned(), id.to_owned()));
    }
    Ok(Wanted {
        name: options.name.clone(),
        preset,
        base_url: options.base_url.clone(),
        protocol: options.protocol.clone(),
        dialect: options.dialect.clone(),
        key,
        models,
    })
}

/// Keys given where the place of one belongs. What was given is not repeated.
fn refuse_keys(options: &AddOptions) -> Result<(), CtlError> {
    let env = options.key_env.as_deref();
    let file = options.key_file.as_deref().and_then(Path::to_str);
    let given = [
        ("--key-env", env),
        ("--key-file", file),
        ("--key-credential", options.key_credential.as_deref()),
        ("--key-command", options.key_command.as_deref()),
    ];
    let is_set = |name: &str| std::env::var_os(name).is_some();
    // Names of variables are in capitals by custom; what is as long as a key and is not, and is none here, is no name.
    let odd = |name: &&str| {
        name.len() >= VARIABLE_LENGTH_ODD && name.contains(|c: char| c.is_ascii_lowercase()) && !is_set(name)
    };
    let pasted = given.iter().find(|(_, text)| text.is_some_and(looks_like_a_key)).map(|(flag, _)| *flag);
    match pasted.or(env.filter(odd).map(|_| "--key-env")).or(options.key_itself.then_some("--key")) {
        None => Ok(()),
        Some(flag) => Err(CtlError::Arguments(format!(
            "{flag}: must say where the key is, not the key itself, which others could read there; `--key-stdin` asks for \
             the key and keeps it"
        ))),
    }
}

/// A path as the configuration takes it: absolute, or from the home directory on.
fn written_path(path: &Path, home: &Path) -> Result<String, CtlError> {
    let absolute = if path.starts_with("~") {
        path.to_owned()
    } else {
        std::path::absolute(path).map_err(|error| CtlError::io("find", path, &error))?
    };
    let path = match absolute.strip_prefix(home) {
        Ok(below) => Path::new("~").join(below),
        Err(_) => absolute,
    };
    path.into_os_string()
        .into_string()
        .map_err(|path| CtlError::Arguments(format!("--key-file: {} is not UTF-8", path.to_string_lossy())))
}

/// What is wrong with the flags, by flag.
fn of_flags(errors: &ConfigErrors) -> String {
    let lines = errors.iter().map(|error| {
        let (key, value, why) = match error {
            ConfigError::Refused { key, value, why, .. } => (key, value, why.clone()),
            ConfigError::NotBuilt { key, value, what, .. } => (key, value, format!("not built yet: {what}")),
            ConfigError::Read { .. } | ConfigError::Syntax { .. } => return error.to_string(),
        };
        let flags = [
            (".base_url", "--base-url"),
            (".preset", "--preset"),
            (".protocol", "--protocol"),
            (".dialect", "--dialect"),
            (".key.env", "--key-env"),
            (".key.file", "--key-file"),
            (".key.credential", "--key-credential"),
            (".key.command", "--key-command"),
        ];
        let flag = match flags.iter().find(|(end, _)| key.ends_with(end)) {
            Some((_, flag)) => flag,
            None if key.starts_with("models.") => "--model",
            None if key.ends_with(".key") => {
                return "a key is needed: --key-stdin, --key-file, --key-env, --key-command or --key-credential says where \
                        it is; --no-key that it needs none"
                    .to_owned();
            }
            None => "NAME",
        };
        let value = value.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
        format!("{flag}{value}: {why}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A change of the configuration that its reader takes.
struct Change {
    /// The file that is written: what a link points to.
    target: PathBuf,
    old: Option<String>,
    new: String,
    notes: Vec<String>,
}

fn change(wanted: &Wanted, config: &Path, layers: &Layers, replace: bool) -> Result<Change, CtlError> {
    let target = follow_links(config)?;
    let old = read_text(&target)?;
    let text = old.as_deref().unwrap_or_default();
    let edited = edit::edit(text, wanted, replace).map_err(|error| {
        let sentence = format!("{}: {error}; nothing was changed", config.display());
        match error {
            EditError::Exists(_) => CtlError::Arguments(sentence),
            EditError::Invalid { .. } | EditError::InTheWay(_) => CtlError::Configuration(sentence),
        }
    })?;
    // Tables of several files are laid over one another, and lists replaced: a second half elsewhere would surprise.
    let before = config::load(layers);
    if let Ok(before) = &before {
        let elsewhere = |section: &str, name: &str, known: bool| known && !edit::holds(text, section, name);
        let model = wanted.models.iter().find(|(name, _)| elsewhere("models", name, before.models.contains_key(name)));
        let what = if elsewhere("providers", &wanted.name, before.providers.contains_key(&wanted.name)) {
            Some(format!("the provider {}", wanted.name))
        } else {
            model.map(|(name, _)| format!("the model {name}"))
        };
        if let Some(what) = what {
            let files: Vec<String> = before.files.iter().map(|file| file.display().to_string()).collect();
            return Err(CtlError::Arguments(format!(
                "{what} is configured in another file than {}; change it there ({}), or take another name",
                config.display(),
                files.join(", ")
            )));
        }
    }
    config::load_with(layers, config, &edited.text).map_err(|errors| {
        // What was wrong before is told by the lines of the file as it is, not of a text that nobody has seen.
        let (what, errors) = match &before {
            Err(before) => ("cannot be used as it is", before),
            Ok(_) => ("could not be used", &errors),
        };
        CtlError::Configuration(format!("the configuration {what}, so nothing was changed:\n{errors}"))
    })?;
    Ok(Change { target, old, new: edited.text, notes: edited.notes })
}

/// Makes the change in one step, anew if somebody else writes the file meanwhile.
fn write(change: impl Fn() -> Result<Change, CtlError>, config: &Path) -> Result<Vec<String>, CtlError> {
    for _ in 0..TRIES_MAX {
        let Change { target, old, new, notes } = change()?;
        if exchange(&target, old.as_deref(), Some(&new))? {
            return Ok(notes);
        }
    }
    Err(CtlError::Unforeseen(format!("{} is being changed all the time; try again", config.display())))
}

fn read_key() -> Result<String, CtlError> {
    let stdin = std::io::stdin();
    let text = if stdin.is_terminal() {
        hidden_line()?
    } else {
        let mut text = String::new();
        let limit = KEY_BYTES_MAX as u64 + 1;
        stdin
            .lock()
            .take(limit)
            .read_to_string(&mut text)
            .map_err(|error| CtlError::Arguments(format!("--key-stdin: standard input cannot be read: {error}")))?;
        text
    };
    let key = text.trim();
    let printable = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if key.is_empty() || !printable || key.len() > KEY_BYTES_MAX {
        return Err(CtlError::Arguments(
            "--key-stdin: one line of printable ASCII is expected, the key and nothing else".to_owned(),
        ));
    }
    Ok(key.to_owned())
}

/// A line from the terminal, which does not show it.
fn hidden_line() -> Result<String, CtlError> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed = |error: &dyn std::fmt::Display| CtlError::Unforeseen(format!("the terminal cannot be read: {error}"));
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(|error| failed(&error))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| failed(&error))?;
    drop(std::io::Write::write_all(&mut std::io::stderr(), b"the key (it is not shown): "));
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &before);
    drop(std::io::Write::write_all(&mut std::io::stderr(), b"\n"));
    read.map_err(|error| failed(&error))?;
    restored.map_err(|error| failed(&error))?;
    Ok(line)
}

fn write_key(file: &Path, key: &str, replace: bool) -> Result<(), CtlError> {
    let text = format!("{key}\n");
    match read_text(file)? {
        Some(old) if old == text => {}
        Some(_) if !replace => {
            return Err(CtlError::Arguments(format!(
                "--key-stdin: {} holds another key already; --replace writes over it, or name it with --key-file",
                file.display()
            )));
        }
        _ => {}
    }
    let dir = file.parent().unwrap_or(Path::new("/"));
    files::create_private_dir(dir).map_err(|error| CtlError::io("make", dir, &error))?;
    files::replace(file, text.as_bytes(), 0o600).map_err(|error| CtlError::io("write", file, &error))
}

/// Says so if the key is not there, or not for the service.
async fn key_note(wanted: &Wanted, layers: &Layers) -> Option<String> {
    let settings = config::load(layers).ok()?;
    let account = settings.providers.get(&wanted.name)?.accounts.first()?.clone();
    if matches!(wanted.key, Some(Key::Credential(_))) {
        return Some("note: the unit needs LoadCredential= or LoadCredentialEncrypted= for it".to_owned());
    }
    match account.key.resolve(&Surroundings::from_env()).await {
        Ok(_) if matches!(wanted.key, Some(Key::Env(_))) => {
            Some("note: a service does not see your shell's variables; `codex-proxyctl doctor` tells whether it has this one".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(format!("note: there is no key yet: {}", chain(&error))),
    }
}
