//! `catalogue.json` of the state directory: the system prompt and the model names the installed client has.
//!
//! Written by `codex-proxyctl setup` and `catalogue refresh`, read by whoever serves `/v1/models`.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files;

const NAME: &str = "catalogue.json";
const VERSION: u32 = 1;
/// Far above any prompt seen (22 KB).
const BYTES_MAX: u64 = 4 << 20;

/// What was read from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    version: u32,
    /// The client's version, as it says it: `0.169.0`.
    pub client_version: String,
    /// The system prompt.
    pub base_instructions: String,
    /// The names of the client's built-in models, in its order.
    #[serde(default)]
    pub built_in_models: Vec<String>,
}

impl Stored {
    /// A record of this version of the format.
    pub fn new(client_version: String, base_instructions: String, built_in_models: Vec<String>) -> Self {
        Self { version: VERSION, client_version, base_instructions, built_in_models }
    }
}

/// The record, or `None` if there is none. One that cannot be understood is moved to `catalogue.json.corrupt-<n>`, which
/// is logged; the caller does without until the next refresh.
pub fn load(dir: &Path) -> io::Result<Option<Stored>> {
    let path = dir.join(NAME);
    let bytes = match std::fs::metadata(&path) {
        Ok(found) if found.len() > BYTES_MAX => Vec::new(),
        Ok(_) => std::fs::read(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<Stored>(&bytes) {
        Ok(stored) if stored.version == VERSION && !stored.base_instructions.trim().is_empty() => Ok(Some(stored)),
        _ => {
            let aside = files::set_aside(&path)?;
            tracing::warn!(
                codex_path = %path.display(),
                codex_aside = %aside.display(),
                "the stored catalogue cannot be used; it is set aside until the next refresh"
            );
            Ok(None)
        }
    }
}

/// Writes the record in place of an older one, mode 0600.
pub fn save(dir: &Path, stored: &Stored) -> io::Result<()> {
    files::create_private_dir(dir)?;
    let bytes = serde_json::to_vec(stored).map_err(io::Error::other)?;
    files::replace(&dir.join(NAME), &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let stored = Stored::new("0.169.0".to_owned(), "Be careful.".to_owned(), vec!["a".to_owned()]);
        save(dir.path(), &stored).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(stored));
        let path = dir.path().join(NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let wrong = [
            "",
            "{}",
            r#"{"version":2,"client_version":"1","base_instructions":"x"}"#,
            r#"{"version":1,"client_version":"1","base_instructions":" "}"#,
        ];
        for (n, text) in wrong.iter().enumerate() {
            std::fs::write(&path, text).unwrap();
            assert_eq!(load(dir.path()).unwrap(), None);
            assert!(!path.exists());
            assert!(dir.path().join(format!("{NAME}.corrupt-{}", n + 1)).exists());
        }
    }
}
