//! The journal: the record of starts, ends and failures, read through a `journalctl` child, which knows every format.
//!
//! ```text
//! read back (to the end) → the record of starts is complete → follow → (child ended) pause → follow from the last entry
//! ```
//!
//! The journal is late (half a second) but complete; the bus is quick but knows nothing of what happened before. What an
//! entry says and whether it is believed is `entry.rs`'s.

pub mod entry;

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Command,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::warn;

use self::entry::{Line, MANAGER_PROGRAMS, MANAGER_UNIT, Reader, STARTING, Trust, cursor_mono_us};
use super::{Out, Seen, Sight, Unheard, now};
use crate::watchdog::signal::{Observation, SECOND_US, Source, Time, Unit};

/// The longest line that is read; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The most that is kept of what a child complains about.
const WORDS_BYTES_MAX: usize = 512;
/// So long the bus may take to name the manager before reading begins without.
const MANAGER_WAIT: Duration = Duration::from_secs(5);
/// Reading back a start-limit interval takes a fraction of a second.
const READ_BACK_LIMIT: Duration = Duration::from_secs(60);
/// Starts that are read back at most, of however long ago: more than fit the limit of any sensible unit.
const STARTS_MAX: usize = 256;
/// A child that lived so long works.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// Ends of children in a row, after which this source is blind.
const FAILURES_MAX: u32 = 3;
/// Between children: doubling.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// All fields that are looked at; the cursor, the times and the boot come with every entry.
const FIELDS: &str = "--output-fields=MESSAGE,MESSAGE_ID,USER_UNIT,USER_INVOCATION_ID,UNIT_RESULT,COMMAND,EXIT_CODE,\
     EXIT_STATUS,SYSLOG_IDENTIFIER,_UID,_PID,_EXE,_SYSTEMD_USER_UNIT,CODEX_EVENT_ID,CODEX_REQUEST_ID,CODEX_THREAD_ID,\
     CODEX_MODEL,CODEX_ROUTE,CODEX_PROVIDER,CODEX_ACCOUNT,CODEX_STATUS,CODEX_PHASE";

/// What is read, and from where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `journalctl`, or what stands in for it.
    pub program: PathBuf,
    /// This user.
    pub uid: u32,
    /// This boot, 32 hexadecimal digits.
    pub boot: String,
    /// The last entry whose effect is recorded; `None`: there is none.
    pub cursor: Option<String>,
    /// How far back starts are looked for: at least the proxy's start-limit interval.
    pub read_back: Duration,
}

impl Settings {
    /// This user's journal of this boot.
    ///
    /// # Errors
    /// The kernel does not tell the boot.
    pub fn new(cursor: Option<String>, read_back: Duration) -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            program: PathBuf::from("journalctl"),
            uid: nix::unistd::geteuid().as_raw(),
            boot: boot.trim().replace('-', ""),
            cursor,
            read_back,
        })
    }

    /// Entries of the proxy, about it, or under its name: all alternatives are this user's and of this boot.
    fn matches(&self) -> Vec<String> {
        let mut all = Vec::new();
        for claim in [
            format!("USER_UNIT={}", Unit::Proxy.name()),
            format!("_SYSTEMD_USER_UNIT={}", Unit::Proxy.name()),
            "SYSLOG_IDENTIFIER=codex-proxy".to_owned(),
        ] {
            if !all.is_empty() {
                all.push("+".to_owned());
            }
            all.extend(self.anything());
            all.push(claim);
        }
        all
    }

    /// The manager's entries about starts of the proxy; what others write does not crowd them out.
    fn starts(&self) -> Vec<String> {
        let mut all = self.anything().to_vec();
        all.extend(MANAGER_PROGRAMS.iter().map(|program| format!("_EXE={program}")));
        all.push(format!("_SYSTEMD_USER_UNIT={MANAGER_UNIT}"));
        all.push(format!("USER_UNIT={}", Unit::Proxy.name()));
        all.push(format!("MESSAGE_ID={STARTING}"));
        all
    }

    fn anything(&self) -> [String; 2] {
        [format!("_UID={}", self.uid), format!("_BOOT_ID={}", self.boot)]
    }
}

