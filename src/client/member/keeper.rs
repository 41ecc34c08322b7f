//! The one task of a member: joins, asks for records, sends verdicts, and begins anew when that goes wrong.
//!
//! Of takes all that are answered are taken in, in the order of their numbers; of settlements only the *front* is looked
//! at, because the host decides them in the order in which they were sent. Whatever fails ends the membership: the connection is closed, what was taken over
//! it is dropped, and the next one is joined under a new id, here or where the topic is hosted now.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Shared;
use super::state::{Run, Terms};
use crate::client::ClientError;
use crate::client::route::Route;
use crate::limits;
use crate::net::{CallError, Connection, Pending};
use crate::protocol::api::{
    Api, ConsumerGroupInfo, DescribeConsumerGroup, JoinConsumerGroup, LeaveConsumerGroup, Request,
    SettleRecords, TakeRecords,
};
use crate::protocol::codec::Malformed;
use crate::protocol::error::ApiError;
use crate::protocol::taken::Taken;
use crate::types::{Generation, MemberId, SubscriptionName, TopicId};
use bytes::Bytes;

pub(super) struct Keeper {
    shared: Arc<Shared>,
    route: Route,
    name: SubscriptionName,
    /// The group as its host last told.
    known: Option<Known>,
}

/// What has to be known of a group to join it.
#[derive(Clone, Copy)]
struct Known {
    generation: Generation,
    terms: Terms,
}

impl Known {
    fn of(group: &ConsumerGroupInfo) -> Self {
        Self {
            generation: group.generation,
            terms: Terms {
                ack_deadline: Duration::from_millis(group.options.ack_deadline_ms),
                ordered_by_key: group.options.ordered_by_key,
            },
        }
    }
}

/// One membership.
pub(super) struct Session {
    connection: Connection,
    topic: TopicId,
    generation: Generation,
    member: MemberId,
    takes: Vec<Asked>,
    settles: VecDeque<Sent>,
}

/// A take on its way.
struct Asked {
    answer: Pending,
    late_at: Instant,
}

/// A settlement on its way.
struct Sent {
    answer: Pending,
    runs: Vec<Run>,
    at: Instant,
    late_at: Instant,
}

type Answer = Result<Bytes, CallError>;

impl Keeper {
    pub fn new(shared: Arc<Shared>, route: Route, name: SubscriptionName) -> Self {
        Self {
            shared,
            route,
            name,
            known: None,
        }
    }

    /// Keeps the membership until the application has left or gone, or it cannot go on.
    pub async fn run(mut self, session: Session) {
        let shared = self.shared.clone();
        let error = tokio::select! {
            biased;
            () = shared.dropped.cancelled() => ClientError::Closed,
            error = self.go_on(session) => error,
        };
        let mut state = shared.lock();
        state.lapse(&[]);
        drop(state);
        shared.end(error);
    }

    async fn go_on(&mut self, mut session: Session) -> ClientError {
        let shared = self.shared.clone();
        loop {
            let served = self.serve(&mut session).await;
            let error = match served {
                Ok(()) => return ClientError::Closed,
                Err(error) => error,
            };
            self.lapse(session);
            session = tokio::select! {
                biased;
                () = shared.leave.cancelled() => return ClientError::Closed,
                joined = self.join_again(error) => match joined {
                    Ok(session) => session,
                    Err(error) => return error,
                },
            };
        }
    }

    /// The membership is over, whatever the host thinks of it.
    fn lapse(&self, session: Session) {
        session.connection.close();
        let sent: Vec<Run> = session
            .settles
            .into_iter()
            .flat_map(|sent| sent.runs)
            .collect();
        self.shared.lock().lapse(&sent);
        self.shared.settled.notify_waiters();
    }

    // --- joining -------------------------------------------------------------

    /// Joins for the first time.
    pub async fn join(&mut self) -> Result<Session, ClientError> {
        match self.try_join().await {
            Ok(session) => Ok(session),
            Err(error) => self.join_again(error).await,
        }
    }

    async fn join_again(&mut self, mut error: CallError) -> Result<Session, ClientError> {
        loop {
            self.recover(error).await?;
            match self.try_join().await {
                Ok(session) => return Ok(session),
                Err(again) => error = again,
            }
        }
    }

    /// Waits before the next attempt, or tells that there is to be none.
    async fn recover(&mut self, error: CallError) -> Result<(), ClientError> {
        if let CallError::Api(ApiError::StaleGeneration { current, .. }) = &error
            && let Some(known) = &mut self.known
        {
            known.generation = *current;
        }
        match error {
            // The group was moved or made anew, or the host thinks that this membership is over.
            CallError::Api(
                error @ (ApiError::StaleGeneration { .. }
                | ApiError::NotAMember { .. }
                | ApiError::TooManyMembers { .. }),
            ) => self.route.pause_after(error.into()).await,
            error => self.route.recover(error).await,
        }
    }

