//! `codex-proxyctl` as it is run: the built program, with a home of its own.
//!
//! The tests against the real client say so when they are skipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lints do not know as such")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use codex_proxy::host::cataloguefile;
use codex_proxy::model::demo;
use codex_proxy::proxy::catalogue::{self, Entry};
use serde_json::{Value, json};

use crate::support::codex_bin;

/// A user's home: `HOME`, `XDG_STATE_HOME` and `CODEX_HOME` below one temporary directory.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("codex/config.toml")
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::create_dir_all(self.path("codex")).unwrap();
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn read_config(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    pub(crate) fn isolate(&self, command: &mut Command) {
        command
            .env_clear()
            // Ours first: a test may put programs there.
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", self.0.path())
            // So that nobody meets the service manager of whoever runs the tests.
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("CODEX_HOME", self.path("codex"))
            .current_dir(self.0.path())
            .stdin(Stdio::null());
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Done {
        self.ctl_with(arguments, &[])
    }

    /// With further variables.
    pub(crate) fn ctl_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codex-proxyctl"));
        self.isolate(&mut command);
        Done::of(command.args(arguments).envs(variables.iter().copied()).output().unwrap())
    }

    /// Runs the real client.
    fn codex(&self, codex: &Path, arguments: &[&str]) -> Done {
        let mut command = Command::new(codex);
        self.isolate(&mut command);
        Done::of(command.args(arguments).output().unwrap())
    }
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// One request a scripted server has seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) head: String,
    body: Value,
}

