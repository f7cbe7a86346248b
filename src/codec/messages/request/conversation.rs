//! The conversation: items → system and messages. PURE.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Switch, cannot_write};
use crate::{
    codec::{
        EncodeError, Target, compaction,
        history::{
            EMPTY_RESULT, INSTRUCTIONS_LEAD, Losses, NO_PICTURE, NO_RESULT, ORPHAN_LEAD, Pairs, arguments, part_path,
            path, short_id,
        },
        messages::{keys, models::Model, thoughts::Stored, wire},
        names::Names,
        picture,
    },
    model::{
        request::{Item, Part, Request, Role, Tool},
        text::LazyText,
    },
};

/// What the user says before an assistant that speaks first.
pub(super) const OPENING: &str = "(The conversation begins with the assistant.)";
/// What the user says where a conversation ends with the assistant: it cannot be asked to go on with its own words.
pub(super) const GO_ON: &str = "Go on.";
/// Stands for a picture that is of no kind the service knows.
const ODD_PICTURE: &str = "[a picture was left out: it is no JPEG, PNG, GIF or WebP]";

pub(super) struct Conversation<'r, 'a, 'l> {
    request: &'r Request<'a>,
    target: &'r Target,
    names: &'r Names,
    losses: &'l mut Losses,
    pairs: Pairs<'r>,
    /// By item: its thoughts, if this target may read them.
    stored: BTreeMap<usize, Stored<'r>>,
    /// Items that begin an answer, see [`begins`].
    begins: BTreeSet<usize>,
    /// Why no thoughts go back at all.
    without_thoughts: Option<&'static str>,
    /// Items whose thoughts go back.
    given: Vec<usize>,
    system: Vec<wire::SystemBlock<'r>>,
    messages: Vec<wire::Message<'r>>,
    /// Items of the open run of the assistant.
    turn: Vec<usize>,
}

type Written<'r> = (Vec<wire::SystemBlock<'r>>, Vec<wire::Message<'r>>);

impl<'r, 'a, 'l> Conversation<'r, 'a, 'l> {
    pub(super) fn new(
        request: &'r Request<'a>,
        target: &'r Target,
        model: &Model,
        names: &'r Names,
        losses: &'l mut Losses,
    ) -> Self {
        let pairs = Pairs::of(&request.input, wire_id, losses);
        let mut stored = BTreeMap::new();
        for (i, item) in request.input.iter().enumerate() {
            if let Item::Reasoning { opaque: Some(opaque), .. } = item
                && opaque.origin == target.origin
                && let Some(thoughts) = Stored::read(&opaque.value)
            {
                stored.insert(i, thoughts);
            }
        }
        let begins = begins(&request.input, &stored);
        // They would be refused: the tools they were had with stood before them.
        let callable = request.tools.iter().any(|tool| matches!(tool, Tool::Callable(_)));
        let without_thoughts = (model.bound_thoughts && !callable && !pairs.calls.is_empty())
            .then_some("the tools these thoughts were had with are not declared");
        Self {
            request,
            target,
            names,
            losses,
            pairs,
            stored,
            begins,
            without_thoughts,
            given: Vec::new(),
            system: Vec::new(),
            messages: Vec::new(),
            turn: Vec::new(),
        }
    }

