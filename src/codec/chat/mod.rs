//! Chat Completions, spoken upstream, in the dialects of its many hosts. PURE.
pub mod dialect;
