//! `codex-proxyctl providers test`: one step after the other from the name to a tool call, and at the first that fails
//! what to do.
//!
//! The list of models is asked for by the proxy's own client. The answers go the whole way of a request: a proxy of our
//! own listens on a free loopback port for as long as the test lasts, with this one provider and without retries.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::{CtlError, Outcome, doctor, json_line, lines};
use super::remedy;
use crate::codec::listing::Listing;
use crate::codec::seal::Sealer;
use crate::config::Settings;
use crate::config::credentials::{KeyError, KeySource, Secret, Surroundings};
use crate::config::settings::{Account, Provider};
use crate::host::log::chain;
use crate::host::manager::Manager;
use crate::host::paths::Paths;
use crate::host::secretfile::Secret32;
use crate::model::failure::{Failure, FailureKind};
use crate::model::listed::Listed;
use crate::proxy::service::{Prompt, Service};
use crate::proxy::upstream::Upstreams;
use crate::proxy::{listing, serve};

/// To find the address, and to connect.
const HOP_LIMIT: Duration = Duration::from_secs(5);
/// For one answer: a local server may have to load the model first.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Enough for models that think first.
const OUTPUT_TOKENS: u32 = 1024;
/// What is asked for is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It may be no fault.
    Warn,
    Failed,
    Skipped,
}

#[derive(Debug, Clone, Serialize)]
struct Step {
    /// `address`, `connection`, `key`, `tls`, `models`, `answer`, `tools`.
    id: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do; empty if nothing.
    mend: String,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    provider: &'a str,
    steps: &'a [Step],
}

/// What `test` is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The provider.
    pub name: String,
    /// The model's id there, for the answers; one that the configuration uses, or the only one listed, if not given.
    pub model: Option<String>,
    /// Ask for no answer, which would cost a few tokens.
    pub free: bool,
    /// For programs.
    pub json: bool,
}

/// Tests a provider; the exit code is 1 if a step failed. `say` gets each step for people when it is done.
pub async fn test(options: &Options, paths: &Paths, say: &mut dyn FnMut(&str)) -> Result<Outcome, CtlError> {
    let settings = super::settings(paths)?;
    let provider = super::named(&settings, &options.name)?.clone();
    let mut trial = Trial { steps: Vec::new(), say, silent: options.json };
    trial.run(options, &settings, &provider).await?;
    let steps = trial.steps;
    let ok = steps.iter().all(|step| step.verdict != Verdict::Failed);
    let text = if options.json {
        json_line(&Report { ok, provider: &provider.name, steps: &steps })?
    } else if ok && options.free {
        let lists = steps.iter().any(|step| step.id == "models" && step.verdict == Verdict::Ok);
        let what = if lists { "lists models" } else { "can be reached" };
        lines(&[format!("{} {what}; nothing was asked of it", provider.name)])
    } else if ok {
        lines(&[format!("{} works", provider.name)])
    } else {
        String::new()
    };
    Ok(Outcome { text, code: u8::from(!ok) })
}

struct Trial<'a> {
    steps: Vec<Step>,
    say: &'a mut dyn FnMut(&str),
    silent: bool,
}

