//! Edits of Codex's `config.toml`, from text to text. PURE.
//!
//! [`apply`] puts our provider in, [`restore`] takes it out; `setup.rs` reads and writes the file. Both are splices at
//! the spans a TOML parser reports: every byte outside them stays, whatever the file's line ends, order or spacing.
//!
//! What is ours is remembered in comments, because they lie beside what they describe and survive both an editor and
//! Codex itself (measured with 0.169.0: it changes values in place and keeps the comments above a key; it turns CRLF
//! into LF; with a key it deletes the comments above). The marks:
//!
//! ```toml
//! # codex-proxyctl aside model: model = "gpt-5"       the line as it was; restore uncomments it
//! # codex-proxyctl wrote model: "work"                what we wrote; restore takes it out while it is still that
//! model = "work"
//! # codex-proxyctl note: …                            for the reader
//! # codex-proxyctl file: no final newline             how the file ended before us; or "created"
//! # codex-proxyctl wrote provider: { name = … }
//! [model_providers.codex-proxy]
//! ```
//!
//! The provider's tables leave as a whole or not at all: Codex refuses to start on a provider without a name or an
//! `auth` without a command (measured), even if the provider is not selected.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod inspect;

use std::collections::BTreeSet;
use std::ops::Range;

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use crate::model::demo::MODEL as DEMO;

pub use self::inspect::{Inspected, inspect};

/// Our provider's id in Codex's configuration.
pub const PROVIDER_ID: &str = "codex-proxy";

/// What `setup` wants the file to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The port of the proxy on 127.0.0.1.
    pub port: u16,
    /// The program Codex runs for the bearer token: an absolute path, or a name found on the system path.
    pub command: String,
    /// The model the user named.
    pub model: Option<String>,
    /// The model to select if the user named none and the pair is written for the first time, or the built-in model is
    /// selected since there was no other.
    pub fallback_model: Option<String>,
    /// Select our provider and model even if others are selected now.
    pub default: bool,
}

/// The file after [`apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The new text; equal to the old one if everything was there already.
    pub text: String,
    /// Whether Codex now uses the proxy without any flag.
    pub is_default: bool,
    /// The model that is selected at the top of the file, if any.
    pub model: Option<String>,
    /// What a person should know, one sentence each.
    pub notes: Vec<String>,
}

/// The file after [`restore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new text.
    pub text: String,
    /// Whether anything of ours was found.
    pub found: bool,
    /// The file did not exist before us and nothing was added to it since: it can be deleted.
    pub delete_file: bool,
    /// What was left and why, one sentence each.
    pub notes: Vec<String>,
}

/// Why the file is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file is not TOML.
    #[error("line {line}: not valid TOML: {message}")]
    Invalid {
        /// Line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// Something stands where ours should go and cannot be put aside line by line.
    #[error("line {line}: {what}")]
    InTheWay {
        /// Line, from 1.
        line: usize,
        /// What stands there, and what to write instead.
        what: String,
    },
    /// The pair was asked for without a model, and none could be found out.
    #[error("no model is known to select; name one with --model")]
    NoModel,
    /// The edit would not give what it should; a guard against our own mistakes.
    #[error("the edited file would not be right ({0})")]
    WouldBreak(String),
}

