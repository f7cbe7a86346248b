//! Where the program keeps its files.
//!
//! Directories follow the XDG Base Directory Specification 0.8.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The directory's name below each XDG directory.
const NAME: &str = "codex-proxy";

/// The directories of one user. None of them need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The home directory.
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME/codex-proxy`: what the user writes.
    pub config: PathBuf,
    /// `$XDG_STATE_HOME/codex-proxy`: what must survive restarts.
    pub state: PathBuf,
    /// `$XDG_CACHE_HOME/codex-proxy`: what may vanish.
    pub cache: PathBuf,
    /// `$XDG_RUNTIME_DIR/codex-proxy`: what goes with the login session; `None` outside of one.
    pub runtime: Option<PathBuf>,
}

/// The environment variables that say where directories are, as they are set.
#[derive(Debug, Clone, Default)]
pub struct PathVariables {
    /// `HOME`.
    pub home: Option<OsString>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<OsString>,
    /// `XDG_CACHE_HOME`.
    pub cache_home: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<OsString>,
}

/// Nothing says where the home directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no home directory: HOME is not an absolute path")]
pub struct NoHome;

impl Paths {
    /// The directories that `variables` name. Relative values are ignored, as the specification demands.
    ///
    /// # Errors
    /// [`NoHome`] if `HOME` is unset, empty or relative.
    pub fn new(variables: &PathVariables) -> Result<Self, NoHome> {
        let absolute = |value: &Option<OsString>| value.as_ref().map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute(&variables.home).ok_or(NoHome)?;
        let below = |value, fallback: &str| absolute(value).unwrap_or_else(|| home.join(fallback)).join(NAME);
        Ok(Self {
            config: below(&variables.config_home, ".config"),
            state: below(&variables.state_home, ".local/state"),
            cache: below(&variables.cache_home, ".cache"),
            runtime: absolute(&variables.runtime_dir).map(|path| path.join(NAME)),
            home,
        })
    }

    /// The directories of this process; without `HOME`, the home directory of the user database.
    ///
    /// # Errors
    /// [`NoHome`] if neither says where it is.
    pub fn from_env() -> Result<Self, NoHome> {
        let home = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute()).or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            user.map(|user| user.dir.into_os_string())
        });
        Self::new(&PathVariables {
            home,
            config_home: std::env::var_os("XDG_CONFIG_HOME"),
            state_home: std::env::var_os("XDG_STATE_HOME"),
            cache_home: std::env::var_os("XDG_CACHE_HOME"),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_follow_the_specification() {
        let home = PathVariables { home: Some("/home/u".into()), ..PathVariables::default() };
        let paths = Paths::new(&home).unwrap();
        assert_eq!(paths.config, Path::new("/home/u/.config/codex-proxy"));
        assert_eq!(paths.state, Path::new("/home/u/.local/state/codex-proxy"));
        assert_eq!(paths.cache, Path::new("/home/u/.cache/codex-proxy"));
        assert_eq!(paths.runtime, None);
        let set = PathVariables {
            config_home: Some("/c".into()),
            state_home: Some("relative".into()),
            cache_home: Some("".into()),
            runtime_dir: Some("/run/user/1".into()),
            ..home
        };
        let paths = Paths::new(&set).unwrap();
        assert_eq!(paths.config, Path::new("/c/codex-proxy"));
        assert_eq!(paths.state, Path::new("/home/u/.local/state/codex-proxy"));
        assert_eq!(paths.cache, Path::new("/home/u/.cache/codex-proxy"));
        assert_eq!(paths.runtime.as_deref(), Some(Path::new("/run/user/1/codex-proxy")));
        assert_eq!(Paths::new(&PathVariables::default()), Err(NoHome));
    }
}
