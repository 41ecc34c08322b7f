//! What a member knows: records at hand and held, verdicts to be sent, and what did not count.
//!
//! No task, no socket, no clock: the time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{MemberDelivery, Missed, NotSettled};
use crate::client::{ClientError, ReceivedRecord};
use crate::limits;
use crate::protocol::api::{NotHeld, SettledRun, Verdict};
use crate::protocol::batch::CheckedBatch;
use crate::protocol::taken::{Taken, TakenItem};
use crate::types::Offset;

/// What a member may hold, and what it does for the application.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub records: usize,
    pub bytes: usize,
    pub keep: bool,
}

/// What holds for one membership.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How long a record may be held without a word.
    pub ack_deadline: Duration,
    /// Later records of a key that failed are taken back with it.
    pub ordered_by_key: bool,
}

/// A record at hand.
#[derive(Debug)]
struct Buffered {
    given: MemberDelivery,
    bytes: usize,
    is_renewed: bool,
}

/// A record that the application has.
#[derive(Debug)]
struct Held {
    delivery: u32,
    until: Instant,
    is_renewed: bool,
}

/// Verdicts on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub run: SettledRun,
    /// The application said it; otherwise this member extends on its own.
    pub is_said: bool,
}

impl Run {
    /// What comes behind its first `count` records, which stay.
    fn split_off(&mut self, count: u32) -> Option<Self> {
        let rest = self.run.count.checked_sub(count).filter(|rest| *rest > 0)?;
        self.run.count = count;
        Some(Self {
            run: SettledRun {
                first: self.run.first.saturating_add(count.into()),
                count: rest,
                ..self.run.clone()
            },
            ..*self
        })
    }
}

#[derive(Debug)]
pub(super) struct State {
    bounds: Bounds,
    terms: Terms,
    /// Which one it is; 0 before the first.
    membership: u64,
    buffer: VecDeque<Buffered>,
    buffered_bytes: usize,
    /// Takes on the way.
    asked: usize,
    /// Number of the last answer that was taken in, of this membership, and answers that overtook an earlier one.
    admitted: u64,
    early: BTreeMap<u64, Taken>,
    held: BTreeMap<Offset, Held>,
    /// Verdicts whose order is settled, in front of those whose order is not.
    in_order: VecDeque<Run>,
    queued: Vec<Run>,
    /// Of both.
    queued_records: u64,
    /// When the first of them came.
    queued_since: Option<Instant>,
    /// Somebody waits for what is queued.
    is_hurried: bool,
    /// The keeper has to look, and was not told yet.
    is_news: bool,
    /// Records of which something was said and queued, and those of them that are answered.
    said: u64,
    answered: u64,
    not_settled: VecDeque<NotSettled>,
    /// When the application last took or said something.
    active: Instant,
    /// Records that waited were let go, because it did not: for nobody nothing more is taken.
    is_deserted: bool,
    end: Option<ClientError>,
}

