//! Reading: a topic from its beginning to its end, and messages as they come.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Crew, Latencies, Payloads, Published, Window};
use crate::systems::{Publisher, Reader, Running, Turn};
use crate::work::Work;

/// How long reading everything may take, and a message after it was sent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes at the start of a payload that tell its number.
const NUMBER_BYTES: usize = 8;

/// Fills the first topic with at most so many bytes of payload in at most that time.
pub async fn fill(
    running: &Running,
    work: &Work,
    bytes: u64,
    within: Duration,
) -> Result<Published> {
    let work = work.filling();
    let crew = Crew::ready(running, &work).await?;
    let window = Window {
        records_max: bytes / work.size as u64,
        ..Window::starting(Duration::ZERO, within)
    };
    crew.publish(window).await
}

/// Reads so many records from the beginning; how long it took.
pub async fn catch_up(running: &Running, work: &Work, records: u64) -> Result<Duration> {
    let began = Instant::now();
    let mut reader = running.reader().await?;
    let (mut count, mut foreign) = (0, 0);
    while count < records {
        let mut seen = |payload: &[u8]| {
            count += 1;
            foreign += u64::from(payload.len() != work.size);
        };
        tokio::time::timeout_at(began + PATIENCE, reader.next(&mut seen))
            .await
            .with_context(|| format!("{count} of {records} records came in {PATIENCE:?}"))??;
    }
    ensure!(
        foreign == 0,
        "{foreign} of {count} records are not of {} bytes",
        work.size
    );
    ensure!(
        count == records,
        "{count} records came where {records} are stored"
    );
    Ok(began.elapsed())
}

/// When each message is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    began: Instant,
    every: Duration,
    count: u64,
}

impl Due {
    fn of(&self, number: u64) -> Instant {
        self.began + self.every.mul_f64(number as f64)
    }
}

/// End to end at a fixed rate, whatever becomes of it: latencies of the messages that were due in the
/// window, from the moment they were due until the reader had them.
pub async fn end_to_end(
    running: &Running,
    work: &Work,
    rate: f64,
    window: Window,
) -> Result<Published> {
    let began = Instant::now();
    let whole = window.end.saturating_duration_since(began);
    let due = Due {
        began,
        every: Duration::from_secs_f64(1.0 / rate),
        count: (whole.as_secs_f64() * rate) as u64,
    };
    let publisher = running.publisher(&[0], work).await?;
    let reader = running.reader().await?;
    let follower = tokio::spawn(follow(reader, due, window));
    let size = work.size;
    let handle = Handle::current();
    let paced = tokio::task::spawn_blocking(move || pace(publisher, due, size, &handle));
    paced.await??;
    let published = tokio::time::timeout(PATIENCE, follower).await;
    published.with_context(|| format!("not all messages came within {PATIENCE:?}"))??
}

async fn follow(mut reader: Reader, due: Due, window: Window) -> Result<Published> {
    let mut published = Published::default();
    while published.acknowledged < due.count {
        let mut last = None;
        let mut note = |payload: &[u8]| {
            let now = Instant::now();
            let number = payload.first_chunk::<NUMBER_BYTES>();
            let number = number.map(|bytes| u64::from_le_bytes(*bytes));
            published.acknowledged += 1;
            last = number;
            let at = number.map(|number| due.of(number));
            if let Some(at) = at.filter(|at| window.holds(*at)) {
                published.in_window += 1;
                note_latency(&mut published.latencies, now, at);
            }
        };
        reader.next(&mut note).await?;
        ensure!(
            last.is_some_and(|last| last + 1 == published.acknowledged),
            "message {last:?} came as number {}",
            published.acknowledged
        );
    }
    Ok(published)
}

fn note_latency(latencies: &mut Latencies, now: Instant, due: Instant) {
    latencies.note(now.saturating_duration_since(due), 1);
}

/// Sends each message when it is due, from a thread of its own: the timers of an asynchronous runtime
/// tick in milliseconds, and here a fraction of one is measured.
fn pace(mut publisher: Publisher, due: Due, size: usize, handle: &Handle) -> Result<()> {
    // As exactly as the kernel can: by default it lets a sleep run over by 50 µs.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut payloads = Payloads::new()?;
    let mut acknowledgements = JoinSet::new();
    for number in 0..due.count {
        let wait = due.of(number).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let payloads = vec![numbered(&payloads.cut(size), number)];
        let turn = Turn {
            topic: 0,
            payloads,
            together: false,
        };
        let acknowledged = handle.block_on(publisher.send(turn))?;
        acknowledgements.spawn_on(acknowledged, handle);
        while let Some(done) = acknowledgements.try_join_next() {
            done??;
        }
    }
    handle.block_on(async {
        while let Some(done) = acknowledgements.join_next().await {
            done??;
        }
        Ok(())
    })
}

fn numbered(payload: &Bytes, number: u64) -> Bytes {
    let mut payload = BytesMut::from(&payload[..]);
    payload[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
    payload.freeze()
}

/// Fails if the system does not hold what it acknowledged.
pub async fn check_stored(running: &Running, work: &Work, acknowledged: u64) -> Result<u64> {
    let stored = running.stored(work).await?;
    if stored < acknowledged {
        bail!("{acknowledged} records were acknowledged and {stored} are stored");
    }
    Ok(stored)
}