/// Puts our provider (and, as [`Wanted`] says, the pair `model`/`model_provider`) into `text`; `None` is a file that
/// does not exist. Doing it again changes nothing.
///
/// The pair is written when neither key is there, when [`Wanted::default`] asks for it, or when it is ours already.
pub fn apply(text: Option<&str>, wanted: &Wanted) -> Result<Applied, EditError> {
    let mut notes = Vec::new();
    let before = Scan::new(text.unwrap_or_default())?;
    let pair = before.root_str("model_provider");
    let selects_us = pair == Some(PROVIDER_ID);
    let ours = selects_us && before.wrote(Unit::ModelProvider).is_some() && before.wrote(Unit::Model).is_some();
    let neither = before.root_item("model").is_none() && before.root_item("model_provider").is_none();
    // Without a model of the user's own there was only the demo to write; nobody wants to keep that.
    let stands_in = before.fate(Unit::Model) == Fate::Ours && before.root_str("model") == Some(DEMO);
    // Over an earlier choice, which may have been changed in Codex since, only the user's word counts.
    let model = if ours && !stands_in {
        wanted.model.as_ref()
    } else {
        wanted.model.as_ref().or(wanted.fallback_model.as_ref())
    };
    let select = wanted.default || ours || (neither && model.is_some());
    if wanted.default && model.is_none() && !ours {
        return Err(EditError::NoModel);
    }

    let mut text = put_provider(text, wanted, &mut notes)?;
    if select && let Some(model) = model {
        text = put_root(&text, Unit::Model, model)?;
    }
    // A selection of this provider by hand is taken over, so that restore can tell it was there before.
    if select || selects_us {
        text = put_root(&text, Unit::ModelProvider, PROVIDER_ID)?;
    }

    let after = Scan::new(&text).map_err(|error| EditError::WouldBreak(error.to_string()))?;
    if after.values.get("model_providers").and_then(|all| all.get(PROVIDER_ID)?.get("name")).is_none() {
        return Err(EditError::WouldBreak("the provider is missing".to_owned()));
    }
    if after.values.contains_key("model_catalog_json") {
        notes.push(
            "`model_catalog_json` is set: Codex takes its models from that file and does not ask the proxy".to_owned(),
        );
    }
    let is_default = after.root_str("model_provider") == Some(PROVIDER_ID);
    let model = after.root_str("model").map(str::to_owned);
    Ok(Applied { text, is_default, model, notes })
}

/// Takes out what [`apply`] put in and puts back what it replaced. What the user changed since stays and is named.
pub fn restore(text: &str) -> Result<Restored, EditError> {
    let scan = Scan::new(text)?;
    if scan.marks.is_empty() {
        return Ok(Restored { text: text.to_owned(), found: false, delete_file: false, notes: Vec::new() });
    }
    let mut notes = Vec::new();
    let mut edits = Edits::default();
    let mut put_back = BTreeSet::new();
    for unit in Unit::ALL {
        let fate = scan.fate(unit);
        if fate == Fate::Ours {
            for line in scan.footprint(unit) {
                edits.remove(scan.range(line));
            }
        }
        if fate == Fate::Theirs {
            notes.push(scan.left_note(unit));
        }
        for (line, aside) in scan.asides(unit) {
            let start = scan.range(line).start;
            let prefix = start..start + scan.lines[line].len() - aside.len();
            if fate == Fate::Theirs {
                // Both cannot be settings at once; as an ordinary comment nothing is lost.
                edits.put(prefix, "# ".to_owned());
            } else {
                edits.remove(prefix);
                put_back.insert(unit);
            }
        }
    }
    for (line, mark) in &scan.marks {
        if !matches!(mark, Mark::Aside(..)) {
            edits.remove(scan.range(*line));
        }
    }
    for line in scan.own_blank_lines() {
        edits.remove(scan.range(line));
    }
    let file_marks: Vec<&str> =
        scan.marks.iter().filter_map(|(_, mark)| if let Mark::File(how) = mark { Some(*how) } else { None }).collect();
    let at_end = scan
        .wrote(Unit::Provider)
        .is_some_and(|(at, _)| (at + 1..scan.lines.len()).all(|line| edits.removes(&scan.range(line))));
    let mut text = edits.on(text);
    if at_end && file_marks.contains(&NO_FINAL_NEWLINE) && text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let text = silence_dangling(text, put_back.contains(&Unit::ModelProvider), &mut notes)?;
    let delete_file = text.is_empty() && file_marks.contains(&CREATED);
    Ok(Restored { text, found: true, delete_file, notes })
}

