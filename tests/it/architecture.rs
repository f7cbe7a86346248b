//! What `src/ARCHITECTURE.md` promises of the source and the compiler does not check: where code may touch the world,
//! who may import whom, and that every file says what it is for.
//!
//! Lints catch forbidden calls in PURE code (`.clippy.toml`); this looks for what they miss. It reads text, not meaning:
//! comments, string literals and unit tests are taken out first, `use` trees are spelled out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::root;

/// Marks a PURE file, or a PURE directory if it stands in its `mod.rs`.
const MARK: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// Directories that are PURE as a whole.
const PURE_DIRECTORIES: [&str; 2] = ["src/model", "src/codec"];

/// What no PURE code says.
const FORBIDDEN_TEXT: [&str; 5] = ["async fn", "async move", "async {", ".await", "thread_local!"];

/// What no PURE code names, by `use` or in place.
const FORBIDDEN_PATHS: [&str; 8] =
    ["tokio", "tracing", "getrandom", "std::fs", "std::net", "std::env", "std::process", "std::thread"];

/// Addresses are values: nothing is opened by naming one.
const ADDRESSES: [&str; 6] = ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];

/// Which of our modules a module may import besides itself.
const IMPORTS: [(&str, &[&str]); 7] = [
    ("model", &[]),
    ("codec", &["model"]),
    // The machine around the program knows nothing of it.
    ("host", &[]),
    ("config", &["codec", "model", "host"]),
    // Requests are served whether or not there is a bus.
    ("proxy", &["codec", "config", "model", "host"]),
    ("bus", &["config", "model", "host", "proxy"]),
    // It meets the proxy on the bus and in the journal only, so that neither's defect becomes the other's.
    ("watchdog", &["bus", "config", "model", "host"]),
];

/// A source file of ours.
struct Source {
    /// From the root of the tree: `src/codec/sse.rs`.
    name: String,
    text: String,
    /// Without comments, string literals and unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    list(&root().join("src"), &mut files);
    let sources: Vec<Source> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let bare = without_comments_and_literals(&text);
            let code = bare.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            Source { name: name(&path), text, code }
        })
        .collect();
    assert!(sources.len() > 40, "the source is not where it is looked for");
    sources
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// All files below `directory`, in order, but for those that `tests/setup.sh` installs.
fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.ends_with(".setup") {
            continue;
        }
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

impl Source {
    fn is_tests(&self) -> bool {
        self.name.ends_with("/tests.rs")
    }

    /// `codec` for `src/codec/chat/wire.rs`; nothing for programs and `lib.rs`.
    fn module(&self) -> Option<&str> {
        let (module, _) = self.name.strip_prefix("src/")?.split_once('/')?;
        (module != "bin").then_some(module)
    }

    /// How many `super::` lead out of the crate's top-level module.
    fn depth(&self) -> usize {
        let inside = self.name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        inside.matches('/').count()
    }

    /// Every path a `use` names, spelled out: `use a::{b, c::d};` gives `a::b` and `a::c::d`.
    fn uses(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut rest = self.code.as_str();
        while let Some(at) = rest.find("use ") {
            let begins = rest[..at].chars().next_back().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            rest = &rest[at + 4..];
            if begins && let Some((tree, after)) = rest.split_once(';') {
                spell_out("", tree, &mut paths);
                rest = after;
            }
        }
        paths
    }

    /// Whether a path is named in place: `tokio::spawn`, but not `my_tokio::spawn` nor `x::tokio::y`.
    fn names_in_place(&self, path: &str) -> bool {
        let called = format!("{path}::");
        self.code.match_indices(&called).any(|(at, _)| {
            let before = self.code[..at].chars().next_back();
            before.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | ':')))
        })
    }
}

fn spell_out(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((stem, members)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        if !path.is_empty() {
            paths.push(format!("{before}{path}"));
        }
        return;
    };
    let before = format!("{before}{}", stem.trim());
    let members = members.trim_end().strip_suffix('}').unwrap_or(members);
    let (mut depth, mut from) = (0, 0);
    for (at, c) in members.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spell_out(&before, &members[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    spell_out(&before, &members[from..], paths);
}

/// Puts a blank for every comment, and `""` for every string or character literal.
fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let in_word = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, after)| after);
            out.push(' ');
        } else if let Some(skip) = (!in_word).then(|| raw_string(rest)).flatten().or_else(|| literal(rest)) {
            out.push_str("\"\"");
            rest = &rest[skip..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Length of the raw string that `text` begins with.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text.len() - body.len() + body.find(&end)? + end.len())
}

/// Length of the string or character literal that `text` begins with. A lifetime is none.
fn literal(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        } else if quote == '\'' && !text[1..].starts_with('\\') && at > 1 {
            return None;
        }
    }
    None
}

/// The names of all PURE files.
fn pure(sources: &[Source]) -> BTreeSet<&str> {
    let mut pure = BTreeSet::new();
    for source in sources.iter().filter(|source| source.text.contains(MARK)) {
        pure.insert(source.name.as_str());
        let stem = source.name.strip_suffix("/mod.rs").or_else(|| source.name.strip_suffix(".rs")).unwrap_or_default();
        let below = format!("{stem}/");
        pure.extend(sources.iter().map(|other| other.name.as_str()).filter(|name| name.starts_with(&below)));
    }
    pure
}

fn none(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n{}", findings.join("\n"));
}

