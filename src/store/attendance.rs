//! Who reads through which subscription, and when those that expire were used last.
//!
//! ```text
//!   made, set     commit, seek      long poll begins ... ends          now
//!      |              |                   |               |             |
//!   ---x--------------x-------------------[===============]-------------|---> steady time
//!                                             in use      `-- unused ---'
//! ```
//!
//! A fetch names a topic and an offset; for which subscription it is, nobody
//! tells. So whoever reads through one *attends* it: keeps a long poll open
//! ([`Store::watch_subscription`]) that is answered when the subscription is
//! paused or resumed. That is how a reader learns of it, and how the host knows
//! that somebody reads.
//!
//! What is noted here lives as long as the process. Only the decision that a
//! subscription has expired is a fact, and the writer's:
//!
//! 1. A subscription expires only if, by a clock that never jumps, nobody used it
//!    for the whole of its time since the process started, or since the process
//!    was found to have stood still. So no restart, no absence and no suspension of
//!    the peer expires anybody; and none expires while a long poll is open.
//! 2. The writer looks again when it decides: what was used meanwhile stays. What
//!    is used after the decision is answered that it is not there.
//! 3. What a long poll tells is durable: the writer is asked, and answers when what
//!    came before is. A change only wakes.
//! 4. Nothing is noted of subscriptions that neither expire nor are attended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Store;
use super::shared::Shared;
use super::topics::subscription_info;
use crate::limits;
use crate::protocol::api::{
    SetSubscription, SubscriptionInfo, WatchSubscription, WatchedSubscription,
};
use crate::protocol::error::ApiError;
use crate::topic::{RowKey, SubscriptionRow};
use crate::types::{SubscriptionName, TopicId};

/// What is known of one subscription.
struct Entry {
    /// Tells it from one that had the name before.
    serial: u64,
    /// Long polls that are open.
    readers: u64,
    /// It expires when nobody used it for so long.
    expire: Option<Duration>,
    used: Instant,
    /// Wakes the long polls; dropped when the subscription is gone.
    news: watch::Sender<()>,
}

impl Entry {
    /// How long it has yet to live, if it is used no more.
    fn left(&self, now: Instant) -> Option<Duration> {
        let expire = self.expire.filter(|_| self.readers == 0)?;
        Some(expire.saturating_sub(now.saturating_duration_since(self.used)))
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }
}

/// All that is noted; the steady time comes as an argument.
#[derive(Default)]
pub(super) struct Entries {
    of: HashMap<TopicId, HashMap<SubscriptionName, Entry>>,
    /// Those that are paused, or are about to be.
    paused: HashMap<SubscriptionName, BTreeSet<TopicId>>,
    serial: u64,
}

impl Entries {
    fn get(&self, id: TopicId, name: &SubscriptionName) -> Option<&Entry> {
        self.of.get(&id)?.get(name)
    }

    fn get_mut(&mut self, id: TopicId, name: &SubscriptionName) -> Option<&mut Entry> {
        self.of.get_mut(&id)?.get_mut(name)
    }

    fn get_or_new(&mut self, id: TopicId, name: &SubscriptionName, now: Instant) -> &mut Entry {
        self.serial += 1;
        let serial = self.serial;
        let of_topic = self.of.entry(id).or_default();
        of_topic.entry(name.clone()).or_insert_with(|| Entry {
            serial,
            readers: 0,
            expire: None,
            used: now,
            news: watch::Sender::new(()),
        })
    }

    pub fn remove(&mut self, id: TopicId, name: &SubscriptionName) {
        if let Some(of_topic) = self.of.get_mut(&id) {
            of_topic.remove(name);
            if of_topic.is_empty() {
                self.of.remove(&id);
            }
        }
    }

    /// The topic is gone, with all its subscriptions.
    pub fn remove_topic(&mut self, id: TopicId) {
        self.of.remove(&id);
        self.paused.retain(|_, of_name| {
            of_name.remove(&id);
            !of_name.is_empty()
        });
    }

    /// Forgets what nothing need be noted of.
    fn tidy(&mut self, id: TopicId, name: &SubscriptionName) {
        let is_over = |entry: &Entry| entry.readers == 0 && entry.expire.is_none();
        if self.get(id, name).is_some_and(is_over) {
            self.remove(id, name);
        }
    }

