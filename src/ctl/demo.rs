//! `codex-proxyctl demo`: a small honest client of the running proxy.
//!
//! It speaks to the built-in model the way Codex would (declares its two tools, streams, sends outputs back), so that a
//! person sees the whole loop without a provider, a key or Codex. It runs the demo's literal commands and applies the
//! demo's one patch; anything else is refused and ends it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::Command;

use super::client::{ProxyClient, broken};
use super::{CtlError, codex_config::PROVIDER_ID, fresh_temp_dir, token};
use crate::model::demo::{COMMANDS, FILE_NAME, MODEL};

/// Requests after which the script must have come to its end; it needs four at most.
const REQUESTS_MAX: usize = 8;
/// Bytes of one event; the demo's are below 10 KB.
const EVENT_BYTES_MAX: usize = 1 << 20;
const PATCH_BYTES_MAX: usize = 16 << 10;
const SILENCE_MAX: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(5);

/// Plays the demo against the proxy on `port`, in `keep` or a fresh temporary directory. `say` gets each line for the
/// user as it comes.
pub async fn run(port: u16, keep: Option<&Path>, state_dir: &Path, say: &mut dyn FnMut(&str)) -> Result<(), CtlError> {
    let client = ProxyClient::new(port, state_dir, token::LISTENER_WAIT, SILENCE_MAX)?;
    let dir = match keep {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(|error| CtlError::io("make", dir, &error))?;
            dir.canonicalize().map_err(|error| CtlError::io("use", dir, &error))?
        }
        None => fresh_temp_dir("codex-proxy-demo")?,
    };
    let played = play(&client, &dir, port, say).await;
    if played.is_err() && keep.is_none() {
        // Nobody else knows it, and there is nothing in it to look at.
        let _ = fs::remove_dir_all(&dir);
    }
    played
}

async fn play(client: &ProxyClient, dir: &Path, port: u16, say: &mut dyn FnMut(&str)) -> Result<(), CtlError> {
    say(&format!("asking the model `{MODEL}` at http://127.0.0.1:{port}/v1, in {}", dir.display()));
    let mut history = vec![message("developer", OUR_PROMPT), message("user", "Show me that everything works.")];
    let mut written = None;
    for _ in 0..REQUESTS_MAX {
        let items = answer(client, &history).await?;
        let mut outputs = Vec::new();
        for item in &items {
            outputs.extend(take_item(item, dir, &mut written, say).await?);
        }
        if outputs.is_empty() {
            let file = written.ok_or_else(|| {
                CtlError::Unforeseen(
                    "the demo ended without writing its file; is this model the built-in one?".to_owned(),
                )
            })?;
            say(&format!("\nwritten: {}", file.display()));
            say(&format!(
                "the proxy works. Next: `codex-proxyctl setup`, then\n  codex -c 'model_provider=\"{PROVIDER_ID}\"' -m {MODEL}\n\
                 and with a provider of yours configured, the same with its model instead of `{MODEL}`."
            ));
            return Ok(());
        }
        history.extend(items);
        history.extend(outputs);
    }
    Err(CtlError::Unforeseen(format!("the demo did not end within {REQUESTS_MAX} requests")))
}

const OUR_PROMPT: &str = "You are connected to codex-proxyctl, which plays a short demonstration.";

fn message(role: &str, text: &str) -> Value {
    json!({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})
}

/// The request, with the tools declared as Codex declares them.
fn request(history: &[Value]) -> Value {
    json!({
        "model": MODEL,
        "stream": true,
        "input": history,
        "tools": [
            {
                "type": "function",
                "name": "exec_command",
                "description": "Runs one of the demo's commands.",
                "strict": false,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "cmd": {"type": "string", "description": "Shell command to execute."},
                        "workdir": {"type": "string", "description": "Working directory."},
                    },
                    "required": ["cmd"],
                    "additionalProperties": false,
                },
            },
            {
                "type": "custom",
                "name": "apply_patch",
                "description": "Adds the demo's file.",
                "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {},
        "store": false,
        "include": ["reasoning.encrypted_content"],
    })
}

/// The part of the patch grammar this client takes.
const GRAMMAR: &str = r#"start: "*** Begin Patch" LF "*** Add File: " /(.+)/ LF line+ "*** End Patch" LF?
line: "+" /(.*)/ LF
%import common.LF"#;

