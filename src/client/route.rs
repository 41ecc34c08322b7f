//! The way to a topic's host, kept open over redirects, restarts and an index that is away.
//!
//! A route belongs to one topic *id*. When the name turns out to belong to another
//! topic (deleted and made anew), the route ends with `UnknownTopicId`: records and
//! offsets of the two must not be mixed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::client::cluster::{Cluster, Effect, Lane, may_have_moved};
use crate::limits;
use crate::net::{CallError, Connection};
use crate::protocol::api::{Request, TopicLocation};
use crate::protocol::error::ApiError;

/// The way to one topic's host.
#[derive(Debug)]
pub(super) struct Route {
    cluster: Arc<Cluster>,
    location: TopicLocation,
    lane: Lane,
    timeout: Duration,
    /// Whether the host is away: for those who wait, to be told.
    away: watch::Sender<bool>,
    /// Failures since the last progress.
    trouble: Option<Backoff>,
    attempts: u32,
    /// When the pause after the last failure is over, until it was waited for and acted upon: whoever waits for a
    /// little at a time goes on with it.
    due: Option<Instant>,
}

impl Route {
    pub fn new(
        cluster: Arc<Cluster>,
        location: TopicLocation,
        lane: Lane,
        timeout: Duration,
    ) -> Self {
        Self {
            cluster,
            location,
            lane,
            timeout,
            away: watch::Sender::new(false),
            trouble: None,
            attempts: 0,
            due: None,
        }
    }

    pub fn location(&self) -> &TopicLocation {
        &self.location
    }

    /// Another way to the same host, for something else.
    pub fn beside(&self, lane: Lane) -> Self {
        Self::new(
            self.cluster.clone(),
            self.location.clone(),
            lane,
            self.timeout,
        )
    }

    /// How long one answer is waited for: half the patience, so that another attempt is possible.
    pub fn answer_timeout(&self) -> Duration {
        limits::ANSWER_TIMEOUT.min(self.timeout / 2)
    }

    /// Goes on to another location; whoever watches goes on watching.
    pub fn moved_to(&self, location: TopicLocation) -> Self {
        Self {
            away: self.away.clone(),
            ..Self::new(self.cluster.clone(), location, self.lane, self.timeout)
        }
    }

    /// Whether the host is away, as it changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// An open connection to where the host is thought to be.
    pub async fn connection(&self) -> Result<Connection, CallError> {
        let address = &self.location.address;
        let connection = self.cluster.connection(address, self.lane).await?;
        self.tell_away(false);
        Ok(connection)
    }

    /// A connection there that is shared with nobody.
    pub async fn own_connection(&self) -> Result<Connection, CallError> {
        let connection = self.cluster.dial(&self.location.address).await?;
        self.tell_away(false);
        Ok(connection)
    }

    fn tell_away(&self, is_away: bool) {
        self.away
            .send_if_modified(|told| std::mem::replace(told, is_away) != is_away);
    }

    /// Something worked: patience begins anew with the next failure.
    pub fn progress(&mut self) {
        self.trouble = None;
    }

    /// After a failure: waits a little and finds out where to go on. Fails when the patience is
    /// over, or when trying again cannot help. May be dropped while it waits: after the next failure it goes on.
    pub async fn recover(&mut self, error: CallError) -> Result<(), ClientError> {
        if let CallError::Api(error) = &error
            && !is_transient(error)
        {
            self.trouble = None;
            return Err(error.clone().into());
        }
        self.tell_away(true);
        let is_redirect = matches!(error.as_api(), Some(ApiError::NotHosted { .. }));
        let is_first = self.trouble.is_none();
        if is_first {
            self.due = None;
        }
        let waited = match &error {
            CallError::TimedOut { after, .. } => *after,
            _ => Duration::ZERO,
        };
        self.attempts = match (is_first, self.due) {
            (true, _) => 1,
            (false, None) => self.attempts + 1,
            (false, Some(_)) => self.attempts,
        };
        let trouble = self.trouble.get_or_insert_with(|| Backoff::after(waited));
        let since = trouble.since();
        if since.elapsed() >= self.timeout {
            self.trouble = None;
            let effect = Effect::Reads;
            return Err(self.cluster.explain(&self.location, error, effect));
        }
        if !(is_redirect && is_first) {
            let due = (self.due).get_or_insert_with(|| Instant::now() + trouble.pause());
            tokio::time::sleep_until(*due).await;
        }
        let found = self.look_again(error, since).await;
        self.due = None;
        found
    }

    /// Finds out where to go on.
    async fn look_again(
        &mut self,
        error: CallError,
        since: std::time::Instant,
    ) -> Result<(), ClientError> {
        // A lost connection is first dialled again where it led: most often the host is just back,
        // and whoever could say otherwise may be away.
        let is_lost = error.as_api().is_none();
        let looks_up = !is_lost || self.attempts.is_multiple_of(2);
        if !may_have_moved(&error) || !looks_up {
            return Ok(());
        }
        let moved = self.cluster.relocate(&self.location, &error).await;
        let missing = match moved {
            Ok(location) if location.id == self.location.id => {
                self.location = location;
                match error {
                    CallError::Api(error @ ApiError::UnknownTopicId { .. }) => error.into(),
                    _ => return Ok(()),
                }
            }
            Ok(_) => {
                self.trouble = None;
                let id = self.location.id;
                return Err(ApiError::UnknownTopicId { id }.into());
            }
            Err(error) => error,
        };
        // An index that lost its directory is told everything again, and a host that comes back
        // may not have told it yet: for a while not to be known does not mean not to be.
        let grace = limits::TOPIC_MISSING_GRACE.min(self.timeout);
        if since.elapsed() < grace {
            return Ok(());
        }
        self.trouble = None;
        Err(missing)
    }

    /// After a failure on the way to the topic: waits a little, or gives the error back when the
    /// patience is over or trying again cannot help.
    pub async fn wait_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.is_retryable() {
            self.trouble = None;
            return Err(error);
        }
        self.pause_after(error).await
    }

    /// The same after something that changes by being asked anew.
    pub async fn pause_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        let trouble = self.trouble.get_or_insert_with(Backoff::new);
        if trouble.since().elapsed() >= self.timeout {
            self.trouble = None;
            return Err(error);
        }
        let pause = trouble.pause();
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Repeats a request that may be repeated until it is answered or the patience is over.
    pub async fn insist<R: Request>(&mut self, request: &R) -> Result<R::Answer, ClientError> {
        loop {
            let address = &self.location.address;
            match self.cluster.call(address, request).await {
                Ok(answer) => {
                    self.progress();
                    return Ok(answer);
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }
}

/// Whether the same request may be answered better later, here or elsewhere.
pub(super) fn is_transient(error: &ApiError) -> bool {
    error.is_retryable()
        || matches!(
            error,
            ApiError::UnknownTopicId { .. }
                | ApiError::Unanswered
                | ApiError::WrongRole { .. }
                | ApiError::Displaced
        )
}
