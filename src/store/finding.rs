//! Finding the place of a time in a topic, and that of its last so many records.
//!
//! ```text
//!   appended  9:00 9:01 9:01 9:05    (lost)     9:30 9:31
//!   offset      0    1    2    3   [4 ..... 9)    9   10
//!                    ▲              ▲                  ▲
//!                    9:01           9:10, 9:30         9:31
//! ```
//!
//! The place of a time is right behind the last record that was appended before
//! it, wherever that lies: the first record appended at or after it, or the gap
//! in front of that, because what is missing may have been appended then. Of what
//! was taken out of a batch it is known when it was appended: it counts like the
//! rest, so no place moves when records go.
//!
//! A topic's append times never fall, so extents can be searched by halves: in
//! the footers of sealed segments and among those of the open ones. At most one
//! extent has records from before and from after the time; only that one is read.
//!
//! The last so many records are counted backwards, extent by extent. Only cold
//! segments may have batches that take more offsets than they have records, so only
//! these are read: at most what whoever begins there reads next.

use std::cell::{Cell, OnceCell};

use super::index::{Place, Run};
use super::reader::{ReadError, ReadRequest, pieces_from_disk, read};
use super::segments::Segment;
use super::shared::{Shared, TopicShared};
use super::told::parts;
use crate::journal::{Extent, ExtentRead, JournalError, Kind, Piece};
use crate::limits;
use crate::protocol::batch::{BatchHeader, Piece as Part};
use crate::protocol::data::FetchItem;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::Offset;

/// The extents around a time.
#[derive(Default)]
struct Around {
    /// The last one that ends before it.
    before: Option<Extent>,
    /// The first one that reaches it.
    reaching: Option<Extent>,
}

impl Around {
    /// The nearest of both.
    fn and(self, other: Self) -> Self {
        let reaching = [self.reaching, other.reaching].into_iter().flatten();
        Self {
            before: later(self.before, other.before),
            reaching: reaching.min_by_key(|extent| extent.base),
        }
    }
}

fn later(one: Option<Extent>, other: Option<Extent>) -> Option<Extent> {
    let both = one.into_iter().chain(other);
    both.max_by_key(Extent::end)
}

/// The offset behind the last record that was appended before `time`, inside what the topic holds.
pub(super) fn offset_at_time(
    shared: &Shared,
    topic: &TopicShared,
    time: Timestamp,
) -> Result<Offset, ReadError> {
    let around = loop {
        let index = topic.index();
        let (before, reaching) = index.open_around(|extent| extent.last_time < time);
        let runs = index.runs().to_vec();
        drop(index);
        let search = Search {
            shared,
            topic,
            runs: &runs,
            time,
            is_stale: Cell::new(false),
            failed: OnceCell::new(),
        };
        let sealed = search.run();
        if let Some(error) = search.failed.into_inner() {
            return Err(not_now(&error).into());
        }
        // What was taken out by copying it elsewhere is looked for there.
        if !search.is_stale.get() || topic.index().runs() == runs {
            break Around { before, reaching }.and(sealed);
        }
    };
    let before = around.before.map_or(topic.start(), |extent| extent.end());
    let found = match around.reaching {
        Some(extent) if extent.first_time < time => {
            inside(shared, topic, (before.max(extent.base), time))?
        }
        Some(_) | None => before,
    };
    Ok(found.min(topic.readable_end()).max(topic.start()))
}

struct Search<'a> {
    shared: &'a Shared,
    topic: &'a TopicShared,
    runs: &'a [Run],
    time: Timestamp,
    /// A segment was gone.
    is_stale: Cell<bool>,
    /// A footer could not be read now.
    failed: OnceCell<JournalError>,
}

impl Search<'_> {
    /// The extents around the time among those that footers tell of. A run whose footer is damaged tells nothing:
    /// what it holds is missing.
    fn run(&self) -> Around {
        let (mut low, mut high) = (0, self.runs.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // The next one that tells something says it for those that do not.
            match (middle..high).find_map(|at| Some((at, self.last_of(at)?))) {
                Some((at, last)) if last.last_time < self.time => low = at + 1,
                _ => high = middle,
            }
        }
        let mut before = (0..low).rev().find_map(|at| self.last_of(at));
        for at in low..self.runs.len() {
            let (ended, reaching) = self.split(at);
            before = later(before, ended);
            if reaching.is_some() {
                return Around { before, reaching };
            }
        }
        Around {
            before,
            reaching: None,
        }
    }

    /// The last extent before and the first one from where `holds` no longer does, in the segment of a run.
    fn around(
        &self,
        at: usize,
        holds: impl Fn(&Extent) -> bool,
    ) -> (Option<Extent>, Option<Extent>) {
        let Some(segment) = self.shared.segments.get(self.runs[at].segment) else {
            self.is_stale.set(true);
            return (None, None);
        };
        match self.shared.segments.footer(&segment, &self.shared.dir) {
            Ok(Some(footer)) => footer.split(self.topic.id, holds),
            Err(error) if !error.is_damage() => {
                _ = self.failed.set(error);
                (None, None)
            }
            Ok(None) | Err(_) => (None, None),
        }
    }

    /// Where the next run begins: a cold segment may hold several runs of a topic, with others' between them.
    fn is_of(&self, at: usize, extent: &Extent) -> bool {
        let next = self.runs.get(at + 1);
        next.is_none_or(|next| extent.base < next.base)
    }

    fn last_of(&self, at: usize) -> Option<Extent> {
        let (last, _) = self.around(at, |extent| self.is_of(at, extent));
        last.filter(|last| last.base >= self.runs[at].base)
    }

    /// The last extent of the segment that ends before the time, and the first one of the run that reaches it.
    fn split(&self, at: usize) -> (Option<Extent>, Option<Extent>) {
        let (before, reaching) = self.around(at, |extent| extent.last_time < self.time);
        (before, reaching.filter(|extent| self.is_of(at, extent)))
    }
}

