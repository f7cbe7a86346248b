//! The requests under way: to be listed, and to be cancelled one by one.
//!
//! The lock is a leaf: nothing is called while it is held.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

/// What is known of a request under way. No word of what is asked.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// `req_…`, also in the log and in the answer's `x-request-id`.
    pub id: String,
    /// As the client named it; empty until the request is read.
    pub model: String,
    /// The route that is tried or answers; empty until one is.
    pub route: String,
    /// The client's thread, if it named one.
    pub thread: String,
    /// When it arrived.
    pub since: SystemTime,
    /// How often it was sent to a provider.
    pub attempts: u32,
    /// Whether its answer has begun.
    pub streaming: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    facts: InFlight,
    cancel: watch::Sender<bool>,
}

/// A request's place in the registry; dropping it takes the request out.
#[derive(Debug)]
pub struct Ticket {
    registry: Arc<Registry>,
    id: String,
    cancelled: watch::Receiver<bool>,
}

impl Registry {
    /// Enters a request.
    pub fn enter(self: &Arc<Self>, id: &str, thread: &str, now: SystemTime) -> Ticket {
        let (cancel, cancelled) = watch::channel(false);
        let facts = InFlight {
            id: id.to_owned(),
            model: String::new(),
            route: String::new(),
            thread: thread.to_owned(),
            since: now,
            attempts: 0,
            streaming: false,
        };
        self.lock().insert(id.to_owned(), Entry { facts, cancel });
        Ticket { registry: Arc::clone(self), id: id.to_owned(), cancelled }
    }

    /// The oldest `max` of them, oldest first.
    pub fn list(&self, max: usize) -> Vec<InFlight> {
        let mut all: Vec<InFlight> = self.lock().values().map(|entry| entry.facts.clone()).collect();
        all.sort_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)));
        all.truncate(max);
        all
    }

    /// Asks a request to end. False if there is none of that id.
    pub fn cancel(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|entry| {
            entry.cancel.send_replace(true);
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Notes what has become known.
    pub fn note(&self, change: impl FnOnce(&mut InFlight)) {
        if let Some(entry) = self.registry.lock().get_mut(&self.id) {
            change(&mut entry.facts);
        }
    }

    /// Becomes true when somebody wants the request to end.
    pub fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancelled.clone()
    }

    /// Whether somebody does.
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_is_listed_while_its_ticket_lives_and_cancelled_by_its_id() {
        let registry = Arc::new(Registry::default());
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let late = registry.enter("req_a", "", at(2));
        let early = registry.enter("req_b", "thread", at(1));
        early.note(|facts| facts.attempts += 1);
        let ids = |max| registry.list(max).into_iter().map(|f| f.id).collect::<Vec<_>>();
        assert_eq!((ids(9), ids(1)), (vec!["req_b".to_owned(), "req_a".to_owned()], vec!["req_b".to_owned()]));
        assert_eq!(registry.list(1)[0].attempts, 1);
        assert!(registry.cancel("req_a") && !registry.cancel("req_c"));
        assert!(late.is_cancelled() && !early.is_cancelled());
        drop((late, early));
        assert!(ids(9).is_empty() && !registry.cancel("req_a"));
    }
}
