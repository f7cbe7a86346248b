//! Keeps a request that kills the process from killing it for good.
//!
//! ```text
//!  free ──in flight at a death that counts──► suspect ──alone in flight at another──► convicted (400 for 10 minutes)
//!    ▲                                           │                                        │
//!    └───────── answered, or 10 minutes ─────────┴────────────────────────────────────────┘
//! ```
//! Suspects are served one at a time, so that the next death tells. Deaths that a request cannot cause (a `SIGKILL` from
//! outside, `SIGTERM`, a plain exit) do not count. What is in flight lies in a small file of the runtime directory, one
//! slot a request, because a process cannot write down its own death; the manager's `ExecStopPost=` writes how it died.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host::files;

/// How long a suspicion or a conviction lasts.
const TERM: Duration = Duration::from_secs(600);
/// Requests whose fingerprints are kept; further ones at the same time are served without.
const SLOTS: usize = 4096;
const FINGERPRINT_BYTES: usize = 8;
/// Suspects that are remembered; the oldest go first.
const SUSPECTS_MAX: usize = 1024;

const IN_FLIGHT: &str = "in-flight";
const SUSPECTS: &str = "suspects.json";
const EXIT: &str = "exit";

/// Stands for a request body: equal bodies have equal ones, and the client repeats a failed request byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of a body.
    pub fn of(body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(body);
        // Zero marks an empty slot.
        Self(hasher.finish().max(1))
    }
}

/// How the last process ended, as the manager's `ExecStopPost=` tells it (systemd.exec(5), `$SERVICE_RESULT` …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// `success`, `exit-code`, `signal`, `core-dump`, `watchdog`, `oom-kill` …
    pub result: String,
    /// `exited`, `killed`, `dumped`.
    pub code: String,
    /// A number or a signal's name without `SIG`.
    pub status: String,
}

impl Exit {
    /// Whether a request can have caused it.
    pub fn counts(&self) -> bool {
        matches!(self.result.as_str(), "watchdog" | "oom-kill")
            || (matches!(self.code.as_str(), "killed" | "dumped")
                && matches!(self.status.as_str(), "SEGV" | "BUS" | "ILL" | "ABRT"))
    }

    /// Reads what [`Exit::record`] wrote.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Self { result: words.next()?, code: words.next()?, status: words.next()? })
    }

    /// Writes it down for the next process: what `codex-proxy --record-exit` does.
    ///
    /// # Errors
    /// If the runtime directory cannot be written.
    pub fn record(&self, runtime: &Path) -> io::Result<()> {
        let line = format!("{} {} {}\n", self.result, self.code, self.status);
        files::replace(&runtime.join(EXIT), line.as_bytes(), 0o600)
    }
}

/// What is thought of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Free,
    /// It was in flight at a death that counts: serve it alone among its kind.
    Suspect,
    /// It was alone in flight at another: refuse it.
    Convicted,
}

/// Who is suspected of what. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    suspects: BTreeMap<Fingerprint, Record>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    since_s: u64,
    convicted: bool,
}

impl Ledger {
    /// Takes a death that counts into account.
    pub fn died(&mut self, in_flight: &[Fingerprint], now_s: u64) {
        self.expire(now_s);
        if let [alone] = in_flight
            && let Some(record) = self.suspects.get_mut(alone)
        {
            *record = Record { since_s: now_s, convicted: true };
            return;
        }
        for fingerprint in in_flight {
            self.suspects.entry(*fingerprint).or_insert(Record { since_s: now_s, convicted: false });
        }
        while self.suspects.len() > SUSPECTS_MAX {
            let Some(oldest) = self.suspects.iter().min_by_key(|(_, r)| r.since_s).map(|(f, _)| *f) else { return };
            self.suspects.remove(&oldest);
        }
    }

    /// What is thought of a request now.
    pub fn verdict(&self, fingerprint: Fingerprint, now_s: u64) -> Verdict {
        match self.suspects.get(&fingerprint) {
            Some(record) if now_s.saturating_sub(record.since_s) >= TERM.as_secs() => Verdict::Free,
            Some(Record { convicted: true, .. }) => Verdict::Convicted,
            Some(Record { convicted: false, .. }) => Verdict::Suspect,
            None => Verdict::Free,
        }
    }

    /// A suspect was served to its end and the process lives. True if that changed anything.
    pub fn acquit(&mut self, fingerprint: Fingerprint) -> bool {
        let suspect = self.suspects.get(&fingerprint).is_some_and(|record| !record.convicted);
        suspect && self.suspects.remove(&fingerprint).is_some()
    }

    fn expire(&mut self, now_s: u64) {
        self.suspects.retain(|_, record| now_s.saturating_sub(record.since_s) < TERM.as_secs());
    }
}

