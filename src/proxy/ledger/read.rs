//! `usage.sqlite` for those who only look: also while the proxy writes, and while it does not run.

use std::{io, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, params};

use super::store::{StoreError, VERSION};
use crate::model::usage::Usage;

/// A writer that recovers the file after a crash is done within this time.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// What rows are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The day in the local time zone: `2026-01-31`.
    Day,
    /// The model that was asked for.
    Model,
    /// The provider that was asked last.
    Provider,
    /// `provider/model` that was asked last.
    Route,
}

impl Key {
    fn expression(self) -> &'static str {
        match self {
            Self::Day => "date(at, 'unixepoch', 'localtime')",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Route => "provider || '/' || upstream_model",
        }
    }
}

/// What is read of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The day, model, provider or route; `None` if the request did not get so far.
    pub key: Option<String>,
    /// As [`End::word`](super::store::End::word).
    pub outcome: String,
    /// Whether the built-in model answered.
    pub demo: bool,
    /// Whether a provider was asked.
    pub asked: bool,
    /// Tokens, if somebody counted them.
    pub usage: Option<Usage>,
    /// Until the first item, in milliseconds.
    pub first_ms: Option<u64>,
    /// What it cost, in millionths of a currency, and that.
    pub cost: Option<(u64, String)>,
}

/// The file, open to be read.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the file; `None` if there is none, or nothing was ever written to it.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(file: &Path) -> Result<Option<Self>, StoreError> {
        if let Err(source) = std::fs::File::open(file) {
            return match source.kind() {
                io::ErrorKind::NotFound => Ok(None),
                _ => Err(StoreError::File { what: "open it", source }),
            };
        }
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(file, flags)?;
            connection.busy_timeout(BUSY_MAX)?;
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok((connection, version))
        };
        match open().map_err(|source| StoreError::of("open it", source))? {
            (_, 0) => Ok(None),
            (connection, version) if usize::try_from(version).is_ok_and(|version| version <= VERSION) => {
                Ok(Some(Self { connection }))
            }
            (_, found) => Err(StoreError::Newer { found, known: VERSION }),
        }
    }

    /// Shows every row from `since_s` up to before `until_s`, in seconds since 1970, in the order in which they were
    /// written.
    ///
    /// # Errors
    /// It cannot be read to the end.
    pub fn each(&self, key: Key, since_s: u64, until_s: u64, mut show: impl FnMut(Seen)) -> Result<(), StoreError> {
        let mut read = || {
            let mut select = self.connection.prepare(&format!(
                "SELECT {}, outcome, provider IS 'demo', attempts > 0, input, cached, cache_write, output, reasoning,
                 estimated, first_ms, cost_micro, currency FROM requests WHERE at >= ?1 AND at < ?2 ORDER BY id",
                key.expression()
            ))?;
            let moment = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
            let mut rows = select.query(params![moment(since_s), moment(until_s)])?;
            while let Some(row) = rows.next()? {
                let count = |at: usize| row.get::<_, Option<i64>>(at).map(|number| number.map(i64::unsigned_abs));
                let usage = match count(4)? {
                    Some(input) => Some(Usage {
                        input,
                        cached: count(5)?.unwrap_or(0),
                        cache_write: count(6)?.unwrap_or(0),
                        output: count(7)?.unwrap_or(0),
                        reasoning: count(8)?.unwrap_or(0),
                        estimated: row.get::<_, Option<bool>>(9)?.unwrap_or(false),
                    }),
                    None => None,
                };
                show(Seen {
                    key: row.get(0)?,
                    outcome: row.get(1)?,
                    demo: row.get(2)?,
                    asked: row.get(3)?,
                    usage,
                    first_ms: count(10)?,
                    cost: count(11)?.zip(row.get(12)?),
                });
            }
            Ok(())
        };
        read().map_err(|source| StoreError::of("read it", source))
    }
}

/// The time zone of this process (`TZ`, else `/etc/localtime`), as SQLite knows it from the C library.
#[derive(Debug)]
pub struct LocalTime {
    connection: Connection,
}

impl LocalTime {
    /// Makes one.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory();
        connection.map(|connection| Self { connection }).map_err(|source| StoreError::of("tell the time", source))
    }

    /// Seconds since 1970 of `2026-01-31 12:00:00` here; `None` before 1970, or if it is no time.
    pub fn seconds(&self, text: &str) -> Option<u64> {
        let seconds =
            self.connection.query_row("SELECT unixepoch(?1, 'utc')", [text], |row| row.get::<_, Option<i64>>(0));
        u64::try_from(seconds.ok()??).ok()
    }

    /// The opposite, without seconds: `2026-01-31 12:00`.
    pub fn text(&self, seconds: u64) -> String {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let text = "SELECT strftime('%Y-%m-%d %H:%M', ?1, 'unixepoch', 'localtime')";
        self.connection.query_row(text, [seconds], |row| row.get(0)).unwrap_or_default()
    }
}
