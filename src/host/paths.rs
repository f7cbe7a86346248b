//! Where the program keeps its files, and how it writes the private ones.
//!
//! Directories follow the XDG Base Directory Specification 0.8. Everything here blocks; it is called at start, on
//! reload and from blocking tasks. A process killed at any point leaves each file whole: the old one, or the new one.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

/// The directory's name below each XDG directory.
const NAME: &str = "codex-proxy";

/// What a killed writer left behind is removed after so long; nobody takes an hour to write a small file.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// The directories of one user. None of them need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The home directory.
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME/codex-proxy`: what the user writes.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/codex-proxy`: what must survive restarts.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/codex-proxy`: what may vanish.
    pub cache: PathBuf,
    /// `$XDG_RUNTIME_DIR/codex-proxy`: what goes with the login session; `None` outside of one.
    pub runtime: Option<PathBuf>,
}

/// The environment variables that say where directories are, as they are set.
#[derive(Debug, Clone, Default)]
pub struct PathVariables {
    /// `HOME`.
    pub home: Option<OsString>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<OsString>,
    /// `XDG_CACHE_HOME`.
    pub cache_home: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<OsString>,
}

/// Nothing says where the home directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no home directory: HOME is not an absolute path")]
pub struct NoHome;

impl Paths {
    /// The directories that `variables` name. Relative values are ignored, as the specification demands.
    ///
    /// # Errors
    /// [`NoHome`] if `HOME` is unset, empty or relative.
    pub fn new(variables: &PathVariables) -> Result<Self, NoHome> {
        let absolute = |value: &Option<OsString>| value.as_ref().map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute(&variables.home).ok_or(NoHome)?;
        let below = |value, fallback: &str| absolute(value).unwrap_or_else(|| home.join(fallback)).join(NAME);
        Ok(Self {
            config: below(&variables.config_home, ".config"),
            state: below(&variables.state_home, ".local/state"),
            cache: below(&variables.cache_home, ".cache"),
            runtime: absolute(&variables.runtime_dir).map(|path| path.join(NAME)),
            home,
        })
    }

    /// The directories of this process; without `HOME`, the home directory of the user database.
    ///
    /// # Errors
    /// [`NoHome`] if neither says where it is.
    pub fn from_env() -> Result<Self, NoHome> {
        let home = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute()).or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            user.map(|user| user.dir.into_os_string())
        });
        Self::new(&PathVariables {
            home,
            config_home: std::env::var_os("XDG_CONFIG_HOME"),
            state_home: std::env::var_os("XDG_STATE_HOME"),
            cache_home: std::env::var_os("XDG_CACHE_HOME"),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
        })
    }
}

/// Makes `path`, and what is missing above it, with mode 0700. If it exists, takes others' rights to it away.
///
/// # Errors
/// If it cannot be made, is no directory, or belongs to somebody else.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::metadata(path)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        let why = format!("{} belongs to uid {}", path.display(), metadata.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces `path` by a file of mode 0600 with this content: written aside, synced, renamed, so that a reader and a
/// restart find the old content or the new, never a part. The directory must exist.
///
/// # Errors
/// If anything fails; the old file is then as it was.
pub fn write_private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = Aside::write(path, content)?;
    fs::rename(&aside.path, path)?;
    aside.sync_directory()
    // Dropping removes a name that is no longer there: harmless, names are not reused.
}

/// What became of an attempt to be the first to write a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Exclusive {
    /// The file was not there and now holds the given content.
    Created,
    /// Somebody was first; this is what the file holds.
    Existing(Vec<u8>),
}

/// Makes `path` a file of mode 0600 with this content unless it exists: written aside, synced, then linked into
/// place, so that of several writers exactly one wins and no reader sees a part. The directory must exist.
///
/// # Errors
/// If anything but the file's existence prevents it, or the existing file cannot be read.
pub fn create_exclusive_private_file(path: &Path, content: &[u8]) -> io::Result<Exclusive> {
    // Mostly the file is there, and then nothing need be written.
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        existing => return existing.map(Exclusive::Existing),
    }
    let aside = Aside::write(path, content)?;
    match fs::hard_link(&aside.path, path) {
        Ok(()) => aside.sync_directory().map(|()| Exclusive::Created),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read(path).map(Exclusive::Existing),
        Err(error) => Err(error),
    }
}

/// A finished file beside the one that is meant, removed when dropped.
struct Aside {
    path: PathBuf,
    directory: PathBuf,
}

impl Aside {
    fn write(target: &Path, content: &[u8]) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let name = target.file_name().ok_or_else(invalid)?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        remove_leftovers(&directory, name);
        loop {
            let mut aside = OsString::from(".");
            aside.push(name);
            aside.push(format!(".{}.{}.tmp", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            let path = directory.join(aside);
            let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                // Left by an earlier process with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let aside = Self { path, directory };
            file.write_all(content)?;
            file.sync_all()?;
            return Ok(aside);
        }
    }

    /// Makes the new name survive a power cut.
    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // After a rename it is gone already; otherwise an hour later somebody else removes it.
        drop(fs::remove_file(&self.path));
    }
}

/// Removes what killed writers of `name` left behind; whatever cannot be removed stays.
fn remove_leftovers(directory: &Path, name: &OsStr) {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let bytes = file.as_encoded_bytes();
        if !bytes.starts_with(prefix.as_encoded_bytes()) || !bytes.ends_with(b".tmp") {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn directories_follow_the_specification() {
        let home = PathVariables { home: Some("/home/u".into()), ..PathVariables::default() };
        let paths = Paths::new(&home).unwrap();
        assert_eq!(paths.config, Path::new("/home/u/.config/codex-proxy"));
        assert_eq!(paths.state, Path::new("/home/u/.local/state/codex-proxy"));
        assert_eq!(paths.cache, Path::new("/home/u/.cache/codex-proxy"));
        assert_eq!(paths.runtime, None);
        let set = PathVariables {
            config_home: Some("/c".into()),
            state_home: Some("relative".into()),
            cache_home: Some("".into()),
            runtime_dir: Some("/run/user/1".into()),
            ..home
        };
        let paths = Paths::new(&set).unwrap();
        assert_eq!(paths.config, Path::new("/c/codex-proxy"));
        assert_eq!(paths.state, Path::new("/home/u/.local/state/codex-proxy"));
        assert_eq!(paths.cache, Path::new("/home/u/.cache/codex-proxy"));
        assert_eq!(paths.runtime.as_deref(), Some(Path::new("/run/user/1/codex-proxy")));
        assert_eq!(Paths::new(&PathVariables::default()), Err(NoHome));
    }

    #[test]
    fn private_directories_are_made_and_tightened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create_private_dir(&path).unwrap();
        assert_eq!((mode(&directory.path().join("a")), mode(&path)), (0o700, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(create_private_dir(&directory.path().join("file")).is_err());
    }

    #[test]
    fn private_files_are_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(directory.path()), ["state"]);
        assert!(write_private_file(&directory.path().join("absent/state"), b"").is_err());
        assert!(write_private_file(Path::new("/"), b"").is_err());
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_private_file(&path, b"x").is_err());
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[test]
    fn of_many_writers_one_wins_and_all_agree() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let outcomes: Vec<(Vec<u8>, Exclusive)> = thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|i| {
                    let path = &path;
                    scope.spawn(move || (vec![i; 64], create_exclusive_private_file(path, &[i; 64]).unwrap()))
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let winner = fs::read(&path).unwrap();
        let created = outcomes.iter().filter(|(_, outcome)| *outcome == Exclusive::Created).count();
        assert_eq!(created, 1);
        for (own, outcome) in outcomes {
            match outcome {
                Exclusive::Created => assert_eq!(own, winner),
                Exclusive::Existing(found) => assert_eq!(found, winner),
            }
        }
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(directory.path()), ["token"]);
    }

    #[test]
    fn leftovers_of_killed_writers_go_after_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let (old, young) = (directory.path().join(".state.1.0.tmp"), directory.path().join(".state.1.1.tmp"));
        let other = directory.path().join(".other.1.0.tmp");
        let hours_ago = SystemTime::now() - 2 * LEFTOVER_AGE;
        for path in [&old, &other] {
            File::create(path).unwrap().set_modified(hours_ago).unwrap();
        }
        File::create(&young).unwrap();
        write_private_file(&directory.path().join("state"), b"x").unwrap();
        assert_eq!(names(directory.path()), [".other.1.0.tmp", ".state.1.1.tmp", "state"]);
    }
}
