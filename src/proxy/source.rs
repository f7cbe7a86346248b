//! The upstream half of an exchange: bytes become frames become events.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::pin,
    task::Poll,
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, timeout};

use super::{line::Line, timer::LazyTimer, upstream::Answer};
use crate::{
    codec::{DecodeError, chat, sse::Framer},
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind},
    },
};

/// The upstream half: bytes become frames become events.
pub(super) struct Source {
    answer: Option<Answer>,
    framer: Framer,
    decoder: Option<chat::StreamDecoder>,
    /// What was decoded and not yet forwarded.
    pub(super) events: Vec<Event>,
    /// Longest silence.
    idle: Duration,
    /// Runs out when it has lasted so long.
    silence: LazyTimer,
    /// When the last frame came; comments are none.
    frame_at: Instant,
    form: Form,
    pub(super) skipped: u64,
    /// It was ended from here: no word about the provider.
    cut_here: bool,
    label: String,
    secrets: Secrets,
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
/// Bytes that may be read after the answer's end, so that the connection can serve the next request.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(20);

/// A host that sends nothing but keep-alives of its own is not working on an answer any more.
const FRAMELESS_TIME_MAX: Duration = Duration::from_secs(600);

impl Source {
    /// The answer of one place, from its first byte.
    pub(super) fn new(
        answer: Answer,
        decoder: chat::StreamDecoder,
        idle: Duration,
        label: &str,
        secrets: Secrets,
    ) -> Self {
        Self {
            answer: Some(answer),
            framer: Framer::default(),
            decoder: Some(decoder),
            events: Vec::new(),
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

    /// The failure to report if the answer has to end here for a reason of ours: tells it as the end.
    pub(super) fn cut(&mut self, failure: Failure) {
        self.cut_here = true;
        self.finish(Some(failure));
    }

    /// Reads once and decodes what came. After the end of the input, or a failure, `events` ends with the one end.
    pub(super) async fn read(&mut self, line: &mut Line) {
        let Some(answer) = &mut self.answer else {
            return self.finish(None);
        };
        let over = self.decoder.as_ref().is_some_and(chat::StreamDecoder::end_announced);
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
        let Self { framer, decoder: Some(decoder), events, frame_at, .. } = self else { return };
        let fed = framer.feed(bytes, |frame| {
            *frame_at = Instant::now();
            decoder.feed(&frame, events)
        });
        match fed {
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
            && !self.cut_here
        {
            *failure = named(self.secrets.hide(failure.clone()), &self.label);
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
