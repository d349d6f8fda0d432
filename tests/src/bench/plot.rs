//! Pictures of what was measured, as SVG.

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Budget, Row, System};
use crate::{Failure, Outcome};

/// A part of a picture.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels.
const WIDTH: u32 = 1000;
/// Of a bar, in pixels.
const BAR: u32 = 9;
/// What stands around the bars above and below.
const AROUND: u32 = 110;
/// What a row's name takes.
const NAMES: u32 = 420;
const TEXT: (&str, i32) = ("sans-serif", 13);
const HEAD: (&str, i32) = ("sans-serif", 18);
/// How much further than the longest bar the axis goes, for the legend.
const ROOM: f64 = 10.0;
/// Of a histogram, in pixels.
const PANEL: u32 = 230;
/// The least part of all that is shown, in percent: one of 10,000 stands above it.
const LEAST: f64 = 0.005;

/// Colours that are told apart by those who see few, too (Okabe and Ito).
fn colour(system: System) -> RGBColor {
    match system {
        System::Hanok => RGBColor(0, 114, 178),
        System::Xen => RGBColor(230, 159, 0),
        System::Kvm => RGBColor(0, 158, 115),
        System::Native => RGBColor(120, 120, 120),
    }
}

/// The medians of systems beside each other, on GICv3: for each row that one of Hanok's peers has too, a bar for each system. The axis of
/// instructions is logarithmic.
///
/// # Errors
/// When there is nothing to draw.
pub fn costs(budget: &Budget, rows: &[Row], systems: &[(System, String)]) -> Outcome<String> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.gic == 3).collect();
    let of = |name: &str, system| rows.iter().find(|row| row.row == name && row.system == system);
    let has_peer =
        |row: &&&Row| rows.iter().any(|other| other.row == row.row && other.system != System::Hanok);
    let own = rows.iter().filter(|row| row.system == System::Hanok).filter(has_peer);
    let names: Vec<&str> = own.map(|row| row.row.as_str()).collect();
    let drawn_rows = rows.iter().filter(|row| names.contains(&row.row.as_str()));
    let most = drawn_rows.map(|row| row.median).max();
    let most = most.ok_or_else(|| Failure::Wrong("there is nothing to draw".to_owned()))?;

    let group = BAR * (systems.len() as u32 + 1);
    let height = group * names.len() as u32 + AROUND;
    drawn((WIDTH, height), |area| {
        let area = area.titled("What it costs, in instructions, on GICv3 (medians)", HEAD)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(40)
            .y_label_area_size(NAMES)
            .build_cartesian_2d((1.0..most as f64 * ROOM).log_scale(), 0..height - AROUND)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .x_label_formatter(&|x| thousands(*x as u64))
            .label_style(TEXT)
            .x_desc("instructions, logarithmic")
            .draw()?;
        let name_style = TEXT.into_text_style(&area).pos(Pos::new(HPos::Right, VPos::Center));
        for (n, name) in (0..).zip(&names) {
            let top = height - AROUND - n * group;
            let about = budget.row(name).map_or(*name, |limits| limits.about.as_str());
            let middle = top - group / 2;
            let label =
                EmptyElement::at((1.0, middle)) + Text::new(about.to_owned(), (-8, 0), name_style.clone());
            chart.draw_series([label])?;
        }
        for (place, (system, called)) in (0..).zip(systems) {
            let bars = (0..).zip(&names).filter_map(|(n, name)| {
                let top = height - AROUND - n * group - BAR / 2 - place * BAR;
                let median = of(name, *system)?.median.max(1) as f64;
                Some(Rectangle::new([(1.0, top), (median * 1.03, top - BAR + 1)], colour(*system).filled()))
            });
            let colour = colour(*system);
            chart
                .draw_series(bars)?
                .label(called)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(200, 200, 200))
            .label_font(TEXT)
            .draw()?;
        Ok(())
    })
}

