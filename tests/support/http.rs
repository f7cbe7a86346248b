//! A plain HTTP/1.1 client: one request, one connection, the answer as it came. For what needs no Codex.

use super::events;
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How the body of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// As the head promised.
    Whole,
    /// The connection was closed or reset before.
    Broken,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: BodyEnd,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// The events of the body, in order. A last frame without its empty line does not count.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind("\n\n").map_or("", |at| &text[..at]);
        let data = whole.split("\n\n").filter_map(|frame| {
            let lines: Vec<&str> = frame.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        });
        data.map(|data| serde_json::from_str(&data).unwrap_or_else(|e| panic!("no JSON ({e}): {data}"))).collect()
    }

    /// Asserts that a stream ended in order with exactly one terminal event, which comes last, and returns it.
    pub fn terminal(&self) -> Value {
        let events = self.events();
        assert_eq!(self.end, BodyEnd::Whole, "the body was broken off: {}", self.text());
        let is_terminal = |event: &Value| {
            matches!(event["type"].as_str(), Some("response.completed" | "response.failed" | "response.incomplete"))
        };
        let terminal: Vec<&Value> = events.iter().filter(|event| is_terminal(event)).collect();
        assert_eq!(terminal.len(), 1, "one terminal event: {}", self.text());
        assert!(events.last().is_some_and(is_terminal), "the terminal event is last: {}", self.text());
        terminal[0].clone()
    }

    /// Whole items, as a client that acts on them sees them.
    pub fn items(&self) -> Vec<Value> {
        let done = |event: &Value| event["type"] == "response.output_item.done";
        self.events().into_iter().filter(done).map(|event| event["item"].clone()).collect()
    }
}

/// Sends a request and reads the whole answer. `Err` when no head came.
pub fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> std::io::Result<Answer> {
    let mut reader = BufReader::new(open(address, method, path, headers, body)?);
    read_answer(&mut reader)
}

/// Sends a request and leaves the reading to the test.
pub fn open(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> std::io::Result<TcpStream> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(events::DEADLINE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    connection.write_all(text.as_bytes())?;
    Ok(connection)
}

/// Reads an answer to its end, however it ends.
pub fn read_answer(reader: &mut BufReader<TcpStream>) -> std::io::Result<Answer> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut body = Vec::new();
    let end = if value("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        chunks(reader, &mut body)
    } else if let Some(length) = value("content-length").and_then(|v| v.parse::<u64>().ok()) {
        reader
            .take(length)
            .read_to_end(&mut body)
            .and_then(|n| if n as u64 == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) })
    } else {
        reader.read_to_end(&mut body).map(drop)
    };
    let end = match end {
        Ok(()) => BodyEnd::Whole,
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => BodyEnd::Broken,
        Err(error) => return Err(error),
    };
    Ok(Answer { status, headers, body, end })
}

fn chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
        let at = body.len();
        body.resize(at + size, 0);
        reader.read_exact(&mut body[at..])?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Waits until the peer closes, and says within what time.
pub fn closed_within(connection: &TcpStream, limit: Duration) -> bool {
    connection.set_read_timeout(Some(limit)).unwrap();
    let mut rest = Vec::new();
    let mut reader = connection;
    !matches!(reader.read_to_end(&mut rest), Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}
