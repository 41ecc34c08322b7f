//! What must be there: everything any driver said, over all lives of one directory.
//!
//! What it holds the store to, by the numbers of `docs/storage-format.md`:
//!
//! * J1, J5: an acknowledged record is there, at its offset. What an `os` topic acknowledged as
//!   written only may be lost by a power cut, not by the death of the process.
//! * J6: an offset never has two contents, over all lives. What was readable stays; what a power
//!   cut took is told as a gap for ever.
//! * J9: offsets come without holes, in order; per lane the sequences rise, without duplicates,
//!   and without holes unless something was lost or discarded.
//! * J11: a quarantine or damage is found only where somebody damaged something.
//! * A change of state that was acknowledged is there; one that was not is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::{Change, Id, Item, Reclaimed, Said};

/// Whether something may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It has to be there.
    Kept,
    /// A power cut may take it.
    Written,
    /// A power cut took it: it must not come back.
    Lost,
}

/// A batch that somebody saw at its offset.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u32,
    producer: u8,
    first: u64,
    hold: Hold,
}

/// A subscription as it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    generation: u64,
    committed: u64,
}

#[derive(Debug, Clone)]
struct Topic {
    name: String,
    os: bool,
    ever_os: bool,
    retain_records: Option<u64>,
    /// The least number of records anybody asked to keep: so many are there after any move of the start.
    least_retained: Option<u64>,
    start: u64,
    end: u64,
    seen: BTreeMap<u64, Seen>,
    /// First sequence of each producer that was not acknowledged.
    next: BTreeMap<u8, u64>,
    cursors: BTreeMap<String, Cursor>,
    generation: u64,
}

/// What happened to the store before it was opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event {
    /// Unsynced writes may be lost.
    pub power_cut: bool,
    /// The process stopped cleanly.
    pub clean: bool,
    /// Somebody changed bytes.
    pub damaged: bool,
}

/// What one opening found.
#[derive(Debug, Default)]
struct Opening {
    topics: BTreeMap<Id, Vec<Item>>,
    found: BTreeMap<Id, (u64, u64, bool)>,
    cursors: BTreeMap<Id, BTreeMap<String, Cursor>>,
    damage: Vec<String>,
    /// Deleted topics that are there.
    back: BTreeMap<Id, String>,
}

impl Opening {
    /// Whether the store names this as damaged.
    fn names(&self, what: &str) -> bool {
        self.damage.iter().any(|line| line.contains(what))
    }
}

/// Everything that is known of one directory.
#[derive(Debug, Clone, Default)]
pub struct Model {
    topics: BTreeMap<Id, Topic>,
    deleted: BTreeMap<Id, String>,
    /// Deleted topics that came back because the deletion was damaged, and were told once.
    back: BTreeSet<Id>,
    /// A change that was asked for and not answered.
    pending: Option<Change>,
    pub figures: Figures,
}

/// Counted for the report.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub acknowledged: u64,
    pub duplicates: u64,
    pub found: u64,
    /// What opening said, for the report.
    pub torn: u64,
    pub rebuilt: u64,
    pub from_snapshot: u64,
    pub catalogs_lost: u64,
    pub reclaimed: Reclaimed,
    pub quarantines: u64,
    pub named: u64,
    pub refused_to_open: u64,
    /// Lives that ended before the store was open.
    pub in_recovery: u64,
}

impl Figures {
    /// Adds those of another directory.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.duplicates += other.duplicates;
        self.found += other.found;
        self.torn += other.torn;
        self.rebuilt += other.rebuilt;
        self.from_snapshot += other.from_snapshot;
        self.catalogs_lost += other.catalogs_lost;
        self.reclaimed.add(&other.reclaimed);
        self.quarantines += other.quarantines;
        self.named += other.named;
        self.refused_to_open += other.refused_to_open;
        self.in_recovery += other.in_recovery;
    }
}

/// Answers that name damage.
const NAMED: [&str; 2] = ["TopicQuarantined", "Damaged"];

type Verdict = Result<(), String>;

impl Model {
    /// The same demands, nothing counted yet.
    pub fn with_the_same_past(&self) -> Self {
        Self {
            figures: Figures::default(),
            ..self.clone()
        }
    }

    /// Where a driver goes on with each lane.
    pub fn next(&self) -> BTreeMap<Id, BTreeMap<u8, u64>> {
        let lanes = |(id, topic): (&Id, &Topic)| (*id, topic.next.clone());
        self.topics.iter().map(lanes).collect()
    }

