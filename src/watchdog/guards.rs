//! What forbids an action: the ledger of starts, cool-downs and budgets. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    catalog::{Budget, FaultId},
    incidents::record::Guard,
    signal::{SECOND_US, Source, Subject, Time},
};

/// Runs that the ledger remembers at most; the manager allows far fewer within an interval.
const STARTS_MAX: usize = 256;
/// The manager's clock and ours agree to this much.
const MARGIN_US: u64 = SECOND_US;
/// Patterns remembered at most; the longest unused goes first.
const PATTERNS_MAX: usize = 512;

/// Attempts to start the proxy, whoever made them.
///
/// The manager counts every start and refuses the one that exceeds `StartLimitBurst=` within `StartLimitIntervalSec=`;
/// refused on a restart, a working proxy is stopped for good. Its window begins with a first start and ends after the
/// interval; the one here slides, so it never counts fewer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Starts allowed, and the interval in microseconds; as the unit says.
    limit: Option<(u32, u64)>,
    /// Each run once, by its id, oldest first.
    starts: VecDeque<(u64, String)>,
    /// From when on each source has seen every start, in monotonic microseconds.
    known_since_us: BTreeMap<Source, u64>,
}

/// What the ledger says to one start more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays within the limit.
    Allow,
    /// Not before this moment.
    Wait(Time),
    /// Too little is known.
    Incomplete,
}

impl Ledger {
    /// What the unit says; 0 of either means that there is no limit.
    pub fn set_limit(&mut self, burst: u32, interval_us: u64) {
        self.limit = Some((burst, interval_us));
    }

    /// A start was attempted. The same run counts once.
    pub fn add(&mut self, at: Time, invocation: &str) {
        if invocation.is_empty() || self.knows(invocation) {
            return;
        }
        let place = self.starts.partition_point(|(known, _)| *known <= at.mono_us);
        self.starts.insert(place, (at.mono_us, invocation.to_owned()));
        if self.starts.len() > STARTS_MAX {
            self.starts.pop_front();
        }
    }

    /// Whether the run is counted already.
    pub fn knows(&self, invocation: &str) -> bool {
        self.starts.iter().any(|(_, known)| known == invocation)
    }

    /// `source` has missed nothing from `mono_us` on.
    pub fn complete_since(&mut self, source: Source, mono_us: u64) {
        let known = self.known_since_us.entry(source).or_insert(mono_us);
        *known = mono_us.min(*known);
    }

    /// `source` may have missed something: what it knows begins anew.
    pub fn lost(&mut self, source: Source) {
        self.known_since_us.remove(&source);
    }

    /// From when on nothing is missing, by the source that reaches back furthest.
    fn known_since_us(&self) -> Option<u64> {
        self.known_since_us.values().copied().min()
    }

    /// Starts within the interval that ends at `now`; `None` if the limit is not known.
    pub fn in_window(&self, now: Time) -> Option<u32> {
        let (_, interval_us) = self.limit?;
        let from = now.mono_us.saturating_sub(interval_us + MARGIN_US);
        u32::try_from(self.starts.iter().filter(|(at, _)| *at >= from && *at <= now.mono_us).count()).ok()
    }

    /// Whether a start was attempted within the last `us` microseconds.
    pub fn started_within(&self, us: u64, now: Time) -> bool {
        self.starts.back().is_some_and(|(at, _)| at + us > now.mono_us)
    }

    /// Whether one start more may be asked for.
    pub fn verdict(&self, now: Time) -> Verdict {
        let Some((burst, interval_us)) = self.limit else { return Verdict::Incomplete };
        if burst == 0 || interval_us == 0 {
            return Verdict::Allow;
        }
        let needed = now.mono_us.saturating_sub(interval_us);
        if self.known_since_us().is_none_or(|since| since > needed) {
            return Verdict::Incomplete;
        }
        let count = self.in_window(now).unwrap_or(u32::MAX);
        if count < burst {
            return Verdict::Allow;
        }
        // When enough of them have left the window.
        let leave = usize::try_from(count - burst).unwrap_or(0);
        let from = now.mono_us.saturating_sub(interval_us + MARGIN_US);
        let last = self.starts.iter().filter(|(at, _)| *at >= from).nth(leave);
        let until = last.map_or(now.mono_us, |(at, _)| at + interval_us + MARGIN_US + 1);
        Verdict::Wait(now.plus_us(until.saturating_sub(now.mono_us).max(1)))
    }

    /// When the record will reach back far enough, if nothing is missed until then.
    pub fn complete_at(&self, now: Time) -> Option<Time> {
        let ((_, interval_us), since) = (self.limit?, self.known_since_us()?);
        Some(now.plus_us((since + interval_us).saturating_sub(now.mono_us).max(1)))
    }
}

/// When each pattern, a fault of a subject, was acted on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patterns(BTreeMap<String, Vec<Time>>);

impl Patterns {
    fn key(fault: FaultId, subject: &Subject) -> String {
        format!("{fault} {subject}")
    }

