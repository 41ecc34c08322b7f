//! One client that looks topics up: as many at once as it may, or each at its moment.
//!
//! Questions are made before the clock starts, and put into no order; only their
//! correlation is filled in. A client goes through them from a place of its own on: to
//! jump about in a hundred megabytes of questions would cost it as much memory access as
//! the index needs to find the answers, and that is what is measured. The places lie as
//! far apart as can be, so that nobody is answered out of a cache that somebody else has
//! just filled. An answer must be about the topic that was asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::alarm::{Clock, Due};
use crate::cli::bench::line::Line;
use crate::cli::bench::progress::Counter;
use crate::cli::bench::report::Latencies;
use crate::cli::fail::{Failure, Result};
use crate::protocol::api::{Api, Lookup, Request};
use crate::protocol::error::ApiError;
use crate::protocol::frame::{FrameHeader, PREFIX_BYTES};
use crate::types::TopicName;

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Frames that ask for a topic each, one behind the other.
#[derive(Debug)]
pub struct Questions {
    frames: Vec<u8>,
    ends: Vec<usize>,
}

impl Questions {
    /// One for each of the names, in an order that `seed` decides.
    pub fn new(names: &[TopicName], seed: u64) -> Result<Self> {
        let mut questions = Self {
            frames: Vec::new(),
            ends: Vec::with_capacity(names.len()),
        };
        for name in shuffled(names, seed) {
            let lookup = Lookup {
                name: name.clone(),
                local_only: false,
            };
            let body = lookup.encode().map_err(ApiError::from)?;
            let header = FrameHeader::request(Api::Lookup as u16, Lookup::VERSION, 0);
            questions.frames.extend(header.encode(body.len()));
            questions.frames.extend(body);
            questions.ends.push(questions.frames.len());
        }
        Ok(questions)
    }

    fn frame(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.frames[start..self.ends[number]]
    }

    /// Whether that answers the question: it begins with the name that was asked for. What follows
    /// the name in a question is one byte.
    fn is_answered(&self, number: usize, answer: &[u8]) -> bool {
        let name = &self.frame(number)[PREFIX_BYTES..];
        answer.starts_with(&name[..name.len() - 1])
    }
}

/// The same in no order.
fn shuffled(names: &[TopicName], seed: u64) -> Vec<&TopicName> {
    let mut names: Vec<&TopicName> = names.iter().collect();
    let mut random = Random::new(seed);
    for left in (2..=names.len()).rev() {
        names.swap(left - 1, random.below(left));
    }
    names
}

/// Numbers without an order: xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Never 0: it would stay so.
        Self(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// What all clients have in common.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is asked.
    pub questions: Arc<Questions>,
    /// Questions of one client that may be unanswered.
    pub in_flight: usize,
    /// When the first ones are asked, and none any more.
    pub time: (Instant, Instant),
    /// Tells when.
    pub clock: Clock,
    /// Ends it early.
    pub stop: CancellationToken,
    /// Counts answers for who watches.
    pub counter: Counter,
}

/// What came of it.
#[derive(Debug)]
pub struct Asked {
    /// How many questions.
    pub asked: u64,
    /// How many were answered as they should be.
    pub answered: u64,
    /// From the moment of a question to its answer.
    pub latencies: Latencies,
    /// When the last answer came.
    pub last: Option<Instant>,
    /// Why the first one that was refused was.
    pub refused: Option<ApiError>,
}

impl Asked {
    /// None yet.
    pub fn new() -> Self {
        Self {
            asked: 0,
            answered: 0,
            latencies: Latencies::new(),
            last: None,
            refused: None,
        }
    }

    /// Adds those of another client.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.latencies.add(&other.latencies);
        self.last = self.last.max(other.last);
        self.refused = self.refused.take().or(other.refused);
    }
}

/// A client.
pub struct Client {
    plan: Plan,
    /// When its questions are due, if they are.
    due: Option<Due>,
    /// By correlation less one: which question is under way, and since when.
    under_way: Vec<Option<(usize, Instant)>>,
    /// Correlations, less one, that are free.
    free: Vec<usize>,
    /// The question that comes next.
    next: usize,
    to_send: Vec<u8>,
    found: Asked,
}

impl Client {
    /// One that is ready, and asks that question first.
    pub fn new(plan: Plan, due: Option<Due>, first: usize) -> Self {
        Self {
            under_way: vec![None; plan.in_flight],
            free: (0..plan.in_flight).rev().collect(),
            next: first,
            to_send: Vec::new(),
            found: Asked::new(),
            plan,
            due,
        }
    }