    /// Where to read from so that the last `records` are read of every topic.
    pub fn tail(&self, records: u64) -> BTreeMap<Id, u64> {
        let from = |(id, topic): (&Id, &Topic)| {
            let wanted = topic.end.saturating_sub(records);
            let base = topic.seen.range(..=wanted).next_back();
            (*id, base.map_or(0, |(base, _)| *base))
        };
        self.topics.iter().map(from).collect()
    }

    /// Checks what one driver said against everything before, and learns it.
    pub fn learn(&mut self, said: &[Said], event: Event, from: &BTreeMap<Id, u64>) -> Verdict {
        let mut opening = Opening::default();
        for said in said {
            self.hear(said, event, &mut opening, from)?;
        }
        let reclaimed = said.iter().rev().find_map(|said| match said {
            Said::Reclaimed(reclaimed) => Some(reclaimed),
            _ => None,
        });
        self.figures
            .reclaimed
            .add(reclaimed.unwrap_or(&Reclaimed::default()));
        Ok(())
    }

    fn hear(
        &mut self,
        said: &Said,
        event: Event,
        opening: &mut Opening,
        from: &BTreeMap<Id, u64>,
    ) -> Verdict {
        match said {
            Said::Wrong(what) => return Err(what.clone()),
            // The page says which facts a start cannot do without.
            Said::NotOpened(why) if event.damaged && why.contains("facts about the peer") => {
                self.figures.refused_to_open += 1;
            }
            Said::NotOpened(why) => return Err(format!("the store does not open: {why}")),
            Said::Stopped(Err(why)) => return Err(format!("the store did not stop: {why}")),
            Said::Stopped(Ok(())) | Said::Reclaimed(_) => {}
            Said::Opened {
                clean,
                torn,
                rebuilt,
                from_snapshot,
                ..
            } => {
                self.figures.from_snapshot += u64::from(*from_snapshot);
                self.figures.torn += u64::from(torn.is_some());
                self.figures.rebuilt += u64::from(rebuilt.is_some());
                if event.clean && !clean && !event.damaged {
                    return Err("the store does not know that it was stopped cleanly".to_owned());
                }
            }
            Said::Topic { .. } | Said::Subscription { .. } => {
                self.hear_state(said, event, opening)?
            }
            Said::Found { id, items } => opening.topics.entry(*id).or_default().extend(items),
            Said::Damage(lines) if !lines.is_empty() && !event.damaged => {
                return Err(format!("J11: damage where there is none: {lines:?}"));
            }
            Said::Damage(lines) => opening.damage.clone_from(lines),
            Said::AllFound => {
                self.settle(std::mem::take(opening), event, from)?;
            }
            Said::Read { id, items } => {
                for item in items {
                    self.note_read(*id, item, false)?;
                }
            }
            Said::Acknowledged { .. } => self.note_acknowledged(said)?,
            Said::Refused { id, why, .. } => self.note_refused(*id, why, event)?,
            Said::Intends(change) => {
                if let Change::Set {
                    id,
                    os,
                    retain_records,
                    ..
                } = change
                    && let Some(topic) = self.topics.get_mut(id)
                {
                    topic.ever_os |= os;
                    let wanted = topic.least_retained.into_iter().chain(*retain_records);
                    topic.least_retained = wanted.min();
                }
                self.pending = Some(change.clone());
            }
            Said::Done(a, b) => {
                let change = self.pending.take().ok_or("an answer to nothing")?;
                self.apply(&change, *a, *b)?;
            }
            Said::NotDone(why) => {
                let change = self.pending.take();
                let harmless = [
                    "StorageStopped",
                    "SubscriptionExists",
                    "TopicExists",
                    "OffsetOutOfRange",
                ];
                let by_damage = event.damaged && NAMED.iter().any(|name| why.starts_with(name));
                if !by_damage && !harmless.iter().any(|name| why.starts_with(name)) {
                    return Err(format!("{change:?} was refused: {why}"));
                }
                // Stopped in the middle: nobody knows.
                if why.starts_with("StorageStopped") {
                    self.pending = change;
                }
            }
        }
        Ok(())
    }

