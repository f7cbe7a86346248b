//! The real Codex, in a home and a work directory of its own.

use super::{codex_bin, events, facility, proxy::isolated, quiet_env, root, scratch};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A Responses provider: where it is, and which file holds its token.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `http://127.0.0.1:PORT/v1`
    pub base_url: String,
    /// The token.
    pub token_path: PathBuf,
}

/// An installed client.
pub struct Codex {
    bin: PathBuf,
    home: tempfile::TempDir,
    /// `stream_max_retries` of the provider.
    pub stream_max_retries: u32,
    /// The model that is asked for.
    pub model: String,
    /// What the provider calls itself: from "OpenAI" alone Codex expects what only OpenAI has.
    pub provider_name: String,
    /// Top-level keys of its configuration, before the tables.
    pub keys: String,
    /// Further tables.
    pub tables: String,
    /// A limit on one run: a Codex that hangs is ended then, and the run says so.
    pub limit: Duration,
    endpoint: Endpoint,
}

/// What one `codex exec` did.
#[derive(Debug)]
pub struct Run {
    /// The JSON lines.
    pub events: Vec<Value>,
    /// Its standard error.
    pub stderr: String,
    /// `None`: ended by a signal, or by the limit.
    pub exit: Option<i32>,
    /// Whether the limit ended it.
    pub timed_out: bool,
    /// How long it took.
    pub wall: Duration,
}

impl Codex {
    /// A client of that provider; `None`, said aloud, where Codex is not installed.
    pub fn new(endpoint: Endpoint) -> Option<Self> {
        let bin = codex_bin()?;
        let home = scratch();
        std::fs::create_dir_all(home.path().join("work")).unwrap();
        std::fs::create_dir_all(home.path().join("codex")).unwrap();
        Some(Self {
            bin,
            home,
            stream_max_retries: 2,
            model: "work".to_owned(),
            provider_name: "codex-proxy".to_owned(),
            keys: String::new(),
            tables: String::new(),
            limit: Duration::from_secs(60),
            endpoint,
        })
    }

    /// Where it works.
    pub fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// A file of the work directory, or nothing.
    pub fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.work().join(name)).ok()
    }

    /// The program.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Declares the test MCP server `echo`, with tools `echo_it` and `pic`.
    pub fn with_mcp_echo(mut self) -> Self {
        let python = facility("OPENAI_PYTHON").unwrap_or_else(|| "python3".to_owned());
        let script = root().join("tests/support/mcp_echo.py");
        self.tables +=
            &format!("[mcp_servers.echo]\ncommand = {python:?}\nargs = [{:?}]\n", script.display().to_string());
        self
    }

    /// Its `config.toml`.
    pub fn config(&self) -> String {
        let Self { model, keys, tables, stream_max_retries, endpoint, provider_name, .. } = self;
        let (base_url, token) = (&endpoint.base_url, endpoint.token_path.display().to_string());
        let work = self.work().display().to_string();
        format!(
            r#"model = {model:?}
model_provider = "codex-proxy"
check_for_update_on_startup = false
{keys}
[analytics]
enabled = false
[projects.{work:?}]
trust_level = "trusted"
[model_providers.codex-proxy]
name = {provider_name:?}
base_url = {base_url:?}
wire_api = "responses"
request_max_retries = 0
stream_max_retries = {stream_max_retries}
stream_idle_timeout_ms = 300000
supports_websockets = false
[model_providers.codex-proxy.auth]
command = "cat"
args = [{token:?}]
{tables}"#
        )
    }

    /// A command of this client, with its configuration written and nothing of the machine's.
    pub fn command(&self) -> Command {
        let home = self.home.path().join("codex");
        std::fs::write(home.join("config.toml"), self.config()).unwrap();
        let mut command = Command::new(&self.bin);
        command.env_clear().envs(quiet_env()).envs(isolated(self.home.path())).env("CODEX_HOME", home);
        command.current_dir(self.work());
        command
    }

    /// `codex exec --json` with that prompt.
    pub fn exec(&self, prompt: &str) -> Run {
        self.exec_with(prompt, &[])
    }

    /// The same with more arguments before the prompt.
    pub fn exec_with(&self, prompt: &str, more: &[&str]) -> Run {
        self.start(prompt, more).finish()
    }

    /// The same, not waited for.
    pub fn start(&self, prompt: &str, more: &[&str]) -> Running {
        let mut command = self.command();
        command.args(["exec", "--json", "--skip-git-repo-check", "-s", "danger-full-access"]);
        // `--`: some options take any number of values.
        command.args(more).args(["--", prompt]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = gather(child.stdout.take().unwrap());
        let stderr = gather(child.stderr.take().unwrap());
        Running { child, stdout, stderr, begun: Instant::now(), limit: self.limit }
    }
}

