//! Taking: read first, then assign, and answer at once (C9).
//!
//! 1. Whoever has no room, or for whom there is nothing, waits outside of the line.
//! 2. Memory for the answer is asked for before getting in line: a client that takes no answers holds up nobody.
//! 3. In line, what could be given out is read from the topic.
//! 4. Under the lock it is given out, if it still can be, and the answer is made without a wait in between. Answers are
//!    sent by tasks of their own and may overtake each other: their numbers, given in line, tell their order.

use std::iter::Peekable;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Desks;
use super::desk::{Desk, Inner, Seat};
use super::reading::{Found, Plan, Reading, Wanted};
use crate::limits;
use crate::net::{Body, ClientInfo, Reply};
use crate::protocol::api::TakeRecords;
use crate::protocol::batch::OpenedBatch;
use crate::protocol::error::ApiError;
use crate::protocol::taken::{Taken, TakenItem, TakenRun};
use crate::topic::consumers::{Fresh, Group, Offer, Taker};
use crate::types::Offset;

/// How often a take looks in vain for what seemed to be there before it waits: others were faster, or it waits for its keys.
const ATTEMPTS: u32 = 3;

/// What is given out of a batch.
type Given<'a> = (&'a Found, Vec<TakenRun>);

impl Desks {
    /// Answers a take.
    pub async fn take(
        self: Arc<Self>,
        request: TakeRecords,
        client: Arc<ClientInfo>,
        mut reply: Reply,
    ) {
        let taken = self.taken(&request, &client, &mut reply).await;
        reply.send_raw(taken.map(|taken| Body::from(taken.encode())));
    }

    async fn taken(
        self: &Arc<Self>,
        request: &TakeRecords,
        client: &Arc<ClientInfo>,
        reply: &mut Reply,
    ) -> Result<Taken, ApiError> {
        self.check_displaced()?;
        let deadline = Instant::now() + reply.may_wait(request.wait_ms);
        let desk = self.desk(request.topic, &request.name).await?;
        let mut end = self.store.watch_end(request.topic)?;
        let mut in_vain = 0;
        loop {
            let (seat, ..) = self.look(&desk, request, client)?;
            let woken = seat.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            end.mark_unchanged();
            let (_, is_there, is_blocked) = self.look(&desk, request, client)?;
            if is_there && in_vain < ATTEMPTS {
                let wanted = (request.bytes as usize).clamp(1, limits::FETCH_BYTES_MAX);
                let bytes = reply.reserve_up_to(wanted).await;
                let _in_line = desk.line.lock().await;
                let cursor = desk.open()?.group.cursor();
                let attempt = self.attempt(&desk, request, (client, bytes)).await?;
                if let Some(taken) = attempt {
                    return Ok(taken);
                }
                // What was only passed over, for its keys are elsewhere, is no reason to wait.
                in_vain += u32::from(desk.open()?.group.cursor() == cursor);
                continue;
            }
            // Where the group is as far ahead as it goes, or what was there could not be given out, nothing says when that ends.
            let again = Instant::now() + limits::CONSUMER_TICK;
            let looks_again = (is_blocked || in_vain == ATTEMPTS) && again < deadline;
            in_vain = 0;
            tokio::select! {
                () = woken => {}
                changed = end.changed() => changed.unwrap_or(()),
                () = desk.closed.cancelled() => return Err(desk.ended()),
                () = seat.left.cancelled() => return Err(desk.not_a_member(request.member)),
                () = tokio::time::sleep_until(again), if looks_again => {}
                () = tokio::time::sleep_until(deadline) => {
                    let ack_deadline_ms = desk.open()?.group.options().ack_deadline_ms;
                    return Ok(Taken { ack_deadline_ms, number: seat.next_answer(), items: Vec::new() });
                }
            }
        }
    }

    /// Whether there is something for a member, and whether there would be if the group could go on.
    fn look(
        &self,
        desk: &Desk,
        request: &TakeRecords,
        client: &Arc<ClientInfo>,
    ) -> Result<(Seat, bool, bool), ApiError> {
        let (_, end) = self.store.range_of(desk.topic)?;
        let (inner, seat) = desk.seated((request.member, request.generation), client)?;
        let has_room = inner.group.room(seat.slot) > 0 && request.records > 0;
        let is_there = has_room && (inner.group.has_ready() || self.is_new(&inner, end));
        let is_blocked = has_room && !is_there && inner.group.fresh(end) != Fresh::AtEnd;
        Ok((seat, is_there, is_blocked))
    }

    /// Whether new records can be looked at.
    fn is_new(&self, inner: &Inner, end: Offset) -> bool {
        inner.group.fresh(end) == Fresh::There && self.has_room()
    }

    /// Takes what there is. None: in the end there was nothing.
    async fn attempt(
        &self,
        desk: &Desk,
        request: &TakeRecords,
        (client, bytes): (&Arc<ClientInfo>, usize),
    ) -> Result<Option<Taken>, ApiError> {
        let plan = self.plan(desk, request, client)?;
        let mut reading = Reading::default();
        if plan.new_first {
            self.read_new(desk, &plan, bytes / 2, &mut reading).await?;
        }
        self.read_again(desk, &plan, bytes, &mut reading).await?;
        if !plan.new_first {
            self.read_new(desk, &plan, bytes, &mut reading).await?;
        }
        self.check_displaced()?;
        // From here on nothing waits.
        let (seat, given) = self.assign(desk, request, client, &reading)?;
        let ack_deadline_ms = desk.open()?.group.options().ack_deadline_ms;
        let mut items = Vec::with_capacity(given.len());
        for (found, runs) in given {
            items.extend(self.item(desk, found, runs));
        }
        items.sort_by_key(|item: &TakenItem| item.runs.first().map(|run| run.first));
        self.count(desk, &items);
        Ok((!items.is_empty()).then(|| Taken {
            ack_deadline_ms,
            number: seat.next_answer(),
            items,
        }))
    }

