//! Writes the manual pages and shell completions into a directory: `manual DIR`.
//!
//! They are made from the programs' own argument definitions while the package is built, so that the programs need not
//! carry what makes them.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};

#[expect(dead_code, reason = "only the definition of the arguments is used")]
#[path = "../src/bin/codex-proxy.rs"]
mod proxy;

#[expect(dead_code, reason = "only the definition of the arguments is used")]
#[path = "../src/bin/codex-proxyctl.rs"]
mod proxyctl;

#[expect(dead_code, reason = "only the definition of the arguments is used")]
#[path = "../src/bin/codex-watchdog.rs"]
mod watchdog;

fn main() -> io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: manual DIR"));
    };
    let dir = Path::new(&dir);
    for name in ["man", "bash", "zsh", "fish"] {
        fs::create_dir_all(dir.join(name))?;
    }
    for command in [proxy::Arguments::command(), proxyctl::Cli::command(), watchdog::Arguments::command()] {
        write(command, dir)?;
    }
    Ok(())
}

fn write(command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let written = generate_to(shell, &mut command.clone(), &name, dir.join(place))?;
        // bash-completion finds a file by the name of the program.
        if shell == Shell::Bash {
            fs::rename(written, dir.join(place).join(&name))?;
        }
    }
    clap_mangen::generate_to(command, dir.join("man"))
}
