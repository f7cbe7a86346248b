//! `catalogue.json` of the state directory: the system prompt and the model names the installed client has, and the
//! models that providers have.
//!
//! Written by `codex-proxyctl setup` and `catalogue refresh` (the former) and by `models refresh` (the latter), read by
//! whoever serves `/v1/models`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jsonfile;

const NAME: &str = "catalogue.json";
const VERSION: u32 = 1;
/// Far above any prompt (22 KB) and any list of models (80 KB) seen.
const BYTES_MAX: u64 = 16 << 20;

/// What was read from the client and from providers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    version: u32,
    /// The client's version, as it says it: `0.169.0`. Empty until a client was read.
    #[serde(default)]
    pub client_version: String,
    /// The system prompt. Empty until a client was read.
    #[serde(default)]
    pub base_instructions: String,
    /// The names of the client's built-in models, in its order.
    #[serde(default)]
    pub built_in_models: Vec<String>,
    /// The lists of providers, by their names, as `proxy/known.rs` writes and reads them.
    #[serde(default)]
    pub providers: BTreeMap<String, Value>,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            version: VERSION,
            client_version: String::new(),
            base_instructions: String::new(),
            built_in_models: Vec::new(),
            providers: BTreeMap::new(),
        }
    }
}

impl Stored {
    /// Whether a client was read.
    pub fn has_prompt(&self) -> bool {
        !self.base_instructions.trim().is_empty()
    }

    fn is_usable(&self) -> bool {
        self.version == VERSION && (self.has_prompt() || !self.providers.is_empty())
    }
}

/// The record, or `None` if there is none. One that cannot be understood is moved to `catalogue.json.corrupt-<n>`, which
/// is logged; the caller does without until the next refresh.
pub fn load(dir: &Path) -> io::Result<Option<Stored>> {
    jsonfile::load(&dir.join(NAME), BYTES_MAX, Stored::is_usable)
}

/// Changes the record and writes it in place of the older one, mode 0600.
pub fn update(dir: &Path, change: impl FnOnce(&mut Stored)) -> io::Result<()> {
    jsonfile::update(&dir.join(NAME), || load(dir), change)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        update(dir.path(), |stored| stored.base_instructions = "Be careful.".to_owned()).unwrap();
        update(dir.path(), |stored| drop(stored.providers.insert("p".to_owned(), Value::Null))).unwrap();
        let stored = load(dir.path()).unwrap().unwrap();
        assert!(stored.has_prompt() && stored.providers.contains_key("p"));
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
