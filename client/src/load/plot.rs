//! Draws latency percentiles over time or over the rate, as PNG or SVG.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, ChartBuilder, Color, DrawingArea, DrawingAreaErrorKind, DrawingBackend, FontStyle, IntoDrawingArea,
    IntoLogRange, LineSeries, PathElement, RGBColor, SVGBackend, TextStyle, WHITE,
};
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Latency;
use crate::limits::{LOAD_PLOT_LINES_MAX, LOAD_PLOT_POINTS_MAX, LOAD_RATE_MAX};

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
/// Bytes of the picture before it is compressed: three for a pixel.
const PICTURE_BYTES: usize = 3 * WIDTH as usize * HEIGHT as usize;
const MARGIN: i32 = 12;
const TITLE_SIZE: i32 = 24;
const TEXT_SIZE: i32 = 16;
/// Where the legend begins, within the margins.
const LEGEND_FROM: i32 = 1150;
const LEGEND_ROW: i32 = 26;
const DOT_SIZE: u32 = 3;
/// Up to so many points each has a dot, and lines are thick. More dots would hide their lines; and a thick line is
/// filled as one polygon, which leaves holes where it turns back within a few pixels.
const DOTS_MAX: usize = 60;
/// The largest place on the axis: a rate past it is refused, and so many seconds are 30 years.
const PLACE_MAX: f64 = LOAD_RATE_MAX;
/// The longest latency that is told from longer ones: 1,000 s, beyond all that is measured.
const LATENCY_US_MAX: u32 = 999_999_999;
/// Servers have no fonts, so that one is part of the program; SVG leaves the choice to who shows it.
const FONT: &str = "sans-serif";

/// The latencies of some messages: of one second, or at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Seconds since the start, or messages a second.
    pub x: f64,
    /// Half of all are at most this, in microseconds.
    pub p50_us: u64,
    /// Nine in ten are at most this, in microseconds.
    pub p90_us: u64,
    /// 99 % are at most this, in microseconds.
    pub p99_us: u64,
    /// 99.9 % are at most this, in microseconds.
    pub p999_us: u64,
    /// The longest, in microseconds; 0 where nothing was measured.
    pub max_us: u64,
}

impl Point {
    /// What was measured at a time or a rate.
    #[must_use]
    pub fn new(x: f64, latency: &Latency) -> Self {
        Self {
            x,
            p50_us: latency.p50,
            p90_us: latency.p90,
            p99_us: latency.p99,
            p999_us: latency.p999,
            max_us: latency.max,
        }
    }

    /// Each percentile the longer one of both.
    fn worse(self, other: Self) -> Self {
        Self {
            x: self.x,
            p50_us: self.p50_us.max(other.p50_us),
            p90_us: self.p90_us.max(other.p90_us),
            p99_us: self.p99_us.max(other.p99_us),
            p999_us: self.p999_us.max(other.p999_us),
            max_us: self.max_us.max(other.max_us),
        }
    }

    fn is_empty(&self) -> bool {
        self.max_us == 0
    }
}

/// What latencies are drawn over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Seconds since the start.
    Time,
    /// Messages a second.
    Rate,
}

impl Over {
    fn axis(self) -> &'static str {
        match self {
            Self::Time => "time since the start, s",
            Self::Rate => "rate, messages/s",
        }
    }
}

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// A name that tells no format.
    #[error("a plot is a PNG or an SVG: let its name end in .png or .svg, as in latency.svg")]
    Ending,
    /// The directory is not there.
    #[error("there is no directory {} for the plot; make it first", .0.display())]
    Directory(PathBuf),
    /// No message arrived.
    #[error("there is nothing to plot: no message arrived while it was measured; measure longer")]
    Nothing,
    /// A point beyond the axis.
    #[error("a point lies at {0}: a plot goes from 0 to {PLACE_MAX}")]
    Place(f64),
    /// A mistake of ours.
    #[error("cannot draw the plot: {0}")]
    Draw(String),
    /// The disk.
    #[error("cannot write the plot {}: {error}", .path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
}

/// Where a plot goes, and so in which format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlotFile {
    path: PathBuf,
    format: Format,
}

impl FromStr for PlotFile {
    type Err = PlotError;

    /// Looks whether the directory is there, so that a load is not made in vain.
    fn from_str(text: &str) -> Result<Self, PlotError> {
        let path = PathBuf::from(text);
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        let format = match ending.as_deref() {
            Some("png") => Format::Png,
            Some("svg") => Format::Svg,
            _ => return Err(PlotError::Ending),
        };
        let directory = directory(&path);
        if directory.is_dir() { Ok(Self { path, format }) } else { Err(PlotError::Directory(directory.to_owned())) }
    }
}

