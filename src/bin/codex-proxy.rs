//! The proxy: arguments, build, run, exit code.
//!
//! Exit: 0 after an orderly stop; 1 unforeseen; 2 arguments; 4 privileges; 6 configuration.

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use codex_proxy::{
    bus::Bus,
    codec::seal::Sealer,
    config::{self, Layers, settings::Settings},
    host::{
        log,
        manager::Manager,
        paths::Paths,
        secretfile::{self, Secret32},
        sockets,
    },
    proxy::{
        capped, known, ledger,
        origins::Origins,
        quarantine::{Exit, Quarantine},
        reload::{Reloader, prompt},
        serve,
        service::{Service, State},
        stored,
    },
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tracing::{error, info, warn};

/// Runs Codex with any model: answers the Responses API on a loopback address and asks the configured providers.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Loopback address to serve by hand; port 0 takes a free one. Without it, the socket inherited from the service
    /// manager, else 127.0.0.1:8459.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Read this file instead of the standard ones.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it can be used, 6 if not.
    #[arg(long)]
    check: bool,
    /// The least important log lines to show.
    #[arg(long, value_enum, default_value = "info")]
    log: log::Level,
    /// For codex-proxy.service: write down how the last run ended, and exit.
    #[arg(long, hide = true)]
    record_exit: bool,
    /// For codex-proxy-capped.service: answer for a proxy that is not started any more.
    #[arg(long, hide = true)]
    capped: bool,
}

const UNFORESEEN: u8 = 1;
const ARGUMENTS: u8 = 2;
const PRIVILEGES: u8 = 4;
const CONFIGURATION: u8 = 6;

/// Where it listens by hand if nothing is said.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8459);
/// What blocks on files when all is done gets so long.
const LAST_TIME_MAX: Duration = Duration::from_secs(1);
/// `FileDescriptorName=` in codex-proxy.socket.
const SOCKET_NAME: &str = "http";
/// The unit whose port the fallback takes.
const SOCKET_UNIT: &str = "codex-proxy.socket";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::start(arguments.log, "codex-proxy");
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { code, error }) => {
            error!(codex_error = %log::chain(error.as_ref()), "cannot go on");
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

    fn unforeseen(error: impl Into<Box<dyn std::error::Error>>) -> Self {
        Self::new(UNFORESEEN, error)
    }
}

/// What a process is started with.
struct Start {
    paths: Paths,
    layers: Layers,
    manager: Manager,
    /// Under a manager, or with its socket: then trouble is a state to be told, not an exit to be repeated.
    managed: bool,
}

fn run(arguments: &Arguments) -> Result<(), Stop> {
    let runtime_directory = env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from).filter(|path| path.is_absolute());
    if arguments.record_exit {
        return record_exit(runtime_directory.as_deref());
    }
    let paths = Paths::from_env().map_err(Stop::unforeseen)?;
    let layers = match &arguments.config {
        Some(file) => Layers::only(file),
        None => Layers::standard(&paths.config),
    };
    let manager = Manager::from_env();
    // Before any other descriptor is opened or thread started.
    let inherited = sockets::inherited(SOCKET_NAME).map_err(Stop::unforeseen)?;
    let start = Start { paths, layers, manager, managed: inherited.is_some() || manager.present() };
    let loaded = config::load(&start.layers).map(|settings| {
        let known = known::load(&settings, &start.paths.state, &start.paths.cache);
        Settings { known, ..settings }
    });
    if arguments.check {
        let settings = loaded.map_err(|errors| Stop::new(CONFIGURATION, errors))?;
        for name in settings.prices_of_nothing() {
            warn!(codex_name = name, "a price is for no provider and model that is configured");
        }
        info!(codex_files = ?settings.files, codex_models = ?settings.offered(), "the configuration can be used");
        return Ok(());
    }
    let (settings, config_error) = match loaded {
        Ok(settings) => (settings, None),
        Err(errors) if start.managed => {
            error!(codex_error = %errors, "the configuration cannot be used, refusing requests until it is mended");
            (Settings::default(), Some(errors.to_string()))
        }
        Err(errors) => return Err(Stop::new(CONFIGURATION, errors)),
    };
    #[cfg(feature = "test-faults")]
    codex_proxy::proxy::testfault::at_start();
    // One worker serves hundreds of streams. Others would cost most events a wake-up, which is more than passing the event
    // on costs.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Stop::unforeseen)?;
    let quarantine = runtime_directory.as_deref().map(open_quarantine);
    let result = runtime.block_on(async {
        if arguments.capped {
            capped(arguments, &start, settings).await
        } else {
            proxy(arguments, start, inherited, settings, config_error, quarantine).await
        }
    });
    // What still hangs on a disk then is not waited for.
    runtime.shutdown_timeout(LAST_TIME_MAX);
    result
}

