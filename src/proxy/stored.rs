//! Responses that a later request may continue (`previous_response_id`), sealed, in memory and in `responses.sqlite`.
//!
//! ```text
//! an exchange ends ─► put: in memory ─► tend: writes at once ─► on disk, and out of memory
//!                        │                 └ cannot write: told, tried again later      │
//! a later request ─► find ◄───────────────────────────────────────────────────────────┘
//! ```
//! A response is in memory before its end is told, so a client that goes on at once finds it, and no exchange waits for
//! a write. One that names a response which is not in memory waits for it to be read, for a while. What is lost with a
//! process that is killed is what came in the milliseconds before. Responses whose request says `store: false` do not
//! come here; while there are none there is no file.

pub mod store;

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Mutex as Queue, Notify, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use self::store::{Limits, Row, Store};
use super::{
    database::{Holder, StoreError},
    service::{READING_TROUBLE, STORED_TROUBLE, Service},
};
use crate::{
    codec::stored::Kept,
    host::log::chain,
    model::failure::{Failure, FailureKind},
};

/// The file's name in the state directory.
pub const FILE: &str = "responses.sqlite";
/// When the program stops, what waits gets this long to reach the disk.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a response can be continued, and how much is kept of all together. Programs that name responses do so within
/// a conversation; who comes back later sends the whole of it.
pub const LIMITS: Limits = Limits { keep: Duration::from_secs(600), bytes_max: 64 * 1024 * 1024 };
/// What waits for the disk, in bytes: more than two of the largest. The oldest go.
const WAITING_BYTES_MAX: usize = 20 * 1024 * 1024;
/// A request waits so long at most for the response it continues, together with those that wait before it.
const FIND_TIME_MAX: Duration = Duration::from_secs(3);
/// While nothing can be written: the first pause, and the longest, to which it doubles.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The clock of the machine is looked at so often, since it can be set.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// What is kept, wherever it is.
#[derive(Debug)]
pub struct Responses {
    waiting: Mutex<Waiting>,
    more: Notify,
    closing: watch::Sender<bool>,
    /// Empty until somebody tends the file.
    file: OnceLock<Shared>,
    /// The last look into the file failed.
    unreadable: AtomicBool,
}

/// The file. Who waits for another to be done with it does so without a thread: that one may be at a disk that does not
/// answer.
#[derive(Debug, Clone)]
struct Shared {
    path: PathBuf,
    holder: Arc<Queue<Holder<Store>>>,
}

impl Shared {
    /// Does something with it that may block. `None`: a defect ended it, whose text is in the log.
    async fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Holder<Store>) -> T + Send + 'static) -> Option<T> {
        let mut holder = Arc::clone(&self.holder).lock_owned().await;
        spawn_blocking(move || act(&mut holder)).await.ok()
    }
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            more: Notify::new(),
            closing: watch::Sender::new(false),
            file: OnceLock::new(),
            unreadable: AtomicBool::new(false),
        }
    }
}

/// What is not on disk yet, in the order in which it came.
#[derive(Debug, Default)]
struct Waiting {
    entries: BTreeMap<u64, Arc<Entry>>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    id: String,
    at_s: u64,
    sealed: Vec<u8>,
}

impl Waiting {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.sealed.len();
        self.entries.insert(self.next, Arc::new(entry));
        self.next += 1;
        while self.bytes > WAITING_BYTES_MAX
            && let Some((_, oldest)) = self.entries.pop_first()
        {
            self.bytes -= oldest.sealed.len();
        }
    }

    fn remove_all(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            if let Some(entry) = self.entries.remove(&number) {
                self.bytes -= entry.sealed.len();
            }
        }
    }

    fn forget_old(&mut self, now_s: u64) {
        let over = self.entries.iter().filter(|(_, entry)| LIMITS.is_over(entry.at_s, now_s));
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        self.remove_all(over);
    }
}

impl Responses {
    /// Keeps a response; [`Responses::find`] finds it from now on.
    pub fn put(&self, service: &Service, id: &str, kept: &Kept, now: SystemTime) {
        let nonce = service.random_bytes();
        let Some(sealed) = kept.seal(id, service.sealer(), nonce) else {
            info!(codex_response_id = id, codex_bytes = kept.items.len(), "a response is too long to be stored");
            return;
        };
        self.waiting().push(Entry { id: id.to_owned(), at_s: seconds(now), sealed });
        self.more.notify_one();
    }

