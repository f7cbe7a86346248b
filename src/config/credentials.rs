//! Where keys come from, and the type that keeps them out of logs.
//!
//! The configuration never holds a provider's key, only where to find it ([`KeySource`]); `interpret.rs` writes it,
//! and the sender resolves it when a request first needs it and keeps it in a [`KeyCache`].

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    io::Read as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::io::AsyncReadExt as _;

/// More than any key or token needs.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// A password manager that wants a person to unlock it would otherwise hold the request for good.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

/// Text that must not be shown. Printing gives `***`.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text itself, to be sent and not to be kept.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this secret; how long that takes depends only on its length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let difference = presented.iter().enumerate().fold(secret.len() ^ presented.len(), |difference, (i, byte)| {
            // An index past the end still reads something, so that a wrong length takes as long as a right one.
            let own = secret.get(i % secret.len().max(1)).copied().unwrap_or(0);
            std::hint::black_box(difference | usize::from(own ^ byte))
        });
        std::hint::black_box(difference) == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What keys of providers begin with.
const KEY_BEGINNINGS: &[&str] =
    &["sk-", "sk_", "gsk_", "hf_", "xai-", "AIza", "nvapi-", "r8_", "pplx-", "csk-", "tgp_", "fw_"];
/// Shorter ones are names that begin alike.
const KEY_LENGTH_MIN: usize = 16;

/// Whether the text is a key, by its beginning: people paste it where only its place belongs.
pub fn looks_like_a_key(text: &str) -> bool {
    text.len() >= KEY_LENGTH_MIN
        && !text.contains('/')
        && KEY_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// Where a key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In this environment variable of the proxy.
    Env(String),
    /// In this file: absolute, or below the home directory (`~/…`). Only its owner may be able to read it.
    File(PathBuf),
    /// In this file of `$CREDENTIALS_DIRECTORY`: `LoadCredential=` or `LoadCredentialEncrypted=` of the unit.
    Credential(String),
    /// On the standard output of this program with these arguments; no shell, no standard input, at most 10 s.
    Command {
        /// A name on the search path, an absolute path, or one below the home directory (`~/…`).
        program: String,
        /// Its arguments, as they are.
        arguments: Vec<String>,
    },
}

impl fmt::Display for KeySource {
    /// For messages: never the secret. Arguments of a command are left out, they may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::Command { program, .. } => write!(f, "command {program}"),
        }
    }
}

/// What of the surroundings key sources refer to.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, set by the service manager.
    pub credentials_directory: Option<PathBuf>,
    /// Looks up an environment variable.
    pub variable: fn(&str) -> Option<OsString>,
}

impl Surroundings {
    /// Those of this process.
    pub fn from_env() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            home: path("HOME"),
            credentials_directory: path("CREDENTIALS_DIRECTORY"),
            variable: |name| std::env::var_os(name),
        }
    }
}

