//! What time lines say.

use super::*;
use crate::api::LastRecovery;
use crate::plugin::fixtures::{cell, lrp, task};
use crate::plugin::text::Paint;
use crate::plugin::trace::draw::draw;
use k8s_openapi::api::events::v1::EventSeries;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn at(millis: i64) -> Option<MicroTime> {
    Some(MicroTime(Timestamp::from_millisecond(millis).unwrap()))
}

/// A Cell that was lost, and the Event of it.
fn lost() -> Vec<Entry> {
    let mut cell = cell("cell-1", "z1", "False", "PresenceExpired");
    cell.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let status = cell.status.as_mut().unwrap();
    status.conditions[0].last_transition_time = Time(Timestamp::from_second(100).unwrap());
    status.last_recovery = Some(LastRecovery {
        epoch: 7,
        lost_time: at(100_000),
        detected_time: at(100_063),
        recovered_time: at(100_310),
        actual_lrps: 3,
        waiting_actual_lrps: 0,
        tasks: 1,
        source: Some("watch".into()),
        confirmed: None,
    });
    let mut entries = of_cell(&cell);
    let event = Event {
        event_time: at(100_070),
        reason: Some("CellPresenceExpired".into()),
        type_: Some("Warning".into()),
        note: Some("The presence expired, as the watch noticed.".into()),
        ..Event::default()
    };
    entries.extend(of_event(&event));
    entries.sort_by_key(Entry::place);
    entries
}

#[test]
fn a_recovery_in_order_of_time() {
    let now = Timestamp::from_second(200).unwrap();
    let expected = "\
TIME (UTC)                    AFTER   FROM        WHAT                  WHY
1970-01-01 00:00:00                   record      Created               in zone z1, executor Process
1970-01-01 00:01:40.000               record      PresenceLost          the store dropped epoch 7
1970-01-01 00:01:40.063     +0.063s   record      LossDetected          by the watch, +0.063s after it was lost
1970-01-01 00:01:40.070     +0.007s   event       CellPresenceExpired   The presence expired, as the watch noticed.
1970-01-01 00:01:40.310     +0.240s   record      Recovered             3 ActualLRPs placed elsewhere, 0 waiting, 1 Task failed, +0.310s after it was lost
1970-01-01 00:01:40                   condition   Ready=False           PresenceExpired
";
    let text = draw(&lost(), now, None, true, Paint(false));
    assert_eq!(text, expected, "{text}");
    let red = draw(&lost(), now, None, true, Paint(true));
    assert!(red.contains("\x1b[31mCellPresenceExpired\x1b[0m"), "{red}");
    for width in [40, 60, 79, 80, 100, 120] {
        let text = draw(&lost(), now, Some(width), true, Paint(false));
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(width), "{width}: {text}");
    }
    let narrow = draw(&lost()[..3], now, Some(40), true, Paint(false));
    let expected = "\
1970-01-01 00:00:00
  Created (record): in zone z1,
    executor Process
1970-01-01 00:01:40.000
  PresenceLost (record): the store
    dropped epoch 7
1970-01-01 00:01:40.063 +0.063s
  LossDetected (record): by the watch,
    +0.063s after it was lost
";
    assert_eq!(narrow, expected, "{narrow}");
}

#[test]
fn an_instance_and_a_task() {
    let mut web = lrp("web", 0, ActualLRPState::Crashed, None);
    let status = web.status.as_mut().unwrap();
    status.crash_count = Some(3);
    status.crash_reason = Some("exited with status 3".into());
    status.state_transition_time = at(1000);
    status.last_crash_time = at(1000);
    status.next_restart_time = at(31_000);
    let words: Vec<_> = of_lrp(&web).into_iter().map(|entry| entry.what).collect();
    assert_eq!(words, ["Crashed", "LastCrash", "NextRestart"]);
    let now = Timestamp::from_second(2).unwrap();
    let text = draw(&of_lrp(&web), now, None, false, Paint(false));
    assert!(text.ends_with("NextRestart   to come:\n"), "{text}");
    // A clock that is ahead of ours plans nothing.
    let earlier = Timestamp::UNIX_EPOCH;
    let text = draw(&of_lrp(&web), earlier, None, false, Paint(false));
    assert_eq!(text.matches("to come").count(), 1, "{text}");

    let mut migrate = task("migrate", TaskState::Completed, Some("cell-1"));
    let status = migrate.status.as_mut().unwrap();
    status.first_completed_time = at(5000);
    status.failed = Some(true);
    status.failure_reason = Some("cell disappeared before completion".into());
    let entries = of_task(&migrate);
    assert_eq!(
        entries[0].message,
        "failed: cell disappeared before completion"
    );
}

#[test]
fn a_series_of_events_says_how_often() {
    let event = Event {
        event_time: at(0),
        note: Some("Placed.".into()),
        series: Some(EventSeries {
            count: 3,
            last_observed_time: at(9000).unwrap(),
        }),
        ..Event::default()
    };
    let entry = of_event(&event).unwrap();
    assert_eq!(
        entry.message,
        "Placed. (3 times, the last at 1970-01-01 00:00:09.000)"
    );
    assert_eq!(of_event(&Event::default()), None);
}
