//! What can be wrong with a configuration, said so that the reader can put it right.
//!
//! Every error names the file and, where one exists, the line and the key; the value is shown only where it cannot be
//! a secret. A load collects all of them, so that one edit can answer them all.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file; `None` for what nobody wrote.
    pub file: Option<Arc<Path>>,
    /// Line, from 1.
    pub line: usize,
}

impl Place {
    /// The place of what nobody wrote.
    pub const NOWHERE: Self = Self { file: None, line: 0 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{}", file.display(), self.line),
            None => f.write_str("built-in defaults"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory of a layer is there but cannot be read, or is no text.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{}:{line}:{column}: not TOML: {message}", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The parser's words; they never quote the file.
        message: String,
    },
    /// A key or value that cannot be meant.
    #[error("{place}: {}: {why}", assignment(key, value.as_deref()))]
    Refused {
        /// Where it is written.
        place: Place,
        /// Dotted path.
        key: String,
        /// As TOML, if it cannot be a secret.
        value: Option<String>,
        /// What would be right.
        why: String,
    },
    /// Something this version knows of but does not do.
    #[error("{place}: {}: not built yet: {what}", assignment(key, value.as_deref()))]
    NotBuilt {
        /// Where it is written.
        place: Place,
        /// Dotted path.
        key: String,
        /// As TOML, if it cannot be a secret.
        value: Option<String>,
        /// What is missing and what works instead.
        what: String,
    },
}

fn assignment(key: &str, value: Option<&str>) -> String {
    value.map_or_else(|| key.to_owned(), |value| format!("{key} = {value}"))
}

impl ConfigError {
    /// Where the error stands, to sort by.
    fn place(&self) -> (Option<&Path>, usize) {
        match self {
            Self::Read { file, .. } => (Some(file), 0),
            Self::Syntax { file, line, .. } => (Some(file), *line),
            Self::Refused { place, .. } | Self::NotBuilt { place, .. } => (place.file.as_deref(), place.line),
        }
    }
}

/// Everything that is wrong with a configuration; at least one error, ordered by file and line.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, ordered by file and line.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    /// One error a line, each with its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
            let mut cause = error.source();
            while let Some(source) = cause {
                write!(f, ": {source}")?;
                cause = source.source();
            }
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}

/// Collects errors while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<ConfigError>,
}

impl Report {
    /// Adds any error.
    pub fn add(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Refuses a key whose value may be secret or does not matter.
    pub fn refuse(&mut self, place: &Place, key: &str, why: impl Into<String>) {
        self.add(ConfigError::Refused { place: place.clone(), key: key.to_owned(), value: None, why: why.into() });
    }

    /// Refuses a value that may be shown.
    pub fn refuse_value(&mut self, place: &Place, key: &str, value: impl fmt::Debug, why: impl Into<String>) {
        let value = Some(format!("{value:?}"));
        self.add(ConfigError::Refused { place: place.clone(), key: key.to_owned(), value, why: why.into() });
    }

    /// `value` if nothing was wrong, else the errors in order.
    pub fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by(|a, b| a.place().cmp(&b.place()));
        Err(ConfigErrors(self.errors))
    }
}
