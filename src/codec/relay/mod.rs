//! The Responses API spoken to a provider: relayed, not translated. PURE.
//!
//! ```text
//! body ── request.rs ──► body, but for the model's name and what the host cannot read
//!             └ tools.rs: tools that the host does not know
//! bytes ── stream.rs ──► the same bytes, whole frames only, but for the one end
//!             ├ blob.rs: which `encrypted_content` came by
//!             ├ calls.rs: calls of tools that the host was told of in other words
//!             └ compaction.rs: whether a compaction came by; the text of a summary
//! ```
//! A host that speaks the client's own protocol is best left to speak for itself: frames pass as they came, whatever
//! their type, and are not parsed. Only the end is looked at, because the client takes it literally, see
//! [`model::failure`](crate::model::failure).

mod blob;
mod calls;
mod compaction;
mod request;
mod stream;
mod tools;
mod voice;
mod wire;

pub use blob::{BlobId, blobs_in};
pub use compaction::{holds_compaction, read_events};
pub use request::{cannot_compact, encode_request, encode_summary_request, forgets_response, forgotten, refuses_blobs};
pub use stream::Relay;
pub use voice::Voice;
