//! What is asked of others when no rule has an action left: fixes that helped before, then a model. PURE.
//!
//! The brain asks and waits a while; what it is told is an action of the closed list or nothing, and goes through the same
//! guards, announcement and verification as what a rule decides.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Brain, Command, Incident, Part, Phase, incident::Advised, record};
use crate::watchdog::{
    catalog::{Action, Fault, Proof, Tier, When},
    incidents::record::{Fact, Guard, IncidentId},
    signal::{SECOND_US, Time},
};

/// Characters kept of why somebody advises something.
const WHY_CHARS_MAX: usize = 300;

/// Who does not answer within this time knows nothing.
const fn patience_us(tier: Tier) -> u64 {
    match tier {
        Tier::Rules | Tier::Fixes => SECOND_US,
        Tier::Ai => 30 * SECOND_US,
    }
}

impl Brain {
    /// Whose advice is wanted before the act that is next: where a person is to be told, no rung from here on changes
    /// anything, what is done could be verified, and something may be done at all: not where words that anybody may write are enough.
    pub(super) fn whom_to_ask(&self, incident: &Incident, row: &Fault, at: Time) -> Option<Tier> {
        let lasts_not = row.ladder.get(incident.rung).is_some_and(|rung| matches!(rung.when, When::Repeated(_)));
        let rules = row.ladder.iter().skip(incident.rung).flat_map(|rung| rung.acts);
        if incident.action() != Some(Action::AlertUser)
            || !(lasts_not || row.start != Tier::Rules)
            || row.verify.proof == Proof::None
            || row.goes_by_words()
            || rules.copied().any(Action::changes)
            || (self.has(Part::Guard(Guard::ObserveOnly)) && self.observe_only)
            || matches!(self.rests(incident, row, at), Some((Guard::Budget, _)))
        {
            return None;
        }
        let tiers = [Tier::Fixes, Tier::Ai].into_iter().filter(|tier| *tier != Tier::Ai || self.asks_ai);
        tiers.into_iter().find(|tier| !incident.asked.contains(tier))
    }

    pub(super) fn advice(
        &mut self,
        id: IncidentId,
        tier: Tier,
        action: Option<Action>,
        why: &str,
        at: Time,
        out: &mut Vec<Command>,
    ) {
        let Some(incident) = self.open.get_mut(&id) else { return };
        // What comes late is not waited for any more.
        if matches!(incident.phase, Phase::Consulting { tier: asked, .. } if asked == tier) {
            incident.advise(tier, action, why, at, out);
        }
    }
}

impl Incident {
    pub(super) fn consult(&mut self, tier: Tier, at: Time, out: &mut Vec<Command>) {
        self.asked.push(tier);
        self.phase = Phase::Consulting { tier, until: at.plus_us(patience_us(tier)) };
        let (pattern, tried) = (self.pattern(), self.tried.clone());
        out.push(Command::Consult { incident: self.id, tier, pattern, tried });
    }

    /// The answer came, or nobody answered.
    pub(super) fn advise(&mut self, tier: Tier, action: Option<Action>, why: &str, at: Time, out: &mut Vec<Command>) {
        self.phase = Phase::Deciding;
        let why: String = why.chars().take(WHY_CHARS_MAX).collect();
        match action {
            None => record(self.id, Fact::NoAdvice { tier, why }, at, out),
            Some(action) if !action.may_be_advised() => {
                self.suggested = Some(action);
                record(self.id, Fact::Suggested { tier, action, why }, at, out);
            }
            Some(action) if self.tried.contains(&action) => {
                let why = format!("{} was tried already", action.word());
                record(self.id, Fact::NoAdvice { tier, why }, at, out);
            }
            Some(action) => self.advised = Some(Advised { tier, action, why }),
        }
    }
}
