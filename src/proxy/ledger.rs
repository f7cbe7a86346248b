//! The usage ledger: one row for each exchange, on its way to `usage.sqlite`.
//!
//! ```text
//!  Story ends ─► record: queue, never waits ─► keep: gathers for two seconds ─► store: one transaction
//!                   └ full: dropped, counted       └ cannot write: told, tried again later
//! ```
//! An exchange never waits for the disk, and nothing that is wrong with the file stops one. `store.rs` writes,
//! `read.rs` reads for `codex-proxyctl usage`. No prompt, no answer and no key is in a row.

pub mod read;
pub mod store;

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};
use tracing::{debug, info, warn};

use self::store::{Limits, Row, Store, StoreError};
use super::database::Holder;
use crate::host::log::chain;

/// The file's name in the state directory.
pub const FILE: &str = "usage.sqlite";
/// When the program stops, what waits gets this long to reach the disk.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Rows that wait while the disk does not take them, some 300 bytes each. More are dropped, the newest ones: those that
/// wait are a whole story up to the moment when it broke.
const WAITING_MAX: usize = 2048;
/// Rows of one transaction.
const BATCH_ROWS_MAX: usize = 256;
/// How long rows are gathered: a transaction costs the same for one as for many.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };
/// The longest pause, to which it doubles while nothing can be written.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The file is closed when nothing came for so long: then its memory is free and its journal merged.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The queue and what became of it.
#[derive(Debug)]
pub struct Ledger {
    /// Empty until somebody keeps what is recorded.
    queue: OnceLock<mpsc::Sender<Row>>,
    closing: watch::Sender<bool>,
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            queue: OnceLock::new(),
            closing: watch::Sender::new(false),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Ledger {
    /// Queues a row, or drops it if too many wait. Nothing is made where nobody keeps them.
    pub fn record(&self, row: impl FnOnce() -> Row) {
        if let Some(queue) = self.queue.get() {
            match queue.try_reserve() {
                Ok(place) => place.send(row()),
                Err(_) => self.lost(1),
            }
        }
    }

    /// Lets [`keep`] write what waits and end.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Rows that are in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Rows that never got there.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn lost(&self, rows: usize) {
        self.dropped.fetch_add(rows as u64, Relaxed);
    }
}

/// Whose ledger it is.
pub trait Owner: Send + Sync + 'static {
    /// The queue.
    fn ledger(&self) -> &Ledger;
    /// How much of it is kept, as it is configured now.
    fn limits(&self) -> Limits;
    /// What keeps usage from being recorded; `None`: that is over.
    fn trouble(&self, trouble: Option<&str>);
}

/// Writes what is recorded into the file in `state`, until [`Ledger::close`]. Rows are taken from this call on; the file is
/// opened for the first of them. `None` if somebody keeps them already.
pub fn keep<O: Owner>(owner: Arc<O>, state: &Path) -> Option<impl Future<Output = ()> + Send + use<O>> {
    let (sender, rows) = mpsc::channel(WAITING_MAX);
    owner.ledger().queue.set(sender).ok()?;
    let keeper = Keeper {
        closing: owner.ledger().closing.subscribe(),
        owner,
        rows,
        holder: Holder::new(state.join(FILE)),
        batch: Vec::new(),
        lost_before: None,
    };
    Some(keeper.run())
}

struct Keeper<O> {
    owner: Arc<O>,
    closing: watch::Receiver<bool>,
    rows: mpsc::Receiver<Row>,
    holder: Holder<Store>,
    /// What the file has not taken yet.
    batch: Vec<Row>,
    /// While it cannot be written: how many rows had been lost before.
    lost_before: Option<u64>,
}

impl<O: Owner> Keeper<O> {
    async fn run(mut self) {
        let mut pause = PAUSE;
        while self.first().await {
            self.gather(pause).await;
            let last = self.rows.is_closed();
            match self.write().await {
                Ok(()) => pause = PAUSE,
                Err(()) if last => break,
                Err(()) => pause = (2 * pause).min(PAUSE_MAX),
            }
        }
        let left = self.batch.len() + self.rows.len();
        if left > 0 {
            self.owner.ledger().lost(left);
            warn!(codex_rows = left, "stopping with requests that are not in the record of usage");
        }
        self.close_file().await;
    }

    /// Waits until there is something to write; false at the end.
    async fn first(&mut self) -> bool {
        while self.batch.is_empty() {
            tokio::select! {
                biased;
                row = self.rows.recv() => match row {
                    Some(row) => self.batch.push(row),
                    None => return false,
                },
                () = said(&mut self.closing), if !self.rows.is_closed() => self.rows.close(),
                () = sleep(IDLE_MAX), if self.holder.is_open() => self.close_file().await,
            }
        }
        true
    }

    /// Gathers for so long, or as much as one transaction takes; at the end, what is there.
    async fn gather(&mut self, pause: Duration) {
        let mut pause = std::pin::pin!(sleep(pause));
        loop {
            let room = BATCH_ROWS_MAX.saturating_sub(self.batch.len());
            if room == 0 && (self.lost_before.is_none() || self.rows.is_closed()) {
                return;
            }
            tokio::select! {
                biased;
                () = said(&mut self.closing), if !self.rows.is_closed() => self.rows.close(),
                count = self.rows.recv_many(&mut self.batch, room), if room > 0 => if count == 0 { return },
                () = &mut pause => return,
            }
        }
    }

