//! An append-only journal on disk, and the reader's place in the system's journal.
//!
//! ```text
//! {"sum":"<crc32>","seq":17,"entry":{…}}      one line an entry; jq reads it as it is: jq .entry incidents.jsonl
//!         └──────── of every byte after the comma behind it, up to the end of the line
//!
//! incidents.jsonl    written     ── full ──►  incidents.1.jsonl   the one before it
//! incidents.lock     held by the only writer
//! ```
//!
//! What the entries mean is the caller's business (`record.rs`). Nothing here is dropped silently: what cannot be read
//! is kept beside the journal, in `<name>.corrupt-<n>`, and reported; what cannot be written is an error, and then no
//! part of it is in the journal.
//!
//! The sum is CRC-32 (`crc32fast`, which flate2 brings): it finds every damage within 32 neighbouring bits, so every
//! wrong byte, and all but one in four thousand millions of the others. It guards against accidents, not against
//! people: whoever can write this file is its owner. The hasher of `std` would not do, since its values may differ from
//! one release of the compiler to the next.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::files;

/// A journal of this size is full: some ten thousand entries, read in a fraction of a second.
pub const BYTES_MAX: u64 = 4 << 20;
/// A larger file is not ours and is set aside unread, lest reading it takes all memory.
const READ_BYTES_MAX: u64 = 16 * BYTES_MAX;
/// A longer cursor is damage; those of the journal have some 130 bytes.
const CURSOR_BYTES_MAX: usize = 1024;

const JOURNAL: &str = "incidents.jsonl";
const OLDER: &str = "incidents.1.jsonl";
const LOCK: &str = "incidents.lock";
const CURSOR: &str = "cursor";

const HEAD: &[u8] = b"{\"sum\":\"";
const SUM_DIGITS: usize = 8;
const AFTER_SUM: &[u8] = b"\",";

/// What could not be done, and to which file.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process writes the journal: two watchdogs at once. Nothing was read or changed.
    #[error("another process holds {}", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// The directory or a file in it cannot be made, opened or locked.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Damage was found and cannot be set aside or taken out; the file is as it was.
    #[error("cannot set aside the damage in {}", path.display())]
    Repair {
        /// The damaged file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry cannot be written as JSON; nothing was written.
    #[error("an entry cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The disk is full, say. No part of it stays in the file; the same call may be tried again.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Written, but the disk did not confirm. Taken back, as after [`StoreError::Write`].
    #[error("cannot make {} last", path.display())]
    Sync {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new file could not be begun. The old one goes on, with all it holds.
    #[error("cannot begin a new {}", path.display())]
    Rotate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An entry and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered<E> {
    /// From 1 on, rising over both files; numbers of lines that were set aside are missing.
    pub seq: u64,
    /// What was written.
    pub entry: E,
}

/// Unreadable lines of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file they were in.
    pub file: PathBuf,
    /// How many lines; one if the whole file was too large to be ours.
    pub lines: usize,
    /// Where they are now, byte for byte; `None` if they were left in place, because the file was only read.
    pub kept_as: Option<PathBuf>,
}

/// What the journal held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents<E> {
    /// The readable entries of both files, oldest first.
    pub entries: Vec<Numbered<E>>,
    /// At most one for each file.
    pub damage: Vec<Damage>,
}

/// The journal, open for writing by this process alone.
#[derive(Debug)]
pub struct Store<E> {
    path: PathBuf,
    file: File,
    /// The length of the whole lines, which is the file's unless a failed write left a part behind.
    bytes: u64,
    /// The file may be longer than `bytes`: its end has to be cut off before the next write.
    torn: bool,
    seq_next: u64,
    full_at: u64,
    /// Held until this is dropped; the kernel lets go of it when the process dies.
    _lock: File,
    _entries: PhantomData<fn(&E)>,
}