    pub fn follow(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        expire: Option<Duration>,
        now: Instant,
    ) {
        if expire.is_none() && self.get(id, name).is_none() {
            return;
        }
        let entry = self.get_or_new(id, name, now);
        entry.expire = expire;
        entry.used = now;
        entry.news.send_replace(());
        self.tidy(id, name);
    }

    /// Tells whether that is news.
    pub fn note_pause(&mut self, id: TopicId, name: &SubscriptionName, paused: bool) -> bool {
        if paused {
            return self.paused.entry(name.clone()).or_default().insert(id);
        }
        let Some(of_name) = self.paused.get_mut(name) else {
            return false;
        };
        let is_news = of_name.remove(&id);
        if of_name.is_empty() {
            self.paused.remove(name);
        }
        is_news
    }

    /// Those of a name that expire, on which topics, with their serials.
    pub fn expiring(&self, name: &SubscriptionName) -> BTreeMap<TopicId, u64> {
        let all = self.of.iter();
        let named = all.filter_map(|(id, of_topic)| Some((*id, of_topic.get(name)?)));
        let expiring = named.filter(|(_, entry)| entry.expire.is_some());
        expiring.map(|(id, entry)| (id, entry.serial)).collect()
    }

    pub fn used(&mut self, id: TopicId, name: &SubscriptionName, now: Instant) {
        if let Some(entry) = self.get_mut(id, name) {
            entry.used = now;
        }
    }

    pub fn all_used(&mut self, now: Instant) {
        let all = self.of.values_mut().flat_map(HashMap::values_mut);
        all.for_each(|entry| entry.used = now);
    }

    /// A long poll begins.
    pub fn enter(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        now: Instant,
    ) -> (u64, watch::Receiver<()>) {
        let entry = self.get_or_new(id, name, now);
        entry.readers += 1;
        (entry.serial, entry.news.subscribe())
    }

    /// It ends. Of a subscription that has the name since it says nothing.
    pub fn leave(&mut self, id: TopicId, name: &SubscriptionName, serial: u64, now: Instant) {
        let entry = self.get_mut(id, name);
        if let Some(entry) = entry.filter(|entry| entry.serial == serial) {
            entry.readers -= 1;
            entry.used = now;
            self.tidy(id, name);
        }
    }

    pub fn is_expired(&self, id: TopicId, name: &SubscriptionName, now: Instant) -> bool {
        let entry = self.get(id, name);
        entry.is_some_and(|entry| entry.is_expired(now))
    }

    /// The topics on which the subscription of that name is paused.
    pub fn paused_of(&self, name: &SubscriptionName) -> BTreeSet<TopicId> {
        self.paused.get(name).cloned().unwrap_or_default()
    }

    pub fn expired(&self, now: Instant, max: usize) -> Vec<(TopicId, SubscriptionName)> {
        let all = self.of.iter();
        let all = all.flat_map(|(id, of_topic)| of_topic.iter().map(move |of| (*id, of)));
        let expired = all.filter(|(_, (_, entry))| entry.is_expired(now));
        expired
            .map(|(id, (name, _))| (id, name.clone()))
            .take(max)
            .collect()
    }
}

/// All that is noted, by the clock of the process.
#[derive(Default)]
pub(super) struct Attendance {
    entries: Mutex<Entries>,
    /// Counts what concerns those who attend all subscriptions of a name: one is paused or resumed, or may expire
    /// from now on.
    news: watch::Sender<u64>,
}

impl Attendance {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription was made or set, or was there when the process started: that is a use, and wakes those who
    /// attend it.
    pub fn follow(&self, id: TopicId, name: &SubscriptionName, row: &SubscriptionRow) {
        let expire = row.expire_ms.map(Duration::from_millis);
        let mut entries = self.lock();
        entries.follow(id, name, expire, Instant::now());
        let is_news = entries.note_pause(id, name, row.paused);
        drop(entries);
        if is_news || expire.is_some() {
            self.news.send_modify(|count| *count += 1);
        }
    }

    /// It is gone.
    pub fn forget(&self, id: TopicId, name: &SubscriptionName) {
        let mut entries = self.lock();
        entries.remove(id, name);
        let is_news = entries.note_pause(id, name, false);
        drop(entries);
        if is_news {
            self.news.send_modify(|count| *count += 1);
        }
    }

    /// The topic is gone, with all its subscriptions.
    pub fn forget_topic(&self, id: TopicId) {
        self.lock().remove_topic(id);
    }

