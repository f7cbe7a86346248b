//! The one place where tests wait. Whoever changes something that a test may wait for calls [`notify`] afterwards;
//! whoever waits gives a question and a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine: reaching it means that the thing will not happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

static LOCK: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// Something changed: every waiter asks again.
pub fn notify() {
    drop(LOCK.lock().unwrap_or_else(PoisonError::into_inner));
    CHANGED.notify_all();
}

/// Waits until `question` has an answer. `None` when the deadline came first.
pub fn wait<T>(deadline: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        let left = end.checked_duration_since(Instant::now())?;
        held = CHANGED.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// A door that a test opens: a scripted reply waits before it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
        notify();
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
