//! The healer: a process of its own that looks at the proxy, the manager and the journal, names what is wrong, acts
//! through the manager and the proxy's bus interface, and checks that it helped.
//!
//! ```text
//! sources → Signal → classify → Diagnosis → decide, guards → Command → actuators → Outcome → brain → incident
//! ```
//!
//! The files marked PURE decide; one task owns the brain, and everything else only sends to it.

pub mod actuators;
pub mod brain;
pub mod catalog;
pub mod classify;
pub mod desktop;
pub mod face;
pub mod fixes;
pub mod guards;
pub mod hands;
pub mod incidents;
pub mod news;
pub mod run;
pub mod signal;
pub mod sources;