    fn plan(
        &self,
        desk: &Desk,
        request: &TakeRecords,
        client: &Arc<ClientInfo>,
    ) -> Result<Plan, ApiError> {
        let (_, end) = self.store.range_of(desk.topic)?;
        let (mut inner, seat) = desk.seated((request.member, request.generation), client)?;
        inner.group.tick(desk.clock.now());
        desk.decided(&mut inner);
        let records = inner.group.room(seat.slot).min(request.records.into());
        let is_new = self.is_new(&inner, end);
        // Neither what comes again nor what is new starves the other.
        inner.new_first = is_new && !inner.new_first;
        let again_max = match (is_new, inner.new_first) {
            (true, true) => records / 2,
            (true, false) => records.div_ceil(2),
            (false, _) => records,
        };
        Ok(Plan {
            again: inner.group.choose(again_max),
            new: is_new.then(|| inner.group.cursor()),
            new_first: inner.new_first,
            records,
            ordered: inner.group.options().ordered_by_key,
        })
    }

    /// Gives out what was read, as far as it can be.
    fn assign<'a>(
        &self,
        desk: &Desk,
        request: &TakeRecords,
        client: &Arc<ClientInfo>,
        reading: &'a Reading,
    ) -> Result<(Seat, Vec<Given<'a>>), ApiError> {
        let (mut inner, seat) = desk.seated((request.member, request.generation), client)?;
        let now = desk.clock.now();
        for lost in &reading.lost {
            inner.group.lose(*lost, now);
        }
        let room = inner.group.room(seat.slot);
        let mut taker = Taker {
            member: seat.slot,
            records: room.min(request.records.into()),
            now,
        };
        let mut all = Vec::new();
        let mut passes = reading.passes.iter().peekable();
        for found in &reading.found {
            let mut runs = Vec::new();
            match &found.wanted {
                Wanted::Again(wanted) => {
                    for interval in wanted {
                        let given = inner.group.give_again(*interval, taker);
                        taker.records -= records_of(&given);
                        runs.extend(given);
                    }
                }
                Wanted::New(most) => {
                    pass(&mut inner.group, &mut passes);
                    if found.stored.base_offset > inner.group.cursor() {
                        continue;
                    }
                    let keys = found.opened.as_ref().map(|opened| opened.keys());
                    let offer = Offer {
                        base: found.stored.base_offset,
                        count: found.count,
                        keys: keys.as_deref().unwrap_or_default(),
                    };
                    let records = taker.records.min(*most);
                    let given = inner.group.give_new(offer, Taker { records, ..taker });
                    taker.records -= records_of(&given);
                    runs.extend(given);
                }
            }
            if !runs.is_empty() {
                all.push((found, runs));
            }
        }
        pass(&mut inner.group, &mut passes);
        desk.decided(&mut inner);
        Ok((seat, all))
    }

    /// What the answer says of a batch: the batch as it lies where all of it is given out, else one of what is.
    fn item(&self, desk: &Desk, found: &Found, runs: Vec<TakenRun>) -> Option<TakenItem> {
        let base = found.stored.base_offset;
        let batch = if records_of(&runs) == u64::from(found.count) {
            found.stored.batch.clone()
        } else {
            match found
                .opened
                .clone()
                .or_else(|| self.opened(desk, (&found.stored, found.read)))
            {
                Some(opened) => part(&opened, base, &runs),
                None => {
                    let mut inner = desk.lock();
                    let now = desk.clock.now();
                    for run in runs {
                        inner.group.lose((run.first, run.end()), now);
                    }
                    desk.decided(&mut inner);
                    return None;
                }
            }
        };
        Some(TakenItem {
            append_time: found.stored.append_time,
            runs,
            batch,
        })
    }

    fn count(&self, desk: &Desk, items: &[TakenItem]) {
        let bytes: usize = items.iter().map(|item| item.batch.len()).sum();
        let runs = items.iter().flat_map(|item| &item.runs);
        let (mut records, mut again) = (0, 0);
        for run in runs {
            records += u64::from(run.count);
            if run.delivery > 1 {
                again += u64::from(run.count);
            }
        }
        self.store.handed_out(desk.topic, records, bytes as u64);
        self.meters.redelivered(again);
    }
}

/// Goes over what is missing, as far as everything before it was met.
fn pass<'a>(group: &mut Group, passes: &mut Peekable<impl Iterator<Item = &'a (Offset, Offset)>>) {
    while let Some((_, to)) = passes.next_if(|(from, _)| *from <= group.cursor()) {
        group.pass(*to);
    }
}

fn records_of(runs: &[TakenRun]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}

/// A batch of the records of these runs.
fn part(opened: &OpenedBatch, base: Offset, runs: &[TakenRun]) -> Bytes {
    let place = |offset: Offset| u32::try_from(offset.since(base)).unwrap_or(u32::MAX);
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for run in runs {
        let (first, end) = (place(run.first), place(run.end()));
        match ranges.last_mut() {
            Some(last) if last.end == first => last.end = end,
            _ => ranges.push(first..end),
        }
    }
    opened.part(&ranges)
}