impl PlotFile {
    /// Where the plot goes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Draws the percentiles of `points`, in whatever order they come, on a logarithmic scale. The first line of
    /// `title` is the heading, the others are details. The file is there whole or not at all; one of that name is
    /// replaced.
    ///
    /// # Errors
    /// There is nothing to draw, a point lies beyond the axis, or the file cannot be written.
    pub fn draw(&self, title: &str, over: Over, points: &[Point]) -> Result<(), PlotError> {
        let points = drawn(points)?;
        // Fonts belong to the process: naming it again for each plot costs nothing and leaves no order to keep.
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
            .map_err(|_| PlotError::Draw("its font cannot be read".to_owned()))?;
        let bytes = match self.format {
            Format::Png => png(title, over, &points)?,
            Format::Svg => svg(title, over, &points)?.into_bytes(),
        };
        write(&self.path, &bytes).map_err(|error| PlotError::Write { path: self.path.clone(), error })
    }
}

/// What is drawn of all points: no more than can be told apart, of neighbours the worst of each percentile.
fn drawn(points: &[Point]) -> Result<Vec<Point>, PlotError> {
    if let Some(point) = points.iter().find(|point| !(0.0..=PLACE_MAX).contains(&point.x)) {
        return Err(PlotError::Place(point.x));
    }
    if points.iter().all(Point::is_empty) {
        return Err(PlotError::Nothing);
    }
    let mut points = points.to_vec();
    points.sort_by(|one, other| one.x.total_cmp(&other.x));
    let together = points.len().div_ceil(LOAD_PLOT_POINTS_MAX);
    Ok(points.chunks(together).filter_map(|near| near.iter().copied().reduce(Point::worse)).collect())
}

fn png(title: &str, over: Over, points: &[Point]) -> Result<Vec<u8>, PlotError> {
    let mut picture = vec![0_u8; PICTURE_BYTES];
    let backend = BitMapBackend::with_buffer(&mut picture, (WIDTH, HEIGHT));
    chart(backend, title, over, points).map_err(|error| PlotError::Draw(error.to_string()))?;
    compressed(&picture).map_err(|error| PlotError::Draw(error.to_string()))
}

fn compressed(picture: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture)?;
    writer.finish()?;
    Ok(bytes)
}

fn svg(title: &str, over: Over, points: &[Point]) -> Result<String, PlotError> {
    let mut text = String::new();
    let backend = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT));
    chart(backend, title, over, points).map_err(|error| PlotError::Draw(error.to_string()))?;
    Ok(text)
}

struct Series {
    name: &'static str,
    /// Okabe and Ito's, which are told apart by everybody.
    color: RGBColor,
    of: fn(&Point) -> u64,
}

/// From the top of the picture down.
const SERIES: [Series; 5] = [
    Series { name: "max", color: RGBColor(120, 120, 120), of: |point| point.max_us },
    Series { name: "p99.9", color: RGBColor(213, 94, 0), of: |point| point.p999_us },
    Series { name: "p99", color: RGBColor(230, 159, 0), of: |point| point.p99_us },
    Series { name: "p90", color: RGBColor(0, 158, 115), of: |point| point.p90_us },
    Series { name: "p50", color: RGBColor(0, 114, 178), of: |point| point.p50_us },
];

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

fn chart<DB: DrawingBackend>(backend: DB, title: &str, over: Over, points: &[Point]) -> Drawn<DB>
where
    DB::ErrorType: 'static,
{
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    let mut body = root.margin(MARGIN, MARGIN, MARGIN, MARGIN);
    for (row, line) in title.lines().take(LOAD_PLOT_LINES_MAX).enumerate() {
        body = body.titled(line, text(if row == 0 { TITLE_SIZE } else { TEXT_SIZE }))?;
    }
    let (plot, beside) = body.split_horizontally(LEGEND_FROM);
    legend(&beside)?;
    lines(&plot, over, points)?;
    root.present()
}

fn text(size: i32) -> TextStyle<'static> {
    TextStyle::from((FONT, size))
}

