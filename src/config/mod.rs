//! From files to [`Settings`].
//!
//! ```text
//! load (reads files) → fragment::parse → merge → interpret (section, provider, presets, defaults) → Settings
//! ```
//!
//! Only [`load`] touches files, and [`credentials`] fetches keys later, when a request needs one; everything between
//! is pure and can be tested from text. `config.toml` beside this file explains every key to users and is installed
//! as the vendor's layer.

pub mod base_url;
pub mod credentials;
mod defaults;
pub mod endpoint;
pub mod error;
mod fragment;
mod interpret;
mod merge;
mod nearest;
pub mod presets;
mod prices;
mod provider;
mod section;
pub mod settings;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use self::error::Report;
pub use self::{
    error::{ConfigError, ConfigErrors, Place},
    settings::Settings,
};

/// Where packages put their defaults.
const VENDOR_DIRECTORY: &str = "/usr/share/codex-proxy";
/// Where the machine's administrator puts theirs.
const SYSTEM_DIRECTORY: &str = "/etc/codex-proxy";
/// A configuration is written by hand; more is a mistake, such as a log or a device.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The places that are looked at, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<Layer>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layer {
    /// `config.toml`, which may be missing.
    File(PathBuf),
    /// `config.d`, which may be missing; its `*.toml`, by name.
    Directory(PathBuf),
    /// A file that was asked for.
    Demanded(PathBuf),
}

impl Layers {
    /// Vendor < system < user; `user` is the user's configuration directory, see
    /// [`Paths::config`](crate::host::paths::Paths).
    pub fn standard(user: &Path) -> Self {
        Self::of(Path::new(VENDOR_DIRECTORY), Path::new(SYSTEM_DIRECTORY), user)
    }

    /// The same with other directories.
    pub fn of(vendor: &Path, system: &Path, user: &Path) -> Self {
        let mut layers = vec![Layer::File(vendor.join("config.toml"))];
        for directory in [system, user] {
            layers.push(Layer::File(directory.join("config.toml")));
            layers.push(Layer::Directory(directory.join("config.d")));
        }
        Self(layers)
    }

    /// This file and nothing else; it must exist.
    pub fn only(file: &Path) -> Self {
        Self(vec![Layer::Demanded(file.to_owned())])
    }
}

/// Reads the layers and says what they mean. Blocks on the file system. A missing file is no error, save one that was
/// asked for.
///
/// # Errors
/// Everything that is wrong: with reading and syntax first, since meaning depends on them.
pub fn load(layers: &Layers) -> Result<Settings, ConfigErrors> {
    load_instead(layers, None)
}

/// The same as if `file` held that text already: what a change would mean.
///
/// # Errors
/// As [`load`].
pub fn load_with(layers: &Layers, file: &Path, text: &str) -> Result<Settings, ConfigErrors> {
    load_instead(layers, Some((file, text)))
}

