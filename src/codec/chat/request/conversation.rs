//! The conversation: items → messages. PURE.

use std::{borrow::Cow, collections::BTreeMap};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Switch, cannot_write, raw};
use crate::{
    codec::{
        EncodeError, Target,
        chat::{
            dialect::{CallIds, ThoughtsBack, ThoughtsOn},
            thoughts::{Field, Stored, TAGS},
            wire,
        },
        compaction, custom,
        history::{
            EMPTY_RESULT, INSTRUCTIONS_LEAD, Losses, NO_PICTURE, NO_RESULT, ORPHAN_LEAD, Pairs, part_path, path,
            short_id,
        },
        names::Names,
        picture,
    },
    model::{
        request::{Item, Part, Request, Role, ToolKind},
        text::LazyText,
    },
};

/// Stands in a result for its pictures, which follow.
pub(super) const PICTURE_BELOW: &str = "[picture: see the next user message]";
/// Introduces the pictures of tool results.
pub(super) const PICTURES: &str = "Pictures from the tool results above:";
/// What the assistant says where a host allows no user message after a tool's.
pub(super) const BRIDGE: &str = "Understood.";
/// What Google accepts in place of the signature of a call its model did not make
/// (read 2026-11-20: CLIProxyAPI `internal/signature/gemini_validation.go`).
pub(super) const NO_SIGNATURE: &str = r#"{"google":{"thought_signature":"skip_thought_signature_validator"}}"#;

pub(super) struct Conversation<'r, 'a, 'l> {
    target: &'r Target,
    names: &'r Names,
    losses: &'l mut Losses,
    request: &'r Request<'a>,
    /// By item: its stored thoughts, if this target may read them.
    stored: BTreeMap<usize, Stored<'r>>,
    /// By call id: what must come back on the call.
    extras: BTreeMap<String, &'r RawValue>,
    pairs: Pairs<'r>,
    messages: Vec<wire::Message<'r>>,
    /// Text of the one system message that opens the conversation.
    front: Vec<LazyText<'r>>,
    turn: Turn,
    /// The first item whose required thoughts could not be restored.
    thoughts_missing: Option<usize>,
}

/// Items of one run of the assistant.
#[derive(Default)]
struct Turn {
    reasoning: Vec<usize>,
    texts: Vec<usize>,
    calls: Vec<usize>,
}

impl<'r, 'a, 'l> Conversation<'r, 'a, 'l> {
    pub(super) fn new(request: &'r Request<'a>, target: &'r Target, names: &'r Names, losses: &'l mut Losses) -> Self {
        let shape = target.dialect.call_ids;
        let pairs = Pairs::of(&request.input, |id| wire_id(id, shape), losses);
        let mut this = Self {
            target,
            names,
            losses,
            request,
            stored: BTreeMap::new(),
            extras: BTreeMap::new(),
            pairs,
            messages: Vec::new(),
            front: Vec::new(),
            turn: Turn::default(),
            thoughts_missing: None,
        };
        this.open_thoughts();
        this
    }

    fn open_thoughts(&mut self) {
        let request = self.request;
        for (i, item) in request.input.iter().enumerate() {
            let Item::Reasoning { opaque: Some(opaque), .. } = item else { continue };
            if opaque.origin != self.target.origin {
                continue;
            }
            let Ok(stored) = serde_json::from_str::<Stored<'r>>(&opaque.value) else { continue };
            self.extras.extend(stored.calls.iter().map(|(id, extra)| (id.clone(), *extra)));
            self.stored.insert(i, stored);
        }
    }

