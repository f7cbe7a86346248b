//! Reads the system prompt from the installed client, so that foreign models get the one the client was made for.
//!
//! We ship none of the vendor's text: it is copied from the user's own installation into the user's own state directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::Command;

use super::CtlError;
use crate::host::{cataloguefile, files};

/// How long the client may take for one answer; it needs 0.2 s (measured), and an `npm` installation starts node first.
const CLIENT_LIMIT: Duration = Duration::from_secs(15);

/// Runs the client, stores what it says, and gives a sentence about it.
pub async fn refresh(state_dir: &Path, codex: Option<&Path>) -> Result<String, CtlError> {
    let codex = match codex {
        Some(codex) => codex.to_owned(),
        None => find_client(std::env::var_os("PATH")).ok_or_else(|| {
            CtlError::Unforeseen(
                "no `codex` is on the PATH; name it with --codex, or our own prompt is used".to_owned(),
            )
        })?,
    };
    let Client { version, prompt, built_in } = read_client(&codex).await?;
    let report = format!("system prompt of Codex {version} ({} bytes) stored in {}", prompt.len(), state_dir.display());
    let store = |stored: &mut cataloguefile::Stored| {
        (stored.client_version, stored.base_instructions, stored.built_in_models) = (version, prompt, built_in);
    };
    cataloguefile::update(state_dir, store)
        .map_err(|error| CtlError::io("write the catalogue in", state_dir, &error))?;
    Ok(report)
}

/// The first `codex` of a search path.
fn find_client(path: Option<OsString>) -> Option<PathBuf> {
    std::env::split_paths(&path?).map(|dir| dir.join("codex")).find(|file| file.is_file())
}

/// The version of the first `codex` on the `PATH`; `None` if there is none, or it does not say.
pub async fn client_version() -> Option<String> {
    let codex = find_client(std::env::var_os("PATH"))?;
    let home = PrivateHome::new().ok()?;
    ask_version(&codex, &home).await.ok()
}

async fn ask_version(codex: &Path, home: &PrivateHome) -> Result<String, CtlError> {
    let version = run(codex, &["--version"], &home.0, CLIENT_LIMIT).await?;
    let version = String::from_utf8_lossy(&version.stdout);
    Ok(version.split_whitespace().last().unwrap_or("unknown").to_owned())
}

/// Asks the client for its version and its built-in catalogue, away from the user's own configuration.
async fn read_client(codex: &Path) -> Result<Client, CtlError> {
    let home = PrivateHome::new()?;
    let version = ask_version(codex, &home).await?;
    let catalogue = run(codex, &["debug", "models", "--bundled"], &home.0, CLIENT_LIMIT).await?;
    let (prompt, built_in) = read_catalogue(&catalogue.stdout)
        .map_err(|why| CtlError::Unforeseen(format!("{} gives no usable catalogue: {why}", codex.display())))?;
    Ok(Client { version, prompt, built_in })
}

/// What the installed client says of itself.
struct Client {
    version: String,
    prompt: String,
    built_in: Vec<String>,
}

/// The prompt of the first model that is spoken to the way ours are, and the names of all.
fn read_catalogue(catalogue: &[u8]) -> Result<(String, Vec<String>), String> {
    #[derive(Deserialize)]
    struct Catalogue {
        models: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        slug: String,
        #[serde(default)]
        use_responses_lite: bool,
        base_instructions: Option<String>,
    }
    let catalogue: Catalogue = serde_json::from_slice(catalogue).map_err(|error| error.to_string())?;
    let suits = |model: &Model| {
        !model.use_responses_lite && model.base_instructions.as_ref().is_some_and(|text| !text.trim().is_empty())
    };
    let names = catalogue.models.iter().map(|model| model.slug.clone()).collect();
    let prompt = catalogue.models.into_iter().find(suits).and_then(|model| model.base_instructions);
    Ok((prompt.ok_or_else(|| "no model in it has a prompt for plain tools".to_owned())?, names))
}

async fn run(codex: &Path, arguments: &[&str], home: &Path, limit: Duration) -> Result<Output, CtlError> {
    let shown = format!("{} {}", codex.display(), arguments.join(" "));
    let failed = |why: String| CtlError::Unforeseen(format!("`{shown}`: {why}"));
    let child = Command::new(codex)
        .args(arguments)
        .current_dir(home)
        .env_clear()
        // For the interpreter of a client installed by npm.
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
        .env("HOME", home)
        .env("CODEX_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that an interpreter and what it started end together.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let ended = child.wait_with_output();
    tokio::pin!(ended);
    let output = match tokio::time::timeout(limit, &mut ended).await {
        Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        Err(_) => {
            if let Some(group) = group {
                // Already gone is as good.
                let _ = killpg(group, Signal::SIGKILL);
            }
            return Err(failed(format!("no answer within {limit:?}")));
        }
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        return Err(failed(format!("{} {last}", output.status)));
    }
    Ok(output)
}

/// An empty home for one run of the client; deleted afterwards.
struct PrivateHome(PathBuf);

impl PrivateHome {
    fn new() -> Result<Self, CtlError> {
        let home = super::fresh_temp_dir("codex-proxyctl")?;
        let home = Self(home);
        let config = home.0.join("config.toml");
        files::replace(&config, b"check_for_update_on_startup = false\n[analytics]\nenabled = false\n", 0o600)
            .map_err(|error| CtlError::io("write", &config, &error))?;
        Ok(home)
    }
}

impl Drop for PrivateHome {
    fn drop(&mut self) {
        // It lies among temporary files and holds nothing private.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_hangs_is_ended_with_what_it_started() {
        let home = PrivateHome::new().unwrap();
        let pid_file = home.0.join("pid");
        let script = "sleep 1000 & echo $! > pid; wait";
        let done = run(Path::new("/bin/sh"), &["-c", script], &home.0, Duration::from_millis(500)).await;
        assert!(done.unwrap_err().to_string().contains("no answer within 500ms"));
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        // The kill is sent; the kernel carries it out in its own time.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while alive() {
            assert!(std::time::Instant::now() < deadline, "{pid} still runs");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn the_prompt_is_that_of_the_first_plain_model() {
        let catalogue = br#"{"models":[
            {"slug":"a","use_responses_lite":true,"base_instructions":"lite"},
            {"slug":"b","base_instructions":" "},
            {"slug":"c","use_responses_lite":false,"base_instructions":"plain"},
            {"slug":"d","base_instructions":"later"}]}"#;
        let (prompt, names) = read_catalogue(catalogue).unwrap();
        assert_eq!(prompt, "plain");
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert!(read_catalogue(br#"{"models":[]}"#).is_err());
        assert!(read_catalogue(b"warning: no JSON").is_err());
    }
}
