//! The names in their order, as slots: what listings walk along.
//!
//! Chunks of at most 512 slots, none empty, sorted by the names of the entries
//! they point to. Against a `BTreeMap` of names it needs 6 bytes a topic
//! instead of 50, and a page is a walk along an array.

use std::cmp::Ordering;

use super::table::{Slot, Table};

const CHUNK_SLOTS_MAX: usize = 512;

/// Slots sorted by name; names are unique in it.
#[derive(Default)]
pub(super) struct Order {
    chunks: Vec<Vec<Slot>>,
}

fn name(table: &Table, slot: Slot) -> &[u8] {
    table.get(slot).name.as_bytes()
}

/// How many bytes all of the names begin with in common.
fn common_prefix(slots: &[Slot], table: &Table) -> usize {
    let Some((&first, others)) = slots.split_first() else {
        return 0;
    };
    let first = name(table, first);
    let alike = |common: usize, &slot: &Slot| {
        let pairs = first[..common].iter().zip(name(table, slot));
        pairs.take_while(|(a, b)| a == b).count()
    };
    others.iter().fold(first.len(), alike)
}

/// Up to eight bytes as a number that is ordered as they are.
fn key(bytes: &[u8]) -> u64 {
    let mut key = [0; 8];
    let length = bytes.len().min(8);
    key[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(key)
}

impl Order {
    /// Sorts all of `slots` at once: by what follows on the beginning that all names have in common, and
    /// only where that is the same by the whole names, each of which lies somewhere else.
    pub(super) fn build(slots: Vec<Slot>, table: &Table) -> Self {
        let common = common_prefix(&slots, table);
        let mut keyed: Vec<(u64, Slot)> = slots
            .into_iter()
            .map(|slot| (key(&name(table, slot)[common..]), slot))
            .collect();
        keyed.sort_unstable_by(|a, b| {
            let by_name = || name(table, a.1).cmp(name(table, b.1));
            a.0.cmp(&b.0).then_with(by_name)
        });
        let chunks = keyed
            .chunks(CHUNK_SLOTS_MAX / 2)
            .map(|chunk| chunk.iter().map(|&(_, slot)| slot).collect())
            .collect();
        Self { chunks }
    }

    /// The chunk that holds `wanted`, or would.
    fn chunk_for(&self, wanted: &[u8], table: &Table) -> usize {
        self.chunks
            .partition_point(|chunk| name(table, chunk[0]) <= wanted)
            .saturating_sub(1)
    }

    pub(super) fn insert(&mut self, slot: Slot, table: &Table) {
        let wanted = name(table, slot);
        if self.chunks.is_empty() {
            self.chunks.push(vec![slot]);
            return;
        }
        let at = self.chunk_for(wanted, table);
        let chunk = &mut self.chunks[at];
        let place = chunk.partition_point(|&other| name(table, other) < wanted);
        chunk.insert(place, slot);
        if chunk.len() > CHUNK_SLOTS_MAX {
            let upper = chunk.split_off(CHUNK_SLOTS_MAX / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Removes a slot whose entry is still in the table.
    pub(super) fn remove(&mut self, slot: Slot, table: &Table) {
        let wanted = name(table, slot);
        if self.chunks.is_empty() {
            return;
        }
        let at = self.chunk_for(wanted, table);
        let chunk = &mut self.chunks[at];
        if let Ok(place) = chunk.binary_search_by(|&other| name(table, other).cmp(wanted)) {
            chunk.remove(place);
            if chunk.is_empty() {
                self.chunks.remove(at);
            }
        }
    }

    /// The slots whose names are not less than `from` (greater, if `exclusive`).
    pub(super) fn starting<'a>(
        &'a self,
        from: &str,
        exclusive: bool,
        table: &'a Table,
    ) -> impl Iterator<Item = Slot> + 'a {
        let from = from.as_bytes();
        let at = self.chunk_for(from, table);
        let before = |slot: Slot| match name(table, slot).cmp(from) {
            Ordering::Less => true,
            Ordering::Equal => exclusive,
            Ordering::Greater => false,
        };
        let skip = self
            .chunks
            .get(at)
            .map_or(0, |chunk| chunk.partition_point(|&slot| before(slot)));
        self.chunks[at.min(self.chunks.len())..]
            .iter()
            .flatten()
            .copied()
            .skip(skip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Entry, Kind, PeerNumber};
    use super::*;
    use crate::types::{LeaderEpoch, TopicId};

    fn names(order: &Order, table: &Table, from: &str, exclusive: bool) -> Vec<String> {
        order
            .starting(from, exclusive, table)
            .map(|slot| table.get(slot).name.to_string())
            .collect()
    }

    #[test]
    fn stays_sorted_through_splits_and_removals() {
        let mut table = Table::new(false);
        let mut order = Order::default();
        assert!(names(&order, &table, "", false).is_empty());
        let mut slots = Vec::new();
        for n in 0..5_000_u32 {
            let text = format!("t{:05}", (n * 2_741) % 5_000);
            let slot = table.insert(Entry {
                name: text.parse().expect("good"),
                kind: Kind::Held,
                id: TopicId::zero(),
                epoch: LeaderEpoch::ZERO,
                peer: PeerNumber::new(0).expect("small"),
            });
            order.insert(slot, &table);
            slots.push(slot);
        }
        let expected: Vec<_> = (0..5_000).map(|n| format!("t{n:05}")).collect();
        assert_eq!(names(&order, &table, "", false), expected);
        assert_eq!(
            names(&Order::build(slots, &table), &table, "", false),
            expected
        );
        assert_eq!(names(&order, &table, "t04998", false), expected[4_998..]);
        assert_eq!(names(&order, &table, "t04998", true), expected[4_999..]);
        assert_eq!(names(&order, &table, "t04998a", true), expected[4_999..]);
        assert!(names(&order, &table, "u", false).is_empty());
        for slot in 0..5_000 {
            if table.get(slot).name.as_str() != "t00777" {
                order.remove(slot, &table);
            }
        }
        assert_eq!(names(&order, &table, "", false), ["t00777"]);
    }
}
