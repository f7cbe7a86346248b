//! Keeps the brain's life in the store, before anything it said is done, and finds it there again.
//!
//! While nothing is open nothing is kept: the world is told anew after a restart. What opens an incident is kept with
//! the whole brain as it was before, and from then on every input, until all is closed again. Commands and their
//! outcomes are on the disk before this returns.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    record::Fact,
    replay::{Kept, recover},
    store::{Contents, Store, StoreError},
};
use crate::{
    host::log::chain,
    watchdog::brain::{Brain, Command, Input, What},
};

/// Between attempts to open a store that could not be opened.
const OPEN_PAUSE: Duration = Duration::from_secs(10);

/// The store, as the one who drives the brain uses it.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
    store: Option<Store<Kept>>,
    tried: Instant,
    /// The last line leads to the brain as it is: an input may follow.
    follows: bool,
    trouble: Option<String>,
}

impl Book {
    /// Opens the store in `dir` and gives the brain that it leads to.
    ///
    /// # Errors
    /// [`StoreError::Locked`]: another watchdog is at work. A store that cannot be used otherwise is no error: it is
    /// tried again, and what must be kept before it is done is not done until then.
    pub fn open(dir: &Path) -> Result<(Self, Option<Brain>), StoreError> {
        let mut book = Self { dir: dir.to_owned(), store: None, tried: Instant::now(), follows: false, trouble: None };
        let contents = match Store::open(dir) {
            Ok((store, contents)) => {
                book.store = Some(store);
                contents
            }
            Err(error @ StoreError::Locked { .. }) => return Err(error),
            Err(error) => {
                book.in_trouble(&error);
                // Perhaps it can be read all the same.
                super::store::read(dir).unwrap_or(Contents { entries: Vec::new(), damage: Vec::new() })
            }
        };
        tell_damage(&contents);
        let brain = recover(contents.entries.iter().map(|one| &one.entry));
        Ok((book, brain))
    }

    /// Why nothing can be kept; `None`: it can.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// How long it rests before it tries again to keep something; `None`: it is not in trouble.
    pub fn rest(&self) -> Option<Duration> {
        self.trouble.as_ref().map(|_| OPEN_PAUSE.saturating_sub(self.tried.elapsed()))
    }

    /// Whether [`Book::keep`] needs the brain as it was before the input.
    pub fn needs_before(&self) -> bool {
        !self.follows
    }

    /// Keeps an input and what was said to it. `before`: the brain before it, where [`Book::needs_before`]; `after`: as
    /// it is now.
    ///
    /// # Errors
    /// Nothing of it is kept, and nothing of it may be sent.
    pub fn keep(
        &mut self,
        before: Option<Brain>,
        input: &Input,
        commands: &[Command],
        after: &Brain,
    ) -> Result<(), StoreError> {
        let was_open = before.as_ref().map_or(self.follows, |brain| brain.open().next().is_some());
        let of_interest = was_open || after.open().next().is_some() || is_wish(&input.what) || !commands.is_empty();
        // In trouble anything will do to see whether it is over.
        if !of_interest && (self.trouble.is_none() || self.tried.elapsed() < OPEN_PAUSE) {
            self.follows = false;
            return Ok(());
        }
        let mut lines: Vec<Kept> = before.into_iter().map(|brain| Kept::State(Box::new(brain))).collect();
        lines.push(Kept::Input(input.clone()));
        let mut durable = is_wish(&input.what);
        let mut acted = false;
        for command in commands {
            let Command::Record(entry) = command else { continue };
            durable |= !matches!(entry.fact, Fact::Again { .. } | Fact::Restrained { .. });
            acted |= matches!(entry.fact, Fact::Commanded { .. } | Fact::Finished { .. });
            lines.push(Kept::Told(entry.clone()));
        }
        if acted {
            // Another version of the program may say something else to the same inputs; what was done stays done.
            lines.push(Kept::State(Box::new(after.clone())));
        }
        let rests = self.store.is_none() && self.tried.elapsed() < OPEN_PAUSE;
        let kept = self.append(&lines, durable, after);
        match &kept {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!("incidents are kept again");
                }
            }
            // What it was in trouble with is still so.
            Err(_) if rests => {}
            Err(error) => {
                self.in_trouble(error);
                if self.store.is_some() {
                    self.tried = Instant::now();
                }
            }
        }
        self.follows = kept.is_ok() && after.open().next().is_some();
        kept
    }

    fn append(&mut self, lines: &[Kept], durable: bool, after: &Brain) -> Result<(), StoreError> {
        let store = match &mut self.store {
            Some(store) => store,
            None => {
                if self.tried.elapsed() < OPEN_PAUSE {
                    let source = std::io::Error::other("it could not be opened a moment ago");
                    return Err(StoreError::Open { path: self.dir.clone(), source });
                }
                self.tried = Instant::now();
                let (store, contents) = Store::open(&self.dir)?;
                tell_damage(&contents);
                self.store.insert(store)
            }
        };
        store.append(lines, durable)?;
        if store.is_full()
            && let Err(error) = store.rotate(&[Kept::State(Box::new(after.clone()))])
        {
            warn!(codex_error = %error, "the journal of incidents cannot be rotated, it grows");
        }
        Ok(())
    }

    fn in_trouble(&mut self, why: &StoreError) {
        let text = format!("incidents cannot be kept, so nothing is done about them: {}", chain(why));
        if self.trouble.as_ref() != Some(&text) {
            error!(codex_error = text, "incidents cannot be kept");
        }
        self.trouble = Some(text);
    }
}

/// What a person wants is kept in any case: it holds until it is taken back.
const fn is_wish(what: &What) -> bool {
    matches!(what, What::Cancel { .. } | What::Pause { .. } | What::Resume | What::Stopped | What::Enable(_))
}

fn tell_damage<E>(contents: &Contents<E>) {
    for damage in &contents.damage {
        warn!(
            codex_path = %damage.file.display(),
            codex_lines = damage.lines,
            codex_kept_as = damage.kept_as.as_ref().map(|path| path.display().to_string()),
            "unreadable lines in the journal of incidents, set aside"
        );
    }
}
