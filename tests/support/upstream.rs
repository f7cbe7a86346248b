//! A scripted upstream on a real loopback socket. It reads HTTP/1.1 by itself, so that an answer can be cut, stalled or
//! spoilt at any byte; it records every request, and whether the client went away before the answer was over.

use super::events::{self, Gate};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its number, from 0, over all connections.
    pub index: usize,
    /// `POST`, `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, `Null` when it is no JSON.
    pub json: Value,
}

impl Recorded {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `messages` of a Chat Completions request.
    pub fn messages(&self) -> &[Value] {
        self.json["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The names of the function tools of a Chat Completions request.
    pub fn tool_names(&self) -> Vec<&str> {
        let tools = self.json["tools"].as_array().map_or(&[][..], Vec::as_slice);
        tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect()
    }

    /// The declared name of the tool whose name ends so; the test stops if there is none.
    pub fn tool_ending(&self, end: &str) -> String {
        let names = self.tool_names();
        let found = names.iter().find(|name| name.ends_with(end));
        (*found.unwrap_or_else(|| panic!("no tool ends with {end}: {names:?}"))).to_owned()
    }

    /// How many results of tools the conversation holds: 0 on a first step.
    pub fn results(&self) -> usize {
        self.messages().iter().filter(|message| message["role"] == "tool").count()
    }

    /// Whether the text stands anywhere in the conversation (`messages`, `input`), the tools left out.
    pub fn mentions(&self, text: &str) -> bool {
        ["messages", "input"].iter().any(|key| self.json[*key].to_string().contains(text))
    }
}

/// A step of a reply.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes and flushes.
    Send(Vec<u8>),
    /// Waits until the test opens the gate or the client leaves.
    Wait(Gate),
    /// Waits so long, or until the client leaves.
    Pause(Duration),
    /// Sends nothing more and keeps the connection until the client leaves.
    Stall,
    /// Resets the connection.
    Reset,
    /// Closes it in order.
    Close,
}

/// What is written in answer to a request. Ends with the connection kept, unless a step said otherwise.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// In order.
    pub steps: Vec<Step>,
}

/// How a reply is broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// RST.
    Reset,
    /// FIN, without the end of the chunked body.
    Close,
    /// Silence.
    Stall,
}

impl From<Cut> for Step {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Reset => Self::Reset,
            Cut::Close => Self::Close,
            Cut::Stall => Self::Stall,
        }
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

const SSE: &[(&str, &str)] = &[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")];

impl Reply {
    /// A complete answer with that body.
    pub fn body(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("content-length", &length));
        let mut bytes = head(status, &all);
        bytes.extend_from_slice(body);
        Self { steps: vec![Step::Send(bytes)] }
    }

    /// A complete JSON answer.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::json_with(status, &[], value)
    }

    /// A complete JSON answer with more headers.
    pub fn json_with(status: u16, headers: &[(&str, &str)], value: &Value) -> Self {
        let mut all = headers.to_vec();
        all.push(("content-type", "application/json"));
        Self::body(status, &all, value.to_string().as_bytes())
    }

    /// An error in the shape of most hosts.
    pub fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        Self::json(status, &serde_json::json!({"error": {"message": message, "type": kind, "code": code}}))
    }

    /// A web page, as gateways send.
    pub fn html(status: u16) -> Self {
        let page = b"<!DOCTYPE html><html><body><h1>Just a moment...</h1></body></html>";
        Self::body(status, &[("content-type", "text/html; charset=utf-8")], page)
    }

    /// An event stream whose head promises `length` bytes; then the connection is closed.
    pub fn sse_of_length<F: AsRef<[u8]>>(length: usize, frames: &[F]) -> Self {
        let length = length.to_string();
        let mut bytes = head(200, &[("content-type", "text/event-stream"), ("content-length", &length)]);
        frames.iter().for_each(|frame| bytes.extend_from_slice(frame.as_ref()));
        Self::raw(&bytes)
    }

    /// A complete event stream, compressed though nobody asked for it.
    pub fn sse_gzip<F: AsRef<[u8]>>(frames: &[F]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        frames.iter().for_each(|frame| gzip.write_all(frame.as_ref()).unwrap());
        let headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
        Self::body(200, &headers, &gzip.finish().unwrap())
    }

    /// A complete event stream, each frame a chunk of its own.
    pub fn sse<F: AsRef<[u8]>>(frames: &[F]) -> Self {
        let mut reply = Self::sse_open(frames);
        reply.steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        reply
    }

    /// The head and these frames of an event stream that is not over yet.
    pub fn sse_open<F: AsRef<[u8]>>(frames: &[F]) -> Self {
        let mut steps = vec![Step::Send(head(200, SSE))];
        steps.extend(frames.iter().map(|frame| Step::Send(chunk(frame.as_ref()))));
        Self { steps }
    }

    /// The head, these frames, then the cut.
    pub fn sse_cut<F: AsRef<[u8]>>(frames: &[F], cut: Cut) -> Self {
        Self::sse_open(frames).then(cut.into())
    }

    /// The same bytes in writes of `size`, which need not respect frames, chunks or characters.
    pub fn split(self, size: usize) -> Self {
        let mut steps = Vec::new();
        for step in self.steps {
            match step {
                Step::Send(bytes) => steps.extend(bytes.chunks(size.max(1)).map(|part| Step::Send(part.to_vec()))),
                Step::Wait(_) | Step::Pause(_) | Step::Stall | Step::Reset | Step::Close => steps.push(step),
            }
        }
        Self { steps }
    }

    /// One more step.
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// One more frame of an open event stream.
    pub fn frame(self, frame: impl AsRef<[u8]>) -> Self {
        self.then(Step::Send(chunk(frame.as_ref())))
    }

    /// The end of an open event stream.
    pub fn end(self) -> Self {
        self.then(Step::Send(b"0\r\n\r\n".to_vec()))
    }

    /// No byte at all.
    pub fn silence() -> Self {
        Self { steps: vec![Step::Stall] }
    }

    /// These bytes as they are, then the connection is closed.
    pub fn raw(bytes: &[u8]) -> Self {
        Self { steps: vec![Step::Send(bytes.to_vec()), Step::Close] }
    }
}

