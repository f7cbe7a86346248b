//! ONE request from first byte to last: start reading here.
//!
//! ```text
//!  read body ► decode_request ► route::choose ─┬► demo ──────────────────────────────────► events ┐
//!                                              └► encode_request ► send ► frames ► decoder ► events ┼► encoder ► reply
//!                                                   ▲   nothing forwarded yet: retry, next place   │
//!                                                   └──────────────────────────────────────────────┘
//! ```
//! The head of the answer is held until the first item opens, or for `head_hold_s`, so that a true status, a retry
//! and another place stay possible. After the first forwarded item nothing is tried again: what breaks then is told in
//! the stream. Whatever happens, the client gets exactly one end.

use std::{
    future::Future,
    mem,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::{
    body::{self, BodyError},
    health::Outcome,
    reply::{LastWords, Reply},
    retry::{self, Next, Progress},
    route::{self, Choice, Hop},
    service::{Live, Service},
    upstream::Answer,
};
use crate::{
    codec::{
        DecodeError, chat, demo,
        responses::{
            error::{encode_error, encode_failure},
            request::{InvalidRequest, decode_request},
            stream::{Ended, Identity, StreamEncoder, encode_failed},
        },
        sse::Framer,
    },
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind, Level},
        request::{Item, Loss, Request as ModelRequest},
    },
};

/// Serves `POST /v1/responses`.
pub async fn exchange(service: Arc<Service>, request: Request<Incoming>, request_id: String, reply: Reply) {
    let live = service.live();
    let mut story = Story::new(Arc::clone(&service), &request_id);
    let (parts, incoming) = request.into_parts();
    let mut line = Line::new(&service, &live, reply, request_id);

    let limits = live.body_limits();
    let whole = match line.during(body::read(&parts.headers, incoming, &limits)).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(error)) => return line.refuse_body(&error, &mut story),
        Err(failure) => return line.fail(failure, &mut story),
    };
    let decoded = match decode_request(&whole.bytes, service.sealer()) {
        Ok(decoded) => decoded,
        Err(invalid) => return line.refuse(&invalid, &mut story),
    };
    let request = decoded.request;
    story.asked(&request, &decoded.losses);
    if let Some(invalid) = not_here(&request) {
        return line.refuse(&invalid, &mut story);
    }
    let choice = match route::choose(&live.settings, &request.model) {
        Ok(choice) => choice,
        Err(error) => return line.fail(Failure::new(FailureKind::UnknownModel, error.to_string()), &mut story),
    };
    line.begin(&request, decoded.echo, service.sealer());

    let hops = match choice {
        Choice::Demo => {
            line.forward(demo::answer(&request), &mut story);
            return line.finish(&mut story);
        }
        Choice::Routes(hops) => hops,
    };
    let mut source = match begin(&service, &live, &mut line, &hops, &request, &mut story).await {
        Ok(source) => source,
        Err(failure) => return line.fail(failure, &mut story),
    };
    // From here on nothing is tried again, so the request itself is not needed any more.
    drop(request);
    drop(whole);

    loop {
        line.forward(mem::take(&mut source.events), &mut story);
        if line.ended() {
            break;
        }
        source.read(&mut line).await;
        line.room().await;
    }
    line.finish(&mut story);
    service.counters().skipped(source.skipped);
    source.drain().await;
}

/// What no provider behind this program can do, and what the client should do instead.
fn not_here(request: &ModelRequest<'_>) -> Option<InvalidRequest> {
    if let Some(id) = &request.previous_response_id {
        return Some(InvalidRequest {
            param: Some("previous_response_id".to_owned()),
            message: format!("The response {id:?} is not stored here; send the whole history in `input`."),
            code: Some("previous_response_not_found"),
        });
    }
    let at = request.input.iter().position(|item| matches!(item, Item::CompactionTrigger))?;
    Some(InvalidRequest {
        param: Some(format!("input[{at}]")),
        message: "Compaction by the provider is not available here; let the client write the summary itself (in \
                  Codex: do not name the provider \"OpenAI\")."
            .to_owned(),
        code: Some("unsupported_parameter"),
    })
}