/// A `codex exec` under way; killed when dropped.
pub struct Running {
    child: Child,
    stdout: std::sync::mpsc::Receiver<Vec<u8>>,
    stderr: std::sync::mpsc::Receiver<Vec<u8>>,
    begun: Instant,
    limit: Duration,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Run {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        // Its output ends with it.
        let first = self.stdout.recv_timeout(left);
        let timed_out = first.is_err();
        if timed_out {
            drop(self.child.kill());
        }
        let stdout = first.unwrap_or_else(|_| self.stdout.recv().unwrap_or_default());
        let status = self.child.wait().unwrap();
        let wall = self.begun.elapsed();
        let stderr = self.stderr.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
        let events = String::from_utf8_lossy(&stdout).lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Run { events, stderr, exit: status.code(), timed_out, wall }
    }
}

impl Drop for Codex {
    /// The TUI leaves a daemon behind, a copy of the program below its home: it ends with the home.
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(self.home.path())) {
                // It may be gone by now, which is what is wanted.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn gather(mut from: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        drop(from.read_to_end(&mut all));
        drop(send.send(all));
        events::notify();
    });
    receive
}

impl Run {
    /// Completed items of that type.
    pub fn items(&self, kind: &str) -> Vec<&Value> {
        let done = self.events.iter().filter(|event| event["type"] == "item.completed");
        done.map(|event| &event["item"]).filter(|item| item["type"] == kind).collect()
    }

    /// The text of the last message.
    pub fn message(&self) -> Option<&str> {
        self.items("agent_message").last().and_then(|item| item["text"].as_str())
    }

    /// Events of that type.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == kind).collect()
    }

    /// What the user was told at the end of a failed turn.
    pub fn failure(&self) -> Option<&str> {
        self.of("turn.failed").first().and_then(|event| event["error"]["message"].as_str())
    }

    /// How often it told the user that it tries again.
    pub fn reconnects(&self) -> usize {
        self.of("error").iter().filter(|e| e["message"].as_str().is_some_and(|m| m.contains("Reconnecting"))).count()
    }

    /// Asserts that the turn succeeded with that last message, and without a word of trouble.
    pub fn succeeded_with(&self, message: &str) {
        assert!(!self.timed_out, "Codex did not end: {self:#?}");
        assert_eq!(self.of("turn.completed").len(), 1, "{self:#?}");
        assert_eq!(self.exit, Some(0), "{self:#?}");
        assert_eq!(self.message(), Some(message), "{self:#?}");
        assert!(self.of("error").is_empty() && self.items("error").is_empty(), "{self:#?}");
    }

    /// Asserts that the turn failed, and gives what the user was told.
    pub fn failed(&self) -> &str {
        assert!(!self.timed_out, "Codex did not end: {self:#?}");
        assert_eq!(self.exit, Some(1), "{self:#?}");
        assert!(self.of("turn.completed").is_empty(), "{self:#?}");
        self.failure().unwrap_or_else(|| panic!("{self:#?}"))
    }
}
