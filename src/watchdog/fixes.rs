//! The second tier: which action helped before against a pattern, counted only where it was verified. PURE.
//!
//! A pattern is a fault, the kind of its subject and a coarse cause, all of them words of ours: `A5 proxy panic`. The brain
//! asks with `Command::Consult` and tells with `Command::Learn`; whoever drives it keeps this in a file between the two.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use super::{
    catalog::Action,
    incidents::record::{CommandId, Verified},
};

/// Pairs of a pattern and an action at most; the longest unused goes first.
pub const FIXES_MAX: usize = 500;
/// Commands of each fix that are known to be counted, the last ones.
const COUNTED_MAX: usize = 8;
/// Failures one after the other that retire a fix until it has helped again.
const FAILURES_MAX: u32 = 2;
/// From so many trials on, a fix whose bound is below [`BOUND_MIN`] is retired.
const TRIALS_MIN: u32 = 5;
/// See [`TRIALS_MIN`].
const BOUND_MIN: f64 = 0.2;
/// The quantile of the normal distribution for 95 %, on both sides.
const Z: f64 = 1.959_963_984_540_054;

/// What helped before, the longest unused first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Fix>", into = "Vec<Fix>")]
pub struct Fixes(Vec<Fix>);

/// One action against one pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// Against what.
    pub pattern: String,
    /// What was done.
    pub action: Action,
    /// How often it was seen to help.
    pub succeeded: u32,
    /// How often it was seen not to.
    pub failed: u32,
    /// How often one after the other, since it helped.
    pub failed_in_a_row: u32,
    /// The last commands that were counted, so that none counts twice.
    counted: Vec<CommandId>,
}

impl Fix {
    fn new(pattern: &str, action: Action) -> Self {
        let (succeeded, failed, failed_in_a_row, counted) = (0, 0, 0, Vec::new());
        Self { pattern: pattern.to_owned(), action, succeeded, failed, failed_in_a_row, counted }
    }

    /// How often it was tried and something was seen.
    pub fn trials(&self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    /// The share of successes that it has at least, with a confidence of 95 %.
    pub fn bound(&self) -> f64 {
        wilson(self.succeeded, self.trials())
    }

    /// Whether it failed too often to be used.
    pub fn retired(&self) -> bool {
        self.failed_in_a_row >= FAILURES_MAX || (self.trials() >= TRIALS_MIN && self.bound() < BOUND_MIN)
    }

    /// Whether it may be used: it helped once, and is not retired. What was imported has helped nobody here.
    fn usable(&self) -> bool {
        self.succeeded > 0 && !self.retired()
    }
}

/// The lower bound of Wilson's interval for a share: E. B. Wilson, JASA 22 (1927), 209–212. 0 without trials.
pub fn wilson(succeeded: u32, trials: u32) -> f64 {
    if trials == 0 {
        return 0.0;
    }
    let (n, share) = (f64::from(trials), f64::from(succeeded) / f64::from(trials));
    let middle = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - spread) / (1.0 + Z * Z / n)).max(0.0)
}

impl Fixes {
    /// What helped most surely against the pattern and was not `tried` yet, and why, in words; `None` if nothing is known.
    /// What is named counts as used.
    pub fn advise(&mut self, pattern: &str, tried: &[Action]) -> Option<(Action, String)> {
        let candidates = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, fix)| fix.pattern == pattern && fix.usable() && !tried.contains(&fix.action));
        // Of equals the one used last, which stands last.
        let (at, _) = candidates.max_by(|(_, one), (_, other)| one.bound().total_cmp(&other.bound()))?;
        let fix = self.0.remove(at);
        let (action, why) = (fix.action, format!("it helped {} of {} times", fix.succeeded, fix.trials()));
        self.0.push(fix);
        Some((action, why))
    }

    /// A command was verified. Gives whether anything changed: the same command counts once, what is unproven counts
    /// neither way, and what a person alone may choose is not learnt.
    pub fn learn(&mut self, command: CommandId, pattern: &str, action: Action, outcome: Verified) -> bool {
        if outcome == Verified::Unproven || !action.may_be_advised() {
            return false;
        }
        let known = self.0.iter().position(|fix| fix.pattern == pattern && fix.action == action);
        if known.is_some_and(|at| self.0[at].counted.contains(&command)) {
            return false;
        }
        let mut fix = known.map_or_else(|| Fix::new(pattern, action), |at| self.0.remove(at));
        match outcome {
            Verified::Succeeded => {
                fix.succeeded = fix.succeeded.saturating_add(1);
                fix.failed_in_a_row = 0;
            }
            Verified::Failed => {
                fix.failed = fix.failed.saturating_add(1);
                fix.failed_in_a_row = fix.failed_in_a_row.saturating_add(1);
            }
            Verified::Unproven => {}
        }
        fix.counted.push(command);
        if fix.counted.len() > COUNTED_MAX {
            fix.counted.remove(0);
        }
        self.0.push(fix);
        self.limit();
        true
    }

    /// An older store knows this action against the pattern: a hint without a trial, which is not used by itself.
    pub fn import(&mut self, pattern: &str, action: Action) {
        let known = self.0.iter().any(|fix| fix.pattern == pattern && fix.action == action);
        if !known && action.may_be_advised() && self.0.len() < FIXES_MAX {
            // Nobody has used it: it goes first.
            self.0.insert(0, Fix::new(pattern, action));
        }
    }

    /// What is known of a pattern, hints and retired ones included.
    pub fn of<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a Fix> {
        self.0.iter().filter(move |fix| fix.pattern == pattern)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn limit(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(FIXES_MAX));
    }
}

