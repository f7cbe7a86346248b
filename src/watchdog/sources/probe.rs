//! One look at the proxy from outside: `GET /health` on its port, `Ping` on the bus.
//!
//! A probe connects, and a connection starts a service that was stopped: it is made only when the caller knows from the
//! manager that the unit is active. The two together tell a hung process from a full backlog.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use zbus::{Connection, proxy::MethodFlags};

use super::units::error_name;
use crate::{
    bus,
    watchdog::signal::{Health, Ping},
};

/// For a connection, and for the whole answer.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
const PING_LIMIT: Duration = Duration::from_secs(2);
/// The page grows with the models that are configured.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Asks for `/health` on `127.0.0.1:port`, over a connection of its own, within five seconds. `pid` is the unit's main
/// process and goes into the answer; 0 if unknown.
pub async fn health(port: u16, pid: u32) -> Health {
    health_within(port, pid, HEALTH_LIMIT).await
}

/// As [`health`], with another limit.
pub async fn health_within(port: u16, pid: u32, limit: Duration) -> Health {
    let began = Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(error.kind()),
        Err(_) => return Health::Backlog,
    };
    let mut answer = Vec::new();
    let rest = limit.saturating_sub(began.elapsed());
    match timeout(rest, exchange(stream, port, &mut answer)).await {
        Ok(Ok(())) if is_healthy(&answer) => {
            let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            Health::Served { elapsed_us, pid }
        }
        Ok(Ok(()) | Err(_)) if answer.is_empty() => Health::Dropped,
        Ok(Ok(())) if answer_is_cut(&answer) => Health::Dropped,
        Ok(Ok(())) => Health::Foreign,
        Ok(Err(_)) => Health::Dropped,
        Err(_) if answer.is_empty() => Health::Silent,
        // It began to answer: neither dead nor well.
        Err(_) => Health::Unknown,
    }
}

const fn refused(kind: ErrorKind) -> Health {
    match kind {
        ErrorKind::ConnectionRefused => Health::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Health::Dropped,
        // The kernel gave up before our limit.
        ErrorKind::TimedOut => Health::Backlog,
        // No descriptor, no port of our own …: our trouble, not the proxy's.
        _ => Health::Unknown,
    }
}

/// Asks, and reads until the other side closes or says more than it should.
async fn exchange(mut stream: TcpStream, port: u16, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let request = format!(
        "GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: codex-watchdog/{}\r\nAccept: application/json\r\n\
         Connection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await?;
    while answer.len() < ANSWER_BYTES_MAX {
        if stream.read_buf(answer).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// The head's first line and its fields, and the body; `None`: the head is not whole, or no HTTP.
fn parts(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

/// 200, and the page of a proxy of ours.
fn is_healthy(answer: &[u8]) -> bool {
    let Some((head, body)) = parts(answer) else { return false };
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let status = words.next().is_some_and(|word| word.starts_with("HTTP/1.")) && words.next() == Some("200");
    let page = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    status && page.get("ok").is_some_and(|ok| ok == true) && page.get("state").is_some_and(serde_json::Value::is_string)
}

/// Whether an answer in HTTP ends before its `Content-Length`.
fn answer_is_cut(answer: &[u8]) -> bool {
    let Some((head, body)) = parts(answer) else { return answer.starts_with(b"HTTP/1.") };
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() < length)
}

/// Calls `Ping` of the proxy on the bus, within two seconds; it starts nothing. No connection: [`Ping::Unknown`].
pub async fn ping(connection: Option<&Connection>) -> Ping {
    let Some(connection) = connection else { return Ping::Unknown };
    match timeout(PING_LIMIT, call(connection)).await {
        Ok(Ok(())) => Ping::Answered,
        // The connection's own limit is the same.
        Ok(Err(zbus::Error::InputOutput(error))) if error.kind() == ErrorKind::TimedOut => Ping::Silent,
        Ok(Err(error)) => match error_name(&error).as_deref() {
            Some("org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner") => {
                Ping::Nobody
            }
            // Also `NoReply`: the other side went away before it answered.
            _ => Ping::Unknown,
        },
        Err(_) => Ping::Silent,
    }
}

async fn call(connection: &Connection) -> zbus::Result<()> {
    let proxy: zbus::Proxy<'_> = zbus::proxy::Builder::new(connection)
        .destination(bus::NAME)
        .path(bus::PATH)
        .interface(bus::NAME)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let _: Option<u64> = proxy.call_with_flags("Ping", MethodFlags::NO_AUTO_START, &()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    const SHORT: Duration = Duration::from_millis(300);

    /// One connection, answered so; then closed, or held until the probe is over.
    async fn meets(answer: &'static str, hold: bool) -> Health {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).unwrap();
            if hold {
                // Until the other side goes.
                drop(stream.read(&mut request));
            }
        });
        let health = health_within(port, 7, if hold { SHORT } else { HEALTH_LIMIT }).await;
        server.join().unwrap();
        health
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"ok\":true,\"state\":\"ready\"}";
        assert!(matches!(meets(PAGE, false).await, Health::Served { pid: 7, elapsed_us: 1.. }));
        assert_eq!(meets("", true).await, Health::Silent);
        assert_eq!(meets("", false).await, Health::Dropped);
        assert_eq!(meets("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", false).await, Health::Dropped);
        assert_eq!(meets("HTTP/1.1 200 O", false).await, Health::Dropped);
        assert_eq!(meets("HTTP/1.1 200 O", true).await, Health::Unknown);
        assert_eq!(meets("HTTP/1.1 200 OK\r\n\r\n<html>", false).await, Health::Foreign);
        assert_eq!(meets("HTTP/1.1 404 Not Found\r\n\r\n{\"ok\":true,\"state\":\"x\"}", false).await, Health::Foreign);
        assert_eq!(meets("SSH-2.0-OpenSSH_9.2\r\n", false).await, Health::Foreign);
    }

    #[tokio::test]
    async fn nobody_and_a_full_backlog_are_not_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(health_within(port, 0, SHORT).await, Health::Refused);

        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(SHORT, TcpStream::connect(address)).await {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the backlog is never full");
        }
        assert_eq!(health_within(address.port(), 0, SHORT).await, Health::Backlog);
        assert_eq!(ping(None).await, Ping::Unknown);
    }
}
