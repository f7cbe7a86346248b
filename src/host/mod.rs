//! The machine around the program, behind plain functions.
//!
//! Nothing here knows of requests, providers or faults.

pub mod paths;