/// Sends the request to one place after another until an answer has begun, waiting between rounds.
async fn begin(
    service: &Service,
    live: &Live,
    line: &mut Line,
    hops: &[Hop],
    request: &ModelRequest<'_>,
    story: &mut Story,
) -> Result<Source, Failure> {
    let mut rounds = 1;
    let mut round: Vec<&Hop> = hops.iter().collect();
    let mut at = 0;
    let mut keys_read_anew = 0;
    // Of this round: places that may do better later, and the last failure of one of them.
    let mut again = Vec::new();
    let mut hopeful = None;
    loop {
        let hop = round[at];
        story.tries(hop);
        let failure = match attempt(service, live, line, hop, request, story).await {
            Ok(source) => return Ok(source),
            Err(failure) => failure,
        };
        story.attempt_failed(hop, &failure);
        if failure.kind == FailureKind::Credentials && keys_read_anew < hops.len() {
            keys_read_anew += 1;
            if line.during(live.key_changed(hop)).await? {
                continue;
            }
        }
        let elsewhere = at + 1 < round.len();
        let failure = if failure.row().attempts_max > 1 {
            again.push(hop);
            sooner(hopeful.take(), failure)
        } else if elsewhere {
            failure
        } else {
            // A place that cannot do better does not end the wait for one that can.
            hopeful.take().unwrap_or(failure)
        };
        let progress = Progress {
            rounds,
            elsewhere,
            elapsed: story.began.elapsed(),
            deadline: live.settings.proxy.retry_deadline,
            jitter: service.random_fraction(),
        };
        match retry::next(&failure, progress) {
            Next::Elsewhere => {
                hopeful = hopeful.or_else(|| (failure.row().attempts_max > 1).then_some(failure));
                at += 1;
            }
            Next::Again(pause) => {
                line.during(sleep(pause)).await?;
                rounds += 1;
                round = mem::take(&mut again);
                at = 0;
            }
            Next::GiveUp => return Err(failure),
        }
    }
}

/// Sends the request to one place and reads until the answer has begun: its first item for a stream, its end for a
/// client that wants one object.
async fn attempt(
    service: &Service,
    live: &Live,
    line: &mut Line,
    hop: &Hop,
    request: &ModelRequest<'_>,
    story: &mut Story,
) -> Result<Source, Failure> {
    let headers = line.during(live.provider_headers(hop)).await??;
    let secrets = Secrets::of(&headers);
    let encoded = chat::encode_request(request, &hop.target).map_err(|error| {
        Failure::new(FailureKind::Caller, format!("{} cannot be asked this: {error}.", hop.label()))
    })?;
    story.lost(&encoded.losses);
    service.counters().attempt();
    let body = Bytes::from(encoded.body);
    let input_bytes = body.len() as u64;
    let head_time_max = live.head_time_max(request.input.len(), !request.tools.is_empty());
    let sending = live.upstreams.send(&hop.url, headers, body, head_time_max);
    let mut answer = line.during(sending).await?.map_err(|failure| named(failure, hop.label()))?;
    if !answer.status.is_success() {
        let status = answer.status.as_u16();
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = line.during(answer.error_body()).await?;
        let failure = chat::decode_error(status, retry_after.as_deref(), &body, SystemTime::now());
        return Err(named(secrets.hide(failure), hop.label()));
    }
    let decoder = chat::StreamDecoder::new(&hop.target, encoded.names, &line.identity.stem, input_bytes);
    let mut source = Source {
        answer: Some(answer),
        framer: Framer::default(),
        decoder: Some(decoder),
        events: Vec::new(),
        idle: hop.idle,
        form: Form::Unknown,
        skipped: 0,
        label: hop.label().to_owned(),
        secrets,
    };
    let mut looked_at = 0;
    loop {
        source.read(line).await;
        while let Some(event) = source.events.get(looked_at) {
            looked_at += 1;
            match event {
                Event::ItemOpen { .. } if line.streaming => return Ok(source),
                Event::End(End::Failed(failure)) => return Err(failure.clone()),
                Event::End(_) => return Ok(source),
                _ => {}
            }
        }
    }
}

/// Of two failures that waiting can mend, the one that is over first.
fn sooner(before: Option<Failure>, now: Failure) -> Failure {
    match before {
        Some(before) if before.retry_after.is_some() && before.retry_after < now.retry_after => before,
        Some(_) | None => now,
    }
}

/// Says who failed: with several places behind one model the client's user could not know.
fn named(failure: Failure, label: &str) -> Failure {
    Failure { message: format!("{label}: {}", failure.message), ..failure }
}

