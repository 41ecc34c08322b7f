//! What moved at the node: ends of its topics, and what it knows of topics at all.

use super::*;

impl Node {
    /// Tells watchers of the index that something is new about these topics.
    pub fn tell_news(&self, names: &[&str]) {
        let names = names.iter().map(|text| name(text));
        self.disk().news.extend(names);
        self.changed.notify_waiters();
    }

    pub(super) async fn watch(self: Arc<Self>, call: Call, reply: Reply) {
        let asked: Watch = call.decode().expect("well-formed");
        let wait = Duration::from_millis(asked.max_wait_ms.into());
        let answer = self
            .waits_for(
                wait,
                || self.changes(&asked),
                |changes| {
                    changes.reset || !(changes.changed.is_empty() && changes.dropped.is_empty())
                },
            )
            .await;
        reply.send::<Watch>(Ok(answer));
    }

    fn changes(&self, asked: &Watch) -> Changes {
        let news = self.disk().news.clone();
        let version = news.len() as u64 + 1;
        let mut changes = Changes {
            version,
            reset: asked.version == 0 || asked.version > version,
            changed: Vec::new(),
            dropped: Vec::new(),
        };
        if !changes.reset {
            for name in &news[asked.version as usize - 1..] {
                match self.location(name) {
                    Some(location) => changes.changed.push(location),
                    None => changes.dropped.push(name.clone()),
                }
            }
        }
        changes
    }

    pub(super) async fn watch_ends(self: Arc<Self>, call: Call, reply: Reply) {
        let asked: WatchEnds = call.decode().expect("well-formed");
        let wait = Duration::from_millis(asked.max_wait_ms.into());
        let answer = self
            .waits_for(
                wait,
                || self.ends(&asked),
                |ends| ends.all || !ends.ends.is_empty(),
            )
            .await;
        self.disk().ends_told += answer.ends.len() as u64;
        reply.send::<WatchEnds>(Ok(answer));
    }

    fn ends(&self, asked: &WatchEnds) -> TopicEnds {
        let disk = self.disk();
        let version = disk.moves.len() as u64 + 1;
        let all = asked.version == 0 || asked.version > version;
        let moved = disk.moves.get((asked.version as usize).saturating_sub(1)..);
        let moved = moved.unwrap_or_default();
        let is_next = |name: &&TopicName| asked.after.as_ref().is_none_or(|after| *name > after);
        let told = disk.topics.iter().filter(|(name, topic)| {
            let is_told = if all {
                is_next(name)
            } else {
                moved.contains(&topic.id)
            };
            is_told && topic.moved.is_none() && asked.pattern.matches(name)
        });
        let mut told: Vec<_> = told.collect();
        // Small pages.
        let is_cut = all && told.len() > 3;
        if is_cut {
            told.truncate(3);
        }
        let next = told.last().map(|(name, _)| (*name).clone());
        let end_of = |(_, topic): &(&TopicName, &Topic)| TopicEnd {
            id: topic.id,
            start_offset: topic.start,
            end_offset: topic.end,
        };
        TopicEnds {
            version,
            all,
            ends: told.iter().map(end_of).collect(),
            next: next.filter(|_| is_cut),
        }
    }

    /// Looks again whenever something changed, until it is enough or the time is over.
    async fn waits_for<T>(
        &self,
        wait: Duration,
        look: impl Fn() -> T,
        is_enough: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let found = look();
            if is_enough(&found) || tokio::time::Instant::now() >= deadline {
                return found;
            }
            let _ = tokio::time::timeout_at(deadline, changed).await;
        }
    }
}
