//! Asks a provider which models it has. What it answers is read by `codec/listing.rs`.
//!
//! It costs nothing anywhere. No exchange does this: `codex-proxyctl` does, and `reload.rs` for local servers.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use super::upstream::{Answer, Upstreams};
use crate::{
    codec::{
        error,
        listing::{self, Listing, NoList, Page},
    },
    config::{
        base_url,
        credentials::{Secret, Surroundings},
        settings::{HeaderSource, Provider},
    },
    host::log::chain,
    model::{
        failure::{Failure, FailureKind},
        listed::Listed,
    },
};

/// For one answer; a slow network needs a name, a connection and a handshake in it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// For everything that one provider is asked.
pub const TIME_MAX: Duration = Duration::from_secs(60);
/// Parts of a list; each has up to a thousand models.
const PAGES_MAX: usize = 20;
/// Models of a local server that are asked for one by one.
const SHOWN_MAX: usize = 300;
/// What Anthropic demands of every request.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// The provider's models, asked with that key.
///
/// # Errors
/// Whatever keeps it from answering, in words; [`FailureKind::Upstream`] with status 404 if it has no list.
pub async fn ask(
    upstreams: &Upstreams,
    provider: &Provider,
    key: Option<&Secret>,
    surroundings: &Surroundings,
) -> Result<Vec<Listed>, Failure> {
    let asking = async {
        let asker = Asker { upstreams, provider, headers: headers(provider, key, surroundings).await? };
        asker.list().await
    };
    tokio::time::timeout(TIME_MAX, asking).await.unwrap_or_else(|_| {
        let message = format!("{} did not list its models within {} s.", provider.name, TIME_MAX.as_secs());
        Err(Failure::new(FailureKind::Timeout, message))
    })
}

/// [`ask`] with the first key that can be had.
///
/// # Errors
/// As [`ask`], in words; or why no key can be had.
pub async fn ask_with_first_key(upstreams: &Upstreams, provider: &Provider) -> Result<Vec<Listed>, String> {
    let surroundings = Surroundings::from_env();
    let mut key = None;
    let mut missing = None;
    for account in provider.accounts.iter().filter(|account| account.enabled) {
        match account.key.resolve(&surroundings).await {
            Ok(found) => {
                key = Some(found);
                break;
            }
            Err(error) => missing = missing.or_else(|| Some(chain(&error))),
        }
    }
    match (key, missing) {
        (None, Some(why)) => Err(why),
        (key, _) => ask(upstreams, provider, key.as_ref(), &surroundings).await.map_err(|failure| failure.message),
    }
}

/// What such a request carries: the configured headers, and the key where this provider looks for it.
///
/// # Errors
/// A header's value cannot be had, or cannot stand in a header.
pub async fn headers(
    provider: &Provider,
    key: Option<&Secret>,
    surroundings: &Surroundings,
) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity"));
    let mut put = |name: &HeaderName, text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            let message =
                format!("The header {name} of provider {} has characters that a header cannot have.", provider.name);
            Failure::new(FailureKind::Operator, message)
        })?;
        value.set_sensitive(true);
        headers.insert(name.clone(), value);
        Ok(())
    };
    for (name, value) in &provider.headers {
        let value = match value {
            HeaderSource::Literal(value) => value.clone(),
            HeaderSource::Key(source) => source.resolve(surroundings).await.map_err(|error| {
                let message =
                    format!("The header {name} of provider {} has no value: {}.", provider.name, chain(&error));
                Failure::new(FailureKind::Operator, message)
            })?,
        };
        put(name, value.expose())?;
    }
    if provider.listing == Listing::Anthropic {
        put(&HeaderName::from_static("anthropic-version"), ANTHROPIC_VERSION)?;
    }
    if let Some(key) = key {
        match provider.listing {
            Listing::Anthropic => put(&HeaderName::from_static("x-api-key"), key.expose())?,
            Listing::Gemini => put(&HeaderName::from_static("x-goog-api-key"), key.expose())?,
            Listing::OpenAi
            | Listing::Vllm
            | Listing::Ollama
            | Listing::LmStudio
            | Listing::LlamaCpp
            | Listing::None => {
                put(&header::AUTHORIZATION, &format!("Bearer {}", key.expose()))?;
            }
        }
    }
    Ok(headers)
}

struct Asker<'a> {
    upstreams: &'a Upstreams,
    provider: &'a Provider,
    headers: HeaderMap,
}

