//! The plots of a run, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{Loss, Results};
use crate::support::Failure;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (800, 450);

/// One colour for each kind of loss.
const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];

/// More points than pixels are of no use.
const POINTS: usize = 800;

/// How many instances had a new place after how many seconds, beside what the API server can do at best.
pub fn placing(run: &Results, file: &Path) -> Result<(), Failure> {
    let longest = run.losses.iter().filter_map(|loss| loss.curve.last());
    let end = longest.fold(0.1, |end: f64, at| end.max(*at));
    let most = run.losses.iter().map(|loss| loss.curve.len()).max();
    let most = most.unwrap_or(1).max(1) as f64;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let mut chart = chart(
        &area,
        &format!(
            "Instances with a new place after a loss: {} Cells x {}",
            run.plan.cells, run.plan.per_cell
        ),
        ("seconds from the first expiry", "instances placed"),
        (0.0..end, 0.0..most * 1.05),
        &|at| format!("{at:.1}"),
    )?;
    for (loss, colour) in run.losses.iter().zip(COLOURS) {
        let step = (loss.curve.len() / POINTS).max(1);
        let points = loss.curve.iter().enumerate();
        let line: Vec<(f64, f64)> = points
            .step_by(step)
            .map(|(n, at)| (*at, (n + 1) as f64))
            .collect();
        let drawn = chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        drawn.label(name(loss)).legend(key(colour.to_rgba()));
    }
    let raw = run.raw_rate();
    if raw.is_finite() {
        let until = end.min(most / raw);
        let line = [(0.0, 0.0), (until, until * raw)];
        let drawn = chart.draw_series(LineSeries::new(line, BLACK.mix(0.5).stroke_width(1)))?;
        let label = format!("raw status writes, {raw:.0}/s");
        drawn.label(label).legend(key(BLACK.mix(0.5)));
    }
    legend(&mut chart)?;
    area.present()?;
    Ok(())
}

/// The stages of each kind of loss: median, and the range up to the 99th percentile.
pub fn stages(run: &Results, file: &Path) -> Result<(), Failure> {
    let all = run.losses.iter().flat_map(|loss| &loss.stages);
    let most = all.fold(0.1, |most: f64, (_, stage)| most.max(stage.p99));
    let names: Vec<&str> = run.losses.first().map_or_else(Vec::new, |loss| {
        loss.stages.iter().map(|(name, _)| *name).collect()
    });
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let mut chart = chart(
        &area,
        &format!("Stages of a recovery, p50 to p99; TTL {} s", run.plan.ttl),
        ("", "seconds"),
        (-0.5..names.len().max(1) as f64 - 0.5, 0.0..most * 1.05),
        // The stages are at the whole numbers.
        &|at| {
            let whole = (at - at.round()).abs() < 1e-6 && *at > -0.25;
            let name = names.get(at.round() as usize).filter(|_| whole);
            name.copied().unwrap_or_default().to_owned()
        },
    )?;
    for (turn, (loss, colour)) in run.losses.iter().zip(COLOURS).enumerate() {
        let bars = loss.stages.iter().enumerate().flat_map(|(n, (_, stage))| {
            let left = n as f64 - 0.4 + turn as f64 * 0.28;
            let (pale, full) = (colour.mix(0.3).filled(), colour.filled());
            [
                Rectangle::new([(left, 0.0), (left + 0.24, stage.p99)], pale),
                Rectangle::new([(left, 0.0), (left + 0.24, stage.p50)], full),
            ]
        });
        let drawn = chart.draw_series(bars)?;
        drawn.label(name(loss)).legend(key(colour.to_rgba()));
    }
    legend(&mut chart)?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane =
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>;
type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Plane>;

fn chart<'a, 'b>(
    area: &'b Area<'a>,
    title: &str,
    (x, y): (&str, &str),
    (across, up): (std::ops::Range<f64>, std::ops::Range<f64>),
    ticks: &dyn Fn(&f64) -> String,
) -> Result<Chart<'a, 'b>, Failure> {
    area.fill(&WHITE).map_err(told)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(across, up)
        .map_err(told)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x).y_desc(y).light_line_style(WHITE.mix(0.0));
    mesh.x_labels(8).x_label_formatter(ticks);
    mesh.draw().map_err(told)?;
    drop(mesh);
    Ok(chart)
}

fn legend<'a: 'b, 'b>(chart: &mut Chart<'a, 'b>) -> Result<(), Failure> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(told)
}

/// A short line of the colour.
fn key(colour: RGBAColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> + 'static {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}

fn name(loss: &Loss) -> String {
    format!("{} ({:.0}/s)", loss.what, loss.per_second)
}

/// The crate's errors borrow the area.
fn told(error: impl std::fmt::Display) -> Failure {
    error.to_string().into()
}
