//! The map as a picture: a panel for each thing that may break, a column for each drift, a row for each pause.

use std::fmt::Write as _;

use super::{Cell, percent};

const LEFT: usize = 120;
const TOP: usize = 74;
const WIDE: usize = 50;
const HIGH: usize = 26;
const PANEL_GAP: usize = 46;

/// A panel: its heading, and in how many runs of a cell it happened.
type Panel = (&'static str, fn(&Cell) -> usize);

const PANELS: [Panel; 3] = [
    ("Checks that expire early", |cell| cell.early),
    ("Checks that expire late", |cell| cell.late),
    ("Linearizable answers that are stale, and anything else", |cell| {
        cell.stale.max(cell.other)
    }),
];

const STYLE: &str = "
  svg { background: #fff; font: 12px system-ui, sans-serif; }
  text { fill: #1c2430; } .faint { fill: #6a7686; } .head { font-weight: 600; font-size: 13px; } .title { font-weight: 600; font-size: 15px; }
  .sound { fill: #e3f0e9; } .broken { fill: #c81e3a; } .grid { stroke: #fff; stroke-width: 2; }
  .promised { fill: none; stroke: #11734a; stroke-width: 2; } .word { fill: #11734a; font-weight: 600; }
  .over { fill: #fff; }
  @media (prefers-color-scheme: dark) {
    svg { background: #12161d; } text { fill: #e4e9f1; } .faint { fill: #93a0b2; } .sound { fill: #1d3328; }
    .broken { fill: #e0455f; } .grid { stroke: #12161d; } .promised { stroke: #58d39b; } .word { fill: #58d39b; } .over { fill: #fff; }
  }";

macro_rules! say {
    ($text:expr, $($arg:tt)*) => {
        writeln!($text, $($arg)*).expect("writing to a String can't fail")
    };
}

/// An SVG of these cells, in light and dark.
pub fn picture(cells: &[Cell]) -> String {
    let mut pauses: Vec<u64> = cells.iter().map(|cell| cell.pause_ms).collect();
    pauses.dedup();
    let mut drifts: Vec<i32> = cells.iter().map(|cell| cell.drift_ppm).collect();
    drifts.sort_unstable();
    drifts.dedup();
    let panel_high = pauses.len() * HIGH + PANEL_GAP;
    let width = (LEFT + drifts.len() * WIDE + 30).max(640);
    let height = TOP + PANELS.len() * panel_high + 40;
    let mut text = String::new();
    say!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">"#
    );
    say!(
        text,
        "<title>What breaks when clocks run wrong</title>\n<style>{STYLE}</style>"
    );
    say!(
        text,
        r#"<text class="title" x="20" y="26">What breaks when clocks run wrong</text>"#
    );
    let runs = cells.first().map_or(0, |cell| cell.runs);
    say!(
        text,
        r#"<text class="faint" x="20" y="45">Across: how much too fast the leader's clock runs, and too slow all others'. Down: how long the leader stands still.</text>"#
    );
    say!(
        text,
        r#"<text class="faint" x="20" y="61">A number is in how many of {runs} runs the judges found it.</text>"#
    );
    for (nth, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut text, cells, panel, TOP + nth * panel_high, &drifts, &pauses);
    }
    let y = height - 34;
    for (column, drift) in drifts.iter().enumerate() {
        let x = LEFT + column * WIDE + WIDE / 2;
        say!(
            text,
            r#"<text class="faint" x="{x}" y="{y}" text-anchor="middle">{}</text>"#,
            percent(*drift).replace(" %", "%")
        );
    }
    say!(
        text,
        r#"<text class="faint" x="{LEFT}" y="{}">drift of the leader's clock</text>"#,
        height - 14
    );
    text + "</svg>\n"
}

fn draw_panel(
    text: &mut String,
    cells: &[Cell],
    (heading, count): &Panel,
    top: usize,
    drifts: &[i32],
    pauses: &[u64],
) {
    say!(
        text,
        r#"<text class="head" x="20" y="{}">{heading}</text>"#,
        top + 20
    );
    let grid = top + 30;
    for cell in cells {
        let column = drifts
            .iter()
            .position(|drift| *drift == cell.drift_ppm)
            .unwrap_or(0);
        let row = pauses
            .iter()
            .position(|pause| *pause == cell.pause_ms)
            .unwrap_or(0);
        let (x, y) = (LEFT + column * WIDE, grid + row * HIGH);
        say!(
            text,
            r#"<rect class="sound grid" x="{x}" y="{y}" width="{WIDE}" height="{HIGH}"/>"#
        );
        let found = count(cell);
        if found > 0 {
            let share = 0.35 + 0.65 * found as f64 / cell.runs.max(1) as f64;
            say!(
                text,
                r#"<rect class="broken grid" fill-opacity="{share:.2}" x="{x}" y="{y}" width="{WIDE}" height="{HIGH}"/>"#
            );
            let (x, y) = (x + WIDE / 2, y + HIGH / 2 + 4);
            say!(
                text,
                r#"<text class="over" x="{x}" y="{y}" text-anchor="middle">{found}</text>"#
            );
        }
    }
    for (row, pause) in pauses.iter().enumerate() {
        let y = grid + row * HIGH + HIGH / 2 + 4;
        let label = match pause {
            0 => "no pause".to_owned(),
            pause => format!("{} s", *pause as f64 / 1_000.0),
        };
        say!(
            text,
            r#"<text class="faint" x="{}" y="{y}" text-anchor="end">{label}</text>"#,
            LEFT - 10
        );
    }
    let promised = |drift: &&i32| {
        cells
            .iter()
            .any(|cell| cell.drift_ppm == **drift && cell.is_promised())
    };
    let first = drifts.iter().position(|drift| promised(&drift));
    if let Some(first) = first {
        let columns = drifts.iter().filter(promised).count();
        let (x, wide, high) = (LEFT + first * WIDE, columns * WIDE, pauses.len() * HIGH);
        say!(
            text,
            r#"<rect class="promised" x="{x}" y="{grid}" width="{wide}" height="{high}"/>"#
        );
        say!(
            text,
            r#"<text class="word" x="{}" y="{}" text-anchor="middle">promised</text>"#,
            x + wide / 2,
            grid - 5
        );
    }
}
