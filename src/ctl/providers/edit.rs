//! Puts a provider and its models into the text of a `config.toml`, and leaves the rest as it is. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// Where the key is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A variable.
    Env(String),
    /// A file.
    File(String),
    /// A credential of the unit.
    Credential(String),
    /// A program and its arguments.
    Command(Vec<String>),
    /// It needs none.
    Nothing,
}

/// A provider as it is to be written; what is `None` is left to the preset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// `preset`.
    pub preset: Option<String>,
    /// `base_url`.
    pub base_url: Option<String>,
    /// `protocol`.
    pub protocol: Option<String>,
    /// `dialect`.
    pub dialect: Option<String>,
    /// `key` or `accounts`.
    pub key: Option<Key>,
    /// Models that are served there: name for the client, id there.
    pub models: Vec<(String, String)>,
}

/// Why nothing was edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Not TOML.
    #[error("line {line}: not TOML: {why}")]
    Invalid {
        /// From 1.
        line: usize,
        /// The parser's words.
        why: String,
    },
    /// Something else stands where a table has to be.
    #[error("{0} is not a table; mend it by hand")]
    InTheWay(String),
    /// It is there already.
    #[error("there is a provider {0:?} already; --replace writes it anew, or take another name")]
    Exists(String),
}

/// The provider alone, as a file of its own: what the flags mean, free of all else.
pub fn alone(wanted: &Wanted) -> String {
    edit("", wanted, false).map(|edited| edited.text).unwrap_or_default()
}

/// What became of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole of it.
    pub text: String,
    /// What happened to models, in words.
    pub notes: Vec<String>,
}

/// The text with the provider in it.
///
/// # Errors
/// [`EditError`].
pub fn edit(text: &str, wanted: &Wanted, replace: bool) -> Result<Edited, EditError> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        EditError::Invalid { line, why: error.message().to_owned() }
    })?;
    let providers = table(document.as_table_mut(), "providers", "providers")?;
    let mut provider = provider(wanted);
    match providers.get(&wanted.name) {
        None => put(providers, &wanted.name, provider),
        Some(_) if !replace => return Err(EditError::Exists(wanted.name.clone())),
        Some(old) => {
            // The comment above it stays, and so does its place among the others.
            if let Some(old) = old.as_table() {
                *provider.decor_mut() = old.decor().clone();
                provider.set_position(old.position());
            }
            put(providers, &wanted.name, provider);
        }
    }
    let mut notes = Vec::new();
    for (name, id) in &wanted.models {
        let route = format!("{}/{id}", wanted.name);
        let models = table(document.as_table_mut(), "models", "models")?;
        let path = format!("models.{name}");
        match models.get_mut(name) {
            None => {
                let mut model = Table::new();
                model.insert("routes", toml_edit::value(Array::from_iter([route.as_str()])));
                put(models, name, model);
                notes.push(format!("model {name}: {route}"));
            }
            Some(model) => {
                let model = model.as_table_like_mut().ok_or_else(|| EditError::InTheWay(path.clone()))?;
                let routes = model.entry("routes").or_insert_with(|| toml_edit::value(Array::new()));
                let routes = routes.as_array_mut().ok_or_else(|| EditError::InTheWay(format!("{path}.routes")))?;
                // Written anew, a provider is asked for what was said now, and no more for what was said before.
                let is_stale = |there: &Value| {
                    let said = wanted.models.iter().any(|(of, id)| of == name && is_route(there, &wanted.name, id));
                    !said && is_of(there, &wanted.name)
                };
                let stale = if replace { routes.iter().position(is_stale) } else { None };
                if routes.iter().any(|there| is_route(there, &wanted.name, id)) {
                    notes.push(format!("model {name}: has the route {route} already"));
                } else if let Some(at) = stale {
                    let old = routes.replace(at, route.as_str());
                    notes.push(format!("model {name}: {route}, in place of {}", old.to_string().trim()));
                } else {
                    append(routes, &route);
                    notes.push(format!("model {name}: {route}, after its other routes"));
                }
            }
        }
    }
    Ok(Edited { text: document.to_string(), notes })
}

