//! Cold segments: what lives in mostly dead segments, copied together.
//!
//! ```text
//!   segment 7   [A1 . . . B4 .]  \
//!   segment 9   [. . A2 . . . .]  >  cold 31  [A1 A2 | B4 | C8 C9]   sorted by topic and offset
//!   segment 12  [. C8 C9 . . .]  /
//! ```
//!
//! [`look`] counts what lives where, [`choose`] says what is worth copying, the
//! [copier](super::copier) copies it, [`swap`] lets the writer put the cold
//! segments in the place of their sources, in one state entry.
//!
//! 1. Sources lie wholly before the catalog's durable position and the usable
//!    snapshot's begin, or are cold: no walk along the stream needs them.
//! 2. A cold segment is durable, footer and all, before an entry names it. Until
//!    then its slot is free: a crash leaves nothing to clean up.
//! 3. What lives only gets less: a start never falls and an id never returns. So
//!    a copy made of what lived then holds all that lives when it is put in, but for
//!    single records that the [sieve](super::sieve) took out on the way.
//! 4. Every copied batch is checked by its own checksum on the way. What cannot be
//!    read ends the copying: its segment is marked as damaged, and stays (J14).
//! 5. Readers find either the source or the copy: the topic's index changes in one
//!    step, before the source is taken out of the table of segments, and its slot
//!    is not touched while somebody reads it (J7).

use std::collections::BTreeMap;

use super::command::Context;
use super::copying::Copies;
use super::index::Run;
use super::keeper::runs;
use super::motion::Motion;
use super::segments::{Pin, Segment};
use super::shared::{Shared, count};
use super::sieve::Sifted;
use crate::journal::{FIRST_POSITION, Footer, footer_bytes};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::topic::{RowKey, SegmentRow, State};
use crate::types::{Offset, TopicId};

/// What of a sealed segment lives.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub number: u64,
    pub row: SegmentRow,
    /// Bytes it would take elsewhere: live entries with their headers, and their part of a footer.
    pub live_bytes: u64,
    /// Those of them that are to go soon by themselves.
    pub going_bytes: u64,
    /// Those of them whose time to live is over: they live on until they are copied, which leaves them out.
    pub over_bytes: u64,
}

impl Usage {
    /// Whether it is no part of the stream.
    pub fn is_cold(&self) -> bool {
        self.row.kind == 3
    }

    /// Whether nothing in it lives.
    pub fn is_dead(&self) -> bool {
        self.live_bytes == 0
    }

    /// Bytes it would take elsewhere without those whose time is over.
    pub fn staying_bytes(&self) -> u64 {
        match self.is_dead() {
            true => 0,
            false => self.live_bytes.saturating_sub(self.over_bytes).max(1),
        }
    }

    /// Whether so much of it goes soon that it is better waited for.
    pub fn is_going(&self) -> bool {
        self.going_bytes * limits::COLD_GOING_SHARE >= self.live_bytes.max(1)
    }

    /// Whether it was copied once, and most of that lives.
    fn is_whole_copy(&self) -> bool {
        let contents = self.row.end.saturating_sub(FIRST_POSITION);
        let copied = u64::from(contents) + u64::from(self.row.footer_length);
        self.is_cold() && self.staying_bytes() * 2 > copied
    }

    #[cfg(test)]
    pub fn for_tests(number: u64, live_bytes: u64) -> Self {
        let row = SegmentRow {
            slot: 1,
            kind: 1,
            salt: [0; 16],
            end: 0,
            footer_position: 0,
            footer_length: 0,
            first_group: 1,
            last_group: 1,
            damaged: false,
        };
        Self {
            number,
            row,
            live_bytes,
            going_bytes: 0,
            over_bytes: 0,
        }
    }
}

