//! Percentiles, and the exponent with which a cost grows.

use serde::Serialize;

/// Some percentiles of a number of values.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// How many values there were.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// Nine of ten are not greater.
    pub p90: f64,
    /// 99 of 100 are not greater.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Percentiles {
    /// `None` without values.
    pub fn of(values: &[f64]) -> Option<Percentiles> {
        if values.is_empty() {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: f64| {
            let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1]
        };
        Some(Percentiles {
            count: sorted.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            max: at(100.0),
        })
    }
}

/// The median.
pub fn median(values: &[f64]) -> Option<f64> {
    Percentiles::of(values).map(|all| all.p50)
}

/// The exponent `b` of the curve `a * size^b` that lies nearest to the points, by least squares of the logarithms.
pub fn growth(points: &[(f64, f64)]) -> Option<f64> {
    let usable = |(size, cost): &&(f64, f64)| *size > 0.0 && *cost > 0.0;
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(usable)
        .map(|(size, cost)| (size.ln(), cost.ln()))
        .collect();
    if logs.len() < 2 {
        return None;
    }
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = logs.iter().map(|point| (point.0 - x).powi(2)).sum();
    (under > 0.0).then(|| over / under)
}
