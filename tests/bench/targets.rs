//! The programs that are compared, each started in a directory of its own.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{process::Process, protocols::Protocol, script::Script};

/// Where a request goes.
#[derive(Debug)]
enum Way {
    /// To the upstream itself.
    Direct,
    /// Through haproxy, which passes everything on.
    Haproxy,
    /// Through a build of ours, which asks the upstream in that protocol.
    Proxy { binary: PathBuf },
}

/// One row of the comparison.
#[derive(Debug)]
pub struct Lane {
    /// For tables.
    pub name: String,
    way: Way,
    home: PathBuf,
    upstream: SocketAddr,
    /// What it wants to see.
    pub token: String,
    starts: Cell<u32>,
}

/// A started target; ends when dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it serves.
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Running {
    /// Its process, if it is one of its own.
    pub fn process(&self) -> Option<Process> {
        self.child.as_ref().map(|child| Process(child.id()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Lane {
    fn new(name: &str, way: Way, home: &Path, upstream: SocketAddr) -> Self {
        let home = home.join(name.replace(['/', ' '], "_"));
        fs::create_dir_all(&home).unwrap();
        Self { name: name.to_owned(), way, home, upstream, token: "none".to_owned(), starts: Cell::new(0) }
    }

    /// The upstream itself.
    pub fn direct(home: &Path, upstream: SocketAddr) -> Self {
        Self::new("direct", Way::Direct, home, upstream)
    }

    /// haproxy, if it is installed.
    pub fn haproxy(home: &Path, upstream: SocketAddr) -> Option<Self> {
        let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.ok().filter(|status| status.success())?;
        Some(Self::new("haproxy", Way::Haproxy, home, upstream))
    }

    /// A build of ours with an upstream of that protocol.
    pub fn proxy(
        name: &str,
        binary: &Path,
        protocol: &'static Protocol,
        scripts: &[Script],
        home: &Path,
        upstream: SocketAddr,
    ) -> Self {
        let mut lane = Self::new(name, Way::Proxy { binary: binary.to_owned() }, home, upstream);
        let mut config = format!(
            "[providers.up]\nbase_url = \"http://{upstream}/v1\"\nprotocol = \"{}\"\n{}\n",
            protocol.name, protocol.provider
        );
        for script in scripts {
            let model = script.model();
            config.push_str(&format!("[models.{model}]\nroutes = [\"up/{model}\"]\ncontext_window = 10000000\n"));
        }
        fs::write(lane.home.join("config.toml"), config).unwrap();
        // Its first start makes the token, some time after it listens.
        let first = lane.start(None);
        let token = lane.home.join("state/codex-proxy/token");
        let end = Instant::now() + Duration::from_secs(10);
        lane.token = loop {
            match fs::read_to_string(&token) {
                Ok(token) => break token.trim().to_owned(),
                Err(error) => assert!(Instant::now() < end, "{}: {error}", token.display()),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        drop(first);
        lane
    }

    /// Whether it is a build of ours.
    pub fn is_proxy(&self) -> bool {
        matches!(self.way, Way::Proxy { .. })
    }

    /// Starts it and waits until it takes connections.
    pub fn start(&self, bus: Option<&Bus>) -> Running {
        let running = self.spawn(bus);
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(running.address).is_err() {
            assert!(Instant::now() < end, "{} does not start; see {}", self.name, self.home.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        running
    }

    /// Starts it and does not wait.
    pub fn spawn(&self, bus: Option<&Bus>) -> Running {
        let mut command = match &self.way {
            Way::Direct => return Running { address: self.upstream, child: None },
            Way::Haproxy => Command::new("haproxy"),
            Way::Proxy { binary } => Command::new(binary),
        };
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if let Way::Haproxy = self.way {
            let file = self.home.join("haproxy.cfg");
            fs::write(&file, haproxy_config(address, self.upstream)).unwrap();
            command.args(["-q", "-db", "-f"]).arg(file);
        } else {
            self.starts.set(self.starts.get() + 1);
            let directory = |name: &str| {
                let path = self.home.join(name);
                fs::create_dir_all(&path).unwrap();
                path
            };
            command
                .args(["--listen", &address.to_string(), "--config"])
                .arg(self.home.join("config.toml"))
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("HOME", &self.home)
                .env("XDG_CONFIG_HOME", directory("config"))
                .env("XDG_STATE_HOME", directory("state"))
                .env("XDG_RUNTIME_DIR", directory("user"))
                // As the service has it: requests under way are noted there.
                .env("RUNTIME_DIRECTORY", directory(&format!("run-{}", self.starts.get())));
            if let Some(bus) = bus {
                command.env("DBUS_SESSION_BUS_ADDRESS", &bus.address);
            }
        }
        let log: File = OpenOptions::new().create(true).append(true).open(self.home.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running { address, child: Some(command.spawn().unwrap()) }
    }
}

/// Passes everything on as it comes, in one thread, and keeps connections.
fn haproxy_config(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5m\n  \
         timeout server 5m\n  option http-keep-alive\n  option http-no-delay\n  http-reuse always\nfrontend front\n  \
         bind {address}\n  default_backend back\nbackend back\n  server upstream {upstream}\n"
    )
}

/// The scripted upstream in a process of its own.
pub struct Upstream {
    /// Where it serves.
    pub address: SocketAddr,
    child: Child,
}

impl Upstream {
    /// Starts this program once more.
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--upstream")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("listening on ").parse().unwrap();
        Self { address, child }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A message bus of its own, as a session has one.
pub struct Bus {
    address: String,
    child: Child,
}

impl Bus {
    /// Starts one, if it is installed.
    pub fn start(home: &Path) -> Option<Self> {
        let address = format!("unix:path={}", home.join("bus").display());
        let mut child = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1", "--address", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Some(Self { address, child })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
