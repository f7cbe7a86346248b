#![doc = include_str!("ARCHITECTURE.md")]

pub mod codec;
pub mod model;
pub mod proxy;