/// What is told where a place cannot be looked up now.
pub(super) fn not_now(error: &JournalError) -> ApiError {
    ApiError::NotReadableNow {
        reason: error.to_string(),
    }
}

/// Reads from an offset whose predecessors are all from before the time, up to the first batch that is not.
fn inside(
    shared: &Shared,
    topic: &TopicShared,
    (from, time): (Offset, Timestamp),
) -> Result<Offset, ReadError> {
    let (mut at, mut known) = (from.max(topic.start()), from);
    while at < topic.readable_end() {
        let request = ReadRequest {
            from: at,
            max_bytes: limits::EXTENT_BYTES_MAX,
            pass_damage: true,
            memory_only: false,
            as_stored: true,
        };
        let result = read(shared, topic, request)?;
        if result.next <= at {
            break;
        }
        let begins = result.items.iter().skip(1).map(begin_of);
        let ends = begins.chain([result.next]);
        for (item, end) in result.items.iter().zip(ends) {
            match item {
                FetchItem::Batch(batch) if batch.append_time >= time => return Ok(known),
                FetchItem::Batch(_) => known = end,
                FetchItem::Gap(_) => {}
            }
        }
        at = result.next;
    }
    Ok(known)
}

fn begin_of(item: &FetchItem) -> Offset {
    match item {
        FetchItem::Batch(batch) => batch.base_offset,
        FetchItem::Gap(gap) => gap.from,
    }
}

/// The offset from which on there are so many records, or the start if there are fewer.
pub(super) fn offset_from_end(
    shared: &Shared,
    topic: &TopicShared,
    records: u64,
) -> Result<Offset, ReadError> {
    let (start, mut at) = (topic.start(), topic.readable_end());
    let mut left = records;
    while left > 0 && at > start {
        // Where footers are ruined, or tell of nothing, it is taken for records, one an offset.
        let unknown = || Before {
            from: start,
            runs: vec![(start, at)],
        };
        let before = match before(shared, topic, at) {
            Err(error) if !error.is_damage() => return Err(not_now(&error).into()),
            before => before.ok().flatten().unwrap_or_else(unknown),
        };
        for (first, end) in before.runs.into_iter().rev() {
            let here = end.since(first);
            if here >= left {
                return Ok(Offset::new(end.get() - left).max(start));
            }
            left -= here;
        }
        at = before.from;
    }
    Ok(at.max(start))
}

/// What lies in front of an offset, from another one on.
struct Before {
    from: Offset,
    /// Offsets with records among it, in order.
    runs: Vec<(Offset, Offset)>,
}

/// The gap or the extent in front of an offset above 0; nothing where nobody knows what is there.
fn before(
    shared: &Shared,
    topic: &TopicShared,
    at: Offset,
) -> Result<Option<Before>, JournalError> {
    let last = Offset::new(at.get() - 1);
    let gaps = topic.gaps();
    let missing = |from| Before {
        from,
        runs: Vec::new(),
    };
    let gap = gaps.iter().find(|gap| gap.from <= last && last < gap.to);
    if let Some(gap) = gap {
        return Ok(Some(missing(gap.from)));
    }
    let segment = loop {
        let place = topic.index().find(last);
        match place {
            Place::Open(open) => return Ok(Some(all_of(&open.extent, at))),
            Place::Sealed { segment, .. } => match shared.segments.get(segment) {
                None if topic.is_elsewhere(last, segment) => {}
                None => return Ok(None),
                Some(found) => break found,
            },
            Place::Nowhere { .. } => return Ok(None),
        }
    };
    let footer = shared.segments.footer(&segment, &shared.dir)?;
    let split = footer.map(|footer| footer.split(topic.id, |extent| extent.base <= last));
    let Some((Some(extent), _)) = split else {
        return Ok(None);
    };
    Ok(Some(match (extent.end() > last, segment.header.kind) {
        (false, _) => missing(extent.end()),
        (true, Kind::Cold) => Before {
            from: extent.base,
            runs: runs_of(shared, topic, (&segment, extent, at))?,
        },
        (true, Kind::Stream | Kind::Recovery) => all_of(&extent, at),
    }))
}

fn all_of(extent: &Extent, at: Offset) -> Before {
    Before {
        from: extent.base,
        runs: vec![(extent.base, at)],
    }
}

/// The offsets of an extent below `at` that have a record.
fn runs_of(
    shared: &Shared,
    topic: &TopicShared,
    (segment, extent, at): (&Segment, Extent, Offset),
) -> Result<Vec<(Offset, Offset)>, JournalError> {
    let read = ExtentRead {
        topic: topic.id,
        extent,
        from: extent.base,
    };
    let mut runs = Vec::new();
    for piece in pieces_from_disk(shared, segment, &read)? {
        let Piece::Entry(entry) = piece else {
            continue;
        };
        for part in parts(&entry).into_iter().flatten() {
            if let Part::Batch(base, batch) = part {
                let count = BatchHeader::parse_prefix(&batch).map_or(0, |h| h.record_count);
                runs.push((base, base.saturating_add(count.into()).min(at)));
            }
        }
    }
    runs.retain(|(from, to)| from < to);
    Ok(runs)
}
