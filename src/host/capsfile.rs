//! `provider-caps.json` of the cache directory: what local servers said of themselves when they were last asked.
//!
//! It may vanish at any time, and is made anew.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jsonfile;

/// The file's name.
pub const NAME: &str = "provider-caps.json";
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 8 << 20;

/// What was learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caps {
    version: u32,
    /// By provider, as `proxy/known.rs` writes and reads it.
    #[serde(default)]
    pub providers: BTreeMap<String, Value>,
    /// What other versions of this program keep here.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Default for Caps {
    fn default() -> Self {
        Self { version: VERSION, providers: BTreeMap::new(), others: BTreeMap::new() }
    }
}

/// What is kept, or `None` if nothing is, or nothing usable.
pub fn load(dir: &Path) -> io::Result<Option<Caps>> {
    jsonfile::load(&dir.join(NAME), BYTES_MAX, |caps: &Caps| caps.version == VERSION)
}

/// Changes what is kept.
pub fn update(dir: &Path, change: impl FnOnce(&mut Caps)) -> io::Result<()> {
    jsonfile::update(&dir.join(NAME), || load(dir), change)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_learnt_is_private_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        assert_eq!(load(dir.path()).unwrap(), None);
        std::fs::write(&path, r#"{"version":1,"refusals":{"p":1}}"#).unwrap();
        update(dir.path(), |caps| drop(caps.providers.insert("a".to_owned(), Value::Bool(true)))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""refusals":{"p":1}"#) && text.contains(r#""a":true"#), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        for (n, text) in ["", "[]", "{}", r#"{"version":2}"#].iter().enumerate() {
            std::fs::write(&path, text).unwrap();
            assert_eq!(load(dir.path()).unwrap(), None);
            assert!(!path.exists() && dir.path().join(format!("{NAME}.corrupt-{}", n + 1)).exists());
        }
    }
}
