//! Files of ours: private directories, whole replacement, setting aside.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a killed writer left behind is removed after so long; nobody takes an hour to write a small file.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// Makes `dir` and its missing parents with mode 0700. An existing one that others can enter is closed to them, and
/// that is logged.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    make_private(dir, 0o700)
}

/// Takes away what group and others may do with `path`, if they may do anything; logged.
pub fn make_private(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        tracing::warn!(
            codex_path = %path.display(),
            codex_mode = format!("{:o}", found.mode() & 0o7777),
            "others had access to a private file; it is closed to them now"
        );
    }
    Ok(())
}

/// A new file beside `path`, written whole and on disk, to be moved or linked into place. The caller removes it if it
/// does not use it.
pub fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    remove_leftovers(path, &format!(".{name}."));
    let beside = path.with_file_name(format!(".{name}.{:016x}", u64::from_ne_bytes(random)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        // The umask may have narrowed the mode of `open`.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(beside),
        Err(error) => {
            // Nothing can be done about a left-over beside saying why it is there, which the error does.
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// Removes what killed writers left beside `path`; whatever cannot be removed stays.
fn remove_leftovers(path: &Path, prefix: &str) {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else { return };
    for entry in entries.flatten() {
        let left = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(prefix))
            .is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()));
        let old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > LEFTOVER_AGE);
        if left && entry.metadata().and_then(|m| m.modified()).is_ok_and(old) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Replaces `path` by a file of these bytes: readers see the old or the new one, never a part.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = write_beside(path, bytes, mode)?;
    if let Err(error) = fs::rename(&beside, path) {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_parent(path)
}

/// Makes a rename or link last over a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Moves an unusable file out of the way, to `<name>.corrupt-<n>` with the first free `n`, and gives that path.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = keep_aside(path, path)?;
    fs::remove_file(path)?;
    Ok(aside)
}

/// Gives `file` a second name, the one of damage in `path`: `<name>.corrupt-<n>` with the first free `n`.
pub fn keep_aside(file: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for n in 1..10_000 {
        let aside = path.with_file_name(format!("{name}.corrupt-{n}"));
        // A link never replaces what is there, unlike a rename.
        match fs::hard_link(file, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("too many files named {name}.corrupt-<n>; delete some")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_killed_writers_go_after_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let age = |name: &str, age: Duration| {
            let file = File::create(at(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        age(".token.0123456789abcdef", 2 * LEFTOVER_AGE);
        age(".token.0123456789abcdee", LEFTOVER_AGE / 2);
        age(".token.notes", 2 * LEFTOVER_AGE);
        replace(&at("token"), b"x", 0o600).unwrap();
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [".token.0123456789abcdee", ".token.notes", "token"]);
    }
}