    pub(super) fn messages(
        mut self,
        request: &'r Request<'a>,
        instruction: Option<String>,
        switch: &mut Switch,
    ) -> Result<Vec<wire::Message<'r>>, EncodeError> {
        if let Some(text) = request.instructions.as_ref().filter(|t| !t.is_empty()) {
            self.front.push(text.as_borrowed());
        }
        for (i, item) in request.input.iter().enumerate() {
            match item {
                Item::Message { role: Role::Assistant, .. } => {
                    if !self.turn.calls.is_empty() {
                        self.losses.approximate(path(i), "text that followed a call is put before it");
                    }
                    self.turn.texts.push(i);
                }
                Item::Reasoning { .. } => self.turn.reasoning.push(i),
                Item::Call { .. } => self.turn.calls.push(i),
                Item::Message { role: role @ (Role::System | Role::Developer), parts, .. } => {
                    self.close_turn()?;
                    self.system(i, *role, parts);
                }
                Item::Message { role: Role::User, parts, .. } => {
                    self.close_turn()?;
                    let content = self.user_content(i, "content", parts);
                    self.push_user(i, content);
                }
                Item::Output { parts, .. } => {
                    self.close_turn()?;
                    if !self.pairs.paired.contains(&i) {
                        self.losses.approximate(path(i), "it answers no call, so it is told as the user's words");
                        let content = self.orphan(i, parts);
                        self.push_user(i, content);
                    }
                }
                Item::Hosted { .. } => self.losses.drop(path(i), "the work of another provider's tool"),
                Item::Compaction { path } => {
                    let why = compaction::NOT_READABLE.to_owned();
                    return Err(EncodeError::Unsupported { path: path.clone(), why });
                }
            }
        }
        self.close_turn()?;
        self.front.extend(instruction.map(LazyText::from));
        if !self.front.is_empty() {
            let text = LazyText::join(std::mem::take(&mut self.front), "\n\n");
            self.messages.insert(0, wire::Message::new("system", wire::Content::Text(text)));
        }
        if self.target.dialect.thoughts_required {
            self.forget_thoughts_unless_whole(switch);
        }
        Ok(self.messages)
    }

    /// A host that insists on thoughts refuses the request if some are missing, but only while thinking is on.
    fn forget_thoughts_unless_whole(&mut self, switch: &mut Switch) {
        if let Some(i) = self.thoughts_missing.filter(|_| switch.on != Some(false)) {
            self.losses
                .drop("reasoning.effort", "thinking is off: the host wants earlier thoughts that are not at hand");
            self.losses.drop(path(i), "the thoughts before this call are not at hand");
            *switch = Switch { on: Some(false), effort: None };
        }
        if switch.on == Some(false) {
            for (i, item) in self.request.input.iter().enumerate() {
                if matches!(item, Item::Reasoning { .. }) {
                    self.losses.drop(path(i), "thinking is off");
                }
            }
            for message in &mut self.messages {
                message.reasoning_content = None;
                message.reasoning = None;
                message.reasoning_details.clear();
            }
        }
    }

    /// Instructions of the program around the model; as the user's words where the host has no place for them.
    fn system(&mut self, i: usize, role: Role, parts: &'r [Part<'a>]) {
        let text = self.text_of(i, "content", parts, None);
        let dialect = self.target.dialect;
        if text.is_empty() {
            return;
        }
        if dialect.system_first {
            if self.messages.is_empty() {
                self.front.push(text);
                return;
            }
            // Moved to the front it would change the first bytes of every later request, and the host's cache of the
            // whole conversation would be lost; it would also no longer stand where it was said.
            self.losses.approximate(path(i), "the host takes system messages only at the front");
            let content = wire::Content::Text(LazyText::join(vec![INSTRUCTIONS_LEAD.into(), text], "\n"));
            self.push_user(i, content);
            return;
        }
        let name = match role {
            Role::Developer if dialect.developer_role => "developer",
            Role::Developer | Role::System | Role::User | Role::Assistant => "system",
        };
        self.messages.push(wire::Message::new(name, wire::Content::Text(text)));
    }

    fn push_user(&mut self, i: usize, content: wire::Content<'r>) {
        let empty = match &content {
            wire::Content::Null => true,
            wire::Content::Text(text) => text.is_empty(),
            wire::Content::Parts(parts) => parts.is_empty(),
        };
        if empty {
            return;
        }
        if !self.target.dialect.user_after_tool && self.messages.last().is_some_and(|m| m.role == "tool") {
            self.losses.approximate(path(i), "the host wants the assistant to speak between a tool and the user");
            self.messages.push(wire::Message::new("assistant", wire::Content::Text(BRIDGE.into())));
        }
        self.messages.push(wire::Message::new("user", content));
    }

    fn orphan(&mut self, i: usize, parts: &'r [Part<'a>]) -> wire::Content<'r> {
        match self.user_content(i, "output", parts) {
            wire::Content::Text(text) => wire::Content::Text(LazyText::join(vec![ORPHAN_LEAD.into(), text], "\n")),
            wire::Content::Parts(mut parts) => {
                parts.insert(0, wire::ContentPart::Text { text: ORPHAN_LEAD.into() });
                wire::Content::Parts(parts)
            }
            wire::Content::Null => wire::Content::Null,
        }
    }

    /// Text alone as a string, which every host takes; with pictures, as parts.
    fn user_content(&mut self, i: usize, key: &str, parts: &'r [Part<'a>]) -> wire::Content<'r> {
        let pictures = parts.iter().any(|part| matches!(part, Part::Image { .. }));
        if !pictures || !self.target.accepts_images {
            return wire::Content::Text(self.text_of(i, key, parts, Some(NO_PICTURE)));
        }
        let mut content = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) => {
                    content.push(wire::ContentPart::Text { text: text.as_borrowed() });
                }
                Part::Image { url, detail } => content.push(image(url, detail.as_deref())),
                Part::Other { .. } => self.losses.drop(part_path(i, key, n), "this protocol has no such part"),
            }
        }
        wire::Content::Parts(content)
    }

    /// The text of all parts, a line break between them. `picture`: what stands for a picture; `None`: nothing may.
    fn text_of(&mut self, i: usize, key: &str, parts: &'r [Part<'a>], picture: Option<&'static str>) -> LazyText<'r> {
        let mut pieces: Vec<LazyText<'r>> = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let piece = match part {
                Part::Text(piece) | Part::Refusal(piece) => piece.as_borrowed(),
                Part::Image { .. } => {
                    if picture != Some(PICTURE_BELOW) {
                        self.losses.drop(part_path(i, key, n), "the model takes no pictures here");
                    }
                    match picture {
                        Some(words) => words.into(),
                        None => continue,
                    }
                }
                Part::Other { .. } => {
                    self.losses.drop(part_path(i, key, n), "this protocol has no such part");
                    continue;
                }
            };
            // No line break before the first character.
            if !pieces.is_empty() || !piece.is_empty() {
                pieces.push(piece);
            }
        }
        LazyText::join(pieces, "\n")
    }

    /// Writes the turn, if one is open: the assistant's message, the results of its calls, their pictures.
    fn close_turn(&mut self) -> Result<(), EncodeError> {
        let turn = std::mem::take(&mut self.turn);
        let request = self.request;
        let mut texts = Vec::new();
        for i in &turn.texts {
            let Some(Item::Message { parts, .. }) = request.input.get(*i) else { continue };
            let text = self.text_of(*i, "content", parts, None);
            if !text.is_empty() {
                texts.push(text);
            }
        }
        let mut text = LazyText::join(texts, "\n\n");
        if text.is_empty() && turn.calls.is_empty() {
            for i in turn.reasoning {
                self.losses.drop(path(i), "thoughts without an answer");
            }
            return Ok(());
        }
        let mut message = wire::Message::new("assistant", wire::Content::Null);
        self.restore_thoughts(&turn, &mut message, &mut text);
        message.content = match text {
            text if !text.is_empty() || !self.target.dialect.null_content => wire::Content::Text(text),
            _ => wire::Content::Null,
        };
        for i in &turn.calls {
            message.tool_calls.push(self.call(*i)?);
        }
        if self.target.dialect.signatures
            && message.tool_calls.iter().all(|call| call.extra_content.is_none())
            && let Some(first) = message.tool_calls.first_mut()
        {
            // Only the first call of a step needs one.
            first.extra_content = Some(raw(NO_SIGNATURE)?);
        }
        self.messages.push(message);
        self.results(&turn.calls);
        Ok(())
    }

    fn call(&mut self, i: usize) -> Result<wire::ToolCall<'r>, EncodeError> {
        let Some(Item::Call { call_id, tool, input }) = self.request.input.get(i) else {
            return Err(EncodeError::Unsupported { path: path(i), why: "is no call".into() });
        };
        let arguments = match tool.kind {
            ToolKind::Custom => custom::wrap(input).map_err(cannot_write)?.into(),
            ToolKind::Function | ToolKind::ToolSearch if input.is_blank() => "{}".into(),
            ToolKind::Function | ToolKind::ToolSearch if is_object(&input.read()) => input.as_borrowed(),
            ToolKind::Function | ToolKind::ToolSearch => {
                // Servers that render history through a template parse arguments, and refuse the whole request.
                self.losses.approximate(path(i), "its arguments are no JSON object, so they are put into one");
                custom::wrap(input).map_err(cannot_write)?.into()
            }
        };
        Ok(wire::ToolCall {
            id: self.pairs.calls.get(&i).map(|(id, _)| id.clone()).unwrap_or_default(),
            kind: "function",
            function: wire::FunctionCall { name: self.names.wire_name(tool).unwrap_or(&tool.name), arguments },
            extra_content: self.extras.get(&**call_id).copied(),
        })
    }

    fn results(&mut self, calls: &[usize]) {
        let request = self.request;
        let mut pictures = Vec::new();
        let mut pictures_of = None;
        for i in calls {
            let Some((id, output)) = self.pairs.calls.get(i).cloned() else { continue };
            let output = output.and_then(|o| Some((o, request.input.get(o)?)));
            let text = match output {
                Some((o, Item::Output { parts, .. })) => {
                    let shown = self.target.accepts_images;
                    let text = self.text_of(o, "output", parts, Some(if shown { PICTURE_BELOW } else { NO_PICTURE }));
                    for (n, part) in parts.iter().enumerate() {
                        if let Part::Image { url, detail } = part
                            && shown
                        {
                            self.losses.approximate(part_path(o, "output", n), "shown in a message behind the results");
                            pictures.push(image(url, detail.as_deref()));
                            pictures_of = Some(o);
                        }
                    }
                    if text.is_empty() { EMPTY_RESULT.into() } else { text }
                }
                Some(_) | None => {
                    self.losses.approximate(path(*i), "it has no result, so one is made up that says so");
                    NO_RESULT.into()
                }
            };
            let mut message = wire::Message::new("tool", wire::Content::Text(text));
            message.tool_call_id = Some(id);
            self.messages.push(message);
        }
        if let Some(o) = pictures_of {
            pictures.insert(0, wire::ContentPart::Text { text: PICTURES.into() });
            self.push_user(o, wire::Content::Parts(pictures));
        }
    }

    /// Puts the turn's thoughts where the host wants them.
    fn restore_thoughts(&mut self, turn: &Turn, message: &mut wire::Message<'r>, content: &mut LazyText<'r>) {
        let dialect = self.target.dialect;
        let request = self.request;
        let wanted = dialect.thoughts_on == ThoughtsOn::All || !turn.calls.is_empty();
        let required = dialect.thoughts_required && !turn.calls.is_empty();
        let mut field = None;
        let mut tag = 0;
        let mut texts: Vec<LazyText<'r>> = Vec::new();
        let mut details: Vec<&'r RawValue> = Vec::new();
        for i in &turn.reasoning {
            let Some(Item::Reasoning { summary, content, opaque }) = request.input.get(*i) else { continue };
            let mut used = false;
            if let Some(stored) = self.stored.get(i).filter(|_| wanted && dialect.thoughts_back != ThoughtsBack::Never)
            {
                field = field.or(Some(stored.field));
                tag = stored.tag;
                details.extend(&stored.details);
                texts.extend(stored.text.clone());
                used = stored.text.is_some() || !stored.details.is_empty();
                used |= !stored.calls.is_empty();
            } else if required {
                let shown = if content.is_empty() { summary } else { content };
                for piece in shown.iter().filter(|piece| !piece.is_empty()) {
                    texts.push(piece.as_borrowed());
                    used = true;
                }
                if used {
                    self.losses.approximate(path(*i), "the thoughts as they were shown stand for those that were had");
                }
            }
            if used {
                continue;
            }
            let why = match opaque {
                Some(opaque) if opaque.origin != self.target.origin => "thoughts of another provider or model",
                Some(_) if !wanted => "the host ignores thoughts of finished answers",
                Some(_) | None => "the host takes no such thoughts back",
            };
            // Signatures go back on their calls, whatever becomes of the text.
            if !self.stored.get(i).is_some_and(|s| s.text.is_none() && s.details.is_empty() && !s.calls.is_empty()) {
                self.losses.drop(path(*i), why);
            }
        }
        if required && texts.is_empty() {
            self.thoughts_missing = self.thoughts_missing.or(turn.calls.first().copied());
        }
        // Known to be empty is not the same as unknown.
        let text = if texts.is_empty() { None } else { Some(LazyText::join(texts, "")) };
        let text = text.filter(|text| !text.is_empty() || required);
        let field = match dialect.thoughts_back {
            ThoughtsBack::Never => return,
            ThoughtsBack::ReasoningContent => Field::ReasoningContent,
            ThoughtsBack::Reasoning => Field::Reasoning,
            ThoughtsBack::Details if details.is_empty() => Field::Tags,
            ThoughtsBack::AsReceived if details.is_empty() => field.unwrap_or_default(),
            ThoughtsBack::Details | ThoughtsBack::AsReceived => Field::Details,
        };
        match field {
            Field::ReasoningContent => message.reasoning_content = text,
            Field::Reasoning => message.reasoning = text,
            Field::Details => message.reasoning_details = details,
            Field::Tags => {
                if let Some(text) = text {
                    let (opening, closing) = TAGS.get(tag).copied().unwrap_or(TAGS[0]);
                    let tagged = [opening.into(), "\n".into(), text, "\n".into(), closing.into(), "\n\n".into()];
                    *content = LazyText::join(tagged.into_iter().chain([std::mem::take(content)]).collect(), "");
                }
            }
        }
    }
}