/// Counts what lives in every sealed segment. One that cannot be looked into counts as wholly live.
pub(super) fn look(shared: &Shared, motion: &Motion) -> Vec<Usage> {
    // The segments first: a topic is published before any of its records can be in a sealed one.
    let segments = shared.segments.all();
    let mut usages = Vec::new();
    for segment in segments {
        let Some(row) = segment.row else { continue };
        let footer = shared.segments.footer_once(&segment, &shared.dir);
        let (live_bytes, going_bytes) = match footer {
            Ok(Some(footer)) => live_bytes(&footer, shared, motion),
            Ok(None) | Err(_) => (u64::from(shared.dir.slot_bytes()), 0),
        };
        usages.push(Usage {
            number: segment.number,
            row,
            live_bytes,
            going_bytes,
            over_bytes: 0,
        });
    }
    usages
}

/// What lives, and what of that goes soon.
fn live_bytes(footer: &Footer, shared: &Shared, motion: &Motion) -> (u64, u64) {
    let (mut bytes, mut going) = (0, 0);
    let starts: Vec<Option<Offset>> = {
        let topics = shared.topics();
        let start_of = |id| topics.by_id.get(&id).map(|topic| topic.start());
        footer.topics().map(|of| start_of(of.topic)).collect()
    };
    for (summary, start) in footer.topics().zip(starts) {
        let Some(start) = start.filter(|start| summary.end > *start) else {
            continue;
        };
        let live = footer.extents_of(summary.topic).filter(|e| e.end() > start);
        let (mut extents, mut length) = (0, 0);
        for extent in live {
            extents += 1;
            length += u64::from(extent.length);
        }
        if extents > 0 {
            let taken = length + footer_bytes(1, extents) as u64;
            bytes += taken;
            if motion.passes_soon(summary.topic, start, summary.end) {
                going += taken;
            }
        }
    }
    (bytes, going)
}

/// What is worth copying together: the segments, and how many slots that gives back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Choice {
    pub sources: Vec<u64>,
    pub gain: u64,
}

/// How much space has to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// There is enough: only what costs little is copied.
    Little,
    /// More is taken than should be.
    More,
    /// More than should be, and there is nothing else to do; or publishing is refused.
    All,
}

impl Need {
    /// How much of a slot may live, in percent, for it to be copied.
    fn live_percent(self) -> u64 {
        match self {
            Self::Little => limits::COLD_LIVE_PERCENT,
            Self::More | Self::All => limits::COLD_LIVE_PERCENT_TIGHT,
        }
    }

    /// Whether so many bytes may be copied for so many that are given back.
    fn allows(self, copied: u64, given_back: u64) -> bool {
        self != Self::Little || given_back >= copied * limits::COLD_GAIN_MIN
    }
}

/// Chooses among `candidates`, those with the least in them first.
///
/// What was copied once is copied again when most of it died, or together with as much as it is itself: so what
/// stays is copied once for each doubling of what it lies beside, and not with every little that comes.
pub(super) fn choose(candidates: &[&Usage], slot_bytes: u64, need: Need) -> Choice {
    let mut sorted: Vec<&Usage> = candidates
        .iter()
        .filter(|usage| usage.staying_bytes() * 100 <= slot_bytes * need.live_percent())
        .copied()
        .collect();
    sorted.sort_by_key(|usage| (usage.staying_bytes(), usage.number));
    loop {
        let count = best_count(&sorted, slot_bytes, need);
        let chosen = &sorted[..count];
        let bytes: u64 = chosen.iter().map(|usage| usage.staying_bytes()).sum();
        let again = |usage: &&Usage| {
            need != Need::All && usage.is_whole_copy() && usage.staying_bytes() * 2 > bytes
        };
        // Sorted by size: if it is any, it is the last of them.
        let Some(at) = chosen.iter().rposition(again) else {
            let gain = gain(chosen.len() as u64, bytes, slot_bytes);
            let sources = chosen.iter().map(|usage| usage.number).collect();
            return Choice { sources, gain };
        };
        sorted.remove(at);
    }
}

