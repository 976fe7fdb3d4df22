//! Charts over time, drawn here as paths of an SVG: lines, the limit as dashes, and marks for what
//! happened. Pure: a chart is a function of its figures.
//!
//! All charts of a page share one axis of time. A gap in the figures is a gap in the line.

use std::fmt::Write;

use crate::format::{Moment, bytes, cores, count};

/// The drawing's own units; the browser stretches them to the place there is.
const WIDTH: i64 = 1000;
const HEIGHT: f64 = 100.0;
/// Kept free above the highest value.
const HEAD: f64 = 4.0;
/// Figures this many steps apart have a gap between them.
const GAP_STEPS: i64 = 3;
/// A limit more than this many times the highest use leaves the chart, so that the use can be seen.
const LIMIT_TIMES_MAX: u64 = 4;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// Thousandths of a core.
    #[default]
    Cores,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Bytes a second.
    Rate,
}

/// The figures of one chart.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// A short name.
    pub key: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// In what.
    pub unit: Unit,
    /// The first moment shown, milliseconds since 1970.
    pub since: i64,
    /// The last moment shown.
    pub until: i64,
    /// Milliseconds from one figure to the next.
    pub step: i64,
    /// One or two lines with their names; each figure has its time.
    pub lines: Vec<(&'static str, Vec<(i64, u64)>)>,
    /// The limit from each time on; empty when there is none.
    pub limit: Vec<(i64, u64)>,
    /// What happened.
    pub marks: Vec<(i64, MarkKind)>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A start.
    Start,
    /// An end.
    End,
    /// A kill for memory.
    OutOfMemory,
    /// Other limits.
    Limits,
}

/// A chart, drawn.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// A short name.
    pub key: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// What it is in words, for who does not see it.
    pub summary: String,
    /// The newest figure beside the limit.
    pub now: String,
    /// The highest value that the chart can show, and half of it.
    pub scale: [String; 2],
    /// The lines: name, line and area below it.
    pub(crate) lines: Vec<(&'static str, String, String)>,
    /// The limit's line.
    pub(crate) limit: String,
    /// What is said of the limit.
    pub limit_note: String,
    /// Marks: kind and place in per cent.
    pub(crate) marks: Vec<(MarkKind, String)>,
    /// For the script: the unit and all figures.
    pub(crate) unit: &'static str,
    pub(crate) since: i64,
    pub(crate) until: i64,
    pub(crate) values: String,
    pub(crate) limits: String,
}

/// Everything that a page shows of one hour.
#[derive(Debug, Clone, Default)]
pub struct Charts {
    /// The charts; none when there are no figures at all.
    pub charts: Vec<Chart>,
    /// Words under the axis, from the first moment to the last.
    pub axis: Vec<String>,
    /// What happened, newest first.
    pub marks: Vec<MarkRow>,
    /// How many more marks there are.
    pub more_marks: usize,
    /// The heads of the table after the time.
    pub columns: Vec<&'static str>,
    /// The same figures as a table, newest first.
    pub rows: Vec<FigureRow>,
    /// Where the figures can be fetched.
    pub csv: String,
}

/// One mark in words.
#[derive(Debug, Clone)]
pub struct MarkRow {
    /// What kind.
    pub kind: MarkKind,
    /// When.
    pub at: Moment,
    /// What.
    pub text: String,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct FigureRow {
    /// When.
    pub at: Moment,
    /// The figures.
    pub cells: Vec<String>,
}

impl MarkKind {
    /// Its CSS class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
            Self::OutOfMemory => "oom",
            Self::Limits => "limits",
        }
    }

    /// Its sign, around the point 0 0, six units high: told apart by form as well as by colour.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Start => "M-4 0H4L0 7Z",
            Self::End => "M-3.5 0H3.5V7H-3.5Z",
            Self::OutOfMemory => "M-4 0L0 3L4 0V7H-4Z",
            Self::Limits => "M0 0L4 3.5L0 7L-4 3.5Z",
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Rate => "rate",
        }
    }

    /// A value in words.
    pub fn words(self, value: u64) -> String {
        match self {
            Self::Cores if value == 1000 => "1 core".to_owned(),
            Self::Cores => format!("{} cores", cores(value)),
            Self::Bytes => bytes(value),
            Self::Count => count(value),
            Self::Rate => format!("{}/s", bytes(value)),
        }
    }

    /// The least top of a scale, so that noise does not fill a chart.
    fn least(self) -> u64 {
        match self {
            Self::Cores => 50,
            Self::Bytes => 1 << 20,
            Self::Count => 4,
            Self::Rate => 4 << 10,
        }
    }

    /// A round value not below `value`.
    fn round_up(self, value: u64) -> u64 {
        let value = value.max(self.least());
        match self {
            Self::Bytes | Self::Rate => {
                let power = value.checked_next_power_of_two().unwrap_or(u64::MAX);
                // Three quarters of a power of two is round, too.
                if value <= power / 4 * 3 { power / 4 * 3 } else { power }
            }
            Self::Cores | Self::Count => {
                let mut step = 1_u64;
                while step.saturating_mul(10) < value {
                    step = step.saturating_mul(10);
                }
                [1, 2, 4, 6, 8, 10]
                    .iter()
                    .map(|times| step.saturating_mul(*times))
                    .find(|&round| round >= value)
                    .unwrap_or(value)
            }
        }
    }
}

