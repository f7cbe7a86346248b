//! Reads one answer from its raw bytes and checks all of it: status, chunks, events, text, stamps, one end.

use memchr::{memchr, memmem};

use super::{
    protocols::AFTER_THOUGHTS,
    script::{Kind, STAMP, Script, stamp},
};

/// What was seen of a good answer. Times in nanoseconds.
#[derive(Debug)]
pub struct Seen {
    /// The moment of the first piece.
    pub first_text: u64,
    /// Of each piece: when it came, and how long after its stamp.
    pub pieces: Vec<(u64, u64)>,
    /// The first piece was there before the second was written.
    pub streamed: bool,
}

enum Stage {
    Head,
    Size,
    Data(usize),
    /// The body, of known length.
    Rest(usize),
    /// The line break behind a chunk's data.
    After,
    Over,
}

/// An answer in the making.
pub struct Reader {
    script: Script,
    stage: Stage,
    raw: Vec<u8>,
    /// The body from the first event that is not whole yet.
    body: Vec<u8>,
    /// What came in the channel of the pieces, as it stands in JSON.
    text: Vec<u8>,
    /// What came in the channel of text, if that is another.
    last_text: Vec<u8>,
    first_text: Option<u64>,
    pieces: Vec<(u64, u64)>,
    ends: usize,
}