    async fn write(&mut self) -> Result<(), ()> {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len();
        let limits = self.owner.limits();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let without = self.holder.without_file();
        let mut holder = std::mem::replace(&mut self.holder, without);
        let writing = spawn_blocking(move || {
            let result = holder.with(|store| append(store, &batch, limits, now_s));
            (holder, batch, result)
        });
        let Ok((holder, batch, result)) = writing.await else {
            // A defect; its text is in the log already.
            self.owner.ledger().lost(count);
            return Ok(());
        };
        self.holder = holder;
        match result {
            Ok(()) => {
                self.owner.ledger().written.fetch_add(count as u64, Relaxed);
                debug!(codex_rows = count, "usage recorded");
                if let Some(lost_before) = self.lost_before.take() {
                    let lost = self.owner.ledger().dropped() - lost_before;
                    self.owner.trouble(None);
                    info!(codex_rows_lost = lost, "usage is recorded again");
                }
                Ok(())
            }
            Err(error) => {
                self.batch = batch;
                let (text, path) = (chain(&error), self.holder.file.display());
                // Each time, for a reload may have made the state another one.
                self.owner.trouble(Some(&format!("{path}: {text}")));
                if self.lost_before.is_none() {
                    self.lost_before = Some(self.owner.ledger().dropped());
                    warn!(codex_path = %path, codex_error = text, "cannot record usage, serving without and trying again");
                }
                Err(())
            }
        }
    }

    async fn close_file(&mut self) {
        if let Some(store) = self.holder.take() {
            // Merges the journal, which waits for the disk.
            drop(spawn_blocking(move || drop(store)).await);
        }
    }
}

/// Waits until it is true.
async fn said(closing: &mut watch::Receiver<bool>) {
    // An error means that the owner is gone, which is as good.
    drop(closing.wait_for(|closing| *closing).await);
}

/// Appends rows, and deletes old ones when it is time.
fn append(store: &mut Store, batch: &[Row], limits: Limits, now_s: u64) -> Result<(), StoreError> {
    store.append(batch)?;
    // The rows are in; what cannot be deleted now can be later.
    if let Err(error) = store.prune(limits, now_s) {
        warn!(codex_error = chain(&error), "cannot delete old rows from the record of usage, trying again later");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        store::{End, Place},
        *,
    };

    #[derive(Default)]
    struct Home {
        ledger: Ledger,
        trouble: watch::Sender<Option<String>>,
    }

    impl Owner for Home {
        fn ledger(&self) -> &Ledger {
            &self.ledger
        }

        fn limits(&self) -> Limits {
            Limits { keep: Duration::from_secs(400 * 86_400), rows_max: 500_000 }
        }

        fn trouble(&self, trouble: Option<&str>) {
            self.trouble.send_replace(trouble.map(str::to_owned));
        }
    }

    fn home() -> Arc<Home> {
        Arc::default()
    }

    fn row() -> Row {
        Row {
            at_s: 1_795_240_000,
            request_id: "req_1".to_owned(),
            model: "work".to_owned(),
            place: Some(Place { provider: "up".to_owned(), model: "m".to_owned(), protocol: "chat" }),
            usage: None,
            first_after: None,
            duration: Duration::ZERO,
            attempts: 1,
            end: End::Completed,
            cost: None,
        }
    }

    fn rows_in(file: &Path) -> i64 {
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn more_than_can_wait_is_dropped_and_counted() {
        let home = home();
        home.ledger().record(|| panic!("nobody keeps it"));
        let dir = tempfile::tempdir().unwrap();
        let keeping = keep(Arc::clone(&home), dir.path()).unwrap();
        assert!(keep(Arc::clone(&home), dir.path()).is_none(), "the first one keeps");
        for _ in 0..WAITING_MAX + 7 {
            home.ledger().record(row);
        }
        assert_eq!(home.ledger().dropped(), 7);
        home.ledger().close();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(keeping);
        assert_eq!(home.ledger().written(), WAITING_MAX as u64);
        assert_eq!(rows_in(&dir.path().join(FILE)), i64::try_from(WAITING_MAX).unwrap());
        home.ledger().record(row);
        assert_eq!(home.ledger().dropped(), 8, "after the end nobody keeps them either");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_tried_again_and_told_meanwhile() {
        let home = home();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        std::fs::create_dir(&file).unwrap();
        let keeping = tokio::spawn(keep(Arc::clone(&home), dir.path()).unwrap());
        home.ledger().record(row);
        let mut trouble = home.trouble.subscribe();
        let path = file.display().to_string();
        trouble.wait_for(|told| told.as_ref().is_some_and(|why| why.starts_with(&path))).await.unwrap();
        std::fs::remove_dir(&file).unwrap();
        home.ledger().record(row);
        trouble.wait_for(Option::is_none).await.unwrap();
        assert_eq!((rows_in(&file), home.ledger().dropped()), (2, 0));

        // Who deletes it gets a new one.
        std::fs::remove_file(&file).unwrap();
        home.ledger().record(row);
        home.ledger().close();
        keeping.await.unwrap();
        assert_eq!((rows_in(&file), home.ledger().written()), (1, 3));
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_a_disk_that_takes_nothing() {
        let home = home();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let keeping = keep(Arc::clone(&home), dir.path()).unwrap();
        for _ in 0..BATCH_ROWS_MAX + 1 {
            home.ledger().record(row);
        }
        home.ledger().close();
        keeping.await;
        assert_eq!(home.ledger().dropped(), BATCH_ROWS_MAX as u64 + 1);
    }
}