    /// A response that was kept and whose time is not over.
    ///
    /// # Errors
    /// It cannot be looked for now, which says nothing of whether it is there.
    pub async fn find(&self, service: &Service, id: &str, now: SystemTime) -> Result<Option<Kept>, Failure> {
        let now_s = seconds(now);
        let waits = self.waiting().entries.values().rev().find(|entry| entry.id == id).map(Arc::clone);
        let sealed = match waits {
            Some(entry) if LIMITS.is_over(entry.at_s, now_s) => None,
            Some(entry) => Some(entry.sealed.clone()),
            None => self.read(service, id, now_s).await?,
        };
        let Some(sealed) = sealed else { return Ok(None) };
        let kept = Kept::open(id, &sealed, service.sealer());
        if kept.is_none() {
            warn!(
                codex_response_id = id,
                "a stored response cannot be opened: it is damaged, or opaque.key is another one"
            );
        }
        Ok(kept)
    }

    async fn read(&self, service: &Service, id: &str, now_s: u64) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = self.file.get() else { return Ok(None) };
        let wanted = id.to_owned();
        let reading = file.with(move |holder| {
            let exists = holder.file.try_exists();
            if !exists.map_err(|source| StoreError::File { what: "look for it", source })? {
                return Ok(None);
            }
            let was_open = holder.is_open();
            let found = holder.with(|store| store.find(&wanted, LIMITS, now_s));
            if !was_open {
                drop(holder.take());
            }
            found
        });
        let trouble = match timeout(FIND_TIME_MAX, reading).await {
            Ok(Some(Ok(found))) => {
                self.can_be_read(service);
                return Ok(found);
            }
            Ok(Some(Err(error))) => chain(&error),
            Ok(None) => "a defect ended it".to_owned(),
            Err(_) => format!("nothing came for {} s", FIND_TIME_MAX.as_secs_f32()),
        };
        let path = file.path.display().to_string();
        service.set_trouble(READING_TROUBLE, Some(&format!("{path}: {trouble}")));
        if !self.unreadable.swap(true, Relaxed) {
            warn!(
                codex_path = path,
                codex_error = trouble,
                "cannot read stored responses, refusing what continues one"
            );
        }
        let message = "The stored response that this request continues cannot be read at present; try again.";
        Err(Failure::new(FailureKind::OwnLimit, message))
    }

    fn can_be_read(&self, service: &Service) {
        if self.unreadable.swap(false, Relaxed) {
            service.set_trouble(READING_TROUBLE, None);
            info!("stored responses can be read again");
        }
    }

    /// Lets [`tend`] write what waits and end.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Writes what is kept into the file in `state`, and deletes what is over, beginning with what an earlier run left, until
/// [`Responses::close`]. `None` if somebody does already.
pub fn tend(service: Arc<Service>, state: &Path) -> Option<impl Future<Output = ()> + Send + use<>> {
    let path = state.join(FILE);
    let file = Shared { holder: Arc::new(Queue::new(Holder::new(path.clone()))), path };
    service.responses().file.set(file.clone()).ok()?;
    let closing = service.responses().closing.subscribe();
    Some(Tender { service, file, closing, due: None, pause: None }.run())
}

struct Tender {
    service: Arc<Service>,
    file: Shared,
    closing: watch::Receiver<bool>,
    /// When the oldest in the file came.
    due: Option<u64>,
    /// While it cannot be written.
    pause: Option<Duration>,
}

impl Tender {
    async fn run(mut self) {
        // What an earlier run left.
        self.write().await;
        loop {
            let responses = self.service.responses();
            let look = self.look();
            tokio::select! {
                biased;
                () = said(&mut self.closing) => break,
                () = responses.more.notified(), if self.pause.is_none() => {}
                () = sleep(look.unwrap_or(LOOK_MAX)), if look.is_some() => {}
            }
            self.write().await;
        }
        self.write().await;
        let left = self.service.responses().waiting().entries.len();
        if left > 0 {
            warn!(codex_responses = left, "stopping with responses that are not stored");
        }
        self.close_file().await;
    }

    /// Until there is something to do that nobody says.
    fn look(&self) -> Option<Duration> {
        let over = self.due.map(|at_s| {
            let now_s = seconds(SystemTime::now());
            Duration::from_secs((at_s + LIMITS.keep.as_secs()).saturating_sub(now_s)).clamp(PAUSE, LOOK_MAX)
        });
        self.pause.or(over)
    }

