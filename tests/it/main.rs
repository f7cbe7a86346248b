//! Everything that is tested through a public face: codecs by goldens and laws, the service over real sockets, the
//! client programs as they are run.

mod config;
