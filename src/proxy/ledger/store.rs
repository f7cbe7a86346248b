//! `usage.sqlite`: what a row is, and how rows get in and, in time, out again. Everything here blocks on the disk.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{TransactionBehavior, params};

pub use crate::proxy::database::StoreError;
use crate::{
    model::{failure::FailureKind, usage::Usage},
    proxy::database::{Database, Keeps, integer},
};

/// Each entry brings the file from the version that is its index to the next. Released ones never change; columns are only
/// ever added.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,                -- when it came, in seconds since 1970
        request_id TEXT NOT NULL,
        model TEXT,                         -- as asked for; NULL: refused before that was known
        provider TEXT,                      -- that of the last attempt; NULL: there was none
        upstream_model TEXT,                -- the model's name there
        protocol TEXT,                      -- what is spoken there
        input INTEGER,                      -- tokens, caches included; NULL: nobody counted
        cached INTEGER,
        cache_write INTEGER,
        output INTEGER,                     -- reasoning included
        reasoning INTEGER,
        estimated INTEGER,                  -- 1: counted by us, from the size of texts
        first_ms INTEGER,                   -- until the first item; NULL: none came
        duration_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        outcome TEXT NOT NULL,              -- completed, incomplete, failed, cancelled, client_gone
        failure TEXT,                       -- the kind of failure, as in /metrics
        cost_micro INTEGER,                 -- in millionths of the currency; NULL: no price
        currency TEXT
    ) STRICT;
    CREATE INDEX requests_at ON requests (at);
"];
/// The version that this program writes.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Rows that one transaction deletes at most: the journal holds what they were on.
const DELETED_MAX: usize = 5000;
/// Between two looks for what is too old or too much.
const PRUNE_PAUSE: Duration = Duration::from_secs(3600);
/// A name of the client's is kept up to this length.
const NAME_CHARS_MAX: usize = 200;

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it came, in seconds since 1970.
    pub at_s: u64,
    /// `req_…`
    pub request_id: String,
    /// As the client named it; empty if it did not come so far.
    pub model: String,
    /// Where it was last tried.
    pub place: Option<Place>,
    /// Tokens, if somebody counted them.
    pub usage: Option<Usage>,
    /// Until the first item of the answer.
    pub first_after: Option<Duration>,
    /// From first byte to last.
    pub duration: Duration,
    /// Requests that were sent for it.
    pub attempts: u32,
    /// How it ended.
    pub end: End,
    /// What it cost, in millionths of a currency, and that.
    pub cost: Option<(u64, String)>,
}

/// Where a request was answered, or was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name in the configuration; `demo` for the built-in model.
    pub provider: String,
    /// The model's name there.
    pub model: String,
    /// What it is spoken to in.
    pub protocol: &'static str,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Completed,
    /// The model was cut short.
    Incomplete,
    /// With an error.
    Failed(FailureKind),
    /// Somebody on this machine cancelled it.
    Cancelled,
    /// The client went away.
    ClientGone,
}

impl End {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::ClientGone => "client_gone",
        }
    }

    fn failure(self) -> Option<&'static str> {
        match self {
            Self::Failed(kind) => Some(kind.row().code),
            Self::Completed | Self::Incomplete | Self::Cancelled | Self::ClientGone => None,
        }
    }
}

/// What is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of each row, so long.
    pub keep: Duration,
    /// So many rows.
    pub rows_max: u64,
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    database: Database,
    pruned: Option<Instant>,
}

impl Keeps for Store {
    fn at(file: &Path) -> Result<Self, StoreError> {
        Self::open(file)
    }

    fn database(&self) -> &Database {
        &self.database
    }
}