/// The upstream half: bytes become frames become events.
struct Source {
    answer: Option<Answer>,
    framer: Framer,
    decoder: Option<chat::StreamDecoder>,
    /// What was decoded and not yet forwarded.
    events: Vec<Event>,
    idle: Duration,
    form: Form,
    skipped: u64,
    label: String,
    secrets: Secrets,
}

/// What was sent in confidence, so that it is not shown when the provider quotes it.
struct Secrets(Vec<String>);

impl Secrets {
    /// Shorter values are words or numbers of a configured header, and no keys.
    const BYTES_MIN: usize = 12;

    fn of(headers: &HeaderMap) -> Self {
        let values = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        let secrets = values.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        Self(secrets.filter(|secret| secret.len() >= Self::BYTES_MIN).map(str::to_owned).collect())
    }

    fn hide(&self, mut failure: Failure) -> Failure {
        for secret in &self.0 {
            if failure.message.contains(secret) {
                failure.message = failure.message.replace(secret, "***");
            }
        }
        failure
    }
}

/// What the body turned out to be.
enum Form {
    /// Nothing seen yet.
    Unknown,
    /// Server-sent events.
    Frames,
    /// Something else, gathered until its end.
    Whole(Vec<u8>),
}

/// An answer that is no stream may be this large.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Once the host has said how the answer ended, only its usage is waited for: some never close the stream.
const AFTER_END_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that may be read after the answer's end, so that the connection can serve the next request.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(20);

impl Source {
    /// Reads once and decodes what came. After the end of the input, or a failure, `events` ends with the one end.
    async fn read(&mut self, line: &mut Line) {
        let Some(answer) = &mut self.answer else {
            return self.finish(None);
        };
        let over = self.decoder.as_ref().is_some_and(chat::StreamDecoder::end_announced);
        let idle = if over { self.idle.min(AFTER_END_TIME_MAX) } else { self.idle };
        let chunk = match line.during(timeout(idle, answer.next())).await {
            Ok(Ok(Ok(chunk))) => chunk,
            Ok(Ok(Err(failure))) | Err(failure) => return self.finish(Some(failure)),
            Ok(Err(_)) => {
                let message = format!("{} sent nothing for {} s.", answer.host(), self.idle.as_secs_f32());
                return self.finish(Some(Failure::new(FailureKind::Timeout, message)));
            }
        };
        match chunk {
            Some(bytes) => self.take(&bytes),
            None => self.end_of_input(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Form::Unknown = self.form {
            let Some(first) = bytes.iter().find(|b| !b.is_ascii_whitespace()) else { return };
            self.form = if matches!(first, b'{' | b'[' | b'<') { Form::Whole(Vec::new()) } else { Form::Frames };
        }
        if let Form::Whole(gathered) = &mut self.form {
            if gathered.len() + bytes.len() > WHOLE_BYTES_MAX {
                let error = DecodeError::TooLarge { what: "an answer that is no stream", bytes_max: WHOLE_BYTES_MAX };
                return self.broken(error);
            }
            gathered.extend_from_slice(bytes);
            return;
        }
        let Self { framer, decoder: Some(decoder), events, .. } = self else { return };
        match framer.feed(bytes, |frame| decoder.feed(&frame, events)) {
            Ok(()) if decoder.done() => self.finish(None),
            Ok(()) => {}
            Err(error) => self.broken(error),
        }
    }

    fn end_of_input(&mut self) {
        let Self { framer, decoder: Some(decoder), events, form, .. } = self else { return };
        let result = match form {
            Form::Whole(bytes) => decoder.feed_whole(bytes, events),
            Form::Unknown | Form::Frames => mem::take(framer).finish(|frame| decoder.feed(&frame, events)),
        };
        self.answer = None;
        match result {
            Ok(()) => self.finish(None),
            Err(error) => self.broken(error),
        }
    }

    fn broken(&mut self, error: DecodeError) {
        let failure = match error {
            DecodeError::Upstream(failure) => failure,
            DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
                Failure::new(FailureKind::Upstream, format!("The answer cannot be read: {error}."))
            }
        };
        self.finish(Some(failure));
    }

    /// The end of the input: whatever comes of it, `events` ends with the one end.
    fn finish(&mut self, cut: Option<Failure>) {
        if cut.is_some() {
            self.answer = None;
        }
        match self.decoder.take() {
            Some(decoder) => {
                self.skipped = decoder.skipped();
                decoder.finish(cut, &mut self.events);
            }
            None => {
                let message = "The answer was over and its end was not told.";
                let failure = cut.unwrap_or_else(|| Failure::new(FailureKind::Bug, message));
                self.events.push(Event::End(End::Failed(failure)));
            }
        }
        if let Some(Event::End(End::Failed(failure))) = self.events.last_mut()
            && failure.kind != FailureKind::Shutdown
        {
            *failure = named(self.secrets.hide(failure.clone()), &self.label);
        }
    }

    /// Reads what still comes after the answer's end, so that the connection is reused.
    async fn drain(self) {
        let Some(mut answer) = self.answer else { return };
        let rest = async { while let Ok(Some(_)) = answer.next().await {} };
        // If it takes longer, a new connection is cheaper than the wait.
        drop(timeout(DRAIN_TIME_MAX, rest).await);
    }
}

/// The downstream half: the head's timing, keep-alives, events out.
struct Line {
    reply: Reply,
    identity: Identity,
    request_id: String,
    encoder: Option<StreamEncoder>,
    streaming: bool,
    head_hold: Duration,
    keepalive: Duration,
    /// When the head goes out, or the next keep-alive after it.
    pulse_at: Instant,
    closing: tokio::sync::watch::Receiver<bool>,
    models_etag: HeaderValue,
    out: Vec<u8>,
}

impl Line {
    fn new(service: &Service, live: &Live, reply: Reply, request_id: String) -> Self {
        let created_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let stem = request_id.trim_start_matches("req_").to_owned();
        let identity = Identity { stem, nonce: service.random_bytes(), created_at, model: String::new() };
        let line = Self {
            reply,
            identity,
            request_id,
            encoder: None,
            streaming: false,
            head_hold: live.settings.proxy.head_hold,
            keepalive: live.settings.proxy.keepalive,
            pulse_at: Instant::now() + live.settings.proxy.head_hold,
            closing: service.closing(),
            models_etag: live.models_etag.clone(),
            out: Vec::new(),
        };
        line.set_last_words();
        line
    }

