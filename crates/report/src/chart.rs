//! Curves as SVG, in a page or as a file. In: series over steps. Out: axes, a smoothed line over the faint raw one, or, where each value
//! has its interval, the values in a band, and a title with the numbers under every step. It knows no metric.

use std::fmt::Write as _;

use super::html::{escape, number};

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Most points that are drawn; longer runs are averaged in runs of neighbouring steps.
const MAX_POINTS: usize = 240;
/// Most values of a band that are marked one by one: more of them would hide the line.
const MAX_DOTS: usize = 24;
/// Height of a line of the legend of a file.
const KEY: f64 = 14.0;
/// Colours and strokes of series; those beyond the last come round again.
const STYLES: usize = COLOURS.len();
/// Colours of series in a file, as style.css has them for pages on a light ground: not everything that shows files knows variables.
const COLOURS: [&str; 10] = ["#2457d6", "#b4620b", "#e5484d", "#2a9d4a", "#8e4ec6", "#0d9488", "#d6409f", "#6b7280", "#d97706", "#0b84c6"];

/// One line.
pub struct Series {
    /// What it is, for the legend and the titles.
    pub name: String,
    /// One value per step.
    pub values: Vec<Option<f64>>,
    /// Within what each value lies, one per step, as far as it is known; none for a series that is to be smoothed instead.
    pub band: Option<Vec<Option<[f64; 2]>>>,
}

/// A series as it is drawn.
struct Line<'a> {
    name: &'a str,
    raw: Vec<Option<f64>>,
    /// What the eye is to follow.
    drawn: Vec<Option<f64>>,
    /// The lower and the upper end of the band; none where a series is smoothed.
    band: Option<[Vec<Option<f64>>; 2]>,
}

impl<'a> Line<'a> {
    fn of(series: &'a Series) -> Self {
        let raw = thin(&series.values);
        let end = |band: &[Option<[f64; 2]>], at: usize| thin(&band.iter().map(|band| band.map(|band| band[at])).collect::<Vec<_>>());
        let band = series.band.as_deref().map(|band| [end(band, 0), end(band, 1)]);
        let drawn = if band.is_none() { smooth(&raw) } else { raw.clone() };
        Self { name: series.name.as_str(), raw, drawn, band }
    }

    /// Everything that the axis must enclose.
    fn values(&self) -> impl Iterator<Item = f64> {
        self.raw.iter().chain(self.band.iter().flatten().flatten()).flatten().copied()
    }
}

/// What a chart shows.
pub struct Chart {
    /// Heading.
    pub title: &'static str,
    /// One sentence on how to read it.
    pub note: &'static str,
    /// Decimals of numbers in titles and at the axis.
    pub decimals: usize,
    /// True when the axis must begin at 0.
    pub from_zero: bool,
    /// Lines, each in a style of its own; the second one is dashed.
    pub series: Vec<Series>,
}

/// The inside of a drawing, and the legend: style, name and last value of each line.
struct Drawing {
    svg: String,
    keys: Vec<(usize, String, String)>,
}

impl Chart {
    /// The chart as a `<figure>`; empty when no series has two values.
    pub fn figure(&self, steps: &[u64]) -> String {
        let Some(Drawing { svg, keys }) = self.draw(steps) else { return String::new() };
        let key =
            |(style, name, end): &(usize, String, String)| format!("<span class=\"key s{style}\">{}<b>{end}</b></span>", escape(name));
        let keys: String = keys.iter().map(key).collect();
        format!(
            "<figure class=\"chart\"><figcaption><h3>{}</h3><div class=\"keys\">{keys}</div></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">{svg}</svg><p>{}</p></figure>",
            escape(self.title),
            escape(self.title),
            escape(self.note)
        )
    }

