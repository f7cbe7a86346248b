//! Anthropic's Messages API, spoken upstream. PURE.
//!
//! ```text
//! Request ── request.rs ──► body          frames ── stream.rs ──► events
//!               ▲                                       │
//!           models.rs                      error.rs ◄───┘ error objects, whole bodies
//! ```
//! `wire.rs` has the types of both directions, `thoughts.rs` what is stored of an answer's thoughts, `keys.rs` other names
//! for arguments whose own are not taken.
//!
//! Written after the documentation and checked against the types of Anthropic's own package; it has never been run
//! against the service.

pub mod error;
mod keys;
mod models;
mod request;
mod stream;
mod thoughts;
mod wire;

pub use error::decode_error;
pub use request::encode_request;
pub use stream::{StreamDecoder, decode_whole};

/// The header `anthropic-version` that the bodies are written for. `2026-10-21` takes them too, save those with
/// `temperature` or `top_p`, which only models before 4.7 are sent
/// (<https://platform.claude.com/docs/en/api/versioning>, read 2026-11-21).
pub const API_VERSION: &str = "2023-06-01";
