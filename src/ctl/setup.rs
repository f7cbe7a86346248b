//! `codex-proxyctl setup` and `restore`: reads and writes Codex's `config.toml`; what to write is `codex_config.rs`.
//!
//! The file belongs to the user and to Codex, so it is read again right before it is replaced, replaced in one step, and
//! a copy of it as it was before us is kept beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::ProxyClient;
use super::codex_config::{self, EditError, PROVIDER_ID, Wanted};
use super::port::{self, Choice};
use super::units::PORT;
use super::{CtlError, catalogue, lines, providers, status};
use crate::host::files;
use crate::host::paths::Paths;

/// How often a file that changes under our hands is taken up again.
const TRIES_MAX: usize = 5;
/// Links followed from `config.toml`; the kernel's own limit.
const LINKS_MAX: usize = 40;
const BACKUP_SUFFIX: &str = ".before-codex-proxy";
/// How long a running proxy may take to name its models.
const MODELS_LIMIT: Duration = Duration::from_secs(2);

/// What `setup` is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The proxy's port; if not given that of the installed socket, else the one that Codex is set up for, else [`PORT`].
    pub port: Option<u16>,
    /// The model to select; if none is named and the proxy runs, the first of the user's configuration that it offers.
    pub model: Option<String>,
    /// Select the proxy even if another provider or model is selected.
    pub default: bool,
    /// Codex's directory; `$CODEX_HOME` or `~/.codex` if not given.
    pub codex_home: Option<PathBuf>,
    /// Only say what would change.
    pub dry_run: bool,
    /// The client to read the system prompt from; the first `codex` on the `PATH` if not given.
    pub codex: Option<PathBuf>,
}

/// Points Codex to the proxy. Gives the text for the user.
pub async fn setup(options: &Options, paths: &Paths) -> Result<String, CtlError> {
    let state_dir = paths.state.as_path();
    let config = config_path(options.codex_home.as_deref())?;
    // Before anything is moved for it: a file that cannot be edited would be left behind.
    check_file(&config)?;
    // Whoever chose another port by hand is not asked for it again.
    let usual = status::codex_port(options.codex_home.as_deref()).unwrap_or(PORT);
    let Choice { port, notes } = port::choose(options.port, usual, options.dry_run).await?;
    let fallback_model = if options.model.is_none() { first_model(options, port, paths).await } else { None };
    let wanted = Wanted {
        port,
        command: own_command()?,
        model: options.model.clone(),
        fallback_model,
        default: options.default,
    };
    let known_model = wanted.model.as_deref().or(wanted.fallback_model.as_deref());
    // First, so that a client named in vain is an error before anything is written.
    let prompt = if options.dry_run { None } else { Some(read_prompt(options, state_dir).await?) };
    let mut report = Vec::new();
    let mut applied = None;
    let change = change_file(&config, options.dry_run, &mut report, |text| {
        let done = codex_config::apply(text, &wanted)?;
        let text = done.text.clone();
        applied = Some(done);
        Ok(Some(text))
    })?;
    if !options.dry_run {
        match change {
            Change::None => report.push(format!("{}: set up already, nothing changed", config.display())),
            Change::Made => report.push(format!(
                "{}: provider {PROVIDER_ID} is set up (http://127.0.0.1:{}/v1)",
                config.display(),
                port
            )),
        }
    }
    if let Some(applied) = applied {
        if applied.is_default {
            report.push(match &applied.model {
                Some(model) => format!("Codex uses the proxy and the model {model}: start `codex`"),
                None => "Codex uses the proxy, but no model is selected: start `codex -m MODEL`".to_owned(),
            });
        } else {
            let model = known_model.unwrap_or("MODEL");
            report.push(format!(
                "Codex keeps its present default; to use the proxy: codex -c 'model_provider=\"{PROVIDER_ID}\"' -m {model}"
            ));
        }
        if known_model.is_none() && applied.model.is_none() {
            report.push("no model is known (the proxy does not answer yet); name one with --model".to_owned());
        }
        report.extend(applied.notes.into_iter().map(|note| format!("note: {note}")));
    }
    report.extend(notes.into_iter().map(|note| format!("note: {note}")));
    report.extend(environment_note(|name| std::env::var(name).ok()).map(|note| format!("note: {note}")));
    report.extend(prompt);
    if !options.dry_run {
        let given = options.codex_home.as_ref().map(|home| format!(" --codex-home {}", home.display()));
        report.push(format!("to undo: codex-proxyctl restore{}", given.unwrap_or_default()));
    }
    Ok(lines(&report))
}

