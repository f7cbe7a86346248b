//! Hosts that refuse what the real services refuse, each in its own words, and otherwise say what they are told to say.
//!
//! Every protocol offers the same: `check` (may this request pass?), `say` (a step as the service streams it), `told` (what
//! of the conversation a request holds) and `spoilt` (requests made wrong on purpose, so that a test sees the checks work).
//! A rule stands here only if the service is known to have it; its source stands beside it.

pub mod chat;
pub mod gemini;
pub mod messages;
pub mod responses;

use super::upstream::{Recorded, Reply};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a model says in one step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it thinks.
    pub thought: String,
    /// What the service makes of the thoughts and wants back: a signature, or something encrypted.
    pub seal: String,
    /// What it says.
    pub text: &'static str,
    /// What it calls, side by side.
    pub calls: Vec<Call>,
}

/// A call.
#[derive(Debug, Clone)]
pub struct Call {
    /// In the shape of the service's ids.
    pub id: String,
    /// What is called.
    pub tool: Tool,
}

/// A tool of Codex, or of the MCP server `echo`.
#[derive(Debug, Clone, Copy)]
pub enum Tool {
    /// Runs a command.
    Exec(&'static str),
    /// Hears its text again.
    Echo(&'static str),
    /// Gets a picture.
    Pic,
    /// Changes files.
    Patch(&'static str),
}

impl Tool {
    /// How its name ends, whatever stands before it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec(_) => "exec_command",
            Self::Echo(_) => "echo_it",
            Self::Pic => "pic",
            Self::Patch(_) => "apply_patch",
        }
    }

    /// Its arguments, for services without custom tools.
    pub fn arguments(self) -> Value {
        match self {
            Self::Exec(command) => json!({"cmd": command}),
            Self::Echo(text) => json!({"text": text}),
            Self::Pic => json!({}),
            Self::Patch(patch) => json!({"input": patch}),
        }
    }

    /// The declared name that is this tool's: the test stops if there is none.
    fn declared(self, names: &[String]) -> String {
        let is = |name: &&String| **name == self.name() || name.ends_with(&format!("__{}", self.name()));
        names.iter().find(is).unwrap_or_else(|| panic!("no tool {}: {names:?}", self.name())).clone()
    }
}

/// A step that was given, and what it was the answer to.
#[derive(Debug, Clone)]
pub struct Given {
    /// The step.
    pub step: Step,
    /// The request's body.
    pub before: Value,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of the answer.
    pub status: u16,
    /// For programs, where the service has one.
    pub code: Option<&'static str>,
    /// For people.
    pub message: String,
}

/// Refuses with status 400.
fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status: 400, code: None, message: message.into() })
}

/// Something a request holds of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The user's words, or what stands in their place.
    User(String),
    /// A picture, wherever it stands.
    Picture,
    /// The model's words.
    Assistant(String),
    /// A call: how its tool is called in the end, and its input (a patch without its wrapping).
    Call(String, Value),
    /// What came of a call.
    Result(String),
}

impl Told {
    /// A call by its wire name and arguments.
    fn call(name: &str, arguments: &Value) -> Self {
        let end = name.rsplit("__").next().unwrap_or(name);
        let input = if end == "apply_patch" && arguments.is_object() { &arguments["input"] } else { arguments };
        Self::Call(end.to_owned(), input.clone())
    }
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// OpenAI's Responses API.
    OpenAi,
    /// OpenRouter's Chat Completions: thoughts come as `reasoning_details`.
    OpenRouter,
    /// DeepSeek's Chat Completions: thoughts come as `reasoning_content`, and pictures are refused.
    DeepSeek,
    /// Anthropic's Messages: a model that decides itself how much it thinks.
    Anthropic,
    /// The same with an older model, which is given tokens to think with.
    Haiku,
    /// Google's Gemini API.
    Google,
}