/// Reads the journal until nobody listens.
///
/// `manager` is the process of the service manager, as `units.rs` finds it; while it is `None`, no entry of a manager is
/// believed and the record of starts is not called complete. Each time it changes, the journal is read back again:
/// starts are told again (they have ids), other entries are not.
pub async fn follow(settings: Settings, mut manager: watch::Receiver<Option<u32>>, sender: mpsc::Sender<Seen>) {
    let out = Out { sender, source: Source::Journal };
    let (uid, boot) = (settings.uid, settings.boot.clone());
    let passed = settings.cursor.as_deref().and_then(|cursor| cursor_mono_us(cursor, &settings.boot));
    let mut follower = Follower {
        settings,
        out: out.clone(),
        sight: Sight::unknown(),
        passed,
        last: None,
        starts_only: false,
        failures: 0,
        skipped: 0,
    };
    drop(timeout(MANAGER_WAIT, manager.wait_for(Option::is_some)).await);
    let mut pause = PAUSE_FIRST;
    let trust = |manager_pid| Trust { uid, manager_pid, boot: boot.clone() };
    let mut manager_pid = *manager.borrow_and_update();
    // Kept from child to child: two entries tell how a run ended.
    let mut reader = Reader::new(trust(manager_pid));
    loop {
        let over = tokio::select! {
            over = follower.run(&mut reader, manager_pid.is_some()) => over,
            Ok(()) = manager.changed() => {
                manager_pid = *manager.borrow_and_update();
                reader = Reader::new(trust(manager_pid));
                if let Some(Place::After(cursor)) = follower.last.take() {
                    follower.settings.cursor = Some(cursor);
                }
                continue;
            }
            () = out.sender.closed() => return,
        };
        let Over::Failed { why, denied } = over else { return };
        follower.failures += 1;
        if follower.failures == 1 {
            pause = PAUSE_FIRST;
        }
        if denied || follower.failures >= FAILURES_MAX {
            let told = follower.sight.tell(&out, Some(why)).await;
            if told.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = out.sender.closed() => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Why reading stopped.
#[derive(Debug)]
enum Over {
    Unheard,
    /// A sentence; and whether trying again at once is no use.
    Failed {
        why: String,
        denied: bool,
    },
}

impl From<Unheard> for Over {
    fn from(Unheard: Unheard) -> Self {
        Self::Unheard
    }
}

/// Where a child begins.
#[derive(Debug, Clone)]
enum Place {
    After(String),
    Since(Time),
}

impl Place {
    fn argument(&self) -> String {
        match self {
            Self::After(cursor) => format!("--after-cursor={cursor}"),
            Self::Since(at) => format!("--since=@{}.{:06}", at.wall_us / SECOND_US, at.wall_us % SECOND_US),
        }
    }
}

struct Follower {
    settings: Settings,
    out: Out,
    sight: Sight,
    /// Entries up to this moment have been told.
    passed: Option<u64>,
    /// Where to go on; `None`: read back first.
    last: Option<Place>,
    /// Only starts are told, and no place is passed by it.
    starts_only: bool,
    failures: u32,
    skipped: u64,
}

impl Follower {
    async fn run(&mut self, reader: &mut Reader, manager_known: bool) -> Over {
        match self.try_run(reader, manager_known).await {
            Ok(()) => Over::Failed { why: "journalctl ended".to_owned(), denied: false },
            Err(over) => over,
        }
    }

    async fn try_run(&mut self, reader: &mut Reader, manager_known: bool) -> Result<(), Over> {
        // Reading back may have been broken off.
        self.starts_only = false;
        let from = match self.last.clone() {
            Some(from) => from,
            None => self.read_back(reader, manager_known).await?,
        };
        self.last = Some(from.clone());
        let mut arguments = vec!["--follow".to_owned(), "--no-tail".to_owned(), from.argument()];
        arguments.extend(self.settings.matches());
        let ended = self.child(&arguments, Some(reader)).await;
        if matches!(&ended, Err(Over::Failed { why, .. }) if why.contains("cursor")) {
            // Rotated away: what was missed is read back.
            self.last = None;
        }
        ended.map(drop)
    }

    /// Reads what is there already; gives where to go on.
    async fn read_back(&mut self, reader: &mut Reader, manager_known: bool) -> Result<Place, Over> {
        let began = now();
        // Somebody who may not read a file of the journal gets the others, and no error.
        let mut any = vec!["--lines=1".to_owned()];
        any.extend(self.settings.anything());
        let seen = timeout(READ_BACK_LIMIT, self.child(&any, None)).await.map_err(|_| too_slow())??;
        if seen.lines == 0 {
            let why = "the journal shows no entry of this user: it may not be read, or is not kept".to_owned();
            return Err(Over::Failed { why, denied: true });
        }
        let back_us = u64::try_from(self.settings.read_back.as_micros()).unwrap_or(u64::MAX);
        let mono_us = began.mono_us.saturating_sub(back_us);
        // A second more, for clocks that were set.
        let since = Place::Since(Time { mono_us, wall_us: began.wall_us.saturating_sub(back_us + SECOND_US) });
        // By place where one is known, not by time of day: somebody may have set the clock since.
        let known = self.settings.cursor.clone().filter(|_| self.passed.is_some());
        let first = known.map_or_else(|| since.clone(), Place::After);
        let mut read = self.read_to_end(&first, reader).await;
        if matches!(first, Place::After(_)) && matches!(&read, Err(Over::Failed { denied: false, .. })) {
            self.settings.cursor = None;
            read = self.read_to_end(&since, reader).await;
        }
        let last = read?.last;
        // The last ones by number, for the same reason.
        self.starts_only = true;
        let mut starts = vec![format!("--lines={STARTS_MAX}")];
        starts.extend(self.settings.starts());
        let told = timeout(READ_BACK_LIMIT, self.child(&starts, Some(reader))).await;
        self.starts_only = false;
        told.map_err(|_| too_slow())??;
        if self.failures < FAILURES_MAX {
            self.sight.tell(&self.out, None).await?;
        }
        if manager_known {
            self.out.tell(Observation::StartsKnownSince { mono_us }).await?;
        }
        Ok(last.map_or(Place::Since(began), Place::After))
    }

    async fn read_to_end(&mut self, from: &Place, reader: &mut Reader) -> Result<Read, Over> {
        let mut arguments = vec![from.argument()];
        arguments.extend(self.settings.matches());
        timeout(READ_BACK_LIMIT, self.child(&arguments, Some(reader))).await.map_err(|_| too_slow())?
    }

    /// Runs a child to its end and tells what its entries say; without a reader they are only counted.
    async fn child(&mut self, arguments: &[String], mut reader: Option<&mut Reader>) -> Result<Read, Over> {
        let failed = |why: String, denied| Over::Failed { why, denied };
        let mut child = Command::new(&self.settings.program)
            .args(["--quiet", "--no-pager", "--output=json", FIELDS])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot run {}: {error}", self.settings.program.display()), true))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("journalctl has no output".to_owned(), false));
        };
        let mut read = Read::default();
        let entries = async {
            let mut lines = Lines::new(BufReader::new(stdout));
            let mut settled = std::pin::pin!(sleep(SETTLED_AFTER));
            let mut waiting = reader.is_some();
            loop {
                let line = tokio::select! {
                    line = lines.next() => line,
                    () = &mut settled, if waiting => {
                        waiting = false;
                        self.works().await?;
                        continue;
                    }
                };
                let Ok(Some(line)) = line else { break };
                read.lines += u64::from(line.starts_with(b"{"));
                if let Some(line) = reader.as_mut().and_then(|reader| reader.line(line)) {
                    let cursor = line.cursor.clone();
                    self.tell(line).await?;
                    self.last = self.last.is_some().then(|| Place::After(cursor.clone()));
                    read.last = Some(cursor);
                }
                self.count_skipped(lines.take_skipped());
            }
            self.count_skipped(lines.take_skipped());
            Ok::<(), Unheard>(())
        };
        let (told, words) = tokio::join!(
            async {
                let told = entries.await;
                if told.is_err() {
                    drop(child.start_kill());
                }
                told
            },
            last_words(stderr)
        );
        told?;
        let status = child.wait().await.map_err(|error| failed(format!("journalctl: {error}"), false))?;
        if status.success() {
            return Ok(read);
        }
        let denied = words.contains("insufficient permissions");
        let why = if words.is_empty() { format!("journalctl ended: {status}") } else { words };
        Err(failed(why, denied))
    }

    async fn works(&mut self) -> Result<(), Unheard> {
        self.failures = 0;
        self.sight.tell(&self.out, None).await
    }

    /// Tells what an entry says, but for what was told before; starts are told again.
    async fn tell(&mut self, line: Line) -> Result<(), Unheard> {
        if self.starts_only {
            return match line.observation {
                Some(starting @ Observation::Starting { .. }) => self.out.tell_at(line.at, starting, None).await,
                _ => Ok(()),
            };
        }
        let old = self.passed.is_some_and(|passed| line.at.mono_us <= passed);
        if let Some(observation) = line.observation
            && (!old || matches!(observation, Observation::Starting { .. }))
        {
            let cursor = (!old).then_some(line.cursor);
            self.out.tell_at(line.at, observation, cursor).await?;
        }
        self.passed = self.passed.max(Some(line.at.mono_us));
        Ok(())
    }

    fn count_skipped(&mut self, skipped: u64) {
        if skipped > 0 {
            self.skipped = self.skipped.saturating_add(skipped);
            warn!(codex_lines_skipped = self.skipped, "entries of the journal are too long, skipping them");
        }
    }
}

fn too_slow() -> Over {
    Over::Failed { why: format!("journalctl did not end within {} s", READ_BACK_LIMIT.as_secs()), denied: false }
}

/// What a child gave.
#[derive(Debug, Default)]
struct Read {
    lines: u64,
    /// The cursor of the last entry.
    last: Option<String>,
}

/// The last line of what a child complains about.
async fn last_words(stderr: impl AsyncRead + Unpin) -> String {
    let mut stderr = BufReader::new(stderr);
    let (mut kept, mut piece) = (Vec::new(), [0; WORDS_BYTES_MAX]);
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(&piece[..length]);
        let surplus = kept.len().saturating_sub(WORDS_BYTES_MAX);
        drop(kept.drain(..surplus));
    }
    let words = String::from_utf8_lossy(&kept);
    words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// Lines of bounded length.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// A line that ended is not to be continued.
    over: bool,
    too_long: bool,
    skipped: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    const fn new(input: R) -> Self {
        Self { input, line: Vec::new(), over: false, too_long: false, skipped: 0 }
    }

    /// The next line without its end; `None` at the end of input. May be dropped and called again: nothing is lost.
    async fn next(&mut self) -> std::io::Result<Option<&[u8]>> {
        if std::mem::take(&mut self.over) {
            self.line.clear();
        }
        loop {
            let piece = self.input.fill_buf().await?;
            if piece.is_empty() {
                // A line without an end was cut off.
                return Ok(None);
            }
            let end = piece.iter().position(|byte| *byte == b'\n');
            let text = &piece[..end.unwrap_or(piece.len())];
            if self.too_long || self.line.len() + text.len() > LINE_BYTES_MAX {
                self.too_long = true;
            } else {
                self.line.extend_from_slice(text);
            }
            let used = end.map_or(piece.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                if std::mem::take(&mut self.too_long) {
                    self.skipped += 1;
                    self.line.clear();
                    continue;
                }
                self.over = true;
                return Ok(Some(&self.line));
            }
        }
    }

    const fn take_skipped(&mut self) -> u64 {
        std::mem::replace(&mut self.skipped, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_lines_are_skipped_and_counted() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let fits = "y".repeat(LINE_BYTES_MAX);
        let text = format!("one\n{long}\n{fits}\n\nlast\ncut");
        let mut lines = Lines::new(BufReader::new(text.as_bytes()));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(all, ["one", &fits, "", "last"]);
        assert_eq!((lines.take_skipped(), lines.take_skipped()), (1, 0));
    }

    #[tokio::test]
    async fn the_last_words_are_the_last_line() {
        assert_eq!(
            last_words(&b"Hint: x\n\nFailed to seek to cursor: Invalid argument\n"[..]).await,
            "Failed to seek to cursor: Invalid argument"
        );
        assert_eq!(last_words(&b""[..]).await, "");
        assert_eq!(last_words("z".repeat(100_000).as_bytes()).await.len(), WORDS_BYTES_MAX);
    }
}
