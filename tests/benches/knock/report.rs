//! What was measured, as a page of Markdown and two pictures.

use crate::stats::{Samples, time};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The page as it grows. Every line is printed too, as it comes.
#[derive(Default)]
pub struct Report {
    text: String,
}

impl Report {
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        let _ = writeln!(self.text, "{line}");
    }

    pub fn section(&mut self, title: &str, head: &[&str]) {
        self.line("");
        self.line(&format!("## {title}"));
        self.line("");
        self.row(head);
        self.row(&vec!["---"; head.len()]);
    }

    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    /// A row of times: median, p95, p99, the slowest, and how many never came.
    pub fn times(&mut self, what: &str, samples: &Samples, more: &str) {
        let mut cells = vec![what.to_owned()];
        // Of a few, what only a few exceed is the slowest.
        cells.extend([50, 95, 99, 100].map(|percent| match percent {
            95 if samples.len() < 20 => "-".to_owned(),
            99 if samples.len() < 100 => "-".to_owned(),
            percent => time(samples.percentile(percent)),
        }));
        cells.push(format!("{} of {}", samples.failed, samples.len()));
        cells.push(more.to_owned());
        self.row(&cells);
    }

    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("table.md"), &self.text).unwrap();
    }
}

/// What a program says of itself, its first line.
pub fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output
        .map(|o| [o.stdout, o.stderr].concat())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next().unwrap_or("not there").trim().to_owned()
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#2e8b57", "#c0392b", "#8e6c00"];

/// A picture of curves; x on a logarithmic axis, y on a linear one or not.
pub struct Picture {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// One side of a picture.
pub struct Axis {
    pub name: &'static str,
    pub from: f64,
    pub to: f64,
    pub is_log: bool,
    pub marks: Vec<(f64, &'static str)>,
}

impl Axis {
    /// Between 0 and 1.
    fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        if self.is_log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

impl Picture {
    pub fn write(&self, path: &Path) {
        let x = |value: f64| MARGIN + self.x.place(value) * (WIDTH - 2.0 * MARGIN);
        let y = |value: f64| HEIGHT - MARGIN - self.y.place(value) * (HEIGHT - 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut text = |at: (f64, f64), anchor: &str, text: &str| {
            let (x, y) = at;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{text}</text>"
            );
        };
        text((WIDTH / 2.0, 24.0), "middle", self.title);
        text((WIDTH / 2.0, HEIGHT - 12.0), "middle", self.x.name);
        text((8.0, 44.0), "start", self.y.name);
        for (value, name) in &self.x.marks {
            text((x(*value), HEIGHT - MARGIN + 18.0), "middle", name);
        }
        for (value, name) in &self.y.marks {
            text((MARGIN - 6.0, y(*value) + 4.0), "end", name);
        }
        for (number, (name, _)) in self.curves.iter().enumerate() {
            let down = f64::from(u32::try_from(number).unwrap()) * 16.0;
            text(
                (WIDTH - MARGIN + 4.0 - 150.0, MARGIN + 4.0 + down),
                "start",
                name,
            );
        }
        let (left, right, top, bottom) = (MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN);
        let mut line = |from, to, colour| svg.push_str(&segment(from, to, colour));
        line((left, bottom), (right, bottom), "black");
        line((left, bottom), (left, top), "black");
        for (value, _) in &self.x.marks {
            line((x(*value), bottom), (x(*value), top), "#dddddd");
        }
        for (value, _) in &self.y.marks {
            line((left, y(*value)), (right, y(*value)), "#dddddd");
        }
        for (number, (_, points)) in self.curves.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let at = MARGIN + f64::from(u32::try_from(number).unwrap()) * 16.0;
            svg.push_str(&segment((right - 170.0, at), (right - 152.0, at), colour));
            let points = points
                .iter()
                .map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b)));
            let points = points.collect::<Vec<_>>().join(" ");
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
        }
        svg.push_str("</svg>\n");
        std::fs::write(path, svg).unwrap();
    }
}

fn segment(from: (f64, f64), to: (f64, f64), colour: &str) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>\n"
    )
}
