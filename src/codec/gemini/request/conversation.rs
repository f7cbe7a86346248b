//! The conversation: items → contents. PURE.

use std::{borrow::Cow, collections::BTreeMap};

use super::{cannot_write, function_name};
use crate::{
    codec::{
        EncodeError, Target, compaction,
        gemini::{
            models::Model,
            thoughts::{Mark, Stored, VERSION},
            wire,
        },
        history::{
            INSTRUCTIONS_LEAD, Losses, NO_PICTURE, NO_RESULT, ORPHAN_LEAD, Pairs, arguments, part_path, path, same_id,
        },
        names::Names,
        picture,
    },
    model::{
        request::{Item, Part, Request, Role},
        text::LazyText,
    },
};

/// Stands in a result for a picture that is attached to it.
pub(super) const PICTURE_HERE: &str = "[picture: attached]";
/// Stands in a result for a picture that follows.
pub(super) const PICTURE_BELOW: &str = "[picture: see below]";
/// Introduces the pictures of tool results.
pub(super) const PICTURES: &str = "Pictures from the tool results above:";
/// What the user says where the conversation begins with the model, since the service wants the user to begin.
pub(super) const BEGIN: &str = "(the beginning of the conversation is not at hand)";
/// What the user says where the conversation ends with the model, since the service answers the user.
pub(super) const GO_ON: &str = "Go on.";
/// What the service takes in place of the signature of a call its model did not make
/// (<https://ai.google.dev/gemini-api/docs/thought-signatures>, read 2026-11-21).
pub(super) const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Types of pictures the service takes (<https://ai.google.dev/gemini-api/docs/image-understanding>), with the endings of
/// addresses that tell them.
const PICTURE_TYPES: [(&str, &[&str]); 5] = [
    ("image/png", &["png"]),
    ("image/jpeg", &["jpg", "jpeg"]),
    ("image/webp", &["webp"]),
    ("image/heic", &["heic"]),
    ("image/heif", &["heif"]),
];

/// Types it takes inside a function's response.
const PICTURE_TYPES_IN_RESULTS: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

type Contents<'r> = (Vec<wire::Part<'r>>, Vec<wire::Content<'r>>);

pub(super) struct Conversation<'r, 'a, 'l> {
    target: &'r Target,
    model: &'r Model,
    names: &'r Names,
    losses: &'l mut Losses,
    request: &'r Request<'a>,
    /// By item: its stored signatures, if this model may read them.
    stored: BTreeMap<usize, Stored<'r>>,
    /// By call id: the call's signature.
    signatures: BTreeMap<Cow<'r, str>, Cow<'r, str>>,
    pairs: Pairs<'r>,
    contents: Vec<wire::Content<'r>>,
    /// What stands before the whole conversation.
    front: Vec<wire::Part<'r>>,
    /// Items of one run of the model, in order.
    turn: Vec<usize>,
}

impl<'r, 'a, 'l> Conversation<'r, 'a, 'l> {
    pub(super) fn new(
        request: &'r Request<'a>,
        target: &'r Target,
        model: &'r Model,
        names: &'r Names,
        losses: &'l mut Losses,
    ) -> Self {
        let pairs = Pairs::of(&request.input, same_id, losses);
        let mut this = Self {
            target,
            model,
            names,
            losses,
            request,
            stored: BTreeMap::new(),
            signatures: BTreeMap::new(),
            pairs,
            contents: Vec::new(),
            front: Vec::new(),
            turn: Vec::new(),
        };
        this.open_signatures();
        this
    }

    fn open_signatures(&mut self) {
        let request = self.request;
        for (i, item) in request.input.iter().enumerate() {
            let Item::Reasoning { opaque: Some(opaque), .. } = item else { continue };
            if opaque.origin != self.target.origin {
                continue;
            }
            let Ok(mut stored) = serde_json::from_str::<Stored<'r>>(&opaque.value) else { continue };
            if stored.v == VERSION && stored.model == self.target.model {
                self.signatures.append(&mut stored.calls);
                self.stored.insert(i, stored);
            }
        }
    }