impl Chart {
    /// Draws `figures`.
    pub fn draw(figures: &Figures) -> Self {
        let peak = figures.lines.iter().flat_map(|(_, points)| points).map(|(_, v)| *v).max();
        let peak = peak.unwrap_or(0);
        let limit = figures.limit.iter().map(|(_, value)| *value).max().unwrap_or(0);
        let shows_limit = limit > 0 && limit <= peak.saturating_mul(LIMIT_TIMES_MAX);
        let unit = figures.unit;
        let top = if shows_limit { limit.max(peak) } else { unit.round_up(peak) };
        let place = Place { figures, top };
        let newest = figures.lines.iter().map(|(name, points)| (*name, points.last()));
        let limit_now = figures.limit.last().map(|(_, value)| *value);
        Self {
            key: figures.key,
            title: figures.title,
            summary: summary(figures, peak),
            now: now(unit, newest, limit_now),
            scale: [unit.words(top), unit.words(top / 2)],
            lines: figures
                .lines
                .iter()
                .map(|(name, points)| (*name, place.line(points), place.area(points)))
                .collect(),
            limit: place.limit(),
            limit_note: match limit_now {
                Some(now) if now > top => format!("limit {}: above this chart", unit.words(now)),
                Some(now) => format!("limit {}", unit.words(now)),
                None => String::new(),
            },
            marks: figures.marks.iter().map(|(at, kind)| (*kind, place.percent(*at))).collect(),
            unit: unit.name(),
            since: figures.since,
            until: figures.until,
            values: values(figures),
            limits: listed(&figures.limit, figures.since),
        }
    }
}

/// How figures become places.
struct Place<'a> {
    figures: &'a Figures,
    top: u64,
}

impl Place<'_> {
    fn share(&self, at: i64) -> f64 {
        let all = (self.figures.until - self.figures.since).max(1);
        let passed = (at - self.figures.since).clamp(0, all);
        ratio(passed.unsigned_abs(), all.unsigned_abs())
    }

    fn x(&self, at: i64) -> f64 {
        self.share(at) * ratio(WIDTH.unsigned_abs(), 1)
    }

    fn y(&self, value: u64) -> f64 {
        HEIGHT - ratio(value.min(self.top), self.top.max(1)) * (HEIGHT - HEAD)
    }

    fn percent(&self, at: i64) -> String {
        format!("{:.2}%", self.share(at) * HEIGHT)
    }

    /// Figures without a gap between them, as one piece each.
    fn pieces<'p>(
        &self,
        points: &'p [(i64, u64)],
    ) -> impl Iterator<Item = &'p [(i64, u64)]> + use<'p> {
        let apart = self.figures.step * GAP_STEPS;
        points.chunk_by(move |(a, _), (b, _)| b - a < apart)
    }

    fn line(&self, points: &[(i64, u64)]) -> String {
        let mut path = String::new();
        for piece in self.pieces(points) {
            let mut letter = 'M';
            for (at, value) in piece {
                push(&mut path, letter, self.x(*at), self.y(*value));
                letter = 'L';
            }
            if piece.len() == 1 {
                // One figure alone is a dot: a line's round end.
                path.push_str("h0.1");
            }
        }
        path
    }

    fn area(&self, points: &[(i64, u64)]) -> String {
        let mut path = String::new();
        for piece in self.pieces(points).filter(|piece| piece.len() > 1) {
            let (Some((first, _)), Some((last, _))) = (piece.first(), piece.last()) else {
                continue;
            };
            push(&mut path, 'M', self.x(*first), HEIGHT);
            for (at, value) in piece {
                push(&mut path, 'L', self.x(*at), self.y(*value));
            }
            push(&mut path, 'L', self.x(*last), HEIGHT);
            path.push('Z');
        }
        path
    }

    /// A stair; what lies above the chart is left out.
    fn limit(&self) -> String {
        let mut path = String::new();
        let ends = self.figures.limit.iter().skip(1).map(|(at, _)| *at);
        let ends = ends.chain(std::iter::once(self.figures.until));
        let mut before: Option<f64> = None;
        for ((from, value), end) in self.figures.limit.iter().zip(ends) {
            if *value > self.top {
                before = None;
                continue;
            }
            let y = self.y(*value);
            let letter = if before.is_some() { 'L' } else { 'M' };
            push(&mut path, letter, self.x(*from), y);
            push(&mut path, 'L', self.x(end), y);
            before = Some(y);
        }
        path
    }
}

