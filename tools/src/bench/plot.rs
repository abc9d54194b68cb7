//! One HTML page with drawings inside: how latency grows towards its rarest values, and throughput.

use super::load::measure::histogram;
use super::report::{Machine, Row, micros, rate};
use std::fmt::Write;

/// One part of the page.
pub struct Part<'a> {
    pub title: String,
    pub rows: Vec<&'a Row>,
}

const COLOURS: [&str; 8] = [
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f",
];

/// The quantiles of the horizontal axis: each mark has a tenth of what lies beyond the one before.
const NINES: [&str; 6] = ["0", "90", "99", "99.9", "99.99", "99.999"];
const STEPS_PER_NINE: usize = 20;

/// The drawing's field, and the room around it for what is written there.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 16.0;
const BAR: f64 = 26.0;

/// The whole page.
pub fn page(heading: &str, machine: &Machine, parts: &[Part]) -> String {
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{0}</title>\n\
         <style>body{{font:14px sans-serif;max-width:900px;margin:2em auto}}\
         svg{{display:block;margin:1em 0}}text{{font:12px sans-serif}}</style>\n\
         <h1>{0}</h1>\n<p>{1}</p>\n",
        escaped(heading),
        escaped(&machine.line())
    );
    for part in parts {
        let title = escaped(&part.title);
        page.push_str(&format!("<h2>{title}</h2>\n"));
        page.push_str(&bars(&part.rows));
        page.push_str(&curves(&part.rows));
    }
    page
}

/// Throughput: the median as a bar, the spread as a line across its end.
fn bars(rows: &[&Row]) -> String {
    let most = rows.iter().map(|row| row.rate().max()).fold(1.0, f64::max);
    let height = BAR * rows.len() as f64 + 2.0 * TOP;
    let mut text = open_svg(height, "throughput");
    let (left, width) = (LEFT + 240.0, WIDTH - 240.0);
    for (number, row) in rows.iter().enumerate() {
        let spread = row.rate();
        let scale = |value: f64| left + value / most * width;
        let (y, colour) = (TOP + BAR * number as f64, colour(number));
        let (end, middle) = (scale(spread.median), y + BAR / 2.0);
        let bar = BAR - 6.0;
        let length = end - left;
        put(
            &mut text,
            format_args!(
                "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{bar}\" \
             fill=\"{colour}\" fill-opacity=\"0.6\"/>"
            ),
        );
        let (low, high) = (scale(spread.min()), scale(spread.max()));
        put(
            &mut text,
            format_args!(
                "<path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#000\" stroke-width=\"2\"/>"
            ),
        );
        let (x, base) = (left - 6.0, middle + 2.0);
        label(&mut text, x, base, "end", &row.name);
        label(&mut text, left + 6.0, base, "start", &rate(spread.median));
    }
    text + "</svg>\n"
}

/// Latency at each quantile, over all runs of a row; both axes are logarithmic.
fn curves(rows: &[&Row]) -> String {
    let curves: Vec<Vec<f64>> = rows.iter().map(|row| curve(row)).collect();
    let values = || curves.iter().flatten().copied();
    let low = values()
        .fold(f64::INFINITY, f64::min)
        .max(1.0)
        .log10()
        .floor();
    let high = values().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |step: usize| {
        let steps = STEPS_PER_NINE * (NINES.len() - 1);
        LEFT + step as f64 / steps as f64 * WIDTH
    };
    let y = |value: f64| TOP + HEIGHT - (value.max(1.0).log10() - low) / (high - low) * HEIGHT;
    let legend = 18.0 * rows.len() as f64;
    let mut text = open_svg(TOP + HEIGHT + 40.0 + legend, "latency at each percentile");
    for power in low as i32..=high as i32 {
        let value = 10_f64.powi(power);
        let at = y(value);
        put(
            &mut text,
            format_args!("<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>"),
        );
        label(&mut text, LEFT - 6.0, at + 4.0, "end", &micros(value));
    }
    for (number, nine) in NINES.iter().enumerate() {
        let at = x(number * STEPS_PER_NINE);
        put(
            &mut text,
            format_args!("<path d=\"M{at:.1} {TOP}v{HEIGHT}\" stroke=\"#ddd\"/>"),
        );
        label(
            &mut text,
            at,
            TOP + HEIGHT + 16.0,
            "middle",
            &format!("{nine} %"),
        );
    }
    for (number, (row, curve)) in rows.iter().zip(&curves).enumerate() {
        let points = curve.iter().enumerate();
        let points = points.map(|(step, value)| format!("{:.1},{:.1}", x(step), y(*value)));
        let points: Vec<String> = points.collect();
        let (colour, points) = (colour(number), points.join(" "));
        put(
            &mut text,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            ),
        );
        let base = TOP + HEIGHT + 40.0 + 18.0 * number as f64;
        let mark = base - 10.0;
        put(
            &mut text,
            format_args!(
                "<rect x=\"{LEFT}\" y=\"{mark}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
            ),
        );
        label(&mut text, LEFT + 18.0, base, "start", &row.name);
    }
    text + "</svg>\n"
}

/// Microseconds, from the median of all to the rarest that so many measurements can tell.
fn curve(row: &Row) -> Vec<f64> {
    let mut all = histogram();
    for run in &row.runs {
        all.add(&run.latency).expect("all have the same bounds");
    }
    let steps = STEPS_PER_NINE * (NINES.len() - 1);
    let beyond = |step: usize| 10_f64.powf(-(step as f64) / STEPS_PER_NINE as f64);
    let told = (0..=steps).take_while(|step| beyond(*step) * all.len() as f64 >= 1.0);
    told.map(|step| all.value_at_quantile(1.0 - beyond(step)) as f64 / 1000.0)
        .collect()
}

fn open_svg(height: f64, title: &str) -> String {
    let width = LEFT + WIDTH + 40.0;
    format!(
        "<h3>{title}</h3>\n<svg width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{title}\">\n"
    )
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let content = escaped(content);
    put(
        text,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"),
    );
}

fn put(text: &mut String, element: std::fmt::Arguments) {
    writeln!(text, "{element}").expect("a string takes all");
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::load::measure::Run;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_page_draws_every_row_and_escapes_its_name() {
        let mut latency = histogram();
        for micros in 1..=1000 {
            latency.record(micros * 1000).unwrap();
        }
        let row = Row {
            name: "1 < 2 & 3".to_owned(),
            runs: vec![Run::of(1000, Duration::from_secs(1), latency)],
        };
        let curve = curve(&row);
        // A thousand measurements tell three nines, and no more.
        assert_eq!(curve.len(), 3 * STEPS_PER_NINE + 1);
        assert!((curve[STEPS_PER_NINE] - 900.0).abs() < 2.0, "{curve:?}");
        let part = Part {
            title: "a part".to_owned(),
            rows: vec![&row, &row],
        };
        let page = page("a page", &Machine::here(&std::env::temp_dir()), &[part]);
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<polyline").count(), 2);
        assert!(page.contains("1 &lt; 2 &amp; 3") && !page.contains("1 < 2"));
    }
}
