//! Whether it helped: what proves it, what speaks against it, and what leaves it open. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Brain, Command, Incident, Part, Phase, record};
use crate::watchdog::{
    catalog::{Fault, Proof},
    guards::micros,
    incidents::record::{End, Fact},
    signal::{Active, Health, SECOND_US, Time, Unit},
};

impl Brain {
    /// Looks for proof and for its opposite.
    pub(super) fn verify(
        &self,
        incident: &mut Incident,
        row: &Fault,
        since: Time,
        proven: Option<Time>,
        at: Time,
        out: &mut Vec<Command>,
    ) {
        if let Some(proven) = proven {
            if at.since_us(proven) >= micros(row.verify.quiet) || !self.has(Part::Quiet) {
                incident.close(End::Healed, "seen to be well, and it stayed away", at, out);
            }
            return;
        }
        let kind = row.verify.proof;
        if self.proof(kind, since) || !self.has(Part::Proof(kind)) {
            let after_us = at.since_us(incident.since);
            record(incident.id, Fact::Proven { proof: kind, after_us }, at, out);
            incident.phase = Phase::Verifying { since, proven: Some(at) };
            return;
        }
        if !incident.changed && self.world.given_up() {
            incident.stand_on(0);
            return;
        }
        if at.since_us(since) < micros(row.verify.within) {
            return;
        }
        match self.disproof(kind, since).filter(|_| self.has(Part::Disproof(kind))) {
            Some(why) => incident.disproven(why, at, out),
            None => incident.close(End::Unproven, "nothing was seen that proves anything", at, out),
        }
    }

    fn proof(&self, proof: Proof, since: Time) -> bool {
        let health = self.world.health_since(since);
        match proof {
            Proof::Serving => matches!(health, Some(Health::Served { .. })) && self.world.runs(),
            Proof::Prompt => {
                matches!(health, Some(Health::Served { elapsed_us, .. }) if elapsed_us < SECOND_US) && self.world.runs()
            }
            Proof::Listening => self.world.active(Unit::Socket) == Active::Active,
            // Nobody tells of completed requests and repaired files yet.
            Proof::Completed | Proof::Repaired => false,
            Proof::None => true,
        }
    }

    /// What speaks against it; `None` if nothing is known either way.
    fn disproof(&self, proof: Proof, since: Time) -> Option<String> {
        match proof {
            Proof::Serving | Proof::Prompt => match (self.world.active(Unit::Proxy), self.world.health_since(since)) {
                (_, Some(Health::Silent | Health::Refused | Health::Dropped | Health::Foreign)) => {
                    Some("the proxy does not answer".to_owned())
                }
                (_, Some(Health::Served { .. })) if proof == Proof::Prompt => {
                    Some("the proxy answers slowly".to_owned())
                }
                (Active::Failed | Active::Inactive, _) => Some("the proxy does not run".to_owned()),
                _ => None,
            },
            Proof::Listening => {
                (self.world.active(Unit::Socket) != Active::Unknown).then(|| "the socket is not held".to_owned())
            }
            Proof::Completed | Proof::Repaired | Proof::None => None,
        }
    }
}