    /// Writes what waits, and deletes what is over.
    async fn write(&mut self) {
        let now_s = seconds(SystemTime::now());
        let batch: Vec<(u64, Arc<Entry>)> = {
            let mut waiting = self.service.responses().waiting();
            waiting.forget_old(now_s);
            waiting.entries.iter().map(|(number, entry)| (*number, Arc::clone(entry))).collect()
        };
        let writing = self.file.with(move |holder| {
            if batch.is_empty() && !holder.file.exists() {
                return (batch, Ok(None));
            }
            let result = holder.with(|store| {
                // First what is over, which must not stay for want of room for what is new.
                let due = store.prune(LIMITS, now_s)?;
                if batch.is_empty() {
                    return Ok(due);
                }
                let rows =
                    batch.iter().map(|(_, entry)| Row { id: &entry.id, at_s: entry.at_s, sealed: &entry.sealed });
                store.append(&rows.collect::<Vec<_>>())?;
                store.prune(LIMITS, now_s)
            });
            (batch, result)
        });
        let Some((batch, result)) = writing.await else { return };
        match result {
            Ok(due) => {
                let responses = self.service.responses();
                responses.waiting().remove_all(batch.iter().map(|(number, _)| *number));
                responses.can_be_read(&self.service);
                debug!(codex_responses = batch.len(), "responses stored");
                self.due = due;
                if self.pause.take().is_some() {
                    self.service.set_trouble(STORED_TROUBLE, None);
                    info!("responses are stored again");
                }
                if due.is_none() {
                    self.close_file().await;
                }
            }
            Err(error) => {
                let (text, path) = (chain(&error), self.file.path.display().to_string());
                // Each time, for a reload may have made the state another one.
                self.service.set_trouble(STORED_TROUBLE, Some(&format!("{path}: {text}")));
                if self.pause.is_none() {
                    warn!(
                        codex_path = path,
                        codex_error = text,
                        "cannot store responses, keeping some in memory and trying again"
                    );
                }
                self.pause = Some(self.pause.map_or(PAUSE, |pause| (2 * pause).min(PAUSE_MAX)));
            }
        }
    }

    async fn close_file(&mut self) {
        self.file.with(|holder| drop(holder.take())).await;
    }
}

