//! The story of what went wrong, as it is told and kept.

pub mod book;
pub mod fixbook;
pub mod history;
pub mod record;
pub mod replay;
pub mod store;
