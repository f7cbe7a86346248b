//! Failure signals on their way from exchanges to the bus: a bounded queue that never makes an exchange wait.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::model::signal::Signal;

/// Reports that wait for the bus; more are dropped and counted.
const WAITING_MAX: usize = 256;

/// One event that is worth a signal. The log has an entry with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `evt_…`
    pub id: String,
    /// What was seen.
    pub signal: Signal,
    /// The request it happened to.
    pub request_id: String,
    /// Its thread; empty if unknown.
    pub thread_id: String,
    /// Its model; empty if unknown.
    pub model: String,
    /// The route; empty if none was chosen.
    pub route: String,
    /// The provider; empty if none was chosen.
    pub provider: String,
    /// The account; empty if it has none.
    pub account: String,
    /// The provider's HTTP status, if it gave one.
    pub status: Option<u16>,
    /// How far the request had come.
    pub phase: Phase,
    /// Since the request arrived.
    pub elapsed: Duration,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is read, and put into a provider's words.
    Request,
    /// It was sent; nothing of an answer has been passed on.
    Waiting,
    /// An answer is passed on.
    Streaming,
}

impl Phase {
    /// On the bus and in `CODEX_PHASE`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Waiting => "waiting",
            Self::Streaming => "streaming",
        }
    }
}

/// The queue.
#[derive(Debug)]
pub struct Reports {
    sender: mpsc::Sender<Report>,
    receiver: Mutex<Option<mpsc::Receiver<Report>>>,
    dropped: AtomicU64,
}

impl Default for Reports {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self { sender, receiver: Mutex::new(Some(receiver)), dropped: AtomicU64::new(0) }
    }
}

impl Reports {
    /// Queues a report, or drops it if too many wait.
    pub fn send(&self, report: Report) {
        if self.sender.try_send(report).is_err() {
            self.not_delivered();
        }
    }

    /// Counts one that nobody will hear.
    pub fn not_delivered(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Reports that nobody heard: too many at once, or no bus.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// The end where they come out; `None` the second time.
    pub fn take_receiver(&self) -> Option<mpsc::Receiver<Report>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
