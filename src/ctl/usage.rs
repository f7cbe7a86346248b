//! `codex-proxyctl usage`: what was asked of the models, read from the record of usage. It works while the proxy writes and
//! while it does not run, and changes nothing.
//!
//! What the numbers mean and how they are told stands in `usage/telling.rs`.

mod telling;

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use self::telling::{Report, Tally};
use super::{CtlError, Outcome, json_line, times};
use crate::host::log::chain;
use crate::proxy::ledger::FILE;
pub use crate::proxy::ledger::read::Key;
use crate::proxy::ledger::read::{LocalTime, Reader};
use crate::proxy::ledger::store::StoreError;

/// Which requests, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a line is for.
    pub by: Key,
    /// From when, as [`times::moment_in`] reads it.
    pub since: String,
    /// Until before when; `None`: all that is there.
    pub until: Option<String>,
    /// For programs.
    pub json: bool,
}

/// The sums, one line for each day, model, provider or route.
pub fn usage(state: &Path, options: &Options) -> Result<Outcome, CtlError> {
    let file = state.join(FILE);
    let local = LocalTime::new().map_err(|error| unusable(&file, &error))?;
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now_us = u64::try_from(now_us).unwrap_or(u64::MAX);
    let zone = times::Zone { name: "local time", seconds: &|text| local.seconds(text) };
    let moment =
        |text: &str| times::moment_in(text, now_us, &zone).map(|us| us / 1_000_000).map_err(CtlError::Arguments);
    let since_s = moment(&options.since)?;
    let until_s = options.until.as_deref().map(moment).transpose()?;
    if until_s.is_some_and(|until_s| until_s <= since_s) {
        return Err(CtlError::Arguments("--until must be later than --since".to_owned()));
    }
    if file.is_dir() {
        let text = format!("cannot use {}: it is a directory; move it away", file.display());
        return Err(CtlError::Configuration(text));
    }
    let reader = Reader::open(&file).map_err(|error| unusable(&file, &error))?;
    let mut tally = Tally::default();
    if let Some(reader) = &reader {
        let read = reader.each(options.by, since_s, until_s.unwrap_or(u64::MAX), |row| tally.add(row));
        read.map_err(|error| unusable(&file, &error))?;
    }
    let report = Report::of(tally, options.by);
    if options.json {
        return json_line(&report.json(since_s, until_s)).map(Outcome::of);
    }
    if reader.is_none() {
        return Ok(Outcome::of(format!(
            "no usage is recorded yet: the proxy writes {} as it answers requests (codex-proxyctl demo makes some), \
             unless the configuration says `[usage] enabled = false`\n",
            file.display()
        )));
    }
    let since = local.text(since_s);
    let span = match until_s {
        Some(until_s) => format!("from {since} to {}", local.text(until_s)),
        None => format!("since {since}"),
    };
    Ok(Outcome::of(report.text(&span)))
}

fn unusable(file: &Path, error: &StoreError) -> CtlError {
    let mut text = format!("cannot use {}: {}", file.display(), chain(error));
    match error {
        StoreError::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            CtlError::Privileges(text)
        }
        StoreError::Damaged(_) => {
            text.push_str("; a running proxy sets it aside and begins a new one with the next request");
            CtlError::Configuration(text)
        }
        StoreError::File { .. } | StoreError::Database { .. } | StoreError::Newer { .. } => CtlError::Unforeseen(text),
    }
}