impl State {
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            terms: Terms {
                ack_deadline: limits::ACK_DEADLINE_DEFAULT,
                ordered_by_key: false,
            },
            membership: 0,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            asked: 0,
            admitted: 0,
            early: BTreeMap::new(),
            held: BTreeMap::new(),
            in_order: VecDeque::new(),
            queued: Vec::new(),
            queued_records: 0,
            queued_since: None,
            is_hurried: false,
            is_news: false,
            said: 0,
            answered: 0,
            not_settled: VecDeque::new(),
            active: now,
            is_deserted: false,
            end: None,
        }
    }

    // --- memberships ---------------------------------------------------------

    /// A new membership, which holds nothing.
    pub fn begin(&mut self, terms: Terms) {
        self.membership += 1;
        self.admitted = 0;
        self.terms = terms;
    }

    /// The membership is over: nothing is held, what was queued is not settled, and of what was sent nobody knows.
    pub fn lapse(&mut self, sent: &[Run]) {
        for run in sent.iter().filter(|run| run.is_said) {
            self.note((run.run.first, run.run.count), Missed::Unknown);
        }
        self.put_in_order();
        for run in std::mem::take(&mut self.in_order) {
            if run.is_said {
                self.note((run.run.first, run.run.count), Missed::Over);
            }
        }
        self.queued_records = 0;
        self.queued_since = None;
        self.is_hurried = false;
        self.answered = self.said;
        self.asked = 0;
        self.early.clear();
        self.held.clear();
        self.drop_buffer();
    }

    /// Gives up what was not handed out.
    pub fn drop_buffer(&mut self) {
        self.buffer.clear();
        self.buffered_bytes = 0;
    }

    pub fn end(&mut self, error: ClientError) {
        self.drop_buffer();
        self.end.get_or_insert(error);
    }

    /// How leaving went, once it is over.
    pub fn left(&mut self) -> Option<Result<Vec<NotSettled>, ClientError>> {
        match self.end.as_ref()? {
            ClientError::Closed => Some(Ok(self.take_not_settled())),
            error => Some(Err(error.clone())),
        }
    }

    pub const fn terms(&self) -> Terms {
        self.terms
    }

    // --- taking --------------------------------------------------------------

    /// What one take asks for: half of the room, so that one is on the way while the other's records are handed out.
    pub fn share(&self) -> (u32, u32) {
        let half = |whole: usize, most: usize| (whole / 2).clamp(1, most) as u32;
        let records = half(self.bounds.records, limits::UNACKED_MAX as usize);
        (records, half(self.bounds.bytes, limits::FETCH_BYTES_MAX))
    }

    /// Whether one more take may be sent: what it brings would have room beside what is here and on the way, and
    /// somebody who takes it.
    pub fn wants_more(&self) -> bool {
        if self.asked >= limits::MEMBER_TAKES || self.is_deserted || self.end.is_some() {
            return false;
        }
        let (records, bytes) = self.share();
        let records = self.buffer.len() + (self.asked + 1) * records as usize;
        let bytes = self.buffered_bytes + (self.asked + 1) * bytes as usize;
        let is_idle = self.buffer.is_empty() && self.asked == 0;
        is_idle || (records <= self.bounds.records && bytes <= self.bounds.bytes)
    }

    pub fn asked(&mut self) {
        self.asked += 1;
    }

    /// Takes in answers to takes, in the order in which the host made them: within a key records come in theirs. What
    /// overtook an earlier answer waits for it. The oldest are handed out first.
    pub fn admit(&mut self, all: Vec<Taken>, now: Instant) -> Result<(), ClientError> {
        self.asked = self.asked.saturating_sub(all.len());
        for taken in all {
            let number = taken.number;
            if number <= self.admitted || self.early.insert(number, taken).is_some() {
                return Err(misnumbered(format!("there were two of number {number}")));
            }
        }
        while let Some(taken) = self.early.remove(&(self.admitted + 1)) {
            self.admitted += 1;
            self.terms.ack_deadline = Duration::from_millis(taken.ack_deadline_ms);
            for item in taken.items {
                self.admit_item(item, now)?;
            }
        }
        if self.asked == 0 && !self.early.is_empty() {
            let missing = self.admitted + 1;
            return Err(misnumbered(format!("number {missing} is missing")));
        }
        let offset = |buffered: &Buffered| buffered.given.offset();
        self.buffer.make_contiguous().sort_by_key(offset);
        Ok(())
    }

    #[cfg(test)]
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    fn admit_item(&mut self, item: TakenItem, now: Instant) -> Result<(), ClientError> {
        let mut records = CheckedBatch::check_sent(item.batch)?.records()?;
        for run in &item.runs {
            for n in 0..u64::from(run.count) {
                let record = records.next().transpose()?;
                let record = record.ok_or_else(too_few)?;
                let given = MemberDelivery {
                    record: ReceivedRecord {
                        offset: run.first.saturating_add(n),
                        append_time: item.append_time,
                        timestamp: record.timestamp,
                        key: record.key,
                        headers: record.headers,
                        value: record.value,
                    },
                    delivery: run.delivery,
                    deadline: now + self.terms.ack_deadline,
                    membership: self.membership,
                };
                self.push(given);
            }
        }
        Ok(())
    }

    fn push(&mut self, given: MemberDelivery) {
        if given.delivery > 1 {
            // Its delivery before is over, and with it those of the later ones of its key.
            self.drop_from(&given);
            self.held.remove(&given.offset());
        }
        let bytes = bytes_of(&given.record);
        self.buffered_bytes += bytes;
        self.buffer.push_back(Buffered {
            given,
            bytes,
            is_renewed: false,
        });
    }

    /// Gives at most so many to the application; none is no error but at the end.
    pub fn hand_out(
        &mut self,
        max: usize,
        now: Instant,
    ) -> Result<Vec<MemberDelivery>, ClientError> {
        self.note_life(now);
        let mut given = Vec::with_capacity(max.min(self.buffer.len()));
        while given.len() < max
            && let Some(next) = self.buffer.pop_front()
        {
            self.buffered_bytes -= next.bytes;
            // What is overdue is somebody else's already. Where order by key holds, its time may not have begun.
            if next.given.deadline <= now && !self.terms.ordered_by_key {
                continue;
            }
            let held = Held {
                delivery: next.given.delivery,
                until: next.given.deadline,
                is_renewed: next.is_renewed,
            };
            self.held.insert(next.given.offset(), held);
            given.push(next.given);
        }
        match (given.is_empty(), &self.end) {
            (true, Some(error)) => Err(error.clone()),
            _ => Ok(given),
        }
    }

    /// The application takes or says something.
    fn note_life(&mut self, now: Instant) {
        self.active = now;
        self.is_deserted = false;
    }

    // --- verdicts ------------------------------------------------------------

    /// Queues a verdict if the record is held by that delivery, and otherwise notes that it does not count.
    pub fn say(&mut self, given: &MemberDelivery, verdict: Verdict, now: Instant) {
        self.note_life(now);
        let offset = given.offset();
        let is_held = given.membership == self.membership
            && self.end.is_none()
            && self
                .held
                .get(&offset)
                .is_some_and(|held| held.delivery == given.delivery);
        if !is_held {
            return self.note((offset, 1), Missed::Over);
        }
        match &verdict {
            Verdict::Extend => {
                if let Some(held) = self.held.get_mut(&offset) {
                    // One on the way is enough.
                    if std::mem::replace(&mut held.is_renewed, true) {
                        return;
                    }
                }
            }
            Verdict::Nak { .. } | Verdict::Reject { .. } => {
                self.held.remove(&offset);
                self.drop_from(given);
            }
            Verdict::Ack => _ = self.held.remove(&offset),
        }
        self.said += 1;
        self.queue(offset, given.delivery, (verdict, true), now);
    }

    pub fn ack_up_to(&mut self, offset: Offset, now: Instant) -> u64 {
        self.note_life(now);
        let later = self.held.split_off(&offset.next());
        let acked = std::mem::replace(&mut self.held, later);
        let count = acked.len() as u64;
        self.said += count;
        for (offset, held) in acked {
            self.queue(offset, held.delivery, (Verdict::Ack, true), now);
        }
        count
    }

    /// Drops a record from the buffer, and, where order by key holds, the later ones of its key: when one fails, the host
    /// takes those back, and they come again behind it.
    fn drop_from(&mut self, failed: &MemberDelivery) {
        let offset = failed.record.offset;
        let key = failed
            .record
            .key
            .as_ref()
            .filter(|_| self.terms.ordered_by_key);
        let is_over = |record: &ReceivedRecord| {
            record.offset == offset
                || (record.offset > offset && key.is_some() && record.key.as_ref() == key)
        };
        self.buffer
            .retain(|buffered| !is_over(&buffered.given.record));
        self.buffered_bytes = self.buffer.iter().map(|buffered| buffered.bytes).sum();
    }

    fn queue(
        &mut self,
        offset: Offset,
        delivery: u32,
        (verdict, is_said): (Verdict, bool),
        now: Instant,
    ) {
        self.queued_records += 1;
        // Not for each verdict: for the first, and when there are many.
        self.is_news |=
            self.queued_since.is_none() || self.queued_records == limits::MEMBER_VERDICTS_AT_ONCE;
        self.queued_since.get_or_insert(now);
        let run = SettledRun {
            first: offset,
            count: 1,
            delivery,
            verdict,
        };
        push_joined(&mut self.queued, Run { run, is_said });
    }

    /// Whether the keeper is to be told to look.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// When what is queued should be sent: at once if it has waited for long enough, is much, or somebody waits for it.
    pub fn due(&self) -> Option<Instant> {
        let since = self.queued_since?;
        let is_due = self.is_hurried || self.queued_records >= limits::MEMBER_VERDICTS_AT_ONCE;
        Some(match is_due {
            true => since,
            false => since + limits::MEMBER_GATHER,
        })
    }

    /// What to send next, in the order in which it was said; acknowledgements beside each other are put in order and joined.
    /// No more runs and records than the host takes at once: one that refuses all of it would end the membership.
    pub fn take_runs(&mut self, now: Instant) -> Vec<Run> {
        self.put_in_order();
        let (mut runs, mut room) = (Vec::new(), limits::UNACKED_MAX);
        while runs.len() < limits::SETTLED_RUNS_MAX
            && room > 0
            && let Some(mut next) = self.in_order.pop_front()
        {
            if let Some(rest) = next.split_off(room) {
                self.in_order.push_front(rest);
            }
            room -= next.run.count;
            self.queued_records -= u64::from(next.run.count);
            runs.push(next);
        }
        self.queued_since = (!self.in_order.is_empty()).then_some(now);
        self.is_hurried &= !self.in_order.is_empty();
        runs
    }

    /// What is said from now on goes behind what is queued.
    fn put_in_order(&mut self) {
        self.in_order
            .extend(joined(std::mem::take(&mut self.queued)));
    }

    /// These could not be sent: nothing happened to their records.
    pub fn not_sent(&mut self, runs: &[Run]) {
        for run in runs.iter().filter(|run| run.is_said) {
            self.note((run.run.first, run.run.count), Missed::Over);
        }
    }

    /// Everything is to be sent at once. Tells what to wait for.
    pub fn hurry(&mut self) -> u64 {
        self.put_in_order();
        self.is_hurried = !self.in_order.is_empty();
        self.said
    }

    /// Takes in what the host answered to these, which were sent at that time.
    pub fn answer(&mut self, sent: &[Run], not_held: &[NotHeld], sent_at: Instant) {
        for Run { run, is_said } in sent {
            let lost = |lost: &NotHeld| {
                let range = overlap((run.first, run.count), (lost.first, lost.count))?;
                Some((range, Missed::NotHeld(lost.instead)))
            };
            let missed: Vec<_> = not_held.iter().filter_map(lost).collect();
            if run.verdict == Verdict::Extend {
                self.extended(run, &missed, sent_at);
            }
            if *is_said {
                self.answered += u64::from(run.count);
                for (range, why) in missed {
                    self.note(range, why);
                }
            }
        }
    }

    /// The deadline of these began anew, but of those missed, which this member does not hold.
    fn extended(&mut self, run: &SettledRun, missed: &[((Offset, u32), Missed)], sent_at: Instant) {
        let until = sent_at + self.terms.ack_deadline;
        let is_in = |offset: Offset, (first, count): (Offset, u32)| {
            (first..first.saturating_add(count.into())).contains(&offset)
        };
        let is_missed = |offset: Offset| missed.iter().any(|(missed, _)| is_in(offset, *missed));
        let end = run.first.saturating_add(run.count.into());
        let mut lost = Vec::new();
        for (offset, held) in self.held.range_mut(run.first..end) {
            if held.delivery != run.delivery {
                continue;
            }
            held.is_renewed = false;
            held.until = until;
            if is_missed(*offset) {
                lost.push(*offset);
            }
        }
        for offset in lost {
            self.held.remove(&offset);
        }
        let mut freed = 0;
        self.buffer.retain_mut(|buffered| {
            let offset = buffered.given.offset();
            if buffered.given.delivery != run.delivery || !is_in(offset, (run.first, run.count)) {
                return true;
            }
            buffered.is_renewed = false;
            buffered.given.deadline = until;
            let is_kept = !is_missed(offset);
            if !is_kept {
                freed += buffered.bytes;
            }
            is_kept
        });
        self.buffered_bytes -= freed;
    }

    /// Extends what has used up a third of its time, if it is to be kept; forgets what is overdue for long. An application
    /// that is not there loses what waits for it, once: if more were taken for it that would fail as well, and so on, until
    /// it lies among the dead letters without anybody having looked at it.
    pub fn renew(&mut self, now: Instant) {
        let whole = self.terms.ack_deadline;
        let enough = whole * 2 / 3;
        let is_alive = self.bounds.keep || now.saturating_duration_since(self.active) < whole;
        let mut renewed = Vec::new();
        if is_alive {
            let waning = |buffered: &&mut Buffered| {
                !buffered.is_renewed && buffered.given.deadline < now + enough
            };
            for buffered in self.buffer.iter_mut().filter(waning) {
                buffered.is_renewed = true;
                renewed.push((buffered.given.offset(), buffered.given.delivery));
            }
        } else {
            let waited = self.buffer.len();
            self.buffer.retain(|buffered| buffered.given.deadline > now);
            self.is_deserted |= self.buffer.len() < waited;
            self.buffered_bytes = self.buffer.iter().map(|buffered| buffered.bytes).sum();
        }
        if self.bounds.keep {
            let waning =
                |(_, held): &(&Offset, &mut Held)| !held.is_renewed && held.until < now + enough;
            for (offset, held) in self.held.iter_mut().filter(waning) {
                held.is_renewed = true;
                renewed.push((*offset, held.delivery));
            }
        }
        if !self.terms.ordered_by_key {
            // What nobody spoke of for so long is long somebody else's.
            self.held.retain(|_, held| held.until + whole > now);
        }
        while self.held.len() > limits::UNACKED_MAX as usize {
            self.held.pop_first();
        }
        renewed.sort_unstable();
        for (offset, delivery) in renewed {
            self.queue(offset, delivery, (Verdict::Extend, false), now);
        }
    }

    // --- what did not count --------------------------------------------------

    fn note(&mut self, (first, count): (Offset, u32), why: Missed) {
        if let Some(last) = self.not_settled.back_mut()
            && last.why == why
            && last.first.saturating_add(last.count.into()) == first
            && let Some(joined) = last.count.checked_add(count)
        {
            last.count = joined;
            return;
        }
        if self.not_settled.len() >= limits::MEMBER_NOT_SETTLED_MAX {
            self.not_settled.pop_front();
        }
        self.not_settled.push_back(NotSettled { first, count, why });
    }

    fn take_not_settled(&mut self) -> Vec<NotSettled> {
        std::mem::take(&mut self.not_settled).into()
    }

    /// What did not count, once everything said up to `target` is answered.
    pub fn settled_up_to(&mut self, target: u64) -> Result<Option<Vec<NotSettled>>, ClientError> {
        if self.answered >= target {
            return Ok(Some(self.take_not_settled()));
        }
        match &self.end {
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }
}

