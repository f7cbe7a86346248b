//! The healer: arguments, build, run, exit code.
//!
//! Exit: 0 after an orderly stop; 1 unforeseen; 2 arguments; 5 another watchdog is at work; 6 a file that cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use codex_proxy::{
    config::{self, Layers, settings::Watchdog},
    host::{log, manager::Manager, paths::Paths},
    watchdog::{
        incidents::{
            replay::{Export, timeline},
            store::StoreError,
        },
        run::{Options, RunError, run},
        sources::units::SessionBus,
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// Looks after codex-proxy: sees what goes wrong, mends it through the service manager, and checks that it helped.
#[derive(Debug, Parser)]
#[command(name = "codex-watchdog", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only say what would be done: nothing is done, kept, or told to anybody else.
    #[arg(long)]
    dry_run: bool,
    /// The least important log lines to show.
    #[arg(long, value_enum, default_value = "info")]
    log: log::Level,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell an exported incident again, as this program would decide it (codex-proxyctl incidents export)
    Replay {
        /// The exported file; - reads standard input
        file: PathBuf,
    },
}

const UNFORESEEN: u8 = 1;
const LOCKED: u8 = 5;
const UNUSABLE: u8 = 6;

/// The proxy's program stands beside this one.
const PROXY: &str = "codex-proxy";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Replay { file }) = &arguments.command {
        return match replay(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err((code, why)) => {
                complain(&why);
                ExitCode::from(code)
            }
        };
    }
    log::start(arguments.log, "codex-watchdog");
    match watch(arguments.dry_run) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            error!(codex_error = why, "cannot go on");
            ExitCode::from(code)
        }
    }
}

/// A program's end without success.
type Stop = (u8, String);

fn unforeseen(error: impl std::fmt::Display) -> Stop {
    (UNFORESEEN, error.to_string())
}

fn watch(dry_run: bool) -> Result<(), Stop> {
    let paths = Paths::from_env().map_err(unforeseen)?;
    let (config, config_error) = match config::load(&Layers::standard(&paths.config)) {
        Ok(settings) => (settings.watchdog, None),
        Err(errors) => {
            warn!(codex_error = %errors, "the configuration cannot be used, going by the defaults");
            (Watchdog::default(), Some(errors.to_string()))
        }
    };
    // All it does is wait; the little it computes fits one thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unforeseen)?;
    let options = Options {
        state: (!dry_run).then_some(paths.state),
        bus: SessionBus::default(),
        config,
        config_error,
        proxy: proxy().map_err(unforeseen)?,
        manager: Manager::from_env(),
        said: if dry_run { say } else { |_| {} },
    };
    runtime.block_on(async {
        let stop = stop_signal().map_err(unforeseen)?;
        info!(codex_dry_run = dry_run, "watching");
        run(options, stop).await.map_err(|error| match &error {
            RunError::Store(StoreError::Locked { .. }) => (LOCKED, format!("another watchdog is at work: {error}")),
            _ => unforeseen(error),
        })?;
        info!("stopped");
        Ok(())
    })
}

/// Where the proxy's program is, as `/proc/PID/exe` would name it. After an upgrade this program's own file is gone.
fn proxy() -> io::Result<String> {
    let this = std::env::current_exe()?;
    let this = this.to_string_lossy();
    let this = Path::new(this.strip_suffix(" (deleted)").unwrap_or(&this));
    Ok(this.with_file_name(PROXY).to_string_lossy().into_owned())
}

/// Comes true at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn replay(file: &Path) -> Result<(), Stop> {
    let text = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| (UNUSABLE, format!("cannot read {}: {error}", file.display())))?;
    let export: Export = serde_json::from_str(&text)
        .map_err(|error| (UNUSABLE, format!("{} is no exported incident: {error}", file.display())))?;
    if export.version != env!("CARGO_PKG_VERSION") {
        complain(&format!(
            "written by version {}, told by {}: it may differ",
            export.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    print!("{}", timeline(&export));
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the one place where a person is told what is wrong")]
fn complain(why: &str) {
    eprintln!("codex-watchdog: {why}");
}
