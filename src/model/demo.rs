//! The demonstration's script: what the built-in model `demo` asks for, and therefore all that the demonstration's own
//! client is willing to do. PURE, constants only; the model itself is in `codec/demo.rs`.

/// The model's name.
pub const MODEL: &str = "demo";

/// The file it adds to the working directory.
pub const FILE_NAME: &str = "codex-proxy-demo.md";

/// The commands it asks for, at once. Both only look; the second tells whether [`FILE_NAME`] is there already.
pub const COMMANDS: [&str; 2] = ["uname -sr", "test -e codex-proxy-demo.md && echo present || echo absent"];

/// What the second command prints when the file is there.
pub const PRESENT: &str = "present";

/// What it prints when the file is not there.
pub const ABSENT: &str = "absent";

/// The file's lines.
pub const FILE_LINES: [&str; 11] = [
    "# codex-proxy works here",
    "",
    "This file was added by the model `demo`, which is built into codex-proxy: a script, no",
    "network, no account. The path it took is the one any model takes: the client asked for an",
    "answer, the proxy streamed one, the client ran two commands at once and applied a patch.",
    "",
    "Next:",
    "",
    "1. Name a provider and a model in `~/.config/codex-proxy/config.toml`.",
    "2. `codex-proxyctl setup` points Codex at the proxy; `codex-proxyctl restore` undoes it.",
    "3. Delete this file.",
];

/// The patch that adds the file, in the client's `apply_patch` format.
pub fn patch() -> String {
    let mut patch = format!("*** Begin Patch\n*** Add File: {FILE_NAME}\n");
    for line in FILE_LINES {
        patch.push('+');
        patch.push_str(line);
        patch.push('\n');
    }
    patch.push_str("*** End Patch\n");
    patch
}
