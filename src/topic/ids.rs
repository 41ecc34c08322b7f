//! Message ids: which are remembered, where their messages stand, and which are forgotten.
//!
//! An id lies in the *page* of its offset: so many neighbouring offsets make one page, and a page is one row. Its
//! place follows from the offset alone, so a replay that meets a message again puts the id where it was, and
//! the row that says that a page is gone takes exactly what was in it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::time::Timestamp;
use crate::types::{IdDigest, Offset};

/// Ids of messages at neighbouring offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct IdPage {
    /// When the newest of them was appended.
    pub newest: Timestamp,
    /// The ids, in the order of their offsets.
    pub ids: Vec<IdSeen>,
}

/// An id that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdSeen {
    /// What stands for it.
    pub id: IdDigest,
    /// Where its message stands.
    pub offset: Offset,
}

/// The page that an offset's id lies in.
pub const fn page_of(offset: Offset) -> u64 {
    offset.get() / limits::IDS_PER_PAGE
}

/// The ids that a topic remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ids {
    /// The last place of each.
    places: HashMap<IdDigest, Offset>,
    pages: BTreeMap<u64, IdPage>,
    count: u64,
}

impl Ids {
    /// Where the message of that id stands, unless it is forgotten. Ids in pages with nothing since `since` are,
    /// though they may still be here.
    pub fn find(&self, id: IdDigest, since: Option<Timestamp>) -> Option<Offset> {
        let offset = *self.places.get(&id)?;
        let page = self.pages.get(&page_of(offset))?;
        let is_old = since.is_some_and(|since| page.newest < since);
        (!is_old).then_some(offset)
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// A page.
    pub fn page(&self, number: u64) -> Option<&IdPage> {
        self.pages.get(&number)
    }

    /// The numbers of the pages.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    /// Number of pages.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Notes that the message of that id stands there, appended at `time`. What is known already changes nothing.
    pub(super) fn remember(&mut self, id: IdDigest, offset: Offset, time: Timestamp) {
        let page = self.pages.entry(page_of(offset)).or_default();
        let at = page.ids.partition_point(|seen| seen.offset < offset);
        if page.ids.get(at).is_some_and(|seen| seen.offset == offset) {
            return;
        }
        page.ids.insert(at, IdSeen { id, offset });
        page.newest = page.newest.max(time);
        self.count += 1;
        self.place(id, offset);
    }

    fn place(&mut self, id: IdDigest, offset: Offset) {
        let last = self.places.entry(id).or_insert(offset);
        *last = offset.max(*last);
    }

    /// Puts a page as its row says.
    pub(super) fn put(&mut self, number: u64, page: IdPage) {
        self.forget(number);
        self.count += page.ids.len() as u64;
        for seen in &page.ids {
            self.place(seen.id, seen.offset);
        }
        self.pages.insert(number, page);
    }

    /// Takes a page away, with the ids whose last place is in it.
    pub(super) fn forget(&mut self, number: u64) {
        let Some(page) = self.pages.remove(&number) else {
            return;
        };
        self.count -= page.ids.len() as u64;
        for seen in page.ids {
            if self.places.get(&seen.id) == Some(&seen.offset) {
                self.places.remove(&seen.id);
            }
        }
        if self.pages.is_empty() {
            *self = Self::default();
        }
    }

    /// The pages to forget, oldest first and some at a time: those without which there are still `most` ids, and
    /// those with nothing since `since`.
    pub(super) fn surplus(&self, most: u64, since: Option<Timestamp>) -> Vec<u64> {
        let mut left = self.count;
        let superfluous = |(_, page): &(&u64, &IdPage)| {
            left = left.saturating_sub(page.ids.len() as u64);
            left >= most || since.is_some_and(|since| page.newest < since)
        };
        let pages = self.pages.iter().take_while(superfluous);
        let pages = pages.map(|(&number, _)| number);
        pages.take(limits::ID_PAGES_FORGOTTEN_AT_ONCE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> IdDigest {
        IdDigest::of(&n.to_le_bytes())
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn filled(count: u64) -> Ids {
        let mut ids = Ids::default();
        for n in 0..count {
            ids.remember(id(n), Offset::new(3 * n), at(n as i64));
        }
        ids
    }

    #[test]
    fn an_id_is_found_where_it_was_seen_last() {
        let mut ids = filled(1000);
        assert_eq!(ids.find(id(7), None), Some(Offset::new(21)));
        assert_eq!(ids.find(id(1000), None), None);
        // Seen again, after it was too old.
        ids.remember(id(7), Offset::new(9_000), at(2_000));
        assert_eq!(ids.find(id(7), None), Some(Offset::new(9_000)));
        ids.forget(0);
        assert_eq!(ids.find(id(7), None), Some(Offset::new(9_000)));
        assert_eq!(ids.find(id(8), None), None);
        // Whatever is met twice is there once.
        let before = ids.clone();
        ids.remember(id(7), Offset::new(9_000), at(2_000));
        ids.remember(id(999), Offset::new(2_997), at(999));
        assert_eq!(ids, before);
    }

    #[test]
    fn the_oldest_pages_go_and_at_least_so_many_ids_stay() {
        for most in [1, 100, 999, 1000, 2000] {
            let mut ids = filled(1000);
            loop {
                let surplus = ids.surplus(most, None);
                if surplus.is_empty() {
                    break;
                }
                surplus.into_iter().for_each(|page| ids.forget(page));
            }
            let most_kept = most + limits::IDS_PER_PAGE;
            assert!((most.min(1000)..=most_kept).contains(&ids.count()));
            for n in 0..1000 {
                let is_there = n >= 1000 - ids.count();
                assert_eq!(ids.find(id(n), None).is_some(), is_there, "{n} of {most}");
            }
        }
    }

    #[test]
    fn what_is_too_old_is_not_found_and_goes() {
        let mut ids = filled(1000);
        let since = Some(at(500));
        assert_eq!(ids.find(id(0), since), None);
        assert!(ids.find(id(500), since).is_some());
        loop {
            let surplus = ids.surplus(u64::MAX, since);
            if surplus.is_empty() {
                break;
            }
            surplus.into_iter().for_each(|page| ids.forget(page));
        }
        assert!(ids.find(id(500), None).is_some() && ids.find(id(0), None).is_none());
        assert!(ids.count() <= 500 + limits::IDS_PER_PAGE);
    }

    #[test]
    fn rows_put_together_what_was_there() {
        let ids = filled(1000);
        let mut again = Ids::default();
        for number in ids.pages().collect::<Vec<_>>().into_iter().rev() {
            let page = ids.page(number).expect("there").clone();
            again.put(number, page.clone());
            again.put(number, page);
        }
        assert_eq!(again, ids);
        for number in ids.pages() {
            again.forget(number);
        }
        assert_eq!(again, Ids::default());
    }
}
