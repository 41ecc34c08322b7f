//! The rows of a topic's consumer groups, as they are durable.
//!
//! A page belongs to a generation, not to a name: what a group wrote before it was moved, or made anew, is none of what it
//! is now. So the group's row alone says which pages there are (those of its generation, from its floor's page on), and
//! nothing has to delete the others: they go when the row is put.

use std::collections::BTreeMap;

use super::rows::{ConsumerGroupRow, ConsumerPageRow, page_start};
use crate::limits;
use crate::types::{Generation, Offset, SubscriptionName};

/// The consumer groups of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumers {
    groups: BTreeMap<SubscriptionName, ConsumerGroupRow>,
    /// First page that counts, by the generation of a group.
    floors: BTreeMap<Generation, u64>,
    pages: BTreeMap<(Generation, u64), ConsumerPageRow>,
}

impl Consumers {
    /// The group of that name.
    pub fn group(&self, name: &SubscriptionName) -> Option<&ConsumerGroupRow> {
        self.groups.get(name)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&SubscriptionName, &ConsumerGroupRow)> {
        self.groups.iter()
    }

    /// One page.
    pub fn page(&self, generation: Generation, page: u64) -> Option<&ConsumerPageRow> {
        self.pages.get(&(generation, page))
    }

    /// The names of all pages.
    pub fn pages(&self) -> impl Iterator<Item = (Generation, u64)> {
        self.pages.keys().copied()
    }

    /// The pages of one generation, in order.
    pub fn pages_of(
        &self,
        generation: Generation,
    ) -> impl Iterator<Item = (u64, &ConsumerPageRow)> {
        let range = self.pages.range((generation, 0)..=(generation, u64::MAX));
        range.map(|((_, page), row)| (*page, row))
    }

    /// How many offsets of a group are not settled, in a topic that ends there. Where there are gaps they count.
    pub fn unsettled(&self, row: &ConsumerGroupRow, end: Offset) -> u64 {
        let pages = self.pages_of(row.generation);
        let settled = pages.map(|(page, content)| {
            let below = row
                .floor
                .since(page_start(page))
                .min(limits::CONSUMER_PAGE_OFFSETS);
            let all = content
                .settled
                .iter()
                .map(|word| u64::from(word.count_ones()));
            // What lies below the floor is settled, and noted as that.
            all.sum::<u64>().saturating_sub(below)
        });
        end.since(row.floor).saturating_sub(settled.sum())
    }

    /// How many groups and pages there are.
    pub fn count(&self) -> (usize, usize) {
        (self.groups.len(), self.pages.len())
    }

    /// Puts the row of a group, or removes it; returns the pages that went with that.
    pub(in crate::topic) fn put_group(
        &mut self,
        name: &SubscriptionName,
        row: Option<ConsumerGroupRow>,
    ) -> Vec<(Generation, u64)> {
        let before = self.groups.remove(name);
        let mut gone = Vec::new();
        if let Some(before) = &before
            && row.as_ref().map(|row| row.generation) != Some(before.generation)
        {
            self.floors.remove(&before.generation);
            self.drop_pages(before.generation, u64::MAX, &mut gone);
        }
        if let Some(row) = row {
            self.floors.insert(row.generation, row.floor_page());
            if row.floor_page() > 0 {
                self.drop_pages(row.generation, row.floor_page() - 1, &mut gone);
            }
            self.groups.insert(name.clone(), row);
        }
        gone
    }

    /// Removes the pages of a generation up to `last`.
    fn drop_pages(&mut self, generation: Generation, last: u64, gone: &mut Vec<(Generation, u64)>) {
        let range = self.pages.range((generation, 0)..=(generation, last));
        let first = gone.len();
        gone.extend(range.map(|(key, _)| *key));
        for key in &gone[first..] {
            self.pages.remove(key);
        }
    }

    /// Puts a page. One that no group has, or that lies below its floor, says nothing.
    pub(in crate::topic) fn put_page(
        &mut self,
        generation: Generation,
        page: u64,
        row: ConsumerPageRow,
    ) {
        if self
            .floors
            .get(&generation)
            .is_some_and(|floor| page >= *floor)
        {
            self.pages.insert((generation, page), row);
        }
    }

    /// Removes a page.
    pub(in crate::topic) fn remove_page(&mut self, generation: Generation, page: u64) {
        self.pages.remove(&(generation, page));
    }
}
