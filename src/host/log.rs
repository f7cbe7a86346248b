//! Where log entries go: to the journal with their fields when the journal listens on standard error, else to standard
//! error as lines. And how an error is told.

use std::{
    env,
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use clap::ValueEnum;
use nix::sys::stat::fstat;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// The least important entries that are wanted, as an argument of the programs.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[expect(missing_docs, reason = "their names say all")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// Starts the log; call it once. `identifier`: the program's name in the journal.
pub fn start(level: Level, identifier: &str) {
    let level = LevelFilter::from(level);
    if standard_error_is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        // Without the prefix `MESSAGE_ID` is the journal's own; all other fields are named codex_… for that reason.
        let journal = journal.with_field_prefix(None).with_syslog_identifier(identifier.to_owned());
        tracing_subscriber::registry().with(level).with(journal).init();
        return;
    }
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// systemd.exec(5): `JOURNAL_STREAM` holds device and inode of the stream that leads to the journal; it is inherited by
/// children whose standard error may lead elsewhere, so it is compared.
fn standard_error_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = fstat(io::stderr().as_fd()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