    /// Prepares to answer `request`; the clock of the held head starts.
    fn begin(
        &mut self,
        request: &ModelRequest<'_>,
        echo: crate::codec::responses::stream::Echo,
        sealer: &crate::codec::seal::Sealer,
    ) {
        self.identity.model = request.model.clone().into_owned();
        self.streaming = request.stream;
        self.pulse_at = Instant::now() + self.head_hold;
        self.set_last_words();
        self.encoder = Some(StreamEncoder::new(self.identity.clone(), echo, sealer.clone(), request.stream));
    }

    fn set_last_words(&self) {
        let message = format!("A defect in codex-proxy ended this request; please report it with {}.", self.request_id);
        let failure = Failure::new(FailureKind::Bug, message);
        let identity = self.identity.clone();
        self.reply.set_last_words(LastWords {
            status: status_of(&failure),
            headers: self.headers("application/json"),
            body: Bytes::from(encode_failure(&failure, &self.request_id)),
            tail: Box::new(move |sequence| encode_failed(&identity, sequence, &failure)),
        });
    }

    /// Waits for `future`; meanwhile lets the held head go when its time has come, and keeps the stream alive. Fails
    /// only when this program is stopping.
    async fn during<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        let mut closing = self.closing.clone();
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                () = sleep_until(self.pulse_at), if self.streaming => self.pulse(),
                _ = closing.wait_for(|closing| *closing) => {
                    let message = "codex-proxy is stopping; the request can be sent again.";
                    return Err(Failure::new(FailureKind::Shutdown, message));
                }
            }
        }
    }

    fn pulse(&mut self) {
        let begun = self.reply.has_head();
        self.open_head();
        if let Some(encoder) = &mut self.encoder {
            if begun {
                encoder.keepalive(&mut self.out);
            } else {
                encoder.start(&mut self.out);
            }
        }
        self.pulse_at = Instant::now() + self.keepalive;
        self.flush();
    }

    /// Writes what the facts mean to the client.
    fn forward(&mut self, events: Vec<Event>, story: &mut Story) {
        let Some(encoder) = &mut self.encoder else { return };
        for event in events {
            if let Event::ItemOpen { .. } = event {
                story.first_event();
            }
            encoder.push(event, &mut self.out);
        }
        if self.streaming && encoder.sequence() > 0 {
            self.open_head();
            self.flush();
        }
    }

    fn open_head(&mut self) {
        if !self.reply.has_head() {
            let mut headers = self.headers("text/event-stream");
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(HeaderName::from_static("x-models-etag"), self.models_etag.clone());
            self.reply.head(StatusCode::OK, headers);
        }
    }

    fn flush(&mut self) {
        if self.out.is_empty() {
            // Nothing was said, so the next keep-alive is due as it was.
            return;
        }
        let sequence = self.encoder.as_ref().map_or(0, StreamEncoder::sequence);
        self.reply.write_events(&self.out, sequence);
        self.out.clear();
        self.pulse_at = Instant::now() + self.keepalive;
    }

    async fn room(&mut self) {
        self.reply.room().await;
    }

    fn ended(&self) -> bool {
        self.encoder.as_ref().is_some_and(|encoder| encoder.ended().is_some())
    }

    /// The end was forwarded: what is left is the one object for a client that does not stream, and the record.
    fn finish(&mut self, story: &mut Story) {
        let Some(encoder) = self.encoder.take() else { return };
        let outcome = match encoder.ended() {
            Some(Ended::Completed) => Outcome::Completed,
            Some(Ended::Incomplete(_)) => Outcome::Incomplete,
            Some(Ended::Failed(failure)) => {
                let failure = failure.clone();
                if self.streaming {
                    return story.failed(&failure);
                }
                return self.fail(failure, story);
            }
            None => return self.fail(Failure::new(FailureKind::Bug, "The answer has no end."), story),
        };
        let usage = encoder.usage();
        if !self.streaming {
            self.reply.head(StatusCode::OK, self.headers("application/json"));
            self.reply.write(&encoder.into_response());
        }
        story.finished(outcome, usage.as_ref());
    }

    /// Tells a failure: as an HTTP status while the head is ours, as `response.failed` after it.
    fn fail(&mut self, failure: Failure, story: &mut Story) {
        story.failed(&failure);
        match &mut self.encoder {
            Some(encoder) if self.reply.has_head() => {
                encoder.push(Event::End(End::Failed(failure)), &mut self.out);
                self.flush();
            }
            Some(_) | None => {
                let mut headers = self.headers("application/json");
                if let Some(seconds) = failure.retry_after_s() {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                self.reply.head(status_of(&failure), headers);
                self.reply.write(&encode_failure(&failure, &self.request_id));
            }
        }
    }

    /// Refuses a request for what it says.
    fn refuse(&mut self, invalid: &InvalidRequest, story: &mut Story) {
        story.refused(FailureKind::Caller, invalid.param.as_deref());
        let row = FailureKind::Caller.row();
        let (param, code) = (invalid.param.as_deref(), invalid.code.unwrap_or(row.code));
        let body = encode_error(row.error_type, code, &invalid.message, param, &self.request_id);
        self.reply.head(StatusCode::BAD_REQUEST, self.headers("application/json"));
        self.reply.write(&body);
    }

    /// Refuses a request whose body did not come as it should.
    fn refuse_body(&mut self, error: &BodyError, story: &mut Story) {
        let (status, code, message) = match error {
            // 400, because the client would send a 413 again five times.
            BodyError::TooLarge { bytes_max } => (
                StatusCode::BAD_REQUEST,
                "request_too_large",
                format!(
                    "The request body is larger than {bytes_max} bytes (`proxy.body_bytes_max`). Start a new thread, \
                     send fewer or smaller images, or raise the limit."
                ),
            ),
            BodyError::Stalled { stall } => (
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                format!("Nothing of the request body came for {} s.", stall.as_secs_f32()),
            ),
            BodyError::Encoding { name } => (
                StatusCode::BAD_REQUEST,
                "unsupported_encoding",
                format!("`content-encoding: {name:?}` is not read here; send zstd, gzip or nothing."),
            ),
            BodyError::Corrupt { encoding, source } => (
                StatusCode::BAD_REQUEST,
                "invalid_encoding",
                format!("The request body is not the {encoding} it claims to be: {source}."),
            ),
            BodyError::Broken(_) => {
                (StatusCode::BAD_REQUEST, "request_broken", "The request body broke off.".to_owned())
            }
        };
        story.refused(FailureKind::Caller, Some("body"));
        let mut headers = self.headers("application/json");
        // What is left of the body is not a request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        self.reply.head(status, headers);
        let body = encode_error(FailureKind::Caller.row().error_type, code, &message, None, &self.request_id);
        self.reply.write(&body);
    }

    fn headers(&self, content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Made of hexadecimal digits.
        if let Ok(value) = HeaderValue::from_str(&self.request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), value);
        }
        headers
    }
}

