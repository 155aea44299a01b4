use std::fmt;

use serde::Serialize;

/// One figure of several runs, in the order of the runs.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Figure(pub Vec<f64>);

impl Figure {
    /// The least value.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The greatest value.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }
}

/// A table row: what it is, and the three values.
pub struct Line<'a>(pub &'a str, pub &'a Figure);

impl fmt::Display for Line<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, figure) = self;
        write!(out, "| {name:<44} | {:>8.2} | {:>8.2} | {:>8.2} |", figure.min(), figure.median(), figure.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_of_runs_lies_between_two() {
        let figure = Figure(vec![9.0, 1.0, 4.0, 2.0]);
        assert!((figure.min() - 1.0).abs() < 1e-9 && (figure.max() - 9.0).abs() < 1e-9);
        assert!((figure.median() - 3.0).abs() < 1e-9);
        assert!((Figure(vec![3.0, 1.0, 2.0]).median() - 2.0).abs() < 1e-9);
    }
}
