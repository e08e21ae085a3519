//! What was measured beside what it should be, and at the end what was missed.

use crate::bench::spread::Spread;

/// Which way a figure is good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("goal {limit:.2} or less"),
            Self::AtLeast(limit) => format!("goal {limit:.2} or more"),
        }
    }
}

/// Lines of figures with their goals. A missed goal is a line, never a failure.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    missed: Vec<String>,
}

impl Goals {
    /// Prints one figure, measured some times; its median is judged. Nothing measured is a miss.
    pub(crate) fn judge(&mut self, what: &str, values: impl Iterator<Item = f64>, goal: Goal) {
        let line = line(what, Spread::of(values), goal);
        if line.met {
            println!("{}", line.text);
        } else {
            println!("{}  MISSED", line.text);
            self.missed.push(line.text);
        }
    }

    /// Prints what was missed.
    pub(crate) fn end(&self) {
        if self.missed.is_empty() {
            println!("\nAll goals were met.");
            return;
        }
        println!("\nMissed:");
        for line in &self.missed {
            println!("  {line}");
        }
    }
}

struct Line {
    text: String,
    met: bool,
}

fn line(what: &str, Spread { least, median, most }: Spread, goal: Goal) -> Line {
    let shown = if median.is_nan() {
        "not measured (".to_owned()
    } else if format!("{least:.2}") == format!("{most:.2}") {
        format!("{median:.2} (")
    } else {
        format!("{median:.2} ({least:.2} to {most:.2}; ")
    };
    // Of a NaN no goal is met.
    Line { text: format!("{what} {shown}{})", goal.text()), met: goal.is_met(median) }
}

/// The quotients of figures measured in the same turns: what slows the machine for a while slows both.
pub(crate) fn quotients<'a>(ours: &'a [f64], theirs: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    ours.iter().zip(theirs).map(|(our, their)| our / their)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_goal_and_the_median_is_judged() {
        let spread = Spread::of([1.0, 1.4, 1.6].into_iter());
        let met = line("a / b", spread, Goal::AtMost(1.5));
        assert_eq!(met.text, "a / b 1.40 (1.00 to 1.60; goal 1.50 or less)");
        assert!(met.met, "the worst turn does not decide");
        assert!(!line("a / b", spread, Goal::AtLeast(1.5)).met);
        let once = line("a", Spread::of([2.0].into_iter()), Goal::AtLeast(2.0));
        assert_eq!((once.text.as_str(), once.met), ("a 2.00 (goal 2.00 or more)", true));
    }

    #[test]
    fn what_was_not_measured_meets_no_goal() {
        let nothing = line("a", Spread::of(std::iter::empty()), Goal::AtMost(1.0));
        assert_eq!((nothing.text.as_str(), nothing.met), ("a not measured (goal 1.00 or less)", false));
    }

    #[test]
    fn turns_are_compared_with_themselves() {
        assert_eq!(quotients(&[2.0, 9.0], &[1.0, 3.0]).collect::<Vec<_>>(), [2.0, 3.0]);
    }
}