    /// A topic or a subscription as it was found: as it was acknowledged, or with the pending change.
    fn hear_state(&mut self, said: &Said, event: Event, opening: &mut Opening) -> Verdict {
        match said {
            Said::Topic {
                id,
                name,
                os,
                retain_records,
                start,
                end,
                quarantined,
            } => {
                if self.deleted.contains_key(id) {
                    opening.back.insert(*id, name.clone());
                    return Ok(());
                }
                opening.found.insert(*id, (*start, *end, *quarantined));
                if *quarantined && !event.damaged {
                    return Err(format!("J11: topic {id:?} is quarantined without damage"));
                }
                self.figures.quarantines += u64::from(*quarantined);
                if !self.topics.contains_key(id) {
                    match self.pending.take() {
                        Some(Change::Create {
                            id: asked,
                            name,
                            os,
                        }) if asked == *id => {
                            self.apply(&Change::Create { id: *id, name, os }, 0, 0)?;
                        }
                        other => {
                            return Err(format!(
                                "topic {id:?} comes from nowhere; asked: {other:?}"
                            ));
                        }
                    }
                }
                let facts = (name.clone(), *os, *retain_records);
                self.check_topic(*id, facts, *quarantined, event)
            }
            Said::Subscription {
                id,
                name,
                generation,
                committed,
            } => {
                let cursor = Cursor {
                    generation: *generation,
                    committed: *committed,
                };
                opening
                    .cursors
                    .entry(*id)
                    .or_default()
                    .insert(name.clone(), cursor);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_topic(
        &mut self,
        id: Id,
        facts: (String, bool, Option<u64>),
        quarantined: bool,
        event: Event,
    ) -> Verdict {
        let topic = self.topics.get_mut(&id).ok_or("no such topic")?;
        let known = (topic.name.clone(), topic.os, topic.retain_records);
        if known == facts {
            return Ok(());
        }
        let asked = match &self.pending {
            Some(Change::Rename { id: asked, to, .. }) if *asked == id => {
                Some((to.clone(), known.1, known.2))
            }
            Some(Change::Set {
                id: asked,
                os,
                retain_records,
                ..
            }) if *asked == id => Some((known.0.clone(), *os, *retain_records)),
            _ => None,
        };
        if asked.as_ref() == Some(&facts) {
            self.pending = None;
        } else if !(quarantined && event.damaged) {
            return Err(format!(
                "topic {id:?} is {facts:?}, was acknowledged as {known:?}, asked for {asked:?}"
            ));
        }
        (topic.name, topic.os, topic.retain_records) = facts;
        Ok(())
    }

    /// Topics begin where `before` knows them to: retention went on in a copy, not in what was copied.
    pub fn begins_as(&mut self, before: &Self) {
        for (id, topic) in &mut self.topics {
            if let Some(known) = before.topics.get(id) {
                topic.start = known.start;
            }
        }
    }

    /// Everything an opening found is there: compares, and forgets what is decided now.
    fn settle(&mut self, opening: Opening, event: Event, from: &BTreeMap<Id, u64>) -> Verdict {
        let missing: Vec<Id> = self
            .topics
            .keys()
            .filter(|id| !opening.found.contains_key(id))
            .copied()
            .collect();
        for id in missing {
            match &self.pending {
                Some(Change::Delete { id: asked, .. }) if *asked == id => {
                    let change = self.pending.take().ok_or("just seen")?;
                    self.apply(&change, 0, 0)?;
                }
                _ if event.damaged && opening.names(&id.0.to_string()) => {
                    _ = self.topics.remove(&id)
                }
                _ => return Err(format!("topic {id:?} is gone; pending: {:?}", self.pending)),
            }
        }
        for (id, name) in &opening.back {
            let named = event.damaged && opening.names(name);
            if !named && !self.back.contains(id) {
                return Err(format!("deleted topic {id:?} is back"));
            }
            self.back.insert(*id);
        }
        for (id, (start, end, quarantined)) in &opening.found {
            let items = opening.topics.get(id).map_or(&[][..], Vec::as_slice);
            let cursors = opening.cursors.get(id).cloned().unwrap_or_default();
            if !self.topics.contains_key(id) {
                continue;
            }
            self.settle_cursors(*id, &cursors, *quarantined && event.damaged)?;
            let from = from.get(id).copied().unwrap_or(0);
            let facts = Facts {
                start: *start,
                end: *end,
                from,
                quarantined: *quarantined,
            };
            self.settle_records(*id, items, facts, event)?;
        }
        self.figures.named += opening.damage.len() as u64;
        self.pending = None;
        Ok(())
    }

    fn settle_cursors(
        &mut self,
        id: Id,
        found: &BTreeMap<String, Cursor>,
        uncertain: bool,
    ) -> Verdict {
        let mut with_pending = self.topics[&id].clone();
        if let Some(change) = &self.pending {
            let (generation, committed) = match change {
                Change::Subscribe { name, .. } | Change::Seek { name, .. } => found
                    .get(name)
                    .map_or((0, 0), |cursor| (cursor.generation, cursor.committed)),
                Change::Commit {
                    generation, offset, ..
                } => (*generation, *offset),
                _ => (0, 0),
            };
            with_pending.change_cursor(id, change, generation, committed);
        }
        let topic = self.topics.get_mut(&id).ok_or("no such topic")?;
        if *found == topic.cursors {
            return Ok(());
        }
        if *found == with_pending.cursors && with_pending.generation >= topic.generation {
            *topic = with_pending;
            return Ok(());
        }
        if uncertain {
            // Changes of it are lost and that is told: a topic in quarantine serves what is intact.
            topic.cursors.clone_from(found);
            return Ok(());
        }
        Err(format!(
            "topic {id:?}: subscriptions are {found:?}, acknowledged {:?}, asked for {:?}",
            topic.cursors, self.pending
        ))
    }

    fn settle_records(&mut self, id: Id, items: &[Item], facts: Facts, event: Event) -> Verdict {
        let pending = match &self.pending {
            Some(Change::Purge { id: asked, to, .. }) if *asked == id => Some(*to),
            _ => None,
        };
        let topic = self.topics.get_mut(&id).ok_or("no such topic")?;
        let wrong = |what: String| Err(format!("topic {id:?}: {what}"));
        if facts.start < topic.start && !facts.quarantined {
            return wrong(format!(
                "its start went back from {} to {}",
                topic.start, facts.start
            ));
        }
        let spare = topic
            .least_retained
            .map(|kept| facts.end.saturating_sub(kept));
        let may_be = spare.into_iter().chain(pending).max().unwrap_or(0);
        if facts.start > topic.start.max(may_be) {
            return wrong(format!(
                "its start moved from {} to {} by itself; it ends at {} and keeps at least {:?}",
                topic.start, facts.start, facts.end, topic.least_retained
            ));
        }
        topic.start = facts.start;
        topic.check_line(items, &facts).or_else(&wrong)?;
        topic.check_lanes(items, &facts, event).or_else(&wrong)?;
        topic.check_seen(items, &facts, event).or_else(&wrong)?;
        topic.end = facts.end;
        for item in items {
            self.note_read(id, item, true)?;
        }
        self.figures.found += items.len() as u64;
        Ok(())
    }

    /// Somebody read this: from now on it is this at this offset, or it is gone for good.
    fn note_read(&mut self, id: Id, item: &Item, recovered: bool) -> Verdict {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Ok(());
        };
        let Item::Batch(base, count, producer, first) = *item else {
            return Ok(());
        };
        let hold = if recovered || !topic.ever_os {
            Hold::Kept
        } else {
            Hold::Written
        };
        topic
            .see(
                base,
                Seen {
                    count,
                    producer,
                    first,
                    hold,
                },
            )
            .map_err(|what| format!("topic {id:?}: {what}"))
    }

    fn note_acknowledged(&mut self, said: &Said) -> Verdict {
        let Said::Acknowledged {
            id,
            producer,
            first,
            count,
            base,
            end,
            os,
            duplicate,
        } = *said
        else {
            return Ok(());
        };
        self.figures.acknowledged += u64::from(count);
        self.figures.duplicates += u64::from(duplicate);
        let Some(topic) = self.topics.get_mut(&id) else {
            // Made by a change whose answer is still to come, or deleted by one.
            return Ok(());
        };
        if base + u64::from(count) != end {
            return Err(format!(
                "topic {id:?}: {count} records at {base} end at {end}"
            ));
        }
        let next = topic.next.entry(producer).or_default();
        if first + u64::from(count) > *next {
            *next = first + u64::from(count);
        }
        let hold = if os { Hold::Written } else { Hold::Kept };
        topic
            .see(
                base,
                Seen {
                    count,
                    producer,
                    first,
                    hold,
                },
            )
            .map_err(|what| format!("topic {id:?}: {what}"))
    }

    fn note_refused(&mut self, id: Id, why: &str, event: Event) -> Verdict {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Ok(());
        };
        let deleting =
            matches!(&self.pending, Some(Change::Delete { id: asked, .. }) if *asked == id);
        // A producer all of whose batches were lost by a power cut or damage is not known any more.
        let forgotten = why.starts_with("UnknownProducer") && (topic.ever_os || event.damaged);
        let stopped = why.starts_with("StorageStopped");
        let by_damage = event.damaged && NAMED.iter().any(|name| why.starts_with(name));
        if deleting || forgotten || stopped || by_damage {
            return Ok(());
        }
        Err(format!("topic {id:?}: a good batch was refused: {why}"))
    }

    /// A change is durable.
    fn apply(&mut self, change: &Change, a: u64, b: u64) -> Verdict {
        match change {
            Change::Create { id, name, os } => {
                let topic = Topic {
                    name: name.clone(),
                    os: *os,
                    ever_os: *os,
                    retain_records: None,
                    least_retained: None,
                    start: 0,
                    end: 0,
                    seen: BTreeMap::new(),
                    next: BTreeMap::new(),
                    cursors: BTreeMap::new(),
                    generation: 0,
                };
                self.topics.insert(*id, topic);
            }
            Change::Delete { id, name } => {
                self.topics.remove(id);
                self.deleted.insert(*id, name.clone());
            }
            Change::Rename { id, to, .. } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.name.clone_from(to);
                }
            }
            Change::Set {
                id,
                os,
                retain_records,
                ..
            } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.os = *os;
                    topic.retain_records = *retain_records;
                }
            }
            Change::Purge { id, to, .. } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    if a < *to {
                        return Err(format!("topic {id:?}: purged up to {to}, begins at {a}"));
                    }
                    topic.start = topic.start.max(*to);
                }
            }
            Change::Subscribe { id, .. }
            | Change::Commit { id, .. }
            | Change::Seek { id, .. }
            | Change::Unsubscribe { id, .. } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.change_cursor(*id, change, a, b);
                }
            }
        }
        Ok(())
    }
}