/// Sends the history and gives the finished items of the answer, in order.
async fn answer(client: &ProxyClient, history: &[Value]) -> Result<Vec<Value>, CtlError> {
    let body = serde_json::to_vec(&request(history)).map_err(|error| CtlError::Unforeseen(error.to_string()))?;
    let mut response = client.post_responses(body).await?;
    let mut frames = Frames::default();
    let mut items = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        for data in frames.feed(&chunk).map_err(CtlError::Unforeseen)? {
            // What is no JSON, such as a keep-alive, is for others.
            let Ok(mut event) = serde_json::from_str::<Value>(&data) else { continue };
            match event.get("type").and_then(Value::as_str) {
                Some("response.output_item.done") => items.extend(event.get_mut("item").map(Value::take)),
                Some("response.completed") => return Ok(items),
                Some(end @ ("response.failed" | "response.incomplete")) => {
                    let why =
                        event.pointer("/response/error/message").and_then(Value::as_str).unwrap_or("no reason given");
                    return Err(CtlError::Unforeseen(format!("the answer ended with {end}: {why}")));
                }
                _ => {}
            }
        }
    }
    Err(CtlError::Unforeseen("the answer broke off before its end".to_owned()))
}

/// Shows one item; carries out a call and gives the item with its output.
async fn take_item(
    item: &Value,
    dir: &Path,
    written: &mut Option<PathBuf>,
    say: &mut dyn FnMut(&str),
) -> Result<Option<Value>, CtlError> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "message" => {
            let parts = item.get("content").and_then(Value::as_array);
            let words: String =
                parts.into_iter().flatten().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            let who = if text("phase") == "commentary" { "comment" } else { "answer" };
            say(&format!("\n[{who}] {}", printable(&words)));
            Ok(None)
        }
        "reasoning" => Ok(None),
        "function_call" => {
            let call_id = text("call_id");
            let command = allowed_command(text("name"), text("arguments")).map_err(CtlError::Unforeseen)?;
            say(&format!("\n[call] exec_command: {command}"));
            let output = execute(command, dir).await?;
            say(printable(&output).trim_end());
            Ok(Some(json!({"type": "function_call_output", "call_id": call_id, "output": output})))
        }
        "custom_tool_call" => {
            let call_id = text("call_id");
            if text("name") != "apply_patch" {
                return Err(CtlError::Unforeseen(format!("refused: a call of the tool {:?}", text("name"))));
            }
            say(&format!("\n[call] apply_patch:\n{}", printable(text("input")).trim_end()));
            let content = allowed_patch(text("input")).map_err(CtlError::Unforeseen)?;
            let file = dir.join(FILE_NAME);
            write_new(&file, &content).map_err(|error| CtlError::io("write", &file, &error))?;
            *written = Some(file);
            let output = format!(
                "Exit code: 0\nWall time: 0 seconds\nOutput:\nSuccess. Updated the following files:\nA {FILE_NAME}\n"
            );
            Ok(Some(json!({"type": "custom_tool_call_output", "call_id": call_id, "output": output})))
        }
        other => Err(CtlError::Unforeseen(format!("refused: an item of the type {other:?}"))),
    }
}

/// The demo's own command that is asked for, or why it is refused.
fn allowed_command(name: &str, arguments: &str) -> Result<&'static str, String> {
    if name != "exec_command" {
        return Err(format!("refused: a call of the tool {name:?}"));
    }
    let arguments: Value =
        serde_json::from_str(arguments).map_err(|error| format!("refused: arguments that are no JSON ({error})"))?;
    let cmd = arguments.get("cmd").and_then(Value::as_str).unwrap_or_default();
    COMMANDS
        .into_iter()
        .find(|known| *known == cmd)
        .ok_or_else(|| format!("refused: the command {cmd:?} is not the demo's"))
}

