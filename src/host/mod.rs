//! The machine around the program, behind plain functions.
//!
//! Nothing here knows of requests, providers or faults.

pub mod capsfile;
pub mod cataloguefile;
pub mod clock;
pub mod files;
pub mod jsonfile;
pub mod log;
pub mod manager;
pub mod paths;
pub mod portowner;
pub mod secretfile;
pub mod sockets;
