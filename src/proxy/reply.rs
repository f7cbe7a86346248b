//! The downstream answer: a head that is decided late, a body that is written as it comes, and back-pressure.
//!
//! An exchange is one future. It is polled by the connection that waits for the answer, first until it has decided on
//! a head, then whenever the connection can take more body. There is no task and no channel between the two, so an
//! event that is ready is written in the same poll that made it, and when the client goes away the future is dropped
//! with all it holds, the upstream connection included.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};

/// The writing side stops when this much is waiting for the connection.
const PENDING_BYTES_MAX: usize = 64 * 1024;
/// What is waiting is not held back for more to come once it is this much.
const GATHER_BYTES_MAX: usize = 16 * 1024;
/// Nor after so many turns.
const GATHER_TURNS_MAX: u32 = 32;
/// What comes so soon after the last write is taken for one of many.
const GATHER_PAUSE_MAX: Duration = Duration::from_millis(1);

/// What answers an HTTP request.
pub type Answer = Response<ReplyBody>;

/// The exchange's side: decides on the head, writes the body.
#[derive(Clone)]
pub struct Reply {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    head: Option<(StatusCode, HeaderMap)>,
    /// Stays true after the head was taken out and sent.
    decided: bool,
    pending: BytesMut,
    /// Sequence number of the next event of the body.
    sequence: u64,
    /// What to say if the exchange panics; before the head, and as the body's last bytes after it.
    last_words: Option<LastWords>,
}

/// What is said when an exchange breaks by a defect of ours.
pub struct LastWords {
    /// Status and headers while the head is still open.
    pub status: StatusCode,
    /// Headers for that case.
    pub headers: HeaderMap,
    /// Body for that case.
    pub body: Bytes,
    /// Makes the end of a body that has begun from the sequence number of its next event.
    pub tail: Box<dyn FnOnce(u64) -> Vec<u8> + Send>,
}

impl Reply {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on status and headers. Only the first call counts.
    pub fn head(&self, status: StatusCode, headers: HeaderMap) {
        let mut shared = self.lock();
        if !shared.decided {
            shared.decided = true;
            shared.head = Some((status, headers));
        }
    }

    /// True once the head is decided.
    pub fn has_head(&self) -> bool {
        self.lock().decided
    }