/// A selection of our provider written by hand would keep Codex from starting once the provider is gone.
fn silence_dangling(text: String, was_there_before_us: bool, notes: &mut Vec<String>) -> Result<String, EditError> {
    let after = Scan::new(&text).map_err(|error| EditError::WouldBreak(error.to_string()))?;
    let dangling = after.root_str("model_provider") == Some(PROVIDER_ID) && after.provider_values().is_none();
    if !dangling {
        return Ok(text);
    }
    if was_there_before_us {
        notes.push(format!(
            "`model_provider = \"{PROVIDER_ID}\"` stood there before setup, without its provider; it is left as it was"
        ));
        return Ok(text);
    }
    let mut edits = Edits::default();
    for line in after.footprint(Unit::ModelProvider) {
        edits.insert(after.range(line).start, "# codex-proxyctl took out, its provider is gone: ".to_owned());
    }
    notes.push(format!(
        "`model_provider = \"{PROVIDER_ID}\"`, written by hand, is now a comment: Codex would not start without the provider"
    ));
    Ok(edits.on(&text))
}

/// The values of our provider's table, in the order they are written.
fn provider_values(wanted: &Wanted) -> Vec<(&'static str, Value)> {
    vec![
        ("name", PROVIDER_ID.into()),
        ("base_url", format!("http://127.0.0.1:{}/v1", wanted.port).into()),
        ("wire_api", "responses".into()),
        // The proxy retries; both together would multiply to 30 requests.
        ("request_max_retries", 0.into()),
        // 204 s in all without a delay from us; more looks like a hang.
        ("stream_max_retries", 10.into()),
        ("stream_idle_timeout_ms", 300_000.into()),
        ("supports_websockets", false.into()),
    ]
}

/// The values of our provider's `auth` table.
fn auth_values(wanted: &Wanted) -> Vec<(&'static str, Value)> {
    let args: toml_edit::Array = ["token", "--port", &wanted.port.to_string(), "--hold"].into_iter().collect();
    vec![
        ("command", wanted.command.as_str().into()),
        ("args", Value::Array(args)),
        // The client's 5 s would end the command that holds it back from a stranger on the port; this is a day.
        ("timeout_ms", 86_400_000.into()),
    ]
}

/// Keys that must be ours for the provider to work; the others the user may tune, and setup keeps their values.
const STRUCTURAL: [&str; 5] = ["name", "base_url", "wire_api", "command", "args"];

const MARK: &str = "# codex-proxyctl ";
const NO_FINAL_NEWLINE: &str = "no final newline";
const CREATED: &str = "created";
const NOTE: &str =
    "note: written by `codex-proxyctl setup`; `codex-proxyctl restore` takes it out and puts back what is marked aside";

/// What is put in, taken out and remembered as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Model,
    ModelProvider,
    Provider,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Model, Self::ModelProvider, Self::Provider];

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::ModelProvider => "model_provider",
            Self::Provider => "provider",
        }
    }
}

/// A comment of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark<'a> {
    Note,
    File(&'a str),
    /// The value as TOML.
    Wrote(Unit, &'a str),
    /// The original line, without its end.
    Aside(Unit, &'a str),
}

/// What became of what we wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Never written, or deleted by the user since.
    Gone,
    /// As we left it.
    Ours,
    /// Changed since.
    Theirs,
}

/// Reads one comment line; `None` if it is not a mark.
fn read_mark(line: &str) -> Option<Mark<'_>> {
    let rest = line.trim_start().strip_prefix(MARK)?;
    if rest.starts_with("note:") {
        return Some(Mark::Note);
    }
    if let Some(how) = rest.strip_prefix("file: ") {
        return Some(Mark::File(how.trim_end()));
    }
    for unit in Unit::ALL {
        if let Some(value) = rest.strip_prefix("wrote ").and_then(|rest| after_name(rest, unit)) {
            return Some(Mark::Wrote(unit, value.trim()));
        }
        if let Some(original) = rest.strip_prefix("aside ").and_then(|rest| after_name(rest, unit)) {
            // An editor may have cut the blank at the end of an empty line.
            return Some(Mark::Aside(unit, original.strip_prefix(' ').unwrap_or(original)));
        }
    }
    None
}

fn after_name(rest: &str, unit: Unit) -> Option<&str> {
    rest.strip_prefix(unit.name())?.strip_prefix(':')
}

