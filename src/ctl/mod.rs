//! `codex-proxyctl`: what a person (or Codex, for its token) runs by hand.
//!
//! Every command returns the text to print; `bin/codex-proxyctl.rs` prints it and turns a [`CtlError`] into an exit
//! code. Nothing here needs the proxy to run, but for `demo`, which is its client.
//!
//! The service is looked after through `systemctl --user` (`manager.rs`) and `GET /health` (`client.rs`); what they say
//! is judged in PURE files (`units.rs`, `doctor/judge.rs`). `status.rs` is the one place that looks. The watchdog is asked
//! over the bus (`watchdog.rs`); what it found and did is read from its files (`incidents.rs`), whether or not it runs, and so
//! is the record of usage (`usage.rs`). Providers are listed, added and tried (`providers/`), and asked for their models
//! (`models.rs`), by the proxy's own code within this program, whether or not the proxy runs.

pub mod catalogue;
pub mod client;
pub mod codex_config;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod incidents;
pub mod logs;
pub mod manager;
pub mod models;
pub mod port;
pub mod providers;
pub mod proxy_bus;
pub mod setup;
pub mod status;
pub mod times;
pub mod token;
pub mod units;
pub mod usage;
pub mod watchdog;

use std::io;
use std::path::Path;

/// What a command prints, and its exit code where success has degrees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// 0, 1 (trouble was found) or 3 (nothing runs).
    pub code: u8,
}

impl Outcome {
    /// Success.
    pub fn of(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Why a command ends without success, sorted by what its exit code says.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Exit code 1.
    #[error("{0}")]
    Unforeseen(String),
    /// The arguments do not go together, or one is missing. Exit code 2.
    #[error("{0}")]
    Arguments(String),
    /// A file or directory may not be read or written. Exit code 4.
    #[error("{0}")]
    Privileges(String),
    /// A configuration file (ours or Codex's) cannot be used as it is. Exit code 6.
    #[error("{0}")]
    Configuration(String),
}

impl CtlError {
    /// The exit code by which a script tells the kinds apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unforeseen(_) => 1,
            Self::Arguments(_) => 2,
            Self::Privileges(_) => 4,
            Self::Configuration(_) => 6,
        }
    }

    /// An input/output error while doing `what` to `path`.
    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("cannot {what} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Privileges(text),
            _ => Self::Unforeseen(text),
        }
    }
}

fn lines(report: &[String]) -> String {
    report.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// Columns as wide as they need, with their heads; the last one is not filled up.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column).unwrap_or_default()))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn json_line(report: &impl serde::Serialize) -> Result<String, CtlError> {
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n").map_err(|error| CtlError::Unforeseen(format!("no JSON: {error}")))
}

/// A new directory among the temporary files that only this user can enter.
pub(crate) fn fresh_temp_dir(name: &str) -> Result<std::path::PathBuf, CtlError> {
    use std::os::unix::fs::DirBuilderExt;
    let parent = std::env::temp_dir();
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| CtlError::Unforeseen(format!("no random numbers: {error}")))?;
    let dir = parent.join(format!("{name}-{:016x}", u64::from_ne_bytes(random)));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| CtlError::io("make", &dir, &error))?;
    Ok(dir)
}
