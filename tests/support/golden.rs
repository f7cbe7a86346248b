//! Comparison with files that are kept: `UPDATE_GOLDEN=1` rewrites them, and the difference is reviewed like code.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The case directories below `tests/golden/<kind>`, sorted.
pub fn cases(kind: &str) -> Vec<PathBuf> {
    let root = super::root().join("tests/golden").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    cases
}

/// What differs from the kept files, gathered so that one run shows everything.
#[derive(Default)]
pub struct Differences(Vec<String>);

impl Differences {
    /// Compares one file, or rewrites it.
    pub fn compare(&mut self, file: &Path, found: &str) {
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(file, found).unwrap();
            return;
        }
        let kept = fs::read_to_string(file).unwrap_or_default();
        if kept != found {
            let at = kept.lines().zip(found.lines()).position(|(a, b)| a != b);
            let at = at.unwrap_or(kept.lines().count().min(found.lines().count()));
            let line = |text: &str| text.lines().nth(at).unwrap_or("(nothing)").chars().take(400).collect::<String>();
            let (kept, found) = (line(&kept), line(found));
            self.0.push(format!("{}:{}\n  kept:  {kept}\n  found: {found}", file.display(), at + 1));
        }
    }

    /// Fails with all of them.
    pub fn none(self) {
        assert!(self.0.is_empty(), "other than kept (UPDATE_GOLDEN=1 accepts what was found):\n{}", self.0.join("\n"));
    }
}