    /// An action was taken.
    pub fn acted(&mut self, fault: FaultId, subject: &Subject, at: Time, budget: &Budget) {
        let times = self.0.entry(Self::key(fault, subject)).or_default();
        let longest = budget.rest.iter().copied().max().unwrap_or_default().max(budget.per);
        times.retain(|time| at.since_us(*time) < micros(longest));
        times.push(at);
        if self.0.len() > PATTERNS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, times)| times.last().copied()).map(|(key, _)| key.clone());
            oldest.map(|key| self.0.remove(&key));
        }
    }

    /// Whether the pattern may be acted on, else the guard and when it lets go.
    pub fn guard(&self, fault: FaultId, subject: &Subject, now: Time, budget: &Budget) -> Option<(Guard, Time)> {
        let times = self.0.get(&Self::key(fault, subject))?;
        let recent: Vec<Time> = times.iter().copied().filter(|time| now.since_us(*time) < micros(budget.per)).collect();
        let last = *times.last()?;
        if recent.len() >= usize::try_from(budget.attempts_max).unwrap_or(usize::MAX) {
            return Some((Guard::Budget, recent[0].plus_us(micros(budget.per))));
        }
        let rest = micros(budget.rest[recent.len().saturating_sub(1).min(budget.rest.len() - 1)]);
        (now.since_us(last) < rest).then(|| (Guard::CoolDown, last.plus_us(rest)))
    }
}

/// A duration in microseconds.
pub fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::catalog::BUDGET;

    fn at(seconds: u64) -> Time {
        Time::default().plus_us(seconds * SECOND_US)
    }

    fn ledger(starts: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set_limit(6, 600 * SECOND_US);
        ledger.complete_since(Source::Journal, 0);
        for start in starts {
            ledger.add(at(*start), &format!("run-{start}"));
        }
        ledger
    }

    #[test]
    fn the_start_that_would_exceed_the_limit_is_not_allowed() {
        let five = ledger(&[1000, 1001, 1002, 1003, 1004]);
        assert_eq!(five.verdict(at(1005)), Verdict::Allow);
        let mut six = ledger(&[1000, 1001, 1002, 1003, 1004, 1005]);
        let Verdict::Wait(until) = six.verdict(at(1006)) else { panic!("six of six were used") };
        assert!(until >= at(1600) && until <= at(1603), "{until:?}");
        assert_eq!(six.verdict(until), Verdict::Allow);
        six.add(at(1005), "run-1005");
        assert_eq!(six.in_window(at(1006)), Some(6), "the same run counts once");
    }

    #[test]
    fn what_is_not_known_is_not_allowed() {
        assert_eq!(Ledger::default().verdict(at(5000)), Verdict::Incomplete);
        let mut young = Ledger::default();
        young.set_limit(6, 600 * SECOND_US);
        assert_eq!(young.verdict(at(5000)), Verdict::Incomplete);
        young.complete_since(Source::Units, 4500 * SECOND_US);
        assert_eq!(young.verdict(at(5000)), Verdict::Incomplete);
        let complete = young.complete_at(at(5000)).unwrap();
        assert_eq!(young.verdict(complete), Verdict::Allow);
        young.lost(Source::Journal);
        assert_eq!(young.verdict(complete), Verdict::Allow);
        young.lost(Source::Units);
        assert_eq!(young.verdict(complete), Verdict::Incomplete);
    }

    #[test]
    fn a_pattern_rests_as_long_as_it_is_told_even_beyond_its_budget() {
        let (fault, subject) = (FaultId::parse("A4").unwrap(), Subject::Proxy);
        let rest = [2 * 3600, 4 * 3600, 20 * 3600].map(std::time::Duration::from_secs);
        let budget = Budget { rest, ..BUDGET };
        let mut patterns = Patterns::default();
        patterns.acted(fault, &subject, at(100), &budget);
        assert_eq!(patterns.guard(fault, &subject, at(7299), &budget), Some((Guard::CoolDown, at(7300))));
        assert_eq!(patterns.guard(fault, &subject, at(7300), &budget), None);
    }

    #[test]
    fn a_pattern_rests_longer_each_time_and_then_is_given_up() {
        let (fault, subject) = (FaultId::parse("A4").unwrap(), Subject::Proxy);
        let mut patterns = Patterns::default();
        assert_eq!(patterns.guard(fault, &subject, at(100), &BUDGET), None);
        patterns.acted(fault, &subject, at(100), &BUDGET);
        assert_eq!(patterns.guard(fault, &subject, at(129), &BUDGET), Some((Guard::CoolDown, at(130))));
        assert_eq!(patterns.guard(fault, &subject, at(130), &BUDGET), None);
        patterns.acted(fault, &subject, at(130), &BUDGET);
        assert_eq!(patterns.guard(fault, &subject, at(189), &BUDGET), Some((Guard::CoolDown, at(190))));
        patterns.acted(fault, &subject, at(190), &BUDGET);
        assert_eq!(patterns.guard(fault, &subject, at(1000), &BUDGET), Some((Guard::Budget, at(3700))));
        assert_eq!(patterns.guard(fault, &Subject::Watchdog, at(1000), &BUDGET), None);
        assert_eq!(patterns.guard(fault, &subject, at(3700), &BUDGET), None, "the first has left the window");
    }
}
