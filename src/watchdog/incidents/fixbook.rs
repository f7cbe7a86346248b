//! Keeps what helped before in `fixes.json`: one file, replaced whole, since it has few hundred short entries and changes
//! when something was verified, which is seldom.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::{debug, warn};

use crate::{
    host::files,
    watchdog::{
        catalog::Action,
        fixes::Fixes,
        incidents::record::{CommandId, Verified},
    },
};

const NAME: &str = "fixes.json";
/// A larger file is not ours: five hundred fixes have some 100 kB.
const BYTES_MAX: u64 = 4 << 20;

/// What helped before, and where it is kept.
#[derive(Debug, Default)]
pub struct FixBook {
    path: Option<PathBuf>,
    fixes: Fixes,
}

impl FixBook {
    /// What is kept in `dir`. What cannot be read as such is set aside and begun anew; where nothing can be kept, it is
    /// known for as long as the process lives.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let fixes = match read(&path) {
            Ok(fixes) => fixes,
            Err(error) => {
                let kept_as = files::set_aside(&path).map(|path| path.display().to_string());
                warn!(
                    codex_path = %path.display(),
                    codex_error = %error,
                    codex_kept_as = kept_as.ok(),
                    "what helped before cannot be read, set aside and begun anew"
                );
                Fixes::default()
            }
        };
        Self { path: Some(path), fixes }
    }

    /// See [`Fixes::advise`]. What was used last is written with what is learnt next.
    pub fn advise(&mut self, pattern: &str, tried: &[Action]) -> Option<(Action, String)> {
        self.fixes.advise(pattern, tried)
    }

    /// See [`Fixes::learn`]. A file that cannot be written costs what was learnt, at the end of the process.
    pub fn learn(&mut self, command: CommandId, pattern: &str, action: Action, outcome: Verified) {
        if !self.fixes.learn(command, pattern, action, outcome) {
            return;
        }
        let Some(path) = &self.path else { return };
        let text = serde_json::to_vec(&self.fixes).map_err(io::Error::other);
        if let Err(error) = text.and_then(|text| files::replace(path, &text, 0o600)) {
            debug!(codex_error = %error, "what helped cannot be kept");
        }
    }
}

fn read(path: &Path) -> io::Result<Fixes> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= BYTES_MAX => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "no file of ours")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Fixes::default()),
        Err(error) => return Err(error),
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::incidents::record::IncidentId;

    const PATTERN: &str = "A5 proxy panic";

    #[test]
    fn what_helped_is_known_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = FixBook::open(dir.path());
        assert_eq!(book.advise(PATTERN, &[]), None);
        book.learn(CommandId(IncidentId(1), 1), PATTERN, Action::RestartProxy, Verified::Succeeded);
        let mut next = FixBook::open(dir.path());
        assert_eq!(next.advise(PATTERN, &[]).map(|(action, _)| action), Some(Action::RestartProxy));
        // The same once more, as after a kill before it was told to be kept.
        next.learn(CommandId(IncidentId(1), 1), PATTERN, Action::RestartProxy, Verified::Succeeded);
        assert_eq!(next.advise(PATTERN, &[]).map(|(_, why)| why), Some("it helped 1 of 1 times".to_owned()));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.path().join(NAME)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "[{\"pattern\":").unwrap();
        let mut book = FixBook::open(dir.path());
        assert_eq!(book.advise(PATTERN, &[]), None);
        let aside = fs::read_to_string(dir.path().join("fixes.json.corrupt-1")).unwrap();
        assert_eq!(aside, "[{\"pattern\":");
        book.learn(CommandId(IncidentId(1), 1), PATTERN, Action::StartProxy, Verified::Succeeded);
        assert!(FixBook::open(dir.path()).advise(PATTERN, &[]).is_some());
    }
}