impl<E: Serialize + DeserializeOwned> Store<E> {
    /// Opens the journal in `dir`, which is made (0700) if it is missing, and gives what it holds.
    ///
    /// Lines with a wrong sum, lines that are no entry of type `E`, numbers that do not rise and an unfinished last line
    /// are damage: they are copied aside and taken out of the file, in this order, so that dying in between leaves one
    /// copy too many and loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Locked`], `Open`, `Read` or `Repair`. Where nothing can be written, [`read`] may still serve.
    pub fn open(dir: &Path) -> Result<(Self, Contents<E>), StoreError> {
        let open_error = |path: &Path| {
            let path = path.to_owned();
            |source| StoreError::Open { path, source }
        };
        files::create_private_dir(dir).map_err(open_error(dir))?;
        let lock = lock(&dir.join(LOCK))?;
        let path = dir.join(JOURNAL);
        let mut contents = Contents { entries: Vec::new(), damage: Vec::new() };
        let mut seq_last = 0;
        for file in [dir.join(OLDER), path.clone()] {
            let found = look(&file, seq_last)?;
            seq_last = found.lines.last().map_or(seq_last, |one| one.seq);
            if let Some(bad) = &found.bad {
                let repair = |source| StoreError::Repair { path: file.clone(), source };
                let kept_as = Some(found.repair(&file, bad).map_err(repair)?);
                contents.damage.push(Damage { file: file.clone(), lines: bad.lines(), kept_as });
            }
            contents.entries.extend(found.lines);
        }
        let file = open_journal(&path).map_err(open_error(&path))?;
        files::make_private(&path, 0o600).map_err(open_error(&path))?;
        files::sync_parent(&path).map_err(open_error(&path))?;
        let bytes = file.metadata().map_err(open_error(&path))?.len();
        let store = Self {
            path,
            file,
            bytes,
            torn: false,
            seq_next: seq_last + 1,
            full_at: BYTES_MAX,
            _lock: lock,
            _entries: PhantomData,
        };
        Ok((store, contents))
    }

    /// Appends the entries in one write, so that a process killed meanwhile leaves all of them, or none but an
    /// unfinished line or some whole ones before it. Gives the number of the last one written so far.
    ///
    /// `durable`: returns only when they are on the disk, for what must be known after a power cut. The others outlive
    /// the process, not the machine.
    ///
    /// # Errors
    /// [`StoreError::Encode`], `Write` or `Sync`: none of the entries is in the journal. Should what was written not be
    /// cut off at once, the next call does that first, and so does the next [`Store::open`] with an unfinished line.
    pub fn append(&mut self, entries: &[E], durable: bool) -> Result<u64, StoreError> {
        let text = encode(entries, self.seq_next)?;
        let write_error = |path: &Path, source| StoreError::Write { path: path.to_owned(), source };
        self.cut().map_err(|source| write_error(&self.path, source))?;
        if let Err(source) = self.file.write_all(&text) {
            self.take_back();
            return Err(write_error(&self.path, source));
        }
        if durable && let Err(source) = self.file.sync_data() {
            // The kernel reports a failure once and then takes the pages for clean: syncing again would prove nothing.
            self.take_back();
            return Err(StoreError::Sync { path: self.path.clone(), source });
        }
        self.bytes += text.len() as u64;
        self.seq_next += entries.len() as u64;
        Ok(self.seq_next - 1)
    }

    /// Whether it is time for [`Store::rotate`].
    pub fn is_full(&self) -> bool {
        self.bytes >= self.full_at
    }

    /// Begins a new file with these entries, which must say all that is to be known without the older ones. The file
    /// before stays as the older one, in the place of the one before that.
    ///
    /// In this order; killed after any step, [`Store::open`] finds all that the last two files held:
    ///
    /// 1. the new file is written aside and is on the disk: as if nothing had happened;
    /// 2. the journal becomes the older one: there is no journal, the older one has everything, and `open` begins an
    ///    empty one;
    /// 3. the new file becomes the journal.
    ///
    /// # Errors
    /// [`StoreError::Encode`] or `Rotate`: the old file goes on.
    pub fn rotate(&mut self, snapshot: &[E]) -> Result<u64, StoreError> {
        let text = encode(snapshot, self.seq_next)?;
        let rotate_error = |path: &Path, source| StoreError::Rotate { path: path.to_owned(), source };
        let fresh = self.begin(&text).map_err(|source| rotate_error(&self.path, source))?;
        let moved = self.retire().and_then(|()| self.install(&fresh));
        let file = match moved {
            Ok(file) => file,
            Err(source) => {
                // A new file left beside is removed with other left-overs, after an hour.
                drop(fs::remove_file(&fresh));
                return Err(rotate_error(&self.path, source));
            }
        };
        self.file = file;
        self.torn = false;
        self.bytes = text.len() as u64;
        self.seq_next += snapshot.len() as u64;
        // A snapshot of nearly that size would otherwise be written anew with every entry.
        self.full_at = BYTES_MAX.max(2 * self.bytes);
        Ok(self.seq_next - 1)
    }