    async fn try_join(&mut self) -> Result<Session, CallError> {
        let connection = self.route.own_connection().await?;
        let (known, missing) = self.describe(&connection).await?;
        let (topic, member) = (self.route.location().id, fresh_member()?);
        let join = JoinConsumerGroup {
            topic,
            name: self.name.clone(),
            generation: known.generation,
            member,
        };
        let joined = connection.call(&join, self.route.answer_timeout()).await;
        match (joined, missing) {
            (Err(CallError::Api(ApiError::UnknownTopicId { .. })), Some(missing)) => {
                return Err(missing.into());
            }
            (joined, _) => joined?,
        };
        self.known = Some(known);
        self.shared.lock().begin(known.terms);
        Ok(Session {
            connection,
            topic,
            generation: known.generation,
            member,
            takes: Vec::new(),
            settles: VecDeque::new(),
        })
    }

    /// What is known of the group. It is asked for by the topic's name, and a topic may get another one: then it is what
    /// was told before, and beside it what was answered now, which holds if the host does not know the topic's id either.
    async fn describe(
        &self,
        connection: &Connection,
    ) -> Result<(Known, Option<ApiError>), CallError> {
        let location = self.route.location();
        let describe = DescribeConsumerGroup {
            topic: location.name.clone(),
            name: self.name.clone(),
        };
        let described = connection.call(&describe, self.route.answer_timeout());
        let missing = match described.await {
            Ok(group) if group.topic_id == location.id => return Ok((Known::of(&group), None)),
            Ok(_) => ApiError::UnknownTopicId { id: location.id },
            Err(CallError::Api(missing @ ApiError::TopicNotFound { .. })) => missing,
            Err(error) => return Err(error),
        };
        match self.known {
            Some(known) => Ok((known, Some(missing))),
            None => Err(missing.into()),
        }
    }

    // --- a membership --------------------------------------------------------

    /// Serves a membership until it is over; without an error when the application wanted to leave.
    async fn serve(&mut self, session: &mut Session) -> Result<(), CallError> {
        let shared = self.shared.clone();
        let mut tick = Instant::now();
        loop {
            self.take_more(session).await?;
            let due = self.send(session, false).await?;
            tokio::select! {
                () = shared.leave.cancelled() => return self.leave(session).await,
                answers = answers_to(&mut session.takes) => self.taken(session, answers)?,
                answer = front_of(&mut session.settles) => self.answered(session, answer?)?,
                () = shared.work.notified() => {}
                () = until(due) => {}
                () = until(Some(tick)) => {
                    session.check_late(self.route.answer_timeout())?;
                    tick = self.renew();
                }
            }
        }
    }

    /// Keeps takes on the way as long as there is room for what they bring.
    async fn take_more(&mut self, session: &mut Session) -> Result<(), CallError> {
        while let Some((records, bytes)) = self.room() {
            let wait = limits::MEMBER_WAIT;
            let request = TakeRecords {
                topic: session.topic,
                name: self.name.clone(),
                generation: session.generation,
                member: session.member,
                records,
                bytes,
                wait_ms: wait.as_millis() as u32,
            };
            let body = request.encode().map_err(ApiError::from)?;
            let answer = session.connection.submit(Api::TakeRecords, body).await?;
            session.takes.push(Asked {
                answer,
                late_at: Instant::now() + wait + self.route.answer_timeout(),
            });
        }
        Ok(())
    }

    /// What one more take may ask for; it counts as asked.
    fn room(&self) -> Option<(u32, u32)> {
        let mut state = self.shared.lock();
        state.wants_more().then(|| {
            state.asked();
            state.share()
        })
    }

    /// Extends what has to be extended. Tells when to look again.
    fn renew(&self) -> Instant {
        let (now, mut state) = (Instant::now(), self.shared.lock());
        state.renew(now);
        now + tick_of(state.terms())
    }

