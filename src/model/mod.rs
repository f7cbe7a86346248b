//! What is asked and what is answered, free of any provider's spelling. PURE.
//!
//! Codecs translate between these types and the wires; `proxy/exchange.rs` carries them from one to
//! the other. Nothing here knows HTTP, JSON field names or time.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod demo;
pub mod event;
pub mod failure;
pub mod grammar;
pub mod listed;
pub mod price;
pub mod request;
pub mod signal;
pub mod text;
pub mod usage;
