//! A message bus of its own for a test, and a client on it.

use super::scratch;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use zbus::export::futures_core::Stream;
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant, connection, message};

pub const NAME: &str = "org.codexproxy.Proxy1";
pub const PATH: &str = "/org/codexproxy/Proxy1";

/// `a{sv}`
pub type Facts = HashMap<String, OwnedVariant>;

/// A running bus; ends when dropped.
pub struct Bus {
    child: Child,
    socket: String,
    home: tempfile::TempDir,
}

impl Bus {
    /// Starts one, or says that there is none to start.
    pub fn start() -> Option<Self> {
        let home = scratch();
        let socket = format!("unix:path={}", home.path().join("bus").display());
        let Ok(child) = spawn(&socket, home.path()) else {
            super::skip("dbus-daemon");
            return None;
        };
        Some(Self { child, socket, home })
    }

    /// For `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.socket
    }

    /// Kills the bus.
    pub fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(self.socket.trim_start_matches("unix:path=")));
    }

    /// Kills the bus and starts another at the same address.
    pub fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.socket, self.home.path()).unwrap();
    }

    /// From now on the bus starts `command` for whoever calls a name that nobody has.
    pub async fn offer(&self, name: &str, command: &str) {
        let services = self.home.path().join("dbus-1/services");
        std::fs::create_dir_all(&services).unwrap();
        let service = format!("[D-BUS Service]\nName={name}\nExec={command}\n");
        std::fs::write(services.join(format!("{name}.service")), service).unwrap();
        let connection = self.connect().await;
        zbus::fdo::DBusProxy::new(&connection).await.unwrap().reload_config().await.unwrap();
    }

    /// A client's connection.
    pub async fn connect(&self) -> Connection {
        connection::Builder::address(self.socket.as_str()).build().await.unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(address: &str, home: &Path) -> std::io::Result<Child> {
    let mut child = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--print-address=1", "--address", address])
        .env("XDG_DATA_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It prints the address once it listens.
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    assert!(line.contains("unix:path="), "the bus did not start: {line}");
    Ok(child)
}

/// Runs a test that talks to a bus.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Longer than anything here takes.
        tokio::time::timeout(2 * super::events::DEADLINE, test).await.expect("the test has ended")
    })
}

/// The proxy's generic face.
pub async fn proxy(connection: &Connection) -> zbus::Proxy<'static> {
    face(connection, NAME, PATH).await
}

/// The generic face of an object whose interface has the name of its owner.
pub async fn face(connection: &Connection, name: &'static str, path: &'static str) -> zbus::Proxy<'static> {
    zbus::proxy::Builder::new(connection)
        .destination(name)
        .path(path)
        .interface(name)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .unwrap()
}

/// The name of the error that a call ended with.
pub fn error_name<T>(result: zbus::Result<T>) -> String {
    match result.err().expect("an error") {
        zbus::Error::MethodError(name, _, _) => name.to_string(),
        other => panic!("{other}"),
    }
}

/// Signals of an object, from now on.
pub struct Signals(MessageStream);

impl Signals {
    /// Those of the proxy's object, of that interface and member.
    pub async fn of(connection: &Connection, interface: &'static str, member: &'static str) -> Self {
        let rule = MatchRule::builder().path(PATH).interface(interface).member(member);
        Self::like(connection, rule).await
    }

    /// Those that fit.
    pub async fn like(connection: &Connection, rule: zbus::match_rule::Builder<'static>) -> Self {
        let queue = NonZeroUsize::new(1000);
        let rule = rule.msg_type(message::Type::Signal).build().unwrap();
        Self(MessageStream::for_match_rule(rule, connection, queue).await.unwrap())
    }

    /// The next one, or `None` if none comes within `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<zbus::Message> {
        let next = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx));
        tokio::time::timeout(limit, next).await.ok().flatten().map(|message| message.unwrap())
    }
}

/// A text of an `a{sv}`.
pub fn text(facts: &Facts, name: &str) -> Option<String> {
    facts.get(name).map(|value| String::try_from(value.try_clone().unwrap()).unwrap())
}