/// Beside the lines, so that it hides none of them.
fn legend<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>) -> Drawn<DB> {
    let style = text(TEXT_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
    for (series, row) in SERIES.iter().zip(1..) {
        let y = row * LEGEND_ROW;
        area.draw(&PathElement::new(vec![(8, y), (32, y)], series.color.stroke_width(3)))?;
        area.draw_text(series.name, &style, (40, y))?;
    }
    Ok(())
}

fn lines<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, over: Over, points: &[Point]) -> Drawn<DB>
where
    DB::ErrorType: 'static,
{
    let (least, most) = decades(points);
    let until = points.iter().map(|point| point.x).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_top(8)
        .x_label_area_size(56)
        .y_label_area_size(88)
        .build_cartesian_2d(0.0..until, (f64::from(least)..f64::from(most)).log_scale())?;
    chart
        .configure_mesh()
        .label_style(text(TEXT_SIZE))
        .x_desc(over.axis())
        .y_desc("latency")
        .x_label_formatter(&|x: &f64| place(*x))
        .y_label_formatter(&|us: &f64| time(*us))
        .draw()?;
    let (dots, width) = if points.len() <= DOTS_MAX { (DOT_SIZE, 2) } else { (0, 1) };
    for series in &SERIES {
        let style = series.color.stroke_width(width).filled();
        // Where nothing arrived there is no latency, and a line across would tell of one.
        for measured in points.split(Point::is_empty) {
            let line = measured.iter().map(|point| (point.x, f64::from(shown((series.of)(point)))));
            let dots = if measured.len() == 1 { DOT_SIZE } else { dots };
            chart.draw_series(LineSeries::new(line, style).point_size(dots))?;
        }
    }
    Ok(())
}

/// A latency as it is drawn: a logarithm has no zero.
fn shown(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(u32::MAX).clamp(1, LATENCY_US_MAX)
}

/// The powers of ten around all latencies.
fn decades(points: &[Point]) -> (u32, u32) {
    let measured = || points.iter().filter(|point| !point.is_empty());
    let least = measured().map(|point| shown(point.p50_us)).min().unwrap_or(1);
    let most = measured().map(|point| shown(point.max_us)).max().unwrap_or(1);
    (10_u32.pow(least.ilog10()), 10_u32.pow(most.max(least).ilog10() + 1))
}

/// Seconds or a rate beside the axis.
fn place(x: f64) -> String {
    format!("{}", (x * 1_000.0).round() / 1_000.0)
}

