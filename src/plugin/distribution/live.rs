//! The picture drawn anew at each change, from watches; a lost connection is told, and it goes on.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::draw::draw;
use super::picture::Picture;
use crate::api::{ActualLRP, Cell, Task};
use crate::plugin::cluster::Cluster;
use crate::plugin::failure::Failure;
use crate::plugin::mirror::Mirror;
use crate::plugin::output::{Screen, print, say, size};
use crate::plugin::probe::Probe;
use crate::plugin::text::wrap;
use crate::watching::events_telling;

/// Changes are gathered for so long before they are drawn: a recovery brings hundreds.
const GATHER: Duration = Duration::from_millis(100);

/// How often the clock is drawn, and a lost connection is tried.
const TICK: Duration = Duration::from_secs(1);

/// What happened.
enum Change {
    Cell(Box<Event<Cell>>),
    ActualLRP(Box<Event<ActualLRP>>),
    Task(Box<Event<Task>>),
}

/// Everything that is watched.
struct World {
    cells: Mirror<Cell>,
    lrps: Mirror<ActualLRP>,
    tasks: Mirror<Task>,
}

impl World {
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Cell(event) => self.cells.apply(*event),
            Change::ActualLRP(event) => self.lrps.apply(*event),
            Change::Task(event) => self.tasks.apply(*event),
        }
    }

    /// The picture, once there is a whole one.
    fn picture(&self) -> Option<Picture> {
        let World { cells, lrps, tasks } = self;
        let whole = cells.listed && lrps.listed && tasks.listed;
        whole.then(|| {
            Picture::new(
                cells.shown.values(),
                lrps.shown.values(),
                tasks.shown.values(),
            )
        })
    }
}

fn watched<K>(
    api: Api<K>,
    lost: &mpsc::UnboundedSender<()>,
    change: fn(Event<K>) -> Change,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let lost = lost.clone();
    let tell = move |reason| {
        // A history that is too old is no lost connection.
        if reason != "compacted" {
            let _ = lost.send(());
        }
    };
    events_telling(api, watcher::Config::default(), tell)
        .map(change)
        .boxed()
}

/// Whether everything that is drawn may be watched now.
///
/// # Errors
/// When one kind may not.
pub async fn watchable(cluster: Cluster) -> Result<(), Failure> {
    let (cells, lrps, tasks) = (cluster.cells(), cluster.some(), cluster.some());
    let asked = tokio::try_join!(
        cluster.watchable(&cells),
        cluster.watchable::<ActualLRP>(&lrps),
        cluster.watchable::<Task>(&tasks),
    );
    asked.map(drop)
}

/// Draws until it is stopped.
///
/// # Errors
/// When stdout takes nothing.
pub async fn run(cluster: &Cluster, screen: &Screen) -> Result<(), Failure> {
    let (tell, mut losses) = mpsc::unbounded_channel();
    let mut changes = stream::select_all([
        watched(cluster.cells(), &tell, |event| {
            Change::Cell(Box::new(event))
        }),
        watched(cluster.some(), &tell, |event| {
            Change::ActualLRP(Box::new(event))
        }),
        watched(cluster.some(), &tell, |event| Change::Task(Box::new(event))),
    ]);
    let mut world = World {
        cells: Mirror::new(),
        lrps: Mirror::new(),
        tasks: Mirror::new(),
    };
    let mut canvas = Canvas::new(*screen);
    let mut lost: Option<Instant> = None;
    let mut probe = Probe::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = tokio::signal::ctrl_c();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            // In this order: who wants to end it does not wait for what goes wrong.
            biased;
            _ = &mut ended => return canvas.leave(),
            Some(()) = losses.recv() => {
                if lost.is_none() {
                    lost = Some(Instant::now());
                    canvas.word(&format!("the connection to {} is lost; trying again", cluster.server));
                }
            }
            answer = probe.answer() => match answer {
                Ok(()) => {
                    lost = None;
                    while losses.try_recv().is_ok() {}
                    canvas.word(&format!("the connection to {} is back", cluster.server));
                }
                Err(failure) if failure.is_lasting() => {
                    canvas.leave()?;
                    return Err(failure);
                }
                Err(_) => {}
            },
            _ = tick.tick() => if lost.is_some() {
                // What the watches say of a lost connection may lag behind: this proves that it is back.
                probe.ask(watchable(cluster.clone()));
            },
            change = changes.next() => {
                let Some(change) = change else {
                    return Err(Failure::Failed("the watches ended".into()));
                };
                let mut new = world.apply(change);
                let until = tokio::time::Instant::now() + GATHER;
                while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.next()).await {
                    new |= world.apply(change);
                }
                if !new {
                    continue;
                }
            }
        }
        if let Some(picture) = world.picture() {
            canvas.show(&picture, lost.map(|since| since.elapsed()))?;
        }
    }
}

