//! A record against a container: the real table says the step, the real guard what is written.

use std::collections::BTreeSet;

use diego_operator::converge::harmony::said::{self, LrpFacts};
use diego_operator::converge::harmony::{self, LrpAction};
use diego_operator::converge::lrp::transition::{self, Instance, Verb};
use diego_operator::converge::world::Key;
use diego_operator::rep::records::{self, lrp_view};

use crate::at;
use crate::calls::{Job, Status};
use crate::faults::Mutation;
use crate::history::Sim;
use crate::rep::{Meanwhile, Record, Took, Work};
use crate::store::Kind;

impl Sim {
    pub fn settle_all(&mut self, rep: usize) {
        let one = &self.reps[rep];
        let held = one.containers.values().map(|container| &container.work);
        let all: BTreeSet<Work> = one.records.keys().chain(held).cloned().collect();
        for work in all {
            self.settle(rep, &work, false, None);
        }
    }

    /// Brings a record and what runs here of it together, as far as that goes without an answer from elsewhere.
    pub fn settle(&mut self, rep: usize, work: &Work, live: bool, wanted_by: Option<&str>) {
        if let Some(meanwhile) = self.reps[rep].busy.get_mut(work) {
            *meanwhile = Meanwhile::Changed.max(*meanwhile);
            return;
        }
        // The table never turns in a circle: after so many local steps it does.
        let mut steps = 0;
        'again: loop {
            steps += 1;
            if steps > 20 {
                return self.violated(format!(
                    "S7: {work:?} goes in circles on {}",
                    self.reps[rep].cell
                ));
            }
            for guid in self.reps[rep].guids(work) {
                if self.reps[rep].is_of_an_earlier_life(work, &guid) {
                    continue;
                }
                let took = match work.0 {
                    Kind::Task => self.task_step(rep, work, &guid, live),
                    Kind::Lrp | Kind::Cell | Kind::Desired => {
                        self.lrp_step(rep, work, &guid, live, wanted_by)
                    }
                };
                match took {
                    Took::Nothing => {}
                    Took::Local => continue 'again,
                    Took::Call => return,
                }
            }
            break;
        }
        let one = &mut self.reps[rep];
        let named = (one.records.get(work))
            .is_some_and(|record| record.named().iter().any(|(cell, ..)| *cell == one.cell));
        if !one.holds(work) && !named {
            one.records.remove(work);
            one.failures.remove(work);
        }
    }

    pub fn lrp_step(
        &mut self,
        rep: usize,
        work: &Work,
        guid: &str,
        live: bool,
        wanted_by: Option<&str>,
    ) -> Took {
        let one = &self.reps[rep];
        let record = match one.records.get(work) {
            Some(Record::Lrp(lrp)) => Some(lrp.clone()),
            Some(Record::Task(_)) | None => None,
        };
        let container = one.containers.get(guid);
        let instance = records::Instance {
            cell: &one.cell,
            guid,
            owner: container.and_then(|one| one.owner.as_deref()),
            retired: container.is_some_and(|one| one.retired),
        };
        let view = lrp_view(record.as_ref().map(|lrp| &lrp.object), wanted_by, instance);
        let state = one.state(guid);
        let strict = container.is_some_and(|one| one.strict);
        let table = if strict {
            harmony::strict_lrp
        } else {
            harmony::lrp
        };
        let action = table(view, state, one.mode);
        let act = matches!(action, LrpAction::Stop | LrpAction::CreateRecord);
        if harmony::wants_live_read(state, act) && !live {
            self.read(rep, work);
            return Took::Call;
        }
        match action {
            LrpAction::Nothing => Took::Nothing,
            LrpAction::Reserve => match &record {
                Some(lrp) => {
                    let desired = Key::new(&*work.1.namespace, &*lrp.record.process);
                    let guid = guid.to_owned();
                    self.call(rep, work, Job::Reserve { guid, desired })
                }
                None => Took::Nothing,
            },
            LrpAction::Run => self.run_container(rep, guid),
            LrpAction::Stop => self.stop_container(rep, guid),
            LrpAction::Delete => self.delete_container(rep, guid),
            LrpAction::CreateRecord => self.call(
                rep,
                work,
                Job::Create {
                    guid: guid.to_owned(),
                },
            ),
            LrpAction::Claim
            | LrpAction::ReportRunning
            | LrpAction::ReportEvacuating
            | LrpAction::ReportCrash
            | LrpAction::Unclaim
            | LrpAction::Refuse
            | LrpAction::DropSuspect
            | LrpAction::DropEvacuating => {
                self.lrp_write(rep, work, guid, action, "the Cell is being evacuated")
            }
        }
    }

    pub fn lrp_write(
        &mut self,
        rep: usize,
        work: &Work,
        guid: &str,
        action: LrpAction,
        refusal: &str,
    ) -> Took {
        let one = &self.reps[rep];
        let (Some(epoch), Some(Record::Lrp(lrp))) = (one.stamp(), one.records.get(work)) else {
            return Took::Nothing;
        };
        let lrp = lrp.clone();
        let stale = self.breaks(Mutation::IgnoreEpoch);
        let instance = Instance {
            cell: one.cell.clone(),
            epoch,
            guid: guid.to_owned(),
        };
        let facts = LrpFacts {
            address: format!("{}:{guid}", one.cell),
            end: "exited with status 1".into(),
            refusal: refusal.into(),
            ..LrpFacts::default()
        };
        let action = match action {
            // Gives it back as an end does, which is not counted.
            LrpAction::Refuse if self.breaks(Mutation::RefuseUncounted) => LrpAction::Unclaim,
            other => other,
        };
        let Some((_, verb)) = said::lrp(action, instance, facts) else {
            return Took::Nothing;
        };
        match transition::apply(&lrp.record.status, &verb, at(self.now)) {
            Ok(mut next) => {
                self.coverage.add(verb_name(&verb), 1);
                let first = self.reps[rep].first_epoch;
                if stale && next.cell_epoch == Some(epoch) {
                    next.cell_epoch = first;
                }
                self.write(rep, work, guid, Status::Lrp(Box::new(next)))
            }
            Err(refusal) => {
                // Whatever the table asks for, the guard allows: else the pair would never settle.
                self.violated(format!("L1: {} may not be written: {refusal}", work.1));
                Took::Nothing
            }
        }
    }

    pub fn write(&mut self, rep: usize, work: &Work, guid: &str, status: Status) -> Took {
        let Some(record) = self.reps[rep].records.get(work) else {
            return Took::Nothing;
        };
        let (uid, revision) = (record.uid().to_owned(), record.revision());
        let guid = guid.to_owned();
        let job = Job::Write {
            guid,
            uid,
            revision,
            status,
        };
        self.call(rep, work, job)
    }
}

pub fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Claim(_) => "claims",
        Verb::Start { .. } => "starts",
        Verb::Evacuate { .. } => "kept as evacuating by the rep",
        Verb::Crash { .. } => "crashes",
        Verb::GiveBack { refused: None, .. } => "give-backs",
        Verb::GiveBack { .. } => "refusals",
        Verb::Stall { .. } => "stalls",
        Verb::Place { .. }
        | Verb::Promote { .. }
        | Verb::EvacuateSuspect
        | Verb::RemoveSuspect
        | Verb::RemoveEvacuating => "verbs of the controller",
    }
}