/// From a file, which anybody may have edited: within the limits, each pair once, and nothing that may not be chosen.
impl From<Vec<Fix>> for Fixes {
    fn from(read: Vec<Fix>) -> Self {
        let mut fixes = Self::default();
        for mut fix in read {
            let twice = fixes.0.iter().any(|known| known.pattern == fix.pattern && known.action == fix.action);
            if twice || !fix.action.may_be_advised() {
                continue;
            }
            fix.counted.drain(..fix.counted.len().saturating_sub(COUNTED_MAX));
            fixes.0.push(fix);
            // Twice the limit at most while it is read.
            if fixes.0.len() >= 2 * FIXES_MAX {
                fixes.limit();
            }
        }
        fixes.limit();
        fixes
    }
}

impl From<Fixes> for Vec<Fix> {
    fn from(fixes: Fixes) -> Self {
        fixes.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::watchdog::incidents::record::IncidentId;

    const PANIC: &str = "A5 proxy panic";

    fn command(n: u64) -> CommandId {
        CommandId(IncidentId(n), 1)
    }

    fn learnt(outcomes: &[(Action, Verified)]) -> Fixes {
        let mut fixes = Fixes::default();
        for (n, (action, outcome)) in outcomes.iter().enumerate() {
            fixes.learn(command(n as u64), PANIC, *action, *outcome);
        }
        fixes
    }

    use Action::{RestartProxy, StartProxy};
    use Verified::{Failed, Succeeded, Unproven};

    #[test]
    fn what_helped_once_is_advised() {
        let mut fixes = learnt(&[(RestartProxy, Succeeded)]);
        assert_eq!(fixes.advise(PANIC, &[]), Some((RestartProxy, "it helped 1 of 1 times".to_owned())));
        assert_eq!(fixes.advise(PANIC, &[RestartProxy]), None, "it was tried");
        assert_eq!(fixes.advise("A5 proxy crashed", &[]), None, "that is another pattern");
        assert_eq!(learnt(&[(RestartProxy, Failed)]).advise(PANIC, &[]), None);
        assert_eq!(learnt(&[(RestartProxy, Unproven)]), Fixes::default());
    }

    #[test]
    fn the_surer_of_two_is_advised() {
        let mut fixes = learnt(&[
            (StartProxy, Succeeded),
            (StartProxy, Succeeded),
            (StartProxy, Failed),
            (RestartProxy, Succeeded),
        ]);
        // 2 of 3 is 0.208 at least, 1 of 1 is 0.207.
        assert_eq!(fixes.advise(PANIC, &[]).map(|(action, _)| action), Some(StartProxy));
        assert_eq!(fixes.advise(PANIC, &[StartProxy]).map(|(action, _)| action), Some(RestartProxy));
    }

    #[test]
    fn what_fails_is_retired_until_it_helps_again() {
        let mut fixes = learnt(&[(RestartProxy, Succeeded), (RestartProxy, Failed)]);
        assert!(fixes.advise(PANIC, &[]).is_some(), "one failure does not retire it");
        fixes.learn(command(10), PANIC, RestartProxy, Unproven);
        fixes.learn(command(11), PANIC, RestartProxy, Failed);
        assert_eq!(fixes.advise(PANIC, &[]), None, "two in a row");
        fixes.learn(command(12), PANIC, RestartProxy, Succeeded);
        assert!(fixes.advise(PANIC, &[]).is_some());
        // Two of six, never two failures in a row at the end: the bound is below 0.2.
        let often = [Failed, Succeeded, Failed, Failed, Succeeded, Failed].map(|outcome| (RestartProxy, outcome));
        let mut fixes = learnt(&often);
        assert!(fixes.of(PANIC).all(|fix| fix.failed_in_a_row < 2 && fix.retired()));
        assert_eq!(fixes.advise(PANIC, &[]), None);
    }

    #[test]
    fn what_only_a_person_may_choose_is_not_learnt() {
        for action in Action::ALL.into_iter().filter(|action| !action.may_be_advised()) {
            let mut fixes = learnt(&[(action, Succeeded)]);
            fixes.import(PANIC, action);
            assert!(fixes.is_empty(), "{action:?}");
            let read: Fixes = vec![Fix { succeeded: 9, ..Fix::new(PANIC, action) }].into();
            assert!(read.is_empty(), "{action:?}");
        }
    }

    #[test]
    fn a_hint_is_kept_and_not_used() {
        let mut fixes = Fixes::default();
        fixes.import(PANIC, RestartProxy);
        assert_eq!((fixes.len(), fixes.advise(PANIC, &[])), (1, None));
        fixes.learn(command(1), PANIC, RestartProxy, Succeeded);
        fixes.import(PANIC, RestartProxy);
        assert_eq!(fixes.len(), 1);
        assert!(fixes.advise(PANIC, &[]).is_some());
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut fixes = Fixes::default();
        let many = u64::try_from(FIXES_MAX).unwrap();
        for n in 0..many {
            fixes.learn(command(n), &format!("A5 proxy {n}"), RestartProxy, Succeeded);
        }
        assert!(fixes.advise("A5 proxy 0", &[]).is_some());
        fixes.learn(command(many), PANIC, RestartProxy, Succeeded);
        assert_eq!(fixes.len(), FIXES_MAX);
        assert_eq!(
            (fixes.of("A5 proxy 0").count(), fixes.of("A5 proxy 1").count(), fixes.of(PANIC).count()),
            (1, 0, 1)
        );
        let mut read: Vec<Fix> = fixes.clone().into();
        read.extend(read.clone());
        read.extend((0..3000).map(|n| Fix::new(&format!("B{n}"), StartProxy)));
        assert_eq!(Fixes::from(read).len(), FIXES_MAX);
    }

    #[test]
    fn the_bound_is_wilsons() {
        // By the formula, with another program.
        for (succeeded, trials, bound) in
            [(0, 0, 0.0), (0, 5, 0.0), (1, 1, 0.206_549), (2, 5, 0.117_621), (9, 10, 0.595_850)]
        {
            assert!((wilson(succeeded, trials) - bound).abs() < 1e-5, "{succeeded} of {trials}");
        }
    }

    fn outcome() -> impl Strategy<Value = Verified> {
        prop_oneof![Just(Succeeded), Just(Failed), Just(Unproven)]
    }

    type Lesson = (u64, usize, usize, Verified);

    fn lessons() -> impl Strategy<Value = Vec<Lesson>> {
        prop::collection::vec((0..400_u64, 0..4_usize, 0..Action::ALL.len(), outcome()), 0..200)
    }

    fn teach(fixes: &mut Fixes, (n, pattern, action, outcome): &Lesson) -> bool {
        fixes.learn(command(*n), &format!("A5 proxy {pattern}"), Action::ALL[*action], *outcome)
    }

    proptest! {
        #[test]
        fn a_success_raises_the_bound_and_a_failure_lowers_it(succeeded in 0..10_000_u32, failed in 0..10_000_u32) {
            let trials = succeeded + failed;
            let bound = wilson(succeeded, trials);
            prop_assert!((0.0..=1.0).contains(&bound));
            prop_assert!(wilson(succeeded + 1, trials + 1) > bound);
            prop_assert!(wilson(succeeded, trials + 1) <= bound);
            prop_assert!(trials == 0 || bound <= f64::from(succeeded) / f64::from(trials) + 1e-12);
        }

        #[test]
        fn the_same_command_counts_once(lessons in lessons()) {
            let mut fixes = Fixes::default();
            for lesson in &lessons {
                teach(&mut fixes, lesson);
                let before = fixes.clone();
                prop_assert!(!teach(&mut fixes, lesson));
                prop_assert_eq!(&fixes, &before);
            }
        }

        #[test]
        fn the_last_ones_told_again_after_a_restart_change_nothing(lessons in lessons(), last in 1..COUNTED_MAX) {
            let mut fixes = Fixes::default();
            lessons.iter().for_each(|lesson| _ = teach(&mut fixes, lesson));
            let before = fixes.clone();
            lessons.iter().rev().take(last).rev().for_each(|lesson| _ = teach(&mut fixes, lesson));
            prop_assert_eq!(fixes, before);
        }

        #[test]
        fn on_its_way_through_a_file_nothing_changes(lessons in lessons()) {
            let mut fixes = Fixes::default();
            lessons.iter().for_each(|lesson| _ = teach(&mut fixes, lesson));
            let text = serde_json::to_string(&fixes).unwrap();
            prop_assert_eq!(serde_json::from_str::<Fixes>(&text).unwrap(), fixes);
        }

        #[test]
        fn only_what_helped_and_may_be_chosen_is_advised(lessons in lessons(), tried in 0..Action::ALL.len()) {
            let mut fixes = Fixes::default();
            for lesson in &lessons {
                teach(&mut fixes, lesson);
                let pattern = format!("A5 proxy {}", lesson.1);
                let tried = Action::ALL[tried];
                if let Some((action, _)) = fixes.advise(&pattern, &[tried]) {
                    prop_assert!(action != tried && action.may_be_advised());
                    let fix = fixes.of(&pattern).find(|fix| fix.action == action).unwrap();
                    prop_assert!(fix.succeeded > 0 && fix.failed_in_a_row < 2);
                    prop_assert!(fixes.of(&pattern).all(|other| !other.usable() || other.action == tried || other.bound() <= fix.bound()));
                }
            }
        }
    }
}
