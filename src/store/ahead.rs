//! Reading ahead: while one answer is on its way to a reader, the next is read from the disk.
//!
//! A reader is known by where it goes on: whoever asks from exactly the offset at which an answer from the
//! disk ended reads in order, and what follows is read before it asks. It asks for less, comes from elsewhere,
//! or not at all: then what was read is let go after a while.
//!
//! Who comes for what was read ahead is read ahead of further, so that neither disk nor reader waits for the other, as long as
//! half of the room is free:
//!
//! ```text
//!   asked:                on its way │
//!   a chain ahead of it:             │ at hand ─► at hand ─► being read ─► (begun when that one ends)
//! ```
//!
//! Invariants:
//!
//! 1. What was read ahead is handed out only for the very request it was read for, and only once.
//! 2. It is not handed out if the topic begins after that offset by now, or a key was purged meanwhile: what was
//!    discarded or purged is told as such.
//! 3. At most [`limits::READ_AHEAD_BYTES_MAX`] are asked for in advance and waited for, all readers together; an answer whose
//!    first batch alone is more counts with all of it, once that is known.
//! 4. An error or an empty answer is never handed out: the request is then read as if nothing had been read ahead.
//! 5. What nobody wants any more, because its reader gave up or did not come, is read to its end and its chain goes no further.
//! 6. A chain has at most [`limits::READ_AHEAD_ANSWERS_MAX`] answers, and one before its reader came for the first. It goes on
//!    from where it ended, never twice from the same place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::reader::{self, ReadError, ReadRequest, ReadResult};
use super::shared::{Shared, TopicShared};
use crate::limits;
use crate::types::{Offset, TopicId};

/// Answers that were not asked for yet.
#[derive(Default)]
pub(super) struct ReadAhead {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Vec<Begun>,
    /// Counts them.
    number: u64,
    /// What they may take.
    bytes: usize,
    /// Where readers in order go on, the latest last.
    places: VecDeque<(TopicId, Offset)>,
}

/// A read that was begun.
struct Begun {
    number: u64,
    chain: u64,
    /// Most answers of the chain when this one is read.
    answers_max: usize,
    topic: TopicId,
    request: ReadRequest,
    /// What its answer may take, or takes, in bytes.
    bytes: usize,
    /// Where the chain goes on, once that is known.
    next: Option<Offset>,
    reading: JoinHandle<Result<ReadResult, ReadError>>,
    wanted: Wanted,
}

/// That somebody may still come for an answer; gone when this is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What is read from, and how many may at once.
#[derive(Clone)]
pub(super) struct Source {
    pub shared: Arc<Shared>,
    pub topic: Arc<TopicShared>,
    pub readers: Arc<Semaphore>,
}

/// How a chain goes on.
struct Link {
    chain: u64,
    request: ReadRequest,
    /// Most answers it may have.
    answers_max: usize,
}

impl State {
    fn remove(&mut self, wanted: impl Fn(&Begun) -> bool) -> Option<Begun> {
        let at = self.begun.iter().position(wanted)?;
        let begun = self.begun.swap_remove(at);
        self.bytes -= begun.bytes;
        Some(begun)
    }

    /// Where the chain goes on that begins with `request`, of so many answers at most; a new one if there is none. `None`: its last
    /// answer is being read, and it goes on by itself.
    fn end_of_chain(
        &mut self,
        topic: TopicId,
        request: ReadRequest,
        answers_max: usize,
    ) -> Option<Link> {
        let mut chain = None;
        let mut request = request;
        while let Some(begun) = self.begun.iter_mut().find(|b| b.is(topic, &request)) {
            chain = Some(begun.chain);
            begun.answers_max = answers_max;
            request.from = begun.next?;
        }
        let chain = chain.unwrap_or_else(|| {
            self.number += 1;
            self.number
        });
        Some(Link {
            chain,
            request,
            answers_max,
        })
    }

