//! Chat Completions, spoken upstream, in the dialects of its many hosts. PURE.
//!
//! ```text
//! Request ── request.rs ──► body          frames ── stream.rs ──► events
//!               ▲                                       │
//!           dialect.rs                  ../error.rs ◄───┘ error objects, whole bodies
//! ```
//! `wire.rs` has the types of both directions.

pub mod dialect;
mod request;
mod stream;
mod thoughts;
mod wire;

pub use request::encode_request;
pub use stream::{StreamDecoder, decode_whole};
