//! The downstream half of an exchange: the head's timing, keep-alives, events out, and every way to say no.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use super::{
    body::BodyError,
    health::Outcome,
    reply::{LastWords, Reply},
    service::{Live, Service},
    story::Story,
    timer::LazyTimer,
};
use crate::{
    codec::{
        relay::{Relay, Voice},
        responses::{
            echo::Echo,
            error::{encode_error, encode_failure},
            request::InvalidRequest,
            stream::{Ended, Identity, StreamEncoder, encode_failed},
        },
        seal::Sealer,
    },
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind},
        request::Request as ModelRequest,
        usage::Usage,
    },
};

/// The downstream half: the head's timing, keep-alives, events out.
pub(super) struct Line {
    reply: Reply,
    pub(super) identity: Identity,
    request_id: String,
    encoder: Option<StreamEncoder>,
    /// An answer that a host gives in its own words, in place of the encoder.
    relayed: Option<Relayed>,
    pub(super) streaming: bool,
    head_hold: Duration,
    keepalive: Duration,
    /// Runs out when the head goes out, or the next keep-alive after it.
    pulse: LazyTimer,
    /// Waits for the word that this program is stopping, or that somebody cancelled the request.
    stop: Pin<Box<dyn Future<Output = Failure> + Send>>,
    /// What it gave.
    stopped: Option<Failure>,
    models_etag: HeaderValue,
    out: Vec<u8>,
}

/// What is known here of an answer that passes.
struct Relayed {
    voice: Voice,
    /// So many frames were passed.
    frames: u64,
    ended: Option<Ended>,
    usage: Option<Usage>,
    /// The one object for a client that does not stream.
    whole: Vec<u8>,
    /// The answer's items, if they are to be stored.
    items: Option<Vec<String>>,
    /// The host keeps it as well.
    stored: bool,
}

/// An answer that has ended, to be stored.
pub(super) struct Answer<'l> {
    pub(super) id: Cow<'l, str>,
    /// JSON.
    pub(super) items: Vec<&'l str>,
    /// A host gave it in its own words, and keeps it under its id.
    pub(super) stored_there: bool,
}

impl Line {
    pub(super) fn new(
        service: &Service,
        live: &Live,
        reply: Reply,
        request_id: String,
        cancelled: watch::Receiver<bool>,
    ) -> Self {
        let created_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let stem = request_id.trim_start_matches("req_").to_owned();
        let identity = Identity { stem, nonce: service.random_bytes(), created_at, model: String::new() };
        let line = Self {
            reply,
            identity,
            request_id,
            encoder: None,
            relayed: None,
            streaming: false,
            head_hold: live.settings.proxy.head_hold,
            keepalive: live.settings.proxy.keepalive,
            pulse: LazyTimer::new(Instant::now() + live.settings.proxy.head_hold),
            stop: Box::pin(stop(service.closing(), cancelled)),
            stopped: None,
            models_etag: live.models_etag.clone(),
            out: Vec::new(),
        };
        line.set_last_words();
        line
    }

    /// Prepares to answer `request`; the clock of the held head starts.
    pub(super) fn begin(&mut self, request: &ModelRequest<'_>, echo: Echo, sealer: &Sealer) {
        self.identity.model = request.model.clone().into_owned();
        self.streaming = request.stream;
        self.pulse.set(Instant::now() + self.head_hold);
        self.set_last_words();
        self.encoder = Some(StreamEncoder::new(self.identity.clone(), echo, sealer.clone(), request.stream));
    }

    pub(super) fn set_last_words(&self) {
        let message = format!("A defect in codex-proxy ended this request; please report it with {}.", self.request_id);
        let failure = Failure::new(FailureKind::Bug, message);
        let identity = self.identity.clone();
        let voice = self.relayed.as_ref().map(|relayed| relayed.voice.clone());
        self.reply.set_last_words(LastWords {
            status: status_of(&failure),
            headers: self.headers("application/json"),
            body: Bytes::from(encode_failure(&failure, &self.request_id)),
            tail: Box::new(move |sequence| match voice {
                Some(voice) => {
                    let mut out = Vec::new();
                    voice.at(sequence).failed(&failure, &mut out);
                    out
                }
                None => encode_failed(&identity, sequence, &failure),
            }),
        });
    }