impl Vendor {
    /// Its name in the configuration, and that of its model for Codex.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::OpenRouter => "openrouter",
            Self::DeepSeek => "deepseek",
            Self::Anthropic => "anthropic",
            Self::Haiku => "haiku",
            Self::Google => "google",
        }
    }

    /// What it speaks.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::OpenAi => "responses",
            Self::OpenRouter | Self::DeepSeek => "chat",
            Self::Anthropic | Self::Haiku => "messages",
            Self::Google => "gemini",
        }
    }

    /// Its name of its model.
    pub fn model(self) -> &'static str {
        match self {
            Self::OpenAi => "gpt-5.4",
            Self::OpenRouter => "moonshotai/kimi-k3",
            Self::DeepSeek => "deepseek-v4-pro",
            Self::Anthropic => "claude-opus-5-5",
            Self::Haiku => "claude-haiku-4-5",
            Self::Google => "gemini-3.8-flash",
        }
    }

    /// Whether its model sees pictures.
    pub fn sees(self) -> bool {
        self != Self::DeepSeek
    }

    /// The provider and the model in the configuration of the proxy.
    pub fn config(self, address: std::net::SocketAddr) -> String {
        let (name, protocol, model, sees) = (self.name(), self.protocol(), self.model(), self.sees());
        let path = if self == Self::Google { "" } else { "/v1" };
        let dialect = match self {
            Self::OpenRouter => "dialect = \"openrouter\"\n",
            Self::DeepSeek => "dialect = \"deepseek\"\n",
            Self::OpenAi | Self::Anthropic | Self::Haiku | Self::Google => "",
        };
        format!(
            "[providers.{name}]\nprotocol = \"{protocol}\"\nbase_url = \"http://{address}{path}\"\n\
             key = {{ env = \"UP_KEY\" }}\n{dialect}images = {sees}\n[models.{name}]\nroutes = [\"{name}/{model}\"]\n"
        )
    }

    /// The n-th id of a call, as the service makes them.
    pub fn call_id(self, n: usize) -> String {
        match self {
            Self::OpenAi => format!("call_{n:0>24}"),
            // As Kimi's templates make them, which no other service's rules allow.
            Self::OpenRouter => format!("functions.tool:{n}"),
            Self::DeepSeek => format!("call_00_{n:0>20}"),
            Self::Anthropic | Self::Haiku => format!("toolu_01{n:0>22}"),
            Self::Google => format!("fc{n:0>6}"),
        }
    }

    /// Whether a request may pass, given what was said before.
    pub fn check(self, body: &Value, given: &[Given]) -> Result<(), Refusal> {
        match self {
            Self::OpenAi => responses::check(body, given),
            Self::OpenRouter | Self::DeepSeek => chat::check(self, body, given),
            Self::Anthropic | Self::Haiku => messages::check(self, body, given),
            Self::Google => gemini::check(body, given),
        }
    }

    /// A step as the service streams it, in answer to that request.
    fn say(self, body: &Value, step: &Step) -> Reply {
        match self {
            Self::OpenAi => responses::say(body, step),
            Self::OpenRouter | Self::DeepSeek => chat::say(self, body, step),
            Self::Anthropic | Self::Haiku => messages::say(body, step),
            Self::Google => gemini::say(body, step),
        }
    }

    /// What a request holds of the conversation, in order; instructions at the front are left out.
    pub fn told(self, body: &Value) -> Vec<Told> {
        match self {
            Self::OpenAi => responses::told(body),
            Self::OpenRouter | Self::DeepSeek => chat::told(body),
            Self::Anthropic | Self::Haiku => messages::told(body),
            Self::Google => gemini::told(body),
        }
    }

    /// The request made wrong in ways that must be refused, by what is wrong.
    pub fn spoilt(self, body: &Value) -> Vec<(&'static str, Value)> {
        match self {
            Self::OpenAi => responses::spoilt(body),
            Self::OpenRouter | Self::DeepSeek => chat::spoilt(self, body),
            Self::Anthropic | Self::Haiku => messages::spoilt(self, body),
            Self::Google => gemini::spoilt(body),
        }
    }

    fn refused(self, refusal: &Refusal) -> Reply {
        let (status, message) = (refusal.status, &refusal.message);
        let body = match self {
            Self::OpenAi => json!({"error": {"message": message, "type": "invalid_request_error", "param": "input",
                "code": refusal.code}}),
            Self::OpenRouter | Self::DeepSeek => json!({"error": {"message": message, "type": "invalid_request_error",
                "param": null, "code": refusal.code.unwrap_or("invalid_request_error")}}),
            Self::Anthropic | Self::Haiku => super::messages::error("invalid_request_error", message),
            Self::Google => super::gemini::error(status, "INVALID_ARGUMENT", message),
        };
        Reply::json(status, &body)
    }
}

/// A service at work: it remembers what it said.
#[derive(Debug)]
pub struct Host {
    /// Which one.
    pub vendor: Vendor,
    /// What it has said.
    pub given: Vec<Given>,
    /// What it has refused.
    pub refusals: Vec<Refusal>,
}

impl Host {
    /// One that has said nothing.
    pub fn new(vendor: Vendor) -> Self {
        Self { vendor, given: Vec::new(), refusals: Vec::new() }
    }

    /// Refuses the request, or answers it with the step.
    pub fn answer(&mut self, request: &Recorded, step: Step) -> Reply {
        if let Err(refusal) = self.vendor.check(&request.json, &self.given) {
            let reply = self.vendor.refused(&refusal);
            self.refusals.push(refusal);
            return reply;
        }
        let reply = self.vendor.say(&request.json, &step);
        self.given.push(Given { step, before: request.json.clone() });
        reply
    }
}

/// The elements of an array; none for anything else.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty for anything else.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The first key of an object that is none of these words.
fn stranger<'v>(value: &'v Value, known: &str) -> Option<&'v str> {
    value.as_object()?.keys().map(String::as_str).find(|key| !known.split_whitespace().any(|known| known == *key))
}

/// Whether a name is of letters, digits, `_` and `-` only, and not too long.
fn is_name(name: &str, chars_max: usize) -> bool {
    !name.is_empty()
        && name.len() <= chars_max
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The first of the names that was there before.
fn repeated<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// The body with one change.
fn with(body: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut body = body.clone();
    change(&mut body);
    body
}