fn push(path: &mut String, letter: char, x: f64, y: f64) {
    let _unfailing = write!(path, "{letter}{x:.1} {y:.1}");
}

/// Both are counts far below 2^52, or the digits lost are no pixel.
#[expect(clippy::cast_precision_loss, reason = "a place in a drawing has four digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn now<'a>(
    unit: Unit,
    newest: impl Iterator<Item = (&'static str, Option<&'a (i64, u64)>)>,
    limit: Option<u64>,
) -> String {
    let words: Vec<String> = newest
        .filter_map(|(name, newest)| {
            let (_, value) = newest?;
            let value = unit.words(*value);
            Some(if name.is_empty() { value } else { format!("{name} {value}") })
        })
        .collect();
    match (words.is_empty(), limit) {
        (true, _) => String::new(),
        (false, Some(limit)) => format!("{} of {}", words.join(", "), unit.words(limit)),
        (false, None) => words.join(", "),
    }
}

fn summary(figures: &Figures, peak: u64) -> String {
    let count = figures.lines.first().map_or(0, |(_, points)| points.len());
    if count == 0 {
        return format!("{}: no figures", figures.title);
    }
    format!("{}: highest {}, {count} figures", figures.title, figures.unit.words(peak))
}

/// `seconds:value` from the first moment on, lines divided by `|`.
fn values(figures: &Figures) -> String {
    let lines: Vec<String> = figures
        .lines
        .iter()
        .map(|(name, points)| format!("{name}={}", listed(points, figures.since)))
        .collect();
    lines.join("|")
}

fn listed(points: &[(i64, u64)], since: i64) -> String {
    let mut out = String::new();
    for (at, value) in points {
        let separator = if out.is_empty() { "" } else { " " };
        let _unfailing = write!(out, "{separator}{}:{value}", (at - since) / 1000);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(points: Vec<(i64, u64)>, limit: Vec<(i64, u64)>) -> Figures {
        Figures {
            unit: Unit::Bytes,
            until: 100_000,
            step: 10_000,
            lines: vec![("", points)],
            limit,
            marks: vec![(50_000, MarkKind::OutOfMemory)],
            ..Figures::default()
        }
    }

    #[test]
    fn gaps_stay_gaps() {
        let mib = 1 << 20;
        let points = vec![(0, 0), (10_000, mib), (60_000, mib), (100_000, mib)];
        let chart = Chart::draw(&figures(points, vec![]));
        let (_, line, area) = &chart.lines[0];
        assert_eq!(line, "M0.0 100.0L100.0 4.0M600.0 4.0h0.1M1000.0 4.0h0.1");
        assert_eq!(area, "M0.0 100.0L0.0 100.0L100.0 4.0L100.0 100.0Z");
        assert_eq!(chart.marks, [(MarkKind::OutOfMemory, "50.00%".to_owned())]);
        assert_eq!(chart.values, "=0:0 10:1048576 60:1048576 100:1048576");
    }

    #[test]
    fn the_limit_is_a_stair_and_may_lie_above() {
        let mib = 1 << 20;
        let near = Chart::draw(&figures(
            vec![(0, 30 * mib), (10_000, 60 * mib)],
            vec![(0, 64 * mib), (50_000, 32 * mib)],
        ));
        assert_eq!(near.limit, "M0.0 4.0L500.0 4.0L500.0 52.0L1000.0 52.0");
        assert_eq!(near.limit_note, "limit 32 MiB");
        assert_eq!(near.scale[0], "64 MiB");
        let far = Chart::draw(&figures(vec![(0, 3 * mib)], vec![(0, 8192 * mib)]));
        assert_eq!((far.limit.as_str(), far.scale[0].as_str()), ("", "3 MiB"));
        assert_eq!(far.limit_note, "limit 8 GiB: above this chart");
        assert_eq!(far.now, "3 MiB of 8 GiB");
        let none = Chart::draw(&Figures::default());
        assert_eq!((none.now.as_str(), none.limit.as_str()), ("", ""));
    }

    #[test]
    fn scales_are_round() {
        for (unit, value, round) in [
            (Unit::Cores, 0, 60),
            (Unit::Cores, 420, 600),
            (Unit::Cores, 1900, 2000),
            (Unit::Count, 3, 4),
            (Unit::Count, 11, 20),
            (Unit::Bytes, 70 << 20, 96 << 20),
            (Unit::Bytes, 100 << 20, 128 << 20),
            (Unit::Rate, 1, 4 << 10),
        ] {
            assert_eq!(unit.round_up(value), round, "{unit:?} {value}");
        }
        assert!(Unit::Count.round_up(u64::MAX) == u64::MAX);
    }
}