    /// Step 1: the new file, beside.
    fn begin(&mut self, text: &[u8]) -> io::Result<PathBuf> {
        self.cut()?;
        // It is not written any more, and must not be less durable than what follows it.
        self.file.sync_data()?;
        files::write_beside(&self.path, text, 0o600)
    }

    /// Step 2: the journal becomes the older one.
    fn retire(&self) -> io::Result<()> {
        match fs::rename(&self.path, self.path.with_file_name(OLDER)) {
            // An earlier attempt came so far and could not be undone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        }
    }

    /// Step 3: the new file becomes the journal. If it cannot, the older one is the journal again; if not even that,
    /// its open file still is where entries go and where `open` finds them.
    fn install(&self, fresh: &Path) -> io::Result<File> {
        let installed = open_journal(fresh).and_then(|file| fs::rename(fresh, &self.path).map(|()| file));
        match installed {
            Ok(file) => {
                // Only the names could be lost, which is the state after step 1 or 2.
                if let Err(error) = files::sync_parent(&self.path) {
                    tracing::warn!(%error, codex_path = %self.path.display(), "a new journal of incidents may not outlast a power cut");
                }
                Ok(file)
            }
            Err(error) => {
                drop(fs::rename(self.path.with_file_name(OLDER), &self.path));
                Err(error)
            }
        }
    }

    /// Cuts off what a failed write left.
    fn cut(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }

    /// After a failed write; what cannot be cut off now is cut off before the next one.
    fn take_back(&mut self) {
        self.torn = true;
        drop(self.cut());
    }
}

/// Reads the journal in `dir` and changes nothing: for those who do not write it, and where nothing can be written. A
/// writer may be at work: its unfinished line then counts as damage. Missing files are empty ones.
///
/// # Errors
/// [`StoreError::Read`].
pub fn read<E: DeserializeOwned>(dir: &Path) -> Result<Contents<E>, StoreError> {
    // A rotation between the two files would hide the one that became the older. They are far apart: twice is one too many.
    for _ in 0..2 {
        let before = inode(&dir.join(OLDER));
        let contents = read_once(dir)?;
        if inode(&dir.join(OLDER)) == before {
            return Ok(contents);
        }
    }
    read_once(dir)
}

/// Which file it is, if there is one.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn read_once<E: DeserializeOwned>(dir: &Path) -> Result<Contents<E>, StoreError> {
    let mut contents = Contents { entries: Vec::new(), damage: Vec::new() };
    for name in [OLDER, JOURNAL] {
        let file = dir.join(name);
        let found = look(&file, contents.entries.last().map_or(0, |one: &Numbered<E>| one.seq))?;
        if let Some(bad) = &found.bad {
            contents.damage.push(Damage { file, lines: bad.lines(), kept_as: None });
        }
        contents.entries.extend(found.lines);
    }
    Ok(contents)
}

/// The place up to which the system's journal was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// As it was saved; `None` if there is none.
    pub text: Option<String>,
    /// Where a damaged one was put.
    pub kept_as: Option<PathBuf>,
}

/// Keeps a cursor in `dir`, in one line and no more, as `journalctl --cursor-file=` does.
///
/// # Errors
/// [`StoreError::Write`]: the earlier one stays. Also for text that [`load_cursor`] would take for damage.
pub fn save_cursor(dir: &Path, text: &str) -> Result<(), StoreError> {
    let path = dir.join(CURSOR);
    let written = if is_cursor(text) {
        files::create_private_dir(dir).and_then(|()| files::replace(&path, format!("{text}\n").as_bytes(), 0o600))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not one line of printable characters"))
    };
    written.map_err(|source| StoreError::Write { path, source })
}

/// The cursor kept in `dir`. Anything but one finished line of printable ASCII is damage and set aside.
///
/// # Errors
/// [`StoreError::Read`] or `Repair`.
pub fn load_cursor(dir: &Path) -> Result<Cursor, StoreError> {
    let path = dir.join(CURSOR);
    let read_error = |source| StoreError::Read { path: path.clone(), source };
    let Some(file) = open_to_read(&path).map_err(read_error)? else { return Ok(Cursor::default()) };
    let mut bytes = Vec::new();
    file.take(CURSOR_BYTES_MAX as u64 + 2).read_to_end(&mut bytes).map_err(read_error)?;
    let text = String::from_utf8(bytes).ok();
    match text.as_deref().and_then(|text| text.strip_suffix('\n')).filter(|text| is_cursor(text)) {
        Some(text) => Ok(Cursor { text: Some(text.to_owned()), kept_as: None }),
        None => {
            let aside = files::set_aside(&path).map_err(|source| StoreError::Repair { path: path.clone(), source })?;
            Ok(Cursor { text: None, kept_as: Some(aside) })
        }
    }
}

