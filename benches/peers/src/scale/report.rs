//! What was found: figures with and without, their ratios, as tables and as JSON.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::report::{grouped, median};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the other is compared with.
    Without = 0,
    /// What is in question.
    With = 1,
}

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// How many in a second.
    #[serde(rename = "1/s")]
    PerSecond,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Microseconds.
    #[serde(rename = "µs")]
    Micros,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Mebibytes.
    #[serde(rename = "MiB")]
    Mib,
    /// Kibibytes.
    #[serde(rename = "KiB")]
    Kib,
    /// Bytes for each byte of something.
    #[serde(rename = "B/B")]
    BytePerByte,
    /// A number of things.
    #[serde(rename = "")]
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "1/s",
            Self::Millis => "ms",
            Self::Micros => "µs",
            Self::Seconds => "s",
            Self::Mib => "MiB",
            Self::Kib => "KiB",
            Self::BytePerByte => "B/B",
            Self::Count => "",
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::PerSecond | Self::Count => grouped(value),
            Self::Millis | Self::Micros | Self::Seconds => format!("{value:.3}"),
            Self::Mib | Self::Kib => format!("{value:.1}"),
            Self::BytePerByte => format!("{value:.3}"),
        }
    }
}

/// One thing that was measured, in each round.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// In what.
    pub unit: Unit,
    /// In each round, without.
    pub without: Vec<f64>,
    /// In each round, with.
    pub with: Vec<f64>,
    /// The median of what was found with by the median of what was found without.
    pub ratio: Option<f64>,
}

impl Figure {
    fn cells(&self) -> [String; 5] {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}"));
        [
            self.what.clone(),
            self.unit.name().to_owned(),
            self.cell(&self.without),
            self.cell(&self.with),
            ratio.unwrap_or_else(|| "-".to_owned()),
        ]
    }

    fn cell(&self, values: &[f64]) -> String {
        let Some(middle) = median(values.to_vec()) else {
            return "-".to_owned();
        };
        let middle = self.unit.text(middle);
        if values.len() == 1 {
            return middle;
        }
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        let high = values.iter().copied().fold(f64::MIN, f64::max);
        let (low, high) = (self.unit.text(low), self.unit.text(high));
        format!("{middle} ({low} – {high})")
    }
}

/// One table.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario, as on the command line.
    pub scenario: String,
    /// What it is.
    pub title: String,
    /// What the two sides are.
    pub sides: [String; 2],
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Why it was not measured to its end, if it was not.
    pub failed: Option<String>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(scenario: &str, title: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            title: title.to_owned(),
            sides: ["without".to_owned(), "with".to_owned()],
            figures: Vec::new(),
            failed: None,
        }
    }

    /// Names the sides.
    pub fn between(&mut self, without: impl Into<String>, with: impl Into<String>) {
        self.sides = [without.into(), with.into()];
    }

    /// Notes what was found on one side; again for each round.
    pub fn note(&mut self, side: Side, what: &str, (value, unit): (f64, Unit)) {
        let name = &self.sides[side as usize];
        let text = unit.text(value);
        eprintln!("{}, {name}: {what}: {text} {}", self.scenario, unit.name());
        let place = self.figures.iter().position(|figure| figure.what == what);
        let place = place.unwrap_or_else(|| {
            self.figures.push(Figure {
                what: what.to_owned(),
                unit,
                without: Vec::new(),
                with: Vec::new(),
                ratio: None,
            });
            self.figures.len() - 1
        });
        let figure = &mut self.figures[place];
        match side {
            Side::Without => figure.without.push(value),
            Side::With => figure.with.push(value),
        }
        let both = median(figure.with.clone()).zip(median(figure.without.clone()));
        figure.ratio = both
            .filter(|(_, without)| *without != 0.0)
            .map(|(with, without)| with / without);
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let [without, with] = &self.sides;
        table.set_header(["measured", "in", without, with, "ratio"]);
        for figure in &self.figures {
            table.add_row(figure.cells());
        }
        let failed = self.failed.as_ref();
        let failed = failed.map(|why| format!("\nNot measured to its end: {why}\n"));
        let failed = failed.unwrap_or_default();
        format!("{} ({})\n\n{table}\n{failed}", self.title, self.scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_with_by_without() {
        let mut report = Report::new("some", "something");
        report.between("none", "many");
        for value in [1.0, 100.0, 4.0] {
            report.note(Side::Without, "speed", (value, Unit::PerSecond));
        }
        assert_eq!(report.figures[0].ratio, None);
        report.note(Side::With, "speed", (2.0, Unit::PerSecond));
        assert_eq!(report.figures[0].ratio, Some(0.5));
        report.note(Side::With, "alone", (2.0, Unit::Seconds));
        report.note(Side::Without, "nothing", (0.0, Unit::Count));
        report.note(Side::With, "nothing", (1.0, Unit::Count));
        assert_eq!(report.figures[2].ratio, None);
        let table = report.table();
        for text in ["4 (1 – 100)", "0.50", "2.000", "many"] {
            assert!(table.contains(text), "{table}");
        }
    }
}