/// The names of the models, in the order in which they are written; none if the text is not TOML.
pub fn models(text: &str) -> Vec<String> {
    let document: DocumentMut = text.parse().unwrap_or_default();
    let models = document.get("models").and_then(Item::as_table_like);
    models.map(|models| models.iter().map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
}

/// Whether the text has such a table, or anything in its place.
pub fn holds(text: &str, section: &str, name: &str) -> bool {
    let document: Option<DocumentMut> = text.parse().ok();
    document.is_some_and(|document| {
        document.get(section).and_then(Item::as_table_like).is_some_and(|table| table.contains_key(name))
    })
}

fn provider(wanted: &Wanted) -> Table {
    let mut table = Table::new();
    let texts = [
        ("preset", &wanted.preset),
        ("base_url", &wanted.base_url),
        ("protocol", &wanted.protocol),
        ("dialect", &wanted.dialect),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            table.insert(key, toml_edit::value(text.as_str()));
        }
    }
    let source = |key: &str, value: Value| toml_edit::value(InlineTable::from_iter([(key, value)]));
    match &wanted.key {
        None => {}
        Some(Key::Env(name)) => drop(table.insert("key", source("env", name.as_str().into()))),
        Some(Key::File(path)) => drop(table.insert("key", source("file", path.as_str().into()))),
        Some(Key::Credential(name)) => drop(table.insert("key", source("credential", name.as_str().into()))),
        Some(Key::Command(words)) => {
            let words = Array::from_iter(words.iter().map(String::as_str));
            drop(table.insert("key", source("command", words.into())));
        }
        Some(Key::Nothing) => drop(table.insert("accounts", toml_edit::value(Array::new()))),
    }
    table
}

/// The table under `key`; a new one shows no header of its own.
fn table<'a>(parent: &'a mut Table, key: &str, path: &str) -> Result<&'a mut dyn TableLike, EditError> {
    let item = parent.entry(key).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    item.as_table_like_mut().ok_or_else(|| EditError::InTheWay(path.to_owned()))
}

/// Inserts a table in the form that its parent can have.
fn put(parent: &mut dyn TableLike, key: &str, table: Table) {
    // An inline table holds only values.
    let inline = parent.iter().next().is_some_and(|(_, item)| item.is_inline_table());
    let item = if inline { Item::Value(table.into_inline_table().into()) } else { Item::Table(table) };
    parent.insert(key, item);
}

fn is_of(there: &Value, provider: &str) -> bool {
    let name = there.as_str().and_then(|text| text.split_once('/')).map(|(name, _)| name);
    let table = || there.as_inline_table()?.get("provider")?.as_str();
    name.or_else(table) == Some(provider)
}

fn is_route(there: &Value, provider: &str, id: &str) -> bool {
    if let Some(text) = there.as_str() {
        return text.split_once('/') == Some((provider, id));
    }
    let text = |key| there.as_inline_table().and_then(|table| table.get(key)).and_then(Value::as_str);
    text("provider") == Some(provider) && text("model") == Some(id)
}