struct Exchange {
    request: Recorded,
    finished: bool,
    client_left: bool,
}

type Script = dyn FnMut(&Recorded) -> Reply + Send;

struct Shared {
    exchanges: Mutex<Vec<Exchange>>,
    script: Mutex<Box<Script>>,
    complaints: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// The running upstream. Dropped, it stops accepting, and fails the test if its script panicked.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// Starts one that asks `script` for each request.
    pub fn start(script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            exchanges: Mutex::default(),
            script: Mutex::new(Box::new(script)),
            complaints: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if all.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let one = Arc::clone(&all);
                // A peer that breaks off is what many tests are about.
                std::thread::spawn(move || drop(serve(connection, &one)));
            }
        });
        Self { address, shared }
    }

    /// Starts one that answers the n-th request with the n-th reply, and any further one with status 500.
    pub fn sequence(replies: Vec<Reply>) -> Self {
        let mut replies = replies.into_iter();
        Self::start(move |request| {
            let what = format!("request {} was not expected", request.index);
            replies.next().unwrap_or_else(|| Reply::error(500, "script", "script_over", &what))
        })
    }

    /// `http://127.0.0.1:PORT/v1`
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.exchanges.lock().unwrap().iter().map(|exchange| exchange.request.clone()).collect()
    }

    /// How many requests so far.
    pub fn count(&self) -> usize {
        self.shared.exchanges.lock().unwrap().len()
    }

    /// All requests so far, for a test that needs exactly `n`.
    pub fn exactly(&self, n: usize) -> Vec<Recorded> {
        let all = self.requests();
        assert_eq!(all.len(), n, "requests at the upstream: {:#?}", all.iter().map(summary).collect::<Vec<_>>());
        all
    }

    /// Waits for the n-th request.
    pub fn wait_requests(&self, n: usize, deadline: Duration) -> Vec<Recorded> {
        events::wait(deadline, || (self.count() >= n).then(|| self.requests()))
            .unwrap_or_else(|| panic!("{} of {n} requests came within {deadline:?}", self.count()))
    }

    /// Waits for a request of that kind.
    pub fn wait_request(&self, deadline: Duration, wanted: impl Fn(&Recorded) -> bool) -> Option<Recorded> {
        events::wait(deadline, || self.requests().into_iter().find(&wanted))
    }

    /// Waits until the client has left request `index` before its reply was over.
    pub fn wait_closed(&self, index: usize, deadline: Duration) {
        let left = events::wait(deadline, || self.client_left(index).then_some(()));
        assert!(left.is_some(), "the client did not leave request {index} within {deadline:?}");
    }

    /// Waits until no reply is under way: each is over, or its client has left.
    pub fn wait_idle(&self, deadline: Duration) -> bool {
        let idle = || self.shared.exchanges.lock().unwrap().iter().all(|e| e.finished || e.client_left);
        events::wait(deadline, || idle().then_some(())).is_some()
    }

    /// Whether the client left request `index` before its reply was over.
    pub fn client_left(&self, index: usize) -> bool {
        self.shared.exchanges.lock().unwrap().get(index).is_some_and(|exchange| exchange.client_left)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        events::notify();
        if !std::thread::panicking() {
            let complaints = self.shared.complaints.lock().unwrap();
            assert!(complaints.is_empty(), "the script of the upstream stopped at {complaints:#?}");
        }
    }
}