/// Slots needed for so many bytes.
fn slots_for(bytes: u64, slot_bytes: u64) -> u64 {
    // Room for headers, and for the end of the contents and the footer to be rounded up.
    let room = slot_bytes - u64::from(FIRST_POSITION) - 2 * u64::from(limits::SECTOR_BYTES_MAX);
    bytes.div_ceil(room)
}

/// Slots that are given back by copying so many bytes out of so many slots.
fn gain(sources: u64, bytes: u64, slot_bytes: u64) -> u64 {
    sources.saturating_sub(slots_for(bytes, slot_bytes))
}

/// How many of the first give back the most.
fn best_count(sorted: &[&Usage], slot_bytes: u64, need: Need) -> usize {
    let (mut best, mut best_count, mut bytes) = (0, 0, 0);
    for (count, usage) in (1..).zip(sorted.iter().take(limits::COLD_SOURCES_MAX)) {
        bytes += usage.staying_bytes();
        if slots_for(bytes, slot_bytes) > limits::COLD_OUTPUTS_MAX {
            break;
        }
        let gain = gain(count as u64, bytes, slot_bytes);
        if gain > best && need.allows(bytes, gain * slot_bytes) {
            (best, best_count) = (gain, count);
        }
    }
    best_count
}

/// Slots that are free once nobody reads them and the entry that says so can no longer be lost.
pub(super) type Given = Vec<(u32, Pin)>;

/// Segments to be given up, and the topics that have something in them.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    usages: Vec<Usage>,
    /// First offset after the last that any of them has of the topic.
    topics: BTreeMap<TopicId, Offset>,
    /// Those that are there and cannot be looked into now: they stay.
    unreadable: Vec<u64>,
}

