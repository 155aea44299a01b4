//! A report as a picture: a panel per metric, in it a bar per case and system as long as the median, with a line from
//! the least value to the greatest. Each panel has its own scale, from zero.

use std::fmt::Write as _;

use crate::figures::{Figure, short};
use crate::report::{Report, VSKI};

const WIDTH: f64 = 900.0;
/// Where bars begin, and how long the longest line is.
const LEFT: f64 = 330.0;
const LONGEST: f64 = 440.0;
const ROW: f64 = 22.0;
const TITLE: f64 = 34.0;

const OURS: &str = "#2b6cb0";
const THEIRS: &str = "#a0aec0";

/// The report as SVG.
pub fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut y = TITLE;
    text(&mut body, 12.0, y - 12.0, "font-weight=\"bold\"", &format!("{}: {}", report.work, report.title));
    for metric in report.metrics() {
        y = panel(report, metric, y, &mut body);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Draws one metric from `y` on; returns where the next one begins.
fn panel(report: &Report, metric: &str, y: f64, body: &mut String) -> f64 {
    let rows = report.cases.iter().flat_map(|case| case.systems.iter().map(move |system| (case, system)));
    let rows: Vec<(String, &str, &Figure)> = rows
        .filter_map(|(case, system)| {
            let (_, figure) = system.metrics.iter().find(|(name, _)| name == metric)?;
            Some((format!("{}, {}", case.name, system.name), system.name.as_str(), figure))
        })
        .collect();
    let most = rows.iter().map(|(_, _, figure)| figure.max()).fold(f64::MIN_POSITIVE, f64::max);
    text(body, 12.0, y + 16.0, "font-style=\"italic\"", metric);
    let mut top = y + ROW;
    for (label, system, figure) in rows {
        text(body, LEFT - 8.0, top + 15.0, "text-anchor=\"end\"", &label);
        let scale = |value: f64| if value.is_finite() { LONGEST * (value / most).clamp(0.0, 1.0) } else { 0.0 };
        let (length, from, to) = (scale(figure.median()), scale(figure.min()), scale(figure.max()));
        let (colour, middle) = (if system == VSKI { OURS } else { THEIRS }, top + ROW / 2.0);
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
             <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"black\"/>",
            top + 4.0,
            ROW - 8.0,
            LEFT + from,
            LEFT + to
        );
        text(body, LEFT + to + 8.0, top + 15.0, "", &short(figure.median()));
        top += ROW;
    }
    top + ROW / 2.0
}

fn text(body: &mut String, x: f64, y: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn a_bar_is_as_long_as_its_median_on_the_scale_of_its_metric() {
        let picture = svg(&example());
        // 1,250 of at most 1,600, and 150.
        assert!(picture.contains(&format!("width=\"{:.1}\"", LONGEST * 1_250.0 / 1_600.0)), "{picture}");
        assert!(picture.contains(&format!("width=\"{:.1}\"", LONGEST * 150.0 / 1_600.0)), "{picture}");
        assert_eq!(picture.matches("<rect x=").count(), 3, "two systems, and one of them has a second metric");
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn words_cannot_break_the_picture() {
        let mut report = Report::new("create", "a < b & c");
        report.add("x > y", "Other", "ms", f64::NAN);
        let picture = svg(&report);
        assert!(picture.contains("a &lt; b &amp; c") && picture.contains("x &gt; y") && !picture.contains("NaN"));
    }
}