impl Trial<'_> {
    fn note(&mut self, id: &'static str, verdict: Verdict, found: impl Into<String>, mend: impl Into<String>) {
        let step = Step { id, verdict, found: found.into(), mend: mend.into() };
        if !self.silent {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Failed => "failed",
                Verdict::Skipped => "skipped",
            };
            (self.say)(&format!("{word:<7}  {id}: {}", step.found));
            if !step.mend.is_empty() {
                (self.say)(&format!("         → {}", step.mend));
            }
        }
        self.steps.push(step);
    }

    fn ok(&mut self, id: &'static str, found: impl Into<String>) {
        self.note(id, Verdict::Ok, found, "");
    }

    fn failed(&mut self, id: &'static str, found: impl Into<String>, mend: impl Into<String>) {
        self.note(id, Verdict::Failed, found, mend);
    }

    fn skipped(&mut self, ids: &[&'static str], why: &str) {
        for id in ids {
            self.note(id, Verdict::Skipped, why, "");
        }
    }

    /// Each step notes itself; one that fails notes those that cannot be tried without it.
    async fn run(&mut self, options: &Options, settings: &Settings, provider: &Provider) -> Result<(), CtlError> {
        if !self.network(provider).await {
            self.skipped(&["key", "tls", "models", "answer", "tools"], "not reached");
            return Ok(());
        }
        let Some((account, key)) = self.key(provider).await else {
            self.skipped(&["tls", "models", "answer", "tools"], "not without the key");
            return Ok(());
        };
        let upstreams = Upstreams::new(settings.proxy.connect_timeout);
        let listed = listing::ask(&upstreams, provider, key.as_ref(), &Surroundings::from_env()).await;
        if !self.tls(provider, &listed) {
            self.skipped(&["models", "answer", "tools"], "not without a connection");
            return Ok(());
        }
        let Some(models) = self.models(options, provider, listed) else {
            self.skipped(&["answer", "tools"], "not before that is mended");
            return Ok(());
        };
        if options.free {
            self.skipped(&["answer", "tools"], "not asked for");
            return Ok(());
        }
        let Some(model) = model(options, settings, provider, &models) else {
            self.skipped(&["answer", "tools"], "which model? name one with --model");
            return Ok(());
        };
        let proxy = OwnProxy::start(settings, provider, account).await?;
        let answered = self.answer(&proxy, provider, &model).await;
        if answered {
            self.tools(&proxy, provider, &model).await;
        } else {
            self.skipped(&["tools"], "not without an answer");
        }
        proxy.stop().await;
        Ok(())
    }

    /// The name and the connection, unless something in between makes them.
    async fn network(&mut self, provider: &Provider) -> bool {
        let url = &provider.base_url;
        if let Some(variable) = doctor::proxy_variable().filter(|_| !provider.is_loopback()) {
            let why = format!("left to the proxy that {variable} names");
            self.skipped(&["address", "connection"], &why);
            return true;
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or_default();
        let network = "check base_url, and whether this machine is online";
        let found = tokio::time::timeout(HOP_LIMIT, tokio::net::lookup_host((host, port))).await;
        let addresses: Vec<_> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                self.failed("address", format!("the name {host} cannot be resolved: {error}"), network);
                self.skipped(&["connection"], "not without an address");
                return false;
            }
            Err(_) => {
                let why = format!("the name {host} was not resolved within {} s", HOP_LIMIT.as_secs());
                self.failed("address", why, network);
                self.skipped(&["connection"], "not without an address");
                return false;
            }
        };
        let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        self.ok("address", format!("{host} is {}", shown.join(", ")));
        let mend = if provider.is_loopback() { "start the server, or check the port in base_url" } else { network };
        match tokio::time::timeout(HOP_LIMIT, tokio::net::TcpStream::connect(&addresses[..])).await {
            Ok(Ok(_)) => {
                self.ok("connection", format!("port {port} takes connections"));
                true
            }
            Ok(Err(error)) => {
                self.failed("connection", format!("port {port} takes no connection: {error}"), mend);
                false
            }
            Err(_) => {
                let why = format!("port {port} takes no connection within {} s", HOP_LIMIT.as_secs());
                self.failed("connection", why, mend);
                false
            }
        }
    }

    /// The first account in use and its key. `None`: there is none to be had.
    async fn key(&mut self, provider: &Provider) -> Option<(Option<Account>, Option<Secret>)> {
        let Some(account) = provider.accounts.iter().find(|account| account.enabled) else {
            if provider.accounts.is_empty() {
                self.skipped(&["key"], "none is configured");
                return Some((None, None));
            }
            self.failed("key", "every account is switched off", "enabled = true for one of them");
            return None;
        };
        match account.key.resolve(&Surroundings::from_env()).await {
            Ok(key) => {
                self.ok("key", format!("{} gives one", account.key));
                Some((Some(account.clone()), Some(key)))
            }
            Err(KeyError::NoDirectory(KeySource::Credential(_), _)) => {
                let why = format!("{} is given to the service alone", account.key);
                self.note("key", Verdict::Skipped, why, "what follows can be tested with a key file only");
                None
            }
            Err(error) => {
                self.failed("key", chain(&error), remedy::of_key(&error));
                None
            }
        }
    }

    fn tls(&mut self, provider: &Provider, listed: &Result<Vec<Listed>, Failure>) -> bool {
        if provider.base_url.scheme() != "https" {
            self.skipped(&["tls"], "http:// has none");
            return true;
        }
        match listed {
            Err(failure) if failure.upstream_status.is_none() && provider.listing != Listing::None => {
                match failure.kind {
                    // Their own words say what to do.
                    FailureKind::Tls | FailureKind::Certificate => {
                        self.failed("tls", failure.message.as_str(), "");
                        false
                    }
                    FailureKind::Connection | FailureKind::NameResolution | FailureKind::Timeout => {
                        self.failed("tls", failure.message.as_str(), "check the network, and the proxy variables");
                        false
                    }
                    _ => {
                        self.ok("tls", "a trusted session");
                        true
                    }
                }
            }
            _ => {
                self.ok("tls", "a trusted session");
                true
            }
        }
    }

    /// The models; none if the provider does not list them. `None`: there is no use in going on.
    fn models(
        &mut self,
        options: &Options,
        provider: &Provider,
        listed: Result<Vec<Listed>, Failure>,
    ) -> Option<Vec<Listed>> {
        match listed {
            Ok(models) => {
                let is_listed = |id: &str| models.iter().any(|model| provider.listing.is_same(&model.id, id));
                let missing = options.model.as_ref().filter(|id| !is_listed(id));
                match missing {
                    Some(id) => self.note(
                        "models",
                        Verdict::Ok,
                        format!("{} of them, and {id} is not among them", models.len()),
                        "if the answer fails: codex-proxyctl models refresh, then models list, shows their ids",
                    ),
                    None => self.ok("models", format!("{} of them", models.len())),
                }
                Some(models)
            }
            Err(failure) if matches!(failure.upstream_status, Some(404 | 405 | 501)) => {
                let longer = remedy::longer_address(provider).filter(|_| provider.listing != Listing::None);
                match longer {
                    Some(longer) => self.note(
                        "models",
                        Verdict::Warn,
                        format!("no list of models at {}", provider.models_url()),
                        format!("base_url has no path; if the answer fails, try {longer:?}"),
                    ),
                    None => self.skipped(&["models"], &format!("{} has no list of models", provider.name)),
                }
                Some(Vec::new())
            }
            Err(failure) => {
                let mend = remedy::of(failure.kind, failure.upstream_status.is_some(), provider);
                self.failed("models", failure.message, mend);
                None
            }
        }
    }

    async fn answer(&mut self, proxy: &OwnProxy, provider: &Provider, model: &str) -> bool {
        let ask = "Reply with the single word: ready";
        match proxy.ask(&provider.name, model, ask, &[]).await {
            Ok(items) if items.iter().any(|item| item["type"] == "message" || item["type"] == "reasoning") => {
                self.ok("answer", format!("{model} answers (this cost a few tokens)"));
                true
            }
            Ok(_) => {
                self.failed("answer", format!("{model} answers with nothing"), "try another model");
                false
            }
            Err(refusal) => {
                let mend = refusal.kind.map_or_else(
                    || "try again, or another model with --model".to_owned(),
                    |kind| remedy::of(kind, true, provider),
                );
                self.failed("answer", refusal.message, mend);
                false
            }
        }
    }

    async fn tools(&mut self, proxy: &OwnProxy, provider: &Provider, model: &str) {
        let tool = json!({
            "type": "function",
            "name": "report",
            "description": "Takes a report.",
            "strict": false,
            "parameters": {
                "type": "object",
                "properties": { "word": { "type": "string", "description": "The word to report." } },
                "required": ["word"],
                "additionalProperties": false,
            },
        });
        let ask = "Call the tool `report` with the word \"ready\". Do not answer in words.";
        match proxy.ask(&provider.name, model, ask, &[tool]).await {
            Ok(items) if items.iter().any(|item| item["type"] == "function_call" && item["name"] == "report") => {
                self.ok("tools", format!("{model} calls tools"));
            }
            Ok(_) => self.failed(
                "tools",
                format!("{model} answered without calling the tool it was told to call"),
                "Codex works by tools: take another model, or serve this one with a chat template for tools",
            ),
            // It answered without tools just now, so what it refuses are these.
            Err(refusal) => match refusal.kind {
                Some(kind @ (FailureKind::RateLimit | FailureKind::Overload | FailureKind::Budget)) => {
                    self.failed("tools", refusal.message, remedy::of(kind, true, provider));
                }
                _ => self.failed("tools", refusal.message, "the model or its server may not know tools: take another"),
            },
        }
    }
}