impl Store {
    /// Opens the file, makes it if there is none, and brings it to this program's version.
    ///
    /// # Errors
    /// As [`StoreError`] says; a damaged file is left as it is.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open(file, MIGRATIONS)?, pruned: None })
    }

    /// Reads all of it, a matter of some hundred milliseconds for the largest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), StoreError> {
        self.database.check()
    }

    /// Writes all of these rows, or none.
    ///
    /// # Errors
    /// As [`StoreError`] says; then none of them is in the file.
    pub fn append(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        self.insert(rows).map_err(|source| StoreError::of("write to it", source))
    }

    fn insert(&mut self, rows: &[Row]) -> rusqlite::Result<()> {
        let transaction = self.database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = transaction.prepare(
            "INSERT INTO requests (at, request_id, model, provider, upstream_model, protocol, input, cached,
             cache_write, output, reasoning, estimated, first_ms, duration_ms, attempts, outcome, failure, cost_micro,
             currency) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?;
        for row in rows {
            let model: String = row.model.chars().take(NAME_CHARS_MAX).collect();
            let upstream_model: Option<String> =
                row.place.as_ref().map(|place| place.model.chars().take(NAME_CHARS_MAX).collect());
            let usage = row.usage.as_ref();
            insert.execute(params![
                integer(row.at_s),
                row.request_id,
                Some(model).filter(|model| !model.is_empty()),
                row.place.as_ref().map(|place| place.provider.as_str()),
                upstream_model,
                row.place.as_ref().map(|place| place.protocol),
                usage.map(|usage| integer(usage.input)),
                usage.map(|usage| integer(usage.cached)),
                usage.map(|usage| integer(usage.cache_write)),
                usage.map(|usage| integer(usage.output)),
                usage.map(|usage| integer(usage.reasoning)),
                usage.map(|usage| usage.estimated),
                row.first_after.map(milliseconds),
                milliseconds(row.duration),
                row.attempts,
                row.end.word(),
                row.end.failure(),
                row.cost.as_ref().map(|(micro, _)| integer(*micro)),
                row.cost.as_ref().map(|(_, currency)| currency.as_str()),
            ])?;
        }
        insert.finalize()?;
        transaction.commit()
    }

    /// Deletes what is too old or too much and gives the room back, unless that was done a moment ago.
    ///
    /// # Errors
    /// As [`StoreError`] says; the next call tries again.
    pub fn prune(&mut self, limits: Limits, now_s: u64) -> Result<(), StoreError> {
        if self.pruned.is_some_and(|at| at.elapsed() < PRUNE_PAUSE) {
            return Ok(());
        }
        self.delete(limits, now_s).map_err(|source| StoreError::of("shorten it", source))?;
        self.pruned = Some(Instant::now());
        Ok(())
    }

    fn delete(&self, limits: Limits, now_s: u64) -> rusqlite::Result<()> {
        let mut deleted = false;
        // Numbers only grow, and go from the low end alone.
        let conditions = [
            ("at < ?1", integer(now_s.saturating_sub(limits.keep.as_secs()))),
            ("id <= (SELECT max(id) FROM requests) - ?1", integer(limits.rows_max)),
        ];
        for (condition, value) in conditions {
            let delete = format!(
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE {condition} LIMIT {DELETED_MAX})"
            );
            loop {
                let count = self.database.connection.execute(&delete, params![value])?;
                deleted |= count > 0;
                if count < DELETED_MAX {
                    break;
                }
            }
        }
        if deleted {
            self.database.shrink()?;
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::proxy::database::set_aside;

    const DAY_S: u64 = 86_400;
    const ALL: Limits = Limits { keep: Duration::from_secs(400 * DAY_S), rows_max: 1_000_000 };

    fn row(at_s: u64) -> Row {
        Row {
            at_s,
            request_id: format!("req_{at_s:032x}"),
            model: "work".to_owned(),
            place: Some(Place { provider: "up".to_owned(), model: "m".to_owned(), protocol: "chat" }),
            usage: Some(Usage { input: u64::MAX, output: 7, ..Usage::default() }),
            first_after: Some(Duration::from_millis(250)),
            duration: Duration::from_secs(2),
            attempts: 1,
            end: End::Failed(FailureKind::Timeout),
            cost: Some((12, "USD".to_owned())),
        }
    }

    fn times(store: &Store) -> Vec<i64> {
        let mut select = store.database.connection.prepare("SELECT at FROM requests ORDER BY id").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn rows_outlive_the_process_in_a_file_of_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/usage.sqlite");
        let mut store = Store::open(&file).unwrap();
        store.check().unwrap();
        store.append(&[row(1), row(2)]).unwrap();
        for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        drop(store);
        assert!(!file.with_file_name("usage.sqlite-wal").exists(), "the journal is merged");
        let mut store = Store::open(&file).unwrap();
        store.append(&[row(3)]).unwrap();
        assert_eq!(times(&store), [1, 2, 3]);
        let found = store.database.connection.query_row(
            "SELECT provider || upstream_model || protocol || outcome || failure || currency, input, first_ms
             FROM requests WHERE at = 1",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
        );
        assert_eq!(found.unwrap(), ("upmchatfailedupstream_timeoutUSD".to_owned(), i64::MAX, 250));
        assert!(store.database.is_at(&file));
        fs::remove_file(&file).unwrap();
        assert!(!store.database.is_at(&file));
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_the_file_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usage.sqlite");
        let mut store = Store::open(&file).unwrap();
        // More than one transaction deletes.
        let rows: Vec<Row> = (0..12_000).map(row).collect();
        store.append(&rows).unwrap();
        let pages = |store: &Store| -> i64 {
            store.database.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
        };
        let before = pages(&store);
        store.prune(Limits { keep: Duration::from_secs(1000), rows_max: 1_000_000 }, 12_000).unwrap();
        assert_eq!(times(&store), (11_000..12_000).collect::<Vec<i64>>());
        assert!(pages(&store) * 5 < before, "{} of {before}", pages(&store));
        // Not again for a while.
        store.prune(Limits { rows_max: 1, ..ALL }, 12_000).unwrap();
        assert_eq!(times(&store).len(), 1000);
        store.pruned = None;
        store.prune(Limits { rows_max: 10, ..ALL }, 12_000).unwrap();
        assert_eq!(times(&store), (11_990..12_000).collect::<Vec<i64>>());
        drop(store);
        assert!(fs::metadata(&file).unwrap().len() < 100_000);
    }

    #[test]
    fn a_damaged_file_is_told_from_one_that_cannot_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usage.sqlite");
        fs::write(&file, [b'x'; 5000]).unwrap();
        let error = Store::open(&file).unwrap_err();
        assert!(error.is_damage(), "{error}");
        fs::write(dir.path().join("usage.sqlite-wal"), "of the old one").unwrap();
        let aside = set_aside(&file).unwrap();
        assert_eq!(aside, dir.path().join("usage.sqlite.corrupt-1"));
        assert_eq!(fs::read(aside).unwrap(), [b'x'; 5000]);
        assert!(dir.path().join("usage.sqlite.corrupt-1-wal").exists());
        Store::open(&file).unwrap().append(&[row(1)]).unwrap();

        // A page in the middle: only reading all of it shows that.
        let mut store = Store::open(&file).unwrap();
        store.append(&(0..1000).map(row).collect::<Vec<_>>()).unwrap();
        drop(store);
        let mut bytes = fs::read(&file).unwrap();
        bytes[20 * 4096..21 * 4096].fill(0x5a);
        fs::write(&file, bytes).unwrap();
        let error = Store::open(&file).unwrap().check().unwrap_err();
        assert!(error.is_damage(), "{error}");

        let directory = dir.path().join("directory");
        fs::create_dir(&directory).unwrap();
        let error = Store::open(&directory).unwrap_err();
        assert!(matches!(error, StoreError::File { .. }), "{error}");
    }

    #[test]
    fn a_newer_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usage.sqlite");
        let store = Store::open(&file).unwrap();
        store.database.connection.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(store);
        let error = Store::open(&file).unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found: 99, known: VERSION }) && error.to_string().contains("newer"),
            "{error}"
        );
    }
}