/// Where it is drawn: over and over at the same place of a terminal, or else one after the other.
struct Canvas {
    screen: Screen,
    last: Option<String>,
}

impl Canvas {
    fn new(screen: Screen) -> Canvas {
        Canvas { screen, last: None }
    }

    /// Says something beside the picture, where that has no line for it.
    fn word(&self, text: &str) {
        if !self.screen.live {
            say(text);
        }
    }

    /// Leaves the picture there, and what comes next below it.
    fn leave(&self) -> Result<(), Failure> {
        print(if self.screen.live { "\n" } else { "" })
    }

    fn show(&mut self, picture: &Picture, lost: Option<Duration>) -> Result<(), Failure> {
        let height = match size() {
            Some((width, height)) if self.screen.live => {
                self.screen.width = Some(width);
                height
            }
            _ => usize::MAX,
        };
        let style = super::style(&self.screen);
        let text = draw(picture, style);
        if !self.screen.live {
            if self.last.as_ref() != Some(&text) {
                print(&format!("{text}\n"))?;
                self.last = Some(text);
            }
            return Ok(());
        }
        let head = status_line(Timestamp::now(), lost);
        let mut lines = wrap(&head, style.width);
        lines.extend(text.lines().map(str::to_owned));
        let first = self.last.is_none();
        self.last = Some(text);
        print(&frame(lines, height, first))
    }
}

/// The first line: when this was so, and whether it still is.
fn status_line(now: Timestamp, lost: Option<Duration>) -> String {
    let clock = now.strftime("%H:%M:%S UTC");
    match lost {
        None => format!("{clock}: live; ctrl-c ends it"),
        Some(since) => format!(
            "{clock}: CONNECTION LOST {} s ago; trying again, this is old",
            since.as_secs()
        ),
    }
}

/// Lines over what stood there before, no more than the terminal has.
fn frame(mut lines: Vec<String>, height: usize, first: bool) -> String {
    let height = height.max(3);
    if lines.len() > height {
        let more = lines.len() - (height - 1);
        lines.truncate(height - 1);
        lines.push(format!("({more} more lines: make the window taller)"));
    }
    let mut text = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    // Erased before it is written: after a line that is as wide as the terminal the cursor stands on its last column.
    for (n, line) in lines.iter().enumerate() {
        text += if n > 0 { "\n\x1b[2K" } else { "\x1b[2K" };
        text += line;
    }
    if lines.len() < height {
        text += "\n\x1b[J";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_no_taller_than_the_terminal() {
        let lines = || ["one", "two", "three", "four"].map(String::from).to_vec();
        assert_eq!(
            frame(lines(), 4, true),
            "\x1b[2J\x1b[H\x1b[2Kone\n\x1b[2Ktwo\n\x1b[2Kthree\n\x1b[2Kfour"
        );
        // Where there is room below, what stood there goes.
        assert!(frame(lines(), 5, true).ends_with("\x1b[2Kfour\n\x1b[J"));
        let cut = frame(lines(), 3, false);
        assert!(
            cut.starts_with("\x1b[H\x1b[2Kone\n")
                && cut.contains("(2 more lines")
                && !cut.contains("three"),
            "{cut}"
        );
        let lost = status_line(Timestamp::UNIX_EPOCH, Some(Duration::from_secs(7)));
        assert_eq!(
            lost,
            "00:00:00 UTC: CONNECTION LOST 7 s ago; trying again, this is old"
        );
    }
}
