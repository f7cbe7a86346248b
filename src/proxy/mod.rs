//! The HTTP service. Start reading at [`exchange`].

pub mod body;
pub mod reply;
pub mod retry;
pub mod upstream;