/// Appends to an array, on a line of its own if its last item has one.
fn append(routes: &mut Array, route: &str) {
    let own_line = routes
        .iter()
        .last()
        .and_then(|last| last.decor().prefix()?.as_str())
        .filter(|prefix| prefix.contains('\n'))
        .map(|prefix| prefix[prefix.rfind('\n').unwrap_or(0)..].to_owned());
    match own_line {
        Some(prefix) => {
            // A comment behind the last comma is the last item's, and stays with it.
            let comment = routes.trailing().as_str().unwrap_or_default().trim_end().to_owned();
            if !comment.is_empty() {
                routes.set_trailing("\n");
            }
            routes.push_formatted(Value::from(route).decorated(format!("{comment}{prefix}"), ""));
        }
        None => routes.push(route),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str) -> Wanted {
        Wanted { name: name.to_owned(), preset: Some("ollama".to_owned()), ..Wanted::default() }
    }

    fn edited(text: &str, wanted: &Wanted, replace: bool) -> String {
        edit(text, wanted, replace).unwrap().text
    }

    #[test]
    fn an_empty_file_gets_only_what_was_said() {
        let wanted = Wanted {
            preset: Some("groq".to_owned()),
            key: Some(Key::Command(vec!["pass".to_owned(), "show".to_owned(), "a \"b\"".to_owned()])),
            models: vec![("quick".to_owned(), "openai/oss".to_owned())],
            ..wanted("groq")
        };
        assert_eq!(
            edited("", &wanted, false),
            "[providers.groq]\npreset = \"groq\"\nkey = { command = [\"pass\", \"show\", 'a \"b\"'] }\n\n\
             [models.quick]\nroutes = [\"groq/openai/oss\"]\n"
        );
        let local = Wanted { key: Some(Key::Nothing), base_url: Some("https://h".to_owned()), ..wanted.clone() };
        assert!(edited("", &local, false).contains("base_url = \"https://h\"\naccounts = []\n"));
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let text = "# mine\n[proxy]\nkeepalive_s = 15   # odd\n\n# first\n[providers.a]\npreset = 'ollama' # here\n\n\
                    [models.m]\nroutes = [\n  'a/x', # best\n]\n\n[watchdog]\n# the end\n";
        let wanted = Wanted { models: vec![("m".to_owned(), "y:1".to_owned())], ..wanted("b") };
        let new = edited(text, &wanted, false);
        let lost: Vec<&str> = text.lines().filter(|line| !new.lines().any(|other| other == *line)).collect();
        assert!(lost.is_empty(), "{lost:?} of\n{new}");
        assert!(new.contains("\n[providers.b]\npreset = \"ollama\"\n"), "{new}");
        assert!(new.contains("'a/x', # best\n  \"b/y:1\""), "{new}");
        assert!(edit(&new, &wanted, true).unwrap().notes[0].contains("already"));
    }

    #[test]
    fn one_that_is_there_is_replaced_only_if_asked() {
        let text = "# above\n[providers.a]\nbase_url = 'http://h'\nimages = true\n\n[providers.z]\npreset = 'vllm'\n";
        assert_eq!(edit(text, &wanted("a"), false), Err(EditError::Exists("a".to_owned())));
        let new = edited(text, &wanted("a"), true);
        assert_eq!(new, "# above\n[providers.a]\npreset = \"ollama\"\n\n[providers.z]\npreset = 'vllm'\n");
    }

    #[test]
    fn what_is_written_anew_is_not_asked_for_the_old_model() {
        let text = "[providers.a]\npreset = 'vllm'\n[models.m]\nroutes = ['b/x', 'a/wrong', # best\n 'c/y']\n";
        let wanted = |id: &str| Wanted { models: vec![("m".to_owned(), id.to_owned())], ..wanted("a") };
        let replaced = edit(text, &wanted("right"), true).unwrap();
        assert!(replaced.text.contains("routes = ['b/x', \"a/right\", # best\n 'c/y']"), "{}", replaced.text);
        assert!(replaced.notes[0].contains("in place of 'a/wrong'"), "{:?}", replaced.notes);
        assert_eq!(edit(&replaced.text, &wanted("right"), true).unwrap().text, replaced.text);
        // Another model of it beside the first is for those who do not replace.
        let table = "[models.m]\nroutes = [{ provider = 'a', model = 'wrong' }]\n";
        assert!(edited(table, &wanted("right"), true).contains("[\"a/right\"]"));
        let two =
            Wanted { models: vec![("m".to_owned(), "p".to_owned()), ("m".to_owned(), "q".to_owned())], ..wanted("q") };
        assert!(edited("", &two, true).contains("[\"a/p\", \"a/q\"]"));
    }

    #[test]
    fn models_come_as_they_are_written() {
        let text = "[models.z]\nroutes = []\n[proxy]\n[models.a]\nroutes = []\n[models]\nm = { routes = [] }\n";
        assert_eq!(models(text), ["z", "a", "m"]);
        assert!(models("a = = 1").is_empty() && models("models = 1").is_empty());
    }

    #[test]
    fn other_ways_to_write_tables_are_understood() {
        let new = edited("providers = { a = { preset = 'ollama' } }\n", &wanted("b"), false);
        assert!(new.contains("b = { preset = \"ollama\" }"), "{new}");
        let new = edited("[providers]\na.preset = 'ollama'\n", &wanted("b"), false);
        let table: toml::Table = toml::from_str(&new).unwrap();
        assert_eq!(table["providers"]["b"]["preset"].as_str(), Some("ollama"), "{new}");
        assert_eq!(edit("providers = 1", &wanted("b"), false), Err(EditError::InTheWay("providers".to_owned())));
        assert!(matches!(edit("a = 1\nb = = 2", &wanted("b"), false), Err(EditError::Invalid { line: 2, .. })));
    }
}
