//! A timer that is moved at every event and hardly ever runs out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Moving it costs a comparison: the runtime's own timer is set anew only when it runs out too early, or would too late.
pub(super) struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

impl LazyTimer {
    /// Runs out at that time.
    pub(super) fn new(at: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(at)), at }
    }

    /// Runs out at that time instead.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// Ready once its time has come, until it is moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.at < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.at);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_runs_out_at_the_time_it_was_last_given() {
        let in_ms = |ms| Instant::now() + Duration::from_millis(ms);
        let mut timer = LazyTimer::new(in_ms(3_600_000));
        for at in [in_ms(10), in_ms(0), in_ms(20)] {
            // Too late, too early, then right.
            timer.set(in_ms(3_600_000));
            assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_pending());
            timer.set(in_ms(1));
            let _ = poll_fn(|cx| Poll::Ready(timer.poll(cx))).await;
            timer.set(at);
            poll_fn(|cx| timer.poll(cx)).await;
            assert!(Instant::now() >= at);
            assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_ready(), "until it is moved");
        }
    }
}