    /// The chart as a file of its own, with its style and its legend inside; `None` when no series has two values.
    pub fn file(&self, steps: &[u64]) -> Option<String> {
        let Drawing { svg, keys } = self.draw(steps)?;
        let mut style =
            "path{fill:none;stroke-linejoin:round}.grid{stroke:#e3e4e6}.tick{fill:#646a73;font-size:10.5px}.line{stroke-width:2}\
            .raw{stroke-width:1;opacity:.28}.band{opacity:.16}.hit{opacity:0}"
                .to_owned();
        for (at, colour) in COLOURS.iter().enumerate() {
            put(
                &mut style,
                format_args!("path.s{at}{{stroke:{colour}}}path.band.s{at}{{stroke:none;fill:{colour}}}.dot.s{at}{{fill:{colour}}}"),
            );
        }
        let (top, below) = (18.0, KEY * keys.len() as f64 + 6.0);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 {} {WIDTH} {}\" font-family=\"system-ui, sans-serif\"><style>{style}</style>\
             <rect x=\"0\" y=\"{}\" width=\"{WIDTH}\" height=\"{}\" fill=\"#ffffff\"/>\
             <text x=\"8\" y=\"-4\" font-size=\"12\" font-weight=\"600\" fill=\"#191b1f\">{}</text>{svg}",
            -top,
            HEIGHT + top + below,
            -top,
            HEIGHT + top + below,
            escape(self.title)
        );
        for (at, (style, name, end)) in keys.iter().enumerate() {
            let y = HEIGHT + KEY * (at as f64 + 0.5);
            put(
                &mut text,
                format_args!(
                    "<path class=\"line s{style}\" d=\"M{LEFT} {y:.1}L{:.1} {y:.1}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{} {end}</text>",
                    LEFT + 22.0,
                    LEFT + 28.0,
                    y + 3.5,
                    escape(name)
                ),
            );
        }
        text.push_str("</svg>\n");
        Some(text)
    }

    fn draw(&self, steps: &[u64]) -> Option<Drawing> {
        let steps = thin(&steps.iter().map(|step| Some(*step as f64)).collect::<Vec<_>>());
        let lines: Vec<Line<'_>> = self.series.iter().map(Line::of).filter(|line| line.raw.iter().flatten().count() >= 2).collect();
        if lines.is_empty() {
            return None;
        }
        let ticks = self.ticks(lines.iter().flat_map(Line::values));
        let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
        let first = steps.iter().flatten().next().copied().unwrap_or(0.0);
        let last = steps.iter().flatten().next_back().copied().unwrap_or(1.0).max(first + 1.0);
        let x = |step: f64| LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);

        let mut svg = String::new();
        for tick in &ticks {
            let (at, label) = (y(*tick), number(Some(*tick), tick_decimals(&ticks)));
            let right = WIDTH - RIGHT;
            put(&mut svg, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"));
            put(
                &mut svg,
                format_args!("<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 3.5),
            );
        }
        for (step, anchor) in [(first, "start"), ((first + last) / 2.0, "middle"), (last, "end")] {
            let (at, bottom) = (x(step), HEIGHT - 7.0);
            put(&mut svg, format_args!("<text class=\"tick\" x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"{anchor}\">{step:.0}</text>"));
        }
        for (number, line) in lines.iter().enumerate().map(|(at, line)| (at % STYLES, line)) {
            if let Some(band) = &line.band {
                if band[0].iter().any(Option::is_some) {
                    put(&mut svg, format_args!("<path class=\"band s{number}\" d=\"{}\"/>", area(&steps, band, &x, &y)));
                }
                let dots = if steps.len() <= MAX_DOTS { &line.raw[..] } else { &[] };
                for (step, value) in steps.iter().zip(dots).filter_map(|(step, value)| Some(((*step)?, (*value)?))) {
                    put(&mut svg, format_args!("<circle class=\"dot s{number}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>", x(step), y(value)));
                }
            } else {
                put(&mut svg, format_args!("<path class=\"raw s{number}\" d=\"{}\"/>", path(&steps, &line.raw, &x, &y)));
            }
            put(&mut svg, format_args!("<path class=\"line s{number}\" d=\"{}\"/>", path(&steps, &line.drawn, &x, &y)));
        }
        let width = (WIDTH - LEFT - RIGHT) / steps.len() as f64;
        for (at, step) in steps.iter().enumerate() {
            let Some(step) = step else { continue };
            let mut title = format!("step {step:.0}");
            for line in &lines {
                let shown = |values: &[Option<f64>]| number(values[at], self.decimals);
                let (name, raw) = (line.name, shown(&line.raw));
                match &line.band {
                    None => put(&mut title, format_args!("\n{name} {raw} (smoothed {})", shown(&line.drawn))),
                    Some([low, high]) if low[at].is_some() => {
                        put(&mut title, format_args!("\n{name} {raw} ({} to {})", shown(low), shown(high)));
                    }
                    Some(_) => put(&mut title, format_args!("\n{name} {raw}")),
                }
            }
            let (left, height) = (x(*step) - width / 2.0, HEIGHT - TOP - BOTTOM);
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"hit\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.2}\" height=\"{height}\"><title>{}</title></rect>",
                    escape(&title)
                ),
            );
        }
        let key = |(at, line): (usize, &Line<'_>)| {
            let end = line.drawn.iter().rev().flatten().next().copied();
            (at % STYLES, line.name.to_owned(), number(end, self.decimals))
        };
        let keys = lines.iter().enumerate().map(key).collect();
        Some(Drawing { svg, keys })
    }

    /// Round numbers that enclose all values, at least two.
    fn ticks(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if self.from_zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        let span = (high - low).max(high.abs().max(low.abs()) * 0.02).max(1e-9);
        let rough = span / 3.0;
        let unit = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|factor| factor * unit).find(|step| *step >= rough * 0.999).unwrap_or(unit * 10.0);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let last = last.max(first + 1.0);
        (0..=(last - first) as usize).map(|at| (first + at as f64) * step).collect()
    }
}