impl Reader {
    /// For an answer that is to be that script.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            stage: Stage::Head,
            raw: Vec::with_capacity(16 * 1024),
            body: Vec::new(),
            text: Vec::with_capacity(script.len()),
            last_text: Vec::new(),
            first_text: None,
            pieces: Vec::with_capacity(script.deltas),
            ends: 0,
        }
    }

    /// Where the next bytes are to be appended; then call [`Reader::take`].
    pub fn room(&mut self) -> &mut Vec<u8> {
        &mut self.raw
    }

    /// Whether a piece has come.
    pub fn begun(&self) -> bool {
        self.first_text.is_some()
    }

    /// Takes what came at that moment. True once the answer is over.
    pub fn take(&mut self, moment: u64) -> Result<bool, String> {
        let raw = std::mem::take(&mut self.raw);
        let mut at = 0;
        loop {
            match self.stage {
                Stage::Head => {
                    let Some(end) = memmem::find(&raw[at..], b"\r\n\r\n") else { break };
                    let head = String::from_utf8_lossy(&raw[at..at + end]).to_ascii_lowercase();
                    // An answer that is over before its head went out has a length.
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                    self.stage = match length {
                        _ if !head.starts_with("http/1.1 200 ") => return Err(one_line(&raw[at..])),
                        Some(length) => Stage::Rest(length),
                        None if head.contains("transfer-encoding: chunked") => Stage::Size,
                        None => return Err(format!("no end can be known: {}", one_line(&raw[at..]))),
                    };
                    at += end + 4;
                }
                Stage::Size => {
                    let Some(end) = memchr(b'\n', &raw[at..]) else { break };
                    let line = String::from_utf8_lossy(&raw[at..at + end]);
                    let size = usize::from_str_radix(line.trim(), 16).map_err(|_| format!("no chunk size: {line}"))?;
                    at += end + 1;
                    self.stage = if size == 0 { Stage::Over } else { Stage::Data(size) };
                }
                Stage::Data(size) => {
                    let part = size.min(raw.len() - at);
                    if part == 0 {
                        break;
                    }
                    self.body.extend_from_slice(&raw[at..at + part]);
                    at += part;
                    self.stage = if part == size { Stage::After } else { Stage::Data(size - part) };
                }
                Stage::Rest(size) => {
                    let part = size.min(raw.len() - at);
                    self.body.extend_from_slice(&raw[at..at + part]);
                    at += part;
                    if part == size {
                        return self.over(raw.len() - at, moment);
                    }
                    self.stage = Stage::Rest(size - part);
                    break;
                }
                Stage::After | Stage::Over => {
                    if raw.len() - at < 2 {
                        break;
                    }
                    if &raw[at..at + 2] != b"\r\n" {
                        return Err("a chunk is longer than it says".to_owned());
                    }
                    at += 2;
                    if let Stage::Over = self.stage {
                        return self.over(raw.len() - at, moment);
                    }
                    self.stage = Stage::Size;
                }
            }
        }
        self.raw = raw;
        self.raw.drain(..at);
        self.events(moment)?;
        Ok(false)
    }

    fn over(&mut self, behind: usize, moment: u64) -> Result<bool, String> {
        self.events(moment)?;
        if behind > 0 || !self.body.is_empty() {
            return Err("something follows the end".to_owned());
        }
        Ok(true)
    }

    fn events(&mut self, moment: u64) -> Result<(), String> {
        let body = std::mem::take(&mut self.body);
        let mut at = 0;
        while let Some(end) = memmem::find(&body[at..], b"\n\n") {
            self.event(&body[at..at + end], moment)?;
            at += end + 2;
        }
        self.body = body;
        self.body.drain(..at);
        Ok(())
    }

    fn event(&mut self, event: &[u8], moment: u64) -> Result<(), String> {
        let Some(name) = event.strip_prefix(b"event: ") else { return Ok(()) };
        let name = &name[..memchr(b'\n', name).unwrap_or(name.len())];
        if self.ends > 0 {
            return Err(format!("{} follows the end", String::from_utf8_lossy(name)));
        }
        match (name, self.script.kind) {
            (b"response.output_text.delta", Kind::Text)
            | (b"response.reasoning_summary_text.delta", Kind::Thoughts)
            | (b"response.function_call_arguments.delta", Kind::Call) => self.piece(delta(event)?, moment),
            (b"response.output_text.delta", Kind::Thoughts) => self.last_text.extend_from_slice(delta(event)?),
            (b"response.completed", _) => {
                self.ends += 1;
                if memmem::find(event, &self.text).is_none() {
                    return Err("the last event does not hold the text".to_owned());
                }
            }
            (b"response.failed" | b"response.incomplete" | b"error", _) => {
                return Err(one_line(event));
            }
            _ => {}
        }
        Ok(())
    }

    fn piece(&mut self, text: &[u8], moment: u64) {
        self.text.extend_from_slice(text);
        // A target may join pieces or cut them: one has come when its last byte has.
        while self.pieces.len() < self.script.deltas
            && self.text.len() >= self.script.stamp_at(self.pieces.len()) + self.script.bytes
        {
            let at = self.script.stamp_at(self.pieces.len());
            // A stamp that is none shows at the end.
            let written = stamp(&self.text[at..at + STAMP]).unwrap_or(moment);
            self.pieces.push((moment, moment.saturating_sub(written)));
            self.first_text.get_or_insert(moment);
        }
    }

    /// Judges what has come of an answer that the client gives up.
    pub fn give_up(self) -> Result<Seen, String> {
        self.script.check_begun(&self.text)?;
        Ok(Seen { first_text: self.first_text.ok_or("no text")?, pieces: self.pieces, streamed: true })
    }

    /// Judges the whole.
    pub fn finish(self) -> Result<Seen, String> {
        self.script.check(&self.text)?;
        if self.ends != 1 {
            return Err(format!("{} ends", self.ends));
        }
        if self.script.kind == Kind::Thoughts && self.last_text != AFTER_THOUGHTS.as_bytes() {
            return Err("the text after the thoughts is another".to_owned());
        }
        let first_text = self.first_text.ok_or("no text")?;
        let second = (self.script.deltas > 1).then(|| stamp(&self.text[self.script.stamp_at(1)..])).flatten();
        Ok(Seen { first_text, pieces: self.pieces, streamed: second.is_none_or(|written| first_text < written) })
    }
}

/// The string of the member `delta`, as it stands there.
fn delta(event: &[u8]) -> Result<&[u8], String> {
    const MEMBER: &[u8] = b"\"delta\":\"";
    let from = memmem::find(event, MEMBER).ok_or("a delta has none")? + MEMBER.len();
    let mut at = from;
    loop {
        let quote = memchr(b'"', &event[at..]).ok_or("a delta has no end")? + at;
        let escapes = event[from..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        if escapes % 2 == 0 {
            return Ok(&event[from..quote]);
        }
        at = quote + 1;
    }
}

/// For people.
fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}