/// Takes out of Codex's configuration what [`setup`] put in. Needs neither the proxy nor Codex.
pub fn restore(codex_home: Option<&Path>, dry_run: bool) -> Result<String, CtlError> {
    let config = config_path(codex_home)?;
    let mut report = Vec::new();
    let mut restored = None;
    change_file(&config, dry_run, &mut report, |text| {
        let Some(text) = text else { return Ok(None) };
        let done = codex_config::restore(text)?;
        let text = (!done.delete_file).then(|| done.text.clone());
        restored = Some(done);
        Ok(text)
    })?;
    match restored.filter(|done| done.found) {
        None => report.push(format!("{}: nothing of ours is in it", config.display())),
        Some(done) => {
            if !dry_run {
                report.push(format!("{}: restored", config.display()));
                report.extend(drop_backup(&config, (!done.delete_file).then_some(done.text.as_str()))?);
            }
            report.extend(done.notes.into_iter().map(|note| format!("note: {note}")));
        }
    }
    if let Some(file) = port::drop_in().ok().filter(|file| file.exists()) {
        // The socket may serve others than Codex, and goes on doing so.
        report.push(format!("note: the proxy's socket keeps the port that {} gives it", file.display()));
    }
    Ok(lines(&report))
}

async fn read_prompt(options: &Options, state_dir: &Path) -> Result<String, CtlError> {
    match catalogue::refresh(state_dir, options.codex.as_deref()).await {
        Err(error) if options.codex.is_none() => Ok(format!("note: {error}")),
        done => done,
    }
}

/// Whether the file can be read and is TOML.
fn check_file(config: &Path) -> Result<(), CtlError> {
    let text = read_text(&follow_links(config)?)?.unwrap_or_default();
    codex_config::inspect(&text).map(drop).map_err(|error| refusal(config, &error))
}

async fn first_model(options: &Options, port: u16, paths: &Paths) -> Option<String> {
    let state_dir = paths.state.as_path();
    // A dry run must not even make a token.
    if options.dry_run && !state_dir.join("token").exists() {
        return None;
    }
    let ask = async { ProxyClient::new(port, state_dir, Duration::ZERO, MODELS_LIMIT)?.models().await };
    // Without a running proxy setup does what can be done without a model, and says so.
    let offered = tokio::time::timeout(MODELS_LIMIT, ask).await.ok()?.ok()?;
    // What is written first is wanted most; the catalogue is sorted.
    let text = read_text(&paths.config.join("config.toml")).ok().flatten().unwrap_or_default();
    let written = providers::edit::models(&text).into_iter().find(|name| offered.contains(name));
    written.or_else(|| offered.into_iter().next())
}

/// `config.toml` in the given directory, `$CODEX_HOME` or `~/.codex`.
pub(crate) fn config_path(codex_home: Option<&Path>) -> Result<PathBuf, CtlError> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = match codex_home {
        Some(home) => home.to_owned(),
        None => set("CODEX_HOME").or_else(|| Some(set("HOME")?.join(".codex"))).ok_or_else(|| {
            CtlError::Arguments(
                "neither CODEX_HOME nor HOME is set; name Codex's directory with --codex-home".to_owned(),
            )
        })?,
    };
    Ok(home.join("config.toml"))
}

/// How Codex is to call this program: by name if it lies on the system path, which survives an upgrade, else by path.
fn own_command() -> Result<String, CtlError> {
    let path = std::env::current_exe()
        .map_err(|error| CtlError::Unforeseen(format!("cannot tell where this program lies: {error}")))?;
    command_of(&path).ok_or_else(|| {
        CtlError::Unforeseen(format!(
            "this program was moved or lies under a name Codex cannot call: {}",
            path.display()
        ))
    })
}

