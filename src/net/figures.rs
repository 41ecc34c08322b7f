//! Figures on the wire: those for measuring, and all of them, page by page.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::figures::catalogue::{self, Metric};
use crate::figures::{self, Board, Collected, Family, Kind, Sample, Together, Value};
use crate::limits;
use crate::net::budget::Budget;
use crate::process;
use crate::protocol::api::{
    FiguresAnswer, MetricFamily, MetricKind, MetricPlace, MetricSample, Metrics, MetricsPage, Nonce,
};
use crate::protocol::error::ApiError;

/// What the servers of a process have in common.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Memory and connections.
    pub budget: Arc<Budget>,
    /// Where each shows itself.
    pub board: Arc<Board>,
}

impl Surroundings {
    /// The figures of the process.
    pub fn collect(&self) -> Collected {
        let mut collected = figures::of_process();
        figures::of_descriptors(&mut collected);
        self.budget.collect(&mut collected);
        collected
    }

    /// The figures of the process and of every node in it.
    pub async fn collect_all(&self) -> Collected {
        let mut all = Collected::default();
        for source in self.board.sources() {
            all.merge(source.collect().await);
        }
        all.merge(self.collect());
        all
    }
}

/// What every node tells of its process, whatever else it counts.
pub fn of_process() -> FiguresAnswer {
    let used = figures::of_process();
    let mut answer = FiguresAnswer {
        process: Nonce(process::id()),
        figures: Vec::new(),
    };
    let of = |metric: &Metric| used.sum(metric);
    answer.add("rss_bytes", of(&catalogue::PROCESS_MEMORY));
    answer.add("cpu_ms", of(&catalogue::PROCESS_CPU) / 1_000);
    answer.add("disk_written_bytes", of(&catalogue::PROCESS_WRITTEN));
    answer
}

/// One page of what `collecting` collects, or of what another has collected for whoever asks now. A page after the first
/// is of what the first was of, if it is asked for soon enough.
pub async fn page_of(
    told: &Together<Arc<Collected>>,
    collecting: impl Future<Output = Arc<Collected>> + Send + 'static,
    request: &Metrics,
) -> Result<MetricsPage, ApiError> {
    let begun = match request.after {
        Some(_) => told.latest().await,
        None => None,
    };
    let collected = match begun {
        Some(collected) => collected,
        None => told.get(collecting).await.unwrap_or_default(),
    };
    page(&collected, request)
}

/// One page of what was collected.
fn page(collected: &Collected, request: &Metrics) -> Result<MetricsPage, ApiError> {
    let limit = (request.limit as usize).clamp(1, limits::PAGE_ENTRIES_MAX);
    if let Some(after) = &request.after
        && Metric::find(&after.figure).is_none()
    {
        return Err(ApiError::InvalidArgument {
            what: "after".to_owned(),
            reason: format!(
                "no figure is called {:?}: expected one of this node",
                after.figure
            ),
        });
    }
    let mut page = MetricsPage {
        families: Vec::new(),
        more: false,
    };
    let mut room = limit;
    for family in collected.families() {
        let samples = samples_after(family, request.after.as_ref());
        page.more |= samples.len() > room;
        if room > 0 && !samples.is_empty() {
            let told: Vec<_> = samples.into_iter().take(room).collect();
            room -= told.len();
            page.families.push(on_wire(family.metric, told));
        }
    }
    Ok(page)
}

/// The series of a family that come after that place, in order.
fn samples_after(family: &Family, after: Option<&MetricPlace>) -> Vec<MetricSample> {
    let position = |name: &str| catalogue::ALL.iter().position(|metric| metric.name == name);
    let place = after.map_or(Ordering::Greater, |after| {
        position(family.metric.name).cmp(&position(&after.figure))
    });
    let mut samples: Vec<_> = match place {
        Ordering::Less => Vec::new(),
        _ => family.samples.iter().map(sample_on_wire).collect(),
    };
    if let (Ordering::Equal, Some(after)) = (place, after) {
        samples.retain(|sample| sample.labels > after.labels);
    }
    samples.sort_by(|a, b| a.labels.cmp(&b.labels));
    samples
}

fn sample_on_wire(sample: &Sample) -> MetricSample {
    let labels = sample.labels.iter();
    MetricSample {
        labels: labels.map(|(_, value)| value.to_string()).collect(),
        value: sample.value.sum(),
        classes: match &sample.value {
            Value::Number(_) => Vec::new(),
            Value::Histogram { counts, .. } => counts.clone(),
        },
    }
}

fn on_wire(metric: &Metric, samples: Vec<MetricSample>) -> MetricFamily {
    let (kind, bounds) = match metric.kind {
        Kind::Counter => (MetricKind::Counter, Vec::new()),
        Kind::Gauge => (MetricKind::Gauge, Vec::new()),
        Kind::Histogram(bounds) => (MetricKind::Histogram, bounds.to_vec()),
    };
    MetricFamily {
        name: metric.name.to_owned(),
        kind,
        help: metric.help.to_owned(),
        ticks: metric.unit.ticks(),
        labels: metric
            .labels
            .iter()
            .map(|&label| label.to_owned())
            .collect(),
        bounds,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected() -> Collected {
        let mut collected = Collected::default();
        collected.number(&catalogue::TOPICS, 3);
        for topic in ["c", "a", "b"] {
            let family = collected.family(&catalogue::TOPIC_END);
            family.number([topic.into()], 7);
        }
        let counts = vec![1; 20];
        let sum = 40;
        let family = collected.family(&catalogue::SYNC);
        family.add([], Value::Histogram { counts, sum });
        collected
    }

    fn series(page: &MetricsPage) -> Vec<(String, Vec<String>)> {
        let of = |family: &MetricFamily| {
            let name = family.name.clone();
            let samples = family.samples.clone().into_iter();
            samples
                .map(move |sample| (name.clone(), sample.labels))
                .collect::<Vec<_>>()
        };
        page.families.iter().flat_map(of).collect()
    }

    #[test]
    fn pages_of_any_length_tell_everything_once_and_in_order() {
        let collected = collected();
        let all = page(
            &collected,
            &Metrics {
                after: None,
                limit: 100,
            },
        )
        .expect("good");
        assert!(!all.more);
        let all = series(&all);
        assert_eq!(all.len(), 5);
        for limit in 0..6 {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = page(&collected, &Metrics { after, limit }).expect("good");
                found.extend(series(&page));
                let (name, labels) = found.last().cloned().expect("a page is not empty");
                after = Some(MetricPlace {
                    figure: name,
                    labels,
                });
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, all, "{limit} at once");
        }
    }

    #[test]
    fn a_place_nobody_knows_is_refused() {
        let after = Some(MetricPlace {
            figure: "nothing".to_owned(),
            labels: Vec::new(),
        });
        let refused = page(&collected(), &Metrics { after, limit: 1 });
        assert!(
            matches!(refused, Err(ApiError::InvalidArgument { .. })),
            "{refused:?}"
        );
    }
}