/// The ledger with its files.
#[derive(Debug)]
pub struct Quarantine {
    ledger: Mutex<Ledger>,
    /// One suspect at a time.
    turn: Arc<Semaphore>,
    slots: Option<Slots>,
    suspects_file: Option<PathBuf>,
}

#[derive(Debug)]
struct Slots {
    file: File,
    free: Mutex<Vec<usize>>,
}

/// A request's presence: dropping it takes the fingerprint out again.
#[derive(Debug)]
pub struct Presence {
    quarantine: Arc<Quarantine>,
    fingerprint: Fingerprint,
    slot: Option<usize>,
    _turn: Option<OwnedSemaphorePermit>,
}

/// What the last process left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inheritance {
    /// How it died, if that was written down.
    pub exit: Option<Exit>,
    /// How many requests were in flight then.
    pub in_flight: usize,
}

impl Quarantine {
    /// Without a runtime directory: nothing is known of earlier deaths, nothing is written.
    pub fn without_files() -> Self {
        Self { ledger: Mutex::default(), turn: Arc::new(Semaphore::new(1)), slots: None, suspects_file: None }
    }

    /// Reads what the last process left in `runtime`, and starts anew there.
    ///
    /// # Errors
    /// If the directory cannot be used; [`Quarantine::without_files`] then is the way to go on.
    pub fn open(runtime: &Path, now_s: u64) -> io::Result<(Self, Inheritance)> {
        files::create_private_dir(runtime)?;
        let exit_file = runtime.join(EXIT);
        let exit = fs::read_to_string(&exit_file).ok().and_then(|line| Exit::parse(&line));
        let in_flight = read_slots(&runtime.join(IN_FLIGHT));
        let suspects_file = runtime.join(SUSPECTS);
        let mut ledger = load(&suspects_file)?;
        if exit.as_ref().is_some_and(Exit::counts) {
            ledger.died(&in_flight, now_s);
        }
        let inheritance = Inheritance { exit, in_flight: in_flight.len() };
        // In this order: dying in between counts the same death twice at most, and never loses one.
        save(&suspects_file, &ledger)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(runtime.join(IN_FLIGHT))?;
        match fs::remove_file(&exit_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let slots = Slots { file, free: Mutex::new((0..SLOTS).rev().collect()) };
        let quarantine = Self {
            ledger: Mutex::new(ledger),
            turn: Arc::new(Semaphore::new(1)),
            slots: Some(slots),
            suspects_file: Some(suspects_file),
        };
        Ok((quarantine, inheritance))
    }

    /// Lets a request in: at once, or after other suspects if it is one. `None`: it is convicted.
    pub async fn enter(self: &Arc<Self>, fingerprint: Fingerprint, now_s: u64) -> Option<Presence> {
        let verdict = lock(&self.ledger).verdict(fingerprint, now_s);
        let turn = match verdict {
            Verdict::Free => None,
            // Never closed, so this waits and does not fail.
            Verdict::Suspect => Arc::clone(&self.turn).acquire_owned().await.ok(),
            Verdict::Convicted => return None,
        };
        let slot = self.slots.as_ref().and_then(|slots| slots.take(fingerprint));
        Some(Presence { quarantine: Arc::clone(self), fingerprint, slot, _turn: turn })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let (Some(slots), Some(slot)) = (&self.quarantine.slots, self.slot) {
            slots.give_back(slot);
        }
        let mut ledger = lock(&self.quarantine.ledger);
        if ledger.acquit(self.fingerprint)
            && let Some(file) = &self.quarantine.suspects_file
        {
            // Kept suspicion costs the request a wait in line after the next restart, no more.
            drop(save(file, &ledger));
        }
    }
}

impl Slots {
    fn take(&self, fingerprint: Fingerprint) -> Option<usize> {
        let slot = lock(&self.free).pop()?;
        // A slot that cannot be written is one request without a record, which is served all the same.
        drop(self.file.write_all_at(&fingerprint.0.to_ne_bytes(), offset(slot)));
        Some(slot)
    }

    fn give_back(&self, slot: usize) {
        drop(self.file.write_all_at(&[0; FINGERPRINT_BYTES], offset(slot)));
        lock(&self.free).push(slot);
    }
}

fn offset(slot: usize) -> u64 {
    (slot * FINGERPRINT_BYTES) as u64
}

fn read_slots(path: &Path) -> Vec<Fingerprint> {
    let bytes = fs::read(path).unwrap_or_default();
    let mut found: Vec<Fingerprint> = bytes
        .as_chunks::<FINGERPRINT_BYTES>()
        .0
        .iter()
        .map(|chunk| Fingerprint(u64::from_ne_bytes(*chunk)))
        .filter(|fingerprint| fingerprint.0 != 0)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A ledger that cannot be understood is set aside, and an empty one taken: the worst is one death more.
fn load(path: &Path) -> io::Result<Ledger> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
        Err(error) => return Err(error),
    };
    if let Ok(ledger) = serde_json::from_slice(&bytes) {
        return Ok(ledger);
    }
    let aside = files::set_aside(path)?;
    tracing::warn!(
        codex_path = %path.display(),
        codex_aside = %aside.display(),
        "the list of suspected requests cannot be used; it is set aside"
    );
    Ok(Ledger::default())
}