    /// Wakes whoever attends all subscriptions of a name.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The topics on which the subscription of that name is paused, or about to be, and those on which it expires,
    /// with what tells it from one that had the name before.
    pub fn named(&self, name: &SubscriptionName) -> (BTreeSet<TopicId>, BTreeMap<TopicId, u64>) {
        let entries = self.lock();
        (entries.paused_of(name), entries.expiring(name))
    }

    /// Somebody used a subscription.
    pub fn used(&self, id: TopicId, name: &SubscriptionName) {
        self.lock().used(id, name, Instant::now());
    }

    /// The process stood still: whoever uses a subscription could not.
    pub fn all_used(&self) {
        self.lock().all_used(Instant::now());
    }

    /// Readers that attend it, and how long it has yet to live, if it expires and nobody does.
    pub fn of(&self, id: TopicId, name: &SubscriptionName) -> (u64, Option<Duration>) {
        let entries = self.lock();
        let of = |entry: &Entry| (entry.readers, entry.left(Instant::now()));
        entries.get(id, name).map_or((0, None), of)
    }

    /// Whether nobody used it for too long.
    pub fn is_expired(&self, id: TopicId, name: &SubscriptionName) -> bool {
        self.lock().is_expired(id, name, Instant::now())
    }

    /// Subscriptions that nobody used for too long, at most so many.
    pub fn expired(&self, max: usize) -> Vec<(TopicId, SubscriptionName)> {
        self.lock().expired(Instant::now(), max)
    }
}

/// A long poll that is open.
pub(super) struct Attending {
    shared: Arc<Shared>,
    id: TopicId,
    name: SubscriptionName,
    pub serial: u64,
    news: watch::Receiver<()>,
}

impl Attending {
    pub fn begin(shared: &Arc<Shared>, id: TopicId, name: &SubscriptionName) -> Self {
        let (serial, news) = shared.attendance.lock().enter(id, name, Instant::now());
        Self {
            shared: shared.clone(),
            id,
            name: name.clone(),
            serial,
            news,
        }
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let mut entries = self.shared.attendance.lock();
        entries.leave(self.id, &self.name, self.serial, Instant::now());
    }
}

impl Store {
    /// Pauses a subscription, lets it go on, or says when it expires.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`, `InvalidArgument`.
    pub async fn set_subscription(
        &self,
        request: SetSubscription,
    ) -> Result<SubscriptionInfo, ApiError> {
        let SetSubscription {
            topic,
            name,
            changes,
        } = request;
        let id = self.id_of(&topic)?;
        let info = self
            .change(id, move |context| {
                let topic = context.state.topic_mut(id)?;
                let changed = topic.set_subscription(&name, changes)?;
                let row = topic.subscription(&name)?;
                context.shared.attendance.follow(id, &name, row);
                let info = subscription_info(context, id, &name)?;
                let keys = match changed {
                    true => vec![RowKey::Subscription(id, name)],
                    false => Vec::new(),
                };
                Ok((info, keys))
            })
            .await?;
        self.with_lag(info).await
    }

    /// Waits until a subscription is paused or resumed, other than the request says it is; for the time it says at
    /// most. Meanwhile the subscription is in use.
    ///
    /// # Errors
    /// `UnknownTopicId`, `SubscriptionNotFound`, also when it is removed meanwhile.
    pub async fn watch_subscription(
        &self,
        watch: WatchSubscription,
    ) -> Result<WatchedSubscription, ApiError> {
        let WatchSubscription {
            topic,
            name,
            paused,
            max_wait_ms,
        } = watch;
        let wait = Duration::from_millis(u64::from(max_wait_ms)).min(limits::FETCH_WAIT_MAX);
        let deadline = tokio::time::Instant::now() + wait;
        let mut attending = Attending::begin(&self.shared, topic, &name);
        loop {
            attending.news.mark_unchanged();
            let is_paused = self.is_paused(topic, name.clone()).await?;
            if is_paused != paused {
                return Ok(WatchedSubscription { paused: is_paused });
            }
            match tokio::time::timeout_at(deadline, attending.news.changed()).await {
                Ok(Ok(())) => {}
                // It is gone, and another may have its name already.
                Ok(Err(_)) => attending = Attending::begin(&self.shared, topic, &name),
                Err(_) => return Ok(WatchedSubscription { paused }),
            }
        }
    }

