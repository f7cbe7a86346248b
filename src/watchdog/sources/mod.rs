//! The world → [`Signal`]: the manager on the session bus, the journal, probes.
//!
//! Sources report and never judge. Each is one future that ends when nobody listens any more; who starts them keeps
//! them in a `JoinSet`. A source that cannot see says so, and says when it sees again.

pub mod holder;
pub mod journal;
pub mod probe;
pub mod processes;
pub mod units;

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::signal::{Observation, Signal, Source, Time};
use crate::host::clock;

/// What a source hands over.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The evidence.
    pub signal: Signal,
    /// For an entry of the journal its cursor: to be kept once the signal's effect is recorded, and to be given to
    /// [`journal::Settings`] after a restart.
    pub cursor: Option<String>,
}

/// The present moment on both clocks.
pub fn now() -> Time {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { mono_us: clock::monotonic_usec(), wall_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX) }
}

/// Nobody listens any more: the source ends.
#[derive(Debug)]
struct Unheard;

/// The way to the one who listens.
#[derive(Debug, Clone)]
struct Out {
    sender: mpsc::Sender<Seen>,
    source: Source,
}

impl Out {
    /// Tells what was seen just now.
    async fn tell(&self, observation: Observation) -> Result<(), Unheard> {
        self.tell_at(now(), observation, None).await
    }

    async fn tell_at(&self, at: Time, observation: Observation, cursor: Option<String>) -> Result<(), Unheard> {
        self.tell_as(self.source, at, observation, cursor).await
    }

    async fn tell_as(
        &self,
        source: Source,
        at: Time,
        observation: Observation,
        cursor: Option<String>,
    ) -> Result<(), Unheard> {
        let seen = Seen { signal: Signal { at, source, observation }, cursor };
        self.sender.send(seen).await.map_err(|_| Unheard)
    }
}

/// Whether a source sees, told only when that changes.
#[derive(Debug)]
struct Sight {
    told: Option<Option<String>>,
}

impl Sight {
    const fn unknown() -> Self {
        Self { told: None }
    }

    /// `why` not, or `None` if it does.
    async fn tell(&mut self, out: &Out, why: Option<String>) -> Result<(), Unheard> {
        if self.told.as_ref() == Some(&why) {
            return Ok(());
        }
        self.told = Some(why.clone());
        out.tell(Observation::Sight { of: out.source, blind: why }).await
    }
}
