//! Tables for people, and the same for programs.

use std::time::Duration;

use serde_json::Value;

use crate::bench::spread::Spread;

/// What a case hands back after it has printed its table.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Everything measured.
    pub(crate) json: Value,
    /// What failed to run, a sentence each. A figure that is not reached is no failure.
    pub(crate) failed: Vec<String>,
}

/// How long something took, or that it was given up, or failed, after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    All(Duration),
    GivenUp(Duration),
    Failed(Duration),
}

impl Took {
    pub(crate) fn seconds(self) -> f64 {
        match self {
            Self::All(time) | Self::GivenUp(time) | Self::Failed(time) => time.as_secs_f64(),
        }
    }

    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::All(_) => "ok",
            Self::GivenUp(_) => "given up",
            Self::Failed(_) => "failed",
        }
    }
}

/// Some times of one kind: those that were given up make the median a lower bound, those that failed do not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) spread: Spread,
    pub(crate) is_bound: bool,
}

impl Times {
    pub(crate) fn of(times: impl Iterator<Item = Took>) -> Self {
        let counted: Vec<_> = times.filter(|took| !matches!(took, Took::Failed(_))).collect();
        let is_bound = counted.iter().any(|took| matches!(took, Took::GivenUp(_)));
        Self { spread: Spread::of(counted.into_iter().map(Took::seconds)), is_bound }
    }

    fn sign(self) -> &'static str {
        if self.is_bound { ">" } else { "" }
    }

    /// `12.3 (11.0 to 14.0)`, with `>` before a lower bound, `-` for nothing.
    pub(crate) fn text(self) -> String {
        let Spread { least, median, most } = self.spread;
        if median.is_nan() {
            "-".to_owned()
        } else {
            format!("{}{median:.2} ({least:.2} to {most:.2})", self.sign())
        }
    }
}

/// Prints how many times as long as ours another takes: more than 1 is good for us.
pub(crate) fn ratio(theirs: &str, their: Times, ours: &str, our: Times) -> Value {
    let times = their.spread.median / our.spread.median;
    // A bound below the line says nothing about the quotient.
    if times.is_nan() || our.is_bound {
        println!("{theirs} / {ours}: not known");
        return Value::Null;
    }
    println!("{theirs} / {ours}: {}{times:.2} times as long", their.sign());
    serde_json::json!({ "times": times, "is_lower_bound": their.is_bound })
}

/// Prints columns as wide as they need to be: the first to the left, the others to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: Vec<_> = cells
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        println!("{}", text.join("   ").trim_end());
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// Median and range of one figure of several runs, with so many digits.
pub(crate) fn figure(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let Spread { least, median, most } = Spread::of(values);
    if median.is_nan() {
        "-".to_owned()
    } else if format!("{least:.digits$}") == format!("{most:.digits$}") {
        format!("{median:.digits$}")
    } else {
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_run_given_up_makes_a_lower_bound_and_a_failed_one_does_not_count() {
        let times = [Took::All(seconds(2)), Took::GivenUp(seconds(10)), Took::Failed(seconds(1))];
        let times = Times::of(times.into_iter());
        assert!(times.is_bound);
        assert_eq!(times.text(), ">6.00 (2.00 to 10.00)");
        assert_eq!(Times::of([Took::Failed(seconds(1))].into_iter()).text(), "-");
    }

    #[test]
    fn a_ratio_to_something_given_up_is_not_known() {
        let (whole, bound) = (
            Times::of([Took::All(seconds(2))].into_iter()),
            Times::of([Took::GivenUp(seconds(9))].into_iter()),
        );
        assert_eq!(ratio("a", whole, "b", bound), Value::Null);
        assert_eq!(
            ratio("a", bound, "b", whole),
            serde_json::json!({ "times": 4.5, "is_lower_bound": true })
        );
    }

    #[test]
    fn one_figure_is_shown_without_a_range() {
        assert_eq!(figure([1.001, 1.002].into_iter(), 2), "1.00");
        assert_eq!(figure([1.0, 3.0].into_iter(), 1), "2.0 (1.0 to 3.0)");
    }
}