/// Whom to ask: who was named, whom the configuration uses, or the only one there is.
fn model(options: &Options, settings: &Settings, provider: &Provider, listed: &[Listed]) -> Option<String> {
    let routes = || settings.models.values().flat_map(|model| &model.routes);
    let configured = || routes().find(|route| route.provider == provider.name).map(|route| route.model.clone());
    let only = || match listed {
        [only] => Some(only.id.clone()),
        _ => None,
    };
    options.model.clone().or_else(configured).or_else(only)
}

/// A proxy within this program, for one provider.
struct OwnProxy {
    http: reqwest::Client,
    url: String,
    /// Known to nobody else, and of no use afterwards.
    token: String,
    stop: mpsc::Sender<()>,
    running: tokio::task::JoinHandle<()>,
    /// What it would log is said by the steps.
    _quiet: tracing::subscriber::DefaultGuard,
}

impl OwnProxy {
    async fn start(settings: &Settings, provider: &Provider, account: Option<Account>) -> Result<Self, CtlError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| CtlError::Unforeseen(format!("{what}: {error}"));
        let quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::new());
        let mut own = Settings { proxy: settings.proxy.clone(), known: settings.known.clone(), ..Settings::default() };
        let provider =
            Provider { accounts: account.into_iter().collect(), upstream_idle: Some(ANSWER_LIMIT), ..provider.clone() };
        own.providers.insert(provider.name.clone(), provider);
        own.proxy.retry_deadline = Duration::ZERO;
        own.proxy.upstream_head = Some(ANSWER_LIMIT);
        // So long a true status stays possible.
        own.proxy.head_hold = ANSWER_LIMIT;
        let secret = || Secret32::random().map_err(|error| failed("no random numbers", &error));
        let token = secret()?;
        let presented = token.reveal().to_owned();
        let prompt = Prompt { base_instructions: String::new(), hidden_models: Vec::new() };
        let service = Service::new(own, Some(token), Sealer::new(secret()?.bytes()), &prompt);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| failed("no port", &error))?;
        let address = listener.local_addr().map_err(|error| failed("no port", &error))?;
        let (stop, stopped) = mpsc::channel(2);
        let running = tokio::spawn(serve::serve(Arc::new(service), listener, stopped, Manager::none()));
        let http = super::super::client::loopback(ANSWER_LIMIT).map_err(CtlError::Unforeseen)?;
        Ok(Self { http, url: format!("http://{address}/v1/responses"), token: presented, stop, running, _quiet: quiet })
    }

    /// The items of the answer.
    async fn ask(&self, provider: &str, model: &str, text: &str, tools: &[Value]) -> Result<Vec<Value>, Refusal> {
        let body = json!({
            "model": format!("{provider}/{model}"),
            "stream": true,
            "store": false,
            "max_output_tokens": OUTPUT_TOKENS,
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
            "tools": tools,
            "tool_choice": "auto",
        });
        let asking = async {
            let request = self.http.post(&self.url).bearer_auth(&self.token).body(body.to_string());
            let request = request.header("content-type", "application/json");
            let mut answer = request.send().await.map_err(|error| Refusal::of(chain(&error)))?;
            let status = answer.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| Refusal::of(chain(&error)))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > ANSWER_BYTES_MAX {
                    return Err(Refusal::of(format!("the answer does not end within {ANSWER_BYTES_MAX} bytes")));
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            if status.is_success() { items(&text) } else { Err(refusal(&text)) }
        };
        let slow = |_| Err(Refusal::of(format!("no whole answer within {} s", ANSWER_LIMIT.as_secs())));
        tokio::time::timeout(ANSWER_LIMIT, asking).await.unwrap_or_else(slow)
    }

    async fn stop(self) {
        // Twice: nothing is to be waited for.
        for _ in 0..2 {
            let _ = self.stop.try_send(());
        }
        let _ = tokio::time::timeout(HOP_LIMIT, self.running).await;
    }
}