    /// Asks until the time is over and everything is answered.
    pub async fn run(mut self, mut line: Line) -> Result<Asked> {
        let mut alarm = self.plan.clock.alarm();
        let (begin, end) = self.plan.time;
        alarm.at(begin).await?;
        let stop = self.plan.stop.clone();
        while !stop.is_cancelled() {
            let next = self.ask(&mut line, end).await?;
            // Late or not: what was due before the end is asked.
            let is_owed = self.due.is_some() && next.is_none_or(|next| next < end);
            let now = Instant::now();
            if now >= end + PATIENCE || (now >= end && !is_owed) {
                break;
            }
            let wakes = next.unwrap_or(match now < end {
                true => end,
                false => end + PATIENCE,
            });
            tokio::select! {
                biased;
                received = line.receive() => {
                    received?;
                    self.take_answers(&mut line)?;
                }
                rung = alarm.at(wakes) => rung?,
                () = stop.cancelled() => {}
            }
        }
        let last = Instant::now() + PATIENCE;
        while self.free.len() < self.under_way.len() {
            match tokio::time::timeout_at(last, line.receive()).await {
                Ok(received) => received?,
                Err(_) => break,
            }
            self.take_answers(&mut line)?;
        }
        Ok(self.found)
    }

    /// Asks what there is room for and what is due; when the next one will be.
    async fn ask(&mut self, line: &mut Line, end: Instant) -> Result<Option<Instant>> {
        let now = Instant::now();
        let mut next = None;
        while let Some(&slot) = self.free.last() {
            let at = self.due.map_or(now, |due| due.of(self.found.asked));
            if at > now || at >= end {
                next = Some(at.min(end));
                break;
            }
            self.free.pop();
            let question = self.pick();
            self.under_way[slot] = Some((question, at));
            let start = self.to_send.len();
            self.to_send
                .extend_from_slice(self.plan.questions.frame(question));
            let correlation = u32::try_from(slot + 1).expect("they are bounded");
            self.to_send[start + PREFIX_BYTES - 4..start + PREFIX_BYTES]
                .copy_from_slice(&correlation.to_le_bytes());
            self.found.asked += 1;
        }
        if !self.to_send.is_empty() {
            line.send(&self.to_send).await?;
            self.to_send.clear();
        }
        Ok(next)
    }

    /// The next of the questions.
    fn pick(&mut self) -> usize {
        let question = self.next;
        self.next = (question + 1) % self.plan.questions.ends.len();
        question
    }

    fn take_answers(&mut self, line: &mut Line) -> Result {
        let now = Instant::now();
        let before = self.found.answered;
        line.frames(|header, body| self.take_answer((header, body), now))?;
        self.plan.counter.add(self.found.answered - before);
        Ok(())
    }

    fn take_answer(&mut self, (header, body): (FrameHeader, &[u8]), now: Instant) -> Result {
        let refusal = match header.is_error() {
            true => Some(ApiError::decode(body).map_err(ApiError::from)?),
            false => None,
        };
        let slot = header.correlation.wrapping_sub(1) as usize;
        let under_way = self.under_way.get_mut(slot).and_then(Option::take);
        let Some((question, since)) = under_way else {
            // An error with no correlation is about the connection.
            return Err(refusal.map_or_else(|| strange(header), Failure::from));
        };
        self.free.push(slot);
        if let Some(refusal) = refusal {
            self.found.refused.get_or_insert(refusal);
            return Ok(());
        }
        if !self.plan.questions.is_answered(question, body) {
            return Err(strange(header));
        }
        self.found.answered += 1;
        self.found.last = Some(now);
        self.found.latencies.record(now.duration_since(since));
        Ok(())
    }
}

fn strange(header: FrameHeader) -> Failure {
    Failure::check(format!(
        "an answer to something else than was asked: number {}, correlation {}",
        header.api, header.correlation
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    #[test]
    fn an_answer_is_about_what_was_asked() {
        let names: Vec<TopicName> = ["a", "ab", "b"]
            .map(|name| name.parse().expect("a name"))
            .into();
        let questions = Questions::new(&names, 7).expect("they encode");
        for (number, name) in shuffled(&names, 7).into_iter().enumerate() {
            let frame = questions.frame(number);
            let asked = Lookup::decode(&frame[PREFIX_BYTES..]).expect("it decodes");
            assert_eq!(asked.name, *name);
            for (other, answer) in shuffled(&names, 7).into_iter().enumerate() {
                let answer = codec::encode(&(answer, 7_u64), 100, "test").expect("it encodes");
                assert_eq!(questions.is_answered(number, &answer), number == other);
            }
        }
        assert!(!questions.is_answered(0, b""));
    }

    #[test]
    fn shuffled_names_are_all_there_in_another_order() {
        let names: Vec<TopicName> = (0..100)
            .map(|n| format!("t{n:02}").parse().expect("a name"))
            .collect();
        let mut shuffled: Vec<TopicName> = shuffled(&names, 1).into_iter().cloned().collect();
        assert_ne!(shuffled, names);
        shuffled.sort();
        assert_eq!(shuffled, names);
    }
}