    /// Appends to the body; it goes out as soon as the exchange waits for something.
    pub fn write(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.lock().pending.extend_from_slice(bytes);
        }
    }

    /// Appends events to the body, and notes the sequence number that comes next.
    pub fn write_events(&self, bytes: &[u8], sequence: u64) {
        let mut shared = self.lock();
        shared.pending.extend_from_slice(bytes);
        shared.sequence = sequence;
    }

    /// Keeps what is to be said if the exchange panics.
    pub fn set_last_words(&self, words: LastWords) {
        self.lock().last_words = Some(words);
    }

    /// The body's end was written: from now on a panic has nothing more to say.
    pub fn forget_last_words(&self) {
        self.lock().last_words = None;
    }

    /// Waits until the connection has taken enough of what was written.
    pub async fn room(&self) {
        // No waker is kept: the connection polls again once it has taken what is pending, and only then is there a
        // reason to.
        poll_fn(|_| if self.has_room() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whether it has.
    pub fn has_room(&self) -> bool {
        self.lock().pending.len() < PENDING_BYTES_MAX
    }
}

/// The body of an answer: whole, or driven by its exchange.
pub enum ReplyBody {
    /// Known in full.
    Whole(Option<Bytes>),
    /// Written by an exchange.
    Driven(Driver),
}

/// Polls an exchange.
pub struct Driver {
    /// `None` once it has returned.
    exchange: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    reply: Reply,
    gathering: Gathering,
    turns: Turns,
    /// The turn in which it was found to have nothing to write. It is woken when that changes, and not before.
    idle_in: Option<u64>,
}

/// Counts the turns of a connection's task, so that a body can tell a turn of its own from being asked twice in one.
#[derive(Clone, Default)]
pub struct Turns(Arc<AtomicU64>);

impl Turns {
    /// A turn begins.
    pub fn begin(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Joins what comes in quick succession into one write.
///
/// The connection to the provider hands over one chunk at a time, and the next only when it gets a turn of its own. So
/// once events come at short intervals, it is given a turn before they are written, and another for as long as each
/// brings more. What comes alone is written at once: a turn costs more than it, when nobody else is waiting for one.
#[derive(Default)]
struct Gathering {
    /// When something was written last.
    written: Option<Instant>,
    /// What was waiting when a turn was last given away.
    bytes: usize,
    turns: u32,
}

impl Gathering {
    /// Whether to give a turn away before `bytes` are written.
    fn wait(&mut self, bytes: usize, now: Instant) -> bool {
        let soon = self.written.is_some_and(|written| now - written < GATHER_PAUSE_MAX);
        let more = bytes > self.bytes && bytes < GATHER_BYTES_MAX && self.turns < GATHER_TURNS_MAX;
        if more && (soon || self.turns > 0) {
            self.bytes = bytes;
            self.turns += 1;
            return true;
        }
        *self = Self { written: Some(now), ..Self::default() };
        false
    }
}

/// Runs `exchange` until it has decided on a head, and gives the answer whose body runs the rest.
pub async fn answer<F>(turns: Turns, exchange: impl FnOnce(Reply) -> F) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
{
    let reply = Reply { shared: Arc::default() };
    let exchange: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(exchange(reply.clone()));
    let mut driver = Driver { exchange: Some(exchange), reply, gathering: Gathering::default(), turns, idle_in: None };
    poll_fn(|cx| driver.poll_head(cx)).await;
    let head = driver.reply.lock().head.take();
    // An exchange that returns without a word has a defect; the client still gets an answer.
    let (status, headers) = head.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new()));
    let mut response = Response::new(if driver.exchange.is_none() {
        let bytes = driver.reply.lock().pending.split().freeze();
        ReplyBody::Whole(Some(bytes))
    } else {
        ReplyBody::Driven(driver)
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl Driver {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_exchange(cx);
        if self.exchange.is_none() || self.reply.has_head() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) {
        let Some(exchange) = &mut self.exchange else { return };
        match catch_unwind(AssertUnwindSafe(|| exchange.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => self.exchange = None,
            Err(_) => {
                // The panic hook has told the log; here the client is told.
                self.exchange = None;
                let mut shared = self.reply.lock();
                let begun = shared.decided;
                let Some(words) = shared.last_words.take() else { return };
                if begun {
                    let tail = (words.tail)(shared.sequence);
                    shared.pending.extend_from_slice(&tail);
                } else {
                    shared.decided = true;
                    shared.head = Some((words.status, words.headers));
                    shared.pending.extend_from_slice(&words.body);
                }
            }
        }
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let driver = match self.get_mut() {
            Self::Whole(bytes) => {
                return Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))));
            }
            Self::Driven(driver) => driver,
        };
        let turn = driver.turns.now();
        if driver.idle_in == Some(turn) {
            return Poll::Pending;
        }
        driver.poll_exchange(cx);
        let mut shared = driver.reply.lock();
        let bytes = shared.pending.len();
        let wait = bytes > 0 && driver.exchange.is_some() && driver.gathering.wait(bytes, Instant::now());
        if bytes > 0 && !wait {
            return Poll::Ready(Some(Ok(Frame::data(shared.pending.split().freeze()))));
        }
        drop(shared);
        if driver.exchange.is_none() {
            return Poll::Ready(None);
        }
        if wait {
            cx.waker().wake_by_ref();
        }
        driver.idle_in = Some(turn);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Driven(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Driven(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body;

    use super::*;

    async fn answer<F>(exchange: impl FnOnce(Reply) -> F) -> Answer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        super::answer(Turns::default(), exchange).await
    }

    /// The next bytes, in turns as a connection gives them.
    async fn next(body: &mut ReplyBody) -> Option<Bytes> {
        let frame = poll_fn(|cx| {
            if let ReplyBody::Driven(driver) = &*body {
                driver.turns.begin();
            }
            Pin::new(&mut *body).poll_frame(cx)
        });
        frame.await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    async fn bytes(answer: Answer) -> Vec<u8> {
        let mut body = answer.into_body();
        let mut all = Vec::new();
        while let Some(bytes) = next(&mut body).await {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn an_exchange_that_ends_at_once_is_a_whole_answer() {
        let answer = answer(|reply| async move {
            reply.head(StatusCode::OK, HeaderMap::new());
            reply.write(b"all");
        })
        .await;
        assert_eq!(Body::size_hint(answer.body()).exact(), Some(3));
        assert_eq!(bytes(answer).await, b"all");
    }

    #[tokio::test]
    async fn what_is_written_comes_out_in_order_and_waits_for_the_reader() {
        let answer = answer(|reply| async move {
            reply.head(StatusCode::OK, HeaderMap::new());
            for n in 0..200_u32 {
                reply.room().await;
                reply.write(&n.to_be_bytes().repeat(1024));
                assert!(reply.lock().pending.len() < PENDING_BYTES_MAX + 4096);
                tokio::task::yield_now().await;
            }
        })
        .await;
        let bytes = bytes(answer).await;
        let numbers: Vec<u32> = bytes.chunks(4096).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_gathered_is_written_though_nothing_follows() {
        let answer = answer(|reply| async move {
            reply.head(StatusCode::OK, HeaderMap::new());
            for n in 0..20_u8 {
                reply.write(&[n]);
                tokio::task::yield_now().await;
            }
            std::future::pending().await
        })
        .await;
        let mut body = answer.into_body();
        let mut took = Vec::new();
        while took.len() < 20 {
            took.extend_from_slice(&next(&mut body).await.unwrap());
        }
        assert_eq!(took, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_is_given_away_only_while_each_brings_more() {
        let began = Instant::now();
        let at = |us| began + Duration::from_micros(us);
        let mut gathering = Gathering::default();
        assert!(!gathering.wait(10, at(0)), "the first is written with the head");
        assert!(!gathering.wait(10, at(2_000)), "it came alone");
        assert!(gathering.wait(10, at(2_100)));
        assert!(gathering.wait(20, at(9_000)));
        assert!(!gathering.wait(20, at(9_001)), "the turn brought nothing");
        assert!(gathering.wait(20, at(9_100)));
        assert!(!gathering.wait(GATHER_BYTES_MAX, at(9_101)), "enough for one write");
        let turns = (1..=GATHER_TURNS_MAX as usize + 1).take_while(|n| gathering.wait(*n, at(9_200))).count();
        assert_eq!(turns, GATHER_TURNS_MAX as usize);
    }

    fn words() -> LastWords {
        LastWords {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"sorry"),
            tail: Box::new(|sequence| format!("|failed at {sequence}").into_bytes()),
        }
    }

    #[tokio::test]
    async fn a_panic_before_the_head_is_an_answer() {
        let answer = answer(|reply| async move {
            reply.set_last_words(words());
            panic!("a defect");
        })
        .await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(bytes(answer).await, b"sorry");
    }

    #[tokio::test]
    async fn a_panic_in_the_stream_still_ends_it() {
        let answer = answer(|reply| async move {
            reply.set_last_words(words());
            reply.head(StatusCode::OK, HeaderMap::new());
            reply.write_events(b"begun", 7);
            tokio::task::yield_now().await;
            panic!("a defect");
        })
        .await;
        assert_eq!(bytes(answer).await, b"begun|failed at 7");
    }
}
