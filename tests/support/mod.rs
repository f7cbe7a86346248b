//! What the tests stand on: a scripted upstream, the built proxy in a home of its own, the real Codex in another.
//!
//! Everything is plain threads and blocking sockets, and everything that happens is announced through [`events`], so a
//! test waits for a thing to be so, up to a deadline, and never for time to pass.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod app_server;
pub mod bus;
pub mod chat;
pub mod codex;
pub mod contract;
pub mod desk;
pub mod events;
pub mod gemini;
pub mod golden;
pub mod http;
pub mod manager;
pub mod messages;
pub mod process;
pub mod proxy;
pub mod responses;
pub mod streams;
pub mod strict;
pub mod tui;
pub mod upstream;
pub mod vendor;
pub mod watchdog;

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A value that `tests/setup.sh` left: from the environment, else from the file it writes.
pub fn facility(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty()).or_else(|| {
        let text = std::fs::read_to_string(root().join("tests/.setup/env")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    })
}

/// Says aloud that a test is skipped for want of `what`; fails it where the run promised that all is there.
pub fn skip(what: &str) {
    assert!(
        std::env::var_os("CODEX_PROXY_TESTS_STRICT").is_none(),
        "{what} is missing, though this run was to have everything: see tests/setup.sh"
    );
    eprintln!("SKIPPED: {what} is missing; run tests/setup.sh");
}

/// The real Codex, or a loud word and `None`.
pub fn codex_bin() -> Option<PathBuf> {
    let found = facility("CODEX_BIN").map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        skip("the Codex program (CODEX_BIN)");
    }
    found
}

/// A directory that vanishes with the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("codex-proxy-it.").tempdir().unwrap()
}

/// A port on which nobody listens (it was free a moment ago).
pub fn unused_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Variables that make every program of a test go straight to loopback and speak plain text.
pub fn quiet_env() -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    [
        ("PATH", path.as_str()),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm"),
        ("TZ", "UTC"),
        ("NO_PROXY", "127.0.0.1,localhost"),
        ("no_proxy", "127.0.0.1,localhost"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A picture of one red pixel, for what carries images.
pub const PIXEL_PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x02, 0x00, 0x00, 0x00, 0x90, 0x77, 0x53, 0xde, 0x00, 0x00, 0x00, 0x0c, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0, 0x00, 0x00, 0x03, 0x01, 0x01, 0x00, 0xc9, 0xfe, 0x92, 0xef,
    0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];
