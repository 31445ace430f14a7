//! What the picture looks like.

use super::*;
use crate::api::{ActualLRPState, EvacuatingInstance, SuspectInstance, TaskState};
use crate::plugin::fixtures::{cell, lrp, task};

/// A recovery and an evacuation at once.
fn picture() -> Picture {
    let cells = [
        cell("cell-1", "z1", "True", "PresenceHeld"),
        cell("cell-2", "z1", "False", "PresenceExpired"),
        cell("cell-3-with-a-long-name", "z2", "False", "Evacuating"),
    ];
    let running = ActualLRPState::Running;
    let mut lrps: Vec<_> = (0..3)
        .map(|n| lrp("web", n, running, Some("cell-1")))
        .collect();
    let mut suspect = lrp("web", 3, ActualLRPState::Claimed, Some("cell-1"));
    suspect.status.as_mut().unwrap().suspect = Some(SuspectInstance {
        cell_name: "cell-2".into(),
        ..SuspectInstance::default()
    });
    let mut leaving = lrp("api", 0, running, Some("cell-1"));
    leaving.status.as_mut().unwrap().evacuating = Some(EvacuatingInstance {
        cell_name: "cell-3-with-a-long-name".into(),
        ..EvacuatingInstance::default()
    });
    let mut waits = lrp("web", 4, ActualLRPState::Unclaimed, None);
    let error = "insufficient resources: memory \x1b[2J".to_owned();
    waits.status.as_mut().unwrap().placement_error = Some(error);
    lrps.extend([suspect, leaving, waits]);
    let tasks = [
        task(
            "migrate",
            TaskState::Running,
            Some("cell-3-with-a-long-name"),
        ),
        task("next", TaskState::Pending, Some("cell-1")),
        task("done", TaskState::Completed, Some("cell-1")),
    ];
    Picture::new(&cells, &lrps, &tasks)
}

fn style(width: usize) -> Style {
    Style {
        width,
        unicode: true,
        wide: false,
        legend: true,
        paint: Paint(false),
    }
}

#[test]
fn a_recovery_at_eighty_columns() {
    let expected = "\
z1: 2 Cells, 6 instances, 1 Task
cell-1                  Ready          2/250  25%  ■■■■□○
cell-2                  Missing        2/250  25%  ▒
z2: 1 Cell, 1 instance, 1 Task
cell-3-with-a-long-name Evacuating     2/250  25%  ▶●
no Cell: 1 instance
  default/web-4: insufficient resources: memory \u{fffd}[2J
■ running  □ starting  ▒ suspect  ▶ evacuating  ● Task  ○ Task starting
numbers: containers, memory used
";
    let text = draw(&picture(), style(80));
    assert_eq!(text, expected, "{text}");
}

#[test]
fn it_fits_forty_columns_and_ascii() {
    let expected = "\
z1: 2 Cells, 6 instances, 1 Task
cell-1       Ready          2/250  25%
  ####+o
cell-2       Missing        2/250  25%
  ?
z2: 1 Cell, 1 instance, 1 Task
cell-3-with~ Evacuating     2/250  25%
  >@
no Cell: 1 instance
  default/web-4: insufficient
    resources: memory \u{fffd}[2J
# running  + starting  ? suspect
> evacuating  @ Task  o Task starting
numbers: containers, memory used
";
    let narrow = Style {
        unicode: false,
        ..style(40)
    };
    let text = draw(&picture(), narrow);
    assert_eq!(text, expected, "{text}");
    for width in [40, 41, 63, 64, 65, 80, 200] {
        let wide = Style {
            wide: true,
            ..style(width)
        };
        let text = draw(&picture(), wide);
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(width), "{width}: {text}");
    }
}

#[test]
fn many_blocks_go_on_in_the_next_line() {
    let cells = [cell("a", "z1", "True", "PresenceHeld")];
    let lrps: Vec<_> = (0..60)
        .map(|n| lrp("web", n, ActualLRPState::Running, Some("a")))
        .collect();
    let text = draw(&Picture::new(&cells, &lrps, &[]), style(40));
    let blocks: Vec<usize> = text
        .lines()
        .filter(|line| line.starts_with("  "))
        .map(|line| line.chars().filter(|c| *c == '■').count())
        .collect();
    assert_eq!(blocks, [38, 22], "{text}");
    let wide = Style {
        wide: true,
        ..style(100)
    };
    let text = draw(&Picture::new(&cells, &lrps, &[]), wide);
    assert!(text.contains("default/web 60\n"), "{text}");
}

#[test]
fn colours_are_those_of_desired_lrps() {
    let painted = Style {
        paint: Paint(true),
        ..style(80)
    };
    let text = draw(&picture(), painted);
    // api is the first by name, web the second; what is lost is red.
    assert!(text.contains("\x1b[32m■\x1b[0m\x1b[34m■\x1b[0m"), "{text}");
    assert!(text.contains("\x1b[31m▒\x1b[0m"), "{text}");
    assert!(text.contains("\x1b[34m■\x1b[0m default/web"), "{text}");
}

#[test]
fn instances_of_a_deleted_cell_are_told_of() {
    let mut moved = lrp("web", 1, ActualLRPState::Running, Some("here"));
    moved.status.as_mut().unwrap().suspect = Some(SuspectInstance {
        cell_name: "gone".into(),
        ..SuspectInstance::default()
    });
    let here = [cell("here", "z1", "True", "PresenceHeld")];
    assert_eq!(Picture::new(&here, [&moved], &[]).waiting, []);
    let lrps = [lrp("web", 0, ActualLRPState::Running, Some("gone"))];
    let text = draw(&Picture::new(&[], &lrps, &[]), style(80));
    assert!(
        text.starts_with("no Cell: 1 instance\n  default/web-0: its Cell gone is deleted\n"),
        "{text}"
    );
}
