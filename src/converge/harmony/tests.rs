//! Every cell of the harmonisation tables, as they are read.

use super::*;

const CONTAINERS: [(&str, ContainerState); 7] = [
    ("none", ContainerState::None),
    ("reserved", ContainerState::Reserved),
    ("starting", ContainerState::Starting),
    ("running", ContainerState::Running),
    ("stopping", ContainerState::Stopping),
    ("shutdown", ContainerState::CompletedShutdown),
    ("crashed", ContainerState::CompletedCrashed),
];

const LRP_RECORDS: [(&str, LrpRecord); 13] = [
    ("gone, unwanted", LrpRecord::None { desired: false }),
    ("gone, wanted", LrpRecord::None { desired: true }),
    ("Unclaimed mine", LrpRecord::UnclaimedMine),
    (
        "Unclaimed other",
        LrpRecord::UnclaimedOther { evacuating: false },
    ),
    (
        "Unclaimed other, evacuating other",
        LrpRecord::UnclaimedOther { evacuating: true },
    ),
    ("Claimed mine", LrpRecord::ClaimedMine),
    (
        "Claimed other",
        LrpRecord::ClaimedOther { evacuating: false },
    ),
    (
        "Claimed other, evacuating other",
        LrpRecord::ClaimedOther { evacuating: true },
    ),
    ("Running mine", LrpRecord::RunningMine),
    ("Running other", LrpRecord::RunningOther),
    ("Crashed", LrpRecord::Crashed),
    ("suspect mine", LrpRecord::SuspectMine),
    ("evacuating mine", LrpRecord::EvacuatingMine),
];

const LRP: &str = "
record          | none           | reserved       | starting | running       | stopping | shutdown       | crashed
gone, unwanted  | -              | delete         | stop     | stop          | -        | delete         | delete
gone, wanted    | -              | delete         | stop     | create        | -        | delete         | delete
Unclaimed mine  | reserve        | claim          | claim    | running       | -        | unclaim        | unclaim
Unclaimed other | -              | delete         | stop     | running       | -        | delete         | delete
Unclaimed other, evacuating other | -              | delete         | stop     | running       | -        | delete         | delete
Claimed mine    | unclaim        | run            | -        | running       | -        | unclaim        | crash
Claimed other   | -              | delete         | stop     | running       | -        | delete         | delete
Claimed other, evacuating other | -              | delete         | stop     | running       | -        | delete         | delete
Running mine    | unclaim        | unclaim        | -        | -             | -        | unclaim        | crash
Running other   | -              | delete         | stop     | stop          | -        | delete         | delete
Crashed         | -              | delete         | stop     | running       | -        | delete         | delete
suspect mine    | drop suspect   | drop suspect   | -        | -             | -        | drop suspect   | drop suspect
evacuating mine | drop evacuating| drop evacuating| -        | -             | -        | drop evacuating| drop evacuating
";

const LRP_DRAINING: &str = "
record          | none           | reserved       | starting | running       | stopping | shutdown       | crashed
gone, unwanted  | -              | delete         | stop     | stop          | -        | delete         | delete
gone, wanted    | -              | delete         | stop     | stop          | -        | delete         | delete
Unclaimed mine  | refuse         | refuse         | stop     | running       | -        | unclaim        | unclaim
Unclaimed other | -              | delete         | stop     | evacuating    | -        | delete         | delete
Unclaimed other, evacuating other | -              | delete         | stop     | stop          | -        | delete         | delete
Claimed mine    | unclaim        | unclaim        | stop     | running       | -        | unclaim        | crash
Claimed other   | -              | delete         | stop     | evacuating    | -        | delete         | delete
Claimed other, evacuating other | -              | delete         | stop     | stop          | -        | delete         | delete
Running mine    | unclaim        | unclaim        | -        | -             | -        | unclaim        | crash
Running other   | -              | delete         | stop     | stop          | -        | delete         | delete
Crashed         | -              | delete         | stop     | stop          | -        | delete         | delete
suspect mine    | drop suspect   | drop suspect   | -        | -             | -        | drop suspect   | drop suspect
evacuating mine | drop evacuating| drop evacuating| -        | -             | -        | drop evacuating| drop evacuating
";

const TASK_RECORDS: [(&str, TaskRecord); 7] = [
    ("gone", TaskRecord::None),
    ("Pending mine", TaskRecord::PendingMine),
    ("Pending other", TaskRecord::PendingOther),
    ("Running mine", TaskRecord::RunningMine),
    ("cancelled mine", TaskRecord::CancelledMine),
    ("Running other", TaskRecord::RunningOther),
    ("ended", TaskRecord::Ended),
];

const TASK: &str = "
record          | none    | reserved | starting | running | stopping | shutdown | crashed
gone            | -       | delete   | stop     | stop    | -        | delete   | delete
Pending mine    | reserve | running  | running  | running | -        | running  | running
Pending other   | -       | delete   | running  | running | -        | running  | running
Running mine    | fail    | run      | -        | -       | -        | complete | complete
cancelled mine  | fail    | fail     | stop     | stop    | -        | complete | complete
Running other   | -       | delete   | stop     | stop    | -        | delete   | delete
ended           | -       | delete   | stop     | stop    | -        | delete   | delete
";