/// Status, content type, body.
pub(crate) type Answer = (u16, &'static str, Vec<u8>);

/// A server on loopback that answers by a function and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        // It ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || {
                    // A client that goes away is its own business.
                    let _ = serve_one(stream, &*answer, &log);
                });
            }
        });
        Self { port, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve_one(stream: TcpStream, answer: &dyn Fn(&Seen) -> Answer, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&header);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let seen = Seen { line: line.trim().to_owned(), head, body: serde_json::from_slice(&body).unwrap_or_default() };
    log.lock().unwrap().push(seen.clone());
    let (status, kind, body) = answer(&seen);
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// A stream of finished items and the end.
fn stream_of(items: &[Value]) -> Answer {
    let mut text =
        String::from(": keep-alive\n\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n");
    for item in items {
        let event = json!({"type": "response.output_item.done", "output_index": 0, "item": item});
        text.push_str(&format!("event: response.output_item.done\ndata: {event}\n\n"));
    }
    text.push_str("data: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}\n\n");
    (200, "text/event-stream", text.into_bytes())
}

fn words(phase: &str, text: &str) -> Value {
    json!({"type": "message", "id": "msg_1", "role": "assistant", "phase": phase,
           "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn exec(call_id: &str, cmd: &str) -> Value {
    json!({"type": "function_call", "id": call_id, "call_id": call_id, "name": "exec_command",
           "arguments": json!({"cmd": cmd}).to_string()})
}

fn patch_call(input: &str) -> Value {
    json!({"type": "custom_tool_call", "id": "ctc", "call_id": "p", "name": "apply_patch", "input": input})
}

fn count_outputs(seen: &Seen) -> usize {
    let is_output = |item: &&Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_output"));
    seen.body["input"].as_array().map_or(0, |input| input.iter().filter(is_output).count())
}

/// The part of the built-in model: first the commands, then the patch, then the summary.
fn play(seen: &Seen) -> Answer {
    match count_outputs(seen) {
        0 => stream_of(&[
            words("commentary", "Looking around."),
            exec("c1", demo::COMMANDS[0]),
            exec("c2", demo::COMMANDS[1]),
        ]),
        2 => stream_of(&[patch_call(&demo::patch())]),
        _ => stream_of(&[words("final_answer", "All done.")]),
    }
}

#[test]
fn setup_and_restore_leave_the_bytes_as_they_were() {
    let home = Home::new();
    let text = "# mine\r\nmodel = 'gpt-5' # best\r\n\r\n[features]\r\nx = true";
    home.write_config(text);
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o640)).unwrap();
    let done = home.ctl(&["setup", "--default", "--model", "work", "--port", "8460"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("start `codex`"), "{done:?}");
    assert_eq!(mode(&home.config()), 0o640);
    let config: toml::Table = toml::from_str(&home.read_config()).unwrap();
    let provider = &config["model_providers"]["codex-proxy"];
    assert_eq!(config["model"].as_str(), Some("work"));
    assert_eq!(provider["base_url"].as_str(), Some("http://127.0.0.1:8460/v1"));
    assert_eq!(provider["auth"]["command"].as_str(), Some(env!("CARGO_BIN_EXE_codex-proxyctl")));
    let backup = home.path("codex/config.toml.before-codex-proxy");
    assert_eq!(fs::read_to_string(&backup).unwrap(), text);
    assert_eq!(mode(&backup), 0o640);

    let once = home.read_config();
    let again = home.ctl(&["setup", "--model", "work", "--port", "8460"]);
    assert!(again.stdout.contains("nothing changed"), "{again:?}");
    assert_eq!(home.read_config(), once);

    let done = home.ctl(&["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(home.read_config(), text);
    assert!(!backup.exists(), "nothing is left behind");
    assert!(home.ctl(&["restore"]).stdout.contains("nothing of ours"));
}

#[test]
fn a_missing_directory_is_made_private_and_its_file_goes_again() {
    let home = Home::new();
    assert_eq!(home.ctl(&["setup", "--model", "work"]).code, Some(0));
    assert_eq!((mode(&home.path("codex")), mode(&home.config())), (0o700, 0o600));
    assert_eq!(home.ctl(&["restore"]).code, Some(0));
    assert!(!home.config().exists());
}

#[test]
fn a_dry_run_shows_and_writes_nothing() {
    let home = Home::new();
    let done = home.ctl(&["setup", "--model", "work", "--dry-run"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("+ model = \"work\"\n"), "{done:?}");
    assert_eq!(fs::read_dir(home.0.path()).unwrap().count(), 0);
    home.ctl(&["setup", "--model", "work"]);
    let text = home.read_config();
    let done = home.ctl(&["restore", "--dry-run"]);
    assert!(done.stdout.contains("- model = \"work\"\n"), "{done:?}");
    assert_eq!(home.read_config(), text);
}

#[test]
fn a_linked_file_stays_a_link() {
    let home = Home::new();
    fs::create_dir_all(home.path("dotfiles")).unwrap();
    fs::create_dir_all(home.path("codex")).unwrap();
    fs::write(home.path("dotfiles/codex.toml"), "a = 1\n").unwrap();
    symlink("../dotfiles/codex.toml", home.config()).unwrap();
    assert_eq!(home.ctl(&["setup", "--model", "work"]).code, Some(0));
    assert!(fs::symlink_metadata(home.config()).unwrap().is_symlink());
    assert!(fs::read_to_string(home.path("dotfiles/codex.toml")).unwrap().contains("codex-proxy"));
    assert_eq!(home.ctl(&["restore"]).code, Some(0));
    assert!(fs::symlink_metadata(home.config()).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(home.path("dotfiles/codex.toml")).unwrap(), "a = 1\n");
}

#[test]
fn a_file_that_is_not_toml_is_refused_and_not_touched() {
    let home = Home::new();
    for (bytes, line) in [(&b"a = 1\nb = = 2\n"[..], "line 2"), (b"a = 1\n\nb = \"\xff\"\n", "line 3")] {
        home.write_config("");
        fs::write(home.config(), bytes).unwrap();
        for arguments in [&["setup", "--model", "work"][..], &["restore"]] {
            let done = home.ctl(arguments);
            assert_eq!(done.code, Some(6), "{done:?}");
            assert!(done.stderr.contains(line) && done.stderr.contains("nothing was changed"), "{done:?}");
            assert_eq!(fs::read(home.config()).unwrap(), bytes);
            assert_eq!(fs::read_dir(home.path("codex")).unwrap().count(), 1);
        }
    }
}

#[test]
fn wrong_arguments_are_told_from_other_failures() {
    let home = Home::new();
    assert_eq!(home.ctl(&["setup", "--port", "x"]).code, Some(2));
    assert_eq!(home.ctl(&["frobnicate"]).code, Some(2));
    let done = home.ctl(&["setup", "--default"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("--model"), "{done:?}");
}

#[test]
fn setup_takes_the_first_model_of_a_running_proxy() {
    let home = Home::new();
    let server = Server::start(|_| {
        let entry = |slug: &str| Entry { slug: slug.to_owned(), ..Entry::default() };
        (200, "application/json", catalogue::models_body(&[entry("first"), entry("second")], "x"))
    });
    let done = home.ctl(&["setup", "--port", &server.port.to_string()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(home.read_config().contains("\nmodel = \"first\"\n"), "{done:?}");
    assert!(server.seen()[0].head.to_ascii_lowercase().contains("authorization: bearer "));
}

#[test]
fn a_first_setup_with_the_demo_gives_way_to_what_is_added_later() {
    let home = Home::new();
    let models = Arc::new(Mutex::new(vec!["demo"]));
    let offered = Arc::clone(&models);
    let server = Server::start(move |_| {
        let entry = |slug: &&str| Entry { slug: (*slug).to_owned(), ..Entry::default() };
        let entries: Vec<Entry> = offered.lock().unwrap().iter().map(entry).collect();
        (200, "application/json", catalogue::models_body(&entries, "x"))
    });
    let setup = ["setup", "--port", &server.port.to_string()];
    home.ctl(&setup);
    assert!(home.read_config().contains("\nmodel = \"demo\"\n"));

    home.ctl(&["providers", "add", "ollama", "--model", "zebra=z"]);
    let done = home.ctl(&["providers", "add", "lmstudio", "--model", "ant=a"]);
    assert!(done.stdout.contains("use it: codex -m ant"), "{done:?}");
    *models.lock().unwrap() = vec!["ant", "zebra", "demo"];
    let done = home.ctl(&setup);
    assert!(home.read_config().contains("\nmodel = \"zebra\"\n"), "the one written first: {done:?}");
    let done = home.ctl(&setup);
    assert!(done.stdout.contains("set up already"), "{done:?}");
}

#[test]
fn the_token_is_given_out_for_ones_own_port_only() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let done = home.ctl(&["token", "--port", &port]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let file = home.path("state/codex-proxy/token");
    assert_eq!(done.stdout, fs::read_to_string(&file).unwrap());
    assert_eq!(done.stdout.trim_end().len(), 43);
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let again = home.ctl(&["token", "--port", &port]);
    assert_eq!(again.stdout, done.stdout);
    assert!(again.stderr.contains("closed to them"), "{again:?}");
    assert_eq!(mode(&file), 0o600);

    fs::write(&file, "").unwrap();
    let rebuilt = home.ctl(&["token", "--port", &port]);
    assert_eq!(rebuilt.stdout.trim_end().len(), 43);
    assert!(rebuilt.stderr.contains("token.corrupt-1"), "{rebuilt:?}");

    drop(listener);
    let nobody = home.ctl(&["token", "--port", &port]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), ""));
    assert!(nobody.stderr.contains("systemctl --user start codex-proxy.socket"), "{nobody:?}");
}

#[test]
fn a_late_listener_is_waited_for() {
    let home = Home::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let port = address.port().to_string();
    thread::scope(|scope| {
        let asking = scope.spawn(|| home.ctl(&["token", "--port", &port]));
        let _listener = TcpListener::bind(address).unwrap();
        assert_eq!(asking.join().unwrap().code, Some(0));
    });
}

#[test]
fn the_demo_goes_through_and_says_where_its_file_is() {
    let home = Home::new();
    let server = Server::start(play);
    let kept = home.path("kept");
    let done = home.ctl(&["demo", "--port", &server.port.to_string(), "--keep", kept.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let file = kept.canonicalize().unwrap().join(demo::FILE_NAME);
    assert!(fs::read_to_string(&file).unwrap().starts_with("# codex-proxy works here\n"));
    for expected in [
        "[comment] Looking around.",
        "[call] exec_command: uname -sr",
        "Process exited with code 0",
        "[answer] All done.",
        &format!("written: {}", file.display()),
        "codex-proxyctl setup",
    ] {
        assert!(done.stdout.contains(expected), "{expected}: {done:?}");
    }

    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|one| one.line == "POST /v1/responses HTTP/1.1"));
    let first = &seen[0].body;
    assert_eq!((&first["model"], &first["stream"], &first["store"]), (&json!("demo"), &json!(true), &json!(false)));
    let tools: Vec<_> = first["tools"].as_array().unwrap().iter().map(|tool| (&tool["type"], &tool["name"])).collect();
    assert_eq!(tools, [(&json!("function"), &json!("exec_command")), (&json!("custom"), &json!("apply_patch"))]);
    let last = seen[2].body["input"].as_array().unwrap();
    let kinds: Vec<_> = last.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "message",
            "message",
            "message",
            "function_call",
            "function_call",
            "function_call_output",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output"
        ]
    );
    assert!(last[6]["output"].as_str().unwrap().contains(demo::ABSENT), "the second command ran in the directory");

    let twice = home.ctl(&["demo", "--port", &server.port.to_string(), "--keep", kept.to_str().unwrap()]);
    assert_eq!(twice.code, Some(1), "an existing file is not overwritten: {twice:?}");
}

#[test]
fn the_demo_refuses_what_is_not_its_own() {
    let hostile = [
        exec("c", "touch hacked"),
        patch_call("*** Begin Patch\n*** Add File: hacked\n+x\n*** End Patch\n"),
        patch_call("*** Begin Patch\n*** Delete File: codex-proxy-demo.md\n*** End Patch\n"),
        json!({"type": "function_call", "id": "f", "call_id": "f", "name": "write_stdin", "arguments": "{}"}),
        json!({"type": "local_shell_call", "id": "l"}),
    ];
    for item in hostile {
        let home = Home::new();
        let sent = item.clone();
        let server = Server::start(move |_| stream_of(std::slice::from_ref(&sent)));
        let kept = home.path("kept");
        let done = home.ctl(&["demo", "--port", &server.port.to_string(), "--keep", kept.to_str().unwrap()]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("refused"), "{done:?}");
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn the_demo_tells_a_failure_in_the_proxys_words() {
    let failed =
        json!({"type": "response.failed", "response": {"error": {"code": "x", "message": "the route is down"}}});
    let answers: [(Answer, &str); 4] = [
        ((404, "application/json", br#"{"error":{"message":"no such model"}}"#.to_vec()), "no such model"),
        ((200, "text/event-stream", format!("data: {failed}\n\n").into_bytes()), "the route is down"),
        ((200, "text/event-stream", b"data: {}\n\n".to_vec()), "broke off"),
        (stream_of(&[words("final_answer", "hello")]), "without writing its file"),
    ];
    for (answer, expected) in answers {
        let home = Home::new();
        let server = Server::start(move |_| answer.clone());
        let done = home.ctl(&["demo", "--port", &server.port.to_string(), "--keep", home.path("k").to_str().unwrap()]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(expected), "{done:?}");
        let own = home.path("tmp");
        fs::create_dir(&own).unwrap();
        let variables = [("TMPDIR", own.to_str().unwrap())];
        home.ctl_with(&["demo", "--port", &server.port.to_string()], &variables);
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0, "{expected}");
    }
}

#[test]
fn a_client_that_gives_no_prompt_is_named() {
    let home = Home::new();
    let done = home.ctl(&["catalogue", "refresh", "--codex", "/bin/echo"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("/bin/echo gives no usable catalogue"), "{done:?}");
    assert_eq!(home.ctl(&["catalogue", "refresh", "--codex", "/bin/false"]).code, Some(1));
    assert!(home.ctl(&["catalogue", "refresh"]).stderr.contains("no `codex` is on the PATH"));
    assert!(!home.path("state/codex-proxy/catalogue.json").exists());
}

#[test]
fn the_prompt_comes_from_the_real_client() {
    let Some(codex) = codex_bin() else { return };
    let home = Home::new();
    let done = home.ctl(&["catalogue", "refresh", "--codex", codex.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let file = home.path("state/codex-proxy/catalogue.json");
    assert_eq!(mode(&file), 0o600);
    let stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored["version"], 1);
    assert!(stored["client_version"].as_str().unwrap().starts_with("0."), "{}", stored["client_version"]);
    assert!(stored["base_instructions"].as_str().unwrap().len() > 1000);
    assert!(!home.path("codex").exists(), "the user's own directory is not touched");
}

/// What Codex needs besides, so that it neither looks for updates nor reports.
const QUIET: &str = "check_for_update_on_startup = false\nweb_search = \"disabled\"\n[analytics]\nenabled = false\n";

#[test]
fn the_real_client_edits_the_file_in_between_and_starts_before_and_after() {
    let Some(codex) = codex_bin() else {
        return;
    };
    for text in [QUIET.to_owned(), format!("# mine\nmodel = \"gpt-5.5\" # best\n{QUIET}# end")] {
        let home = Home::new();
        home.write_config(&text);
        let done = home.ctl(&["setup", "--default", "--model", "work"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        for arguments in [
            &["features", "enable", "goals"][..],
            &["mcp", "add", "x", "--", "/bin/true"],
            &["features", "disable", "goals"],
        ] {
            let done = home.codex(&codex, arguments);
            assert_eq!(done.code, Some(0), "{done:?}");
        }
        let done = home.ctl(&["restore"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let after = home.read_config();
        assert!(after.starts_with(&text), "{after}");
        assert!(!after.contains("codex-proxy"), "{after}");
        assert!(after.contains("[mcp_servers.x]"), "{after}");
        let started = home.codex(&codex, &["features", "list"]);
        assert_eq!(started.code, Some(0), "{started:?}");
    }
}

#[test]
fn a_tuned_provider_that_restore_leaves_does_not_keep_the_real_client_from_starting() {
    let Some(codex) = codex_bin() else { return };
    let home = Home::new();
    home.write_config(QUIET);
    home.ctl(&["setup", "--default", "--model", "work"]);
    home.write_config(&home.read_config().replace("stream_max_retries = 10\n", "stream_max_retries = 3\n"));
    let done = home.ctl(&["restore"]);
    assert!(done.stdout.contains("stream_max_retries"), "{done:?}");
    let started = home.codex(&codex, &["debug", "models"]);
    assert_eq!(started.code, Some(0), "{started:?}");
}

#[test]
fn the_real_client_takes_the_catalogue_live_and_without_a_warning() {
    let Some(codex) = codex_bin() else { return };
    let entries = [
        Entry {
            slug: "work".to_owned(),
            display_name: "Work".to_owned(),
            description: "The one for work".to_owned(),
            context_window: Some(200_000),
            efforts: ["low", "medium", "high"].map(str::to_owned).to_vec(),
            default_effort: Some("high".to_owned()),
            images: true,
            auto_compact_token_limit: Some(150_000),
        },
        Entry { slug: "plain".to_owned(), display_name: "Plain".to_owned(), ..Entry::default() },
    ];
    let home = Home::new();
    home.ctl(&["catalogue", "refresh", "--codex", codex.to_str().unwrap()]);
    let stored = cataloguefile::load(&home.path("state/codex-proxy")).unwrap().unwrap();
    let body = catalogue::models_body_hiding(&entries, catalogue::BASE_INSTRUCTIONS, &stored.built_in_models);
    let served = body.clone();
    let server = Server::start(move |seen| {
        if seen.line.starts_with("GET /v1/models") {
            return (200, "application/json", served.clone());
        }
        stream_of(&[words("final_answer", "it works")])
    });
    home.write_config(QUIET);
    let done = home.ctl(&["setup", "--default", "--model", "work", "--port", &server.port.to_string()]);
    assert_eq!(done.code, Some(0), "{done:?}");

    // Field by field: what the client understood is what we said.
    let listed = home.codex(&codex, &["debug", "models"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let understood: Value = serde_json::from_str(&listed.stdout).unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let understood = understood["models"].as_array().unwrap();
    for model in sent["models"].as_array().unwrap() {
        let same = understood.iter().find(|one| one["slug"] == model["slug"]).unwrap();
        for (key, value) in model.as_object().unwrap() {
            assert_eq!(&same[key], value, "{key}");
        }
    }

    let listed: Vec<_> =
        understood.iter().filter(|model| model["visibility"] == "list").map(|model| &model["slug"]).collect();
    assert_eq!(listed, ["work", "plain"], "the picker offers ours and nothing else");

    for (model, effort) in [("work", json!("high")), ("plain", Value::Null)] {
        let done = home.codex(
            &codex,
            &["exec", "--skip-git-repo-check", "-s", "danger-full-access", "--json", "-m", model, "say hi"],
        );
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stdout.contains("it works"), "{done:?}");
        let all = format!("{}{}", done.stdout, done.stderr);
        assert!(!all.contains("metadata"), "{all}");
        assert!(!done.stdout.contains("\"type\":\"error\""), "{all}");
        let seen = server.seen();
        let post = seen.iter().rfind(|one| one.line.starts_with("POST /v1/responses ")).unwrap();
        assert_eq!(post.body["model"], model);
        assert_eq!(post.body["reasoning"].get("effort").cloned().unwrap_or_default(), effort);
        assert_eq!(post.body["input"][0]["content"][0]["text"], catalogue::BASE_INSTRUCTIONS, "our prompt is sent");
        assert!(post.body["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "apply_patch"));
        let token = fs::read_to_string(home.path("state/codex-proxy/token")).unwrap();
        assert!(post.head.contains(&format!("Bearer {}", token.trim_end())), "the token command was run");
    }
}

#[test]
fn the_real_client_applies_the_demos_patch() {
    let Some(codex) = codex_bin() else { return };
    let home = Home::new();
    home.write_config(QUIET);
    let body = catalogue::models_body(
        &[Entry { slug: demo::MODEL.to_owned(), display_name: "Demo".to_owned(), ..Entry::default() }],
        "x",
    );
    let server =
        Server::start(
            move |seen| {
                if seen.line.starts_with("GET ") { (200, "application/json", body.clone()) } else { play(seen) }
            },
        );
    home.ctl(&["setup", "--default", "--model", demo::MODEL, "--port", &server.port.to_string()]);
    let done = home.codex(&codex, &["exec", "--skip-git-repo-check", "-s", "danger-full-access", "show me"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        fs::read_to_string(home.path(demo::FILE_NAME)).unwrap().starts_with("# codex-proxy works here\n"),
        "{done:?}"
    );
}
