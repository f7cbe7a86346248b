//! The user's service manager, asked through `systemctl --user`: it works without a message bus, too.
//!
//! Every call has a time limit, none reads standard input, and none inherits the terminal.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::CtlError;
use super::units::{self, Units};

/// A question takes milliseconds.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A start may take the unit's `TimeoutStartSec=` after a stop took its `TimeoutStopSec=`.
const ACT_LIMIT: Duration = Duration::from_secs(45);

/// Runs a program to its end.
///
/// # Errors
/// A sentence: it cannot be run, or took too long.
pub async fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], limit: Duration) -> Result<Output, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // For people who came here by `su`, which leaves out what leads to the manager.
    if let Some(runtime) = missing_runtime_directory() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(format!("cannot run {program}: {error}")),
        Err(_) => Err(format!("{program} gave no answer within {} s", limit.as_secs())),
    }
}

/// Where the runtime directory is, if no variable says so and it is there.
pub fn missing_runtime_directory() -> Option<PathBuf> {
    if std::env::var_os("XDG_RUNTIME_DIR").is_some() {
        return None;
    }
    let directory = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
    directory.is_dir().then_some(directory)
}

/// The last words of a program that failed.
pub fn last_words(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
    last.unwrap_or_else(|| output.status.to_string())
}

async fn systemctl(arguments: &[&str], limit: Duration) -> Result<String, String> {
    let all: Vec<&str> = ["--user", "--no-pager"].iter().chain(arguments).copied().collect();
    let output = run("systemctl", &all, limit).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(last_words(&output))
}

/// What the manager says about our units.
///
/// # Errors
/// A sentence: there is no manager, or it does not answer.
pub async fn units() -> Result<Units, String> {
    let mut arguments = vec!["show", units::PROPERTIES];
    arguments.extend(units::ALL);
    systemctl(&arguments, ASK_LIMIT).await.map(|shown| Units::new(units::parse(&shown)))
}

/// The names of the variables that every service gets.
pub async fn environment() -> Result<Vec<String>, String> {
    systemctl(&["show-environment"], ASK_LIMIT).await.map(|shown| units::variables(shown.lines()))
}

/// The manager's version, out of `systemd 252 (252.39-1~deb12u1)`.
pub async fn version() -> Result<u32, String> {
    let shown = systemctl(&["--version"], ASK_LIMIT).await?;
    let number =
        shown.split_ascii_whitespace().nth(1).and_then(|word| word.split(['.', '~', '-']).next()?.parse().ok());
    number.ok_or_else(|| "systemctl does not say its version".to_owned())
}

/// Does something to units (`start`, `stop` …) and waits until it is done.
pub async fn act(verb: &str, units: &[&str]) -> Result<(), String> {
    let arguments: Vec<&str> = [verb].iter().chain(units).copied().collect();
    systemctl(&arguments, ACT_LIMIT).await.map(drop)
}

/// The manager's units, or an error that says how to do without.
pub async fn installed_units() -> Result<Units, CtlError> {
    let units = units().await.map_err(|why| {
        CtlError::Unforeseen(format!(
            "your service manager cannot be asked: {why}. Log in directly (not by su or sudo), or run `codex-proxy` by hand"
        ))
    })?;
    if !units.are_installed() {
        return Err(CtlError::Unforeseen(format!(
            "{} is not installed; install the package, or run `codex-proxy` by hand",
            units::SERVICE
        )));
    }
    Ok(units)
}

/// Who asks, by name.
pub fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name)
}

/// Whether the user's services go on without a login; `None` if that cannot be told.
pub async fn lingers() -> Option<bool> {
    let output = run("loginctl", &["show-user", "--property=Linger", &user_name()], ASK_LIMIT).await.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "Linger=yes" => Some(true),
        "Linger=no" => Some(false),
        _ => None,
    }
}

/// Whether journals survive a restart of the machine; only then may an ordinary user read one.
pub fn journal_is_kept() -> bool {
    Path::new("/var/log/journal").is_dir()
}
