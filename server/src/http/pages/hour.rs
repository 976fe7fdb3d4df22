//! A container's last hour as charts.

use berth_web::charts::{Chart, Charts, FigureRow, Figures, MarkKind, MarkRow, Unit};
use berth_web::format::Moment;

use crate::service::containers::history::{self, HistoryView, LimitsFrom, PointView};
use crate::service::containers::view::LimitsView;

/// Marks told in words at most.
const MARKS_SHOWN: usize = 12;
/// The table has a line for each of these.
const ROW_SECS: i64 = 60;

/// The charts of `view`.
pub(super) fn charts(view: &HistoryView) -> Charts {
    let now = view.until.0;
    let csv = format!("/api/v1/containers/{}/stats/history?format=csv", view.id);
    let marks = view.marks.iter().rev().map(|mark| MarkRow {
        kind: kind(mark.kind),
        at: Moment::new(mark.time.0, now),
        text: mark.text.clone(),
    });
    Charts {
        charts: if view.points.is_empty() { Vec::new() } else { drawn(view) },
        axis: ["60 min ago", "45", "30", "15", "now"].map(str::to_owned).into(),
        marks: marks.take(MARKS_SHOWN).collect(),
        more_marks: view.marks.len().saturating_sub(MARKS_SHOWN),
        columns: vec!["Processor", "Memory", "Processes", "Read", "Written"],
        rows: rows(&view.points, now),
        csv,
    }
}

fn drawn(view: &HistoryView) -> Vec<Chart> {
    let marks: Vec<_> = view.marks.iter().map(|mark| (mark.time.0, kind(mark.kind))).collect();
    let line = |of: fn(&PointView) -> u64| -> Vec<(i64, u64)> {
        view.points.iter().map(|point| (point.time.0, of(point))).collect()
    };
    let limit = |of: fn(&LimitsView) -> u64| -> Vec<(i64, u64)> {
        view.limits.iter().map(|LimitsFrom { from, limits }| (from.0, of(limits))).collect()
    };
    let figures = |key, title, unit, lines, limit| Figures {
        key,
        title,
        unit,
        since: view.since.0,
        until: view.until.0,
        step: i64::from(view.step_secs) * 1000,
        lines,
        limit,
        marks: marks.clone(),
    };
    let all = [
        figures(
            "cpu",
            "Processor",
            Unit::Cores,
            vec![("", line(|point| point.cpu_millis.into()))],
            limit(|limits| limits.cpu_millis.into()),
        ),
        figures(
            "memory",
            "Memory",
            Unit::Bytes,
            vec![
                ("all", line(|point| point.memory_used_bytes)),
                ("without file cache", line(|point| point.memory_working_set_bytes)),
            ],
            limit(|limits| limits.memory_bytes),
        ),
        figures(
            "pids",
            "Processes",
            Unit::Count,
            vec![("", line(|point| point.pids.into()))],
            limit(|limits| limits.pids.into()),
        ),
        figures(
            "disk",
            "Disk traffic",
            Unit::Rate,
            vec![
                ("read", line(|point| point.read_bytes_per_sec)),
                ("written", line(|point| point.write_bytes_per_sec)),
            ],
            Vec::new(),
        ),
    ];
    all.iter().map(Chart::draw).collect()
}

fn kind(kind: history::MarkKind) -> MarkKind {
    match kind {
        history::MarkKind::Start => MarkKind::Start,
        history::MarkKind::End => MarkKind::End,
        history::MarkKind::OutOfMemory => MarkKind::OutOfMemory,
        history::MarkKind::Limits => MarkKind::Limits,
    }
}

/// The last figures of each minute, newest first.
fn rows(points: &[PointView], now: i64) -> Vec<FigureRow> {
    let minute = |point: &PointView| point.time.secs().div_euclid(ROW_SECS);
    let last = points.chunk_by(|a, b| minute(a) == minute(b)).filter_map(<[PointView]>::last);
    let row = |point: &PointView| FigureRow {
        at: Moment::new(point.time.0, now),
        cells: vec![
            Unit::Cores.words(point.cpu_millis.into()),
            Unit::Bytes.words(point.memory_used_bytes),
            Unit::Count.words(point.pids.into()),
            Unit::Rate.words(point.read_bytes_per_sec),
            Unit::Rate.words(point.write_bytes_per_sec),
        ],
    };
    last.rev().map(row).collect()
}
