//! The HTTP service. Start reading at [`exchange`].

pub mod body;
pub mod capped;
pub mod catalogue;
pub mod exchange;
pub mod health;
mod line;
pub mod quarantine;
pub mod reply;
pub mod retry;
pub mod route;
pub mod serve;
pub mod service;
mod source;
mod story;
pub mod upstream;