    fn taken(&mut self, session: &mut Session, answers: Vec<Answer>) -> Result<(), CallError> {
        let malformed = |error: ClientError| session.malformed("TakeRecords", error.to_string());
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            all.push(Taken::decode(answer?).map_err(|error| malformed(error.into()))?);
        }
        self.route.progress();
        let is_something = all.iter().any(|taken| !taken.items.is_empty());
        let admitted = self.shared.lock().admit(all, Instant::now());
        admitted.map_err(malformed)?;
        if is_something {
            self.shared.arrived.notify_waiters();
        }
        Ok(())
    }

    /// Sends the verdicts that are due, or all. Tells when the next ones will be.
    async fn send(
        &mut self,
        session: &mut Session,
        all: bool,
    ) -> Result<Option<Instant>, CallError> {
        while session.settles.len() < limits::MEMBER_SETTLES_UNANSWERED {
            let now = Instant::now();
            let runs = {
                let mut state = self.shared.lock();
                match state.due() {
                    None => return Ok(None),
                    Some(due) if due > now && !all => return Ok(Some(due)),
                    Some(_) => state.take_runs(now),
                }
            };
            let request = SettleRecords {
                topic: session.topic,
                name: self.name.clone(),
                generation: session.generation,
                member: session.member,
                runs: runs.iter().map(|run| run.run.clone()).collect(),
            };
            let submitted = match request.encode().map_err(ApiError::from) {
                Ok(body) => session.connection.submit(SettleRecords::API, body).await,
                Err(error) => Err(error.into()),
            };
            let answer = match submitted {
                Ok(answer) => answer,
                Err(error) => {
                    self.shared.lock().not_sent(&runs);
                    return Err(error);
                }
            };
            session.settles.push_back(Sent {
                answer,
                runs,
                at: now,
                late_at: now + self.route.answer_timeout(),
            });
        }
        // The next answer makes room.
        Ok(None)
    }

    fn answered(&mut self, session: &mut Session, body: Bytes) -> Result<(), CallError> {
        let answer = SettleRecords::decode_answer(&body)
            .map_err(|error| session.malformed(error.what, error.reason))?;
        self.route.progress();
        if let Some(sent) = session.settles.pop_front() {
            self.shared
                .lock()
                .answer(&sent.runs, &answer.not_held, sent.at);
        }
        self.shared.settled.notify_waiters();
        Ok(())
    }

    /// Settles what was said, then ends the membership.
    async fn leave(&mut self, session: &mut Session) -> Result<(), CallError> {
        self.shared.lock().drop_buffer();
        loop {
            let due = self.send(session, true).await?;
            debug_assert!(due.is_none(), "everything is sent at once");
            let Some(front) = session.settles.front() else {
                break;
            };
            let late_at = front.late_at.into();
            let front = front_of(&mut session.settles);
            let Ok(answer) = tokio::time::timeout_at(late_at, front).await else {
                return Err(session.late(self.route.answer_timeout()));
            };
            self.answered(session, answer?)?;
        }
        let leave = LeaveConsumerGroup {
            topic: session.topic,
            name: self.name.clone(),
            member: session.member,
        };
        let timeout = self.route.answer_timeout();
        session.connection.call(&leave, timeout).await.map(|_| ())
    }
}

impl Drop for Keeper {
    /// However the task ends, nobody waits for ever.
    fn drop(&mut self) {
        self.shared.end(ClientError::Closed);
    }
}

impl Session {
    fn malformed(&self, what: &'static str, reason: String) -> CallError {
        CallError::Malformed {
            address: self.connection.address().clone(),
            error: Malformed { what, reason },
        }
    }

    fn late(&self, after: Duration) -> CallError {
        CallError::TimedOut {
            address: self.connection.address().clone(),
            after,
            may_be_sent: true,
        }
    }

    /// Whoever does not even answer a long poll is gone.
    fn check_late(&self, after: Duration) -> Result<(), CallError> {
        let now = Instant::now();
        let takes = self.takes.iter().map(|take| take.late_at);
        let settles = self.settles.iter().map(|sent| sent.late_at);
        match takes.chain(settles).any(|late_at| late_at < now) {
            true => Err(self.late(after)),
            false => Ok(()),
        }
    }
}

/// Well within the third of a deadline after which it is extended, but neither idle nor busy.
fn tick_of(terms: Terms) -> Duration {
    (terms.ack_deadline / 8).clamp(limits::MEMBER_TICK_MIN, limits::MEMBER_TICK_MAX)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// All answers to takes that are there, once there is one; for ever if there are no takes. The takes that are answered are
/// taken out.
async fn answers_to(takes: &mut Vec<Asked>) -> Vec<Answer> {
    poll_fn(|context| {
        let mut answers = Vec::new();
        takes.retain_mut(|take| match Pin::new(&mut take.answer).poll(context) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
        match answers.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(answers),
        }
    })
    .await
}

/// The answer to the oldest settlement; for ever if there is none.
async fn front_of(settles: &mut VecDeque<Sent>) -> Answer {
    match settles.front_mut() {
        Some(front) => (&mut front.answer).await,
        None => std::future::pending().await,
    }
}

fn fresh_member() -> Result<MemberId, CallError> {
    let mut id = [0; MemberId::LEN];
    match getrandom::fill(&mut id) {
        Ok(()) => Ok(MemberId::from_bytes(id)),
        Err(error) => Err(CallError::Api(ApiError::InvalidArgument {
            what: "member id".to_owned(),
            reason: format!("this system gives no random bytes: {error}"),
        })),
    }
}