fn summary(request: &Recorded) -> String {
    let text = request.json.to_string();
    let end: String = text.chars().skip(text.chars().count().saturating_sub(400)).collect();
    format!("{} {} …{end}", request.method, request.path)
}

fn serve(connection: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let index = record(shared, request);
        let request = shared.exchanges.lock().unwrap()[index].request.clone();
        let reply = ask(shared, &request);
        // Seen for a test that waits for the request: the script has answered it.
        events::notify();
        watch_client(&connection, shared, index)?;
        let kept = play(&connection, shared, index, reply);
        let mut all = shared.exchanges.lock().unwrap();
        match kept {
            Ok(kept) => {
                all[index].finished |= !all[index].client_left;
                drop(all);
                events::notify();
                if !kept {
                    return Ok(());
                }
            }
            Err(_) => {
                all[index].client_left = true;
                drop(all);
                events::notify();
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Asks the script. One that panics is answered for, and told when the upstream is dropped.
fn ask(shared: &Shared, request: &Recorded) -> Reply {
    let mut script = shared.script.lock().unwrap();
    catch_unwind(AssertUnwindSafe(|| script(request))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("the script panicked").to_owned();
        shared.complaints.lock().unwrap().push(format!("request {}: {text}", request.index));
        Reply::error(400, "script", "script_panicked", &text)
    })
}

fn record(shared: &Shared, mut request: Recorded) -> usize {
    let mut all = shared.exchanges.lock().unwrap();
    request.index = all.len();
    let index = request.index;
    all.push(Exchange { request, finished: false, client_left: false });
    index
}

/// Marks the exchange when the client leaves before the reply is over.
fn watch_client(connection: &TcpStream, shared: &Arc<Shared>, index: usize) -> std::io::Result<()> {
    let connection = connection.try_clone()?;
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        if matches!(connection.peek(&mut [0]), Ok(0) | Err(_)) {
            let mut all = shared.exchanges.lock().unwrap();
            all[index].client_left = !all[index].finished;
            drop(all);
            events::notify();
        }
    });
    Ok(())
}

/// Plays the steps. `Ok(true)`: the connection may serve another request.
fn play(mut connection: &TcpStream, shared: &Shared, index: usize, reply: Reply) -> std::io::Result<bool> {
    let left = || shared.exchanges.lock().unwrap()[index].client_left || shared.stop.load(Ordering::SeqCst);
    for step in reply.steps {
        match step {
            Step::Send(bytes) => connection.write_all(&bytes)?,
            Step::Wait(gate) => {
                events::wait(events::DEADLINE, || (gate.is_open() || left()).then_some(()));
            }
            Step::Pause(time) => {
                events::wait(time, || left().then_some(()));
            }
            Step::Stall => {
                events::wait(events::DEADLINE, || left().then_some(()));
                return Ok(false);
            }
            Step::Reset => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(&connection, nix::sys::socket::sockopt::Linger, &linger)?;
                shared.exchanges.lock().unwrap()[index].finished = true;
                // The watcher holds a copy of the socket; this wakes it, and the last copy closed sends the RST.
                drop(connection.shutdown(Shutdown::Read));
                return Ok(false);
            }
            Step::Close => {
                shared.exchanges.lock().unwrap()[index].finished = true;
                connection.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Recorded>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut body = Vec::new();
    if let Some(length) = value("content-length").and_then(|v| v.parse().ok()) {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    } else if value("transfer-encoding").is_some() {
        body = read_chunked(reader)?;
    }
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Some(Recorded { index: 0, method, path, headers, json }))
}

/// A chunked body, without its trailers.
pub fn read_chunked(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        let at = body.len();
        body.resize(at + size, 0);
        reader.read_exact(&mut body[at..])?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}
