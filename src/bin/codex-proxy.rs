//! The proxy: arguments, build, run, exit code.
//!
//! Exit: 0 after an orderly stop; 1 unforeseen; 2 arguments; 4 privileges; 6 configuration.

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, ValueEnum};
use codex_proxy::{
    codec::seal::Sealer,
    config::{self, Layers, settings::Settings},
    host::{cataloguefile, paths::Paths, secretfile},
    proxy::{
        catalogue, serve,
        service::{Prompt, Service},
    },
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tracing::{error, info, warn};
use tracing_subscriber::filter::LevelFilter;

/// Runs Codex with any model: answers the Responses API on a loopback address and asks the configured providers.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Loopback address to serve; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8459")]
    listen: SocketAddr,
    /// Read this file instead of the standard ones.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it can be used, 6 if not.
    #[arg(long)]
    check: bool,
    /// The least important log lines to show.
    #[arg(long, value_enum, default_value = "info")]
    log: LogLevel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

const UNFORESEEN: u8 = 1;
const ARGUMENTS: u8 = 2;
const PRIVILEGES: u8 = 4;
const CONFIGURATION: u8 = 6;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { code, error }) => {
            error!(codex_error = %chain(error.as_ref()), "cannot go on");
            ExitCode::from(code)
        }
    }
}

/// Why the program ends, and with which status.
struct Stop {
    code: u8,
    error: Box<dyn std::error::Error>,
}

impl Stop {
    fn new(code: u8, error: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self { code, error: error.into() }
    }
}

fn run(arguments: &Arguments) -> Result<(), Stop> {
    let paths = Paths::from_env().map_err(|error| Stop::new(UNFORESEEN, error))?;
    let layers = match &arguments.config {
        Some(file) => Layers::only(file),
        None => Layers::standard(&paths.config),
    };
    let settings = config::load(&layers).map_err(|errors| Stop::new(CONFIGURATION, errors))?;
    if arguments.check {
        info!(codex_files = ?settings.files, codex_models = ?settings.offered(), "the configuration can be used");
        return Ok(());
    }
    // Two workers serve hundreds of streams; more only cost memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Stop::new(UNFORESEEN, error))?;
    runtime.block_on(proxy(arguments, &layers, settings, &paths))
}

async fn proxy(arguments: &Arguments, layers: &Layers, settings: Settings, paths: &Paths) -> Result<(), Stop> {
    let listener = serve::listen(arguments.listen).await.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => PRIVILEGES,
            io::ErrorKind::InvalidInput => ARGUMENTS,
            _ => UNFORESEEN,
        };
        let what = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{} is taken; choose another with --listen", arguments.listen),
            _ => format!("cannot listen on {}: {error}", arguments.listen),
        };
        Stop::new(code, what)
    })?;
    let address = listener.local_addr().map_err(|error| Stop::new(UNFORESEEN, error))?;
    let unforeseen = |error: io::Error| Stop::new(UNFORESEEN, error);
    let (stop, forward_stops) = stop_signals().map_err(unforeseen)?;
    let reload = signal(SignalKind::hangup()).map_err(unforeseen)?;

    let token = secretfile::load_or_create(&paths.state, secretfile::TOKEN).or_else(|error| {
        let file = paths.state.join(secretfile::TOKEN);
        if file.symlink_metadata().is_ok() {
            // Nobody could know another token, so nobody could be served.
            return Err(Stop::new(PRIVILEGES, format!("the token {} cannot be used: {error}", file.display())));
        }
        in_memory("token", &error)
    })?;
    let key = secretfile::load_or_create(&paths.state, secretfile::OPAQUE_KEY)
        .or_else(|error| in_memory("opaque.key", &error))?;
    say_what_is_lacking(&settings);
    let service = Arc::new(Service::new(settings, token, Sealer::new(key.bytes()), &prompt(&paths.state)));
    announce(address);
    let mut tasks = JoinSet::new();
    tasks.spawn(forward_stops);
    tasks.spawn(reload_on(reload, Arc::clone(&service), layers.clone(), paths.state.clone()));
    serve::serve(service, listener, stop).await;
    tasks.shutdown().await;
    info!("stopped");
    Ok(())
}

/// A secret that cannot be stored lives as long as the process: requests are served all the same.
fn in_memory(name: &str, error: &io::Error) -> Result<secretfile::Secret32, Stop> {
    warn!(codex_name = name, codex_error = %error, "cannot keep a secret on disk, using one that lives in memory");
    secretfile::Secret32::random().map_err(|error| Stop::new(UNFORESEEN, error))
}

fn prompt(state: &Path) -> Prompt {
    let own = || Prompt { base_instructions: catalogue::BASE_INSTRUCTIONS.to_owned(), hidden_models: Vec::new() };
    match cataloguefile::load(state) {
        Ok(Some(stored)) => {
            Prompt { base_instructions: stored.base_instructions, hidden_models: stored.built_in_models }
        }
        Ok(None) => own(),
        Err(error) => {
            warn!(codex_error = %error, "cannot read the stored catalogue, giving Codex the built-in system prompt");
            own()
        }
    }
}

/// Said once, at start: nothing of it keeps the proxy from serving.
fn say_what_is_lacking(settings: &Settings) {
    if settings.files.is_empty() {
        info!("no configuration file: only the built-in model demo is offered");
    } else if settings.models.is_empty() && settings.providers.is_empty() {
        info!(codex_files = ?settings.files, "no provider configured: only the built-in model demo is offered");
    }
    info!("started by hand: no service manager restarts this program, and its state is not on the bus");
}

#[expect(clippy::print_stdout, reason = "the one line a person or a script waits for")]
fn announce(address: SocketAddr) {
    println!("listening on {address}");
}

/// Says something at every SIGTERM and SIGINT.
fn stop_signals() -> io::Result<(mpsc::Receiver<()>, impl Future<Output = ()>)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    let forward = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // A full channel holds two words already, and a closed one wants none.
            let _ = sender.try_send(());
        }
    };
    Ok((receiver, forward))
}

/// Reloads configuration and system prompt at every SIGHUP; a configuration that cannot be used changes nothing.
async fn reload_on(mut signal: Signal, service: Arc<Service>, layers: Layers, state: PathBuf) {
    while signal.recv().await.is_some() {
        let (layers, state) = (layers.clone(), state.clone());
        // Files may lie on slow disks.
        let read = tokio::task::spawn_blocking(move || (config::load(&layers), prompt(&state))).await;
        match read {
            Ok((Ok(settings), prompt)) => {
                info!(codex_models = ?settings.offered(), "configuration reloaded");
                service.reload(settings, &prompt);
            }
            Ok((Err(errors), _)) => {
                error!(codex_error = %errors, "the new configuration cannot be used, keeping the old settings");
            }
            Err(error) => error!(codex_error = %error, "the configuration was not read, keeping the old settings"),
        }
    }
}

fn start_log(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// An error and its causes, once, by whoever gives up.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