/// What an opening said of a topic.
struct Facts {
    start: u64,
    end: u64,
    /// Where reading began.
    from: u64,
    quarantined: bool,
}

impl Topic {
    fn change_cursor(&mut self, id: Id, change: &Change, generation: u64, committed: u64) {
        match change {
            Change::Subscribe {
                id: asked, name, ..
            }
            | Change::Seek {
                id: asked, name, ..
            } if *asked == id && generation > self.generation => {
                // A generation is never given twice.
                self.generation = generation;
                let cursor = Cursor {
                    generation,
                    committed,
                };
                self.cursors.insert(name.clone(), cursor);
            }
            Change::Commit {
                id: asked, name, ..
            } if *asked == id => {
                if let Some(cursor) = self.cursors.get_mut(name) {
                    cursor.committed = cursor.committed.max(committed);
                }
            }
            Change::Unsubscribe {
                id: asked, name, ..
            } if *asked == id => {
                self.cursors.remove(name);
            }
            _ => {}
        }
    }

    /// The items lie one behind the other from where reading began to the end (J9).
    fn check_line(&self, items: &[Item], facts: &Facts) -> Verdict {
        let mut at = facts.from;
        for item in items {
            let (from, to) = item.range();
            // The first batch may begin before what was asked for.
            let fits = from == at
                || (matches!(item, Item::Batch(..))
                    && from < at
                    && at < to
                    && (at == facts.from || at == facts.start));
            if !fits {
                return Err(format!("J9: at {at} comes {item:?}"));
            }
            if let Item::Discarded(_, to) = item
                && *to > facts.start
            {
                return Err(format!(
                    "J9: {item:?} goes beyond the start {}",
                    facts.start
                ));
            }
            at = to;
        }
        if at < facts.end {
            return Err(format!(
                "J9: reading ends at {at}, the topic at {}",
                facts.end
            ));
        }
        Ok(())
    }