/// A file taken apart: lines, parsed document, marks.
struct Scan<'a> {
    /// Without their ends and without a byte order mark.
    lines: Vec<&'a str>,
    /// The lines with their ends.
    ranges: Vec<Range<usize>>,
    document: Document<String>,
    values: toml::Table,
    marks: Vec<(usize, Mark<'a>)>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Result<Self, EditError> {
        let document = Document::parse(text.to_owned()).map_err(|error| EditError::Invalid {
            line: line_number(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim().to_owned(),
        })?;
        let values = toml::from_str::<toml::Table>(text).map_err(|error| EditError::Invalid {
            line: line_number(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim().to_owned(),
        })?;
        let mut start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let (mut lines, mut ranges) = (Vec::new(), Vec::new());
        for line in text[start..].split_inclusive('\n') {
            ranges.push(start..start + line.len());
            lines.push(line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line)));
            start += line.len();
        }
        let mut spans = Vec::new();
        value_spans(document.as_table(), &mut spans);
        let is_comment = |line: usize| {
            let start = ranges[line].start;
            !spans.iter().any(|span| span.start < start && start < span.end)
        };
        let marks = (0..lines.len())
            .filter(|line| is_comment(*line))
            .filter_map(|line| Some((line, read_mark(lines[line])?)))
            .collect();
        Ok(Self { lines, ranges, document, values, marks })
    }

    fn range(&self, line: usize) -> Range<usize> {
        self.ranges[line].clone()
    }

    fn line_at(&self, offset: usize) -> usize {
        self.ranges.partition_point(|range| range.end <= offset).min(self.ranges.len().saturating_sub(1))
    }

    /// The file's way to end a line.
    fn line_end(&self) -> &'static str {
        match (self.ranges.first(), self.lines.first()) {
            (Some(range), Some(line)) if range.len() == line.len() + 2 => "\r\n",
            _ => "\n",
        }
    }

    fn root_item(&self, key: &str) -> Option<(&Key, &Item)> {
        self.document.as_table().get_key_value(key)
    }

    fn root_str(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    fn provider_item(&self) -> Option<(&Key, &Item)> {
        match self.root_item("model_providers")?.1 {
            Item::Table(table) => table.get_key_value(PROVIDER_ID),
            _ => None,
        }
    }

    fn provider_values(&self) -> Option<&toml::Value> {
        self.values.get("model_providers")?.get(PROVIDER_ID)
    }

    /// The line of the mark and the recorded value, as TOML text.
    fn wrote(&self, unit: Unit) -> Option<(usize, &'a str)> {
        self.marks.iter().find_map(|(line, mark)| match mark {
            Mark::Wrote(of, value) if *of == unit => Some((*line, *value)),
            _ => None,
        })
    }

    fn asides(&self, unit: Unit) -> Vec<(usize, &'a str)> {
        let of_unit = |(line, mark): &(usize, Mark<'a>)| match mark {
            Mark::Aside(of, original) if *of == unit => Some((*line, *original)),
            _ => None,
        };
        self.marks.iter().filter_map(of_unit).collect()
    }

    fn recorded(&self, unit: Unit) -> Option<toml::Value> {
        let (_, value) = self.wrote(unit)?;
        toml::from_str::<toml::Table>(&format!("v = {value}")).ok()?.remove("v")
    }

    fn current(&self, unit: Unit) -> Option<&toml::Value> {
        match unit {
            Unit::Model | Unit::ModelProvider => self.values.get(unit.name()),
            Unit::Provider => self.provider_values(),
        }
    }

    fn fate(&self, unit: Unit) -> Fate {
        let Some(current) = self.current(unit) else { return Fate::Gone };
        match self.recorded(unit) {
            Some(recorded) if recorded == *current => Fate::Ours,
            Some(_) => Fate::Theirs,
            // The mark is gone, but a value was put aside for this one and it cannot be anybody else's.
            None if unit == Unit::ModelProvider
                && !self.asides(unit).is_empty()
                && current.as_str() == Some(PROVIDER_ID) =>
            {
                Fate::Ours
            }
            None if self.asides(unit).is_empty() => Fate::Gone,
            None => Fate::Theirs,
        }
    }

    fn left_note(&self, unit: Unit) -> String {
        let current = self.current(unit);
        match unit {
            Unit::Model | Unit::ModelProvider => format!(
                "`{} = {}` was changed since setup and is left",
                unit.name(),
                current.map(ToString::to_string).unwrap_or_default()
            ),
            Unit::Provider => {
                let changed = changed_keys(self.recorded(unit).as_ref(), current).join(", ");
                format!(
                    "`[model_providers.{PROVIDER_ID}]` was changed since setup ({changed}) and is left whole; nothing \
                     selects it, and it can be deleted by hand"
                )
            }
        }
    }

    /// The lines that define the unit, in any of TOML's spellings.
    fn footprint(&self, unit: Unit) -> BTreeSet<usize> {
        let mut lines = BTreeSet::new();
        let found = match unit {
            Unit::Model | Unit::ModelProvider => self.root_item(unit.name()),
            Unit::Provider => self.provider_item(),
        };
        if let Some((key, item)) = found {
            self.collect(key, item, &mut lines);
        }
        lines
    }

    fn collect(&self, key: &Key, item: &Item, lines: &mut BTreeSet<usize>) {
        match item {
            Item::None => {}
            Item::Value(value) => {
                if let (Some(key), Some(value)) = (key.span(), value.span()) {
                    lines.extend(self.line_at(key.start)..=self.line_at(value.end.saturating_sub(1)));
                }
            }
            Item::Table(table) => self.collect_table(table, lines),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| self.collect_table(table, lines)),
        }
    }

    fn collect_table(&self, table: &Table, lines: &mut BTreeSet<usize>) {
        if !table.is_dotted()
            && !table.is_implicit()
            && let Some(header) = table.span()
        {
            lines.insert(self.line_at(header.start));
        }
        for (name, _) in table.iter() {
            if let Some((key, item)) = table.get_key_value(name) {
                self.collect(key, item, lines);
            }
        }
    }

    /// Where a new key of the root table goes: after the last one, else at the top.
    fn root_end(&self) -> Option<usize> {
        let mut lines = BTreeSet::new();
        for (name, _) in self.document.iter() {
            if let Some((key, item)) = self.root_item(name) {
                self.collect_root(key, item, &mut lines);
            }
        }
        lines.last().map(|line| line + 1)
    }

    fn collect_root(&self, key: &Key, item: &Item, lines: &mut BTreeSet<usize>) {
        match item {
            Item::Value(_) => self.collect(key, item, lines),
            Item::Table(table) if table.is_dotted() => {
                for (name, _) in table.iter() {
                    if let Some((key, item)) = table.get_key_value(name) {
                        self.collect_root(key, item, lines);
                    }
                }
            }
            Item::None | Item::Table(_) | Item::ArrayOfTables(_) => {}
        }
    }

    /// The first line that is not a directive for editors (`#:schema …`).
    fn top(&self) -> usize {
        self.lines.iter().take_while(|line| line.starts_with("#:")).count()
    }

    /// The blank lines `apply` adds around what it inserts.
    fn own_blank_lines(&self) -> Vec<usize> {
        let blank = |line: usize| self.lines.get(line).is_some_and(|line| line.is_empty());
        let is_mark =
            |line: usize, wanted: fn(&Mark) -> bool| self.marks.iter().any(|(at, mark)| *at == line && wanted(mark));
        let mut own = Vec::new();
        // One before the provider's block, unless that begins the file.
        if let Some((mut line, _)) = self.wrote(Unit::Provider)
            && self.fate(Unit::Provider) != Fate::Theirs
        {
            while line > 0 && is_mark(line - 1, |mark| matches!(mark, Mark::Note | Mark::File(_))) {
                line -= 1;
            }
            if line > 0 && blank(line - 1) {
                own.push(line - 1);
            }
        }
        // One after the pair, if it was put at the top for want of other keys.
        let untouched = |unit| self.fate(unit) == Fate::Ours && self.asides(unit).is_empty();
        if untouched(Unit::Model)
            && untouched(Unit::ModelProvider)
            && let Some((at, _)) = self.wrote(Unit::Model)
            && at == self.top()
        {
            let after = at + 4;
            let pair_is_whole = (at..after).all(|line| {
                is_mark(line, |mark| matches!(mark, Mark::Wrote(..)))
                    || self.footprint(Unit::Model).contains(&line)
                    || self.footprint(Unit::ModelProvider).contains(&line)
            });
            if pair_is_whole && blank(after) && !own.contains(&after) {
                own.push(after);
            }
        }
        own
    }
}

