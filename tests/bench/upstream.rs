//! The scripted upstream: a process of its own with one thread, which plays what the model of a request names.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use super::{
    protocols::{self, PIECES, Protocol, WHOLE},
    request::TAG,
    script::{STAMP, Script, now, write_stamp},
};

/// What came so far.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Received {
    /// Requests for an answer.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Outputs of tools in the last body.
    pub tags: usize,
}

/// Serves until standard input is closed. Says where it listens.
#[expect(clippy::print_stdout, reason = "the line its parent waits for")]
pub fn serve() {
    // The parent may die in any way; then this end of its pipe closes.
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        let shared = Rc::new(Shared::default());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let shared = Rc::clone(&shared);
            // A client that leaves is counted by the client.
            tokio::task::spawn_local(async move { drop(connection(stream, &shared).await) });
        }
    });
}

#[derive(Default)]
struct Shared {
    received: RefCell<Received>,
    takes: RefCell<HashMap<(&'static str, Script), Rc<Take>>>,
}

async fn connection(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        let head = loop {
            if let Some(at) = memmem::find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let (path, length) = read_head(&bytes[..head]);
        bytes.reserve((head + length).saturating_sub(bytes.len()));
        while bytes.len() < head + length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let body = &bytes[head..head + length];
        let known = protocols::UPSTREAM.iter().chain([&protocols::RESPONSES]).find(|known| path.ends_with(known.path));
        match known {
            Some(protocol) => {
                let tags = memmem::find_iter(body, TAG.as_bytes()).count();
                {
                    let mut received = shared.received.borrow_mut();
                    let (requests, bytes) = (received.requests + 1, received.bytes + length as u64);
                    *received = Received { requests, bytes, tags };
                }
                match script(&path, body) {
                    Some(script) => {
                        let take = shared.take(protocol, script);
                        take.play(&mut stream).await?;
                    }
                    None => whole(&mut stream, 400, b"{\"error\":{\"message\":\"no script is named so\"}}").await?,
                }
            }
            None => {
                let received = serde_json::to_vec(&*shared.received.borrow()).unwrap();
                whole(&mut stream, 200, &received).await?;
            }
        }
        bytes.drain(..head + length);
    }
}

/// Path and length of the body.
fn read_head(head: &[u8]) -> (String, usize) {
    let head = String::from_utf8_lossy(head);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    (path, length.unwrap_or(0))
}

/// What the model names, in the path or in the body; a quote inside a text would be escaped, so this is the member itself.
fn script(path: &str, body: &[u8]) -> Option<Script> {
    if let Some((_, model)) = path.rsplit_once("/models/") {
        return model.split(':').next()?.parse().ok();
    }
    const MEMBER: &[u8] = b"\"model\":\"";
    let from = memmem::find(body, MEMBER)? + MEMBER.len();
    let length = memchr::memchr(b'"', &body[from..])?;
    std::str::from_utf8(&body[from..from + length]).ok()?.parse().ok()
}

async fn whole(stream: &mut TcpStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await
}

impl Shared {
    fn take(&self, protocol: &'static Protocol, script: Script) -> Rc<Take> {
        let mut takes = self.takes.borrow_mut();
        Rc::clone(takes.entry((protocol.name, script)).or_insert_with(|| Rc::new(Take::new(protocol, script))))
    }
}

/// A script in the bytes of a protocol, but for stamps and the whole text.
struct Take {
    script: Script,
    /// Head and opening frames: one write.
    opening: Vec<u8>,
    /// The chunk of a piece, and where its text begins.
    piece: Vec<u8>,
    text_at: usize,
    closing: Vec<String>,
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

impl Take {
    fn new(protocol: &Protocol, script: Script) -> Self {
        let frames = (protocol.frames)(&script);
        let mut opening =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        frames.opening.iter().for_each(|frame| opening.extend(chunk(frame.as_bytes())));
        let (before, after) = frames.piece;
        let piece = chunk(format!("{before}{}{after}", "0".repeat(script.bytes)).as_bytes());
        let text_at = piece.len() - 2 - after.len() - script.bytes;
        Self { script, opening, piece, text_at, closing: frames.closing }
    }

    async fn play(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let script = self.script;
        stream.write_all(&self.opening).await?;
        let begun = Instant::now();
        let mut piece = self.piece.clone();
        // A protocol that never repeats the text needs none of it.
        let repeats = self.closing.iter().any(|frame| frame.contains(WHOLE) || frame.contains(PIECES));
        let mut whole = script.before().as_bytes().to_vec();
        for index in 0..script.deltas {
            if script.pause_ms > 0 && index > 0 {
                sleep_until(begun + Duration::from_millis(script.pause_ms * index as u64)).await;
            }
            let text = &mut piece[self.text_at..self.text_at + script.bytes];
            text[STAMP..].iter_mut().zip(script.filler(index)).for_each(|(to, byte)| *to = byte);
            write_stamp(now(), text);
            if repeats {
                whole.extend_from_slice(text);
            }
            stream.write_all(&piece).await?;
        }
        whole.extend_from_slice(script.after().as_bytes());
        let whole = String::from_utf8(whole).unwrap();
        let mut closing = Vec::new();
        let pieces =
            whole.strip_prefix(script.before()).and_then(|rest| rest.strip_suffix(script.after())).unwrap_or("");
        for frame in &self.closing {
            closing.extend(chunk(frame.replace(WHOLE, &whole).replace(PIECES, pieces).as_bytes()));
        }
        closing.extend_from_slice(b"0\r\n\r\n");
        stream.write_all(&closing).await
    }
}
