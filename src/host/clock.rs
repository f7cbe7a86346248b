//! The machine's monotonic clock as a number, to be compared across processes.

use sd_notify::NotifyState;

/// Microseconds of `CLOCK_MONOTONIC`; 0 if the machine has none.
pub fn monotonic_usec() -> u64 {
    match NotifyState::monotonic_usec_now() {
        Ok(NotifyState::MonotonicUsec(usec)) => u64::try_from(usec).unwrap_or(0),
        Ok(_) | Err(_) => 0,
    }
}