/// Waits until it is true.
async fn said(closing: &mut watch::Receiver<bool>) {
    // An error means that the service is gone, which is as good.
    drop(closing.wait_for(|closing| *closing).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::seal::Sealer,
        config::settings::Settings,
        proxy::service::{Prompt, State},
    };

    fn service() -> Arc<Service> {
        let prompt = Prompt { base_instructions: String::new(), hidden_models: Vec::new() };
        Arc::new(Service::new(Settings::default(), None, Sealer::new(&[0; 32]), &prompt))
    }

    fn kept(text: &str) -> Kept {
        Kept { items: format!("{{\"role\":\"user\",\"content\":{text:?}}}"), host: None }
    }

    fn put(service: &Service, id: &str, kept: &Kept) {
        service.responses().put(service, id, kept, SystemTime::now());
    }

    async fn find(service: &Service, id: &str) -> Option<Kept> {
        service.responses().find(service, id, SystemTime::now()).await.unwrap()
    }

    /// Runs until all is written, and ends.
    async fn written(service: &Arc<Service>, dir: &Path) {
        let tending = tend(Arc::clone(service), dir).unwrap();
        service.responses().close();
        tending.await;
        assert!(service.responses().waiting().entries.is_empty());
    }

    #[tokio::test]
    async fn a_response_is_found_at_once_and_by_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let first = service();
        put(&first, "resp_1", &kept("SECRET"));
        assert_eq!(find(&first, "resp_1").await, Some(kept("SECRET")));
        assert_eq!(find(&first, "resp_2").await, None);
        assert!(tempfile::tempdir().is_ok() && std::fs::read_dir(dir.path()).unwrap().next().is_none());
        written(&first, dir.path()).await;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(memchr::memmem::find(&bytes, b"SECRET").is_none());
        }
        let second = service();
        let tending = tokio::spawn(tend(Arc::clone(&second), dir.path()).unwrap());
        assert_eq!(find(&second, "resp_1").await, Some(kept("SECRET")));
        let later = SystemTime::now() + LIMITS.keep;
        assert_eq!(second.responses().find(&second, "resp_1", later).await, Ok(None));
        second.responses().close();
        tending.await.unwrap();
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_goes_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let first = service();
        let before = SystemTime::now() - LIMITS.keep;
        first.responses().put(&first, "resp_1", &kept("old"), before);
        // It is over before it is written.
        assert_eq!(find(&first, "resp_1").await, None);
        let mut store = Store::open(&dir.path().join(FILE)).unwrap();
        store.append(&[Row { id: "resp_1", at_s: seconds(before), sealed: b"x" }]).unwrap();
        drop(store);
        let second = service();
        written(&second, dir.path()).await;
        let connection = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
        let count: i64 = connection.query_row("SELECT count(*) FROM responses", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }

    #[tokio::test]
    async fn nothing_to_keep_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let service = service();
        let tending = tokio::spawn(tend(Arc::clone(&service), dir.path()).unwrap());
        assert!(tend(Arc::clone(&service), dir.path()).is_none(), "the first one tends it");
        assert_eq!(find(&service, "resp_1").await, None);
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        service.responses().close();
        tending.await.unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_oldest_go() {
        let service = service();
        let long = kept(&"x".repeat(7 * 1024 * 1024));
        for id in ["resp_1", "resp_2", "resp_3"] {
            put(&service, id, &long);
        }
        assert_eq!(find(&service, "resp_1").await, None);
        assert!(find(&service, "resp_2").await.is_some() && find(&service, "resp_3").await.is_some());
        put(&service, "resp_4", &kept(&"x".repeat(9 * 1024 * 1024)));
        assert_eq!(find(&service, "resp_4").await, None);
    }

    #[tokio::test]
    async fn a_file_that_does_not_answer_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let service = service();
        let tending = tokio::spawn(tend(Arc::clone(&service), dir.path()).unwrap());
        // Somebody is at it for as long as they like.
        let file = Arc::clone(&service.responses().file.get().unwrap().holder);
        let held = file.lock_owned().await;
        put(&service, "resp_1", &kept("a"));
        let state = service.state();
        let now = SystemTime::now();
        let lookups = [1, 2, 3].map(|n| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.responses().find(&service, &format!("resp_of_old_{n}"), now).await })
        });
        for lookup in lookups {
            assert_eq!(lookup.await.unwrap().unwrap_err().kind, FailureKind::OwnLimit);
        }
        assert!(matches!(&*state.borrow(), State::Degraded(why) if why.starts_with(READING_TROUBLE)));
        assert_eq!(find(&service, "resp_1").await, Some(kept("a")));
        drop(held);
        assert_eq!(find(&service, "resp_of_old_1").await, None);
        assert_eq!(*state.borrow(), State::Ready);
        service.responses().close();
        tending.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_over_goes_although_nothing_can_be_added() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let old = seconds(SystemTime::now() - LIMITS.keep);
        Store::open(&file).unwrap().append(&[Row { id: "resp_1", at_s: old, sealed: b"x" }]).unwrap();
        let connection = rusqlite::Connection::open(&file).unwrap();
        let full = "CREATE TRIGGER full BEFORE INSERT ON responses BEGIN SELECT RAISE(ABORT, 'full'); END";
        connection.execute_batch(full).unwrap();
        let service = service();
        put(&service, "resp_2", &kept("b"));
        let tending = tend(Arc::clone(&service), dir.path()).unwrap();
        service.responses().close();
        tending.await;
        assert_eq!(find(&service, "resp_2").await, Some(kept("b")), "it waits");
        let count: i64 = connection.query_row("SELECT count(*) FROM responses", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_tried_again_and_told_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        std::fs::create_dir(&file).unwrap();
        let service = service();
        let tending = tokio::spawn(tend(Arc::clone(&service), dir.path()).unwrap());
        put(&service, "resp_1", &kept("a"));
        let mut state = service.state();
        state
            .wait_for(|state| matches!(state, State::Degraded(why) if why.contains("responses are not stored")))
            .await
            .unwrap();
        assert_eq!(find(&service, "resp_1").await, Some(kept("a")));
        std::fs::remove_dir(&file).unwrap();
        state.wait_for(|state| *state == State::Ready).await.unwrap();
        assert_eq!(find(&service, "resp_1").await, Some(kept("a")));

        // A damaged one is set aside, and the next response begins a new one.
        service.responses().close();
        tending.await.unwrap();
        std::fs::write(&file, [b'x'; 5000]).unwrap();
        let service = self::service();
        put(&service, "resp_2", &kept("b"));
        written(&service, dir.path()).await;
        assert!(dir.path().join("responses.sqlite.corrupt-1").exists());
        assert_eq!(find(&service, "resp_2").await, Some(kept("b")));
        assert_eq!(find(&service, "resp_1").await, None);
    }
}
