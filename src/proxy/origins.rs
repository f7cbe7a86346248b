//! Who gave what only they can read: the names of `encrypted_content` that native hosts gave, on disk.
//!
//! What other codecs seal says itself whose it is. What a native host gives does not, and a host that is handed another's
//! refuses the whole request; so each is noted before the client sees it. The file is a line of JSON for each, appended
//! with one write: it holds no content, outlives a `kill -9`, and what a power cut takes of it costs one refusal. It is
//! written anew once it has grown to twice what is kept, and after a write that failed, when the disk takes it: that
//! brings what was missed, and takes away a line that was cut.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{codec::relay::BlobId, host::files, model::request::Origin};

/// The file in the state directory.
const FILE: &str = "origins.jsonl";
/// So many are known, the newest: weeks of work, and a conversation older than that can be refused once.
const ENTRIES_MAX: usize = 16_384;
/// More than that is not a file of ours.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// While the file cannot be written: the first pause, and the longest, to which it doubles.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A model's name beyond it is not told apart.
const NAME_CHARS_MAX: usize = 200;

/// Who gave what.
#[derive(Debug, Default)]
pub struct Origins {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    known: BTreeMap<BlobId, Arc<Origin>>,
    /// Oldest first; each of `known` once, and what was known otherwise before.
    order: VecDeque<BlobId>,
    /// `None`: kept in memory only.
    log: Option<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    lines: usize,
    /// While it cannot be written: the pause, and when it is over.
    pause: Option<(Duration, Instant)>,
}

/// What is new of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It cannot be written, for this reason; what is noted is kept in memory.
    Not(String),
    /// It can be, and nothing is missing.
    Again,
}

/// One line: name, provider, family.
type Line<'a> = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>);

impl Origins {
    /// Reads the file of that state directory, or begins it. What is damaged is set aside; a last line that was cut is
    /// nobody's damage.
    ///
    /// # Errors
    /// When it can be neither read nor written; [`Origins::default`] then does without.
    pub fn open(state: &Path) -> io::Result<Self> {
        files::create_private_dir(state)?;
        let path = state.join(FILE);
        let mut held = Held::default();
        let damaged = match read(&path)? {
            Some(text) => held.load(&text),
            None => false,
        };
        if damaged {
            let aside = files::set_aside(&path)?;
            warn!(codex_path = %aside.display(), "the record of whose thoughts are whose was damaged, keeping what can be read of it");
        }
        held.rewrite(path)?;
        Ok(Self { held: Mutex::new(held) })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `origin` gave these, and says what is new of the file.
    pub fn record(&self, origin: &Origin, blobs: &[BlobId]) -> Option<Written> {
        if blobs.is_empty() { None } else { self.lock().record(origin, blobs) }
    }

    /// Notes that a host could not read some of these. What nobody is known to have given is not sent anywhere again; the
    /// others stay their maker's.
    pub fn refuse(&self, blobs: &[BlobId]) -> Option<Written> {
        let mut held = self.lock();
        let unknown: Vec<BlobId> = blobs.iter().copied().filter(|blob| !held.known.contains_key(blob)).collect();
        held.record(&Origin::nobody(), &unknown)
    }

    /// Who gave it, if that was noted.
    pub fn origin_of(&self, blob: BlobId) -> Option<Origin> {
        self.lock().known.get(&blob).map(|origin| Origin::clone(origin))
    }
}

impl Held {
    fn record(&mut self, origin: &Origin, blobs: &[BlobId]) -> Option<Written> {
        let origin = Arc::new(shortened(origin));
        let mut lines = String::new();
        let mut count = 0;
        for blob in blobs {
            if self.insert(*blob, &origin) {
                lines.push_str(&line(*blob, &origin));
                count += 1;
            }
        }
        let log = self.log.as_mut()?;
        log.lines += count;
        let (pause, path) = (log.pause, log.path.clone());
        let written = match pause {
            Some((_, over)) if Instant::now() < over => return None,
            None if log.lines <= 2 * ENTRIES_MAX => log.file.write_all(lines.as_bytes()),
            Some(_) | None => self.rewrite(path),
        };
        match written {
            Ok(()) => pause.map(|_| Written::Again),
            Err(error) => {
                let log = self.log.as_mut()?;
                let next = pause.map_or(PAUSE, |(pause, _)| (2 * pause).min(PAUSE_MAX));
                log.pause = Some((next, Instant::now() + next));
                let path = log.path.display();
                if pause.is_none() {
                    warn!(codex_path = %path, codex_error = %error, "cannot note whose thoughts are whose, keeping it in memory");
                }
                Some(Written::Not(format!("{path}: {error}")))
            }
        }
    }

    /// False if that was known.
    fn insert(&mut self, blob: BlobId, origin: &Arc<Origin>) -> bool {
        if self.known.get(&blob).is_some_and(|known| known == origin) {
            return false;
        }
        if self.known.insert(blob, Arc::clone(origin)).is_none() {
            self.order.push_back(blob);
        }
        while self.known.len() > ENTRIES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
        true
    }

    /// Takes the lines of a file; true if some cannot be read.
    fn load(&mut self, text: &[u8]) -> bool {
        let mut damaged = false;
        let whole = memchr::memrchr(b'\n', text).map_or(0, |end| end + 1);
        let mut last: Option<Arc<Origin>> = None;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let parsed = serde_json::from_slice::<Line<'_>>(line).ok();
            let Some((blob, (_, provider, family))) = parsed.and_then(|line| Some((line.0.parse().ok()?, line))) else {
                damaged = true;
                continue;
            };
            let same = last.take().filter(|origin| origin.provider == provider && origin.family == family);
            let origin = same
                .unwrap_or_else(|| Arc::new(Origin { provider: provider.into_owned(), family: family.into_owned() }));
            self.insert(blob, &origin);
            last = Some(origin);
        }
        damaged
    }

