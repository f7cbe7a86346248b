//! An HTTP client of the running proxy: real requests over loopback, with the token.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;

use super::CtlError;
use super::token::{self, Stranger};
use crate::host::log::chain;
use crate::host::secretfile::Secret32;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A client of the proxy on one port of 127.0.0.1.
pub struct ProxyClient {
    http: Client,
    base: String,
    token: Secret32,
}

impl ProxyClient {
    /// Makes sure the port is ours, waiting up to `wait` for a listener, and takes the token.
    ///
    /// `silence_max` bounds the time between two pieces of an answer.
    pub fn new(port: u16, state_dir: &Path, wait: Duration, silence_max: Duration) -> Result<Self, CtlError> {
        let token = token::for_port(port, state_dir, wait, Stranger::Refuse)?;
        let http = loopback(silence_max).map_err(CtlError::Unforeseen)?;
        Ok(Self { http, base: format!("http://127.0.0.1:{port}/v1"), token })
    }

    /// Posts a Responses request and gives the answer's head; anything but 200 is an error with the proxy's words.
    pub async fn post_responses(&self, body: Vec<u8>) -> Result<Response, CtlError> {
        let request = self
            .http
            .post(format!("{}/responses", self.base))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(body);
        self.send(request).await
    }

    /// The models of the proxy's catalogue, in its order.
    pub async fn models(&self) -> Result<Vec<String>, CtlError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Model>,
        }
        #[derive(Deserialize)]
        struct Model {
            id: String,
        }
        let answer = self.send(self.http.get(format!("{}/models", self.base))).await?;
        let body = answer.bytes().await.map_err(|error| broken(&error))?;
        let list: List = serde_json::from_slice(&body)
            .map_err(|error| CtlError::Unforeseen(format!("the proxy's list of models cannot be read: {error}")))?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CtlError> {
        let answer = request.bearer_auth(self.token.reveal()).send().await.map_err(|error| broken(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        let words = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|body| body.get("error")?.get("message")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| String::from_utf8_lossy(&body).chars().take(300).collect());
        Err(CtlError::Unforeseen(format!("the proxy answers {status}: {words}")))
    }
}

pub(super) fn loopback(silence_max: Duration) -> Result<Client, String> {
    // An error says that one was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        // Loopback must not go through a proxy of the environment, nor need certificates.
        .no_proxy()
        .tls_certs_only([])
        .http1_only()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(silence_max)
        .user_agent(concat!("codex-proxyctl/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))
}

/// The page `/health` of whoever listens on the port; no token is sent.
///
/// # Errors
/// A sentence: no answer within `limit`, or none that is JSON.
pub async fn health(port: u16, limit: Duration) -> Result<serde_json::Value, String> {
    let ask = async {
        let answer = loopback(limit)?.get(format!("http://127.0.0.1:{port}/health")).send().await;
        let answer = answer.map_err(|error| chain(&error))?;
        let body = answer.bytes().await.map_err(|error| chain(&error))?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    };
    tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

/// An error of the connection, with the causes that say what is wrong.
pub(crate) fn broken(error: &reqwest::Error) -> CtlError {
    CtlError::Unforeseen(format!("the connection to the proxy failed: {}", chain(error)))
}