fn command_of(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    // The kernel's way to say that the file was replaced while it runs.
    if text.ends_with(" (deleted)") || text.contains(char::is_control) {
        return None;
    }
    let on_system_path = path.parent() == Some(Path::new("/usr/bin"));
    if on_system_path { path.file_name()?.to_str().map(str::to_owned) } else { Some(text.to_owned()) }
}

/// Codex sends even loopback requests through a proxy of the environment, unless told otherwise.
pub(crate) fn environment_note(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value)))
    };
    let (name, _) = set(["http_proxy", "HTTP_PROXY"]).or_else(|| set(["all_proxy", "ALL_PROXY"]))?;
    let exempt = set(["no_proxy", "NO_PROXY"]).is_some_and(|(_, hosts)| {
        hosts.split(',').any(|host| matches!(host.trim(), "*" | "127.0.0.1" | "127.0.0.0/8"))
    });
    (!exempt).then(|| {
        format!("{name} is set, and Codex would look for the proxy behind it; also set NO_PROXY=127.0.0.1,localhost")
    })
}

/// What [`change_file`] did.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    None,
    Made,
}

/// Reads the file, lets `edit` make the new text (`None`: no file), and writes it. In a dry run it only reports.
///
/// The file is compared with what was read right before it is replaced; if somebody else wrote it, all begins again.
fn change_file(
    config: &Path,
    dry_run: bool,
    report: &mut Vec<String>,
    mut edit: impl FnMut(Option<&str>) -> Result<Option<String>, EditError>,
) -> Result<Change, CtlError> {
    for _ in 0..TRIES_MAX {
        // A link (to a dotfiles repository, say) stays one: what it points to is written.
        let target = follow_links(config)?;
        let old = read_text(&target)?;
        let new = edit(old.as_deref()).map_err(|error| refusal(config, &error))?;
        if old == new {
            if dry_run {
                report.push(format!("{}: nothing would change", config.display()));
            }
            return Ok(Change::None);
        }
        if dry_run {
            report.push(format!("{}: would change", config.display()));
            report.extend(difference(old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default()));
            return Ok(Change::Made);
        }
        if let Some(old) = &old
            && !codex_config::has_marks(old)
        {
            let backup = backup_path(&target);
            files::replace(&backup, old.as_bytes(), mode_of(&target)?)
                .map_err(|error| CtlError::io("write the backup", &backup, &error))?;
            report.push(format!("backup: {}", backup.display()));
        }
        if exchange(&target, old.as_deref(), new.as_deref())? {
            return Ok(Change::Made);
        }
        report.retain(|line| !line.starts_with("backup: "));
    }
    Err(CtlError::Unforeseen(format!("{} is being changed all the time; try again", config.display())))
}

fn refusal(config: &Path, error: &EditError) -> CtlError {
    let text = format!("{}: {error}; nothing was changed", config.display());
    match error {
        EditError::NoModel => CtlError::Arguments(text),
        EditError::Invalid { .. } | EditError::InTheWay { .. } => CtlError::Configuration(text),
        EditError::WouldBreak(_) => CtlError::Unforeseen(text),
    }
}

/// Replaces the file unless it is not `old` any more; says whether it did.
pub(super) fn exchange(target: &Path, old: Option<&str>, new: Option<&str>) -> Result<bool, CtlError> {
    let Some(new) = new else {
        if read_text(target)?.as_deref() != old {
            return Ok(false);
        }
        fs::remove_file(target).map_err(|error| CtlError::io("delete", target, &error))?;
        return Ok(true);
    };
    if let Some(parent) = target.parent()
        && !parent.exists()
    {
        files::create_private_dir(parent).map_err(|error| CtlError::io("make", parent, &error))?;
    }
    let mode = if old.is_some() { mode_of(target)? } else { 0o600 };
    let failed = |error: io::Error| CtlError::io("write", target, &error);
    let beside = files::write_beside(target, new.as_bytes(), mode).map_err(failed)?;
    let replaced = match read_text(target) {
        Ok(now) if now.as_deref() == old => fs::rename(&beside, target).map(|()| true).map_err(failed),
        Ok(_) => Ok(false),
        Err(error) => Err(error),
    };
    if !matches!(replaced, Ok(true)) {
        let _ = fs::remove_file(&beside);
        return replaced;
    }
    files::sync_parent(target).map_err(failed)?;
    Ok(true)
}

