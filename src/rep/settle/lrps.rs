//! The steps about instances of ActualLRPs.

use k8s_openapi::jiff::Timestamp;

use super::{DRAINING, Took};
use crate::api::ActualLRPStatus;
use crate::converge::harmony::said::{self, LrpFacts};
use crate::converge::harmony::{self, LrpAction};
use crate::converge::lrp::transition;
use crate::patch;
use crate::rep::actor::Actor;
use crate::rep::container::Container;
use crate::rep::jobs::Job;
use crate::rep::metrics::StopReason;
use crate::rep::records::{Instance, Key, Record, lrp_view};

impl Actor {
    pub(super) fn lrp_step(
        &mut self,
        key: &Key,
        guid: &str,
        live: bool,
        wanted_by: Option<&str>,
    ) -> Took {
        let record = match self.records.get(key) {
            Some(Record::Lrp(lrp)) => Some(lrp.as_ref()),
            Some(Record::Task(_)) | None => None,
        };
        let container = self.containers.get(guid);
        let instance = Instance {
            cell: &self.setup.cell,
            guid,
            owner: container.and_then(|container| container.owner.as_deref()),
            retired: container.is_some_and(|container| container.retired),
        };
        let view = lrp_view(record, wanted_by, instance);
        let status = record
            .and_then(|lrp| lrp.status.clone())
            .unwrap_or_default();
        let desired_lrp = record.map(|lrp| lrp.spec.desired_lrp_name.clone());
        let state = self.state(guid);
        let strict = container.is_some_and(|container| container.strict);
        let table = if strict {
            harmony::strict_lrp
        } else {
            harmony::lrp
        };
        let action = match table(view, state, self.mode) {
            LrpAction::Run if strict && self.claims_before_run(key, guid) => LrpAction::Claim,
            action => action,
        };
        let act = matches!(action, LrpAction::Stop | LrpAction::CreateRecord);
        if harmony::wants_live_read(state, act) && !live {
            return self.read_first(key);
        }
        let begins = matches!(action, LrpAction::Claim | LrpAction::Run);
        if strict && begins && !self.may_begin_strict() {
            return Took::Nothing;
        }
        match action {
            LrpAction::Nothing => Took::Nothing,
            LrpAction::Reserve => match desired_lrp {
                Some(desired_lrp) => self.call(
                    key,
                    Job::Reserve {
                        guid: guid.into(),
                        desired_lrp,
                    },
                ),
                None => Took::Nothing,
            },
            LrpAction::Run => self.run_container(guid),
            LrpAction::Stop => self.stop_container(guid, StopReason::NotAssigned),
            LrpAction::Delete => self.delete(guid),
            LrpAction::CreateRecord => match self.containers.get(guid).and_then(Container::slot) {
                Some(slot) => self.call(key, Job::Create(slot)),
                None => Took::Nothing,
            },
            LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportEvacuating
            | LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::Refuse
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => self.lrp_write(key, guid, action, &status, DRAINING),
        }
    }

    fn claims_before_run(&self, key: &Key, guid: &str) -> bool {
        let known = self.records.get(key);
        let recorded = known.and_then(|record| record.epoch_of(guid));
        harmony::claims_before_run(recorded, self.epoch())
    }

    /// Writes the record's next status, if the transition guard allows it. `refusal` is why it can't be here.
    pub(in crate::rep) fn lrp_write(
        &mut self,
        key: &Key,
        guid: &str,
        action: LrpAction,
        status: &ActualLRPStatus,
        refusal: &str,
    ) -> Took {
        let Some(instance) = self.instance(guid) else {
            return Took::Nothing;
        };
        let container = self.containers.get(guid);
        let facts = LrpFacts {
            address: self.setup.address.clone(),
            ports: container
                .map(|container| container.ports.mappings.clone())
                .unwrap_or_default(),
            end: container.map(Container::end_reason).unwrap_or_default(),
            taken_away: container.and_then(Container::taken_away),
            refusal: refusal.to_owned(),
        };
        let Some((done, verb)) = said::lrp(action, instance, facts) else {
            return Took::Nothing;
        };
        match transition::apply(status, &verb, Timestamp::now()) {
            Ok(next) => self.write(key, guid, done, patch::between(status, &next)),
            Err(refusal) => self.not_written(key, guid, &refusal),
        }
    }
}
