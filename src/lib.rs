#![doc = include_str!("ARCHITECTURE.md")]

pub mod bus;
pub mod codec;
pub mod config;
pub mod ctl;
pub mod host;
pub mod model;
pub mod proxy;
pub mod watchdog;