fn too_few() -> ClientError {
    malformed("its batch holds fewer records than its runs tell".to_owned())
}

fn misnumbered(why: String) -> ClientError {
    malformed(format!("its number is not the one expected: {why}"))
}

fn malformed(reason: String) -> ClientError {
    ClientError::Malformed {
        what: "the answer to a take".to_owned(),
        reason,
    }
}

fn bytes_of(record: &ReceivedRecord) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.len() + limits::MESSAGE_BYTES_OVERHEAD)
        .sum();
    let key = record.key.as_ref().map_or(0, bytes::Bytes::len);
    key + headers + record.value.len() + limits::MESSAGE_BYTES_OVERHEAD
}

/// What two ranges share.
fn overlap(one: (Offset, u32), other: (Offset, u32)) -> Option<(Offset, u32)> {
    let end = |(first, count): (Offset, u32)| first.saturating_add(count.into());
    let (first, end) = (one.0.max(other.0), end(one).min(end(other)));
    let count = u32::try_from(end.since(first)).unwrap_or(u32::MAX);
    (count > 0).then_some((first, count))
}

/// Adds a run, or makes the last one longer.
fn push_joined(runs: &mut Vec<Run>, run: Run) {
    if let Some(last) = runs.last_mut()
        && last.is_said == run.is_said
        && last.run.delivery == run.run.delivery
        && last.run.first.saturating_add(last.run.count.into()) == run.run.first
        && last.run.verdict == run.run.verdict
        && let Some(count) = last.run.count.checked_add(run.run.count)
    {
        last.run.count = count;
        return;
    }
    runs.push(run);
}

/// The same in fewer runs. Only among acknowledgements that follow each other the order is of no meaning: where order
/// by key holds, what is said of a record after an earlier one of its key failed must not count.
fn joined(runs: Vec<Run>) -> Vec<Run> {
    let mut all = Vec::with_capacity(runs.len());
    let mut acks: Vec<Run> = Vec::new();
    let flush = |acks: &mut Vec<Run>, all: &mut Vec<Run>| {
        acks.sort_unstable_by_key(|ack| ack.run.first);
        for ack in acks.drain(..) {
            push_joined(all, ack);
        }
    };
    for run in runs {
        if run.run.verdict == Verdict::Ack {
            acks.push(run);
        } else {
            flush(&mut acks, &mut all);
            push_joined(&mut all, run);
        }
    }
    flush(&mut acks, &mut all);
    all
}
