//! Listeners, connections, the HTTP surface, and an orderly stop.
//!
//! Everything that is decided before a body is read is decided here: is the caller local and known, does the path
//! exist, is it built. What has a life of its own is `POST /v1/responses` and `/v1/responses/compact`, see
//! [`super::exchange`].

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    body::discard,
    exchange::exchange,
    health::{Queues, memory_bytes},
    path::{is_exchange, normalise},
    reply::{self, Answer, ReplyBody, Turns},
    service::{Service, State},
};
use crate::{codec::responses::error::encode_error, host::manager::Manager};

/// A client may take this long over its request's head; a connection that is idle for so long is closed. Longer than
/// clients keep idle connections (90 s), so that it is the client who closes and no request meets a closing door.
const HEAD_TIME_MAX: Duration = Duration::from_secs(300);
/// After the last word, connections get this long to take it.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// What the kernel takes of an answer that its client does not read, in bytes; it reserves twice as much. Left to itself
/// it takes megabytes, and all of that text stays in our memory too, since the end of an answer repeats it.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Most of a request's head, and of its body that is read at once. Larger steps are not faster, and a connection keeps
/// the last one's buffer while its answer streams.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Pause after a failed accept: descriptors run out for a moment, not for good.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `stop` says something (or is closed), then lets what is under way finish within
/// `proxy.drain_s`, ends the rest with a retryable failure, and returns when all connections are closed. A second word
/// ends the wait.
///
/// Tells `manager` that it serves, and goes on telling it: from here, because this is the path that serves.
pub async fn serve(service: Arc<Service>, listener: TcpListener, mut stop: mpsc::Receiver<()>, manager: Manager) {
    let mut connections = JoinSet::new();
    let mut alive = manager.keepalive().map(tokio::time::interval);
    let mut state = service.state();
    manager.ready(&service.status_line());
    loop {
        tokio::select! {
            biased;
            _ = stop.recv() => break,
            () = tick(&mut alive) => manager.alive(),
            Ok(()) = state.changed() => manager.status(&service.status_line()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let service = Arc::clone(&service);
                    let draining = service.draining();
                    connections.spawn(connection(stream, draining, move |request, turns| {
                        respond(Arc::clone(&service), request, turns)
                    }));
                }
                Err(error) => {
                    warn!(codex_error = %error, "cannot accept a connection, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    // Closes our end only: a socket that the manager holds goes on taking connections for the next run.
    drop(listener);
    service.begin_draining();
    let drain = service.live().settings.proxy.drain;
    manager.stopping(drain + 2 * CLOSE_TIME_MAX);
    info!(codex_active = service.counters().active(), codex_drain_s = drain.as_secs_f32(), "stopping");
    {
        let mut all = std::pin::pin!(async { while connections.join_next().await.is_some() {} });
        let drained = tokio::select! {
            drained = timeout(drain, &mut all) => drained.is_ok(),
            Some(()) = stop.recv() => false,
        };
        if !drained {
            service.begin_closing();
            if timeout(CLOSE_TIME_MAX, &mut all).await.is_err() {
                warn!("some connections did not take their last bytes");
            }
        }
    }
    // Here and now, so that whoever goes on has what their exchanges left behind.
    connections.shutdown().await;
}

/// The next tick, or never.
async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Serves one connection; once `draining` is true it ends after the answer under way.
pub(super) async fn connection<F>(
    stream: TcpStream,
    mut draining: watch::Receiver<bool>,
    respond: impl Fn(Request<Incoming>, Turns) -> F,
) where
    F: Future<Output = Answer>,
{
    if let Err(error) = stream.set_nodelay(true) {
        debug!(codex_error = %error, "cannot switch off Nagle's algorithm, keeping it");
    }
    if let Err(error) = setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER_BYTES) {
        debug!(codex_error = %error, "cannot bound the kernel's buffer for answers");
    }
    let turns = Turns::default();
    let respond = service_fn(|request| {
        let answer = respond(request, turns.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(READ_BUFFER_BYTES)
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), respond);
    let mut connection = std::pin::pin!(connection);
    let asked_to_stop = async {
        // An error means that the service itself is gone: then it is time to stop as well.
        drop(draining.wait_for(|draining| *draining).await);
    };
    let mut asked_to_stop = std::pin::pin!(asked_to_stop);
    let mut asked = false;
    let result = poll_fn(|cx| {
        turns.begin();
        if !asked && asked_to_stop.as_mut().poll(cx).is_ready() {
            asked = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        // Clients leave in mid-answer all the time; who cares about one finds it here.
        debug!(codex_error = %error, "a connection ended early");
    }
}

/// Paths of the Responses API and its neighbours that are known and not built, with what to do instead.
const UNBUILT: [(&str, &str); 16] = [
    ("/responses/input_tokens", "Token counting is not built."),
    ("/chat/completions", "This proxy answers the Responses API; chat clients can call the provider directly."),
    ("/completions", "Use POST /v1/responses."),
    ("/messages", "Use POST /v1/responses."),
    ("/embeddings", "Embeddings are not built."),
    ("/images", "Image generation and editing are not built."),
    ("/audio", "Audio is not built."),
    ("/realtime", "Realtime sessions are not built."),
    ("/files", "File storage is not built; send content inline."),
    ("/vector_stores", "Vector stores are not built."),
    ("/conversations", "Stored conversations are not built; send the whole history in `input`."),
    ("/moderations", "Moderation is not built."),
    ("/alpha", "Search and other OpenAI-only services are not built."),
    ("/memories", "Remote memories are not built."),
    ("/monitoring", "The monitoring page is not built; see /metrics."),
    ("/accounts", "The account page is not built; see the configuration file."),
];

/// Answers one request.
async fn respond(service: Arc<Service>, mut request: Request<Incoming>, turns: Turns) -> Answer {
    let request_id = service.new_request_id();
    let Some(answer) = answer_by_head(&service, &request, &request_id) else {
        return reply::answer(turns, |reply| exchange(service, request, request_id, reply)).await;
    };
    // Who expects to be told to go on has not sent a body, and is not told.
    if !request.headers().contains_key(header::EXPECT) {
        let announced = request.body().size_hint().exact();
        discard(request.body_mut(), announced).await;
    }
    answer
}

/// The answer to everything that needs no body read; `None`: it is for the exchange.
fn answer_by_head(service: &Service, request: &Request<Incoming>, request_id: &str) -> Option<Answer> {
    let refuse = |status: StatusCode, code: &str, message: &str| {
        debug!(codex_request_id = request_id, codex_status = status.as_u16(), codex_code = code, "request refused");
        error_answer(status, code, message, request_id)
    };
    if let Err(message) = check_origin(request.headers(), request.uri().host()) {
        return Some(refuse(StatusCode::FORBIDDEN, "forbidden_origin", &message));
    }
    let full = request.uri().path().to_owned();
    let path = normalise(&full);
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if path == "/health" {
        return Some(match method {
            Method::GET => json_answer(StatusCode::OK, service.health(memory_bytes()), request_id),
            _ => not_allowed(&full, "GET", request_id),
        });
    }
    let config_error = match &*service.state().borrow() {
        State::ConfigError(text) => Some(text.clone()),
        State::Ready | State::Degraded(_) | State::Stopping => None,
    };
    // Without a token that can be read nobody can show it; what is answered then is what everybody may know.
    let known = service.knows(request.headers().get(header::AUTHORIZATION)) || !service.has_token();
    if let Some(text) = config_error.filter(|_| known && is_exchange(path) && method == Method::POST) {
        return Some(refuse(StatusCode::BAD_REQUEST, "configuration_error", &text));
    }
    if !known {
        let mut answer = refuse(
            StatusCode::UNAUTHORIZED,
            "invalid_token",
            "A bearer token is required: `codex-proxyctl token --port PORT` prints it, and `codex-proxyctl setup` \
             teaches Codex to ask for it.",
        );
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Some(answer);
    }
    // Others may be ignored (RFC 9110 §7.8): Java's client offers h2c with every request and takes HTTP/1.1 as well.
    let upgrades = request.headers().get_all(header::UPGRADE).iter();
    if upgrades.filter_map(|value| value.to_str().ok()).any(|value| value.to_ascii_lowercase().contains("websocket")) {
        // 426 makes the client fall back to HTTP at once and in silence; other statuses cost it seven attempts.
        return Some(refuse(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_not_supported",
            "WebSocket is not supported; use plain HTTP.",
        ));
    }
    Some(match path {
        path if is_exchange(path) => match method {
            Method::POST => return None,
            _ => not_allowed(&full, "POST", request_id),
        },
        "/models" => match method {
            Method::GET => models(service, request.headers(), request_id),
            _ => not_allowed(&full, "GET", request_id),
        },
        "/metrics" => match method {
            Method::GET => {
                let queues = Queues {
                    signals_dropped: service.reports().dropped(),
                    usage_written: service.ledger().written(),
                    usage_dropped: service.ledger().dropped(),
                };
                let page = service.counters().metrics(service.uptime(), memory_bytes(), &queues);
                let mut answer = whole(StatusCode::OK, page.into(), request_id);
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
            _ => not_allowed(&full, "GET", request_id),
        },
        _ => {
            let known = UNBUILT.iter().find(|(prefix, _)| {
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            match known {
                Some((_, instead)) => {
                    refuse(StatusCode::NOT_IMPLEMENTED, "not_implemented", &format!("`{full}`: {instead}"))
                }
                None if path.starts_with("/responses/") => refuse(
                    StatusCode::NOT_FOUND,
                    "response_not_found",
                    &format!(
                        "`{full}`: a stored response can be continued (`previous_response_id`), and not be read or deleted."
                    ),
                ),
                None => refuse(
                    StatusCode::NOT_FOUND,
                    "path_not_found",
                    &format!(
                        "`{full}` does not exist; there are POST /v1/responses, POST /v1/responses/compact, GET \
                         /v1/models, GET /health and GET /metrics."
                    ),
                ),
            }
        }
    })
}

pub(super) fn models(service: &Service, headers: &HeaderMap, request_id: &str) -> Answer {
    let live = service.live();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|v| *v == live.models_etag);
    let (status, body) =
        if known { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, live.models_body.clone()) };
    let mut answer = json_answer(status, body, request_id);
    answer.headers_mut().insert(header::ETAG, live.models_etag.clone());
    answer.headers_mut().insert(HeaderName::from_static("x-models-etag"), live.models_etag.clone());
    answer
}

/// Refuses what a page in a browser could send: a foreign `Host` (DNS rebinding) or a foreign `Origin`.
pub(super) fn check_origin(headers: &HeaderMap, uri_host: Option<&str>) -> Result<(), String> {
    for host in headers.get_all(header::HOST) {
        let host = host.to_str().unwrap_or("?");
        if !is_loopback_authority(host) {
            return Err(format!("`Host: {host}` is not this machine; use 127.0.0.1 or localhost."));
        }
    }
    if uri_host.is_some_and(|host| !is_loopback_authority(host)) {
        return Err("This is no forward proxy; request a path.".to_owned());
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        let ours = origin.strip_prefix("http://").is_some_and(is_loopback_authority)
            && headers.get(header::HOST).is_some_and(|host| origin.as_bytes().ends_with(host.as_bytes()));
        if !ours {
            return Err(format!("Requests from the web page {origin} are refused."));
        }
    }
    Ok(())
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port.
fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if port.is_empty() || port.starts_with(':') => host,
            _ => return false,
        },
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn not_allowed(path: &str, allowed: &'static str, request_id: &str) -> Answer {
    let message = format!("`{path}` takes {allowed} only.");
    let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message, request_id);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn error_answer(status: StatusCode, code: &str, message: &str, request_id: &str) -> Answer {
    json_answer(status, encode_error("invalid_request_error", code, message, None, request_id).into(), request_id)
}

pub(super) fn json_answer(status: StatusCode, body: Bytes, request_id: &str) -> Answer {
    let mut answer = whole(status, body, request_id);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn whole(status: StatusCode, body: Bytes, request_id: &str) -> Answer {
    let mut answer = Response::new(ReplyBody::Whole(Some(body)));
    *answer.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(HeaderName::from_static("x-request-id"), value);
    }
    answer
}

/// Binds a loopback address. Anything else is refused: the token protects against other users of this machine, not
/// against a network.
pub async fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let message = format!("{address} is not a loopback address; use 127.0.0.1:PORT or [::1]:PORT");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served() {
        for good in ["127.0.0.1:8459", "localhost", "LOCALHOST:1", "127.9.9.9", "[::1]:8459", "[::1]"] {
            assert!(is_loopback_authority(good), "{good}");
        }
        for bad in ["example.org", "127.0.0.1.example.org", "10.0.0.1:80", "[::2]", "[::1]x", "", "localhost.evil"] {
            assert!(!is_loopback_authority(bad), "{bad}");
        }
    }

    #[test]
    fn pages_are_refused_and_programs_are_not() {
        let headers = |pairs: &[(HeaderName, &'static str)]| {
            HeaderMap::from_iter(pairs.iter().map(|(k, v)| (k.clone(), HeaderValue::from_static(v))))
        };
        let host = (header::HOST, "127.0.0.1:8459");
        let origin = |from| (header::ORIGIN, from);
        assert!(check_origin(&headers(std::slice::from_ref(&host)), None).is_ok());
        assert!(check_origin(&headers(&[host.clone(), origin("http://127.0.0.1:8459")]), None).is_ok());
        for bad in ["https://example.org", "null", "http://127.0.0.1:1", "https://127.0.0.1:8459"] {
            assert!(check_origin(&headers(&[host.clone(), origin(bad)]), None).is_err(), "{bad}");
        }
        assert!(check_origin(&headers(&[(header::HOST, "evil.example:8459")]), None).is_err());
    }
}