    /// Each producer's records are there in its order, once, and all if nothing was lost.
    fn check_lanes(&self, items: &[Item], facts: &Facts, event: Event) -> Verdict {
        let mut next: BTreeMap<u8, u64> = BTreeMap::new();
        for seen in self.seen.range(..facts.from).map(|(_, seen)| seen) {
            if seen.hold != Hold::Lost {
                let after = next.entry(seen.producer).or_default();
                *after = (*after).max(seen.first + u64::from(seen.count));
            }
        }
        // What was discarded before anybody saw it is not known.
        let complete = facts.start == 0 || facts.from >= facts.start;
        let mut met = BTreeSet::new();
        for item in items {
            let Item::Batch(base, count, producer, first) = *item else {
                continue;
            };
            let first_met = met.insert(producer);
            let holes = self.ever_os || event.damaged || (first_met && !complete);
            match next.get(&producer) {
                Some(expected) if first < *expected => {
                    return Err(format!(
                        "producer {producer} has record {first} again at {base}, after {expected}"
                    ));
                }
                Some(expected) if first > *expected && !holes => {
                    return Err(format!(
                        "producer {producer}: records {expected} to {first} are missing at {base}"
                    ));
                }
                None if first > 0 && !holes => {
                    return Err(format!(
                        "producer {producer}: records 0 to {first} are missing at {base}"
                    ));
                }
                _ => {}
            }
            next.insert(producer, first + u64::from(count));
        }
        Ok(())
    }