    /// Whether a chain may have one more answer: the first of another reader comes before the second of one.
    fn has_room(&self, link: &Link) -> bool {
        let of_chain = self.begun.iter().filter(|begun| begun.chain == link.chain);
        let answers = of_chain.count();
        let bytes_max = match answers {
            0 => limits::READ_AHEAD_BYTES_MAX,
            _ => limits::READ_AHEAD_BYTES_MAX / 2,
        };
        answers < link.answers_max && self.bytes + link.request.max_bytes <= bytes_max
    }
}

impl Begun {
    /// Whether it is what somebody asks for who asks for that.
    fn is(&self, topic: TopicId, request: &ReadRequest) -> bool {
        self.topic == topic
            && self.request.from == request.from
            && self.request.pass_damage == request.pass_damage
    }
}

impl ReadAhead {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that wait for their readers.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().begun.len()
    }

    /// What they may take.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The answer to `request`, if it was read ahead.
    pub async fn take(&self, topic: &TopicShared, request: &ReadRequest) -> Option<ReadResult> {
        let begun = self.lock().remove(|begun| begun.is(topic.id, request))?;
        if begun.request.max_bytes > request.max_bytes {
            return None;
        }
        // Held until then: whoever gives up waiting does not want what follows either.
        let _wanted = begun.wanted;
        let result = begun.reading.await.ok()?.ok()?;
        let is_all_there_is = result.is_full || result.next >= topic.readable_end();
        let is_current = topic.start() <= request.from
            && !result.items.is_empty()
            && is_all_there_is
            && topic.has_purges(&result.purges);
        is_current.then_some(result)
    }

    /// Whether a reader that asked from `from` reads in order, has more to read, and more may be read ahead.
    pub fn goes_on(&self, topic: TopicId, from: Offset, result: &ReadResult) -> bool {
        if !result.is_full || result.next <= from {
            return false;
        }
        let mut state = self.lock();
        let known = state.places.iter().rposition(|p| *p == (topic, from));
        if let Some(at) = known {
            state.places.remove(at);
        } else if state.places.len() >= limits::READ_AHEAD_READERS_MAX {
            state.places.pop_front();
        }
        state.places.push_back((topic, result.next));
        known.is_some() && state.bytes < limits::READ_AHEAD_BYTES_MAX
    }

    /// Begins to read what a reader that goes on in order asks for next, while this answer is on its way to it, and more if it
    /// came for what was read ahead.
    pub fn read_on(
        self: &Arc<Self>,
        source: Source,
        request: &ReadRequest,
        result: &ReadResult,
        was_ahead: bool,
    ) {
        let topic = source.topic.id;
        if !self.goes_on(topic, request.from, result) {
            return;
        }
        let next = ReadRequest {
            from: result.next,
            ..*request
        };
        let answers_max = match was_ahead {
            true => limits::READ_AHEAD_ANSWERS_MAX,
            false => 1,
        };
        let mut state = self.lock();
        if let Some(link) = state.end_of_chain(topic, next, answers_max) {
            self.begin(&mut state, source, link);
        }
    }

    /// Reads on a thread that may block, if there is room. Only where a place among the readers is free: what was asked for
    /// comes first.
    fn begin(self: &Arc<Self>, state: &mut State, source: Source, link: Link) {
        if !state.has_room(&link) {
            return;
        }
        let Ok(permit) = source.readers.clone().try_acquire_owned() else {
            return;
        };
        state.number += 1;
        let number = state.number;
        let (chain, topic, request) = (link.chain, source.topic.id, link.request);
        let answers_max = link.answers_max;
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let is_wanted = wanted.0.clone();
        let this = Arc::downgrade(self);
        let reading = tokio::task::spawn_blocking(move || {
            let result = reader::read(&source.shared, &source.topic, request);
            drop(permit);
            if let (Some(this), Ok(result)) = (this.upgrade(), &result)
                && is_wanted.load(Ordering::Relaxed)
            {
                this.has_read(number, source, link, result);
            }
            result
        });
        state.bytes += request.max_bytes;
        state.begun.push(Begun {
            number,
            chain,
            answers_max,
            topic,
            request,
            bytes: request.max_bytes,
            next: None,
            reading,
            wanted,
        });
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(limits::READ_AHEAD_KEPT).await;
            if let Some(this) = this.upgrade() {
                let late = this.lock().remove(|begun| begun.number == number);
                drop(late);
            }
        });
    }

    /// An answer was read, whether its reader waits for it or not: its chain goes on.
    fn has_read(self: &Arc<Self>, number: u64, source: Source, link: Link, result: &ReadResult) {
        let goes_on = result.is_full && result.next > link.request.from;
        let request = ReadRequest {
            from: result.next,
            ..link.request
        };
        let mut link = Link { request, ..link };
        let mut guard = self.lock();
        let state = &mut *guard;
        let this = state.begun.iter_mut().find(|begun| begun.number == number);
        if let Some(this) = this {
            // A first batch comes whatever was asked for.
            let more = result.bytes.saturating_sub(this.bytes);
            this.bytes += more;
            state.bytes += more;
            this.next = goes_on.then_some(result.next);
            link.answers_max = this.answers_max;
        }
        let topic = source.topic.id;
        if goes_on && !state.begun.iter().any(|begun| begun.is(topic, &request)) {
            self.begin(state, source, link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId::from_bytes([7; 16]);

    fn link(chain: u64, from: u64, max_bytes: usize) -> Link {
        Link {
            chain,
            request: ReadRequest {
                from: Offset::new(from),
                max_bytes,
                pass_damage: false,
                memory_only: false,
                as_stored: false,
            },
            answers_max: limits::READ_AHEAD_ANSWERS_MAX,
        }
    }

    /// As if it were being read.
    fn begin(state: &mut State, link: &Link, next: Option<u64>) {
        state.number += 1;
        state.bytes += link.request.max_bytes;
        state.begun.push(Begun {
            number: state.number,
            chain: link.chain,
            answers_max: link.answers_max,
            topic: TOPIC,
            request: link.request,
            bytes: link.request.max_bytes,
            next: next.map(Offset::new),
            reading: tokio::spawn(std::future::pending()),
            wanted: Wanted(Arc::new(AtomicBool::new(true))),
        });
    }

    #[tokio::test]
    async fn the_first_answer_of_one_reader_comes_before_the_second_of_another() {
        let mut state = State::default();
        let half = limits::READ_AHEAD_BYTES_MAX / 2;
        begin(&mut state, &link(1, 0, half), None);
        assert!(!state.has_room(&link(1, 10, 1)), "half of it is used");
        assert!(state.has_room(&link(2, 10, half)), "the first of another");
        assert!(!state.has_room(&link(2, 10, half + 1)), "more than is left");
    }

    #[tokio::test]
    async fn a_chain_has_an_end() {
        let mut state = State::default();
        let most = limits::READ_AHEAD_ANSWERS_MAX as u64;
        for answer in 0..most {
            assert!(state.has_room(&link(1, answer, 1)));
            begin(&mut state, &link(1, answer, 1), Some(answer + 1));
        }
        assert!(!state.has_room(&link(1, most, 1)));
        let end = |state: &mut State, from| {
            let end = state.end_of_chain(TOPIC, link(0, from, 1).request, 3);
            end.map(|link| (link.chain, link.request.from.get()))
        };
        assert_eq!(end(&mut state, 0), Some((1, most)));
        assert_eq!(end(&mut state, most - 1), Some((1, most)));
        state.begun[most as usize - 1].next = None;
        assert_eq!(end(&mut state, 0), None, "it goes on by itself");
        let (chain, from) = end(&mut state, most).expect("a chain of its own");
        assert_eq!(from, most);
        assert_ne!(chain, 1);
    }

    /// However long it took: once it is let go nothing more is read.
    #[tokio::test]
    async fn what_is_let_go_or_given_up_is_not_wanted() {
        let mut state = State::default();
        begin(&mut state, &link(1, 0, 5), None);
        let begun = state.remove(|_| true).expect("one");
        let is_wanted = begun.wanted.0.clone();
        assert!(is_wanted.load(Ordering::Relaxed));
        drop(begun);
        assert!(!is_wanted.load(Ordering::Relaxed));
        assert_eq!(state.bytes, 0);
    }
}
