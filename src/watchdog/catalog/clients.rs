//! Rows of the fault table. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::Fault;

pub(super) const ROWS: &[Fault] = &[];
