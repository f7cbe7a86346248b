//! Reads a request body within bounds: bytes in all, bytes over all requests, time without progress, and the window
//! and size of what is compressed.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Largest zstd window accepted, as a power of two: 8 MiB, what RFC 8878 §3.1.1.1.2 recommends decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// After a refusal this much more is read and thrown away, so that the client gets to see the answer instead of a reset.
const DISCARD_BYTES_MAX: u64 = 256 * 1024 * 1024;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);
/// A body may take this many times [`Limits::stall`] in all: one that trickles holds its share of memory as well.
const STALLS_MAX: u32 = 10;

/// Bounds of one body.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one body, decompressed.
    pub bytes_max: usize,
    /// Bytes of all bodies in memory; one permit a byte.
    pub in_flight: Arc<Semaphore>,
    /// Time without a byte.
    pub stall: Duration,
}

/// A body, and its share of the memory set aside for bodies. Dropping it gives the share back.
#[derive(Debug)]
pub struct Whole {
    /// The body, decompressed.
    pub bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than [`Limits::bytes_max`].
    #[error("larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Nothing came for [`Limits::stall`].
    #[error("nothing came for {stall:?}")]
    Stalled {
        /// The limit.
        stall: Duration,
    },
    /// A `content-encoding` we do not read.
    #[error("encoding not supported")]
    Encoding {
        /// As the client named it.
        name: String,
    },
    /// Not what its `content-encoding` says.
    #[error("not valid {encoding}")]
    Corrupt {
        /// The encoding.
        encoding: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

/// Reads the whole body.
///
/// Its share of memory is taken before the first byte is read: the announced length, or the most a body may have if it
/// is compressed or has no announced length; what turns out not to be needed is given back at the end.
pub async fn read(headers: &HeaderMap, mut body: Incoming, limits: &Limits) -> Result<Whole, BodyError> {
    let encoding = Encoding::of(headers)?;
    let bytes_max = limits.bytes_max;
    let announced = body.size_hint().exact();
    if announced.is_some_and(|n| n > bytes_max as u64) && matches!(encoding, Encoding::Identity) {
        discard(&mut body, announced).await;
        return Err(BodyError::TooLarge { bytes_max });
    }
    let share = match (announced, &encoding) {
        (Some(n), Encoding::Identity) => usize::try_from(n).unwrap_or(bytes_max),
        (_, _) => bytes_max,
    };
    let permits = u32::try_from(share).unwrap_or(u32::MAX);
    // The semaphore is never closed, so this waits and does not fail.
    let mut permit = match Arc::clone(&limits.in_flight).acquire_many_owned(permits).await {
        Ok(permit) => permit,
        Err(_) => return Err(BodyError::TooLarge { bytes_max }),
    };
    let mut sink = Sink::new(encoding, bytes_max, announced)?;
    let last = Instant::now() + limits.stall * STALLS_MAX;
    loop {
        let stalled = |_| BodyError::Stalled { stall: limits.stall };
        let next = timeout_at(last.min(Instant::now() + limits.stall), body.frame());
        let Some(frame) = next.await.map_err(stalled)? else { break };
        let frame = frame.map_err(BodyError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if let Err(error) = sink.write(data) {
            discard(&mut body, announced).await;
            return Err(error);
        }
    }
    let bytes = sink.finish()?;
    if let Some(spare) = permit.split(share.saturating_sub(bytes.len())) {
        drop(spare);
    }
    Ok(Whole { bytes: Bytes::from(bytes), _share: permit })
}

/// Reads what a refused request still sends, within bounds: a connection that is closed on unread bytes is reset, and
/// the reset can overtake the answer.
pub async fn discard(body: &mut Incoming, announced: Option<u64>) {
    if announced.is_some_and(|n| n > DISCARD_BYTES_MAX) {
        return;
    }
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |d| d.len() as u64));
            if left == 0 {
                return;
            }
        }
    };
    // Whether all of it came or time ran out, the answer is the same.
    drop(tokio::time::timeout(DISCARD_TIME_MAX, reading).await);
}

enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        let mut found = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
            found = match (name.as_str(), &found) {
                ("" | "identity", _) => found,
                ("gzip" | "x-gzip", Self::Identity) => Self::Gzip,
                ("zstd", Self::Identity) => Self::Zstd,
                (_, _) => return Err(BodyError::Encoding { name }),
            };
        }
        Ok(found)
    }
}

/// Takes what comes, gives what it decodes to.
enum Sink {
    Identity(Bounded),
    Gzip(Box<flate2::write::MultiGzDecoder<Bounded>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Bounded>>),
}

impl Sink {
    fn new(encoding: Encoding, bytes_max: usize, announced: Option<u64>) -> Result<Self, BodyError> {
        let capacity = announced.and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(bytes_max);
        let bounded = Bounded { bytes: Vec::with_capacity(capacity), bytes_max, over: false };
        Ok(match encoding {
            Encoding::Identity => Self::Identity(bounded),
            Encoding::Gzip => Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(bounded))),
            Encoding::Zstd => {
                let corrupt = |source| BodyError::Corrupt { encoding: "zstd", source };
                let mut decoder = zstd::stream::write::Decoder::new(bounded).map_err(corrupt)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let result = match self {
            Self::Identity(sink) => sink.write_all(data),
            Self::Gzip(sink) => sink.write_all(data),
            Self::Zstd(sink) => sink.write_all(data),
        };
        result.map_err(|source| self.error(source))
    }

    fn finish(mut self) -> Result<Vec<u8>, BodyError> {
        let flushed = match &mut self {
            Self::Identity(_) => Ok(()),
            Self::Gzip(sink) => sink.try_finish(),
            Self::Zstd(sink) => sink.flush(),
        };
        flushed.map_err(|source| self.error(source))?;
        Ok(match self {
            Self::Identity(sink) => sink.bytes,
            Self::Gzip(mut sink) => std::mem::take(&mut sink.get_mut().bytes),
            Self::Zstd(mut sink) => std::mem::take(&mut sink.get_mut().bytes),
        })
    }

    fn error(&self, source: io::Error) -> BodyError {
        let (bounded, encoding) = match self {
            Self::Identity(sink) => (sink, "identity"),
            Self::Gzip(sink) => (sink.get_ref(), "gzip"),
            Self::Zstd(sink) => (sink.get_ref(), "zstd"),
        };
        if bounded.over {
            BodyError::TooLarge { bytes_max: bounded.bytes_max }
        } else {
            BodyError::Corrupt { encoding, source }
        }
    }
}

/// A vector that refuses to outgrow its limit.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    over: bool,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.bytes_max - self.bytes.len() {
            self.over = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
