//! The control program: reads arguments, runs one command of [`codex_proxy::ctl`], prints what it gives.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use codex_proxy::ctl::{
    CtlError, Outcome, catalogue, control, demo, doctor, incidents, logs, models, providers, setup, status, token,
    usage, watchdog,
};
use codex_proxy::host::paths::Paths;

/// Sets Codex up for codex-proxy, and looks after the running proxy.
#[derive(Parser)]
#[command(name = "codex-proxyctl", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether the proxy serves, and if not, which command mends it; exits 0 serving, 1 in trouble, 3 not running
    Status {
        /// The proxy's port on 127.0.0.1 [default: that of codex-proxy.socket, else the one Codex is set up for, else 8459]
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// Show the journal of the proxy's services
    Logs {
        /// Go on with new entries as they come
        #[arg(short, long)]
        follow: bool,
        /// At most so many entries, the newest
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<u32>,
        /// No older entries: "10 min ago", "today", "2026-01-31 12:00"
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Check everything that proxy, service, Codex and providers need of each other; exits 1 if something fails
    Doctor {
        /// The proxy's port on 127.0.0.1 [default: that of codex-proxy.socket, else the one Codex is set up for, else 8459]
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// Codex's directory [default: $CODEX_HOME, else ~/.codex]
        #[arg(long, value_name = "DIR")]
        codex_home: Option<PathBuf>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// Start the proxy's socket and service
    Start,
    /// Stop socket, service and fallback (stopping the service alone lets the next connection start it again)
    Stop,
    /// Restart the service; connections wait meanwhile, answers under way get a few seconds to end
    Restart,
    /// Start again what crashed too often and is not started any more
    Recover,
    /// What was asked of the models: requests, tokens, times, and what they cost by your `[prices]`
    Usage {
        /// What a line is for
        #[arg(long, value_enum, default_value = "day")]
        by: By,
        /// From when: 12h or 7d ago, 2026-01-31, "2026-01-31 12:00" (local time)
        #[arg(long, value_name = "TIME", default_value = "30d")]
        since: String,
        /// Until before when, in the same words [default: now]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// What the watchdog found and did; also while it does not run
    #[command(subcommand)]
    Incidents(IncidentsCommand),
    /// Give up what the watchdog has announced or holds back
    Cancel {
        /// For which incident [default: the one an action is announced for]
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Let the watchdog do nothing for a while; it goes on watching, and systemd still restarts the proxy
    Pause {
        /// 30s, 10m, 2h or 1d; at most a week
        #[arg(value_name = "DURATION", default_value = "1h")]
        duration: String,
        /// For the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a pause of the watchdog
    Resume,
    /// Write the proxy into Codex's config.toml; `restore` undoes it
    Setup(SetupArgs),
    /// Take out of Codex's config.toml what `setup` wrote
    Restore {
        /// Codex's directory [default: $CODEX_HOME, else ~/.codex]
        #[arg(long, value_name = "DIR")]
        codex_home: Option<PathBuf>,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the bearer token, if the listener on the port is yours (Codex runs this)
    Token {
        /// The proxy's port on 127.0.0.1
        #[arg(long, value_name = "N")]
        port: u16,
        /// While another user holds the port, wait instead of failing: a Codex whose command fails sends without a token
        #[arg(long)]
        hold: bool,
    },
    /// The places that serve models: which there could be, which there are, one more, and whether one works
    #[command(subcommand)]
    Providers(ProvidersCommand),
    /// Which models the providers have, and what is known of them
    #[command(subcommand)]
    Models(ModelsCommand),
    /// What clients are told about the models
    #[command(subcommand)]
    Catalogue(CatalogueCommand),
    /// Play the built-in demo model against the running proxy
    Demo {
        /// The proxy's port on 127.0.0.1 [default: that of codex-proxy.socket, else the one Codex is set up for, else 8459]
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// Write the demo's file into this directory instead of a fresh temporary one
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    /// In the local time zone
    Day,
    /// As it was asked for
    Model,
    /// The one asked last
    Provider,
    /// The provider and its model asked last
    Route,
}

impl From<By> for usage::Key {
    fn from(by: By) -> Self {
        match by {
            By::Day => Self::Day,
            By::Model => Self::Model,
            By::Provider => Self::Provider,
            By::Route => Self::Route,
        }
    }
}

#[derive(Args)]
struct SetupArgs {
    /// The proxy's port on 127.0.0.1 [default: that of codex-proxy.socket, moved if it is taken; else as it was set up
    /// before, else 8459]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The model to select [default: the first of your config.toml that the running proxy offers]
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// Select the proxy even if Codex uses another provider or model now
    #[arg(long)]
    default: bool,
    /// Codex's directory [default: $CODEX_HOME, else ~/.codex]
    #[arg(long, value_name = "DIR")]
    codex_home: Option<PathBuf>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// The codex program to read the system prompt from [default: the first on the PATH]
    #[arg(long, value_name = "PATH")]
    codex: Option<PathBuf>,
}

#[derive(Subcommand)]
enum IncidentsCommand {
    /// The incidents, newest first
    List {
        /// Only those that are open
        #[arg(long)]
        open: bool,
        /// Only of this fault, A1 to E5
        #[arg(long, value_name = "ID")]
        fault: Option<String>,
        /// Opened not before: 10m, 2h or 1d ago, 2026-01-31, "2026-01-31 12:00" (UTC)
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// At most so many [default: 20]
        #[arg(short = 'n', long = "lines", value_name = "N")]
        max: Option<usize>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// One incident's story, a line for each fact
    Show {
        /// i12 or 12
        id: String,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// What a fault means and what to do about it; of an incident, also what was done and how that was verified
    Explain {
        /// An incident (i12) or a fault (A1)
        #[arg(value_name = "ID|FAULT")]
        what: String,
    },
    /// Everything about one incident, for `codex-watchdog replay`
    Export {
        /// i12 or 12
        id: String,
        /// Into this file, which only you can read [default: print it]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print what happens from now on, until Ctrl-C
    Follow {
        /// For programs, one object a line; keys are only ever added
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum ProvidersCommand {
    /// The services whose address and peculiarities are known here
    Presets {
        /// Only those with this in their name or title
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// The configured providers, and where their keys come from
    List {
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// Write a provider into your config.toml, and tell the running proxy
    Add(Box<AddArgs>),
    /// Try a provider step by step: address, connection, key, TLS, models, an answer, a tool call; exits 1 if one fails
    Test {
        /// The provider
        name: String,
        /// The model's id there, for the answers [default: one that the configuration uses, or the only one listed]
        #[arg(long, value_name = "ID")]
        model: Option<String>,
        /// Ask for no answers: they cost a few tokens
        #[arg(long)]
        free: bool,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct AddArgs {
    /// What it is to be called
    name: String,
    /// What it is: see `providers presets`; `none` if it is no such service [default: NAME, if that is one]
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// Its address, if it is not the preset's
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// What it is spoken to in, if not as the preset says
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// The peculiarities of its Chat Completions, if not as the preset says
    #[arg(long, value_name = "DIALECT")]
    dialect: Option<String>,
    /// The key is in this variable of the proxy's environment (a service does not see your shell's)
    #[arg(long, value_name = "VARIABLE", group = "key")]
    key_env: Option<String>,
    /// The key is in this file, which only you can read
    #[arg(long, value_name = "FILE", group = "key")]
    key_file: Option<PathBuf>,
    /// The key is this credential of the unit
    #[arg(long, value_name = "NAME", group = "key")]
    key_credential: Option<String>,
    /// This program prints the key; words, no shell
    #[arg(long, value_name = "COMMAND", group = "key")]
    key_command: Option<String>,
    /// Read the key from standard input, and keep it in a file of mode 0600
    #[arg(long, group = "key")]
    key_stdin: bool,
    /// It needs no key
    #[arg(long, group = "key")]
    no_key: bool,
    /// Taken only to say, without repeating it, that it does not belong here
    #[arg(long = "key", hide = true, num_args = 0..=1, allow_hyphen_values = true, value_name = "KEY")]
    key_itself: Option<Option<String>>,
    /// Offer this model of it, by its id there, or as NAME=ID; again for more
    #[arg(long = "model", value_name = "[NAME=]ID")]
    models: Vec<String>,
    /// Write over a provider of that name
    #[arg(long)]
    replace: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Ask the providers for their models and keep what they say; exits 1 if one does not answer
    Refresh {
        /// Only this provider
        #[arg(value_name = "PROVIDER")]
        provider: Option<String>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
    /// What they said when they were last asked
    List {
        /// Only this provider
        #[arg(value_name = "PROVIDER")]
        provider: Option<String>,
        /// For programs; keys are only ever added
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum CatalogueCommand {
    /// Read the system prompt from the installed client again, after an update of it
    Refresh {
        /// The codex program [default: the first on the PATH]
        #[arg(long, value_name = "PATH")]
        codex: Option<PathBuf>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Wrong arguments end here with code 2.
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .init();
    match run(cli.command).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<u8, CtlError> {
    let Outcome { text, code } = match command {
        Command::Status { port, json } => status::status(&paths()?, port, json).await?,
        Command::Logs { follow, lines, since } => {
            logs::logs(&logs::Options { follow, lines, since }).await?;
            Outcome::default()
        }
        Command::Doctor { port, codex_home, json } => {
            doctor::doctor(&paths()?, port, codex_home.as_deref(), json).await?
        }
        Command::Start => control::start().await?,
        Command::Stop => control::stop().await?,
        Command::Restart => control::restart().await?,
        Command::Recover => control::recover().await?,
        Command::Usage { by, since, until, json } => {
            usage::usage(&state_dir()?, &usage::Options { by: by.into(), since, until, json })?
        }
        Command::Incidents(command) => incidents(command, &state_dir()?)?,
        Command::Cancel { id } => watchdog::cancel(id.as_deref()).await?,
        Command::Pause { duration, reason } => watchdog::pause(&duration, reason.as_deref()).await?,
        Command::Resume => watchdog::resume().await?,
        Command::Setup(args) => {
            let options = setup::Options {
                port: args.port,
                model: args.model,
                default: args.default,
                codex_home: args.codex_home,
                dry_run: args.dry_run,
                codex: args.codex,
            };
            Outcome::of(setup::setup(&options, &paths()?).await?)
        }
        Command::Restore { codex_home, dry_run } => Outcome::of(setup::restore(codex_home.as_deref(), dry_run)?),
        Command::Token { port, hold } => {
            let stranger = if hold { token::Stranger::Hold } else { token::Stranger::Refuse };
            let token = token::for_port(port, &state_dir()?, token::LISTENER_WAIT, stranger)?;
            Outcome::of(format!("{}\n", token.reveal()))
        }
        Command::Providers(command) => providers(command, &paths()?).await?,
        Command::Models(ModelsCommand::Refresh { provider, json }) => {
            models::refresh(provider.as_deref(), &paths()?, json).await?
        }
        Command::Models(ModelsCommand::List { provider, json }) => models::list(provider.as_deref(), &paths()?, json)?,
        Command::Catalogue(CatalogueCommand::Refresh { codex }) => {
            Outcome::of(format!("{}\n", catalogue::refresh(&state_dir()?, codex.as_deref()).await?))
        }
        Command::Demo { port, keep } => {
            // What cannot be printed is no reason to stop halfway.
            let mut say = |line: &str| drop(show(&format!("{line}\n")));
            demo::run(status::port_or(port).await, keep.as_deref(), &state_dir()?, &mut say).await?;
            Outcome::default()
        }
    };
    show(&text)?;
    Ok(code)
}

async fn providers(command: ProvidersCommand, paths: &Paths) -> Result<Outcome, CtlError> {
    match command {
        ProvidersCommand::Presets { filter, json } => providers::presets(filter.as_deref(), json),
        ProvidersCommand::List { json } => providers::list(paths, json),
        ProvidersCommand::Add(args) => {
            let options = providers::AddOptions {
                name: args.name,
                preset: args.preset,
                base_url: args.base_url,
                protocol: args.protocol,
                dialect: args.dialect,
                key_env: args.key_env,
                key_file: args.key_file,
                key_credential: args.key_credential,
                key_command: args.key_command,
                key_stdin: args.key_stdin,
                no_key: args.no_key,
                key_itself: args.key_itself.is_some(),
                models: args.models,
                replace: args.replace,
                dry_run: args.dry_run,
            };
            providers::add(&options, paths).await
        }
        ProvidersCommand::Test { name, model, free, json } => {
            // What cannot be printed is no reason to stop halfway.
            let mut say = |line: &str| drop(show(&format!("{line}\n")));
            providers::trial::test(&providers::trial::Options { name, model, free, json }, paths, &mut say).await
        }
    }
}

fn incidents(command: IncidentsCommand, state: &Path) -> Result<Outcome, CtlError> {
    match command {
        IncidentsCommand::List { open, fault, since, max, json } => {
            incidents::list(state, &incidents::ListOptions { open, fault, since, max, json })
        }
        IncidentsCommand::Show { id, json } => incidents::show(state, &id, json),
        IncidentsCommand::Explain { what } => incidents::explain(state, &what),
        IncidentsCommand::Export { id, output } => incidents::export(state, &id, output.as_deref()),
        IncidentsCommand::Follow { json } => {
            incidents::follow(state, json, || note("what happens from now on, until Ctrl-C:"), show)?;
            Ok(Outcome::default())
        }
    }
}

fn state_dir() -> Result<PathBuf, CtlError> {
    paths().map(|paths| paths.state)
}

fn paths() -> Result<Paths, CtlError> {
    Paths::from_env().map_err(|error| CtlError::Arguments(error.to_string()))
}

/// Prints at once. A reader that went away (`| head`) is an error like any other, not a panic.
fn show(text: &str) -> Result<(), CtlError> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| CtlError::Unforeseen(format!("cannot print: {error}")))
}

#[expect(clippy::print_stderr, reason = "for who looks, not for who reads the output")]
fn note(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "the one place where an error is told")]
fn complain(error: &CtlError) {
    eprintln!("codex-proxyctl: {error}");
}