fn line_number(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn value_spans(table: &dyn TableLike, spans: &mut Vec<Range<usize>>) {
    for (_, item) in table.iter() {
        match item {
            Item::None => {}
            Item::Value(value) => spans.extend(value.span()),
            Item::Table(table) => value_spans(table, spans),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| value_spans(table, spans)),
        }
    }
}

fn changed_keys(recorded: Option<&toml::Value>, current: Option<&toml::Value>) -> Vec<String> {
    let empty = toml::Table::new();
    let table = |value: Option<&toml::Value>| value.and_then(toml::Value::as_table).unwrap_or(&empty).clone();
    let (recorded, current) = (table(recorded), table(current));
    let keys: BTreeSet<&String> = recorded.keys().chain(current.keys()).collect();
    keys.into_iter().filter(|key| recorded.get(*key) != current.get(*key)).cloned().collect()
}

/// Replacements of byte ranges, made together.
#[derive(Default)]
struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    fn put(&mut self, range: Range<usize>, text: String) {
        if !self.0.iter().any(|(known, with)| *known == range && *with == text) {
            self.0.push((range, text));
        }
    }

    fn remove(&mut self, range: Range<usize>) {
        self.put(range, String::new());
    }

    fn insert(&mut self, at: usize, text: String) {
        self.put(at..at, text);
    }

    fn removes(&self, range: &Range<usize>) -> bool {
        self.0.iter().any(|(known, text)| known == range && text.is_empty())
    }

    fn on(mut self, text: &str) -> String {
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(text.len() + 1024);
        let mut at = 0;
        for (range, with) in self.0 {
            if range.start >= at {
                out.push_str(&text[at..range.start]);
                out.push_str(&with);
                at = range.end;
            }
        }
        out.push_str(&text[at..]);
        out
    }
}

