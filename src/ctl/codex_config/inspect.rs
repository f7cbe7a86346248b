//! What Codex's `config.toml` says about us now, for those who judge it. PURE, as its parent.

use super::{EditError, Fate, PROVIDER_ID, Scan, Unit, changed_keys};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Our provider's table is there.
    pub present: bool,
    /// `model_provider` names it.
    pub selected: bool,
    /// The port of its `base_url`, if that is one of ours in form.
    pub port: Option<u16>,
    /// The port that `auth.args` asks the token for.
    pub token_port: Option<u16>,
    /// Its `name`.
    pub name: Option<String>,
    /// Keys of ours that are not as setup left them.
    pub changed: Vec<String>,
    /// `model_catalog_json` is set.
    pub has_catalogue_file: bool,
}

/// Reads the file.
///
/// # Errors
/// It is not TOML.
pub fn inspect(text: &str) -> Result<Inspected, EditError> {
    let scan = Scan::new(text)?;
    let provider = scan.provider_values();
    let string = |key: &str| provider.and_then(|table| table.get(key)?.as_str());
    let arguments = provider.and_then(|table| table.get("auth")?.get("args")?.as_array());
    let arguments: Vec<&str> = arguments.into_iter().flatten().filter_map(toml::Value::as_str).collect();
    let mut changed = Vec::new();
    if scan.fate(Unit::Provider) == Fate::Theirs {
        changed.extend(changed_keys(scan.recorded(Unit::Provider).as_ref(), provider));
    }
    for unit in [Unit::Model, Unit::ModelProvider] {
        if scan.fate(unit) == Fate::Theirs {
            changed.push(unit.name().to_owned());
        }
    }
    Ok(Inspected {
        present: provider.is_some(),
        selected: scan.root_str("model_provider") == Some(PROVIDER_ID),
        port: string("base_url").and_then(port_of),
        token_port: arguments
            .iter()
            .position(|word| *word == "--port")
            .and_then(|at| arguments.get(at + 1)?.parse().ok()),
        name: string("name").map(str::to_owned),
        changed,
        has_catalogue_file: scan.values.contains_key("model_catalog_json"),
    })
}

fn port_of(base_url: &str) -> Option<u16> {
    base_url.strip_prefix("http://127.0.0.1:")?.trim_end_matches('/').strip_suffix("/v1")?.parse().ok()
}