/// Microseconds beside the axis, where they are a digit and zeros.
fn time(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.0} µs")
    } else if us < 1e6 {
        format!("{:.0} ms", us / 1e3)
    } else {
        format!("{:.0} s", us / 1e6)
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes beside the file and puts it in its place, with the permissions that any new file gets.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".gureum-plot-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: &str = "pairs, delivery latency\n50 pairs, 256 bytes <opaque>, 30 s";

    fn point(x: f64, us: u64) -> Point {
        Point { x, p50_us: us, p90_us: us * 2, p99_us: us * 5, p999_us: us * 20, max_us: us * 70 }
    }

    fn plot(name: &str, over: Over, points: &[Point]) -> Vec<u8> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(name);
        path.to_str().unwrap().parse::<PlotFile>().unwrap().draw(TITLE, over, points).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside it");
        std::fs::read(path).unwrap()
    }

    fn svg_of(over: Over, points: &[Point]) -> String {
        String::from_utf8(plot("plot.svg", over, points)).unwrap()
    }

    #[track_caller]
    fn holds(svg: &str, text: &str) {
        assert!(svg.contains(&format!(">\n{text}\n</text>")), "{text:?} is not in {svg}");
    }

    #[test]
    fn an_svg_names_what_it_shows() {
        let svg = svg_of(Over::Time, &[point(1.0, 300), point(2.0, 400), point(3.0, 20_000)]);
        for series in &SERIES {
            holds(&svg, series.name);
        }
        holds(&svg, "pairs, delivery latency");
        holds(&svg, "50 pairs, 256 bytes &lt;opaque&gt;, 30 s");
        holds(&svg, "latency");
        holds(&svg, "time since the start, s");
        for label in ["100 µs", "1 ms", "100 ms", "1 s", "10 s"] {
            holds(&svg, label);
        }
        assert!(svg.trim_end().ends_with("</svg>"), "it is whole");
    }

    #[test]
    fn latencies_over_the_rate_have_its_axis() {
        let svg = svg_of(Over::Rate, &[point(1_000.0, 300), point(5_000.0, 400)]);
        holds(&svg, "rate, messages/s");
        holds(&svg, "1000");
    }

    #[test]
    fn a_png_has_its_size_a_title_and_all_lines() {
        let bytes = plot("plot.PNG", Over::Time, &[point(1.0, 300), point(2.0, 400)]);
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut picture = vec![0_u8; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut picture).unwrap();
        assert_eq!((info.width, info.height), (WIDTH, HEIGHT));
        let pixels = picture.as_chunks::<3>().0;
        let top = &pixels[..(40 * WIDTH) as usize];
        assert!(top.iter().any(|[red, green, blue]| *red < 64 && *green < 64 && *blue < 64), "the title is drawn");
        for Series { name, color, .. } in &SERIES {
            let color = [color.0, color.1, color.2];
            assert!(pixels.iter().filter(|pixel| **pixel == color).count() > 50, "{name} is drawn");
        }
    }

    #[test]
    fn other_formats_are_refused_with_what_to_write() {
        for name in ["plot", "plot.pdf", "plot.png.txt", ".svg", ""] {
            let error = name.parse::<PlotFile>().unwrap_err();
            assert!(error.to_string().contains("end in .png or .svg"), "{name}: {error}");
        }
    }

    #[test]
    fn a_missing_directory_is_known_before_the_load() {
        let home = tempfile::tempdir().unwrap();
        let missing = home.path().join("plots");
        let error = missing.join("plot.svg").to_str().unwrap().parse::<PlotFile>().unwrap_err();
        assert!(error.to_string().contains(&format!("no directory {}", missing.display())), "{error}");
    }

    #[test]
    fn a_plot_of_nothing_is_refused_and_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("plot.svg");
        std::fs::write(&path, "an older plot").unwrap();
        let file: PlotFile = path.to_str().unwrap().parse().unwrap();
        for points in [vec![], vec![point(1.0, 0), point(2.0, 0)]] {
            let error = file.draw(TITLE, Over::Time, &points).unwrap_err();
            assert!(error.to_string().contains("nothing to plot"), "{error}");
        }
        for x in [f64::NAN, f64::INFINITY, -1.0, 2e9] {
            let error = file.draw(TITLE, Over::Time, &[point(1.0, 300), point(x, 300)]).unwrap_err();
            assert!(error.to_string().contains("a point lies at"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "an older plot");
    }

    #[test]
    fn a_plot_that_cannot_be_written_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("plot.svg");
        let file: PlotFile = path.to_str().unwrap().parse().unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = file.draw(TITLE, Over::Time, &[point(1.0, 300)]).unwrap_err();
        assert!(error.to_string().contains("cannot write the plot"), "{error}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_plot_takes_the_place_of_an_older_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("plot.svg");
        std::fs::write(&path, "an older plot").unwrap();
        let file: PlotFile = path.to_str().unwrap().parse().unwrap();
        file.draw(TITLE, Over::Time, &[point(1.0, 300)]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("<svg"));
        assert_eq!(file.path(), path);
    }

    #[test]
    fn the_shortest_and_the_longest_latencies_are_drawn() {
        let none = Point { max_us: 1, ..point(0.0, 0) };
        let never = Point { max_us: u64::MAX, p999_us: u64::MAX, ..point(0.0, u64::from(u32::MAX)) };
        for points in [[none, none], [none, never], [never, never]] {
            let svg = svg_of(Over::Time, &points);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            plot("plot.png", Over::Rate, &points);
        }
    }

    #[test]
    fn a_second_in_which_nothing_arrived_is_a_gap() {
        let measured = [point(1.0, 300), point(2.0, 300), point(3.0, 300), point(4.0, 300), point(5.0, 300)];
        let mut stalled = measured;
        stalled[2] = point(3.0, 0);
        let lines = |points: &[Point]| svg_of(Over::Time, points).matches("<polyline").count();
        assert_eq!(lines(&stalled), lines(&measured) + SERIES.len());
    }

    #[test]
    fn a_lone_second_of_a_long_run_has_a_dot() {
        let points: Vec<Point> =
            (0..200_u32).map(|second| point(f64::from(second), u64::from(second % 2) * 300)).collect();
        assert_eq!(svg_of(Over::Time, &points).matches("<circle").count(), 100 * SERIES.len());
    }

    #[test]
    fn a_long_run_keeps_its_worst_seconds() {
        let mut points: Vec<Point> = (0..86_400_u32).map(|second| point(f64::from(second), 300)).collect();
        points[7_777].max_us = 5_000_000;
        points.reverse();
        let drawn = drawn(&points).unwrap();
        assert!(drawn.len() <= LOAD_PLOT_POINTS_MAX, "{}", drawn.len());
        assert!(drawn.is_sorted_by(|one, other| one.x < other.x));
        assert_eq!(drawn.iter().map(|point| point.max_us).max(), Some(5_000_000));
    }

    #[test]
    fn the_scale_is_whole_decades() {
        for (us, expected) in [(1, (1, 100)), (14, (10, 1_000)), (999, (100, 100_000)), (1_000, (1_000, 100_000))] {
            assert_eq!(decades(&[point(1.0, us)]), expected, "{us}");
        }
        for (us, expected) in [(1.0, "1 µs"), (200.0, "200 µs"), (1e4, "10 ms"), (1e6, "1 s"), (1e8, "100 s")] {
            assert_eq!(time(us), expected);
        }
        for (x, expected) in [(0.0, "0"), (0.1 + 0.2, "0.3"), (20_000.0, "20000")] {
            assert_eq!(place(x), expected);
        }
    }
}