    /// Waits for `future`; meanwhile lets the held head go when its time has come, and keeps the stream alive. Fails
    /// only when this program is stopping or somebody cancelled the request.
    pub(super) async fn during<F: Future>(&mut self, future: F) -> Result<F::Output, Failure> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            // Looked at first, or an upstream that always has something ready would keep the stop from being seen.
            if let Poll::Ready(failure) = self.poll_stop(cx) {
                return Poll::Ready(Err(failure));
            }
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            while self.streaming && self.pulse.poll(cx).is_ready() {
                self.pulse();
            }
            Poll::Pending
        })
        .await
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if self.stopped.is_none()
            && let Poll::Ready(failure) = self.stop.as_mut().poll(cx)
        {
            self.stopped = Some(failure);
        }
        self.stopped.clone().map_or(Poll::Pending, Poll::Ready)
    }

    pub(super) fn pulse(&mut self) {
        let begun = self.reply.has_head();
        self.open_head();
        if let Some(relayed) = &self.relayed {
            if relayed.ended.is_none() {
                relayed.voice.keepalive(&mut self.out);
            }
        } else if let Some(encoder) = &mut self.encoder {
            if begun {
                encoder.keepalive(&mut self.out);
            } else {
                encoder.start(&mut self.out);
            }
        }
        self.pulse.set(Instant::now() + self.keepalive);
        self.flush();
    }

    /// Writes what the facts mean to the client.
    pub(super) fn forward(&mut self, events: impl IntoIterator<Item = Event>, story: &mut Story) {
        let Some(encoder) = &mut self.encoder else { return };
        for event in events {
            if let Event::ItemOpen { .. } = event {
                story.first_event();
            } else if let Event::Usage(usage) = &event {
                story.costs(usage);
            }
            encoder.push(event, &mut self.out);
        }
        if self.streaming && encoder.sequence() > 0 {
            self.open_head();
            self.flush();
        }
        if self.ended() {
            self.reply.forget_last_words();
        }
    }

    /// Writes what a host says to the client in its own words.
    pub(super) fn pass(&mut self, relay: &mut Relay, passed: &mut Vec<u8>, story: &mut Story) {
        let first = self.relayed.is_none();
        let relayed = self.relayed.get_or_insert_with(|| Relayed {
            voice: relay.voice().clone(),
            frames: 0,
            ended: None,
            usage: None,
            whole: Vec::new(),
            items: None,
            stored: false,
        });
        // Comments say nothing to the client, and the next keep-alive is due as it was.
        let said = relay.frames() > relayed.frames || relay.ended().is_some();
        relayed.frames = relay.frames();
        relayed.voice.follow(relay.voice());
        if let Some(ended) = relay.ended() {
            // The host may have named its answer late.
            relayed.voice = relay.voice().clone();
            relayed.ended = Some(ended.clone());
            relayed.usage = relay.usage();
            relayed.whole = relay.take_whole();
            relayed.items = relay.take_items();
            relayed.stored = relay.is_stored();
        }
        story.first_event();
        if first {
            self.encoder = None;
            self.set_last_words();
        }
        if self.streaming && !passed.is_empty() {
            self.open_head();
            self.reply.write_events(passed, relay.voice().next());
            passed.clear();
            if said {
                self.pulse.set(Instant::now() + self.keepalive);
            }
        }
        if self.ended() {
            self.reply.forget_last_words();
        }
    }

    pub(super) fn open_head(&mut self) {
        if !self.reply.has_head() {
            let mut headers = self.headers("text/event-stream");
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(HeaderName::from_static("x-models-etag"), self.models_etag.clone());
            self.reply.head(StatusCode::OK, headers);
        }
    }

    pub(super) fn flush(&mut self) {
        if self.out.is_empty() {
            // Nothing was said, so the next keep-alive is due as it was.
            return;
        }
        let sequence = match &self.relayed {
            Some(relayed) => relayed.voice.next(),
            None => self.encoder.as_ref().map_or(0, StreamEncoder::sequence),
        };
        self.reply.write_events(&self.out, sequence);
        self.out.clear();
        self.pulse.set(Instant::now() + self.keepalive);
    }

    /// Waits until the client has taken enough of what was written. Fails as [`Line::during`] does.
    pub(super) async fn room(&mut self) -> Result<(), Failure> {
        if self.reply.has_room() {
            return Ok(());
        }
        let reply = self.reply.clone();
        self.during(reply.room()).await
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(super) fn ended(&self) -> bool {
        match &self.relayed {
            Some(relayed) => relayed.ended.is_some(),
            None => self.encoder.as_ref().is_some_and(|encoder| encoder.ended().is_some()),
        }
    }

    /// The answer, if it ended as one that can be continued: complete, or cut short.
    pub(super) fn answer(&self) -> Option<Answer<'_>> {
        let (ended, answer) = match (&self.relayed, &self.encoder) {
            (Some(relayed), _) => {
                let items = relayed.items.as_ref()?.iter().map(String::as_str).collect();
                let answer = Answer { id: relayed.voice.id().into(), items, stored_there: relayed.stored };
                (relayed.ended.as_ref(), answer)
            }
            (None, Some(encoder)) => {
                let answer = Answer { id: encoder.id().into(), items: encoder.stored_output(), stored_there: false };
                (encoder.ended(), answer)
            }
            (None, None) => return None,
        };
        matches!(ended, Some(Ended::Completed | Ended::Incomplete(_))).then_some(answer)
    }

    /// The end was forwarded: what is left is the one object for a client that does not stream, and the record.
    pub(super) fn finish(&mut self, story: &mut Story) {
        let (ended, usage, whole) = match (self.relayed.take(), self.encoder.take()) {
            (Some(Relayed { ended, usage, whole, .. }), _) => (ended, usage, whole),
            (None, Some(encoder)) => {
                let whole = |encoder: StreamEncoder| if self.streaming { Vec::new() } else { encoder.into_response() };
                (encoder.ended().cloned(), encoder.usage(), whole(encoder))
            }
            (None, None) => return,
        };
        let outcome = match ended {
            Some(Ended::Completed) => Outcome::Completed,
            Some(Ended::Incomplete(_)) => Outcome::Incomplete,
            Some(Ended::Failed(failure)) => {
                if let Some(usage) = &usage {
                    story.costs(usage);
                }
                if self.streaming {
                    return story.failed(&failure);
                }
                return self.fail(failure, story);
            }
            None => return self.fail(Failure::new(FailureKind::Bug, "The answer has no end."), story),
        };
        if !self.streaming {
            self.reply.head(StatusCode::OK, self.headers("application/json"));
            self.reply.write(&whole);
        }
        story.finished(outcome, usage.as_ref());
    }

    /// Tells a failure: as an HTTP status while the head is ours, as `response.failed` after it.
    pub(super) fn fail(&mut self, failure: Failure, story: &mut Story) {
        story.failed(&failure);
        match &mut self.encoder {
            Some(encoder) if self.reply.has_head() => {
                encoder.push(Event::End(End::Failed(failure)), &mut self.out);
                self.flush();
                self.reply.forget_last_words();
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
    pub(super) fn refuse(&mut self, invalid: &InvalidRequest, story: &mut Story) {
        story.refused(FailureKind::Caller, invalid.param.as_deref());
        let row = FailureKind::Caller.row();
        let (param, code) = (invalid.param.as_deref(), invalid.code.unwrap_or(row.code));
        let body = encode_error(row.error_type, code, &invalid.message, param, &self.request_id);
        self.reply.head(StatusCode::BAD_REQUEST, self.headers("application/json"));
        self.reply.write(&body);
    }

    /// Refuses a request whose body did not come as it should.
    pub(super) fn refuse_body(&mut self, error: &BodyError, story: &mut Story) {
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

    pub(super) fn headers(&self, content_type: &'static str) -> HeaderMap {
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

/// Waits for either word, for as long as it takes.
async fn stop(mut closing: watch::Receiver<bool>, mut cancelled: watch::Receiver<bool>) -> Failure {
    tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => stopping(),
        // An error means that nobody can cancel any more.
        Ok(_) = cancelled.wait_for(|cancelled| *cancelled) => cancellation(),
    }
}

fn cancellation() -> Failure {
    Failure::new(FailureKind::Caller, "The request was cancelled on this machine (CancelRequest on codex-proxy's bus).")
}

fn stopping() -> Failure {
    Failure::new(FailureKind::Shutdown, "codex-proxy is stopping; the request can be sent again.")
}