    /// What goes before the conversation, and the conversation.
    pub(super) fn contents(
        mut self,
        request: &'r Request<'a>,
        instruction: Option<String>,
    ) -> Result<Contents<'r>, EncodeError> {
        if let Some(text) = request.instructions.as_ref().filter(|text| !text.is_empty()) {
            self.front.push(wire::Part::of_text(text.as_borrowed()));
        }
        for (i, item) in request.input.iter().enumerate() {
            match item {
                Item::Message { role: Role::Assistant, .. } | Item::Reasoning { .. } | Item::Call { .. } => {
                    self.turn.push(i);
                }
                Item::Message { role: Role::System | Role::Developer, parts, .. } => {
                    self.close_turn()?;
                    self.system(i, parts);
                }
                Item::Message { role: Role::User, parts, .. } => {
                    self.close_turn()?;
                    let parts = self.user_parts(i, "content", parts);
                    self.push("user", parts);
                }
                Item::Output { parts, .. } => {
                    self.close_turn()?;
                    if !self.pairs.paired.contains(&i) {
                        self.losses.approximate(path(i), "it answers no call, so it is told as the user's words");
                        let mut parts = self.user_parts(i, "output", parts);
                        if !parts.is_empty() {
                            parts.insert(0, wire::Part::of_text(ORPHAN_LEAD));
                        }
                        self.push("user", parts);
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
        match self.contents.last().map(|last| last.role) {
            Some("model") => {
                self.losses.approximate("input", "it ends with the model, so the user is made to say `Go on.`");
                self.push("user", vec![wire::Part::of_text(GO_ON)]);
            }
            Some(_) => {}
            None => {
                self.losses.approximate("input", "it holds nothing, so the user is made to say that");
                self.push("user", vec![wire::Part::of_text(BEGIN)]);
            }
        }
        self.front.extend(instruction.map(wire::Part::of_text));
        Ok((self.front, self.contents))
    }

    /// Adds parts to the last content, if it is of the same role, or as a content of their own.
    fn push(&mut self, role: &'static str, mut parts: Vec<wire::Part<'r>>) {
        if parts.is_empty() {
            return;
        }
        if self.contents.is_empty() && role == "model" {
            self.losses.approximate("input", "it begins with the model, so the user is made to begin");
            self.contents.push(wire::Content { role: "user", parts: vec![wire::Part::of_text(BEGIN)] });
        }
        match self.contents.last_mut().filter(|last| last.role == role) {
            Some(last) => last.parts.append(&mut parts),
            None => self.contents.push(wire::Content { role, parts }),
        }
    }

    /// Instructions of the program around the model: before the conversation if they open it, else as the user's words.
    /// Moved to the front they would change the first bytes of every later request, and the provider's cache of the whole
    /// conversation would be lost; they would also no longer stand where they were said.
    fn system(&mut self, i: usize, parts: &'r [Part<'a>]) {
        let mut said = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) => said.extend(words(text)),
                Part::Image { .. } => {
                    self.losses.drop(part_path(i, "content", n), "instructions hold no pictures here");
                }
                Part::Other { .. } => {
                    self.losses.drop(part_path(i, "content", n), "this protocol has no such part");
                }
            }
        }
        if said.is_empty() {
            return;
        }
        if self.contents.is_empty() {
            self.front.append(&mut said);
            return;
        }
        self.losses.approximate(path(i), "the protocol takes instructions only at the front");
        said.insert(0, wire::Part::of_text(INSTRUCTIONS_LEAD));
        self.push("user", said);
    }

    fn user_parts(&mut self, i: usize, key: &str, parts: &'r [Part<'a>]) -> Vec<wire::Part<'r>> {
        let mut said = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) => said.extend(words(text)),
                Part::Image { url, .. } => match self.picture(url) {
                    Ok(picture) => said.push(picture),
                    Err(why) => {
                        self.losses.drop(part_path(i, key, n), why);
                        said.push(wire::Part::of_text(NO_PICTURE));
                    }
                },
                Part::Other { .. } => self.losses.drop(part_path(i, key, n), "this protocol has no such part"),
            }
        }
        said
    }

    /// A picture as a part, or why it cannot be one.
    fn picture(&self, url: &'r LazyText<'_>) -> Result<wire::Part<'r>, &'static str> {
        if !self.target.accepts_images {
            return Err("the model takes no pictures");
        }
        let read = url.read();
        if let Some((mime_type, data)) = data_url(&read) {
            // What the data says goes before what its label says: the service looks, too.
            let mime_type = picture::media_type(&data).map_or_else(|| mime_type.to_ascii_lowercase(), str::to_owned);
            if !PICTURE_TYPES.iter().any(|(name, _)| *name == mime_type) || data.is_empty() {
                return Err("the provider takes no pictures of this type");
            }
            let mime_type = Cow::Owned(mime_type);
            return Ok(wire::Part { inline_data: Some(wire::Blob { mime_type, data }), ..wire::Part::default() });
        }
        if !read.starts_with("https://") || !self.model.fetches_urls {
            return Err("the provider does not fetch pictures from such addresses");
        }
        let Some(mime_type) = type_by_ending(&read) else {
            return Err("the address does not tell the picture's type, which the provider must be told");
        };
        Ok(wire::Part {
            file_data: Some(wire::FileData { mime_type, file_uri: url.as_borrowed() }),
            ..wire::Part::default()
        })
    }

    /// Writes the turn, if one is open: the model's content, then the results of its calls.
    fn close_turn(&mut self) -> Result<(), EncodeError> {
        let turn = std::mem::take(&mut self.turn);
        let request = self.request;
        let marks: Vec<Mark<'r>> =
            turn.iter().filter_map(|i| self.stored.get(i)).flat_map(|stored| stored.texts.iter().cloned()).collect();
        let spoke = turn.iter().any(|i| !matches!(request.input.get(*i), Some(Item::Reasoning { .. })));
        let mut said = Vec::new();
        let mut calls = Vec::new();
        for i in turn {
            match request.input.get(i) {
                Some(Item::Reasoning { opaque, .. }) => {
                    let foreign = opaque.as_ref().is_some_and(|opaque| opaque.origin != self.target.origin);
                    self.thoughts(i, spoke, foreign, &mut said);
                }
                Some(Item::Message { parts, .. }) => self.model_parts(i, parts, &marks, &mut said),
                Some(Item::Call { .. }) => {
                    said.push(self.call(i)?);
                    calls.push(i);
                }
                Some(Item::Output { .. } | Item::Hosted { .. } | Item::Compaction { .. }) | None => {}
            }
        }
        if self.model.signatures_required
            && let Some(first) = said.iter_mut().find(|part| part.function_call.is_some())
            && first.thought_signature.is_none()
        {
            // Only the first call of a step needs one.
            first.thought_signature = Some(Cow::Borrowed(NO_SIGNATURE));
        }
        self.push("model", said);
        let results = self.results(&calls);
        self.push("user", results);
        Ok(())
    }

    /// Signed thoughts go back; what else was thought is known to the model by the signatures of what it said.
    fn thoughts(&mut self, i: usize, spoke: bool, foreign: bool, said: &mut Vec<wire::Part<'r>>) {
        let why = match self.stored.remove(&i) {
            Some(stored) if spoke => {
                for (text, signature) in stored.thoughts {
                    said.push(wire::Part {
                        thought: true,
                        thought_signature: Some(signature),
                        ..wire::Part::of_text(text)
                    });
                }
                for signature in stored.bare {
                    said.push(wire::Part { thought_signature: Some(signature), ..wire::Part::of_text("") });
                }
                return;
            }
            _ if !spoke => "thoughts without an answer",
            Some(_) | None if foreign => "thoughts of another provider or model",
            Some(_) | None => "the protocol takes back only thoughts that this model signed",
        };
        self.losses.drop(path(i), why);
    }

    /// What the model said, with signatures on the pieces they came with.
    fn model_parts(&mut self, i: usize, parts: &'r [Part<'a>], marks: &[Mark<'r>], said: &mut Vec<wire::Part<'r>>) {
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) if marks.is_empty() => said.extend(words(text)),
                Part::Text(text) | Part::Refusal(text) => signed(text, marks, said),
                Part::Image { .. } => self.losses.drop(part_path(i, "content", n), "the model says no pictures"),
                Part::Other { .. } => self.losses.drop(part_path(i, "content", n), "this protocol has no such part"),
            }
        }
    }

    fn call(&mut self, i: usize) -> Result<wire::Part<'r>, EncodeError> {
        let Some(Item::Call { call_id, tool, input }) = self.request.input.get(i) else {
            return Err(EncodeError::Unsupported { path: path(i), why: "is no call".into() });
        };
        let (args, whole) = arguments(tool.kind, input).map_err(cannot_write)?;
        if !whole {
            self.losses.approximate(path(i), "its arguments are no JSON object, so they are put into one");
        }
        let id = self.pairs.calls.get(&i).map(|(id, _)| id.clone().into_owned()).unwrap_or_default();
        let call = wire::FunctionCall { id, name: self.name(i), args };
        let thought_signature = self.signatures.remove(&**call_id);
        Ok(wire::Part { function_call: Some(call), thought_signature, ..wire::Part::default() })
    }

    fn name(&self, call: usize) -> String {
        match self.request.input.get(call) {
            Some(Item::Call { tool, .. }) => function_name(self.names.wire_name(tool).unwrap_or(&tool.name)),
            Some(_) | None => String::new(),
        }
    }

    /// One response for each call, in their order, and behind them the pictures that cannot stand inside.
    fn results(&mut self, calls: &[usize]) -> Vec<wire::Part<'r>> {
        let request = self.request;
        let mut results = Vec::with_capacity(calls.len());
        let mut behind = Vec::new();
        for i in calls {
            let Some((id, output)) = self.pairs.calls.get(i).cloned() else { continue };
            let output = output.and_then(|o| Some((o, request.input.get(o)?)));
            let (response, inside) = match output {
                Some((o, Item::Output { parts, .. })) => self.outcome(o, parts, &mut behind),
                Some(_) | None => {
                    self.losses.approximate(path(*i), "it has no result, so one is made up that says so");
                    (wire::Outcome::Error(NO_RESULT), Vec::new())
                }
            };
            let response = wire::FunctionResponse { id: id.into_owned(), name: self.name(*i), response, parts: inside };
            results.push(wire::Part { function_response: Some(response), ..wire::Part::default() });
        }
        if !behind.is_empty() {
            results.push(wire::Part::of_text(PICTURES));
            results.append(&mut behind);
        }
        results
    }

    /// A call's output as the response's text, with the pictures that stand inside it.
    fn outcome(
        &mut self,
        o: usize,
        parts: &'r [Part<'a>],
        behind: &mut Vec<wire::Part<'r>>,
    ) -> (wire::Outcome<'r>, Vec<wire::Part<'r>>) {
        if let [Part::Text(only)] = parts {
            return (wire::Outcome::Output(only.as_borrowed()), Vec::new());
        }
        let mut inside = Vec::new();
        let mut pieces: Vec<LazyText<'r>> = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate() {
            let piece = match part {
                Part::Text(text) | Part::Refusal(text) => text.as_borrowed(),
                Part::Image { url, .. } => LazyText::from(match self.picture(url) {
                    Ok(picture) if self.model.pictures_in_results && fits_inside(&picture) => {
                        inside.push(picture);
                        PICTURE_HERE
                    }
                    Ok(picture) => {
                        self.losses.approximate(part_path(o, "output", n), "shown behind the results");
                        behind.push(picture);
                        PICTURE_BELOW
                    }
                    Err(why) => {
                        self.losses.drop(part_path(o, "output", n), why);
                        NO_PICTURE
                    }
                }),
                Part::Other { .. } => {
                    self.losses.drop(part_path(o, "output", n), "this protocol has no such part");
                    continue;
                }
            };
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        (wire::Outcome::Output(LazyText::join(pieces, "\n")), inside)
    }
}