    async fn is_paused(&self, id: TopicId, name: SubscriptionName) -> Result<bool, ApiError> {
        self.change(id, move |context| {
            let topic = context.state.topic(id)?;
            Ok((topic.subscription(&name)?.paused, Vec::new()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deterministic source of numbers.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % n.max(1)
        }
    }

    /// A subscription, in the most obvious form: times in seconds.
    #[derive(Default)]
    struct Known {
        expire: Option<u64>,
        used: u64,
        /// Serials of its long polls.
        polls: Vec<u64>,
    }

    impl Known {
        fn is_expired(&self, now: u64) -> bool {
            let lived = now - self.used;
            self.polls.is_empty() && self.expire.is_some_and(|expire| lived >= expire)
        }
    }

    struct Walk {
        dice: Dice,
        entries: Entries,
        begun: Instant,
        now: u64,
        known: BTreeMap<SubscriptionName, Known>,
        /// Long polls of subscriptions that are gone.
        stale: Vec<(SubscriptionName, u64)>,
    }

    impl Walk {
        fn step(&mut self) {
            self.now += self.dice.below(4);
            let (id, now) = (TopicId::zero(), self.begun + Duration::from_secs(self.now));
            let name: SubscriptionName = format!("s{}", self.dice.below(5)).parse().expect("good");
            let exists = self.known.contains_key(&name);
            match self.dice.below(10) {
                0 | 1 => {
                    let expire = (self.dice.below(3) > 0).then(|| 1 + self.dice.below(20));
                    let as_time = expire.map(Duration::from_secs);
                    self.entries.follow(id, &name, as_time, now);
                    let known = self.known.entry(name).or_default();
                    (known.expire, known.used) = (expire, self.now);
                }
                2 if exists => {
                    self.entries.remove(id, &name);
                    let known = self.known.remove(&name).expect("it exists");
                    let polls = known.polls.into_iter();
                    self.stale
                        .extend(polls.map(|serial| (name.clone(), serial)));
                }
                3 | 4 if exists => {
                    self.entries.used(id, &name, now);
                    self.known.entry(name).or_default().used = self.now;
                }
                5 if exists => {
                    let (serial, _) = self.entries.enter(id, &name, now);
                    self.known.entry(name).or_default().polls.push(serial);
                }
                6 | 7 => {
                    let known = self.known.entry(name.clone());
                    if let std::collections::btree_map::Entry::Occupied(mut known) = known
                        && let Some(serial) = known.get_mut().polls.pop()
                    {
                        self.entries.leave(id, &name, serial, now);
                        known.get_mut().used = self.now;
                    }
                }
                8 => {
                    // Its subscription went before it.
                    if let Some((name, serial)) = self.stale.pop() {
                        self.entries.leave(id, &name, serial, now);
                    }
                }
                _ if self.dice.below(10) == 0 => {
                    self.entries.all_used(now);
                    let now = self.now;
                    self.known.values_mut().for_each(|known| known.used = now);
                }
                _ => {}
            }
        }

        fn check(&self, what: &str) {
            let (id, now) = (TopicId::zero(), self.begun + Duration::from_secs(self.now));
            let mut found = self.entries.expired(now, usize::MAX);
            found.sort();
            let expected = self.known.iter();
            let expected = expected.filter(|(_, known)| known.is_expired(self.now));
            let expected: Vec<_> = expected.map(|(name, _)| (id, name.clone())).collect();
            assert_eq!(found, expected, "{what}");
            for (name, known) in &self.known {
                let noted = known.expire.is_some() || !known.polls.is_empty();
                let entry = self.entries.get(id, name);
                assert_eq!(entry.is_some(), noted, "{what}: {name}");
                let readers = entry.map_or(0, |entry| entry.readers);
                assert_eq!(readers, known.polls.len() as u64, "{what}: {name}");
            }
            let noted: usize = self.entries.of.values().map(HashMap::len).sum();
            assert!(noted <= self.known.len(), "{what}: something gone is noted");
        }
    }

    #[test]
    fn those_expire_that_nobody_uses_and_nobody_else() {
        for seed in 1..=200 {
            let mut walk = Walk {
                dice: Dice(seed),
                entries: Entries::default(),
                begun: Instant::now(),
                now: 0,
                known: BTreeMap::new(),
                stale: Vec::new(),
            };
            for step in 0..500 {
                walk.step();
                walk.check(&format!("seed {seed}, step {step}"));
            }
        }
    }
}