/// The content of the one file the patch adds, or why it is refused.
fn allowed_patch(patch: &str) -> Result<String, String> {
    if patch.len() > PATCH_BYTES_MAX {
        return Err(format!("refused: a patch larger than {PATCH_BYTES_MAX} bytes"));
    }
    let mut lines = patch.lines();
    if lines.next() != Some("*** Begin Patch") {
        return Err("refused: a patch that does not begin with `*** Begin Patch`".to_owned());
    }
    let head = lines.next().unwrap_or_default();
    if head.strip_prefix("*** Add File: ") != Some(FILE_NAME) {
        return Err(format!("refused: {head:?}; the demo only adds {FILE_NAME}"));
    }
    let mut content = String::new();
    loop {
        match lines.next() {
            Some("*** End Patch") => break,
            Some(line) => match line.strip_prefix('+') {
                Some(line) => {
                    content.push_str(line);
                    content.push('\n');
                }
                None => return Err(format!("refused: the line {line:?} of the patch")),
            },
            None => return Err("refused: a patch without its end".to_owned()),
        }
    }
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("refused: text after the end of the patch".to_owned());
    }
    Ok(content)
}

fn write_new(file: &Path, content: &str) -> std::io::Result<()> {
    // Nothing of the user's is ever overwritten, not even through a link.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(file)?;
    file.write_all(content.as_bytes())
}

/// Runs the command in `dir` and puts its output into Codex's form.
async fn execute(command: &'static str, dir: &Path) -> Result<String, CtlError> {
    let started = Instant::now();
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_LIMIT, child)
        .await
        .map_err(|_| CtlError::Unforeseen(format!("`{command}` did not end within {} s", COMMAND_LIMIT.as_secs())))?
        .map_err(|error| CtlError::Unforeseen(format!("`{command}`: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok(format!(
        "Wall time: {:.4} seconds\nProcess exited with code {}\nOutput:\n{text}",
        started.elapsed().as_secs_f64(),
        output.status.code().unwrap_or(-1),
    ))
}

/// Text for a terminal: what could move the cursor or change colours is shown as `?`.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() && char != '\n' && char != '\t' { '?' } else { char }).collect()
}

/// Cuts a stream of bytes into the `data` of server-sent events.
#[derive(Default)]
struct Frames {
    line: Vec<u8>,
    data: String,
}

impl Frames {
    /// The events that became complete with this chunk.
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<String>, String> {
        let mut complete = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                    return Err(format!("an event is larger than {EVENT_BYTES_MAX} bytes"));
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
            if line.is_empty() {
                if !self.data.is_empty() {
                    complete.push(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::demo;

    #[test]
    fn only_the_demos_own_commands_are_run() {
        for command in COMMANDS {
            let arguments = json!({"cmd": command}).to_string();
            assert_eq!(allowed_command("exec_command", &arguments), Ok(command));
        }
        for cmd in ["", "pwd ", "pwd; id", "sh -c pwd", "rm -rf ."] {
            assert!(allowed_command("exec_command", &json!({"cmd": cmd}).to_string()).is_err(), "{cmd}");
        }
        assert!(allowed_command("shell", r#"{"cmd":"pwd"}"#).is_err());
        assert!(allowed_command("exec_command", "pwd").is_err());
        assert!(allowed_command("exec_command", r#"{"cmd":["pwd"]}"#).is_err());
    }

    #[test]
    fn only_the_demos_own_file_is_added() {
        let good = demo::patch();
        assert!(allowed_patch(&good).unwrap().starts_with("# codex-proxy works here\n"));
        for bad in [
            good.replace(FILE_NAME, "../codex-proxy-demo.md"),
            good.replace(FILE_NAME, "/etc/passwd"),
            good.replace("Add File", "Update File"),
            good.replace("*** End Patch", "*** Delete File: a\n*** End Patch"),
            good.replace("*** End Patch", "*** Add File: b\n+x\n*** End Patch"),
            good.replace("*** End Patch\n", ""),
            good.replace("*** Begin Patch\n", ""),
            good.replace("+#", "#"),
            format!("{good}*** Begin Patch\n"),
            "+x\n".repeat(PATCH_BYTES_MAX),
        ] {
            assert!(allowed_patch(&bad).unwrap_err().starts_with("refused"), "{bad}");
        }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let stream = b": hi\r\n\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata: 1\ndata: 2\n\ndata:last\n\n";
        for size in 1..stream.len() {
            let mut frames = Frames::default();
            let events: Vec<String> = stream.chunks(size).flat_map(|chunk| frames.feed(chunk).unwrap()).collect();
            assert_eq!(events, ["{\"a\":1}", "1\n2", "last"]);
        }
        assert!(Frames::default().feed(&vec![b'x'; EVENT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_terminal_is_not_steered() {
        assert_eq!(printable("a\x1b[2J\r\nb\tc"), "a?[2J?\nb\tc");
    }
}
