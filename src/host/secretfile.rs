//! Secrets that this program makes for itself: the bearer token that keeps other users of the machine off the proxy,
//! and the key that seals opaque data.
//!
//! One small file each in the state directory, made by whoever needs it first: the proxy, or `codex-proxyctl token` on
//! Codex's behalf. It is written aside and linked into place, so that a reader never sees a part of it and of two
//! makers one wins; the other reads the winner's.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::files;

/// Random bytes in a token: 256 bit.
const RANDOM_BYTES: usize = 32;
/// Their length in base64url without padding.
pub const TEXT_BYTES: usize = 43;

/// The bearer token's file.
pub const TOKEN: &str = "token";
/// The file of the key that seals opaque data.
pub const OPAQUE_KEY: &str = "opaque.key";

/// 256 secret bits and their text, 43 characters of base64url. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret32 {
    bytes: [u8; RANDOM_BYTES],
    text: String,
}

impl Secret32 {
    /// As text, for an `Authorization` header or Codex's standard input. Not for logs.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// As a key.
    pub fn bytes(&self) -> &[u8; RANDOM_BYTES] {
        &self.bytes
    }

    /// Whether the presented text is the secret's. The time taken depends on the length of `presented` only.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let (ours, theirs) = (self.text.as_bytes(), presented);
        let mut difference = u8::from(ours.len() != theirs.len());
        for (at, byte) in theirs.iter().enumerate() {
            difference |= byte ^ ours[at % ours.len()];
        }
        // Keeps the compiler from leaving the loop at the first difference.
        std::hint::black_box(difference) == 0
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\n', '\r']);
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|_| text.len() == TEXT_BYTES)?;
        Some(Self { bytes: bytes.try_into().ok()?, text: text.to_owned() })
    }

    /// A fresh one, kept nowhere.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { bytes, text: URL_SAFE_NO_PAD.encode(bytes) })
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret32(***)")
    }
}

/// The secret in the file `name` of the state directory `dir`, made if it is missing.
///
/// A file that others can read is closed to them, one that holds no secret is moved to `<name>.corrupt-<n>` and
/// replaced; both are logged. Errors: the file belongs to another user, or cannot be read or made.
pub fn load_or_create(dir: &Path, name: &str) -> io::Result<Secret32> {
    files::create_private_dir(dir)?;
    let path = dir.join(name);
    match read(&path)? {
        Found::Secret(token) => Ok(token),
        Found::Nothing => create(&path),
        Found::Corrupt => {
            // Under the lock, so that of two who saw the damage the second does not set aside the first one's new file.
            let lock =
                Flock::lock(File::open(dir)?, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
            if matches!(read(&path)?, Found::Corrupt) {
                let aside = files::set_aside(&path)?;
                tracing::warn!(
                    codex_path = %path.display(),
                    codex_aside = %aside.display(),
                    "a secret's file held none; it is set aside and a new secret made, so running programs must be restarted"
                );
            }
            let token = create(&path);
            drop(lock);
            token
        }
    }
}

enum Found {
    Secret(Secret32),
    Nothing,
    Corrupt,
}

fn read(path: &Path) -> io::Result<Found> {
    let opened = OpenOptions::new().read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let owner = file.metadata()?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to user {owner}, not to you", path.display()),
        ));
    }
    files::make_private(path, 0o600)?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(Secret32::parse).map_or(Found::Corrupt, Found::Secret))
}

/// Makes a secret, unless somebody else was faster; then gives theirs.
fn create(path: &Path) -> io::Result<Secret32> {
    let token = Secret32::random()?;
    let beside = files::write_beside(path, format!("{}\n", token.reveal()).as_bytes(), 0o600)?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Ok(()) => {
            files::sync_parent(path)?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(path)? {
            Found::Secret(token) => Ok(token),
            Found::Nothing | Found::Corrupt => {
                Err(io::Error::other(format!("{} changes while it is read; try again", path.display())))
            }
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_token_is_made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        let first = load_or_create(&dir, TOKEN).unwrap();
        assert_eq!(first.reveal().len(), TEXT_BYTES);
        assert_eq!(load_or_create(&dir, TOKEN).unwrap().reveal(), first.reveal());
        assert_eq!((mode(&dir), mode(&dir.join(TOKEN))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn all_makers_at_once_get_the_same_token() {
        let home = tempfile::tempdir().unwrap();
        for damaged in [false, true] {
            let dir = home.path().join(damaged.to_string());
            if damaged {
                files::create_private_dir(&dir).unwrap();
                files::replace(&dir.join(TOKEN), b"", 0o600).unwrap();
            }
            let tokens: Vec<String> = std::thread::scope(|scope| {
                let makers: Vec<_> = (0..16).map(|_| scope.spawn(|| load_or_create(&dir, TOKEN).unwrap())).collect();
                makers.into_iter().map(|maker| maker.join().unwrap().reveal().to_owned()).collect()
            });
            assert!(tokens.windows(2).all(|pair| pair[0] == pair[1]));
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1 + usize::from(damaged));
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for (n, damage) in ["", "short", "€€€"].iter().enumerate() {
            files::replace(&dir.path().join(TOKEN), damage.as_bytes(), 0o600).unwrap();
            let token = load_or_create(dir.path(), TOKEN).unwrap();
            assert_eq!(load_or_create(dir.path(), TOKEN).unwrap().reveal(), token.reveal());
            assert_eq!(fs::read(dir.path().join(format!("token.corrupt-{}", n + 1))).unwrap(), damage.as_bytes());
        }
    }

    #[test]
    fn a_file_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let token = load_or_create(dir.path(), TOKEN).unwrap();
        fs::set_permissions(dir.path().join(TOKEN), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(dir.path(), TOKEN).unwrap().reveal(), token.reveal());
        assert_eq!(mode(&dir.path().join(TOKEN)), 0o600);
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join(TOKEN)).unwrap();
        assert!(load_or_create(dir.path(), TOKEN).is_err());
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = Secret32::random().unwrap();
        let text = token.reveal().to_owned();
        assert!(token.matches(text.as_bytes()));
        for wrong in
            [String::new(), text[1..].to_owned(), format!("{text}{text}"), format!("{text} "), "x".repeat(TEXT_BYTES)]
        {
            assert!(!token.matches(wrong.as_bytes()));
        }
        assert_eq!(format!("{token:?}"), "Secret32(***)");
    }
}
