//! The Gemini API (`models.streamGenerateContent`, with an API key), spoken upstream. PURE.
//!
//! ```text
//! Request ── request.rs ──► body          frames ── stream.rs ──► events ── continuation.rs ──► events
//!               ▲ ▲                                   │                        │
//!     models.rs ┘ └ schema.rs          error.rs ◄─────┘ errors                 └► the next body
//! ```
//! `wire.rs` has the types of both directions, `thoughts.rs` the form in which signatures wait for their return,
//! `models.rs` what differs between models. The body is for
//! `POST {base}/v1beta/models/MODEL:streamGenerateContent?alt=sse`; the model's name stands in the address only.

pub mod continuation;
pub mod error;
mod models;
mod request;
mod schema;
mod stream;
mod thoughts;
mod wire;

pub use error::decode_error;
pub use request::encode_request;
pub use stream::{Stopped, StreamDecoder, decode_whole};
