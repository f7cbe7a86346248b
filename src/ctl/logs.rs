//! `codex-proxyctl logs`: the journal's entries by and about our units, in the order they came.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::CtlError;
use super::{manager, units};

const ASK_LIMIT: Duration = Duration::from_secs(10);
/// What our programs call themselves in the journal.
const IDENTIFIERS: [&str; 2] = ["codex-proxy", "codex-watchdog"];

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Go on with new ones as they come.
    pub follow: bool,
    /// At most so many, the newest.
    pub lines: Option<u32>,
    /// None older, in the journal's way to write times.
    pub since: Option<String>,
}

/// Becomes `journalctl`, so that its pager, colours and exit code are the user's. Returns only with an error.
///
/// # Errors
/// The journal cannot be read; says why.
pub async fn logs(options: &Options) -> Result<(), CtlError> {
    readable().await.map_err(CtlError::Unforeseen)?;
    let mut command = Command::new("journalctl");
    command.arg("--user");
    if options.follow {
        command.arg("--follow");
    }
    command.args(options.lines.map(|lines| format!("--lines={lines}")));
    command.args(options.since.as_ref().map(|since| format!("--since={since}")));
    command.args(matches());
    if let Some(runtime) = manager::missing_runtime_directory() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    Err(CtlError::Unforeseen(format!("cannot run journalctl: {}", command.exec())))
}

/// By our units, or about them (the manager's words), or by our programs wherever they ran.
fn matches() -> Vec<String> {
    let of =
        |field: &str, names: &[&str]| -> Vec<String> { names.iter().map(|name| format!("{field}={name}")).collect() };
    let or = || vec!["+".to_owned()];
    [
        of("_SYSTEMD_USER_UNIT", &units::ALL),
        or(),
        of("USER_UNIT", &units::ALL),
        or(),
        of("SYSLOG_IDENTIFIER", &IDENTIFIERS),
    ]
    .concat()
}

/// Whether the user may read their journal; if not, a sentence that says why.
pub async fn readable() -> Result<(), String> {
    let output = manager::run("journalctl", &["--user", "--quiet", "--lines=1", "--output=cat"], ASK_LIMIT).await?;
    // Entries of others may be shown to a member of the group; nothing at all on a volatile journal means no rights.
    let silent = output.stdout.is_empty();
    if output.status.success() && (!silent || manager::journal_is_kept()) {
        return Ok(());
    }
    let words = if silent && output.stderr.is_empty() { String::new() } else { manager::last_words(&output) };
    Err(refusal(manager::journal_is_kept(), &words))
}

fn refusal(kept: bool, words: &str) -> String {
    let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
    if kept {
        return format!("the journal cannot be read{words}");
    }
    format!(
        "the journal cannot be read{words}: this machine keeps it in memory only, and then it is closed to ordinary users. \
         As root: `mkdir /var/log/journal && systemctl restart systemd-journald`, or `adduser {} systemd-journal` and log \
         in anew",
        manager::user_name()
    )
}

/// The newest lines, for an error message; empty if they cannot be had.
pub async fn tail(lines: u32) -> String {
    let mut arguments =
        vec!["--user".to_owned(), "--quiet".to_owned(), "--no-pager".to_owned(), format!("--lines={lines}")];
    arguments.extend(matches());
    match manager::run("journalctl", &arguments, ASK_LIMIT).await {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volatile_journal_is_explained() {
        assert!(refusal(false, "No journal files were opened").contains("mkdir /var/log/journal"));
        assert_eq!(refusal(true, "broken"), "the journal cannot be read (broken)");
    }
}
