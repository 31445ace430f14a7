//! `kubectl diego distribution`: what runs where.

mod draw;
mod live;
mod picture;

use super::args::{DistributionArgs, Format};
use super::cluster::Cluster;
use super::failure::Failure;
use super::output::{Screen, print, say};
use draw::{Style, draw};
use picture::Picture;

/// The width where there is no terminal and $COLUMNS is not set.
const WIDTH: usize = 100;

/// The narrowest picture; a terminal that is narrower breaks its lines.
const NARROWEST: usize = 40;

/// Shows it, once or until it is stopped.
///
/// # Errors
/// When the cluster can't be read.
pub async fn run(
    cluster: &Cluster,
    args: &DistributionArgs,
    screen: &Screen,
) -> Result<(), Failure> {
    let people = matches!(screen.format, Format::Table | Format::Wide);
    if args.watch {
        // Asked first, so that what is missing is told in full words.
        live::watchable(cluster.clone()).await?;
        return live::run(cluster, screen).await;
    }
    let api = cluster.cells();
    let (cells, lrps, tasks) = tokio::join!(
        cluster.list(&api, ""),
        cluster.actual_lrps(),
        cluster.tasks()
    );
    let (cells, lrps, tasks) = (cells?, lrps?, tasks?);
    let picture = Picture::new(&cells, &lrps, &tasks);
    if cells.is_empty() && people {
        say("there are no Cells: no rep has registered; look at the reps' logs");
    }
    if people {
        print(&draw(&picture, style(screen)))
    } else {
        let cells: Vec<_> = picture.cells().cloned().collect();
        screen.show(&cells)
    }
}

fn style(screen: &Screen) -> Style {
    Style {
        width: screen.width.unwrap_or(WIDTH).max(NARROWEST),
        unicode: screen.unicode,
        wide: screen.format == Format::Wide,
        legend: screen.headers,
        paint: screen.paint,
    }
}
