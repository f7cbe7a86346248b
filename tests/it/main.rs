//! Everything that is tested through a public face: codecs by goldens and laws, the service over real sockets, the
//! client programs as they are run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops aloud at the first surprise"
)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod architecture;
mod bus;
mod codec_chat;
mod codec_gemini;
mod codec_messages;
mod codec_relay;
mod codex;
mod compaction;
mod config;
mod ctl;
mod ctl_incidents;
mod ctl_providers;
mod ctl_service;
mod ctl_watchdog;
mod exchange;
mod fault_table;
mod faults;
mod gemini;
mod harness;
mod http;
mod listings;
mod matrix;
mod messages;
mod openai;
mod relay;
mod relay_tools;
mod requests;
mod signals;
mod signatures;
mod stored;
mod timeline;
mod tls;
mod usage;
mod watchdog;
mod watchdog_desktop;
mod watchdog_sources;
