//! Files of ours that hold one JSON object: read whole, replaced whole, changed by one process at a time.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files;

/// The object, or `None` if there is no file. One that is larger than `bytes_max`, cannot be read or is not `usable` is
/// moved to `NAME.corrupt-<n>`, which is logged; the caller does without.
pub fn load<T: DeserializeOwned>(path: &Path, bytes_max: u64, usable: impl Fn(&T) -> bool) -> io::Result<Option<T>> {
    let bytes = match std::fs::metadata(path) {
        Ok(found) if found.len() > bytes_max => Vec::new(),
        Ok(_) => std::fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<T>(&bytes) {
        Ok(object) if usable(&object) => Ok(Some(object)),
        _ => {
            let aside = files::set_aside(path)?;
            tracing::warn!(
                codex_path = %path.display(),
                codex_aside = %aside.display(),
                "a file of ours cannot be used; it is set aside until it is made anew"
            );
            Ok(None)
        }
    }
}

/// Reads the object by `load`, has it changed, and writes it in place of the old file, mode 0600. Waits for others that
/// do the same in that directory.
pub fn update<T: Serialize + Default>(
    path: &Path,
    load: impl FnOnce() -> io::Result<Option<T>>,
    change: impl FnOnce(&mut T),
) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    files::create_private_dir(dir)?;
    // The directory itself is what is locked: a file beside it would be one more that nobody explains.
    let _turn = Flock::lock(File::open(dir)?, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
    let mut object = load()?.unwrap_or_default();
    change(&mut object);
    let bytes = serde_json::to_vec(&object).map_err(io::Error::other)?;
    files::replace(path, &bytes, 0o600)
}