/// As many decimals as the distance between ticks needs.
fn tick_decimals(ticks: &[f64]) -> usize {
    let step = ticks[1] - ticks[0];
    (0..6).find(|decimals| (step * 10f64.powi(*decimals)).fract().min(1.0 - (step * 10f64.powi(*decimals)).fract()) < 1e-6).unwrap_or(6)
        as usize
}

/// The outline of a band: along its upper end, and back along the lower one.
fn area(steps: &[Option<f64>], [low, high]: &[Vec<Option<f64>>; 2], x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let there = path(steps, high, x, y);
    let reversed = |values: &[Option<f64>]| values.iter().rev().copied().collect::<Vec<_>>();
    let back = path(&reversed(steps), &reversed(low), x, y);
    format!("{there}{}Z", back.replacen('M', "L", 1))
}

fn path(steps: &[Option<f64>], values: &[Option<f64>], x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (step, value) in steps.iter().zip(values) {
        match (step, value) {
            (Some(step), Some(value)) => {
                put(&mut path, format_args!("{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, x(*step), y(*value)));
                pen_down = true;
            }
            // Unknown steps are bridged: a gap would hide short curves altogether.
            _ => continue,
        }
    }
    path
}

/// An exponential mean with about a twelfth of the run in its window, corrected for its start.
pub fn smooth(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let keep = 1.0 - 1.0 / (values.len() as f64 / 12.0).max(1.5);
    let (mut sum, mut weight) = (0.0, 0.0);
    let next = |value: &Option<f64>| {
        let value = (*value)?;
        (sum, weight) = (sum * keep + value, weight * keep + 1.0);
        Some(sum / weight)
    };
    values.iter().map(next).collect()
}

/// At most [`MAX_POINTS`] means of neighbouring values; what is not finite is unknown.
fn thin(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let run = values.len().div_ceil(MAX_POINTS).max(1);
    let mean = |values: &[Option<f64>]| {
        let known: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    values.chunks(run).map(mean).collect()
}

fn put(into: &mut String, arguments: std::fmt::Arguments<'_>) {
    into.write_fmt(arguments).expect("memory takes every text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: Vec<Option<f64>>) -> Chart {
        Chart {
            title: "Rounds",
            note: "fewer <is> better",
            decimals: 2,
            from_zero: true,
            series: vec![Series { name: "rounds".into(), values, band: None }],
        }
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let ticks = |values: &[f64], from_zero: bool| {
            let chart = Chart { from_zero, ..chart(vec![]) };
            chart.ticks(values.iter().copied())
        };
        assert_eq!(ticks(&[0.4, 3.7], true), [0.0, 2.0, 4.0]);
        assert_eq!(ticks(&[0.5, 0.5], true), [0.0, 0.2, 0.4, 0.6000000000000001]);
        let flat = ticks(&[7.0, 7.0], false);
        assert!(flat.len() >= 2 && flat[0] <= 7.0 && flat[flat.len() - 1] >= 7.0, "{flat:?}");
        let negative = ticks(&[-0.3, 0.9], false);
        assert!(negative[0] <= -0.3 && negative[negative.len() - 1] >= 0.9, "{negative:?}");
        assert_eq!(tick_decimals(&[0.0, 0.25]), 2);
        assert_eq!(tick_decimals(&[0.0, 2.0]), 0);
    }

    #[test]
    fn every_step_can_be_hovered_and_unknown_ones_do_not_break_the_line() {
        let values: Vec<Option<f64>> = (0..30).map(|at| (at != 7).then_some(4.0 - f64::from(at) / 10.0)).collect();
        let figure = chart(values).figure(&(1..=30).collect::<Vec<_>>());
        assert_eq!(figure.matches("<title>").count(), 30);
        assert!(figure.contains("step 8\nrounds – (smoothed –)"));
        assert!(figure.contains("fewer &lt;is&gt; better"));
        assert!(!figure.contains("NaN") && !figure.contains("inf"));
    }

    #[test]
    fn values_with_intervals_stand_in_a_band_and_are_not_smoothed() {
        let values = vec![Some(1.0), Some(3.0), Some(2.0)];
        let band = Some(values.iter().map(|value| value.map(|value| [value - 0.5, value + 0.5])).collect());
        let chart = Chart { series: vec![Series { name: "rounds".into(), values, band }], ..chart(vec![]) };
        let figure = chart.figure(&[0, 10, 20]);
        assert!(figure.contains("step 10\nrounds 3.00 (2.50 to 3.50)") && figure.contains("<b>2.00</b>"), "{figure}");
        assert_eq!((figure.matches("<circle").count(), figure.matches("class=\"raw").count()), (3, 0));
        let band = figure.split("class=\"band s0\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a band");
        assert_eq!((band.matches('M').count(), band.matches('L').count(), band.ends_with('Z')), (1, 5, true), "{band}");
    }

    #[test]
    fn a_file_stands_alone_with_a_legend_of_every_line() {
        let series = |at: usize| Series { name: format!("arm <{at}>"), values: vec![Some(at as f64), Some(1.0)], band: None };
        let chart = Chart { series: (0..12).map(series).collect(), ..chart(vec![]) };
        let file = chart.file(&[1, 2]).expect("two values each");
        assert!(file.starts_with("<svg xmlns=") && file.ends_with("</svg>\n") && !file.contains("var("), "{file}");
        assert_eq!(file.matches("arm &lt;").count(), 12 + 2 * 12, "the legend, and the titles of both steps");
        assert!(file.contains("class=\"line s9\"") && !file.contains("s10\""), "styles come round again");
        assert_eq!(Chart { series: vec![], ..chart }.file(&[1, 2]), None);
    }

    #[test]
    fn long_runs_are_thinned_and_empty_ones_leave_no_chart() {
        let figure = chart((0..100_000).map(|at| Some(f64::from(at))).collect()).figure(&(0..100_000).collect::<Vec<_>>());
        assert!(figure.len() < 60_000, "{} bytes", figure.len());
        assert_eq!(chart(vec![None; 30]).figure(&(0..30).collect::<Vec<_>>()), "");
        assert_eq!(chart(vec![Some(f64::NAN), Some(1.0)]).figure(&[1, 2]), "");
    }

    #[test]
    fn smoothing_starts_at_the_first_value_and_keeps_constants() {
        assert!(smooth(&[Some(2.0); 40]).iter().all(|value| value.is_some_and(|value| (value - 2.0).abs() < 1e-12)));
        let ramp: Vec<Option<f64>> = (0..40).map(|at| Some(f64::from(at))).collect();
        assert_eq!(smooth(&ramp)[0], Some(0.0));
    }
}
