//! Copies without what goes, and the step in which they take the place of their sources.

use super::*;

impl Thinning {
    /// What goes while these are copied, as the reclaimer puts it together.
    pub fn sieve(&self, sources: &[u64]) -> Sieve {
        let mut sieve = Sieve::default();
        if let Some(pass) = &self.pass
            && let (Some(cleaning), Some(verdict)) =
                (&pass.found.verdict.cleaning, sieve.of(TOPICS[pass.topic]))
        {
            verdict.cleaning = Some(cleaning.clone());
        }
        for entry in sources.iter().flat_map(|number| &self.disk.sealed[number]) {
            let topic = self.topic(index(entry.header.topic));
            let purges = purges_of(topic);
            let expired = self.trusted().filter(|_| topic.row.thinned.has_ttl);
            if purges.is_empty() && expired.is_none() {
                continue;
            }
            if let Some(verdict) = sieve.of(topic.id) {
                verdict.purges = (!purges.is_empty()).then_some(purges);
                verdict.expired = expired.map(time);
            }
        }
        sieve
    }

    /// Segments are copied, but for what goes.
    pub fn copy(&mut self, sources: Vec<u64>) {
        let mut live: Vec<StoredEntry> = Vec::new();
        for entry in sources.iter().flat_map(|number| &self.disk.sealed[number]) {
            let model = &self.model[index(entry.header.topic)];
            if entry.header.end_number() > model.start {
                live.push(entry.clone());
            }
        }
        live.sort_by_key(|entry| (entry.header.topic, entry.header.number));
        let mut gone = Vec::new();
        for entry in &live {
            let which = index(entry.header.topic);
            let pass = self.pass.as_ref().filter(|pass| pass.topic == which);
            for at in entry.header.number..entry.header.end_number() {
                let pass = pass.map(|pass| &pass.model);
                let reason = self.model[which].goes(at, self.trusted(), pass);
                gone.extend(reason.map(|reason| (which, at, reason)));
            }
        }
        let mut sifting = Sifting::new(self.sieve(&sources));
        let mut copies: Vec<StoredEntry> = Vec::new();
        let mut push = |header: &EntryHeader, payload: &[u8]| {
            copies.push(StoredEntry {
                position: 0,
                header: *header,
                payload: Bytes::copy_from_slice(payload),
            });
            Ok(())
        };
        for entry in &live {
            let (header, payload) = (entry.header, &entry.payload[..]);
            let sifted = sifting.sift(&CheckedEntry { header, payload }, &mut push);
            sifted.expect("nothing is written to a disk");
        }
        sifting.flush(&mut push).expect("nothing is written");
        assert!(!sifting.is_partial, "there is room for a few notes");
        self.check_spans(&live, &copies);
        let cut = self.below(copies.len() as u64 + 1) as usize;
        let behind = copies.split_off(cut);
        self.copied = Some(Copied {
            sources,
            outputs: vec![copies, behind],
            sifted: sifting.into_sifted(),
            gone,
        });
    }

    /// The copies span the offsets that lived in the sources (C1), with the append times their records had.
    pub fn check_spans(&self, live: &[StoredEntry], copies: &[StoredEntry]) {
        let offsets = |entries: &[StoredEntry]| -> Vec<(usize, u64)> {
            let span = |entry: &StoredEntry| {
                let which = index(entry.header.topic);
                (entry.header.number..entry.header.end_number()).map(move |at| (which, at))
            };
            entries.iter().flat_map(span).collect()
        };
        assert_eq!(offsets(copies), offsets(live), "C1");
    }

    /// The copies take the place of their sources, in one step, or not at all (C3, C7).
    pub fn swap(&mut self) {
        let Some(copied) = self.copied.take() else {
            return;
        };
        let may = |of: &Sifted| may_be_thinned(&self.state, of);
        let refused = !copied.sifted.iter().all(may);
        let not_any_more = |(which, _, reason): &(usize, u64, GapReason)| {
            *reason == GapReason::Compacted && !self.model[*which].compacts
        };
        assert_eq!(refused, copied.gone.iter().any(not_any_more), "C7");
        if refused {
            self.pass = None;
            return self.seen.note("swap refused");
        }
        for number in &copied.sources {
            self.disk.sealed.remove(number);
        }
        for output in copied.outputs.into_iter().filter(|out| !out.is_empty()) {
            let number = self.disk.next();
            self.disk.sealed.insert(number, output);
        }
        let mut counted = [0, 0];
        for of in &copied.sifted {
            let topic = self.state.topic_mut(of.topic).expect("there");
            counted[index(of.topic)] += of.count_off(topic).0;
        }
        let mut expected = [0, 0];
        for (which, at, reason) in copied.gone {
            let model = &mut self.model[which];
            model.records[at as usize].gone = Some(reason);
            expected[which] += u64::from(at >= model.start);
            self.seen.note(match reason {
                GapReason::Compacted => "compacted",
                GapReason::Expired => "expired",
                _ => "purged",
            });
            if model.records[at as usize].value.is_empty() && reason == GapReason::Compacted {
                self.seen.note("deletion compacted");
            }
        }
        assert_eq!(counted, expected, "C6");
    }

    /// Segments are copied for another reason, whatever lies in them.
    pub fn copy_some(&mut self) {
        if self.copied.is_some() {
            return;
        }
        let all: Vec<u64> = self.disk.sealed.keys().copied().collect();
        let mut some = BTreeSet::new();
        for _ in 0..1 + self.below(3) {
            some.extend(self.random.of(&all));
        }
        if !some.is_empty() {
            self.copy(some.into_iter().collect());
            self.seen.note("copied for another reason");
        }
    }

    /// Segments in which nothing lives are given up.
    pub fn free(&mut self) {
        let starts = [self.model[0].start, self.model[1].start];
        let lives = |e: &StoredEntry| e.header.end_number() > starts[index(e.header.topic)];
        self.disk
            .sealed
            .retain(|_, entries| entries.iter().any(lives));
    }

    pub fn give_up(&mut self) {
        let had = self.pass.is_some() || self.copied.is_some();
        if self.random.one_in(2) {
            self.pass = None;
        }
        self.copied = None;
        if had {
            self.seen.note("given up half way");
        }
    }
}