const TASK_DRAINING: &str = "
record          | none    | reserved | starting | running | stopping | shutdown | crashed
gone            | -       | delete   | stop     | stop    | -        | delete   | delete
Pending mine    | reject  | reject   | running  | running | -        | running  | running
Pending other   | -       | delete   | running  | running | -        | running  | running
Running mine    | fail    | run      | -        | -       | -        | complete | complete
cancelled mine  | fail    | fail     | stop     | stop    | -        | complete | complete
Running other   | -       | delete   | stop     | stop    | -        | delete   | delete
ended           | -       | delete   | stop     | stop    | -        | delete   | delete
";

fn lrp_word(action: LrpAction) -> &'static str {
    match action {
        LrpAction::Nothing => "-",
        LrpAction::Reserve => "reserve",
        LrpAction::Claim => "claim",
        LrpAction::Run => "run",
        LrpAction::ReportRunning => "running",
        LrpAction::ReportEvacuating => "evacuating",
        LrpAction::CreateRecord => "create",
        LrpAction::ReportCrash => "crash",
        LrpAction::Unclaim => "unclaim",
        LrpAction::Refuse => "refuse",
        LrpAction::DropSuspect => "drop suspect",
        LrpAction::DropEvacuating => "drop evacuating",
        LrpAction::Stop => "stop",
        LrpAction::Delete => "delete",
    }
}

fn task_word(action: TaskAction) -> &'static str {
    match action {
        TaskAction::Nothing => "-",
        TaskAction::Reserve => "reserve",
        TaskAction::ReportRunning => "running",
        TaskAction::Run => "run",
        TaskAction::Complete => "complete",
        TaskAction::FailMissing => "fail",
        TaskAction::Reject => "reject",
        TaskAction::Stop => "stop",
        TaskAction::Delete => "delete",
    }
}

/// Compares a table with a rule, and sees to it that no row or column is missing from either.
fn check<R: Copy>(
    table: &str,
    records: &[(&str, R)],
    rule: impl Fn(R, ContainerState) -> &'static str,
) {
    let rows: Vec<Vec<&str>> = table
        .trim()
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let columns: Vec<&str> = CONTAINERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows[0][1..], columns[..]);
    let names: Vec<&str> = records.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        rows[1..].iter().map(|row| row[0]).collect::<Vec<_>>(),
        names
    );
    for (row, (name, record)) in rows[1..].iter().zip(records) {
        for (expected, (column, container)) in row[1..].iter().zip(CONTAINERS) {
            assert_eq!(rule(*record, container), *expected, "{name} x {column}");
        }
    }
}

#[test]
fn ordinary_lrps() {
    check(LRP, &LRP_RECORDS, |record, container| {
        lrp_word(lrp(record, container, Mode::Ordinary))
    });
}

#[test]
fn lrps_of_a_rep_that_drains() {
    check(LRP_DRAINING, &LRP_RECORDS, |record, container| {
        lrp_word(lrp(record, container, Mode::Draining))
    });
}

#[test]
fn ordinary_tasks() {
    check(TASK, &TASK_RECORDS, |record, container| {
        task_word(task(record, container, Mode::Ordinary))
    });
}

#[test]
fn tasks_of_a_rep_that_drains() {
    check(TASK_DRAINING, &TASK_RECORDS, |record, container| {
        task_word(task(record, container, Mode::Draining))
    });
}

#[test]
fn a_task_is_started_only_after_its_record_says_so() {
    for (_, record) in TASK_RECORDS {
        for mode in [Mode::Ordinary, Mode::Draining] {
            let starts = task(record, ContainerState::Reserved, mode) == TaskAction::Run;
            assert_eq!(starts, record == TaskRecord::RunningMine);
        }
    }
}

#[test]
fn only_a_process_is_worth_a_second_look() {
    for (_, container) in CONTAINERS {
        let alive = matches!(
            container,
            ContainerState::Starting | ContainerState::Running
        );
        assert_eq!(wants_live_read(container, true), alive);
        assert!(!wants_live_read(container, false));
    }
}

#[test]
fn what_must_not_run_twice_stops_on_a_drained_cell_once_its_record_gave_it_up() {
    let mut others = Vec::new();
    for (_, record) in LRP_RECORDS {
        for (_, container) in CONTAINERS {
            for mode in [Mode::Ordinary, Mode::Draining] {
                let (strict, usual) = (
                    strict_lrp(record, container, mode),
                    lrp(record, container, mode),
                );
                if strict != usual {
                    others.push((record, container, mode, strict));
                }
            }
        }
    }
    let stops = |container| {
        let (record, mode) = (LrpRecord::SuspectMine, Mode::Draining);
        (record, container, mode, LrpAction::Stop)
    };
    let expected = [ContainerState::Starting, ContainerState::Running].map(stops);
    assert_eq!(others, expected);
}

#[test]
fn what_must_not_run_twice_starts_on_what_was_said_under_the_present_epoch() {
    for (recorded, epoch, claims) in [
        (Some(7), Some(7), false),
        (Some(6), Some(7), true),
        (Some(8), Some(7), true),
        (None, Some(7), true),
        (Some(7), None, true),
        (None, None, true),
    ] {
        let claim = super::claims_before_run(recorded, epoch);
        assert_eq!(claim, claims, "{recorded:?} at {epoch:?}");
    }
}