/// The record of what we write, one line of TOML.
fn inline(values: &[(&'static str, Value)], nested: Option<(&'static str, &[(&'static str, Value)])>) -> String {
    let mut table = toml_edit::InlineTable::new();
    for (key, value) in values {
        table.insert(*key, value.clone());
    }
    if let Some((name, values)) = nested {
        let inner = values.iter().map(|(key, value)| (*key, value.clone()));
        table.insert(name, Value::InlineTable(inner.collect()));
    }
    Value::InlineTable(table).to_string().trim().to_owned()
}

fn wrote_provider_mark(wanted: &Wanted) -> String {
    format!("{MARK}wrote provider: {}", inline(&provider_values(wanted), Some(("auth", &auth_values(wanted)))))
}

/// The provider's tables with the marks above them.
fn provider_block(wanted: &Wanted, file: Option<&str>) -> Vec<String> {
    let mut lines = vec![format!("{MARK}{NOTE}")];
    lines.extend(file.map(|how| format!("{MARK}file: {how}")));
    lines.push(wrote_provider_mark(wanted));
    lines.push(format!("[model_providers.{PROVIDER_ID}]"));
    lines.extend(provider_values(wanted).iter().map(|(key, value)| format!("{key} = {value}")));
    lines.push(format!("[model_providers.{PROVIDER_ID}.auth]"));
    lines.extend(auth_values(wanted).iter().map(|(key, value)| format!("{key} = {value}")));
    lines
}

/// Writes or updates the provider's tables.
fn put_provider(text: Option<&str>, wanted: &Wanted, notes: &mut Vec<String>) -> Result<String, EditError> {
    let created = text.is_none();
    let text = text.unwrap_or_default();
    let scan = Scan::new(text)?;
    if let Some((key, Item::Value(_))) = scan.root_item("model_providers") {
        return Err(EditError::InTheWay {
            line: key.span().map_or(1, |span| scan.line_at(span.start) + 1),
            what: "`model_providers` is one inline table, to which nothing can be added beside; write its entries as \
                   tables of their own, like `[model_providers.NAME]`"
                .to_owned(),
        });
    }
    match (scan.wrote(Unit::Provider), scan.provider_item()) {
        (Some(_), Some(_)) => {
            if let Some(text) = update_provider(text, &scan, wanted, notes) {
                return Ok(text);
            }
            let released = release(text, &scan, Unit::Provider);
            put_provider(Some(&released), wanted, notes)
        }
        (Some(_), None) => {
            // The user deleted the tables: begin anew, but remember how the file was.
            let mut edits = Edits::default();
            let mut how = None;
            for (line, mark) in &scan.marks {
                match mark {
                    Mark::File(file) => how = Some(*file),
                    Mark::Note | Mark::Wrote(Unit::Provider, _) => {}
                    Mark::Wrote(..) | Mark::Aside(..) => continue,
                }
                edits.remove(scan.range(*line));
            }
            for line in scan.own_blank_lines() {
                edits.remove(scan.range(line));
            }
            append_provider(&edits.on(text), wanted, how, notes)
        }
        (None, _) => append_provider(text, wanted, created.then_some(CREATED), notes),
    }
}

fn append_provider(
    text: &str,
    wanted: &Wanted,
    file: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<String, EditError> {
    let scan = Scan::new(text)?;
    let end = scan.line_end();
    let bare = text.trim_start_matches('\u{feff}');
    let cut = !bare.is_empty() && !bare.ends_with('\n');
    let file = file.or(cut.then_some(NO_FINAL_NEWLINE));
    let mut edits = Edits::default();
    let aside = scan.footprint(Unit::Provider);
    for line in &aside {
        edits.insert(scan.range(*line).start, format!("{MARK}aside provider: "));
    }
    if !aside.is_empty() {
        notes.push(format!(
            "`[model_providers.{PROVIDER_ID}]` was there already and is put aside as comments; restore puts it back"
        ));
    }
    let mut block = String::new();
    if cut {
        block.push_str(end);
    }
    if !bare.is_empty() {
        block.push_str(end);
    }
    for line in provider_block(wanted, file) {
        block.push_str(&line);
        block.push_str(end);
    }
    edits.insert(text.len(), block);
    Ok(edits.on(text))
}

/// Changes the values of our own tables in place; `None` if they have not our shape any more.
fn update_provider(text: &str, scan: &Scan, wanted: &Wanted, notes: &mut Vec<String>) -> Option<String> {
    let (mark, _) = scan.wrote(Unit::Provider)?;
    let recorded = scan.recorded(Unit::Provider)?;
    let Item::Table(table) = scan.provider_item()?.1 else { return None };
    let Item::Table(auth) = table.get("auth")? else { return None };
    let mut edits = Edits::default();
    let mut kept = Vec::new();
    let levels = [
        (table, provider_values(wanted), Some(&recorded), scan.provider_values()),
        (auth, auth_values(wanted), recorded.get("auth"), scan.provider_values().and_then(|all| all.get("auth"))),
    ];
    for (table, values, recorded, current) in levels {
        for (key, value) in values {
            let old = recorded.and_then(|recorded| recorded.get(key));
            let now = current.and_then(|current| current.get(key));
            let new = toml::from_str::<toml::Table>(&format!("v = {value}")).ok()?.remove("v");
            if now == new.as_ref() {
                continue;
            }
            if now != old && !STRUCTURAL.contains(&key) {
                kept.push(key);
                continue;
            }
            match table.get(key) {
                Some(Item::Value(at)) => edits.put(at.span()?, value.to_string()),
                _ => {
                    let header = scan.line_at(table.span()?.start);
                    let at = scan.range(header).end;
                    edits.insert(at, format!("{key} = {value}{}", scan.line_end()));
                }
            }
        }
    }
    let mark_line = wrote_provider_mark(wanted);
    if scan.lines[mark] != mark_line {
        let start = scan.range(mark).start;
        edits.put(start..start + scan.lines[mark].len(), mark_line);
    }
    if !kept.is_empty() {
        notes.push(format!("{} keeps the value you gave it", kept.join(", ")));
    }
    Some(edits.on(text))
}

/// Makes what is marked the user's own: the marks go, what was put aside becomes an ordinary comment.
fn release(text: &str, scan: &Scan, unit: Unit) -> String {
    let mut edits = Edits::default();
    for (line, mark) in &scan.marks {
        match mark {
            Mark::Wrote(of, _) if *of == unit => edits.remove(scan.range(*line)),
            Mark::Note if unit == Unit::Provider => edits.remove(scan.range(*line)),
            Mark::Aside(of, original) if *of == unit => {
                let start = scan.range(*line).start;
                edits.put(start..start + scan.lines[*line].len() - original.len(), "# ".to_owned());
            }
            Mark::Note | Mark::File(_) | Mark::Wrote(..) | Mark::Aside(..) => {}
        }
    }
    edits.on(text)
}

/// Writes one key of the root table, putting aside what stands there.
fn put_root(text: &str, unit: Unit, value: &str) -> Result<String, EditError> {
    let scan = Scan::new(text)?;
    let key = unit.name();
    let value = Value::from(value).to_string();
    let mark_line = format!("{MARK}wrote {key}: {value}");
    let (mark, item) = (scan.wrote(unit), scan.root_item(key));
    let span = match item {
        None => None,
        Some((_, Item::Value(at @ Value::String(_)))) => at.span(),
        Some((at, _)) => {
            return Err(EditError::InTheWay {
                line: at.span().map_or(1, |span| scan.line_at(span.start) + 1),
                what: format!("`{key}` is not a string"),
            });
        }
    };
    let mut edits = Edits::default();
    match (mark, span) {
        (Some((mark, _)), Some(span)) => {
            if scan.fate(unit) == Fate::Theirs {
                return put_root(&release(text, &scan, unit), unit, value_of(&value).as_str());
            }
            let start = scan.range(mark).start;
            if scan.lines[mark] != mark_line {
                edits.put(start..start + scan.lines[mark].len(), mark_line);
                edits.put(span, value);
            }
        }
        (Some((mark, _)), None) => {
            edits.remove(scan.range(mark));
            return put_root(&edits.on(text), unit, value_of(&value).as_str());
        }
        (None, Some(_)) => {
            let lines = scan.footprint(unit);
            for line in &lines {
                edits.insert(scan.range(*line).start, format!("{MARK}aside {key}: "));
            }
            let at = lines.last().map_or(text.len(), |line| scan.range(*line).end);
            let end = scan.line_end();
            edits.insert(at, format!("{mark_line}{end}{key} = {value}{end}"));
        }
        (None, None) => {
            let end = scan.line_end();
            let beside = if unit == Unit::ModelProvider { scan.footprint(Unit::Model).last().copied() } else { None };
            let at_line = beside.map(|line| line + 1).or_else(|| scan.root_end());
            let (at, blank) = match at_line {
                Some(line) => (scan.ranges.get(line).map_or(text.len(), |range| range.start), ""),
                // `put_provider` ran before: there is always something below.
                None => (scan.ranges.get(scan.top()).map_or(text.len(), |range| range.start), end),
            };
            edits.insert(at, format!("{mark_line}{end}{key} = {value}{end}{blank}"));
        }
    }
    Ok(edits.on(text))
}

/// The string a TOML string literal of ours stands for.
fn value_of(literal: &str) -> String {
    literal.parse::<Value>().ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Whether the file holds anything of ours: then it is not the user's original any more.
pub fn has_marks(text: &str) -> bool {
    text.lines().any(|line| read_mark(line).is_some())
}

#[cfg(test)]
mod tests;
