//! A database of ours: one SQLite file in the state directory, with what its users share. Everything here blocks on the
//! disk.
//!
//! The file has a write-ahead journal (`NAME-wal`, `NAME-shm`): a transaction is one append, which is synced only when the
//! journal is merged, and readers wait for nobody. A process that is killed leaves whole transactions; a machine that
//! loses power may lose the last minutes, never the file (<https://sqlite.org/wal.html>, read 2026-11-21). What is damaged
//! is set aside, and a new file begun.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tracing::warn;

use crate::host::{files, log::chain};

/// Somebody else is at the file for so long at most, such as another proxy.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system says no.
    #[error("cannot {what}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The database says no.
    #[error("cannot {what}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// It is no database, or not whole.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It is from another version of this program.
    #[error("it was written by a newer codex-proxy (format {found}, this one knows {known})")]
    Newer {
        /// Its version.
        found: i64,
        /// The newest one that is known.
        known: usize,
    },
}

impl StoreError {
    pub(super) fn of(what: &'static str, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(source.to_string()),
            _ => Self::Database { what, source },
        }
    }

    /// Whether only a new file helps.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

/// The open file.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    /// Device and inode.
    identity: (u64, u64),
}

impl Database {
    /// Opens the file, makes it if there is none, and brings it to the version that `migrations` end in: each entry brings
    /// it from the version that is its index to the next.
    ///
    /// # Errors
    /// As [`StoreError`] says; a damaged file is left as it is.
    pub fn open(file: &Path, migrations: &[&str]) -> Result<Self, StoreError> {
        let prepare = || {
            if let Some(directory) = file.parent() {
                files::create_private_dir(directory)?;
            }
            // By us, for SQLite would make it readable to others. Its journals get the same mode.
            let handle =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file)?;
            files::make_private(file, 0o600)?;
            handle.metadata()
        };
        let metadata = prepare().map_err(|source| StoreError::File { what: "open it", source })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let mut connection = Connection::open_with_flags(file, flags)?;
            connection.busy_timeout(BUSY_MAX)?;
            // Half a megabyte of pages at most; a file can shrink without being rewritten, if that is said before it has
            // tables; a journal of a megabyte.
            connection.execute_batch(
                "PRAGMA cache_size = -512; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 256; PRAGMA journal_size_limit = 1048576;
                 PRAGMA trusted_schema = OFF;",
            )?;
            let found = migrate(&mut connection, migrations)?;
            Ok((connection, found))
        };
        let (connection, found) = open().map_err(|source| StoreError::of("open it", source))?;
        let known = migrations.len();
        if usize::try_from(found).is_ok_and(|found| found <= known) {
            return Ok(Self { connection, identity: (metadata.dev(), metadata.ino()) });
        }
        Err(StoreError::Newer { found, known })
    }

    /// Whether this is the file of that name.
    pub fn is_at(&self, file: &Path) -> bool {
        fs::metadata(file).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    /// Reads all of it, a matter of some hundred milliseconds for the largest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first thing that is wrong.
    pub fn check(&self) -> Result<(), StoreError> {
        let check = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match check.map_err(|source| StoreError::of("read it", source))? {
            text if text == "ok" => Ok(()),
            text => Err(StoreError::Damaged(text)),
        }
    }

    /// Gives the room of what was deleted back.
    pub(super) fn shrink(&self) -> rusqlite::Result<()> {
        // A page a step.
        let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        Ok(())
    }
}

/// What keeps something in a [`Database`].
pub(super) trait Keeps: Sized {
    /// Opens the file, or makes it.
    fn at(file: &Path) -> Result<Self, StoreError>;
    /// Where it keeps it.
    fn database(&self) -> &Database;
}

/// A file that is opened when it is needed.
#[derive(Debug)]
pub(super) struct Holder<S> {
    pub(super) file: PathBuf,
    store: Option<S>,
    /// It was read through for damage.
    checked: bool,
}

impl<S: Keeps> Holder<S> {
    /// Of that file, which is not looked at yet.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, store: None, checked: false }
    }

    /// The same, closed: what stands here while the other one is at work.
    pub(super) fn without_file(&self) -> Self {
        Self { file: self.file.clone(), store: None, checked: self.checked }
    }

    /// Whether the file is open.
    pub(super) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// What is open, to be closed. That merges the journal, which waits for the disk.
    pub(super) fn take(&mut self) -> Option<S> {
        self.store.take()
    }

    /// Does something with the open file; with a new one if it turns out to be damaged.
    pub(super) fn with<T>(&mut self, mut act: impl FnMut(&mut S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.once(&mut act) {
            Err(error) if error.is_damage() => {
                self.store = None;
                let aside = set_aside(&self.file)?;
                warn!(
                    codex_path = %self.file.display(),
                    codex_aside = %aside.display(),
                    codex_error = chain(&error),
                    "a file was damaged; it is set aside and a new one begun"
                );
                self.once(&mut act)
            }
            result => result,
        }
    }

    fn once<T>(&mut self, act: &mut impl FnMut(&mut S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // Who deletes the file wants a new one.
        let store = match self.store.take().filter(|store| store.database().is_at(&self.file)) {
            Some(store) => store,
            None => {
                let store = S::at(&self.file)?;
                if !self.checked {
                    store.database().check()?;
                    self.checked = true;
                }
                store
            }
        };
        act(self.store.insert(store))
    }
}

/// Brings the tables to this program's version, and gives the version that they have then.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<i64> {
    let known = migrations.len();
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    // Without the lock that writing takes, as long as there is nothing to write.
    if version(connection)? >= integer(known as u64) {
        return version(connection);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    let from = usize::try_from(version(&transaction)?).unwrap_or(known);
    for migration in migrations.iter().skip(from) {
        transaction.execute_batch(migration)?;
    }
    if from < known {
        transaction.execute_batch(&format!("PRAGMA user_version = {known}"))?;
    }
    let found = version(&transaction)?;
    transaction.commit()?;
    Ok(found)
}

/// Moves a damaged file out of the way, with its journal, which belongs to no other, and gives its new name.
///
/// # Errors
/// It cannot be moved.
pub fn set_aside(file: &Path) -> Result<PathBuf, StoreError> {
    let moved = || {
        let aside = files::set_aside(file)?;
        absent_is_well(fs::rename(journal(file, "-wal"), journal(&aside, "-wal")))?;
        absent_is_well(fs::remove_file(journal(file, "-shm")))?;
        Ok(aside)
    };
    moved().map_err(|source| StoreError::File { what: "set it aside", source })
}

/// Deletes a file that nobody needs, with its journal.
pub(super) fn remove(file: &Path) -> Result<(), StoreError> {
    let paths = [file.to_owned(), journal(file, "-wal"), journal(file, "-shm")];
    let removed: io::Result<()> = paths.into_iter().try_for_each(|path| absent_is_well(fs::remove_file(path)));
    removed.map_err(|source| StoreError::File { what: "delete it", source })
}

fn journal(file: &Path, end: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(end);
    file.with_file_name(name)
}

fn absent_is_well(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// As SQLite has numbers.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
