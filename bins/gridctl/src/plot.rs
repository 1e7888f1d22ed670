//! `gridctl job plot`: the curves of a job as a picture, one panel for each metric.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use raftgrid_client::Client;
use serde_json::json;

use crate::cli::Plot;
use crate::context::Context;
use crate::curve::{Curve, Curves};
use crate::failure::{Failure, Result};

/// Width of the picture and height of a panel, in pixels.
const PANEL: (u32, u32) = (960, 360);
/// Panels of one picture; more are not readable.
const PANELS_MAX: usize = 6;
const FONT: &str = "DejaVu Sans";

pub(crate) fn run(context: &Context, client: &Client, args: &Plot) -> Result<()> {
    let form = Form::of(&args.output)?;
    let job = client.get_job(&args.name)?;
    let mut curves = Curves::default();
    for round in client.job_history(&args.name)? {
        curves.add(round.get_round() + 1, round.get_metrics_json());
    }
    let chosen = chosen(&args.name, &curves, &args.metric)?;
    let train = job.get_job().get_spec().get_train();
    let committed = job.get_job().get_rounds_committed();
    let title = format!("{}, {committed} of {} rounds", args.name, train.get_rounds());
    draw(&args.output, form, &title, &chosen)?;
    let names: Vec<&str> = chosen.iter().map(|curve| curve.metric.as_str()).collect();
    let (file, rounds) = (args.output.display(), chosen.iter().map(|curve| curve.points.len()).max());
    context.output.done(
        format!("{file} shows {} of job {}", names.join(", "), args.name),
        &json!({"job": args.name, "file": args.output, "metrics": names, "points": rounds}),
    );
    Ok(())
}

/// What is drawn: what was asked for, else the first `PANELS_MAX`.
fn chosen(job: &str, curves: &Curves, asked: &[String]) -> Result<Vec<Curve>> {
    let all: Vec<&str> = curves.all().iter().map(|curve| curve.metric.as_str()).collect();
    if all.is_empty() {
        let cause = format!("job {job} has no round with metrics yet");
        return Err(Failure::new(cause, "step.push(grads, metrics={\"loss\": loss}) in the script"));
    }
    if asked.len() > PANELS_MAX {
        return Err(Failure::usage(format!("{} metrics in one picture", asked.len()), format!("at most {PANELS_MAX}")));
    }
    if asked.is_empty() {
        return Ok(curves.all().iter().take(PANELS_MAX).cloned().collect());
    }
    let missing = |name| Failure::new(format!("job {job} has no metric {name}"), format!("one of {}", all.join(", ")));
    curves.named(asked).map_err(missing)
}

/// The form of the file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Png,
    Svg,
}

impl Form {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            Some(_) | None => {
                let cause = format!("{} is neither .png nor .svg", path.display());
                Err(Failure::usage(cause, "gridctl job plot NAME -o loss.png"))
            }
        }
    }
}

fn draw(path: &Path, form: Form, title: &str, curves: &[Curve]) -> Result<()> {
    // The one font that is inside: a machine without a screen may have none.
    if register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_err() {
        return Err(Failure::new("failed to read the font of this program", "gridctl job plot NAME -o loss.svg"));
    }
    let size = (PANEL.0, PANEL.1 * u32::try_from(curves.len()).expect("a few panels"));
    let drawn = match form {
        Form::Png => panels(&BitMapBackend::new(path, size).into_drawing_area(), title, curves),
        Form::Svg => panels(&SVGBackend::new(path, size).into_drawing_area(), title, curves),
    };
    let hint = "a folder that exists and may be written";
    drawn.map_err(|cause| Failure::new(format!("failed to write the picture: {cause}"), hint).in_file(path))
}

