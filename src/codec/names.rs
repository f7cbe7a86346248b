//! Tool names of a wire ⇄ the client's tools. PURE.
//!
//! The client groups tools in namespaces and allows names of 128 characters; most providers know one flat list of names
//! of 64 characters from `[A-Za-z0-9_-]`. [`Names`] is built once per request, from its tools and from the calls in its
//! history, and turns the names of the answer back. It owns its text, so it outlives the request body.
//!
//! A name depends only on the tool, and on a clash with tools declared before it: the same tools give the same names in
//! every request, which provider caches need.

use std::{borrow::Cow, collections::BTreeMap};

use crate::model::request::{Item, Request, Tool, ToolRef};

/// A reversible map between the client's tools and a wire's names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    by_wire: BTreeMap<String, ToolRef<'static>>,
    /// Indexes into `wires`.
    by_tool: BTreeMap<ToolRef<'static>, usize>,
    wires: Vec<String>,
    /// By wire name of a tool, see [`Names::arguments`].
    arguments: BTreeMap<String, Vec<(String, String)>>,
}

impl Names {
    /// Names every tool that `request` declares, then every tool that its history calls. No name is longer than
    /// `name_max` bytes (at least 16).
    pub fn of(request: &Request<'_>, name_max: usize) -> Self {
        let mut names = Self::default();
        for tool in &request.tools {
            match tool {
                Tool::Callable(callable) => names.declare(&callable.tool, name_max),
                Tool::Hosted { .. } => {}
            }
        }
        for item in &request.input {
            if let Item::Call { tool, .. } = item {
                names.remember(tool, name_max);
            }
        }
        names
    }

    /// Tools that a wire calls as the client does, in their namespaces. Only [`Self::wire_name`] knows them.
    pub fn unchanged(tools: impl IntoIterator<Item = ToolRef<'static>>) -> Self {
        let mut names = Self::default();
        for tool in tools {
            let wire = tool.name.clone().into_owned();
            names.spell(tool, wire);
        }
        names
    }

    /// True if there is no tool.
    pub fn is_empty(&self) -> bool {
        self.wires.is_empty()
    }

    /// The wire's name of a tool; `None` if the tool was neither declared nor called.
    pub fn wire_name(&self, tool: &ToolRef<'_>) -> Option<&str> {
        // A map of `'static` keys is also one of shorter-lived keys, so a borrowed key can be looked up.
        let by_tool: &BTreeMap<ToolRef<'_>, usize> = &self.by_tool;
        let index = *by_tool.get(tool)?;
        self.wires.get(index).map(String::as_str)
    }

    /// Says that a wire calls arguments of a tool otherwise, see [`Names::arguments`].
    pub fn spell_arguments(&mut self, tool: &ToolRef<'_>, spelled: Vec<(String, String)>) {
        if let Some(wire) = self.wire_name(tool).map(str::to_owned) {
            self.arguments.insert(wire, spelled);
        }
    }

    /// Arguments of a tool that the wire calls otherwise: its name, and the client's.
    pub fn arguments(&self, tool: &ToolRef<'_>) -> &[(String, String)] {
        if self.arguments.is_empty() {
            return &[];
        }
        self.wire_name(tool).and_then(|wire| self.arguments.get(wire)).map_or(&[], Vec::as_slice)
    }