fn save(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let bytes = serde_json::to_vec(ledger).map_err(io::Error::other)?;
    files::replace(path, &bytes, 0o600)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(result: &str, code: &str, status: &str) -> Exit {
        Exit { result: result.to_owned(), code: code.to_owned(), status: status.to_owned() }
    }

    #[test]
    fn only_deaths_that_a_request_can_cause_count() {
        for (counts, exit) in [
            (true, exit("signal", "killed", "SEGV")),
            (true, exit("core-dump", "dumped", "ABRT")),
            (true, exit("watchdog", "killed", "KILL")),
            (true, exit("oom-kill", "killed", "KILL")),
            (false, exit("signal", "killed", "KILL")),
            (false, exit("signal", "killed", "TERM")),
            (false, exit("exit-code", "exited", "1")),
            (false, exit("success", "exited", "0")),
        ] {
            assert_eq!(exit.counts(), counts, "{exit:?}");
        }
    }

    #[test]
    fn the_second_death_with_a_suspect_alone_convicts_it_for_ten_minutes() {
        let [poison, other] = [Fingerprint(1), Fingerprint(2)];
        let mut ledger = Ledger::default();
        ledger.died(&[poison, other], 1000);
        assert_eq!(ledger.verdict(poison, 1001), Verdict::Suspect);
        ledger.died(&[poison, Fingerprint(3)], 1002);
        assert_eq!(ledger.verdict(poison, 1003), Verdict::Suspect, "it was not alone");
        ledger.died(&[poison], 1004);
        assert_eq!(ledger.verdict(poison, 1603), Verdict::Convicted);
        assert_eq!(ledger.verdict(poison, 1604), Verdict::Free);
        assert_eq!(ledger.verdict(other, 1599), Verdict::Suspect);
        assert!(ledger.acquit(other) && !ledger.acquit(poison));
        assert_eq!(ledger.verdict(other, 1599), Verdict::Free);
    }

    #[tokio::test]
    async fn what_was_in_flight_is_found_after_a_death() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().join("run");
        let [poison, innocent] = [Fingerprint::of(b"poison"), Fingerprint::of(b"innocent")];
        let open = |now| {
            let (quarantine, inheritance) = Quarantine::open(&runtime, now).unwrap();
            (Arc::new(quarantine), inheritance)
        };
        // The process is killed with both in flight: nothing is dropped.
        let (first, _) = open(0);
        std::mem::forget(first.enter(poison, 0).await.unwrap());
        std::mem::forget(first.enter(innocent, 0).await.unwrap());
        exit("signal", "killed", "SEGV").record(&runtime).unwrap();
        let (second, inheritance) = open(1);
        assert_eq!(inheritance.in_flight, 2);
        // Suspects take turns; the innocent one is acquitted by being served.
        let served = second.enter(innocent, 1).await.unwrap();
        let mut waiting = std::pin::pin!(second.enter(poison, 1));
        assert!(futures_pending(waiting.as_mut()));
        drop(served);
        std::mem::forget(waiting.await.unwrap());
        exit("oom-kill", "killed", "KILL").record(&runtime).unwrap();
        let (third, _) = open(2);
        assert!(third.enter(poison, 3).await.is_none());
        assert!(third.enter(innocent, 3).await.is_some());
        assert!(third.enter(poison, 603).await.is_some());
    }

    #[tokio::test]
    async fn a_death_from_outside_makes_nobody_suspect() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..200 {
            let (quarantine, _) = Quarantine::open(directory.path(), 0).unwrap();
            let quarantine = Arc::new(quarantine);
            std::mem::forget(quarantine.enter(Fingerprint(7), 0).await.unwrap());
            exit("signal", "killed", "KILL").record(directory.path()).unwrap();
        }
        let (quarantine, _) = Quarantine::open(directory.path(), 0).unwrap();
        assert_eq!(lock(&quarantine.ledger).verdict(Fingerprint(7), 0), Verdict::Free);
    }

    #[test]
    fn a_damaged_list_of_suspects_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(SUSPECTS), b"{\"suspects").unwrap();
        let (quarantine, _) = Quarantine::open(directory.path(), 0).unwrap();
        assert_eq!(*lock(&quarantine.ledger), Ledger::default());
        assert_eq!(fs::read(directory.path().join("suspects.json.corrupt-1")).unwrap(), b"{\"suspects");
        assert_eq!(load(&directory.path().join(SUSPECTS)).unwrap(), Ledger::default());
    }

    fn futures_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
    }
}