impl Leaving {
    /// Looks the topics up, so that the writer need not. What cannot be looked into stays.
    pub fn new(shared: &Shared, usages: Vec<Usage>) -> Self {
        let mut leaving = Self {
            usages: Vec::with_capacity(usages.len()),
            topics: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        for usage in usages {
            let Some(segment) = shared.segments.get(usage.number) else {
                continue;
            };
            let Ok(Some(footer)) = shared.segments.footer_once(&segment, &shared.dir) else {
                leaving.unreadable.push(usage.number);
                continue;
            };
            for summary in footer.topics() {
                let end = leaving.topics.entry(summary.topic).or_default();
                *end = summary.end.max(*end);
            }
            leaving.usages.push(usage);
        }
        leaving
    }
}

/// On the writer's thread: the cold segments take the place of their sources.
pub(super) fn swap(
    context: &mut Context<'_>,
    mut sources: Leaving,
    (copies, may_be_even): (Copies, bool),
) -> Result<(Given, Vec<RowKey>), ApiError> {
    let refused = |reason: &str| ApiError::InvalidArgument {
        what: "segments".to_owned(),
        reason: reason.to_owned(),
    };
    let Copies {
        outputs, sifted, ..
    } = copies;
    if sifted.iter().any(|of| !may_be_thinned(context.state, of)) {
        return Err(refused("nothing goes out of one of their topics any more"));
    }
    let rows = context.state.segments();
    // One that is not there any more was freed meanwhile: nothing in it lived.
    sources
        .usages
        .retain(|usage| rows.contains_key(&usage.number));
    let as_it_was = |usage: &Usage| rows.get(&usage.number) == Some(&usage.row);
    if !sources.usages.iter().all(as_it_was) {
        return Err(refused("they changed while they were copied"));
    }
    // Beside the copy one would hold the same offsets a second time.
    if sources
        .unreadable
        .iter()
        .any(|number| rows.contains_key(number))
    {
        return Err(refused("one of them cannot be looked into now"));
    }
    if sources.usages.len() + usize::from(may_be_even) <= outputs.len() {
        return Err(refused("most of them died while they were copied"));
    }
    let mut keys = Vec::new();
    let mut new_runs: BTreeMap<TopicId, Vec<Run>> = BTreeMap::new();
    for output in outputs {
        let number = output.prepared.header.segment;
        for summary in output.footer.topics() {
            let found = runs(number, output.footer.extents_of(summary.topic));
            new_runs.entry(summary.topic).or_default().extend(found);
        }
        context.state.put_segment(number, output.row);
        let segment = Segment::new(output.prepared.header, Some(output.row));
        context.shared.segments.put(segment);
        context.shared.segments.keep(number, output.footer);
        keys.push(RowKey::Segment(number));
    }
    let given = give_up(context, sources, new_runs, &mut keys);
    keys.extend(sifted.iter().filter_map(|of| take_away(context, of)));
    Ok((given, keys))
}

/// Whether records may still go out of a topic, where it is there (C7).
pub(super) fn may_be_thinned(state: &State, sifted: &Sifted) -> bool {
    let Ok(topic) = state.topic(sifted.topic) else {
        return true;
    };
    let may_be_compacted = topic.row.settings.compaction.on || !sifted.is_compacted;
    may_be_compacted && topic.row.quarantine.is_none()
}

/// On the writer's thread: what a copy took out of a topic is counted no more (C6).
fn take_away(context: &mut Context<'_>, sifted: &Sifted) -> Option<RowKey> {
    let shared = context.shared;
    let topic = context.state.topic_mut(sifted.topic).ok()?;
    let (records, bytes) = sifted.count_off(topic);
    let reclaimed = &shared.reclaimed;
    count(&reclaimed.records_removed, records as usize);
    let less = usize::try_from(bytes.saturating_neg()).unwrap_or(0);
    count(&reclaimed.bytes_removed, less);
    let published = shared.publish_topic(topic, None);
    published.was_thinned();
    Some(RowKey::Topic(sifted.topic))
}

/// On the writer's thread: segments in which nothing lives are given up. If anything in them does, all stay.
pub(super) fn free(context: &mut Context<'_>, mut dead: Leaving) -> (Given, Vec<RowKey>) {
    let lives = |(id, end): (&TopicId, &Offset)| {
        let topic = context.state.topic(*id);
        topic.is_ok_and(|topic| topic.row.start < *end)
    };
    if dead.topics.iter().any(lives) {
        return (Vec::new(), Vec::new());
    }
    let segments = context.state.segments();
    dead.usages
        .retain(|usage| segments.get(&usage.number) == Some(&usage.row));
    let mut keys = Vec::new();
    let given = give_up(context, dead, BTreeMap::new(), &mut keys);
    (given, keys)
}

/// Takes the segments out of the state, the topics' indexes and the table, in this order.
fn give_up(
    context: &mut Context<'_>,
    leaving: Leaving,
    mut new_runs: BTreeMap<TopicId, Vec<Run>>,
    keys: &mut Vec<RowKey>,
) -> Given {
    let shared = context.shared;
    let numbers: Vec<u64> = leaving.usages.iter().map(|usage| usage.number).collect();
    for id in leaving.topics.into_keys() {
        if let Some(topic) = shared.topic(id) {
            let runs = new_runs.remove(&id).unwrap_or_default();
            topic.index_mut().replace(&numbers, runs, topic.start());
        }
    }
    let mut given = Vec::new();
    for usage in leaving.usages {
        context.state.remove_segment(usage.number);
        keys.push(RowKey::Segment(usage.number));
        if let Some(pin) = shared.segments.remove(usage.number) {
            given.push((usage.row.slot, pin));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u64 = 100 << 20;

    fn chosen(usages: &[Usage], need: Need) -> (Vec<u64>, u64) {
        let candidates: Vec<&Usage> = usages.iter().collect();
        let chosen = choose(&candidates, SLOT, need);
        (chosen.sources, chosen.gain)
    }

    fn usage(number: u64, live_percent: u64) -> Usage {
        Usage::for_tests(number, live_percent << 20)
    }

    fn choice(percents: &[u64], need: Need) -> (Vec<u64>, u64) {
        let usages: Vec<Usage> = (1..).zip(percents).map(|(n, p)| usage(n, *p)).collect();
        chosen(&usages, need)
    }

    fn cold(number: u64, live_percent: u64, copied_percent: u32) -> Usage {
        let mut usage = usage(number, live_percent);
        usage.row.kind = 3;
        usage.row.end = FIRST_POSITION + (copied_percent << 20);
        usage
    }

    #[test]
    fn copying_has_to_give_back_more_slots_than_it_takes() {
        for need in [Need::Little, Need::More, Need::All] {
            assert_eq!(choice(&[], need), (vec![], 0));
            assert_eq!(choice(&[10], need), (vec![], 0), "one for one is no gain");
            assert_eq!(choice(&[10, 95], need), (vec![], 0), "full ones stay");
            assert_eq!(choice(&[12, 1, 90, 2], need), (vec![2, 4, 1], 2));
            let (sources, gain) = choice(&vec![1; 200], need);
            assert_eq!((sources.len(), gain), (64, 63), "so many at once");
        }
        for need in [Need::More, Need::All] {
            assert_eq!(choice(&[49, 49], need), (vec![1, 2], 1));
            assert_eq!(choice(&[60, 60, 60], need), (vec![1, 2, 3], 1));
            assert_eq!(
                choice(&[81, 1, 81], need),
                (vec![], 0),
                "mostly live ones stay"
            );
        }
    }

    #[test]
    fn without_need_copying_has_to_be_worth_its_bytes() {
        assert_eq!(choice(&[49, 49], Need::Little), (vec![], 0));
        assert_eq!(choice(&[12, 12], Need::Little), (vec![1, 2], 1));
        assert_eq!(choice(&[1, 1, 49], Need::Little), (vec![1, 2], 1));
        assert_eq!(choice(&[12, 12, 25], Need::Little), (vec![1, 2, 3], 2));
    }

    #[test]
    fn what_was_copied_once_is_not_copied_again_for_a_little() {
        let beside = |small: u64, copy: Usage, need| {
            let usages: Vec<Usage> = (1..=small).map(|n| usage(n, 1)).chain([copy]).collect();
            chosen(&usages, need)
        };
        for need in [Need::Little, Need::More] {
            assert_eq!(beside(1, cold(9, 5, 5), need), (vec![], 0));
            assert_eq!(beside(4, cold(9, 5, 5), need), (vec![1, 2, 3, 4], 3));
            assert_eq!(beside(5, cold(9, 5, 5), need).1, 5, "as much as it is");
            assert_eq!(beside(1, cold(9, 5, 9), need), (vec![], 0));
            assert_eq!(beside(1, cold(9, 5, 10), need).1, 1, "half of it died");
        }
        assert_eq!(beside(1, cold(9, 5, 5), Need::All), (vec![1, 9], 1));
        let three = [cold(1, 20, 20), cold(2, 20, 20), cold(3, 21, 21)];
        assert_eq!(chosen(&three, Need::More), (vec![1, 2, 3], 2));
    }

    /// A stable set of small topics beside a busy one, which leaves a little of them in each segment that it fills.
    #[test]
    fn a_stable_set_is_copied_once_for_each_doubling() {
        let (mut number, mut copied, mut made) = (0, 0, 0);
        let mut usages: Vec<Usage> = Vec::new();
        for _ in 0..40 {
            number += 1;
            made += 1;
            usages.push(usage(number, 1));
            let (sources, gain) = chosen(&usages, Need::More);
            if gain == 0 {
                continue;
            }
            let (from, kept): (Vec<Usage>, Vec<Usage>) = usages
                .into_iter()
                .partition(|usage| sources.contains(&usage.number));
            let bytes: u64 = from.iter().map(|usage| usage.live_bytes >> 20).sum();
            copied += bytes;
            number += 1;
            usages = kept;
            usages.push(cold(number, bytes, u32::try_from(bytes).expect("small")));
        }
        assert!(copied <= made * 6, "{copied} copied of {made}");
        assert!(usages.len() <= 7, "{} segments are left", usages.len());
    }
}
