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

    /// This figure as a share of another one, run by run: what ran side by side is compared.
    pub fn per(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// The value below which a share of the values lies (the nearest rank); NaN where there are none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A number for people: three digits or all that stand before the point, with commas between thousands.
pub fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size >= 100.0 => thousands(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn thousands(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    format!("{}{}", if whole < 0.0 { "-" } else { "" }, groups.join(","))
}

/// `median (min-max)`, or the value alone where there is one.
impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", short(self.median()))?;
        if self.0.len() > 1 { write!(out, " ({}-{})", short(self.min()), short(self.max())) } else { Ok(()) }
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

    #[test]
    fn a_ratio_compares_what_ran_in_the_same_round() {
        let ratio = Figure(vec![10.0, 100.0]).per(&Figure(vec![5.0, 20.0]));
        assert_eq!(ratio.0, [2.0, 5.0]);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [100.0, 198.0, 200.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn numbers_are_short_and_a_figure_shows_its_range() {
        let found = [1_234_567.8, 123.4, 12.34, 1.234, 0.0123, 0.0, f64::NAN].map(short);
        assert_eq!(found, ["1,234,568", "123", "12.3", "1.23", "0.0123", "0.00", "-"]);
        assert_eq!(Figure(vec![3.0, 1.0, 2.0]).to_string(), "2.00 (1.00-3.00)");
        assert_eq!(Figure(vec![3.0]).to_string(), "3.00");
    }
}