fn is_cursor(text: &str) -> bool {
    (1..=CURSOR_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Lines for the file, numbered from `seq` on.
fn encode<E: Serialize>(entries: &[E], seq: u64) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::new();
    for (seq, entry) in (seq..).zip(entries) {
        // `serde_json` puts no line feed into what it writes.
        let entry = serde_json::to_string(entry).map_err(StoreError::Encode)?;
        let summed = format!("\"seq\":{seq},\"entry\":{entry}}}");
        text.extend_from_slice(HEAD);
        text.extend_from_slice(sum(summed.as_bytes()).as_bytes());
        text.extend_from_slice(AFTER_SUM);
        text.extend_from_slice(summed.as_bytes());
        text.push(b'\n');
    }
    Ok(text)
}

fn sum(summed: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(summed))
}

/// The entry in a line without its line feed, if the line is as it was written.
fn decode<E: DeserializeOwned>(line: &[u8]) -> Option<Numbered<E>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<E> {
        #[serde(rename = "sum")]
        _sum: IgnoredAny,
        seq: u64,
        entry: E,
    }
    let (digits, rest) = line.strip_prefix(HEAD)?.split_at_checked(SUM_DIGITS)?;
    let summed = rest.strip_prefix(AFTER_SUM)?;
    if sum(summed).as_bytes() != digits {
        return None;
    }
    let line: Line<E> = serde_json::from_slice(line).ok()?;
    Some(Numbered { seq: line.seq, entry: line.entry })
}

/// What one file held.
struct Found<E> {
    lines: Vec<Numbered<E>>,
    /// The readable lines as they stand in the file.
    good: Vec<u8>,
    bad: Option<Bad>,
}

enum Bad {
    /// These lines, as they stand in the file.
    Lines(Vec<u8>, usize),
    /// The whole file, which is too large.
    File,
}

impl Bad {
    fn lines(&self) -> usize {
        match self {
            Self::Lines(_, count) => *count,
            Self::File => 1,
        }
    }
}

impl<E> Found<E> {
    /// Keeps the bad lines aside, then takes them out of the file. Gives where they are kept.
    fn repair(&self, path: &Path, bad: &Bad) -> io::Result<PathBuf> {
        match bad {
            Bad::File => files::set_aside(path),
            Bad::Lines(bytes, _) => {
                // Under the file's name and with a dot, so that nobody takes it for the journal meanwhile.
                let beside = files::write_beside(path, bytes, 0o600)?;
                let kept = files::keep_aside(&beside, path);
                fs::remove_file(&beside)?;
                let kept = kept?;
                files::sync_parent(path)?;
                files::replace(path, &self.good, 0o600)?;
                Ok(kept)
            }
        }
    }
}

/// Reads one file; `seq_last` is the number of the entry before its first one.
fn look<E: DeserializeOwned>(path: &Path, mut seq_last: u64) -> Result<Found<E>, StoreError> {
    let read_error = |source| StoreError::Read { path: path.to_owned(), source };
    let mut found = Found { lines: Vec::new(), good: Vec::new(), bad: None };
    let Some(file) = open_to_read(path).map_err(read_error)? else { return Ok(found) };
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > READ_BYTES_MAX {
        found.bad = Some(Bad::File);
        return Ok(found);
    }
    let (mut bad, mut count) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // Without its line feed a line was never confirmed to the caller, whatever it holds.
        let one = line.strip_suffix(b"\n").and_then(decode).filter(|one: &Numbered<E>| one.seq > seq_last);
        match one {
            Some(one) => {
                seq_last = one.seq;
                found.lines.push(one);
                found.good.extend_from_slice(line);
            }
            None => {
                bad.extend_from_slice(line);
                count += 1;
            }
        }
    }
    if count > 0 {
        found.bad = Some(Bad::Lines(bad, count));
    }
    Ok(found)
}

/// `None`: there is no such file. A link is not followed, a pipe does not block.
fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_journal(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let open_error = |source| StoreError::Open { path: path.to_owned(), source };
    // A file of its own: the journal's changes with every rotation, and the directory's lock is for making secrets.
    let file = open_journal(path).map_err(open_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(open_error(source)),
    }
}

#[cfg(test)]
mod tests;
