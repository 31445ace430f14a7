//! What holds in every state that can be reached.

use crate::protocol::{Fault, Protocol};
use crate::reached::What;
use crate::{ALL, LRP, TASK, guarded, holds, small, strict, unplaced};

#[test]
fn an_lrp_survives_a_cut() {
    let reached = [
        What::Lost,
        What::Returned,
        What::StaleWriteRefused,
        What::MadeSuspect,
        What::Promoted,
    ];
    let exist = ["an instance is Suspect"];
    holds(small(LRP, &[Fault::Cut]), &reached, &exist);
}

#[test]
fn an_lrp_survives_a_death() {
    let reached = [What::Lost, What::NewIncarnation, What::StaleWriteRefused];
    holds(small(LRP, &[Fault::Die]), &reached, &[]);
}

#[test]
#[ignore = "takes half a minute; make model runs it"]
fn an_lrp_survives_whatever_it_is_while_it_is_placed() {
    holds(unplaced(small(LRP, &ALL)), &[What::StaleWriteRefused], &[]);
}

#[test]
fn a_task_that_runs_does_not_run_again() {
    let reached = [What::Lost, What::TaskFailedByLoss, What::TaskSucceeded];
    let exist = ["a Task failed with its Cell"];
    holds(small(TASK, &ALL), &reached, &exist);
}

#[test]
fn a_task_that_is_placed_runs_at_most_once() {
    let reached = [What::StaleWriteRefused];
    holds(unplaced(small(TASK, &ALL)), &reached, &[]);
}

/// A Cell is lost, returns, takes the Task on and dies, before anybody wrote that it was back.
#[test]
fn a_task_that_is_placed_survives_a_return_that_nobody_wrote() {
    let model = Protocol {
        faults: 2,
        ..unplaced(small(TASK, &[Fault::Cut, Fault::Die]))
    };
    holds(model, &[What::Lost, What::Returned], &[]);
}

#[test]
fn a_strict_lrp_behind_a_fence_runs_once() {
    holds(
        strict(true, &[Fault::Cut]),
        &[What::Lost, What::Returned],
        &[],
    );
}

#[test]
fn a_strict_lrp_without_a_fence_runs_once() {
    let reached = [What::Lost, What::Returned, What::MadeSuspect];
    holds(strict(false, &[Fault::Cut]), &reached, &[]);
}

#[test]
#[ignore = "takes minutes; make model runs it"]
fn a_mass_loss_moves_no_lrp_and_no_loss_is_forgotten() {
    let reached = [What::Held, What::LetGo, What::Confirmed, What::Lost];
    holds(guarded(LRP), &reached, &[]);
}

#[test]
fn a_mass_loss_fails_no_task_and_no_loss_is_forgotten() {
    let reached = [What::Held, What::LetGo, What::Confirmed, What::Lost];
    holds(guarded(TASK), &reached, &["a Task failed with its Cell"]);
}

#[test]
fn a_store_that_lost_its_data_takes_nobody_away() {
    for record in [LRP, TASK] {
        let reached = [What::CountedOn, What::Returned];
        holds(small(record, &[Fault::Wipe]), &reached, &[]);
    }
}

/// A machine dies before or after.
#[test]
fn losses_are_found_in_a_store_that_lost_its_data() {
    let model = Protocol {
        faults: 2,
        ..small(TASK, &[Fault::Wipe, Fault::Die])
    };
    holds(model, &[What::CountedOn, What::Lost], &[]);
}

#[test]
#[ignore = "takes minutes; make model runs it"]
fn losses_of_an_lrp_are_found_in_a_store_that_lost_its_data() {
    for other in [Fault::Die, Fault::Cut] {
        let model = Protocol {
            faults: 2,
            ..small(LRP, &[Fault::Wipe, other])
        };
        holds(model, &[What::CountedOn, What::Lost], &[]);
    }
}

/// `make model`: two faults of every kind.
#[test]
#[ignore = "takes minutes; make model runs it"]
fn within_larger_bounds() {
    for model in [
        small(LRP, &ALL),
        small(TASK, &ALL),
        unplaced(small(TASK, &ALL)),
    ] {
        let model = Protocol {
            faults: 2,
            containers: 3,
            ..model
        };
        holds(
            model,
            &[What::Lost, What::Returned, What::NewIncarnation],
            &[],
        );
    }
    for fenced in [true, false] {
        let model = Protocol {
            faults: 2,
            ..strict(fenced, &[Fault::Die, Fault::Cut, Fault::Pause])
        };
        holds(model, &[What::Lost, What::Returned], &[]);
    }
}