/// Why a key cannot be had. Says what to do; never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The variable is not set in the proxy's own environment.
    #[error("{0} is not set for codex-proxy; the service does not see your shell's variables, a key file does")]
    NotSet(KeySource),
    /// The manager gave no credentials, or `~` has no meaning.
    #[error("{0} cannot be found: {1} is not set")]
    NoDirectory(KeySource, &'static str),
    /// The file or program cannot be read or run.
    #[error("{0} cannot be read")]
    Unreadable(KeySource, #[source] io::Error),
    /// Others can read the file.
    #[error("{0} can be read by others (mode {1:04o}); run chmod 600 on it")]
    Exposed(KeySource, u32),
    /// Nothing but white space.
    #[error("{0} is empty")]
    Empty(KeySource),
    /// More than [`KEY_BYTES_MAX`].
    #[error("{0} gives more than {KEY_BYTES_MAX} bytes; a key is expected and nothing else")]
    TooLarge(KeySource),
    /// Several lines, or characters that cannot stand in an HTTP header.
    #[error("{0} must give one line of printable ASCII; a key is expected and nothing else")]
    Malformed(KeySource),
    /// The program ended with an error.
    #[error("{0} failed: {1}")]
    CommandFailed(KeySource, ExitStatus),
    /// The program took too long.
    #[error("{0} gave no answer within {s} s; it runs without a terminal and cannot ask", s = COMMAND_TIME_MAX.as_secs())]
    CommandSlow(KeySource),
}

impl KeySource {
    /// Fetches the key, trimmed of white space around it. Never cached here.
    ///
    /// # Errors
    /// Whatever keeps it from being had, see [`KeyError`].
    pub async fn resolve(&self, surroundings: &Surroundings) -> Result<Secret, KeyError> {
        let bytes = match self {
            Self::Env(name) => {
                (surroundings.variable)(name).ok_or_else(|| KeyError::NotSet(self.clone()))?.into_encoded_bytes()
            }
            Self::File(path) => {
                let path = self.expand(path, surroundings)?;
                self.read(path, true).await?
            }
            Self::Credential(name) => {
                let directory = surroundings.credentials_directory.as_deref();
                let missing = || KeyError::NoDirectory(self.clone(), "CREDENTIALS_DIRECTORY");
                // The manager made the file and decides its mode.
                self.read(directory.ok_or_else(missing)?.join(name), false).await?
            }
            Self::Command { program, arguments } => {
                let program = self.expand(Path::new(program), surroundings)?;
                self.run(&program, arguments, COMMAND_TIME_MAX).await?
            }
        };
        self.checked(&bytes)
    }

    /// Puts the home directory for a leading `~/`.
    fn expand(&self, path: &Path, surroundings: &Surroundings) -> Result<PathBuf, KeyError> {
        match (path.strip_prefix("~"), &surroundings.home) {
            (Ok(rest), Some(home)) => Ok(home.join(rest)),
            (Ok(_), None) => Err(KeyError::NoDirectory(self.clone(), "HOME")),
            (Err(_), _) => Ok(path.to_owned()),
        }
    }

    async fn read(&self, path: PathBuf, private: bool) -> Result<Vec<u8>, KeyError> {
        let source = self.clone();
        let unreadable = |error| KeyError::Unreadable(self.clone(), error);
        tokio::task::spawn_blocking(move || read_file(&source, &path, private))
            .await
            .map_err(|error| unreadable(io::Error::other(error)))?
    }

    async fn run(&self, program: &Path, arguments: &[String], time_max: Duration) -> Result<Vec<u8>, KeyError> {
        let unreadable = |error| KeyError::Unreadable(self.clone(), error);
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // What it complains of may hold the secret, and would stand in the journal.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(unreadable)?;
        let stdout = child.stdout.take().ok_or_else(|| unreadable(io::ErrorKind::BrokenPipe.into()))?;
        let talk = async {
            let mut output = Vec::new();
            stdout.take(KEY_BYTES_MAX as u64 + 1).read_to_end(&mut output).await?;
            if output.len() > KEY_BYTES_MAX {
                return Ok((output, None));
            }
            Ok((output, Some(child.wait().await?)))
        };
        match tokio::time::timeout(time_max, talk).await {
            Err(_) => Err(KeyError::CommandSlow(self.clone())),
            Ok(Err(error)) => Err(unreadable(error)),
            Ok(Ok((_, None))) => Err(KeyError::TooLarge(self.clone())),
            Ok(Ok((_, Some(status)))) if !status.success() => Err(KeyError::CommandFailed(self.clone(), status)),
            Ok(Ok((output, Some(_)))) => Ok(output),
        }
    }

    fn checked(&self, bytes: &[u8]) -> Result<Secret, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLarge(self.clone()));
        }
        let key = bytes.trim_ascii();
        if key.is_empty() {
            return Err(KeyError::Empty(self.clone()));
        }
        let printable = key.iter().all(|byte| matches!(byte, b' '..=b'~'));
        match str::from_utf8(key) {
            Ok(key) if printable => Ok(Secret::new(key)),
            _ => Err(KeyError::Malformed(self.clone())),
        }
    }
}

