//! A program under test: what it prints is kept, and it does not outlive its test.

use super::events::{self, DEADLINE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running program; killed when dropped.
pub struct Running {
    name: &'static str,
    child: Child,
    printed: Arc<Mutex<Printed>>,
}

#[derive(Default)]
struct Printed {
    log: String,
    /// Of its two streams.
    ended: u32,
}

impl Running {
    /// Starts it. `name`: for people.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let printed = Arc::default();
        collect(child.stdout.take().unwrap(), &printed);
        collect(child.stderr.take().unwrap(), &printed);
        Self { name, child, printed }
    }

    /// All it has printed so far.
    pub fn log(&self) -> String {
        self.printed.lock().unwrap().log.clone()
    }

    /// Waits until what it has printed answers the question. `None` if it has ended, or the deadline came first.
    pub fn wait<T>(&self, deadline: Duration, question: impl Fn(&str) -> Option<T>) -> Option<T> {
        wait(&self.printed, deadline, question)
    }

    /// Waits until it says something, and lets others go on meanwhile.
    pub async fn until_said(&self, text: &'static str) {
        let printed = Arc::clone(&self.printed);
        let find = move || wait(&printed, DEADLINE, |log| log.contains(text).then_some(()));
        assert!(tokio::task::spawn_blocking(find).await.unwrap().is_some(), "it says: {text}");
    }

    /// Waits for a text in its log.
    pub fn wait_log(&self, text: &str, deadline: Duration) -> bool {
        self.wait(deadline, |log| log.contains(text).then_some(())).is_some()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}---", self.name, self.log());
        }
    }
}

fn wait<T>(printed: &Mutex<Printed>, deadline: Duration, question: impl Fn(&str) -> Option<T>) -> Option<T> {
    let answer = events::wait(deadline, || {
        let printed = printed.lock().unwrap();
        let answer = question(&printed.log);
        (answer.is_some() || printed.ended == 2).then_some(answer)
    });
    answer.flatten()
}

fn collect(from: impl Read + Send + 'static, printed: &Arc<Mutex<Printed>>) {
    let printed = Arc::clone(printed);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            printed.lock().unwrap().log.push_str(&String::from_utf8_lossy(&line));
            line.clear();
            events::notify();
        }
        printed.lock().unwrap().ended += 1;
        events::notify();
    });
}