fn status_of(failure: &Failure) -> StatusCode {
    StatusCode::from_u16(failure.row().status).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// What will be said about this request in counters and log, whichever way it ends: dropped with the exchange when the
/// client goes away.
struct Story {
    service: Arc<Service>,
    request_id: String,
    began: Instant,
    first_event_after: Option<Duration>,
    model: String,
    route: String,
    attempts: u32,
    told: bool,
}

impl Story {
    fn new(service: Arc<Service>, request_id: &str) -> Self {
        service.counters().began();
        Self {
            service,
            request_id: request_id.to_owned(),
            began: Instant::now(),
            first_event_after: None,
            model: String::new(),
            route: String::new(),
            attempts: 0,
            told: false,
        }
    }

    fn asked(&mut self, request: &ModelRequest<'_>, losses: &[Loss]) {
        self.model = request.model.clone().into_owned();
        self.lost(losses);
    }

    fn tries(&mut self, hop: &Hop) {
        self.attempts += 1;
        self.route = hop.label().to_owned();
    }

    fn lost(&self, losses: &[Loss]) {
        self.service.counters().lost(losses.len());
        for loss in losses {
            debug!(
                codex_request_id = self.request_id,
                codex_path = loss.path,
                codex_action = ?loss.action,
                codex_why = loss.why,
                "part of the request could not pass"
            );
        }
    }

    fn attempt_failed(&self, hop: &Hop, failure: &Failure) {
        self.service.counters().attempt_failed(failure.kind);
        debug!(
            codex_request_id = self.request_id,
            codex_route = hop.label(),
            codex_kind = failure.row().code,
            codex_status = failure.upstream_status,
            codex_elapsed_ms = ms(self.began.elapsed()),
            "an attempt failed"
        );
    }

    fn first_event(&mut self) {
        if self.first_event_after.is_none() {
            let after = self.began.elapsed();
            self.first_event_after = Some(after);
            self.service.counters().first_event(after);
        }
    }

    fn refused(&mut self, kind: FailureKind, param: Option<&str>) {
        self.told = true;
        self.service.counters().ended(Outcome::Failed(kind));
        info!(codex_request_id = self.request_id, codex_param = param, "request refused");
    }

    fn failed(&mut self, failure: &Failure) {
        if self.told {
            return;
        }
        self.told = true;
        self.service.counters().ended(Outcome::Failed(failure.kind));
        macro_rules! tell {
            ($level:ident) => {
                $level!(
                    codex_request_id = self.request_id,
                    codex_model = self.model,
                    codex_route = self.route,
                    codex_kind = failure.row().code,
                    codex_status = failure.upstream_status,
                    codex_attempts = self.attempts,
                    codex_elapsed_ms = ms(self.began.elapsed()),
                    "request failed"
                )
            };
        }
        match failure.row().level {
            Level::Error => tracing::error!(
                codex_request_id = self.request_id,
                codex_model = self.model,
                codex_route = self.route,
                codex_kind = failure.row().code,
                codex_status = failure.upstream_status,
                codex_attempts = self.attempts,
                codex_elapsed_ms = ms(self.began.elapsed()),
                "request failed"
            ),
            Level::Warn => tell!(warn),
            Level::Info => tell!(info),
        }
    }

    fn finished(&mut self, outcome: Outcome, usage: Option<&crate::model::usage::Usage>) {
        self.told = true;
        self.service.counters().ended(outcome);
        if let Some(usage) = usage {
            self.service.counters().used(usage);
        }
        info!(
            codex_request_id = self.request_id,
            codex_model = self.model,
            codex_route = self.route,
            codex_attempts = self.attempts,
            codex_complete = outcome == Outcome::Completed,
            codex_first_ms = self.first_event_after.map(ms),
            codex_elapsed_ms = ms(self.began.elapsed()),
            codex_input_tokens = usage.map(|u| u.input),
            codex_output_tokens = usage.map(|u| u.output),
            "request answered"
        );
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if !self.told {
            // A panic in the exchange is told by the panic hook; here it would look like a client that left.
            let outcome =
                if std::thread::panicking() { Outcome::Failed(FailureKind::Bug) } else { Outcome::ClientGone };
            self.service.counters().ended(outcome);
            info!(
                codex_request_id = self.request_id,
                codex_model = self.model,
                codex_elapsed_ms = ms(self.began.elapsed()),
                codex_panic = std::thread::panicking(),
                "the client went away"
            );
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
