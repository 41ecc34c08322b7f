//! Knowing what was sent, acknowledged and read back, one bit a record.
//!
//! Every payload begins with the run, the publisher and the publisher's number
//! of the record, so that reading a topic back finds what is missing, what is
//! there twice, and what stands after a later one of the same publisher.

use crate::cli::bench::report::Verdict;

/// Bytes of the stamp at the start of each payload.
pub const STAMP_BYTES: usize = 20;

/// What a payload begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The measurement, so that what is left of another one is not counted.
    pub run: u64,
    /// The publisher.
    pub publisher: u32,
    /// Its number of the record, dense from 0 over all topics.
    pub number: u64,
}

impl Stamp {
    /// Writes it into the start of a payload.
    pub fn put(self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.run.to_le_bytes());
        payload[8..12].copy_from_slice(&self.publisher.to_le_bytes());
        payload[12..STAMP_BYTES].copy_from_slice(&self.number.to_le_bytes());
    }

    /// Reads it back; `None` if the payload is too short to be ours.
    pub fn get(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            publisher: u32::from_le_bytes(*publisher),
            number: u64::from_le_bytes(*number),
        })
    }
}

/// A growing set of numbers.
#[derive(Debug, Clone, Default)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds a number; false if it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        let words = self.0.iter();
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Adds all of another set.
    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// How many are here and not in `other`.
    fn missing_from(&self, other: &Self) -> u64 {
        let words = self.0.iter().enumerate();
        words
            .map(|(at, word)| word & !other.0.get(at).copied().unwrap_or(0))
            .map(|missing| u64::from(missing.count_ones()))
            .sum()
    }
}

/// The highest number of each publisher so far, in one topic.
#[derive(Debug, Clone)]
pub struct Highest(Vec<u64>);

/// What was read back.
#[derive(Debug)]
pub struct Ledger {
    /// How many records of the run.
    pub records: u64,
    run: u64,
    /// By publisher.
    seen: Vec<Numbers>,
    verdict: Verdict,
}

impl Ledger {
    /// An empty one for the run of so many publishers.
    pub fn new(run: u64, publishers: u32) -> Self {
        Self {
            records: 0,
            run,
            seen: vec![Numbers::default(); publishers as usize],
            verdict: Verdict::default(),
        }
    }

    /// What to read a topic with.
    pub fn highest(&self) -> Highest {
        Highest(vec![0; self.seen.len()])
    }

    /// Notes one record read.
    pub fn read(&mut self, payload: &[u8], highest: &mut Highest) {
        let Some(stamp) = self.note(payload) else {
            return;
        };
        let highest = &mut highest.0[stamp.publisher as usize];
        if stamp.number < *highest {
            self.verdict.out_of_order += 1;
        }
        *highest = (*highest).max(stamp.number);
    }

    /// Notes one record read by one of several who share them.
    pub fn read_in_any_order(&mut self, payload: &[u8]) {
        let _ = self.note(payload);
    }

    /// Notes a record of the run; tells which it is, the first time.
    fn note(&mut self, payload: &[u8]) -> Option<Stamp> {
        let stamp = Stamp::get(payload).filter(|stamp| stamp.run == self.run)?;
        let seen = self.seen.get_mut(stamp.publisher as usize)?;
        self.records += 1;
        if !seen.insert(stamp.number) {
            self.verdict.duplicated += 1;
            return None;
        }
        Some(stamp)
    }

    /// Adds what others read: what both read is there twice.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.verdict.duplicated += other.verdict.duplicated;
        self.verdict.out_of_order += other.verdict.out_of_order;
        for (seen, more) in self.seen.iter_mut().zip(&other.seen) {
            self.verdict.duplicated += more.count() - more.missing_from(seen);
            seen.add(more);
        }
    }

    /// What is wrong, given what each publisher had acknowledged.
    pub fn verdict(&self, acknowledged: &[Numbers]) -> Verdict {
        let lost = acknowledged
            .iter()
            .zip(&self.seen)
            .map(|(numbers, seen)| numbers.missing_from(seen))
            .sum();
        Verdict {
            lost,
            ..self.verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(publisher: u32, number: u64) -> Vec<u8> {
        let mut payload = vec![0; 32];
        Stamp {
            run: 5,
            publisher,
            number,
        }
        .put(&mut payload);
        payload
    }

    fn verdict_of(read: &[(u32, u64)]) -> Verdict {
        let mut acknowledged = vec![Numbers::default(), Numbers::default()];
        for number in 0..3 {
            assert!(acknowledged[0].insert(number));
            assert!(acknowledged[1].insert(number + 100));
        }
        let mut ledger = Ledger::new(5, 2);
        let mut highest = ledger.highest();
        for &(publisher, number) in read {
            ledger.read(&payload(publisher, number), &mut highest);
        }
        ledger.read(b"short", &mut highest);
        ledger.verdict(&acknowledged)
    }

    #[test]
    fn each_kind_of_wrong_is_counted() {
        let good = [(0, 0), (1, 100), (0, 1), (0, 2), (1, 101), (1, 102)];
        assert!(verdict_of(&good).is_clean());
        assert_eq!(verdict_of(&good[..5]).lost, 1);
        assert_eq!(verdict_of(&[&good[..], &[(0, 1)]].concat()).duplicated, 1);
        let swapped = [(0, 1), (0, 0), (0, 2), (1, 100), (1, 101), (1, 102)];
        assert_eq!(verdict_of(&swapped).out_of_order, 1);
        let extra = [&good[..], &[(0, 9)]].concat();
        assert!(verdict_of(&extra).is_clean(), "unacknowledged may be there");
    }

    #[test]
    fn what_was_read_of_several_topics_adds_up() {
        let mut all = Ledger::new(5, 1);
        let mut acknowledged = Numbers::default();
        for number in [1, 200] {
            let mut part = Ledger::new(5, 1);
            let mut highest = part.highest();
            part.read(&payload(0, number), &mut highest);
            all.add(part);
            assert!(acknowledged.insert(number));
        }
        // What two members of a group were given both is there twice.
        let mut again = Ledger::new(5, 1);
        again.read_in_any_order(&payload(0, 200));
        again.read_in_any_order(&payload(0, 1));
        assert_eq!(again.verdict(&[]), Verdict::default());
        let mut twice = Ledger::new(5, 1);
        twice.read_in_any_order(&payload(0, 200));
        twice.add(again);
        assert_eq!(twice.verdict(&[]).duplicated, 1);
        assert_eq!(all.records, 2);
        assert_eq!(acknowledged.count(), 2);
        assert!(all.verdict(&[acknowledged]).is_clean());
    }
}
