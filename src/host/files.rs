//! Files of ours: private directories, whole replacement, setting aside.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for n in 1..10_000 {
        let aside = path.with_file_name(format!("{name}.corrupt-{n}"));
        // A link never replaces what is there, unlike a rename.
        match fs::hard_link(path, &aside) {
            Ok(()) => {
                fs::remove_file(path)?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("too many files named {name}.corrupt-<n>; delete some")))
}