/// The panels below each other; the error says why in words.
fn panels<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    curves: &[Curve],
) -> std::result::Result<(), String> {
    let words = |cause: DrawingAreaErrorKind<B::ErrorType>| cause.to_string();
    area.fill(&WHITE).map_err(words)?;
    let parts = area.split_evenly((curves.len(), 1));
    for (at, (part, curve)) in parts.iter().zip(curves).enumerate() {
        let caption = if at == 0 { format!("{title}: {}", curve.metric) } else { curve.metric.clone() };
        panel(part, &caption, curve, &Palette99::pick(at)).map_err(words)?;
    }
    area.present().map_err(words)
}

fn panel<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    caption: &str,
    curve: &Curve,
    color: &PaletteColor<Palette99>,
) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let (rounds, values) = ranges(&curve.points);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 20))
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(rounds, values)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("round").label_style((FONT, 14)).axis_desc_style((FONT, 14)).light_line_style(WHITE).draw()?;
    let points = curve.points.iter().map(|(round, value)| (*round as f64, *value));
    chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
    // Few points are seen as such.
    if curve.points.len() <= 60 {
        chart.draw_series(points.map(|point| Circle::new(point, 3, color.filled())))?;
    }
    Ok(())
}

/// Ranges of the axes: never empty, with a little room above and below.
fn ranges(points: &[(u64, f64)]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let first = points.first().map_or(0.0, |(round, _)| *round as f64);
    let last = points.last().map_or(1.0, |(round, _)| *round as f64);
    let least = points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min).max(-1e300);
    let most = points.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max).min(1e300);
    let room = match most - least {
        span if span > 0.0 => span * 0.05,
        _ => most.abs().max(1.0) * 0.05,
    };
    (first..last.max(first + 1.0), least - room..most + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Curves {
        let mut curves = Curves::default();
        for round in 1..=80_u64 {
            let share = 1.0 / round as f64;
            curves.add(round, &format!("{{\"loss\":{},\"accuracy\":{}}}", 2.3 * share, 1.0 - share));
        }
        curves
    }

    #[test]
    fn a_picture_has_a_panel_for_each_metric() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = chosen("digits", &curves(), &[]).unwrap();
        let svg = folder.path().join("a.svg");
        draw(&svg, Form::Svg, "digits", &chosen).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        assert!(text.contains("digits: loss") && text.contains("accuracy") && text.contains("height=\"720\""));
        let png = folder.path().join("a.png");
        draw(&png, Form::Png, "digits", &chosen).unwrap();
        let bytes = std::fs::read(&png).unwrap();
        assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n");
        // Width and height stand at the beginning of a PNG.
        assert_eq!((&bytes[16..20], &bytes[20..24]), (&960_u32.to_be_bytes()[..], &720_u32.to_be_bytes()[..]));
        let nowhere = folder.path().join("none/a.png");
        assert!(draw(&nowhere, Form::Png, "digits", &chosen).unwrap_err().to_string().contains("none/a.png"));
    }

    #[test]
    fn one_point_and_equal_points_are_drawn_too() {
        let folder = tempfile::tempdir().unwrap();
        for (name, points) in
            [("one", vec![(1, 0.5)]), ("equal", vec![(1, 0.0), (2, 0.0)]), ("far", vec![(1, f64::MAX)])]
        {
            let curve = Curve { metric: name.to_owned(), points };
            draw(&folder.path().join(format!("{name}.svg")), Form::Svg, "t", &[curve]).unwrap();
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let none = chosen("digits", &Curves::default(), &[]).unwrap_err().to_string();
        assert!(none.starts_with("job digits has no round with metrics yet; try: "), "{none}");
        let other = chosen("digits", &curves(), &["f1".to_owned()]).unwrap_err().to_string();
        assert!(other.contains("no metric f1") && other.contains("loss, accuracy"), "{other}");
        assert_eq!(chosen("digits", &curves(), &["accuracy".to_owned()]).unwrap().len(), 1);
        assert!(Form::of(Path::new("a.jpeg")).is_err() && Form::of(Path::new("loss.png")).unwrap() == Form::Png);
    }
}