/// Text as a part; none for no text, which the service refuses.
fn words<'r>(text: &'r LazyText<'_>) -> Option<wire::Part<'r>> {
    (!text.is_empty()).then(|| wire::Part::of_text(text.as_borrowed()))
}

/// A message's text in the pieces that were signed and those that were not.
fn signed<'r>(text: &'r LazyText<'_>, marks: &[Mark<'r>], said: &mut Vec<wire::Part<'r>>) {
    let whole = text.read();
    let mut pieces = Vec::new();
    let mut at = 0;
    for mark in marks.iter().filter(|mark| mark.is_of(&whole)) {
        if mark.start < at {
            continue;
        }
        pieces.push((at, mark.start, None));
        pieces.push((mark.start, mark.end, Some(mark.sig.clone())));
        at = mark.end;
    }
    if pieces.is_empty() {
        said.extend(words(text));
        return;
    }
    pieces.push((at, whole.len(), None));
    for (start, end, signature) in pieces {
        if start == end && signature.is_none() {
            continue;
        }
        let piece = match &whole {
            Cow::Borrowed(whole) => Cow::Borrowed(whole.get(start..end).unwrap_or_default()),
            Cow::Owned(whole) => Cow::Owned(whole.get(start..end).unwrap_or_default().to_owned()),
        };
        said.push(wire::Part { thought_signature: signature, ..wire::Part::of_text(piece) });
    }
}

/// Type and content of a `data:` URL in base64.
fn data_url<'r>(url: &Cow<'r, str>) -> Option<(String, Cow<'r, str>)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mut fields = head.split(';');
    let mime_type = fields.next().unwrap_or_default().trim().to_owned();
    if !fields.any(|field| field.trim().eq_ignore_ascii_case("base64")) {
        return Some((mime_type, Cow::Borrowed("")));
    }
    let data = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[url.len() - data.len()..]),
        Cow::Owned(_) => Cow::Owned(data.to_owned()),
    };
    Some((mime_type, data))
}

fn type_by_ending(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let ending = path.rsplit('/').next()?.rsplit_once('.')?.1.to_ascii_lowercase();
    PICTURE_TYPES.iter().find(|(_, endings)| endings.contains(&&*ending)).map(|(name, _)| *name)
}

/// Whether a picture may stand inside a function's response.
fn fits_inside(picture: &wire::Part<'_>) -> bool {
    picture.inline_data.as_ref().is_some_and(|blob| PICTURE_TYPES_IN_RESULTS.contains(&&*blob.mime_type))
}
