//! What `pub` publishes, some messages at a time and at what pace.

use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Publish;
use crate::cli::fail::{Failure, Result};
use crate::cli::input::{self, Messages, Source};
use crate::cli::{Context, output};

/// What is published, some messages at a time, without those that were published before.
#[derive(Debug)]
pub(super) struct Feed {
    input: Input,
    /// Messages still to be passed over.
    without: u64,
    /// Messages passed over.
    passed: u64,
}

/// Where the messages come from.
#[derive(Debug)]
enum Input {
    /// The same messages, so many times more.
    Given(Vec<Bytes>, u64),
    /// All of the input, so many times.
    Whole(Messages, u64),
    /// Lines as they come.
    Lines(Messages),
}

impl Feed {
    /// All of what the arguments say.
    pub fn new(args: &Publish, context: &Context) -> Result<Self> {
        Input::new(args, context).map(Self::of)
    }

    fn of(input: Input) -> Self {
        Self {
            input,
            without: 0,
            passed: 0,
        }
    }

    /// The same without the first so many messages.
    #[must_use]
    pub fn without(self, count: u64) -> Self {
        Self {
            without: count,
            ..self
        }
    }

    /// The next messages; `None` at the end. An input that is shorter than what is to be passed over is not the
    /// one that was published.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        loop {
            let Some(mut messages) = self.input.next().await? else {
                return match self.without {
                    0 => Ok(None),
                    _ => Err(self.too_short()),
                };
            };
            let pass = usize::try_from(self.without).unwrap_or(usize::MAX);
            let pass = pass.min(messages.len());
            messages.drain(..pass);
            self.without -= pass as u64;
            self.passed += pass as u64;
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
    }

    fn too_short(&self) -> Failure {
        Failure::usage(format!(
            "the input has {} and more were published under this name before: it has to be the same input, \
             from its beginning and in the same order",
            output::count(self.passed, "message")
        ))
    }
}

impl Input {
    fn new(args: &Publish, context: &Context) -> Result<Self> {
        if !args.messages.is_empty() {
            let messages = args.messages.iter().map(|text| Bytes::from(text.clone()));
            return Ok(Self::Given(messages.collect(), args.count));
        }
        let source = match &args.file {
            Some(path) => Source::File(path.clone()),
            None => Source::Stdin,
        };
        if matches!(source, Source::Stdin) && std::io::stdin().is_terminal() {
            context.output.note(match args.whole {
                true => "reading one message from the terminal, Ctrl-D ends it",
                false => "reading messages from the terminal, one a line, Ctrl-D ends",
            });
        }
        match (args.whole, args.count) {
            (true, count) => Ok(Self::Whole(input::start(source, true)?, count)),
            (false, 1) => Ok(Self::Lines(input::start(source, false)?)),
            (false, _) => Err(Failure::usage(
                "--count repeats messages given as arguments, or one given with --whole",
            )),
        }
    }

    /// The next messages; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        match self {
            Self::Given(_, 0) => Ok(None),
            Self::Given(messages, left) => {
                *left -= 1;
                Ok(Some(messages.clone()))
            }
            Self::Lines(messages) => messages.recv().await.transpose(),
            Self::Whole(messages, count) => {
                let Some(message) = messages.recv().await.transpose()? else {
                    return Ok(None);
                };
                *self = Self::Given(message, *count);
                // At most one level deep: what is given is not read.
                Box::pin(self.next()).await
            }
        }
    }
}

/// Lets messages through at a steady rate, making up for delays.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<f64>,
    began: Instant,
    passed: u64,
}

impl Pace {
    pub fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            began: Instant::now(),
            passed: 0,
        }
    }

    pub async fn wait(&mut self) {
        if let Some(rate) = self.rate {
            let due = self.began + Duration::from_secs_f64(self.passed as f64 / rate);
            // A sleep takes a millisecond at least, even one that is over.
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            self.passed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn given_messages_are_repeated() {
        let mut feed = Feed::of(Input::Given(vec![Bytes::from_static(b"a")], 2));
        let mut count = 0;
        while let Ok(Some(some)) = feed.next().await {
            count += some.len();
        }
        assert_eq!(count, 2);
    }

    /// What was published before is passed over, also where it ends inside of what comes at once.
    #[tokio::test]
    async fn the_first_messages_are_passed_over() {
        let given = || Input::Given((0..3_u8).map(|n| vec![n].into()).collect(), 2);
        for without in 0..=6 {
            let mut feed = Feed::of(given()).without(without);
            let mut found = Vec::new();
            while let Some(some) = feed.next().await.expect("long enough") {
                found.extend(some.iter().map(|message| message[0]));
            }
            assert_eq!(found, [0, 1, 2, 0, 1, 2][without as usize..]);
        }
        let mut feed = Feed::of(given()).without(7);
        let failure = feed.next().await.expect_err("too short");
        assert!(failure.message.contains("6 messages"), "{failure:?}");
    }

    #[tokio::test]
    async fn the_pace_is_kept_on_average() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(500.0));
        for _ in 0..=25 {
            pace.wait().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(50));
    }
}