/// What `ExecStopPost=` calls: a few milliseconds between a death and the next start.
fn record_exit(runtime: Option<&Path>) -> Result<(), Stop> {
    let runtime = runtime.ok_or_else(|| Stop::new(ARGUMENTS, "RUNTIME_DIRECTORY is not set"))?;
    let word = |name| env::var(name).ok().filter(|word| !word.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    let exit = Exit { result: word("SERVICE_RESULT"), code: word("EXIT_CODE"), status: word("EXIT_STATUS") };
    exit.record(runtime).map_err(Stop::unforeseen)
}

/// The quarantine, and what is wrong with it if it has no files.
fn open_quarantine(runtime: &Path) -> (Quarantine, Option<String>) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match Quarantine::open(runtime, now_s) {
        Ok((quarantine, inheritance)) => {
            if let Some(exit) = inheritance.exit.filter(|exit| exit.result != "success") {
                warn!(
                    codex_result = exit.result,
                    codex_exit_code = exit.code,
                    codex_exit_status = exit.status,
                    codex_in_flight = inheritance.in_flight,
                    codex_request_suspected = exit.counts(),
                    "the last run did not end well"
                );
            }
            (quarantine, None)
        }
        Err(error) => {
            warn!(codex_error = %error, "cannot record what is in flight, serving without");
            (Quarantine::without_files(), Some(format!("{} cannot be written: {error}", runtime.display())))
        }
    }
}

async fn proxy(
    arguments: &Arguments,
    start: Start,
    inherited: Option<std::net::TcpListener>,
    settings: Settings,
    config_error: Option<String>,
    quarantine: Option<(Quarantine, Option<String>)>,
) -> Result<(), Stop> {
    let Start { paths, layers, manager, managed } = start;
    let listener = match (inherited, arguments.listen) {
        (Some(socket), None) => TcpListener::from_std(socket).map_err(Stop::unforeseen)?,
        (_, address) => listen(address.unwrap_or(DEFAULT_ADDRESS)).await?,
    };
    let address = listener.local_addr().map_err(Stop::unforeseen)?;
    let (stop, forward_stops) = stop_signals().map_err(Stop::unforeseen)?;
    let reload = signal(SignalKind::hangup()).map_err(Stop::unforeseen)?;

    let mut troubles = Vec::new();
    let mut config_errors: Vec<String> = config_error.into_iter().collect();
    let token = match token(&paths.state, managed, &mut troubles)? {
        Ok(token) => Some(token),
        Err(text) if managed => {
            config_errors.push(text);
            None
        }
        Err(text) => return Err(Stop::new(PRIVILEGES, text)),
    };
    let key = secretfile::load_or_create(&paths.state, secretfile::OPAQUE_KEY)
        .or_else(|error| in_memory(secretfile::OPAQUE_KEY, &error, &mut troubles))?;
    say_what_is_lacking(&settings, managed);
    let mut service = Service::new(settings, token, Sealer::new(key.bytes()), &prompt(&paths.state));
    match Origins::open(&paths.state) {
        Ok(origins) => service = service.with_origins(origins),
        Err(error) => {
            warn!(codex_error = %error, "cannot note on disk whose thoughts are whose, keeping it in memory");
            troubles.push(format!("whose thoughts are whose cannot be kept on disk: {error}"));
        }
    }
    if let Some((quarantine, trouble)) = quarantine {
        troubles.extend(trouble);
        service = service.with_quarantine(quarantine);
    }
    if !config_errors.is_empty() {
        service.set_state(State::ConfigError(config_errors.join("\n")));
    } else if !troubles.is_empty() {
        service.set_state(State::Degraded(troubles.join("; ")));
    }
    let service = Arc::new(service);
    let mut tasks = JoinSet::new();
    tasks.spawn(forward_stops);
    let keeping = ledger::keep(Arc::clone(&service), &paths.state).map(tokio::spawn);
    let tending = stored::tend(Arc::clone(&service), &paths.state).map(tokio::spawn);
    let reloader = Arc::new(Reloader::new(Arc::clone(&service), layers, paths.state, paths.cache, manager));
    tasks.spawn(reload_on(reload, Arc::clone(&reloader)));
    let learner = Arc::clone(&reloader);
    tasks.spawn(async move { learner.keep_learning().await });
    // Before the manager hears that we are ready: then who waits for that finds the name.
    let bus = Bus::connect(Arc::clone(&service), reloader, vec![address.to_string()], managed).await;
    tasks.spawn(bus.keep());
    announce(address, managed);
    // On the worker, because the manager is told from there that all is well: it must not be when the worker hangs.
    let serving = tokio::spawn(serve::serve(Arc::clone(&service), listener, stop, manager));
    serving.await.map_err(Stop::unforeseen)?;
    service.ledger().close();
    service.responses().close();
    if let Some(keeping) = keeping
        && timeout(ledger::CLOSE_TIME_MAX, keeping).await.is_err()
    {
        warn!("the disk did not take the last of the record of usage in time");
    }
    if let Some(tending) = tending
        && timeout(stored::CLOSE_TIME_MAX, tending).await.is_err()
    {
        warn!("the disk did not take the last responses in time");
    }
    tasks.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Answers on the proxy's port while the proxy is not started any more.
async fn capped(arguments: &Arguments, start: &Start, settings: Settings) -> Result<(), Stop> {
    let address = match arguments.listen {
        Some(address) => address,
        None => socket_address().await.unwrap_or(DEFAULT_ADDRESS),
    };
    let listener = match serve::listen(address).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Somebody holds the port: a stranger, which is another story, or the proxy itself, back again.
            info!(codex_listen = %address, "the port is held, nothing to do");
            return Ok(());
        }
        Err(error) => return Err(Stop::unforeseen(format!("cannot listen on {address}: {error}"))),
    };
    let (stop, forward_stops) = stop_signals().map_err(Stop::unforeseen)?;
    let token = secretfile::load_or_create(&start.paths.state, secretfile::TOKEN).map_err(Stop::unforeseen)?;
    let key = Secret32::random().map_err(Stop::unforeseen)?;
    let service = Service::new(settings, Some(token), Sealer::new(key.bytes()), &prompt(&start.paths.state));
    service.set_state(State::Degraded("the proxy crashed too often and is not started any more".to_owned()));
    error!(codex_listen = %address, "the proxy is not started any more, answering for it");
    let mut tasks = JoinSet::new();
    tasks.spawn(forward_stops);
    capped::serve(Arc::new(service), listener, stop, start.manager).await;
    tasks.shutdown().await;
    Ok(())
}