fn read_file(source: &KeySource, path: &Path, private: bool) -> Result<Vec<u8>, KeyError> {
    let unreadable = |error| KeyError::Unreadable(source.clone(), error);
    // Opening a pipe that nobody writes would otherwise wait for good.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if private && mode & 0o077 != 0 {
        return Err(KeyError::Exposed(source.clone(), mode));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Keys that were fetched, by provider and account.
///
/// The lock is a leaf and held only for a look-up, so fetching (which may take seconds) stays with the caller.
#[derive(Debug, Default)]
pub struct KeyCache {
    keys: Mutex<BTreeMap<(String, String), Secret>>,
}

impl KeyCache {
    /// The key of that account, if it was fetched.
    pub fn get(&self, provider: &str, account: &str) -> Option<Secret> {
        self.lock().get(&(provider.to_owned(), account.to_owned())).cloned()
    }

    /// Keeps a fetched key.
    pub fn put(&self, provider: &str, account: &str, key: Secret) {
        self.lock().insert((provider.to_owned(), account.to_owned()), key);
    }

    /// Forgets the key of that account, so that the next request fetches it anew: after a refusal by the provider.
    pub fn forget(&self, provider: &str, account: &str) {
        self.lock().remove(&(provider.to_owned(), account.to_owned()));
    }

    /// Forgets all: after a reload of the configuration.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Secret>> {
        // No holder can leave the map half changed, so a panic elsewhere does not spoil it.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn surroundings(directory: &Path) -> Surroundings {
        Surroundings {
            home: Some(directory.to_owned()),
            credentials_directory: Some(directory.to_owned()),
            variable: |name| (name == "SET").then(|| OsString::from(" sk-env \n")),
        }
    }

    async fn resolved(source: &KeySource, directory: &Path) -> Result<String, String> {
        match source.resolve(&surroundings(directory)).await {
            Ok(secret) => Ok(secret.expose().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn written(directory: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        fs::write(directory.join(name), content).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(words: &[&str]) -> KeySource {
        let mut words = words.iter().map(ToString::to_string);
        KeySource::Command { program: words.next().unwrap(), arguments: words.collect() }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("sk-123");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
    }

    #[test]
    fn a_secret_matches_itself_only() {
        let secret = Secret::new("sk-123");
        assert!(secret.matches(b"sk-123"));
        for other in [&b""[..], b"sk-12", b"sk-1234", b"sk-124", b"sk-123sk-123", b"xk-123"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(Secret::new("").matches(b""));
        assert!(!Secret::new("").matches(b"a"));
    }

    #[tokio::test]
    async fn environment() {
        let here = Path::new("/nonexistent");
        assert_eq!(resolved(&KeySource::Env("SET".into()), here).await.unwrap(), "sk-env");
        let error = resolved(&KeySource::Env("UNSET".into()), here).await.unwrap_err();
        assert!(error.contains("UNSET is not set"), "{error}");
    }

    #[tokio::test]
    async fn files() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        written(here, "good", "sk-file\n", 0o600);
        written(here, "open", "sk-file\n", 0o640);
        written(here, "empty", " \n", 0o600);
        written(here, "two", "a\nb\n", 0o600);
        written(here, "huge", vec![b'a'; KEY_BYTES_MAX + 1], 0o600);
        let file = |name: &str| KeySource::File(PathBuf::from("~").join(name));
        assert_eq!(resolved(&file("good"), here).await.unwrap(), "sk-file");
        assert_eq!(resolved(&KeySource::File(here.join("good")), here).await.unwrap(), "sk-file");
        for (name, word) in [
            ("open", "mode 0640); run chmod 600"),
            ("empty", "is empty"),
            ("two", "one line"),
            ("huge", "more than 65536 bytes"),
            ("absent", "cannot be read"),
            ("", "cannot be read"),
        ] {
            let error = resolved(&file(name), here).await.unwrap_err();
            assert!(error.contains(word) && !error.contains("sk-"), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert!(resolved(&KeySource::File(path), directory.path()).await.unwrap_err().contains("cannot be read"));
    }

    #[tokio::test]
    async fn credentials_come_with_the_managers_mode() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), "deepseek", "sk-cred", 0o440);
        assert_eq!(resolved(&KeySource::Credential("deepseek".into()), directory.path()).await.unwrap(), "sk-cred");
        let none = Surroundings { credentials_directory: None, ..surroundings(directory.path()) };
        let error = KeySource::Credential("deepseek".into()).resolve(&none).await.unwrap_err();
        assert!(error.to_string().contains("CREDENTIALS_DIRECTORY is not set"), "{error}");
    }

    #[tokio::test]
    async fn commands() {
        let here = Path::new("/");
        assert_eq!(resolved(&command(&["echo", "sk-a b;c"]), here).await.unwrap(), "sk-a b;c");
        for (words, word) in [
            (&["false"][..], "failed: exit status: 1"),
            (&["/nonexistent/program"], "cannot be read"),
            (&["cat"], "is empty"),
            (&["sh", "-c", "yes sk-secret"], "more than 65536"),
        ] {
            let error = resolved(&command(words), here).await.unwrap_err();
            assert!(error.contains(word) && !error.contains("sk-secret"), "{words:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_slow_command_is_given_up() {
        let source = command(&["sleep", "60"]);
        let error = source.run(Path::new("sleep"), &["60".into()], Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, KeyError::CommandSlow(_)), "{error}");
    }

    #[test]
    fn the_cache_forgets_on_demand() {
        let cache = KeyCache::default();
        cache.put("p", "a", Secret::new("1"));
        cache.put("p", "b", Secret::new("2"));
        cache.forget("p", "a");
        assert_eq!(cache.get("p", "a"), None);
        assert_eq!(cache.get("p", "b"), Some(Secret::new("2")));
        cache.forget_all();
        assert_eq!(cache.get("p", "b"), None);
    }
}
