//! The TUI, in a tmux of its own: the program asks its terminal questions at start, and tmux answers them.

use super::{codex::Codex, events, facility, scratch, skip};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// A running TUI; its tmux server ends when dropped.
pub struct Tui {
    socket: tempfile::TempDir,
    /// A client in control mode: it is told of every output, which makes the screen something to wait for.
    watcher: Option<Child>,
}

impl Tui {
    /// Starts Codex in a window of 120 by 40; `None`, said aloud, without tmux.
    pub fn start(codex: &Codex) -> Option<Self> {
        if Command::new(tmux_bin()).arg("-V").output().is_err() {
            skip("tmux");
            return None;
        }
        let mut tui = Self { socket: scratch(), watcher: None };
        let command = codex.command();
        let mut tmux = tui.tmux();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-s", "it", "-x", "120", "-y", "40", "env", "-i"]);
        for (name, value) in command.get_envs() {
            let value = value.unwrap_or_default();
            // tmux sets its own terminal type.
            if name != "TERM" {
                tmux.arg(format!("{}={}", name.display(), value.display()));
            }
        }
        tmux.arg("TERM=screen-256color").arg(command.get_program()).current_dir(codex.work());
        tmux.args(["-s", "danger-full-access", "-a", "never"]);
        let output = tmux.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut watcher = tui.tmux();
        watcher.args(["-C", "attach-session", "-t", "it"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut watcher = watcher.spawn().unwrap();
        let lines = BufReader::new(watcher.stdout.take().unwrap()).split(b'\n');
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|_| events::notify()));
        tui.watcher = Some(watcher);
        Some(tui)
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new(tmux_bin());
        tmux.arg("-S").arg(self.socket.path().join("tmux"));
        tmux
    }

    /// Sends keys as tmux names them.
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys", "-t", "it"], keys].concat());
    }

    /// Types a text as it is.
    pub fn text(&self, text: &str) {
        self.run(&["send-keys", "-t", "it", "-l", text]);
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p", "-t", "it"]).stdout).into_owned()
    }

    /// Waits until the screen shows a text.
    pub fn wait_screen(&self, text: &str) {
        let seen = events::wait(events::DEADLINE, || self.screen().contains(text).then_some(()));
        assert!(seen.is_some(), "no {text:?} on the screen:\n{}", self.screen());
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.tmux().args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        output
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        drop(self.tmux().arg("kill-server").output());
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.kill());
            drop(watcher.wait());
        }
    }
}

fn tmux_bin() -> String {
    facility("TMUX_BIN").unwrap_or_else(|| "tmux".to_owned())
}
