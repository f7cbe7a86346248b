//! The upstream half of an exchange: bytes become frames become events, or pass.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    task::Poll,
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, timeout};

use super::{
    continuation::Continuation, line::Line, service::Service, story::Story, timer::LazyTimer, upstream::Answer,
};
use crate::{
    codec::{
        DecodeError, Reader, StreamDecoder, compaction,
        relay::{self, Relay},
        responses::stream::Ended,
        sse::Framer,
    },
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind},
        request::Origin,
        usage::Usage,
    },
};

/// The upstream half.
pub(super) struct Source {
    answer: Option<Answer>,
    reading: Reading,
    /// Longest silence.
    idle: Duration,
    /// Runs out when it has lasted so long.
    silence: LazyTimer,
    /// When the last frame came; comments are none.
    frame_at: Instant,
    form: Form,
    skipped: u64,
    /// It was ended from here: no word about the provider.
    cut_here: bool,
    label: String,
    secrets: Secrets,
}

/// What becomes of an answer's bytes.
enum Reading {
    Translate {
        framer: Framer,
        /// `None` after the end.
        decoder: Option<Box<StreamDecoder>>,
        /// What was decoded and not yet forwarded.
        events: Vec<Event>,
        /// So many of them say nothing of whether the answer has begun.
        looked_at: usize,
        /// Of an answer that may be gone on with.
        continuation: Option<Box<Continuation>>,
    },
    Relay {
        relay: Box<Relay>,
        /// What has passed and is not yet forwarded.
        passed: Vec<u8>,
        /// Who gives what is opaque in it.
        origin: Origin,
    },
}

/// How far an answer is.
pub(super) enum Begun {
    /// Nothing the client could act on has come.
    No,
    /// Its first item has come, or its end.
    Yes,
    /// It ended before.
    Failed(Failure),
}

