//! A request for a host that does not know all of the client's tools, as the configuration says: `custom_tools`,
//! `hosted_tools`.
//!
//! ```text
//! custom tool, its call, its output  ─►  function with one `input`, its call, its output; calls.rs turns them back
//! hosted tool, the work it left      ─►  nothing, and a Loss
//! ```
//! Both wherever they stand: declared, in a namespace, found by a search, chosen, in the history. Whoever knows both gets
//! the request as it is.

use std::{borrow::Cow, collections::BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    codec::{
        NativeTools, custom,
        edits::{Edits, Said, rewritten},
        history::Losses,
        json::borrowed,
        names::Names,
        responses::wire,
    },
    model::{
        request::{CallableTool, ToolKind, ToolRef},
        text::LazyText,
    },
};

/// Items that are the client's and the model's own; all others are the work of hosted tools, as in
/// [`decode_request`](crate::codec::responses::request::decode_request).
const OWN_ITEMS: [&str; 15] = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_search_call",
    "tool_search_output",
    "local_shell_call",
    "local_shell_call_output",
    "additional_tools",
    "compaction",
    "compaction_summary",
    "compaction_trigger",
    "item_reference",
];

/// What is said in the place of an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The item itself.
    Pass,
    /// Nothing.
    Drop,
    /// This.
    Say(String),
}

/// Puts tools into words that the host knows.
pub(super) struct Fit<'e, 'a> {
    host: NativeTools,
    edits: &'e mut Edits<'a>,
    losses: &'e mut Losses,
    /// Functions that are declared: no custom tool can be one of the same name.
    functions: BTreeSet<ToolRef<'a>>,
    customs: BTreeSet<ToolRef<'a>>,
}

impl<'e, 'a> Fit<'e, 'a> {
    /// For this host. `None`: it knows all tools.
    pub(super) fn new(host: NativeTools, edits: &'e mut Edits<'a>, losses: &'e mut Losses) -> Option<Self> {
        let none = BTreeSet::new;
        (host != NativeTools::ALL).then(|| Self { host, edits, losses, functions: none(), customs: none() })
    }

    /// Looks which functions a list declares. Call it for every list before any is [declared](Self::declare).
    pub(super) fn look(&mut self, tools: &'a RawValue) {
        self.look_in(tools, None);
    }

    fn look_in(&mut self, tools: &'a RawValue, namespace: Option<&Cow<'a, str>>) {
        for (_, tool) in entries::<wire::Tool<'a>>(tools) {
            match (text(tool.r#type).as_deref(), text(tool.name), tool.tools) {
                (Some("function"), Some(name), _) => {
                    self.functions.insert(tool_ref(namespace, name, ToolKind::Function));
                }
                (Some("namespace"), Some(name), Some(members)) if namespace.is_none() => {
                    self.look_in(members, Some(&name));
                }
                (_, _, _) => {}
            }
        }
    }

    /// Declares what the host can be told of a list of tools; `path`: where it stands.
    pub(super) fn declare(&mut self, tools: &'a RawValue, path: &str) {
        self.declare_in(tools, path, None);
    }

