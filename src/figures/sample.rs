//! What was collected at one moment.

use std::sync::Arc;

use super::catalogue::{ALL, Metric};

/// A label: its name, and a value that series of one topic share.
pub type Label = (&'static str, Arc<str>);

/// How much it is, in ticks of the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(u64),
    /// Of a histogram.
    Histogram {
        /// Values in each class, the last one being above all bounds.
        counts: Vec<u64>,
        /// Of all values.
        sum: u64,
    },
}

impl Value {
    /// How many values were recorded; 0 for a number.
    pub fn count(&self) -> u64 {
        match self {
            Self::Number(_) => 0,
            Self::Histogram { counts, .. } => counts.iter().sum(),
        }
    }

    /// The number, or the sum of the values that were recorded.
    pub fn sum(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Histogram { sum, .. } => *sum,
        }
    }
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What tells it from others of its family.
    pub labels: Vec<Label>,
    /// How much it is.
    pub value: Value,
}

/// All series of a figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The figure.
    pub metric: &'static Metric,
    /// Its series.
    pub samples: Vec<Sample>,
}

impl Family {
    /// Adds a series; one value for each of the figure's labels.
    pub fn add<const N: usize>(&mut self, labels: [Arc<str>; N], value: Value) {
        debug_assert_eq!(N, self.metric.labels.len(), "{}", self.metric.name);
        let names = self.metric.labels.iter().copied();
        let labels = names.zip(labels).collect();
        self.samples.push(Sample { labels, value });
    }

    /// Adds a series of a number.
    pub fn number<const N: usize>(&mut self, labels: [Arc<str>; N], number: u64) {
        self.add(labels, Value::Number(number));
    }
}

/// The figures of one moment, each family once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    families: Vec<Family>,
}

impl Collected {
    /// The family of a figure.
    pub fn family(&mut self, metric: &'static Metric) -> &mut Family {
        let same = |family: &Family| std::ptr::eq(family.metric, metric);
        let at = self.families.iter().position(same).unwrap_or_else(|| {
            let samples = Vec::new();
            self.families.push(Family { metric, samples });
            self.families.len() - 1
        });
        &mut self.families[at]
    }

    /// Adds a number without labels.
    pub fn number(&mut self, metric: &'static Metric, number: u64) {
        self.family(metric).number([], number);
    }

    /// Takes over what another part of the process has collected.
    pub fn merge(&mut self, other: Self) {
        for family in other.families {
            self.family(family.metric).samples.extend(family.samples);
        }
    }

    /// The families in the order of the catalogue.
    pub fn families(&self) -> impl Iterator<Item = &Family> {
        ALL.iter().filter_map(|metric| {
            let of = |family: &&Family| std::ptr::eq(family.metric, *metric);
            self.families.iter().find(of)
        })
    }

    /// The number of a series without labels, or a histogram's sum; 0 if there is none.
    pub fn sum(&self, metric: &Metric) -> u64 {
        self.first(metric).map_or(0, Value::sum)
    }

    /// How many values a histogram without labels has; 0 if there is none.
    pub fn count(&self, metric: &Metric) -> u64 {
        self.first(metric).map_or(0, Value::count)
    }

    fn first(&self, metric: &Metric) -> Option<&Value> {
        let same = |family: &&Family| family.metric.name == metric.name;
        let family = self.families.iter().find(same)?;
        family.samples.first().map(|sample| &sample.value)
    }
}
