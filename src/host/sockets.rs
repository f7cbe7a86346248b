//! Sockets that the service manager opened for us, by name.
//!
//! A descriptor number in the environment is a promise of the manager that nothing but `unsafe` can take up; this is the
//! only module that may.
#![expect(unsafe_code, reason = "a descriptor is inherited as a number; the manager's promise makes it ours")]

use std::{
    io,
    net::TcpListener,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::sys::socket::{getsockopt, sockopt};

/// Takes the inherited listening socket of that name (`FileDescriptorName=`), ready for tokio. `None` if this process was
/// not started with one. Call it once, at start, before any thread opens files.
///
/// # Errors
/// If what was inherited under the name does not listen, or cannot be made non-blocking.
pub fn inherited(name: &str) -> io::Result<Option<TcpListener>> {
    // The call checks LISTEN_PID, so descriptors meant for a parent are not taken, and sets close-on-exec.
    let Some((number, _)) = sd_notify::listen_fds_with_names()?.find(|(_, found)| found == name) else {
        return Ok(None);
    };
    // SAFETY: sd_listen_fds(3): the manager opened this descriptor for this process and gave it away; nobody else in
    // this process knows of it, because this function is called once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if !getsockopt(&descriptor, sockopt::AcceptConn).unwrap_or(false) {
        let message = format!("the inherited descriptor {name:?} is not a listening socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let listener = TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