    /// Writes the file anew, with what is known, and goes on in it.
    fn rewrite(&mut self, path: PathBuf) -> io::Result<()> {
        let lines: String = self.order.iter().filter_map(|blob| Some(line(*blob, self.known.get(blob)?))).collect();
        files::replace(&path, lines.as_bytes(), 0o600)?;
        let file = OpenOptions::new().append(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(&path)?;
        self.log = Some(Log { path, file, lines: self.known.len(), pause: None });
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn line(blob: BlobId, origin: &Origin) -> String {
    // Strings into memory: there is nothing to fail.
    let line = (blob.to_string(), origin.provider.as_str(), origin.family.as_str());
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

fn shortened(origin: &Origin) -> Origin {
    let short = |name: &str| name.chars().take(NAME_CHARS_MAX).collect();
    Origin { provider: short(&origin.provider), family: short(&origin.family) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        codec::seal::Sealer,
        config::settings::Settings,
        proxy::service::{Prompt, Service, State},
    };

    fn blob(n: usize) -> BlobId {
        BlobId::of(n.to_string().as_bytes())
    }

    #[test]
    fn what_was_noted_outlives_the_process_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Origin::new("a", "gpt-5"), Origin::new("b", "odd \"name\"\n"));
        let origins = Origins::open(dir.path()).unwrap();
        origins.record(&a, &[blob(1), blob(2)]);
        origins.record(&b, &[blob(3)]);
        origins.refuse(&[blob(2), blob(5)]);
        // No orderly end: the process is gone, its last write cut.
        let path = dir.path().join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"[\"0123").unwrap();
        let again = Origins::open(dir.path()).unwrap();
        assert_eq!([blob(1), blob(2)].map(|blob| again.origin_of(blob)), [Some(a.clone()), Some(a)]);
        assert_eq!(again.origin_of(blob(5)), Some(Origin::nobody()));
        assert_eq!(again.origin_of(blob(3)), Some(b));
        assert_eq!(again.origin_of(blob(4)), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was damaged");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("[\"0123\n"));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_what_can_be_read_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let a = Origin::new("a", "m");
        Origins::open(dir.path()).unwrap().record(&a, &[blob(1)]);
        let path = dir.path().join(FILE);
        let mut bytes = b"\xff\xfe garbage\n{}\n".to_vec();
        bytes.extend(fs::read(&path).unwrap());
        fs::write(&path, &bytes).unwrap();
        let again = Origins::open(dir.path()).unwrap();
        assert_eq!(again.origin_of(blob(1)), Some(a));
        assert_eq!(fs::read(dir.path().join("origins.jsonl.corrupt-1")).unwrap(), bytes);
        assert!(!fs::read_to_string(&path).unwrap().contains("garbage"));
    }

    #[test]
    fn what_the_disk_did_not_take_is_written_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let (state, away) = (dir.path().join("state"), dir.path().join("away"));
        let a = Origin::new("a", "m");
        let prompt = Prompt { base_instructions: String::new(), hidden_models: Vec::new() };
        let service = Service::new(Settings::default(), None, Sealer::new(&[0; 32]), &prompt)
            .with_origins(Origins::open(&state).unwrap());
        let note = |n| service.note_origin(&a, &[blob(n)]);
        let degraded = || matches!(&*service.state().borrow(), State::Degraded(why) if why.contains("thoughts"));
        note(1);
        {
            // It takes half a line, and then nothing, nor a file anew.
            let mut held = service.origins().lock();
            let log = held.log.as_mut().unwrap();
            log.file.write_all(b"[\"0123").unwrap();
            log.file = File::open(state.join(FILE)).unwrap();
        }
        let put_off = |by: Duration| {
            let mut held = service.origins().lock();
            let (_, over) = held.log.as_mut().unwrap().pause.as_mut().unwrap();
            *over = Instant::now() + by;
        };
        fs::rename(&state, &away).unwrap();
        note(2);
        assert!(degraded());
        put_off(Duration::ZERO);
        note(3);
        fs::rename(&away, &state).unwrap();
        // Not at each turn: it is all of the file.
        put_off(PAUSE_MAX);
        note(4);
        assert!(degraded());
        put_off(Duration::ZERO);
        note(5);
        assert_eq!(*service.state().borrow(), State::Ready);
        note(6);
        drop(service);
        let again = Origins::open(&state).unwrap();
        assert!((1..=6).all(|n| again.origin_of(blob(n)) == Some(a.clone())));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing was damaged");
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let a = Origin::new("a", "m");
        let origins = Origins::open(dir.path()).unwrap();
        let all: Vec<BlobId> = (0..3 * ENTRIES_MAX).map(blob).collect();
        for some in all.chunks(1000) {
            origins.record(&a, some);
            // Known already: nothing is written.
            origins.record(&a, some);
        }
        assert_eq!(origins.origin_of(all[0]), None);
        assert_eq!(origins.origin_of(all[3 * ENTRIES_MAX - 1]), Some(a));
        let held = origins.lock();
        assert_eq!((held.known.len(), held.order.len()), (ENTRIES_MAX, ENTRIES_MAX));
        let lines = fs::read_to_string(dir.path().join(FILE)).unwrap().lines().count();
        assert!((ENTRIES_MAX..=2 * ENTRIES_MAX).contains(&lines), "{lines}");
    }
}