    /// The tool a model means by `name`. Tried in order: the exact name; without a `functions.` prefix; with `.`, `:` or
    /// `/` between namespace and tool; the bare name, if one tool only has it; the same regardless of case.
    pub fn resolve(&self, name: &str) -> Option<ToolRef<'static>> {
        let name = name.trim();
        if let Some(tool) = self.by_wire.get(name) {
            return Some(tool.clone());
        }
        let name = name.strip_prefix("functions.").or_else(|| name.strip_prefix("functions__")).unwrap_or(name);
        if let Some(tool) = self.by_wire.get(name) {
            return Some(tool.clone());
        }
        let flat = name.replacen(['.', ':', '/'], "__", 1);
        if let Some(tool) = self.by_wire.get(&flat) {
            return Some(tool.clone());
        }
        self.only(|_, tool| tool.name == name)
            .or_else(|| self.only(|wire, _| wire.eq_ignore_ascii_case(&flat)))
            .or_else(|| self.only(|_, tool| tool.name.eq_ignore_ascii_case(name)))
    }

    /// The tool that satisfies `wanted`, if it is the only one.
    fn only(&self, wanted: impl Fn(&str, &ToolRef<'static>) -> bool) -> Option<ToolRef<'static>> {
        let mut found = self.by_wire.iter().filter(|(wire, tool)| wanted(wire, tool));
        match (found.next(), found.next()) {
            (Some((_, tool)), None) => Some(tool.clone()),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }

    fn declare(&mut self, tool: &ToolRef<'_>, name_max: usize) {
        if self.wire_name(tool).is_some() {
            return;
        }
        let mut wire = candidate(tool, name_max);
        let mut salt = 0;
        while self.by_wire.contains_key(&wire) {
            wire = with_suffix(&wire, tool, salt, name_max);
            salt += 1;
        }
        self.insert(tool, wire);
    }

    /// A tool of the history. If it is only another spelling of a declared one (another kind; flattened by whoever
    /// wrote the history), it shares that name; otherwise it gets its own.
    fn remember(&mut self, tool: &ToolRef<'_>, name_max: usize) {
        if self.wire_name(tool).is_some() {
            return;
        }
        let same = self.by_wire.iter().find(|(_, t)| t.namespace == tool.namespace && t.name == tool.name);
        let alias = match same {
            Some((wire, _)) => Some(wire.clone()),
            None => Some(candidate(tool, name_max)).filter(|wire| self.by_wire.contains_key(wire)),
        };
        match alias {
            Some(wire) => self.spell(tool.clone().into_owned(), wire),
            None => self.declare(tool, name_max),
        }
    }

    fn insert(&mut self, tool: &ToolRef<'_>, wire: String) {
        let tool = tool.clone().into_owned();
        self.by_wire.insert(wire.clone(), tool.clone());
        self.spell(tool, wire);
    }

    fn spell(&mut self, tool: ToolRef<'static>, wire: String) {
        self.by_tool.insert(tool, self.wires.len());
        self.wires.push(wire);
    }
}

/// The name without regard to other tools: flattened, spelled with permitted characters, cut to size.
fn candidate(tool: &ToolRef<'_>, name_max: usize) -> String {
    let flat: Cow<'_, str> = match &tool.namespace {
        Some(namespace) if !tool.name.starts_with(&format!("{namespace}__")) => {
            Cow::Owned(format!("{namespace}__{}", tool.name))
        }
        Some(_) | None => Cow::Borrowed(&tool.name),
    };
    let permitted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let plain: String = flat.chars().map(|c| if permitted(c) { c } else { '_' }).collect();
    // A replaced character loses information, so two tools could meet in one name: the hash keeps them apart and stable
    // whatever else is declared.
    if plain.is_empty() || plain.len() > name_max || plain != *flat {
        with_suffix(&plain, tool, 0, name_max)
    } else {
        plain
    }
}

/// `name`, cut so that a hash of the tool's identity fits behind it.
fn with_suffix(name: &str, tool: &ToolRef<'_>, salt: u64, name_max: usize) -> String {
    let identity = [tool.namespace.as_deref().unwrap_or(""), "\0", &tool.name, "\0", kind_word(tool)];
    let mut hash = salt;
    for part in identity {
        hash = fnv1a(part.as_bytes(), hash);
    }
    let suffix = format!("_{:08x}", (hash >> 32) as u32 ^ hash as u32);
    let keep = name_max.max(16) - suffix.len();
    // ASCII by construction, so every byte is a boundary.
    format!("{}{suffix}", &name[..name.len().min(keep)])
}

fn kind_word(tool: &ToolRef<'_>) -> &'static str {
    use crate::model::request::ToolKind;
    match tool.kind {
        ToolKind::Function => "function",
        ToolKind::Custom => "custom",
        ToolKind::ToolSearch => "tool_search",
    }
}

/// FNV-1a, 64 bit: stable over versions and platforms, which the standard library's hashes are not.
pub(crate) fn fnv1a(bytes: &[u8], seed: u64) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{CallableTool, ToolKind};
    use proptest::prelude::*;

    fn tool(namespace: Option<&str>, name: &str, kind: ToolKind) -> ToolRef<'static> {
        ToolRef { namespace: namespace.map(|n| Cow::Owned(n.into())), name: Cow::Owned(name.into()), kind }
    }

    fn names(declared: &[ToolRef<'static>], called: &[ToolRef<'static>], name_max: usize) -> Names {
        let callable = |tool: &ToolRef<'static>| {
            Tool::Callable(CallableTool {
                tool: tool.clone(),
                description: None,
                parameters: None,
                grammar: None,
                strict: None,
            })
        };
        let call = |tool: &ToolRef<'static>| Item::Call { call_id: "c".into(), tool: tool.clone(), input: "".into() };
        let request = Request {
            tools: declared.iter().map(callable).collect(),
            input: called.iter().map(call).collect(),
            ..Request::default()
        };
        Names::of(&request, name_max)
    }

    #[test]
    fn namespaces_are_flattened_once() {
        let echo = tool(Some("mcp__echo"), "echo_it", ToolKind::Function);
        let prefixed = tool(Some("fs"), "fs__read", ToolKind::Function);
        let names = names(&[echo.clone(), prefixed.clone()], &[], 64);
        assert_eq!(names.wire_name(&echo), Some("mcp__echo__echo_it"));
        assert_eq!(names.wire_name(&prefixed), Some("fs__read"));
        assert_eq!(names.resolve("mcp__echo__echo_it"), Some(echo));
    }

    #[test]
    fn harmless_deviations_resolve_and_ambiguous_ones_do_not() {
        let echo = tool(Some("mcp__echo"), "echo_it", ToolKind::Function);
        let a = tool(Some("a"), "list", ToolKind::Function);
        let b = tool(Some("b"), "list", ToolKind::Function);
        let patch = tool(None, "apply_patch", ToolKind::Custom);
        let names = names(&[echo.clone(), a.clone(), b, patch.clone()], &[], 64);
        for spelling in
            ["echo_it", "mcp__echo.echo_it", "functions.echo_it", "MCP__Echo__echo_it", " echo_it ", "Echo_It"]
        {
            assert_eq!(names.resolve(spelling), Some(echo.clone()), "{spelling}");
        }
        assert_eq!(names.resolve("functions.apply_patch"), Some(patch));
        assert_eq!(names.resolve("a.list"), Some(a));
        for spelling in ["list", "LIST", "unknown", ""] {
            assert_eq!(names.resolve(spelling), None, "{spelling}");
        }
    }

    #[test]
    fn long_and_odd_names_get_a_stable_suffix() {
        let long = tool(Some("mcp__a_server_with_a_name"), &"x".repeat(100), ToolKind::Function);
        let odd = tool(None, "größe.messen", ToolKind::Function);
        let names = names(&[long.clone(), odd.clone()], &[], 64);
        let (long_wire, odd_wire) = (names.wire_name(&long).unwrap(), names.wire_name(&odd).unwrap());
        assert_eq!((long_wire.len(), odd_wire), (64, "gr__e_messen_4aa3232c"));
        assert_eq!((names.resolve(long_wire), names.resolve(odd_wire)), (Some(long), Some(odd)));
    }

    #[test]
    fn calls_of_the_history_are_named_too() {
        let declared = tool(Some("mcp__echo"), "echo_it", ToolKind::Function);
        let flattened = tool(None, "mcp__echo__echo_it", ToolKind::Function);
        let gone = tool(Some("mcp__gone"), "tool", ToolKind::Function);
        let names = names(std::slice::from_ref(&declared), &[flattened.clone(), gone.clone()], 64);
        assert_eq!(names.wire_name(&flattened), Some("mcp__echo__echo_it"));
        assert_eq!(names.wire_name(&gone), Some("mcp__gone__tool"));
        assert_eq!(names.resolve("mcp__echo__echo_it"), Some(declared));
    }

    proptest! {
        #[test]
        fn names_are_unique_lawful_and_reversible(
            raw in proptest::collection::vec(("[a-zß._]{0,40}", "[a-zA-Z_.é]{1,80}", 0..3u8), 1..20),
            name_max in prop_oneof![Just(16usize), Just(64), Just(128)],
        ) {
            let kinds = [ToolKind::Function, ToolKind::Custom, ToolKind::ToolSearch];
            let mut tools: Vec<_> = raw.iter()
                .map(|(ns, n, k)| tool((!ns.is_empty()).then_some(ns), n, kinds[*k as usize])).collect();
            tools.sort();
            tools.dedup();
            let names = names(&tools, &[], name_max);
            let mut seen = std::collections::BTreeSet::new();
            for tool in &tools {
                let wire = names.wire_name(tool).unwrap();
                prop_assert!(wire.len() <= name_max && !wire.is_empty());
                prop_assert!(wire.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert!(seen.insert(wire.to_owned()));
                let resolved = names.resolve(wire);
                prop_assert_eq!(resolved.as_ref(), Some(tool));
            }
        }
    }
}