fn load_instead(layers: &Layers, instead: Option<(&Path, &str)>) -> Result<Settings, ConfigErrors> {
    let mut report = Report::default();
    let mut texts = Vec::new();
    let text_of = |path: &Path| match instead {
        Some((file, text)) if file == path => Ok(text.to_owned()),
        _ => read_file(path),
    };
    let mut read = |path: PathBuf, demanded: bool, report: &mut Report| match text_of(&path) {
        Ok(text) => texts.push((path, text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !demanded => {}
        Err(source) => report.add(ConfigError::Read { file: path, source }),
    };
    for layer in &layers.0 {
        match layer {
            Layer::File(path) => read(path.clone(), false, &mut report),
            Layer::Demanded(path) => read(path.clone(), true, &mut report),
            Layer::Directory(path) => match list(path) {
                Ok(files) => files.into_iter().for_each(|file| read(file, false, &mut report)),
                Err(source) => report.add(ConfigError::Read { file: path.clone(), source }),
            },
        }
    }
    interpret_all(texts.iter().map(|(path, text)| (path.as_path(), text.as_str())), report)
}

/// What texts mean, lowest layer first; the paths are only what errors and [`Settings::files`] call them.
///
/// # Errors
/// As [`load`].
pub fn parse(texts: &[(&Path, &str)]) -> Result<Settings, ConfigErrors> {
    interpret_all(texts.iter().copied(), Report::default())
}

fn interpret_all<'a>(
    texts: impl Iterator<Item = (&'a Path, &'a str)>,
    mut report: Report,
) -> Result<Settings, ConfigErrors> {
    let mut files = Vec::new();
    let mut fragments = Vec::new();
    for (path, text) in texts {
        files.push(path.to_owned());
        match fragment::parse(path, text) {
            Ok(fragment) => fragments.push(fragment),
            Err(error) => report.add(error),
        }
    }
    report.finish(())?;
    let settings = interpret::interpret(&merge::merge(fragments))?;
    Ok(Settings { files, ..settings })
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        let why = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// The `*.toml` of a directory by name, hidden ones left out; none if it is missing.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{settings::Price, *};
    use crate::codec::NativeTools;

    /// What is installed as `/usr/share/codex-proxy/config.toml`.
    const DOCUMENTED: &str = include_str!("config.toml");

    fn parsed(text: &str) -> Settings {
        let mut settings = parse(&[(Path::new("config.toml"), text)]).map_err(|errors| errors.to_string()).unwrap();
        settings.files.clear();
        settings
    }

    #[test]
    fn the_documented_file_changes_nothing() {
        assert_eq!(parsed(DOCUMENTED), Settings::default());
    }

    #[test]
    fn the_documented_defaults_are_the_ones_in_code() {
        // Keys are commented out by `#` alone, prose by `# `.
        let uncommented: String = DOCUMENTED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let settings = parsed(&uncommented);
        assert_eq!(settings.proxy, Settings::default().proxy);
        let mut watchdog = settings.watchdog;
        assert_eq!(watchdog.faults.len(), 1);
        watchdog.faults.clear();
        assert_eq!(watchdog, Settings::default().watchdog);
        assert_eq!((settings.providers.len(), settings.models.len()), (4, 1));
        let often = settings.providers.get("google").map(|google| u64::from(google.continue_max));
        assert_eq!(often, Some(defaults::CONTINUE_MAX.default));
        assert_eq!(settings.providers.get("native").map(|native| native.native_tools), Some(NativeTools::ALL));
        assert_eq!(settings.usage, Settings::default().usage);
        assert_eq!(settings.prices.currency, Settings::default().prices.currency);
        let price = |input, cached, cache_write, output| Price { input, cached, cache_write, output };
        let example = settings.prices.by_name.get("deepseek/deepseek-v4-pro");
        assert_eq!(example, Some(&price(3_000_000, 300_000, 3_750_000, 15_000_000)));
        let example = settings.prices.by_name.get("ollama/*");
        assert_eq!(example, Some(&price(0, 0, 0, 0)), "caches cost as input does, if nothing is said");
        // Every key of the [proxy] section stands in the file.
        for key in ["body_bytes_max", "bodies_in_flight_bytes_max", "retry_deadline_s", "head_hold_s", "keepalive_s"]
            .iter()
            .chain(&["upstream_idle_s", "upstream_head_s", "connect_timeout_s", "body_stall_s", "drain_s"])
        {
            assert!(DOCUMENTED.contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    #[test]
    fn layers_are_read_in_order_and_may_be_missing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let layers = Layers::of(&at("usr"), &at("etc"), &at("home"));
        assert_eq!(load(&layers).unwrap(), Settings::default());
        let write = |name: &str, keepalive: u32, drain: Option<u32>| {
            let path = at(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let drain = drain.map_or(String::new(), |drain| format!("drain_s = {drain}\n"));
            fs::write(&path, format!("[proxy]\nkeepalive_s = {keepalive}\n{drain}")).unwrap();
            path
        };
        let files = [
            write("usr/config.toml", 1, Some(11)),
            write("etc/config.toml", 2, None),
            write("etc/config.d/10-a.toml", 3, Some(12)),
            write("home/config.toml", 4, None),
            write("home/config.d/10.toml", 5, None),
            write("home/config.d/20.toml", 6, None),
        ];
        write("usr/config.d/ignored.toml", 90, None);
        write("home/config.d/.hidden.toml", 91, None);
        write("home/config.d/30.toml.bak", 92, None);
        let settings = load(&layers).unwrap();
        assert_eq!(settings.files, files);
        assert_eq!(settings.proxy.keepalive.as_secs(), 6);
        assert_eq!(settings.proxy.drain.as_secs(), 12);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let error = load(&Layers::only(&at("absent.toml"))).unwrap_err().to_string();
        assert!(error.contains("absent.toml: cannot be read: No such file"), "{error}");
        fs::create_dir_all(at("home/config.toml")).unwrap();
        fs::create_dir_all(at("home/config.d")).unwrap();
        fs::write(at("home/config.d/a.toml"), [0xff]).unwrap();
        fs::write(at("home/config.d/b.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
        fs::write(at("home/config.d/c.toml"), "a = ").unwrap();
        let errors = load(&Layers::of(&at("usr"), &at("etc"), &at("home"))).unwrap_err();
        let text = errors.to_string();
        assert_eq!(errors.iter().count(), 4, "{text}");
        for word in ["config.toml: cannot be read", "a.toml: cannot be read", "larger than", "c.toml:1:"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn an_error_names_the_layer_that_is_wrong() {
        let layers = [
            (Path::new("low"), "[proxy]\nkeepalive_s = 15\ndrain_s = 99"),
            (Path::new("high"), "[proxy]\nkeepalive_s = 0"),
        ];
        let text = parse(&layers).unwrap_err().to_string();
        assert!(text.contains("high:2: proxy.keepalive_s = 0") && text.contains("low:3: proxy.drain_s = 99"), "{text}");
    }
}
