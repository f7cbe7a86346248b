//! The built proxy, started as a user would by hand: a configuration file, a port, a home of its own.

use super::{codex::Endpoint, events, http, process::Running, quiet_env, scratch, upstream::Upstream};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A running proxy; killed when dropped.
pub struct Proxy {
    running: Running,
    address: String,
    home: tempfile::TempDir,
}

/// The usual configuration: one provider in a dialect, one model `work`.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `[proxy]`, without the header.
    pub proxy: String,
    /// The host's dialect.
    pub dialect: &'static str,
    /// The upstream's name of the model.
    pub upstream_model: &'static str,
    /// Further keys of `[models.work]`.
    pub model: String,
    /// Another `base_url` than the upstream's.
    pub base_url: Option<String>,
    /// What else stands in the file.
    pub more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            proxy: String::new(),
            dialect: "deepseek",
            upstream_model: "deepseek-v4-pro",
            model: String::new(),
            base_url: None,
            more: String::new(),
        }
    }
}

impl Setup {
    /// The configuration file for that upstream.
    pub fn toml(&self, upstream_url: &str) -> String {
        let base_url = self.base_url.as_deref().unwrap_or(upstream_url);
        let Self { proxy, dialect, upstream_model, model, more, .. } = self;
        format!(
            "[proxy]\n{proxy}\n[providers.up]\nbase_url = \"{base_url}\"\ndialect = \"{dialect}\"\n\
             accounts = [{{ name = \"main\", key = {{ env = \"UP_KEY\" }} }}]\n\
             [models.work]\nroutes = [\"up/{upstream_model}\"]\n{model}\n{more}\n"
        )
    }

    /// A proxy before that upstream.
    pub fn start(&self, upstream: &Upstream) -> Proxy {
        Proxy::start(&self.toml(&upstream.base_url()), &[("UP_KEY", "sk-test-upstream")])
    }
}

impl Proxy {
    /// Starts with that configuration and these further variables, and waits until it listens.
    pub fn start(config: &str, env: &[(&str, &str)]) -> Self {
        Self::start_logging(config, env, "info")
    }

    /// The same with another level of the log.
    pub fn start_logging(config: &str, env: &[(&str, &str)], level: &str) -> Self {
        Self::launch(Command::new(proxy_bin()), config, env, level)
    }

    /// That program, by nobody's wish and in a session of its own: no terminal, no bus, no model.
    pub fn leftover(program: &Path) -> Self {
        let mut command = Command::new("setsid");
        command.arg(program);
        Self::launch(command, "", &[], "info")
    }

    /// Ends it by that signal and starts another one in its home.
    pub fn restarted(self, signal: Signal, env: &[(&str, &str)]) -> Self {
        self.restarted_after(signal, env, || {})
    }

    /// The same; between the two, something else is done.
    pub fn restarted_after(mut self, signal: Signal, env: &[(&str, &str)], between: impl FnOnce()) -> Self {
        self.running.signal(signal);
        self.running.wait_exit();
        between();
        Self::run(Command::new(proxy_bin()), self.home, env, "info")
    }

    fn launch(command: Command, config: &str, env: &[(&str, &str)], level: &str) -> Self {
        let home = scratch();
        std::fs::write(home.path().join("config.toml"), config).unwrap();
        Self::run(command, home, env, level)
    }

    fn run(mut command: Command, home: tempfile::TempDir, env: &[(&str, &str)], level: &str) -> Self {
        let file = home.path().join("config.toml");
        command
            .args(["--log", level, "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .env_clear()
            .envs(quiet_env())
            .envs(isolated(home.path()))
            .envs(env.iter().copied());
        let running = Running::start("the proxy", &mut command);
        let address = running.wait(events::DEADLINE, |log| log.lines().find_map(listening));
        Self { running, address: address.expect("the proxy listens"), home }
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://127.0.0.1:PORT/v1`
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it keeps the token.
    pub fn token_path(&self) -> PathBuf {
        self.home.path().join("state/codex-proxy/token")
    }

    /// The token.
    pub fn token(&self) -> String {
        let path = self.token_path();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }

    /// What a Codex needs to know.
    pub fn endpoint(&self) -> Endpoint {
        self.token();
        Endpoint { base_url: self.base_url(), token_path: self.token_path() }
    }

    /// Its directory: `config.toml`, `state/`, `cache/`, `run/`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        self.running.log()
    }

    /// Waits for a text in its log.
    pub fn wait_log(&self, text: &str, deadline: Duration) -> bool {
        self.running.wait_log(text, deadline)
    }

    /// Waits until its log answers the question.
    pub fn wait_told<T>(&self, deadline: Duration, question: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.running.wait(deadline, question)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        self.running.lives()
    }

    /// Asks it to stop.
    pub fn sigterm(&self) {
        self.running.signal(Signal::SIGTERM);
    }

    /// Asks it to read its configuration again.
    pub fn sighup(&self) {
        self.running.signal(Signal::SIGHUP);
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        self.running.wait_exit()
    }

    /// Sends a request with the token.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<http::Answer> {
        let bearer = format!("Bearer {}", self.token());
        http::send(&self.address, method, path, &[("authorization", &bearer)], body)
    }

    /// Sends a streaming `/v1/responses` request with the token.
    pub fn responses(&self, body: &Value) -> http::Answer {
        self.send("POST", "/v1/responses", Some(body)).unwrap_or_else(|e| panic!("no answer ({e}): {}", self.log()))
    }
}

/// The proxy that was just built, or another one, such as an installed one, by `CODEX_PROXY_BIN`.
fn proxy_bin() -> PathBuf {
    std::env::var_os("CODEX_PROXY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_codex-proxy").into(), PathBuf::from)
}

/// The variables that keep a program inside `home`.
pub fn isolated(home: &Path) -> Vec<(String, PathBuf)> {
    let dir = |name: &str, part: &str| {
        let path = home.join(part);
        std::fs::create_dir_all(&path).unwrap();
        (name.to_owned(), path)
    };
    let mut all = vec![
        dir("XDG_CONFIG_HOME", "config"),
        dir("XDG_STATE_HOME", "state"),
        dir("XDG_CACHE_HOME", "cache"),
        dir("XDG_DATA_HOME", "data"),
        dir("XDG_RUNTIME_DIR", "run"),
        dir("TMPDIR", "tmp"),
    ];
    all.push(("HOME".to_owned(), home.to_owned()));
    all
}

fn listening(line: &str) -> Option<String> {
    let (_, after) = line.split_once("listening")?;
    let at = after.find("127.0.0.1:")?;
    let address: String = after[at..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    // A line may come in two writes, but it ends before it is looked at.
    let port = address.rsplit(':').next()?;
    (!port.is_empty() && port != "0").then_some(address)
}
