//! `responses.sqlite`: how sealed responses get in, are found, and in time go. Everything here blocks on the disk.

use std::{path::Path, time::Duration};

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use tracing::info;

use crate::proxy::database::{self, Database, Keeps, StoreError, integer};

/// See [`Database::open`]. Released ones never change.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE responses (
        number INTEGER PRIMARY KEY,         -- in the order in which they came
        id TEXT NOT NULL UNIQUE,            -- resp_…
        at INTEGER NOT NULL,                -- when it ended, in seconds since 1970
        bytes INTEGER NOT NULL,             -- of what is sealed
        sealed BLOB NOT NULL
    ) STRICT;
    CREATE INDEX responses_at ON responses (at);
"];

/// What is kept at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of each response, so long.
    pub keep: Duration,
    /// Of all together, so many bytes; the oldest go.
    pub bytes_max: u64,
}

impl Limits {
    /// Whether a response's time is over. One that seems to come from the future has just come: the clock was set back.
    pub fn is_over(&self, at_s: u64, now_s: u64) -> bool {
        now_s.saturating_sub(at_s) >= self.keep.as_secs()
    }
}

/// One response.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// `resp_…`
    pub id: &'a str,
    /// When it ended, in seconds since 1970.
    pub at_s: u64,
    /// Its content.
    pub sealed: &'a [u8],
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    database: Database,
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
    /// Opens the file, makes it if there is none, and brings it to this program's version. One of a newer version is
    /// deleted: it holds nothing that would not go within minutes.
    ///
    /// # Errors
    /// As [`StoreError`] says; a damaged file is left as it is.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let database = match Database::open(file, MIGRATIONS) {
            Err(newer @ StoreError::Newer { .. }) => {
                info!(codex_path = %file.display(), codex_why = %newer, "stored responses cannot be read, beginning anew");
                database::remove(file)?;
                Database::open(file, MIGRATIONS)?
            }
            opened => opened?,
        };
        // What is deleted is overwritten.
        let set = database.connection.execute_batch("PRAGMA secure_delete = ON");
        set.map_err(|source| StoreError::of("open it", source))?;
        Ok(Self { database })
    }

    /// Writes all of these, or none. One that has the id of an earlier one takes its place.
    ///
    /// # Errors
    /// As [`StoreError`] says; then none of them is in the file.
    pub fn append(&mut self, rows: &[Row<'_>]) -> Result<(), StoreError> {
        self.insert(rows).map_err(|source| StoreError::of("write to it", source))
    }

    fn insert(&mut self, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        let transaction = self.database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert =
            transaction.prepare("INSERT OR REPLACE INTO responses (id, at, bytes, sealed) VALUES (?1, ?2, ?3, ?4)")?;
        for row in rows {
            insert.execute(params![row.id, integer(row.at_s), integer(row.sealed.len() as u64), row.sealed])?;
        }
        insert.finalize()?;
        transaction.commit()
    }

    /// The content of a response whose time is not over.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn find(&self, id: &str, limits: Limits, now_s: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let select = "SELECT sealed, at FROM responses WHERE id = ?1";
        let found = self.database.connection.query_row(select, [id], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
        });
        let found = found.optional().map_err(|source| StoreError::of("read it", source))?;
        Ok(found.filter(|(_, at_s)| !limits.is_over(*at_s, now_s)).map(|(sealed, _)| sealed))
    }

    /// Deletes what is over or too much, dates what seems to come from the future to now, gives the room back, and gives when the oldest that is left came.
    ///
    /// # Errors
    /// As [`StoreError`] says; the next call tries again.
    pub fn prune(&mut self, limits: Limits, now_s: u64) -> Result<Option<u64>, StoreError> {
        self.delete(limits, now_s).map_err(|source| StoreError::of("shorten it", source))
    }

    fn delete(&self, limits: Limits, now_s: u64) -> rusqlite::Result<Option<u64>> {
        let connection = &self.database.connection;
        let mut deleted = 0;
        // The clock was set back: nothing stays longer for that.
        connection.execute("UPDATE responses SET at = ?1 WHERE at > ?1", [integer(now_s)])?;
        if let Some(latest) = now_s.checked_sub(limits.keep.as_secs()) {
            deleted += connection.execute("DELETE FROM responses WHERE at <= ?1", [integer(latest)])?;
        }
        // Those whose bytes and all that came later are too much together.
        deleted += connection.execute(
            "DELETE FROM responses WHERE number IN (SELECT number FROM (
                 SELECT number, sum(bytes) OVER (ORDER BY number DESC) AS together FROM responses
             ) WHERE together > ?1)",
            [integer(limits.bytes_max)],
        )?;
        if deleted > 0 {
            self.database.shrink()?;
            // Nor does it stay in the journal.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        let oldest = connection.query_row("SELECT min(at) FROM responses", [], |row| row.get::<_, Option<i64>>(0))?;
        Ok(oldest.map(|at| u64::try_from(at).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const LIMITS: Limits = Limits { keep: Duration::from_secs(600), bytes_max: 1000 };

    fn row<'a>(id: &'a str, at_s: u64, sealed: &'a [u8]) -> Row<'a> {
        Row { id, at_s, sealed }
    }

    fn has(store: &Store, id: &str, now_s: u64) -> bool {
        store.find(id, LIMITS, now_s).unwrap().is_some()
    }

    #[test]
    fn a_response_is_found_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("responses.sqlite");
        let mut store = Store::open(&file).unwrap();
        store.append(&[row("resp_1", 1000, b"one"), row("resp_2", 1100, b"two")]).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
        drop(store);
        let mut store = Store::open(&file).unwrap();
        assert_eq!(store.find("resp_1", LIMITS, 1599).unwrap().as_deref(), Some(b"one".as_slice()));
        assert!(!has(&store, "resp_1", 1600) && has(&store, "resp_2", 1600) && !has(&store, "resp_3", 1100));
        // The clock was set back.
        assert!(has(&store, "resp_1", 10));
        assert_eq!(store.prune(LIMITS, 1599).unwrap(), Some(1000));
        assert_eq!(store.prune(LIMITS, 1600).unwrap(), Some(1100));
        assert!(!has(&store, "resp_1", 1000), "it is not only hidden");
        assert_eq!(store.prune(LIMITS, 5000).unwrap(), None);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_stay_longer() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("responses.sqlite")).unwrap();
        store.append(&[row("resp_1", 90_000, b"one"), row("resp_2", 900, b"two")]).unwrap();
        assert_eq!(store.prune(LIMITS, 1000).unwrap(), Some(900));
        assert!(has(&store, "resp_1", 1599) && !has(&store, "resp_1", 1600));
    }

    #[test]
    fn the_file_of_a_newer_version_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("responses.sqlite");
        let mut store = Store::open(&file).unwrap();
        store.append(&[row("resp_1", 1000, b"one")]).unwrap();
        store.database.connection.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(store);
        let mut store = Store::open(&file).unwrap();
        assert!(!has(&store, "resp_1", 1000));
        store.append(&[row("resp_2", 1000, b"two")]).unwrap();
        assert!(has(&store, "resp_2", 1000));
    }

    #[test]
    fn the_oldest_go_when_it_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("responses.sqlite")).unwrap();
        let body = [0; 400];
        for n in 0..5 {
            store.append(&[row(&format!("resp_{n}"), 1000, &body)]).unwrap();
        }
        store.prune(LIMITS, 1000).unwrap();
        let left: Vec<bool> = (0..5).map(|n| has(&store, &format!("resp_{n}"), 1000)).collect();
        assert_eq!(left, [false, false, false, true, true]);
        // The same one again is not counted twice.
        store.append(&[row("resp_4", 1001, &body)]).unwrap();
        store.prune(LIMITS, 1001).unwrap();
        assert!(has(&store, "resp_3", 1001) && has(&store, "resp_4", 1001));
    }

    #[test]
    fn nothing_of_what_was_deleted_stays_in_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("responses.sqlite")).unwrap();
        store.append(&[row("resp_1", 1000, &b"MARKER".repeat(2000))]).unwrap();
        store.prune(Limits { bytes_max: u64::MAX, ..LIMITS }, 1700).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(memchr::memmem::find(&bytes, b"MARKER").is_none(), "{}", path.display());
        }
    }
}