/// Whether a call's input is a JSON object.
fn is_object(input: &str) -> bool {
    input.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(input).is_ok()
}

fn image<'r>(url: &'r LazyText<'_>, detail: Option<&'r str>) -> wire::ContentPart<'r> {
    // This protocol knows three; `original` is the newest of the other API.
    let detail = detail.map(|d| if matches!(d, "auto" | "low" | "high") { d } else { "high" });
    // Some hosts look, and refuse a picture that is not what its label says.
    let url = match picture::relabelled(&url.read()) {
        Some(right) => right.into(),
        None => url.as_borrowed(),
    };
    wire::ContentPart::ImageUrl { image_url: wire::ImageUrl { url, detail } }
}

/// A call's id in the host's shape, made from the client's id alone, so that it is the same in every request.
fn wire_id(id: Cow<'_, str>, shape: CallIds) -> Cow<'_, str> {
    let fits = match shape {
        CallIds::Any => true,
        CallIds::UpTo(bytes_max) => id.len() <= bytes_max,
        CallIds::Alnum9 => id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
    };
    if fits {
        return id;
    }
    let short = short_id(&id);
    Cow::Owned(match shape {
        CallIds::Any | CallIds::Alnum9 => short,
        CallIds::UpTo(_) => format!("call_{short}"),
    })
}