#[test]
fn pure_code_does_not_touch_the_world() {
    let sources = sources();
    let pure = pure(&sources);
    assert!(pure.len() > 30, "the mark of PURE files is not found any more: {pure:?}");
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| pure.contains(source.name.as_str()) && !source.is_tests()) {
        let name = &source.name;
        for text in FORBIDDEN_TEXT {
            if source.code.contains(text) {
                findings.push(format!("{name}: `{text}`"));
            }
        }
        for path in source.uses() {
            let is_address = path.strip_prefix("std::net::").is_some_and(|rest| ADDRESSES.contains(&rest));
            let is_below = |forbidden: &str| path == forbidden || path.starts_with(&format!("{forbidden}::"));
            if !is_address && FORBIDDEN_PATHS.into_iter().any(is_below) {
                findings.push(format!("{name}: use {path}"));
            }
        }
        let in_place = FORBIDDEN_PATHS.into_iter().filter(|path| {
            // What `use` names was looked at above.
            source.names_in_place(path) && !source.uses().iter().any(|used| used.starts_with(path))
        });
        findings.extend(in_place.map(|path| format!("{name}: {path}::")));
        for way_out in ["allow(clippy::disallowed", "expect(clippy::disallowed"] {
            if source.code.contains(way_out) {
                findings.push(format!("{name}: {way_out}…"));
            }
        }
    }
    none("PURE code touches the world", &findings);
}

#[test]
fn pure_directories_are_marked_and_hold_no_file_that_is_not_compiled() {
    let sources = sources();
    let pure = pure(&sources);
    let mut findings = Vec::new();
    for directory in PURE_DIRECTORIES {
        let files = sources.iter().filter(|source| source.name.starts_with(&format!("{directory}/")));
        findings.extend(files.filter(|s| !pure.contains(s.name.as_str())).map(|s| format!("{}: not marked", s.name)));
    }
    // The mark of a directory holds for what its `mod.rs` leads to; a file nobody declares is not looked at by any lint.
    for source in sources.iter().filter(|source| source.module().is_some()) {
        let path = source.name.strip_suffix("/mod.rs").or_else(|| source.name.strip_suffix(".rs")).unwrap_or_default();
        let (parent, module) = path.rsplit_once('/').unwrap();
        let above = [format!("{parent}/mod.rs"), format!("{parent}.rs"), format!("{parent}/lib.rs")];
        let declares = |other: &&Source| {
            above.contains(&other.name) && other.text.lines().any(|line| line.ends_with(&format!("mod {module};")))
        };
        if !sources.iter().any(|other| declares(&other)) {
            findings.push(format!("{}: declared nowhere", source.name));
        }
    }
    none("PURE directories", &findings);
}

#[test]
fn modules_import_only_what_they_may() {
    let sources = sources();
    let ours: BTreeSet<&str> = sources.iter().filter_map(Source::module).collect();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.is_tests()) {
        let Some(module) = source.module() else { continue };
        let Some((_, may)) = IMPORTS.iter().find(|(name, _)| *name == module) else { continue };
        let forbidden = ours.iter().filter(|other| **other != module && !may.contains(other));
        for other in forbidden {
            let by_use = source.uses().iter().any(|path| {
                let inside = path.trim_start_matches("super::");
                let supers = (path.len() - inside.len()) / "super::".len();
                let absolute = path.strip_prefix("crate::").or((supers > source.depth()).then_some(inside));
                absolute.is_some_and(|path| path.split("::").next() == Some(other))
            });
            if by_use || source.names_in_place(&format!("crate::{other}")) {
                findings.push(format!("{}: {other}", source.name));
            }
        }
    }
    none("a module imports another that it may not", &findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut files = Vec::new();
    for directory in ["src", "tests/it", "tests/bench", "tests/support"] {
        list(&root().join(directory), &mut files);
    }
    let mut findings = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(path).unwrap();
        if !text.starts_with("//! ") && !text.starts_with("#![doc = include_str!(") {
            findings.push(name(path));
        }
    }
    none("files that do not open with `//!`", &findings);
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // This checkout and its owner's home, if they are names and not just `/app` or `/root`; and homes of persons.
    let here = root().to_str().unwrap().to_owned();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut forbidden: Vec<String> = [here, home].into_iter().filter(|path| path.matches('/').count() > 1).collect();
    forbidden.extend(["home", "Users"].map(|homes| format!("/{homes}/")));
    // `u` is the user of examples, `alice` the one of the containers.
    let homes = forbidden[forbidden.len() - 2].clone();
    let examples = ["u/", "u\"", "alice", "$USER_NAME"].map(|user| format!("{homes}{user}"));
    let mut files = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        match name(&path).as_str() {
            "target" => {}
            ".ci" => list(&path, &mut files),
            // What editors and version control keep beside the tree is theirs.
            hidden if hidden.starts_with('.') && hidden != ".clippy.toml" => {}
            _ if path.is_dir() => list(&path, &mut files),
            _ => files.push(path),
        }
    }
    let mut findings = Vec::new();
    for path in &files {
        // What is no text names nothing.
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (at, line) in text.lines().enumerate() {
            let line = examples.iter().fold(line.to_owned(), |line, example| line.replace(example.as_str(), ""));
            let found = forbidden.iter().filter(|path| line.contains(path.as_str()));
            findings.extend(found.map(|found| format!("{}:{}: {found}", name(path), at + 1)));
        }
    }
    none("files that name a machine's paths", &findings);
}

#[test]
fn code_is_told_from_words() {
    let text = "use a::{b, c::{d as e, self}};\nlet x = \"use tokio::fs; // no\"; // tokio::spawn\nlet c = '\"'; f::<'a>(r#\"tokio::x\"#); std::fs::read(p);";
    let code = without_comments_and_literals(text);
    let source = Source { name: "src/codec/x.rs".to_owned(), text: text.to_owned(), code };
    assert_eq!(source.uses(), ["a::b", "a::c::d", "a::c::self"]);
    assert!(source.names_in_place("std::fs") && !source.names_in_place("tokio"), "{}", source.code);
    assert!(source.code.contains("f::<'a>"), "{}", source.code);
}