/// What was sent in confidence, so that it is not shown when the provider quotes it.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Shorter values are words or numbers of a configured header, and no keys.
    const BYTES_MIN: usize = 12;

    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        let secrets = values.map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        Self(secrets.filter(|secret| secret.len() >= Self::BYTES_MIN).map(str::to_owned).collect())
    }

    pub(super) fn hide(&self, mut failure: Failure) -> Failure {
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

/// An answer that is no stream may be this large: less than a stream, since it is held whole.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Once the host has said how the answer ended, only its usage is waited for: some never close the stream.
const AFTER_END_TIME_MAX: Duration = Duration::from_secs(10);
/// A relayed answer of which nothing may pass before its end is waited for up to this size in bytes: a compaction is one
/// item and its repetition.
const PASSED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that may be read after the answer's end, so that the connection can serve the next request.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(20);

/// A host that sends nothing but keep-alives of its own is not working on an answer any more.
const FRAMELESS_TIME_MAX: Duration = Duration::from_secs(600);

impl Source {
    /// The answer of one place, from its first byte.
    pub(super) fn new(
        answer: Answer,
        reader: Reader,
        continuation: Option<Continuation>,
        origin: &Origin,
        idle: Duration,
        label: &str,
        secrets: Secrets,
    ) -> Self {
        let reading = match reader {
            Reader::Translate(decoder) => Reading::Translate {
                framer: Framer::default(),
                decoder: Some(decoder),
                events: Vec::new(),
                looked_at: 0,
                continuation: continuation.map(Box::new),
            },
            Reader::Relay(relay) => Reading::Relay { relay, passed: Vec::new(), origin: origin.clone() },
        };
        Self {
            answer: Some(answer),
            reading,
            idle,
            silence: LazyTimer::new(Instant::now() + idle),
            frame_at: Instant::now(),
            form: Form::Unknown,
            skipped: 0,
            cut_here: false,
            label: label.to_owned(),
            secrets,
        }
    }

    /// How far the answer is. For a client that does not stream it begins with its end.
    pub(super) fn begun(&mut self, streaming: bool) -> Begun {
        match &mut self.reading {
            Reading::Translate { events, looked_at, .. } => {
                while let Some(event) = events.get(*looked_at) {
                    *looked_at += 1;
                    match event {
                        Event::ItemOpen { .. } if streaming => return Begun::Yes,
                        Event::End(End::Failed(failure)) => return Begun::Failed(failure.clone()),
                        Event::End(_) => return Begun::Yes,
                        _ => {}
                    }
                }
                Begun::No
            }
            Reading::Relay { relay, passed, .. } => match relay.ended() {
                _ if streaming && relay.begun() => Begun::Yes,
                None if passed.len() > PASSED_BYTES_MAX => Begun::Yes,
                Some(Ended::Failed(failure)) => Begun::Failed(failure.clone()),
                Some(Ended::Completed | Ended::Incomplete(_)) => Begun::Yes,
                None => Begun::No,
            },
        }
    }

    /// Whether a host that speaks the client's protocol has given a compaction. Ask when the answer is over; of one that
    /// is too long to wait for its end it is believed.
    pub(super) fn holds_compaction(&self) -> bool {
        match &self.reading {
            Reading::Translate { .. } => false,
            Reading::Relay { relay, passed, .. } => {
                relay.ended().is_none() || relay::holds_compaction(passed, relay.whole())
            }
        }
    }

    /// Makes a compaction of the summary that the answer, which is over, holds: see [`compaction::condense`].
    pub(super) fn condense(&mut self, limited: bool) -> Result<(), Failure> {
        let events = match &mut self.reading {
            Reading::Translate { events, .. } => mem::take(events),
            Reading::Relay { relay, passed, .. } => match relay.ended() {
                Some(ended) => relay::read_events(passed, relay.whole(), ended, relay.usage()),
                None => {
                    let message = "The answer that is to be a summary of the conversation does not end.";
                    let failure = Failure::new(FailureKind::Upstream, message);
                    vec![Event::End(End::Failed(failure))]
                }
            },
        };
        let events =
            compaction::condense(events, limited).map_err(|failure| named(self.secrets.hide(failure), &self.label))?;
        self.reading =
            Reading::Translate { framer: Framer::default(), decoder: None, events, looked_at: 0, continuation: None };
        Ok(())
    }

    /// What the answer costs, as far as the host has said so and it was not handed on.
    pub(super) fn usage(&self) -> Option<Usage> {
        match &self.reading {
            Reading::Translate { events, .. } => events.iter().rev().find_map(|event| match event {
                Event::Usage(usage) => Some(*usage),
                _ => None,
            }),
            Reading::Relay { relay, .. } => relay.usage(),
        }
    }

    /// Hands on what came since the last time.
    pub(super) fn forward(&mut self, line: &mut Line, story: &mut Story, service: &Service) {
        match &mut self.reading {
            Reading::Translate { events, .. } => line.forward(events.drain(..), story),
            Reading::Relay { relay, passed, origin } => {
                // Before the client can send it back, whatever happens to this process.
                service.note_origin(origin, &relay.take_blobs());
                line.pass(relay, passed, story);
            }
        }
    }

    /// How many frames and the like were not understood and skipped.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The failure to report if the answer has to end here for a reason of ours: tells it as the end.
    pub(super) fn cut(&mut self, failure: Failure) {
        self.cut_here = true;
        self.finish(Some(failure));
    }

    /// Reads once and decodes what came. After the end of the input, or a failure, `events` ends with the one end.
    pub(super) async fn read(&mut self, line: &mut Line) {
        if let Reading::Translate { continuation: Some(continuation), .. } = &mut self.reading
            && continuation.is_due()
        {
            return match line.during(continuation.ask()).await {
                Ok(Ok((answer, decoder))) => self.go_on(answer, decoder),
                Ok(Err(failure)) => {
                    let failure = self.secrets.hide(failure);
                    continuation.tell(&failure);
                    self.finish(Some(failure));
                }
                Err(failure) => self.cut(failure),
            };
        }
        let Some(answer) = &mut self.answer else {
            return self.finish(None);
        };
        let over = match &self.reading {
            Reading::Translate { decoder, .. } => decoder.as_ref().is_some_and(|decoder| decoder.end_announced()),
            Reading::Relay { .. } => false,
        };
        let idle = if over { self.idle.min(AFTER_END_TIME_MAX) } else { self.idle };
        self.silence.set(Instant::now() + idle);
        let silence = &mut self.silence;
        let next = async {
            let mut next = pin!(answer.next());
            poll_fn(|cx| match next.as_mut().poll(cx) {
                Poll::Ready(chunk) => Poll::Ready(Some(chunk)),
                Poll::Pending => silence.poll(cx).map(|()| None),
            })
            .await
        };
        let chunk = match line.during(next).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(failure))) => return self.finish(Some(failure)),
            Err(failure) => return self.cut(failure),
            Ok(None) => {
                let message = format!("{} sent nothing for {} s.", answer.host(), idle.as_secs_f32());
                return self.finish(Some(Failure::new(FailureKind::Timeout, message)));
            }
        };
        if self.frame_at.elapsed() > FRAMELESS_TIME_MAX.max(idle) {
            let limit = FRAMELESS_TIME_MAX.as_secs();
            let message = format!("{} sent nothing but keep-alives for {limit} s.", answer.host());
            return self.finish(Some(Failure::new(FailureKind::Timeout, message)));
        }
        match chunk {
            Some(bytes) => self.take(&bytes),
            None => self.end_of_input(),
        }
    }

    /// Reads another stream as the rest of the same answer.
    fn go_on(&mut self, answer: Answer, next: StreamDecoder) {
        if let Reading::Translate { framer, decoder, .. } = &mut self.reading {
            (*framer, *decoder) = (Framer::default(), Some(Box::new(next)));
        }
        self.answer = Some(answer);
        self.form = Form::Unknown;
        self.frame_at = Instant::now();
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
        let frame_at = &mut self.frame_at;
        let fed = match &mut self.reading {
            Reading::Translate { framer, decoder: Some(decoder), events, continuation, .. } => {
                let before = events.len();
                let fed = framer.feed(bytes, |frame| {
                    *frame_at = Instant::now();
                    decoder.feed(&frame, events)
                });
                if let Some(continuation) = continuation {
                    continuation.join(events, before);
                }
                fed.map(|()| decoder.done())
            }
            Reading::Translate { decoder: None, .. } => return,
            Reading::Relay { relay, passed, .. } => {
                let before = relay.frames();
                let fed = relay.feed(bytes, passed);
                if relay.frames() > before {
                    *frame_at = Instant::now();
                }
                fed.map(|()| relay.ended().is_some())
            }
        };
        match fed {
            Ok(true) => self.finish(None),
            Ok(false) => {}
            Err(error) => self.broken(error),
        }
    }

    fn end_of_input(&mut self) {
        let whole = match &self.form {
            Form::Whole(bytes) => Some(bytes.as_slice()),
            Form::Unknown | Form::Frames => None,
        };
        let result = match (&mut self.reading, whole) {
            (Reading::Translate { decoder: None, .. }, _) => return,
            (Reading::Translate { decoder: Some(decoder), events, framer, continuation, .. }, whole) => {
                let before = events.len();
                let fed = match whole {
                    Some(bytes) => decoder.feed_whole(bytes, events),
                    None => mem::take(framer).finish(|frame| decoder.feed(&frame, events)),
                };
                if let Some(continuation) = continuation {
                    continuation.join(events, before);
                }
                fed
            }
            (Reading::Relay { relay, passed, .. }, Some(bytes)) => relay.feed_whole(bytes, passed),
            (Reading::Relay { relay, passed, .. }, None) => relay.end_of_input(passed),
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

    /// The end of the input: whatever comes of it, the answer gets its one end, unless it is gone on with.
    fn finish(&mut self, cut: Option<Failure>) {
        if cut.is_some() {
            self.answer = None;
        }
        let tell = |failure: Failure| {
            if self.cut_here { failure } else { named(self.secrets.hide(failure), &self.label) }
        };
        match &mut self.reading {
            Reading::Translate { decoder, events, continuation, .. } => {
                let mut tail = Vec::new();
                let mut stopped = None;
                match decoder.take() {
                    Some(decoder) => {
                        self.skipped += decoder.skipped();
                        // What was ended from here is not gone on with.
                        stopped = decoder.stopped().filter(|_| !self.cut_here);
                        decoder.finish(cut, &mut tail);
                    }
                    None => {
                        let message = "The answer was over and its end was not told.";
                        let failure = cut.unwrap_or_else(|| Failure::new(FailureKind::Bug, message));
                        tail.push(Event::End(End::Failed(failure)));
                    }
                }
                match continuation {
                    Some(continuation) => {
                        continuation.end(tail, stopped, events);
                        if continuation.is_due() {
                            self.answer = None;
                        }
                    }
                    None => events.append(&mut tail),
                }
                if let Some(Event::End(End::Failed(failure))) = events.last_mut() {
                    *failure = tell(failure.clone());
                }
            }
            Reading::Relay { relay, passed, .. } => {
                if relay.ended().is_none() {
                    let failure = cut.unwrap_or_else(|| relay.cut_off());
                    relay.fail(tell(failure), passed);
                }
            }
        }
    }

    /// Reads what still comes after the answer's end, so that the connection is reused.
    pub(super) async fn drain(self) {
        let Some(mut answer) = self.answer else { return };
        let rest = async { while let Ok(Some(_)) = answer.next().await {} };
        // If it takes longer, a new connection is cheaper than the wait.
        drop(timeout(DRAIN_TIME_MAX, rest).await);
    }
}

/// Says who failed: with several places behind one model the client's user could not know.
pub(super) fn named(failure: Failure, label: &str) -> Failure {
    Failure { message: format!("{label}: {}", failure.message), ..failure }
}