/// Where the manager's socket unit would listen: it may have been moved by a drop-in.
async fn socket_address() -> Option<SocketAddr> {
    let show = tokio::process::Command::new("systemctl")
        .args(["--user", "show", "--property=Listen", SOCKET_UNIT])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(5), show).await.ok()?.ok()?;
    capped::listen_address(&String::from_utf8_lossy(&output.stdout))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Stop> {
    serve::listen(address).await.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => PRIVILEGES,
            io::ErrorKind::InvalidInput => ARGUMENTS,
            _ => UNFORESEEN,
        };
        let what = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{address} is taken; choose another with --listen"),
            _ => format!("cannot listen on {address}: {error}"),
        };
        Stop::new(code, what)
    })
}

/// The token; `Ok(Err(…))` if there is one that cannot be read, or a service cannot keep a new one: nobody could know
/// another, so nobody could be served.
fn token(state: &Path, managed: bool, troubles: &mut Vec<String>) -> Result<Result<Secret32, String>, Stop> {
    match secretfile::load_or_create(state, secretfile::TOKEN) {
        Ok(token) => Ok(Ok(token)),
        Err(error) => {
            let file = state.join(secretfile::TOKEN);
            let exists = file.symlink_metadata().is_ok();
            if !exists && !managed {
                return in_memory(secretfile::TOKEN, &error, troubles).map(Ok);
            }
            let what = if exists { "read" } else { "made" };
            Ok(Err(format!("{}: the token cannot be {what}: {error}", file.display())))
        }
    }
}

/// A secret that cannot be stored lives as long as the process: requests are served all the same.
fn in_memory(name: &str, error: &io::Error, troubles: &mut Vec<String>) -> Result<Secret32, Stop> {
    warn!(codex_name = name, codex_error = %error, "cannot keep a secret on disk, using one that lives in memory");
    troubles.push(format!("{name} cannot be kept on disk: {error}"));
    Secret32::random().map_err(Stop::unforeseen)
}

/// Said once, at start: nothing of it keeps the proxy from serving.
fn say_what_is_lacking(settings: &Settings, managed: bool) {
    if settings.files.is_empty() {
        info!("no configuration file: only the built-in model demo is offered");
    } else if settings.models.is_empty() && settings.providers.is_empty() {
        info!(codex_files = ?settings.files, "no provider configured: only the built-in model demo is offered");
    }
    if !managed {
        info!("started by hand: no service manager restarts this program");
    }
}

#[expect(clippy::print_stdout, reason = "the one line a person or a script waits for")]
fn announce(address: SocketAddr, managed: bool) {
    if managed {
        info!(codex_listen = %address, "serving");
    } else {
        println!("listening on {address}");
    }
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
async fn reload_on(mut signal: Signal, reloader: Arc<Reloader>) {
    while signal.recv().await.is_some() {
        // What is wrong was logged, and there is nobody here to tell.
        drop(reloader.reload().await);
    }
}
