//! A bar on the terminal while something is measured.
//!
//! What is measured only counts; a task of its own looks at the count five times
//! a second and draws. Without a terminal, with `-q` or `NO_COLOR` there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cli::output::{self, Output};

const DRAW_EVERY: Duration = Duration::from_millis(200);

/// What is counted; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the bar is full.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// After that time.
    Time(Duration),
    /// When so many are counted.
    Count(u64),
}

/// The bar; it goes away when this is dropped.
#[derive(Debug)]
pub struct Progress {
    counter: Counter,
    drawn: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Progress {
    /// Says what begins, and shows how far it is: `things` are counted.
    pub fn start(output: &Output, what: &str, (things, goal): (&'static str, Goal)) -> Self {
        output.note(what);
        let counter = Counter::default();
        let drawn = output.shows_progress().then(|| {
            let bar = bar(goal);
            let drawing = draw(bar.clone(), counter.clone(), (things, goal));
            (bar, tokio::spawn(drawing))
        });
        Self { counter, drawn }
    }

    /// What to count with.
    pub fn counter(&self) -> Counter {
        self.counter.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((bar, drawing)) = self.drawn.take() {
            drawing.abort();
            bar.finish_and_clear();
        }
    }
}

fn bar(goal: Goal) -> ProgressBar {
    let length = match goal {
        Goal::Time(time) => time.as_millis() as u64,
        Goal::Count(count) => count,
    };
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
        bar.set_style(style);
    }
    bar
}

async fn draw(bar: ProgressBar, counter: Counter, (things, goal): (&'static str, Goal)) {
    let began = Instant::now();
    loop {
        tokio::time::sleep(DRAW_EVERY).await;
        let (count, elapsed) = (counter.get(), began.elapsed());
        let position = match goal {
            Goal::Time(_) => elapsed.as_millis() as u64,
            Goal::Count(_) => count,
        };
        bar.set_position(position.min(bar.length().unwrap_or(position)));
        bar.set_message(text(count, things, elapsed));
    }
}

fn text(count: u64, things: &str, elapsed: Duration) -> String {
    let rate = count as f64 / elapsed.as_secs_f64().max(1e-3);
    let (count, rate) = (output::number(count), output::number(rate as u64));
    format!("{count} {things}, {rate}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_tells_count_and_rate() {
        let two_seconds = Duration::from_secs(2);
        assert_eq!(text(3_000, "read", two_seconds), "3,000 read, 1,500/s");
    }
}
