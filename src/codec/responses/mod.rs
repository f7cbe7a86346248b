//! The Responses API as we answer it: the face towards the client. PURE.
//!
//! [`request::decode_request`] reads what a client sends, [`stream::StreamEncoder`] writes what it gets, and [`echo::Echo`]
//! is what that repeats of this. The other
//! direction (Responses spoken to a provider) is [`super::relay`].

pub mod echo;
pub mod error;
pub mod request;
pub mod stream;
pub mod wire;