    /// Writes it all. `switch` says whether thoughts go back, and is switched off if those that must are not at hand.
    pub(super) fn messages(
        mut self,
        instruction: Option<String>,
        switch: &mut Switch,
    ) -> Result<Written<'r>, EncodeError> {
        let request = self.request;
        if !switch.thoughts_back {
            self.without_thoughts = Some("thinking is off");
        }
        if let Some(text) = request.instructions.as_ref().filter(|text| !text.is_blank()) {
            self.instruct(text.as_borrowed());
        }
        for (i, item) in request.input.iter().enumerate() {
            match item {
                Item::Message { role: Role::Assistant, .. } | Item::Reasoning { .. } | Item::Call { .. } => {
                    if self.begins.contains(&i) {
                        // What stood before it stands as it stood when this was the answer.
                        self.close_turn()?;
                        self.go_on_unless_user("an answer follows another one, so the user asked to go on");
                    }
                    self.turn.push(i);
                }
                Item::Message { role: Role::System | Role::Developer, parts, .. } => {
                    self.close_turn()?;
                    self.instructions(i, parts);
                }
                Item::Message { role: Role::User, parts, .. } => {
                    self.close_turn()?;
                    let blocks = self.blocks(i, "content", parts);
                    self.push(wire::Role::User, blocks);
                }
                Item::Output { parts, .. } => {
                    self.close_turn()?;
                    if !self.pairs.paired.contains(&i) {
                        self.losses.approximate(path(i), "it answers no call, so it is told as the user's words");
                        let mut blocks = self.blocks(i, "output", parts);
                        blocks.insert(0, wire::Block::text(ORPHAN_LEAD));
                        self.push(wire::Role::User, blocks);
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
        if let Some(text) = instruction {
            self.instruct(text.into());
        }
        self.go_on_unless_user("it ends with the assistant, so the user asks it to go on");
        if self.messages.is_empty() {
            self.losses.approximate("input", "nobody has said anything, so the user asks to go on");
            self.push(wire::Role::User, vec![wire::Block::text(GO_ON)]);
        }
        self.forget_thoughts_unless_begun(switch);
        Ok((self.system, self.messages))
    }

    /// With a budget, thinking is refused while calls are answered whose step did not begin with thoughts
    /// (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>, read 2026-11-21).
    fn forget_thoughts_unless_begun(&mut self, switch: &mut Switch) {
        let budget = switch.said.is_some_and(|said| said.budget_tokens.is_some());
        if !budget || begun_with_thoughts(&self.messages) {
            return;
        }
        self.losses.drop("reasoning.effort", "thinking is off: the step under way began without its thoughts");
        for i in std::mem::take(&mut self.given) {
            self.losses.drop(path(i), "thinking is off");
        }
        for message in &mut self.messages {
            message.content.retain(|block| !is_thought(block));
        }
        let said = Some(wire::Thinking { kind: "disabled", budget_tokens: None, display: None });
        *switch = Switch { said, thinks: false, thoughts_back: false, ..*switch };
    }

    /// A model answers the user: it cannot be asked to go on with its own words.
    fn go_on_unless_user(&mut self, why: &'static str) {
        if self.messages.last().is_some_and(|message| message.role == wire::Role::Assistant) {
            self.losses.approximate("input", why);
            self.push(wire::Role::User, vec![wire::Block::text(GO_ON)]);
        }
    }

    fn instruct(&mut self, text: LazyText<'r>) {
        self.system.push(wire::SystemBlock { kind: "text", text, cache_control: None });
    }

    /// Instructions of the program around the model: the system, if the conversation has not begun. Moved to the front
    /// later ones would change what stands before everything, and with it the cache and the thoughts of the whole
    /// conversation; they would also no longer stand where they were said.
    fn instructions(&mut self, i: usize, parts: &'r [Part<'a>]) {
        let mut texts = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) if text.is_blank() => {}
                Part::Text(text) | Part::Refusal(text) => texts.push(text.as_borrowed()),
                Part::Image { .. } => {
                    self.losses.drop(part_path(i, "content", n), "the model takes no pictures here");
                }
                Part::Other { .. } => self.losses.drop(part_path(i, "content", n), "this protocol has no such part"),
            }
        }
        if texts.is_empty() {
            return;
        }
        if self.messages.is_empty() {
            for text in texts {
                self.instruct(text);
            }
            return;
        }
        self.losses.approximate(path(i), "the protocol takes system messages only at the front");
        texts.insert(0, INSTRUCTIONS_LEAD.into());
        self.push(wire::Role::User, vec![wire::Block::text(LazyText::join(texts, "\n"))]);
    }

    /// Adds to the last message if the same one speaks: the roles alternate.
    fn push(&mut self, role: wire::Role, blocks: Vec<wire::Block<'r>>) {
        if blocks.is_empty() {
            return;
        }
        match self.messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(blocks),
            Some(_) | None => self.messages.push(wire::Message { role, content: blocks }),
        }
    }

    /// Text and pictures of the user or of a tool. Blank texts are refused, so they are left out.
    fn blocks(&mut self, i: usize, key: &str, parts: &'r [Part<'a>]) -> Vec<wire::Block<'r>> {
        let mut blocks = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) if text.is_blank() => {}
                Part::Text(text) | Part::Refusal(text) => blocks.push(wire::Block::text(text.as_borrowed())),
                Part::Image { .. } if !self.target.accepts_images => {
                    self.losses.drop(part_path(i, key, n), "the model takes no pictures");
                    blocks.push(wire::Block::text(NO_PICTURE));
                }
                Part::Image { url, .. } => match image(url) {
                    Some(source) => blocks.push(wire::Block::Image { source, cache_control: None }),
                    None => {
                        self.losses.drop(part_path(i, key, n), "the protocol takes no such picture");
                        blocks.push(wire::Block::text(ODD_PICTURE));
                    }
                },
                Part::Other { kind, .. } => {
                    self.losses.drop(part_path(i, key, n), "this protocol has no such part");
                    blocks.push(wire::Block::text(format!("[left out here: {kind}]")));
                }
            }
        }
        blocks
    }

    /// Writes the run, if one is open: the assistant's message, and the results of its calls.
    fn close_turn(&mut self) -> Result<(), EncodeError> {
        let turn = std::mem::take(&mut self.turn);
        let request = self.request;
        let Some(first) = turn.first().copied() else { return Ok(()) };
        let mut blocks = Vec::with_capacity(turn.len());
        // Items of the thoughts behind the last text or call.
        let mut last = Vec::new();
        for i in &turn {
            match request.input.get(*i) {
                Some(Item::Reasoning { .. }) => {
                    last.extend(self.thoughts(*i).map(|block| {
                        blocks.push(block);
                        *i
                    }));
                    continue;
                }
                Some(Item::Message { parts, .. }) => {
                    for (n, part) in parts.iter().enumerate() {
                        match part {
                            Part::Text(text) | Part::Refusal(text) if text.is_blank() => continue,
                            Part::Text(text) | Part::Refusal(text) => {
                                blocks.push(wire::Block::text(text.as_borrowed()))
                            }
                            Part::Image { .. } | Part::Other { .. } => {
                                self.losses.drop(part_path(*i, "content", n), "the assistant only writes");
                                continue;
                            }
                        }
                        self.given.append(&mut last);
                    }
                }
                Some(Item::Call { .. }) => {
                    blocks.push(self.call(*i)?);
                    self.given.append(&mut last);
                }
                Some(Item::Output { .. } | Item::Hosted { .. } | Item::Compaction { .. }) | None => {}
            }
        }
        // A message cannot end with thoughts.
        for i in last {
            self.losses.drop(path(i), "thoughts without an answer");
            blocks.pop();
        }
        if blocks.is_empty() {
            return Ok(());
        }
        if self.messages.is_empty() {
            self.losses.approximate(path(first), "the protocol has the user speak first");
            self.push(wire::Role::User, vec![wire::Block::text(OPENING)]);
        }
        self.push(wire::Role::Assistant, blocks);
        self.results(&turn);
        Ok(())
    }

    /// Thoughts exactly as they came, or the reason why they do not go back.
    fn thoughts(&mut self, i: usize) -> Option<wire::Block<'r>> {
        let opaque = match self.request.input.get(i) {
            Some(Item::Reasoning { opaque, .. }) => opaque.as_ref(),
            Some(_) | None => None,
        };
        let why = match (opaque, self.stored.remove(&i), self.without_thoughts) {
            (Some(_), Some(stored), None) => {
                return Some(match stored {
                    Stored { data: Some(data), .. } => wire::Block::RedactedThinking { data },
                    Stored { thinking, signature, .. } => {
                        wire::Block::Thinking { thinking: thinking.unwrap_or_default(), signature }
                    }
                });
            }
            (Some(opaque), _, _) if opaque.origin != self.target.origin => "thoughts of another provider or model",
            (Some(_), Some(_), Some(why)) => why,
            (Some(_), None, _) => "thoughts of another protocol",
            (None, _, _) => "thoughts that the provider did not sign",
        };
        self.losses.drop(path(i), why);
        None
    }

    fn call(&mut self, i: usize) -> Result<wire::Block<'r>, EncodeError> {
        let Some(Item::Call { tool, input, .. }) = self.request.input.get(i) else {
            return Err(EncodeError::Unsupported { path: path(i), why: "is no call".into() });
        };
        let (input, whole) = arguments(tool.kind, input).map_err(cannot_write)?;
        if !whole {
            self.losses.approximate(path(i), "its arguments are no JSON object, so they are put into one");
        }
        let input = match self.names.arguments(tool) {
            [] => input,
            spelled => keys::to_wire(input.get(), spelled).map_or(input, Cow::Owned),
        };
        Ok(wire::Block::ToolUse {
            id: self.pairs.calls.get(&i).map(|(id, _)| id.clone().into_owned()).unwrap_or_default(),
            name: self.names.wire_name(tool).unwrap_or(&tool.name).to_owned(),
            input,
            cache_control: None,
        })
    }

    fn results(&mut self, turn: &[usize]) {
        let request = self.request;
        let mut results = Vec::new();
        for i in turn {
            let Some((id, output)) = self.pairs.calls.get(i).cloned() else { continue };
            let output = output.and_then(|o| Some((o, request.input.get(o)?)));
            let (content, is_error) = match output {
                Some((o, Item::Output { parts, .. })) => (result(self.blocks(o, "output", parts)), None),
                Some(_) | None => {
                    self.losses.approximate(path(*i), "it has no result, so one is made up that says so");
                    (wire::ResultContent::Text(NO_RESULT.into()), Some(true))
                }
            };
            results.push(wire::Block::ToolResult {
                tool_use_id: id.into_owned(),
                content,
                is_error,
                cache_control: None,
            });
        }
        self.push(wire::Role::User, results);
    }
}

