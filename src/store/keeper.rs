//! The keeper: what has to be done beside writing.
//!
//! It seals full segments and watches the free space. Its
//! decisions reach the state only as changes through the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::command::{Change, Command};
use super::index::Run;
use super::pool::{Prepared, SlotPool};
use super::queue::Queue;
use super::recovery::{Contents, seal};
use super::segments::Segment;
use super::shared::Shared;
use crate::journal::{Extent, Footer, FooterBuilder};
use crate::topic::RowKey;
use crate::types::TopicId;

/// Something for the keeper.
pub(super) enum KeeperJob {
    /// Seal a full segment.
    Seal(SealJob),
}

/// A full segment.
pub(super) struct SealJob {
    pub prepared: Prepared,
    pub end: u32,
    pub footer: FooterBuilder,
    pub groups: (u64, u64),
}

/// The keeper's side of things.
pub(super) struct Keeper {
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub pool: Arc<SlotPool>,
    pub jobs: Receiver<KeeperJob>,
}

/// How often it looks around.
const TICK: Duration = Duration::from_millis(200);

impl Keeper {
    /// Runs until the writer is gone.
    pub fn run(self) {
        let mut next_tick = Instant::now();
        loop {
            match self
                .jobs
                .recv_timeout(next_tick.saturating_duration_since(Instant::now()))
            {
                Ok(KeeperJob::Seal(job)) => self.seal(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if next_tick <= Instant::now() {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
        }
    }

    fn tick(&self) {
        self.pool.check_reserve();
    }

    /// The footer goes behind contents that are durable, is durable itself, and only then gets its row.
    fn seal(&self, job: SealJob) {
        if !self.wait_for_group(job.groups.1) {
            return;
        }
        let header = job.prepared.header;
        let contents = Contents {
            footer: job.footer,
            first_group: job.groups.0,
            last_group: job.groups.1,
            end: job.end,
            damaged: false,
        };
        let (row, footer) = match seal(&job.prepared.slot, &header, contents) {
            Ok(sealed) => sealed,
            Err(error) => return self.shared.fail(&error.to_string()),
        };
        let decide = move |context: &mut super::command::Context<'_>| {
            context.state.put_segment(header.segment, row);
            let segment = Segment::new(header, Some(row));
            publish_sealed(context.shared, segment, Arc::new(footer));
            Ok(((), vec![RowKey::Segment(header.segment)]))
        };
        let change = Change::new(TopicId::zero(), decide, Box::new(|_| {}));
        if !self.queue.push_own(Command::Change(change)) {
            tracing::debug!("the writer is gone, the segment is sealed at the next start");
        }
    }

    /// Looks around meanwhile as often as ever, and not each time it finds the group still on its way:
    /// looking asks the file system.
    fn wait_for_group(&self, group: u64) -> bool {
        let mut next_tick = Instant::now() + TICK;
        while self.shared.synced_group.load(Ordering::Acquire) < group {
            if self.shared.failure().is_some() {
                return false;
            }
            if next_tick <= Instant::now() {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// From now on readers look into the footer for what lies in the segment.
pub(super) fn publish_sealed(shared: &Shared, segment: Segment, footer: Arc<Footer>) {
    let number = segment.number;
    shared.segments.put(segment);
    shared.segments.keep(number, footer.clone());
    for summary in footer.topics() {
        if let Some(topic) = shared.topic(summary.topic) {
            topic
                .index_mut()
                .seal(number, runs(number, footer.extents_of(summary.topic)));
        }
    }
}

/// Neighbouring extents as one run each.
pub(super) fn runs(segment: u64, extents: impl Iterator<Item = Extent>) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut end = None;
    for extent in extents {
        if end != Some(extent.base) {
            runs.push(Run {
                base: extent.base,
                segment,
            });
        }
        end = Some(extent.end());
    }
    runs
}