impl Asker<'_> {
    async fn list(&self) -> Result<Vec<Listed>, Failure> {
        let native = match self.provider.listing {
            Listing::OpenAi | Listing::Vllm => return self.openai().await,
            Listing::Anthropic => return self.pages(listing::anthropic, "limit", "after_id").await,
            Listing::Gemini => return self.pages(listing::gemini, "pageSize", "pageToken").await,
            Listing::None => {
                let message = format!("{} has no list of models.", self.provider.name);
                return Err(Failure::new(FailureKind::Upstream, message).with_status(404));
            }
            Listing::Ollama => self.ollama().await,
            Listing::LmStudio => {
                let body = self.get(&self.beside("/api/v0/models")).await;
                body.and_then(|body| listing::lm_studio(&body).map_err(|error| self.no_list(error)))
            }
            Listing::LlamaCpp => self.llama().await,
        };
        match native {
            // An older version, or something in between that passes on the compatible face alone.
            Err(failure) if matches!(failure.upstream_status, Some(404 | 405 | 501)) => self.openai().await,
            native => native,
        }
    }

    async fn openai(&self) -> Result<Vec<Listed>, Failure> {
        let body = self.get(&self.provider.models_url()).await?;
        listing::openai(&body).map_err(|error| self.no_list(error))
    }

    async fn pages(
        &self,
        read: fn(&[u8]) -> Result<Page, NoList>,
        size: &str,
        cursor: &str,
    ) -> Result<Vec<Listed>, Failure> {
        let mut models = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut url = self.provider.models_url();
            url.query_pairs_mut().append_pair(size, "1000");
            if let Some(next) = &next {
                url.query_pairs_mut().append_pair(cursor, next);
            }
            let page = read(&self.get(&url).await?).map_err(|error| self.no_list(error))?;
            models.extend(page.models);
            if page.next.is_none() || page.next == next {
                break;
            }
            next = page.next;
        }
        Ok(models)
    }

    async fn ollama(&self) -> Result<Vec<Listed>, Failure> {
        let tags = self.get(&self.beside("/api/tags")).await?;
        let names = listing::ollama_tags(&tags).map_err(|error| self.no_list(error))?;
        let loaded = match self.get(&self.beside("/api/ps")).await {
            Ok(body) => listing::ollama_loaded(&body),
            // Older versions do not say.
            Err(_) => Default::default(),
        };
        let show = self.beside("/api/show");
        let mut models = Vec::new();
        for id in names.into_iter().take(SHOWN_MAX) {
            let body = serde_json::json!({ "model": id }).to_string();
            let shown =
                self.read(self.upstreams.send(&show, self.headers.clone(), body.into(), ANSWER_TIME_MAX).await?);
            // One that cannot be shown is on the list all the same.
            let facts = shown.await.ok().and_then(|body| listing::ollama_show(&body, loaded.get(&id).copied()).ok());
            models.push(Listed { id, title: None, facts: facts.unwrap_or_default() });
        }
        Ok(models)
    }

    async fn llama(&self) -> Result<Vec<Listed>, Failure> {
        let mut models = self.openai().await?;
        if let [only] = models.as_mut_slice()
            && let Ok(body) = self.get(&self.beside("/props")).await
            && let Ok(facts) = listing::llama_props(&body)
        {
            only.facts = facts.or(only.facts);
        }
        Ok(models)
    }

    /// An address of the server beside its `/v1`.
    fn beside(&self, path: &str) -> Url {
        base_url::beside(&self.provider.base_url, path)
    }

    async fn get(&self, url: &Url) -> Result<Bytes, Failure> {
        self.read(self.upstreams.get(url, self.headers.clone(), ANSWER_TIME_MAX).await?).await
    }

    async fn read(&self, mut answer: Answer) -> Result<Bytes, Failure> {
        if !answer.status.is_success() {
            let status = answer.status.as_u16();
            let wait = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = answer.error_body().await;
            let failure = error::decode_error(status, wait.as_deref(), &body, SystemTime::now());
            return Err(failure.with_status(status));
        }
        match tokio::time::timeout(ANSWER_TIME_MAX, answer.whole()).await {
            Ok(body) => Ok(Bytes::from(body?)),
            Err(_) => {
                let message =
                    format!("{} did not finish its answer within {} s.", answer.host(), ANSWER_TIME_MAX.as_secs());
                Err(Failure::new(FailureKind::Timeout, message))
            }
        }
    }

    fn no_list(&self, error: NoList) -> Failure {
        let host = self.provider.base_url.host_str().unwrap_or_default();
        Failure::new(FailureKind::Upstream, format!("{host} answers, but {error}. A wrong base_url?"))
    }
}