fn result(mut blocks: Vec<wire::Block<'_>>) -> wire::ResultContent<'_> {
    match (blocks.pop(), blocks.is_empty()) {
        (None, _) => wire::ResultContent::Text(EMPTY_RESULT.into()),
        (Some(wire::Block::Text { text, .. }), true) => wire::ResultContent::Text(text),
        (Some(last), _) => {
            blocks.push(last);
            wire::ResultContent::Blocks(blocks)
        }
    }
}

/// Items that begin an answer, as far as thoughts say so. Where an answer broke off, what it said whole stands before the
/// next one, which was given behind that and, if it was words, [`GO_ON`]. Thoughts are refused for ever after unless they
/// are found behind the same again
/// (<https://platform.claude.com/docs/en/build-with-claude/preserved-thinking>, read 2026-11-21).
fn begins(input: &[Item<'_>], stored: &BTreeMap<usize, Stored<'_>>) -> BTreeSet<usize> {
    let begin = |(i, thoughts): (&usize, &Stored<'_>)| {
        let first = i.checked_sub(usize::try_from(thoughts.at?).ok()?)?;
        // A client may have left items out: then it is not known.
        let same_answer = |(n, item): (usize, &Item<'_>)| match item {
            Item::Reasoning { .. } => stored.get(&(first + n)).is_none_or(|s| s.at.is_some_and(|at| at as usize == n)),
            Item::Message { role: Role::Assistant, .. } | Item::Call { .. } => true,
            Item::Message { .. } | Item::Output { .. } | Item::Hosted { .. } | Item::Compaction { .. } => false,
        };
        input.get(first..*i)?.iter().enumerate().all(same_answer).then_some(first)
    };
    stored.iter().filter_map(begin).collect()
}

/// Whether the step under way, if there is one, begins with thoughts: all that the assistant has said since the user
/// last spoke is one step, the results of its calls included.
fn begun_with_thoughts(messages: &[wire::Message<'_>]) -> bool {
    let of_results = |message: &wire::Message<'_>| {
        message.content.iter().any(|block| matches!(block, wire::Block::ToolResult { .. }))
    };
    let spoken = messages.iter().rposition(|message| message.role == wire::Role::User && !of_results(message));
    let since = messages.get(spoken.map_or(0, |at| at + 1)..).unwrap_or_default();
    since.first().is_none_or(|message| message.content.first().is_some_and(is_thought))
}

fn is_thought(block: &wire::Block<'_>) -> bool {
    matches!(block, wire::Block::Thinking { .. } | wire::Block::RedactedThinking { .. })
}

/// A picture of one of the four kinds that are taken, or the address of one
/// (<https://platform.claude.com/docs/en/build-with-claude/vision>, read 2026-11-21).
fn image<'r>(text: &'r LazyText<'_>) -> Option<wire::ImageSource<'r>> {
    let url = text.read();
    let Some(rest) = url.strip_prefix("data:") else {
        let fetched = url.starts_with("https://") || url.starts_with("http://");
        return fetched.then(|| wire::ImageSource::Url { url: text.as_borrowed() });
    };
    let (head, data) = rest.split_once(',')?;
    let encoded = head.split(';').skip(1).any(|word| word.eq_ignore_ascii_case("base64"));
    // The label is not believed: the service looks, too.
    let media_type = picture::media_type(data).filter(|_| encoded)?;
    let at = url.len() - data.len();
    Some(wire::ImageSource::Base64 { media_type, data: behind(url, at) })
}

/// What follows the first `at` bytes.
fn behind(text: Cow<'_, str>, at: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(at..).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(at..).unwrap_or_default().to_owned()),
    }
}

/// A call's id as this protocol takes it (`^[a-zA-Z0-9_-]+$`), made from the client's id alone.
fn wire_id(id: Cow<'_, str>) -> Cow<'_, str> {
    let fits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if fits { id } else { Cow::Owned(format!("call_{}", short_id(&id))) }
}
