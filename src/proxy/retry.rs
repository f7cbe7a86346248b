//! What to do after a failure, as long as nothing was forwarded yet. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use crate::model::failure::{Failure, FailureKind};

/// The next move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try the next place at once.
    Elsewhere,
    /// Try again after a pause; places are tried from the first one again.
    Again(Duration),
    /// Tell the client.
    GiveUp,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Rounds over all places that have failed, this one included; at least 1.
    pub rounds: u32,
    /// A place of this round is untried.
    pub elsewhere: bool,
    /// It is this place that cannot do it, whatever the kind says.
    pub only_here: bool,
    /// Since the request arrived.
    pub elapsed: Duration,
    /// Retries end here.
    pub deadline: Duration,
    /// A random number from 0 to 1, so that many clients do not come back at one moment.
    pub jitter: f64,
}

/// A shorter wait than this is a provider's rounding, not its wish.
const ASKED_MIN: Duration = Duration::from_secs(1);

/// Decides.
pub fn next(failure: &Failure, progress: Progress) -> Next {
    // What the caller or this program got wrong is wrong everywhere; everything else may differ from place to place.
    let same_everywhere = !progress.only_here
        && matches!(
            failure.kind,
            FailureKind::Caller | FailureKind::Bug | FailureKind::OwnLimit | FailureKind::Shutdown
        );
    // Every place is asked once, also after the deadline: a silent one may have used all of it up.
    let in_time = progress.rounds == 1 || progress.elapsed < progress.deadline;
    if progress.elsewhere && !same_everywhere && in_time {
        return Next::Elsewhere;
    }
    if progress.rounds >= failure.row().attempts_max {
        return Next::GiveUp;
    }
    let pause = match failure.retry_after {
        Some(asked) if asked >= ASKED_MIN => asked,
        // "At once" comes from hosts that round down; believed, it would be a request every millisecond.
        asked => backoff(failure.kind, progress.rounds, progress.jitter).max(asked.unwrap_or_default()),
    };
    match progress.elapsed.checked_add(pause) {
        Some(at) if at < progress.deadline => Next::Again(pause),
        Some(_) | None => Next::GiveUp,
    }
}

/// Doubles from a quarter of a second (a full one for limits and overload) up to eight seconds (sixteen), give or take
/// a fifth.
fn backoff(kind: FailureKind, rounds: u32, jitter: f64) -> Duration {
    let (first_ms, ms_max) = match kind {
        FailureKind::RateLimit | FailureKind::Overload => (1000_u64, 16_000),
        _ => (250, 8_000),
    };
    let doubled = first_ms.saturating_mul(1 << rounds.saturating_sub(1).min(16)).min(ms_max);
    Duration::from_millis(doubled).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(rounds: u32, elapsed_ms: u64) -> Progress {
        Progress {
            rounds,
            elsewhere: false,
            only_here: false,
            elapsed: Duration::from_millis(elapsed_ms),
            deadline: Duration::from_secs(60),
            jitter: 0.5,
        }
    }

    #[test]
    fn what_waiting_cannot_mend_is_not_waited_for() {
        for kind in FailureKind::ALL {
            let again = matches!(next(&Failure::new(kind, ""), at(1, 0)), Next::Again(_));
            assert_eq!(again, kind.row().attempts_max > 1, "{kind:?}");
        }
    }

    #[test]
    fn a_wait_the_provider_asked_for_is_kept_to_the_millisecond_or_not_begun() {
        let asked = |ms| Failure::new(FailureKind::RateLimit, "").with_retry_after(Some(Duration::from_millis(ms)));
        assert_eq!(next(&asked(7300), at(1, 0)), Next::Again(Duration::from_millis(7300)));
        assert_eq!(next(&asked(7300), at(1, 53_000)), Next::GiveUp);
    }

    #[test]
    fn another_place_is_tried_first_unless_the_request_itself_is_wrong() {
        let elsewhere = Progress { elsewhere: true, ..at(1, 0) };
        assert_eq!(next(&Failure::new(FailureKind::Credentials, ""), elsewhere), Next::Elsewhere);
        assert_eq!(next(&Failure::new(FailureKind::Caller, ""), elsewhere), Next::GiveUp);
        let only_here = Progress { only_here: true, ..elsewhere };
        assert_eq!(next(&Failure::new(FailureKind::Caller, ""), only_here), Next::Elsewhere);
        let late = Progress { elsewhere: true, ..at(1, 120_000) };
        assert_eq!(next(&Failure::new(FailureKind::Timeout, ""), late), Next::Elsewhere);
        assert_eq!(next(&Failure::new(FailureKind::Timeout, ""), Progress { rounds: 2, ..late }), Next::GiveUp);
    }

    #[test]
    fn a_wait_of_nothing_is_the_usual_wait() {
        let failure = Failure::new(FailureKind::RateLimit, "").with_retry_after(Some(Duration::ZERO));
        assert_eq!(next(&failure, at(3, 0)), next(&Failure::new(FailureKind::RateLimit, ""), at(3, 0)));
    }

    proptest! {
        #[test]
        fn retries_end(jitter in 0.0..1.0_f64, kind in 0..FailureKind::ALL.len()) {
            let failure = Failure::new(FailureKind::ALL[kind], "");
            let mut elapsed = Duration::ZERO;
            let mut sent = 1_u32;
            while let Next::Again(pause) =
                next(&failure, Progress { elapsed, jitter, ..at(sent, 0) })
            {
                elapsed += pause;
                sent += 1;
                prop_assert!(sent < 64);
            }
            prop_assert!(elapsed < Duration::from_secs(60));
        }
    }
}
