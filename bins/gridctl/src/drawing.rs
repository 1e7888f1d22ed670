//! The curves of a job below its lines, on a terminal, as they come. In a pipe there are only the lines.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::curve::{sparkline, Curves};

/// Curves that are drawn; more would push the lines off a small terminal.
const CURVES_MAX: usize = 4;
/// Characters of a curve.
const WIDTH: usize = 48;

/// Draws the curves again with each round.
pub(crate) struct Drawing {
    curves: Curves,
    bar: ProgressBar,
}

impl Drawing {
    /// Shows nothing unless both outputs are terminals: lines go to one, curves to the other, and they must not meet in a file.
    pub(crate) fn new(wanted: bool) -> Self {
        let shown = wanted && io::stdout().is_terminal() && io::stderr().is_terminal();
        let bar = if shown { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is right"));
        Self { curves: Curves::default(), bar }
    }

    /// A round that was committed before; it is seen with the next [`Drawing::round`].
    pub(crate) fn earlier(&mut self, number: u64, metrics_json: &str) {
        self.curves.add(number, metrics_json);
    }

    /// Runs `print`, which writes the round's line, and draws the curves below it.
    pub(crate) fn round(&mut self, number: u64, metrics_json: &str, print: impl FnOnce()) {
        self.curves.add(number, metrics_json);
        self.bar.suspend(print);
        self.bar.set_message(text(&self.curves));
    }

    /// Runs `print`, which writes a line that is about no round.
    pub(crate) fn beside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the curves away and runs `print`; the last ones stay above what it writes.
    pub(crate) fn end(&self, print: impl FnOnce()) {
        self.bar.abandon();
        print();
    }
}

/// A line for each curve: its name, first value, curve and newest value.
fn text(curves: &Curves) -> String {
    let shown: Vec<_> = curves.all().iter().take(CURVES_MAX).collect();
    let width = shown.iter().map(|curve| curve.metric.chars().count()).max().unwrap_or(0);
    let of_curve = |curve: &&crate::curve::Curve| {
        let (first, newest) = (curve.points.first()?.1, curve.points.last()?.1);
        Some(format!("{:width$}  {first:.4} {} {newest:.4}", curve.metric, sparkline(&curve.points, WIDTH)))
    };
    shown.iter().filter_map(of_curve).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curves_stand_below_each_other_with_their_first_and_newest_value() {
        let mut curves = Curves::default();
        for (round, loss) in [(1, 2.0), (2, 1.5), (3, 1.0)] {
            curves.add(round, &format!("{{\"loss\":{loss},\"accuracy\":0.5}}"));
        }
        assert_eq!(
            text(&curves),
            "loss      2.0000 \u{2588}\u{2585}\u{2581} 1.0000\naccuracy  0.5000 \u{2585}\u{2585}\u{2585} 0.5000"
        );
        assert_eq!(text(&Curves::default()), "");
    }

    #[test]
    fn in_a_pipe_the_line_is_printed_and_nothing_else() {
        let mut drawing = Drawing::new(false);
        let mut printed = 0;
        drawing.earlier(1, "{\"loss\":2}");
        drawing.round(2, "{\"loss\":1}", || printed += 1);
        drawing.end(|| printed += 1);
        assert_eq!((printed, drawing.bar.is_hidden(), drawing.curves.all()[0].points.len()), (2, true, 2));
    }
}