/// Deletes the copy from before us once the file is that again; else says that it is kept.
fn drop_backup(config: &Path, now: Option<&str>) -> Result<Option<String>, CtlError> {
    let backup = backup_path(&follow_links(config)?);
    match read_text(&backup)? {
        None => Ok(None),
        Some(then) if Some(then.as_str()) == now => {
            fs::remove_file(&backup).map_err(|error| CtlError::io("delete", &backup, &error))?;
            Ok(None)
        }
        Some(_) => Ok(Some(format!("the file as it was before setup is kept: {}", backup.display()))),
    }
}

fn backup_path(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(BACKUP_SUFFIX);
    target.with_file_name(name)
}

fn mode_of(path: &Path) -> Result<u32, CtlError> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).map_err(|error| CtlError::io("read", path, &error))?;
    Ok(found.mode() & 0o7777)
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>, CtlError> {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count() + 1;
            CtlError::Configuration(format!("{}: line {line}: not UTF-8; nothing was changed", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CtlError::io("read", path, &error)),
    }
}

pub(super) fn follow_links(path: &Path) -> Result<PathBuf, CtlError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(CtlError::Unforeseen(format!("{}: too many links", path.display())))
}

/// The changed lines, `-` before those that go and `+` before those that come.
pub(super) fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // Length of the longest common sequence of the rests from (row, column) on.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            common[row][column] = if old[row] == new[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut out) = (0, 0, Vec::new());
    while row < old.len() || column < new.len() {
        if row < old.len() && column < new.len() && old[row] == new[column] {
            (row, column) = (row + 1, column + 1);
        } else if column == new.len() || (row < old.len() && common[row + 1][column] >= common[row][column + 1]) {
            out.push(format!("- {}", old[row]));
            row += 1;
        } else {
            out.push(format!("+ {}", new[column]));
            column += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_system_path_the_name_is_enough() {
        assert_eq!(command_of(Path::new("/usr/bin/codex-proxyctl")).as_deref(), Some("codex-proxyctl"));
        assert_eq!(command_of(Path::new("/home/u/bin/codex-proxyctl")).as_deref(), Some("/home/u/bin/codex-proxyctl"));
        assert_eq!(command_of(Path::new("/home/u/bin/codex-proxyctl (deleted)")), None);
    }

    #[test]
    fn a_proxy_in_the_environment_is_named_unless_loopback_is_exempt() {
        let note = |set: &'static [(&str, &str)]| {
            environment_note(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(note(&[]), None);
        assert_eq!(note(&[("HTTP_PROXY", "")]), None);
        assert!(note(&[("HTTP_PROXY", "http://p:1")]).unwrap().contains("NO_PROXY"));
        assert!(note(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", "example.org")]).is_some());
        assert_eq!(note(&[("http_proxy", "http://p:1"), ("no_proxy", "localhost, 127.0.0.1")]), None);
    }

    #[test]
    fn a_difference_names_changed_lines_only() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), ["- b", "+ x", "+ d"]);
        assert!(difference("", "").is_empty());
    }

    #[test]
    fn a_file_changed_by_others_in_between_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "a = 1\n").unwrap();
        let mut seen = Vec::new();
        let mut report = Vec::new();
        let change = change_file(&file, false, &mut report, |text| {
            seen.push(text.unwrap().to_owned());
            if seen.len() == 1 {
                fs::write(&file, "a = 2\n").unwrap();
            }
            Ok(Some(format!("{}b = 1\n", text.unwrap())))
        });
        assert_eq!(change.unwrap(), Change::Made);
        assert_eq!(seen, ["a = 1\n", "a = 2\n"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\nb = 1\n");
        assert_eq!(fs::read_to_string(backup_path(&file)).unwrap(), "a = 2\n");
    }
}
