//! The client: one thread, raw sockets kept alive, and nothing counted that was not checked.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::LocalSet,
    time::{sleep, timeout},
};

use super::{
    answer::{Reader, Seen},
    request,
    script::{Script, now},
    upstream::Received,
};

/// No answer takes longer.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What a slow reader takes at a time, and how long it then rests.
const SLOW_BYTES: usize = 16 * 1024;
const SLOW_REST: Duration = Duration::from_millis(100);
/// For what the kernel buffers of streams that are read slowly.
const SETTLE: Duration = Duration::from_secs(1);

/// A request in bytes and the answer it is to get.
#[derive(Debug, Clone)]
pub struct Question {
    bytes: Rc<[u8]>,
    script: Script,
    /// Bytes of the body.
    pub body: usize,
    /// Outputs of tools in the body.
    pub tags: usize,
}

impl Question {
    /// With a body of about `size` bytes.
    pub fn new(script: Script, size: usize, token: &str) -> Self {
        let body = request::body(&script.model(), size);
        let length = body.bytes.len();
        let mut bytes = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: text/event-stream\r\noriginator: codex_exec\r\n\
             session-id: 01a1fac1-0000-7000-8000-000000000001\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(&body.bytes);
        Self { bytes: bytes.into(), script, body: length, tags: body.tags }
    }
}

/// What came of many requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Good answers.
    pub good: usize,
    /// Wrong, lost or failed ones, in words.
    pub bad: Vec<String>,
    /// From the request's first byte to the first piece.
    pub first_text: Vec<u64>,
    /// Of each piece: when it came, and how long after its stamp.
    pub pieces: Vec<(u64, u64)>,
    /// Whether every first piece came before the second was written.
    pub streamed: bool,
    /// From the first request to the end of the last answer.
    pub elapsed: Duration,
}

impl Tally {
    fn add(&mut self, begun: u64, result: Result<Seen, String>) {
        match result {
            Ok(seen) => {
                self.good += 1;
                self.first_text.push(seen.first_text.saturating_sub(begun));
                self.pieces.extend(seen.pieces);
                self.streamed &= seen.streamed;
            }
            Err(what) => self.bad.push(what),
        }
    }
}

/// A connection that is kept.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Connection {
    fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    async fn ask(
        &mut self,
        question: &Question,
        slow: Option<&Cell<bool>>,
        begun: &Cell<bool>,
    ) -> Result<Seen, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let socket = TcpSocket::new_v4().map_err(told)?;
                if slow.is_some() {
                    socket.set_recv_buffer_size(16 * 1024).map_err(told)?;
                }
                let stream = socket.connect(self.address).await.map_err(told)?;
                stream.set_nodelay(true).map_err(told)?;
                stream
            }
        };
        stream.write_all(&question.bytes).await.map_err(told)?;
        let mut reader = Reader::new(question.script);
        loop {
            let room = reader.room();
            let read = if let Some(slow) = slow {
                sleep(SLOW_REST).await;
                if !slow.get() {
                    return reader.give_up();
                }
                (&mut stream).take(SLOW_BYTES as u64).read_buf(room).await
            } else {
                stream.read_buf(room).await
            };
            if read.map_err(told)? == 0 {
                return Err("the connection was closed within an answer".to_owned());
            }
            let over = reader.take(now())?;
            begun.set(begun.get() || reader.begun());
            if over {
                self.stream = Some(stream);
                return reader.finish();
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Asks `total` times, `at_once` at a time, each connection again as soon as it has its answer.
pub fn closed_loop(address: SocketAddr, question: &Question, at_once: usize, total: usize) -> Tally {
    let left = Rc::new(Cell::new(total));
    let tally = Rc::new(RefCell::new(Tally { streamed: true, ..Tally::default() }));
    let begun = std::time::Instant::now();
    run(async {
        let tasks: Vec<_> = (0..at_once.min(total))
            .map(|_| {
                let (left, tally, question) = (Rc::clone(&left), Rc::clone(&tally), question.clone());
                tokio::task::spawn_local(async move {
                    let mut connection = Connection::new(address);
                    while let Some(rest) = left.get().checked_sub(1) {
                        left.set(rest);
                        let begun = now();
                        let asked = timeout(TIME_MAX, connection.ask(&question, None, &Cell::new(false))).await;
                        let result = asked.unwrap_or_else(|_| Err("no end in a minute".to_owned()));
                        tally.borrow_mut().add(begun, result);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let mut tally = tally.take();
    tally.elapsed = begun.elapsed();
    tally
}

/// Opens many streams, some of them read slowly; once all have begun and buffers have had `SETTLE` to fill, watches for
/// so long, calls `look`, and gives up the slow ones. Gives what came of the fast ones, with the pieces that came while
/// it watched, and of the slow ones.
pub fn open_streams(
    address: SocketAddr,
    fast: (&Question, usize),
    slow: (&Question, usize),
    watch: Duration,
    look: impl FnOnce(),
) -> (Tally, Tally) {
    let slowly = Rc::new(Cell::new(true));
    let mut window = (0, 0);
    let tallies = [0, 1].map(|_| Rc::new(RefCell::new(Tally { streamed: true, ..Tally::default() })));
    run(async {
        let mut begun: Vec<Rc<Cell<bool>>> = Vec::new();
        let mut tasks = Vec::new();
        for (at, (question, count)) in [fast, slow].into_iter().enumerate() {
            for _ in 0..count {
                let (question, slowly, tally) = (question.clone(), Rc::clone(&slowly), Rc::clone(&tallies[at]));
                let has_begun = Rc::new(Cell::new(false));
                begun.push(Rc::clone(&has_begun));
                tasks.push(tokio::task::spawn_local(async move {
                    let mut connection = Connection::new(address);
                    let moment = now();
                    let asking = connection.ask(&question, (at == 1).then_some(&*slowly), &has_begun);
                    let result = timeout(TIME_MAX, asking).await;
                    // One that failed is not waited for.
                    has_begun.set(true);
                    tally.borrow_mut().add(moment, result.unwrap_or_else(|_| Err("no end in a minute".to_owned())));
                }));
            }
        }
        while !begun.iter().all(|begun| begun.get()) {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(SETTLE).await;
        window.0 = now();
        sleep(watch).await;
        window.1 = now();
        look();
        slowly.set(false);
        for task in tasks {
            task.await.unwrap();
        }
    });
    let [mut fast, slow] = tallies.map(|tally| tally.take());
    fast.pieces.retain(|(came, _)| (window.0..window.1).contains(came));
    (fast, slow)
}

/// Asks until one good answer came, from a target that is just starting.
pub fn first_answer(address: SocketAddr, question: &Question, limit: Duration) -> Result<(), String> {
    const STEP: Duration = Duration::from_micros(200);
    run(async {
        let ask = async {
            loop {
                match Connection::new(address).ask(question, None, &Cell::new(false)).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.contains("refused") => std::thread::sleep(STEP),
                    Err(error) => return Err(error),
                }
            }
        };
        timeout(limit, ask).await.unwrap_or_else(|_| Err("it did not start".to_owned()))
    })
}

/// What the upstream received so far.
pub fn received(upstream: SocketAddr) -> Received {
    run(async {
        let mut stream = TcpStream::connect(upstream).await.unwrap();
        stream.write_all(b"GET /received HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let mut bytes = Vec::new();
        loop {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the upstream has ended");
            if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n")
                && let Ok(received) = serde_json::from_slice(&bytes[at + 4..])
            {
                return received;
            }
        }
    })
}