/// How late the timer's interrupts come, on GICv3, while a guest spins: of each system a panel, what part of the interrupts took how many
/// instructions.
///
/// # Errors
/// When one has no histogram.
pub fn latency(rows: &[Row], row: &str, systems: &[(System, String)]) -> Outcome<String> {
    let mut all = Vec::new();
    for (system, called) in systems {
        let found = rows.iter().find(|other| other.gic == 3 && other.row == row && other.system == *system);
        let buckets = found.map(|row| &row.histogram).filter(|buckets| !buckets.is_empty());
        let buckets = buckets.ok_or_else(|| Failure::Wrong(format!("{called} has no histogram of {row}")))?;
        all.push((*system, called, buckets));
    }
    let most = all.iter().flat_map(|(_, _, buckets)| buckets.iter().map(|bucket| bucket.below)).max();
    let most = most.unwrap_or(1) as f64 * 1.3;
    drawn((WIDTH, PANEL * all.len() as u32 + 40), |area| {
        let title = "From the virtual timer's deadline to the handler's first instruction, GICv3";
        let area = area.titled(title, HEAD)?;
        for (panel, (system, called, buckets)) in area.split_evenly((all.len(), 1)).iter().zip(&all) {
            let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
            let part = |n: u64| n as f64 * 100.0 / count as f64;
            let mut chart = ChartBuilder::on(panel)
                .margin(8)
                .margin_right(30)
                .caption(format!("{called}: {count} interrupts"), TEXT)
                .x_label_area_size(36)
                .y_label_area_size(60)
                .build_cartesian_2d((1.0..most).log_scale(), (LEAST..150.0).log_scale())?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_label_formatter(&|x| thousands(*x as u64))
                .y_label_formatter(&|y| format!("{y} %"))
                .label_style(TEXT)
                .x_desc("instructions, logarithmic")
                .y_desc("of all, logarithmic")
                .draw()?;
            chart.draw_series(buckets.iter().map(|bucket| {
                let (from, below) = (bucket.from.max(1) as f64, bucket.below.max(2) as f64);
                Rectangle::new([(from, LEAST), (below, part(bucket.count))], colour(*system).filled())
            }))?;
        }
        Ok(())
    })
}

/// A picture of this size, white where nothing else is.
fn drawn(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Outcome<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    let wrong = |why: &dyn Display| Failure::Wrong(format!("draw a picture: {why}"));
    area.fill(&WHITE).map_err(|why| wrong(&why))?;
    draw(&area).map_err(|why| wrong(&why))?;
    area.present().map_err(|why| wrong(&why))?;
    drop(area);
    Ok(text)
}

/// A number of the axis, which are powers of ten.
fn thousands(number: u64) -> String {
    match number {
        1_000_000.. if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        1000.. if number.is_multiple_of(1000) => format!("{}k", number / 1000),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bucket;

    fn row(system: System, name: &str, median: u64) -> Row {
        let histogram = vec![Bucket { from: median, below: median + 8, count: 1 }];
        Row {
            system,
            row: name.to_owned(),
            gic: 3,
            rounds: 1,
            min: median,
            median,
            p99: median,
            max: median,
            histogram,
        }
    }

    fn systems() -> [(System, String); 2] {
        [(System::Hanok, "Hanok".to_owned()), (System::Xen, "Xen <4>".to_owned())]
    }

    /// How many filled rectangles of this colour there are.
    fn bars(picture: &str, system: System) -> usize {
        let RGBColor(red, green, blue) = colour(system);
        picture.matches(&format!("fill=\"#{red:02X}{green:02X}{blue:02X}\"")).count()
    }

    #[test]
    fn each_row_that_a_peer_has_too_has_its_bars() {
        let rows = [
            row(System::Hanok, "empty", 2),
            row(System::Hanok, "own", 3),
            row(System::Hanok, "gicd-typer", 150),
            row(System::Xen, "empty", 2),
            row(System::Xen, "gicd-typer", 600),
        ];
        let budget = Budget::load().expect("it is read");
        let picture = costs(&budget, &rows, &systems()).expect("it is drawn");
        for name in ["empty", "gicd-typer"] {
            let about = &budget.row(name).expect("it is there").about;
            assert!(picture.contains(about.as_str()), "{about}: {picture}");
        }
        // And one in the legend.
        assert_eq!((bars(&picture, System::Hanok), bars(&picture, System::Xen)), (3, 3));
        assert!(picture.contains("Xen &lt;4&gt;"));
        assert!(!picture.contains("own"));
        assert_eq!(costs(&budget, &rows, &systems()).expect("again"), picture);
        assert!(costs(&budget, &rows[..3], &systems()).is_err(), "no peer");
    }

    #[test]
    fn each_class_of_a_histogram_has_a_bar() {
        let mut rows = [row(System::Hanok, "late", 164), row(System::Xen, "late", 1085)];
        rows[1].histogram.push(Bucket { from: 2048, below: 2304, count: 3 });
        let picture = latency(&rows, "late", &systems()).expect("it is drawn");
        assert_eq!((bars(&picture, System::Hanok), bars(&picture, System::Xen)), (1, 2));
        assert!(picture.contains("Xen &lt;4&gt;: 4 interrupts"));
        rows[1].histogram.clear();
        let failure = latency(&rows, "late", &systems()).expect_err("one has none");
        assert_eq!(failure.to_string(), "Xen <4> has no histogram of late");
    }
}