    /// What was seen or acknowledged is there, or may be gone.
    fn check_seen(&mut self, items: &[Item], facts: &Facts, event: Event) -> Verdict {
        let mut batches = BTreeMap::new();
        let mut gaps = Vec::new();
        for item in items {
            match *item {
                Item::Batch(base, count, producer, first) => {
                    batches.insert(base, (count, producer, first));
                }
                Item::Lost(from, to) => gaps.push((from, to, false)),
                Item::Damaged(from, to) => gaps.push((from, to, true)),
                Item::Discarded(..) => {}
            }
        }
        if let Some((from, to, _)) = gaps.iter().find(|(.., damaged)| *damaged)
            && !event.damaged
        {
            return Err(format!("J11: [{from}, {to}) is damaged and nobody did it"));
        }
        if let Some((from, to, _)) = gaps.first()
            && !self.ever_os
            && !event.damaged
        {
            return Err(format!(
                "J1: [{from}, {to}) is lost in a topic that never was `os`"
            ));
        }
        let (start, end) = (facts.start, facts.end);
        for (&base, seen) in self.seen.range_mut(facts.from..) {
            let to = base + u64::from(seen.count);
            let there = batches.get(&base) == Some(&(seen.count, seen.producer, seen.first));
            let in_gap = |damaged_too: bool| {
                gaps.iter().any(|(from, until, damaged)| {
                    *from <= base.max(start) && to <= *until && (damaged_too || !damaged)
                })
            };
            match seen.hold {
                _ if to <= start => {}
                Hold::Lost if there => {
                    return Err(format!("J6: [{base}, {to}) was lost and is back"));
                }
                Hold::Lost => {}
                _ if there => seen.hold = Hold::Kept,
                Hold::Written if event.power_cut && in_gap(false) => seen.hold = Hold::Lost,
                _ if event.damaged && (in_gap(true) || (facts.quarantined && to > end)) => {}
                _ => {
                    return Err(format!(
                        "J1: [{base}, {to}) of producer {} from {} was acknowledged or served and is not there; the topic is [{start}, {end}), gaps {gaps:?}",
                        seen.producer, seen.first
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes note of a batch; another one at the same offsets is the worst there is (J6).
    fn see(&mut self, base: u64, batch: Seen) -> Verdict {
        let to = base + u64::from(batch.count);
        let overlapping = self
            .seen
            .range(..to)
            .next_back()
            .filter(|(known, seen)| **known + u64::from(seen.count) > base);
        match overlapping.map(|(known, seen)| (*known, *seen)) {
            None => {
                self.seen.insert(base, batch);
            }
            Some((known, seen))
                if known == base
                    && (seen.count, seen.producer, seen.first)
                        == (batch.count, batch.producer, batch.first) =>
            {
                if seen.hold == Hold::Lost {
                    return Err(format!("J6: [{base}, {to}) was lost and is served"));
                }
                if batch.hold == Hold::Kept {
                    self.seen.insert(base, batch);
                }
            }
            Some((known, seen)) => {
                return Err(format!(
                    "J6: [{base}, {to}) has two contents: {batch:?}, and at {known} {seen:?}"
                ));
            }
        }
        Ok(())
    }
}