    fn declare_in(&mut self, tools: &'a RawValue, path: &str, namespace: Option<&Cow<'a, str>>) {
        let (mut all, mut kept) = (Vec::new(), Vec::new());
        for (at, (raw, tool)) in entries::<wire::Tool<'a>>(tools).into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            let kind = text(tool.r#type).unwrap_or(Cow::Borrowed("function"));
            let keeps = match &*kind {
                "namespace" => {
                    if let (Some(name), Some(members), None) = (text(tool.name), tool.tools, namespace) {
                        self.declare_in(members, &format!("{path}.tools"), Some(&name));
                    }
                    true
                }
                "custom" if !self.host.custom => self.custom(raw, &tool, &path, namespace),
                "function" | "custom" | "tool_search" => true,
                _ if self.host.hosted => true,
                _ => {
                    self.losses.drop(path, "the provider does not run this tool");
                    false
                }
            };
            all.push(raw);
            kept.push(keeps);
        }
        self.edits.retain(&all, &kept);
    }

    /// A custom tool as a function. False: it cannot be one.
    fn custom(
        &mut self,
        raw: &'a RawValue,
        tool: &wire::Tool<'a>,
        path: &str,
        namespace: Option<&Cow<'a, str>>,
    ) -> bool {
        let Some(name) = text(tool.name) else { return true };
        if self.functions.contains(&tool_ref(namespace, name.clone(), ToolKind::Function)) {
            self.losses.drop(path, "a function has the same name");
            return false;
        }
        let grammar = tool.format.and_then(|format| serde_json::from_str::<wire::Grammar<'a>>(format.get()).ok());
        let grammar = grammar.and_then(|format| {
            let definition = LazyText::of_json(format.definition?)?;
            Some((text(format.syntax).unwrap_or(Cow::Borrowed("lark")), definition))
        });
        if grammar.is_some() {
            self.losses.approximate(format!("{path}.format"), "the grammar is described, not enforced");
        }
        let described = CallableTool {
            tool: tool_ref(namespace, name, ToolKind::Custom),
            description: tool.description.and_then(LazyText::of_json),
            parameters: None,
            grammar,
            strict: None,
        };
        let description = json(&custom::description(&described));
        let new = rewritten(raw.get(), |key, _| match key {
            "type" => Said::Instead("type", "\"function\"".to_owned()),
            "description" | "format" | "parameters" | "strict" => Said::Nothing,
            _ => Said::Same,
        });
        let Some(new) = new else { return true };
        let more = format!(",\"description\":{description},\"parameters\":{},\"strict\":false}}", custom::PARAMETERS);
        self.edits.replace(raw, format!("{}{more}", new.strip_suffix('}').unwrap_or(&new)));
        self.customs.insert(described.tool);
        true
    }

    /// The choice among tools.
    pub(super) fn choose(&mut self, choice: &'a RawValue) {
        if !choice.get().starts_with('{') {
            return;
        }
        let Ok(chosen) = serde_json::from_str::<wire::Choice<'a>>(choice.get()) else { return };
        if text(chosen.r#type).as_deref() == Some("allowed_tools") {
            let Some(tools) = chosen.tools else { return };
            let (mut all, mut kept) = (Vec::new(), Vec::new());
            for (at, (raw, tool)) in entries::<wire::Choice<'a>>(tools).into_iter().enumerate() {
                let keeps = self.chosen(&tool);
                if !keeps {
                    self.losses.drop(format!("tool_choice.tools[{at}]"), "a hosted tool");
                }
                all.push(raw);
                kept.push(keeps);
            }
            self.edits.retain(&all, &kept);
        } else if !self.chosen(&chosen) {
            self.losses.approximate("tool_choice", "a hosted tool cannot be forced; the model decides");
            self.edits.replace(choice, "\"auto\"");
        }
    }

    /// Names one tool in the host's words. False: it cannot have it.
    fn chosen(&mut self, chosen: &wire::Choice<'a>) -> bool {
        match (text(chosen.r#type).as_deref(), chosen.r#type) {
            (Some("custom"), Some(kind)) if !self.host.custom => {
                self.edits.replace(kind, "\"function\"");
                true
            }
            (Some("function" | "custom" | "tool_search") | None, _) => true,
            (Some(_), _) => self.host.hosted,
        }
    }

    /// What becomes of an item of the conversation; `path`: where it stands.
    pub(super) fn item(&mut self, item: &'a RawValue, path: &str) -> Fate {
        let Ok(said) = serde_json::from_str::<wire::Item<'a>>(item.get()) else { return Fate::Pass };
        let kind = match text(said.r#type) {
            Some(kind) => kind,
            None if said.role.is_some() => Cow::Borrowed("message"),
            None => return Fate::Pass,
        };
        match &*kind {
            "additional_tools" | "tool_search_output" => {
                if let Some(tools) = said.tools {
                    self.declare(tools, &format!("{path}.tools"));
                }
                Fate::Pass
            }
            "custom_tool_call" if !self.host.custom => {
                if let Some(name) = text(said.name) {
                    let tool = tool_ref(text(said.namespace).as_ref(), name, ToolKind::Custom);
                    let function = ToolRef { kind: ToolKind::Function, ..tool.clone() };
                    if !self.functions.contains(&function) {
                        self.customs.insert(tool);
                    }
                }
                as_function(item, "function_call", |key, value| match key {
                    "input" => Said::Instead("arguments", json(&arguments(value))),
                    _ => Said::Same,
                })
            }
            "custom_tool_call_output" if !self.host.custom => {
                as_function(item, "function_call_output", |_, _| Said::Same)
            }
            kind if !self.host.hosted && !OWN_ITEMS.contains(&kind) => {
                self.losses.drop(path, "the work of another provider's tool");
                Fate::Drop
            }
            _ => Fate::Pass,
        }
    }

    /// Tools whose calls come back as those of functions.
    pub(super) fn names(self) -> Names {
        Names::unchanged(self.customs.into_iter().map(ToolRef::into_owned))
    }
}

/// The list of tools in an item that declares some.
pub(super) fn declared_by<'a>(item: &'a RawValue) -> Option<&'a RawValue> {
    memchr::memmem::find(item.get().as_bytes(), b"\"tools\"")?;
    let said: wire::Item<'a> = serde_json::from_str(item.get()).ok()?;
    said.tools.filter(|_| matches!(text(said.r#type).as_deref(), Some("additional_tools" | "tool_search_output")))
}

fn as_function(item: &RawValue, kind: &str, mut say: impl FnMut(&str, &RawValue) -> Said) -> Fate {
    let new = rewritten(item.get(), |key, value| match key {
        "type" => Said::Instead("type", json(kind)),
        // Hosts look at how an id begins.
        "id" => match text(Some(value)).as_deref().and_then(|id| id.strip_prefix("ctc_")) {
            Some(rest) => Said::Instead("id", json(&format!("fc_{rest}"))),
            None => Said::Same,
        },
        key => say(key, value),
    });
    new.map_or(Fate::Pass, Fate::Say)
}

/// The arguments that carry an input.
fn arguments(input: &RawValue) -> String {
    let input = LazyText::of_json(input).unwrap_or_default();
    // Text into memory: there is nothing to fail.
    custom::wrap(&input).unwrap_or_default()
}

/// The objects of an array, as they stand and read; nothing if it is something else.
fn entries<'a, T: Deserialize<'a>>(array: &'a RawValue) -> Vec<(&'a RawValue, T)> {
    let entries: Vec<&'a RawValue> = serde_json::from_str(array.get()).unwrap_or_default();
    let entries = entries.into_iter().map(|raw| Some((raw, serde_json::from_str(raw.get()).ok()?)));
    entries.collect::<Option<_>>().unwrap_or_default()
}

fn tool_ref<'a>(namespace: Option<&Cow<'a, str>>, name: Cow<'a, str>, kind: ToolKind) -> ToolRef<'a> {
    ToolRef { namespace: namespace.filter(|namespace| !namespace.is_empty()).cloned(), name, kind }
}

fn text<'a>(raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    borrowed(raw?.get())
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Text into memory: there is nothing to fail.
    serde_json::to_string(value).unwrap_or_default()
}