/// Why there is no answer.
#[derive(Debug)]
struct Refusal {
    /// As our own proxy has it; `None`: it did not say.
    kind: Option<FailureKind>,
    message: String,
}

impl Refusal {
    fn of(message: String) -> Self {
        Self { kind: None, message }
    }
}

/// The items of a stream of our own proxy, or why it failed.
fn items(text: &str) -> Result<Vec<Value>, Refusal> {
    let mut items = Vec::new();
    for line in text.lines() {
        let Some(event) = line.strip_prefix("data:") else { continue };
        let Ok(mut event) = serde_json::from_str::<Value>(event) else { continue };
        match event["type"].as_str() {
            Some("response.output_item.done") => items.push(event["item"].take()),
            Some("response.failed") => {
                let message = event["response"]["error"]["message"].as_str().unwrap_or_default();
                return Err(Refusal::of(format!("the answer breaks off: {message}")));
            }
            Some("response.completed" | "response.incomplete") => return Ok(items),
            _ => {}
        }
    }
    Err(Refusal::of("the answer has no end".to_owned()))
}

/// An error of our own proxy.
fn refusal(text: &str) -> Refusal {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let code = body["error"]["code"].as_str();
    let kind = FailureKind::ALL.into_iter().find(|kind| Some(kind.row().code) == code);
    Refusal { kind, message: body["error"]["message"].as_str().unwrap_or(text).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_to_their_end() {
        let item = "data: {\"type\":\"response.output_item.done\",\"item\":{\"type\":\"message\"}}\n\n";
        assert_eq!(items(&format!("{item}data: {{\"type\":\"response.completed\"}}\n\n")).unwrap().len(), 1);
        assert!(items(item).unwrap_err().message.contains("no end"));
        let failed = "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"message\":\"gone\"}}}\n\n";
        assert!(items(failed).unwrap_err().message.contains("gone"));
        let refused = refusal(r#"{"error":{"code":"upstream_credentials","message":"no"}}"#);
        assert_eq!((refused.kind, refused.message.as_str()), (Some(FailureKind::Credentials), "no"));
    }
}
