//! The HTTP service. Start reading at [`exchange`].

mod attempt;
pub mod body;
pub mod capped;
pub mod catalogue;
mod compaction;
mod continuation;
mod database;
pub mod exchange;
pub mod health;
pub mod known;
pub mod ledger;
mod line;
pub mod listing;
pub mod origins;
pub mod overrides;
mod path;
mod previous;
pub mod quarantine;
pub mod registry;
pub mod reload;
pub mod reply;
pub mod reports;
pub mod retry;
pub mod route;
pub mod serve;
pub mod service;
mod source;
pub mod stored;
mod story;
#[cfg(feature = "test-faults")]
pub mod testfault;
mod timer;
pub mod upstream;
