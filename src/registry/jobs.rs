//! What takes more than a step: a list of topics that counts, a peer that is removed.
//!
//! Either may concern a million entries, and whoever applies commands is one
//! thread. So the command only begins a *job*; [`State::step`] goes on with it,
//! and between two steps everything else is applied, written, shown and answered.
//!
//! ```text
//!   RegisterTopics .. last --> begun | step | step | step ..  | done: answered
//!   listed = no, durable      -->|     buckets 0 .. 65,535    | listed = yes
//! ```
//!
//! A step goes through the job's topics bucket by bucket, and stops after the
//! bucket with which it has met [`Settings::step_entries`](super::Settings)
//! entries. A bucket is what is stored as a row and shown as a whole: so every
//! row is written once, as if all were done at once, and none is ever half done.
//! In a bucket first the listed topics get their names; then what the peer does
//! not list there is noted. That may be a topic whose new name lies in a later
//! bucket. What is noted and still there after the last bucket goes then.
//!
//! # Invariants
//!
//! 1. **A step is bounded** by the entries of the buckets it rewrites: at most
//!    `step_entries` and what one bucket more brings along. Jobs take turns.
//! 2. **What stays is always there.** A name that a topic has before and has in the
//!    list is never without it; a topic that the list renames keeps its old name
//!    until the step that gives it the new one, unless another topic of the list
//!    takes that name first.
//! 3. **`listed` is durable only with all of the list.** It is taken away with the
//!    job's beginning, before or with the first entry, and comes back with the
//!    last step's entries, in the same change. So after a crash at any step the
//!    peer does not count as listed; its next heartbeat is answered
//!    `NotRegistered`, and the list, told again, puts right whatever the steps left.
//! 4. **One job a peer.** A peer that registers or begins its list again, departs or
//!    goes down ends the job that it had: who waits for it is told so, the steps done
//!    stay, and `listed` is still taken away. So the list that is told to its end last is
//!    the one that counts.
//! 5. **What the peer confirms or drops meanwhile counts**, in whichever step the
//!    topic comes: it is in the state at once, and remembered beside the list.
//! 6. A peer that is being removed is offline from the beginning: nothing can be
//!    added to it. A crash leaves it so, with what was not yet removed; nobody was
//!    told that it is gone, and whoever asked asks again.
//! 7. The lease does not run while a job does: its peer waits for the index.
//!
//! Others may get in between: a name that is free while its topic's turn has not come
//! can be claimed by another peer, as it could a moment before the list came.

use super::Now;
use super::job::{Job, JobNumber, Removing, Taking, Work};
use super::state::{Answer, Effects, Event, State};
use super::table::{Entry, Kind, PeerNumber, Slot, bucket_of};
use crate::limits;
use crate::protocol::api::{Done, PeerState, RegisteredTopics, Retired, StoredTopic};
use crate::protocol::error::ApiError;
use crate::types::{PeerName, TopicId};

impl State {
    /// Whether there is something to go on with.
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Goes on with what was begun, for one step (invariant 1). What comes to its end is in
    /// [`Effects::done`].
    pub fn step(&mut self, now: Now, effects: &mut Effects) {
        let mut met = 0;
        while met < self.settings.step_entries
            && let Some(mut job) = self.jobs.pop_front()
        {
            while met < self.settings.step_entries {
                let before = effects.buckets.len();
                let Some(entries) = self.next_bucket(&mut job, now, effects) else {
                    break;
                };
                // Old names of topics, and what others have to give up, lie in other buckets.
                let elsewhere = (effects.buckets.len() - before).saturating_sub(1);
                let usual = self.topics.len() / limits::REGISTRY_BUCKETS + 1;
                met += entries.max(1) + elsewhere * usual;
            }
            match met < self.settings.step_entries {
                true => self.end_job(job, now, effects),
                false => self.jobs.push_back(job),
            }
        }
    }

    fn begin_job(&mut self, peer: PeerNumber, work: Work) -> Answer {
        self.last_job += 1;
        let number = JobNumber::new(self.last_job);
        self.jobs.push_back(Job {
            number,
            peer,
            next: 0,
            work,
        });
        Answer::Later(number)
    }

    /// The list of that peer is complete.
    pub(super) fn begin_list(&mut self, peer: PeerNumber, effects: &mut Effects) -> Answer {
        self.peers.at_mut(peer).listed = false;
        effects.peers.insert(peer);
        self.begin_job(peer, Work::List(Taking::default()))
    }

    /// That peer is to be unregistered, and its names are to be free.
    pub(super) fn begin_removal(
        &mut self,
        (peer, retired): (PeerNumber, Option<PeerName>),
        now: Now,
        effects: &mut Effects,
    ) -> Answer {
        self.forget_incoming(peer, effects);
        let leaving = self.peers.at_mut(peer);
        leaving.listed = false;
        leaving.enter(PeerState::Offline, now);
        effects.peers.insert(peer);
        self.begin_job(peer, Work::Remove(Removing { held: 0, retired }))
    }

    /// Ends the job of a peer, if it has one, before it is done (invariant 4).
    pub(super) fn break_off(&mut self, peer: PeerNumber, effects: &mut Effects) {
        if let Some(at) = self.jobs.iter().position(|job| job.peer == peer)
            && let Some(job) = self.jobs.remove(at)
        {
            let error = match job.work {
                Work::Remove(Removing {
                    retired: Some(name),
                    ..
                }) => ApiError::InvalidArgument {
                    what: "peer".to_owned(),
                    reason: format!("{name} came back, or somebody else removes it as well"),
                },
                _ => ApiError::NotRegistered,
            };
            effects.done.push((job.number, Err(error)));
        }
    }

    /// Whether that peer waits for a job of its own.
    pub(super) fn has_job(&self, peer: PeerNumber) -> bool {
        self.jobs.iter().any(|job| job.peer == peer)
    }

    /// Does the next bucket of a job; how many entries that concerned, or `None` at the end.
    fn next_bucket(&mut self, job: &mut Job, now: Now, effects: &mut Effects) -> Option<usize> {
        let peer = job.peer;
        let own = self.topics.next_bucket(peer, job.next);
        match &mut job.work {
            Work::Remove(removing) => {
                let bucket = own?;
                job.next = bucket + 1;
                let entries = self.topics.in_bucket(bucket).len();
                removing.held += self.remove_bucket((peer, bucket), effects);
                Some(entries)
            }
            Work::List(taking) => {
                let incoming = self.peers.at(peer).incoming.as_ref();
                let listed = incoming.and_then(|incoming| incoming.next_bucket());
                let Some(bucket) = own.into_iter().chain(listed).min() else {
                    let (bucket, id) = taking.unlisted.pop_first()?;
                    self.remove_unlisted(peer, (bucket, id), effects);
                    return Some(self.topics.in_bucket(bucket).len());
                };
                job.next = bucket + 1;
                self.take_bucket((peer, bucket), taking, now, effects);
                Some(self.topics.in_bucket(bucket).len())
            }
        }
    }
}

/// The parts of a step.
impl State {
    /// What the list says about that bucket, and what the peer has there that it does not say.
    fn take_bucket(
        &mut self,
        (peer, bucket): (PeerNumber, u32),
        taking: &mut Taking,
        now: Now,
        effects: &mut Effects,
    ) {
        let topics = self.take_listed(peer, bucket);
        for slot in self.topics.of_peer_in(peer, bucket) {
            let entry = self.topics.get(slot);
            let is_listed = |id| topics.binary_search_by_key(&id, |topic| topic.id).is_ok();
            // Listed there under another name, it is moved below.
            if entry.kind != Kind::Claim && !is_listed(entry.id) && !self.is_new(entry) {
                taking.unlisted.insert((bucket, entry.id));
            }
        }
        for topic in &topics {
            self.give_way((peer, topic), &topics, effects);
        }
        taking.topics += topics.len();
        for topic in topics {
            let Some(conflict) = self.place(peer, topic, now, effects) else {
                continue;
            };
            if taking.conflicts.len() < limits::CONFLICTS_TOLD_MAX {
                taking.conflicts.push(conflict);
            } else {
                taking.conflicts_untold += 1;
            }
        }
    }

    fn take_listed(&mut self, peer: PeerNumber, bucket: u32) -> Vec<StoredTopic> {
        let Some(incoming) = self.peers.at_mut(peer).incoming.as_mut() else {
            return Vec::new();
        };
        let before = incoming.len();
        let topics = incoming.take(bucket);
        self.incoming -= before - incoming.len();
        topics
    }

    /// Whether the peer confirmed that name since it registered.
    fn is_new(&self, entry: &Entry) -> bool {
        let incoming = self.peers.at(entry.peer).incoming.as_ref();
        incoming.is_some_and(|incoming| incoming.meanwhile.says(entry.id, &entry.name))
    }

    /// Where the name of a topic is that of another one of the same peer, which the list does not give it, it is
    /// free from now on.
    fn give_way(
        &mut self,
        (peer, topic): (PeerNumber, &StoredTopic),
        topics: &[StoredTopic],
        effects: &mut Effects,
    ) {
        let Some(slot) = self.topics.find(&topic.name, Kind::Held) else {
            return;
        };
        let held = self.topics.get(slot);
        let listed = topics.binary_search_by_key(&held.id, |topic| topic.id);
        let stays = listed.is_ok_and(|at| topics[at].name == held.name) || self.is_new(held);
        if held.peer == peer && !stays {
            self.remove_entry(slot, effects);
        }
    }

    /// Removes what was not listed in its bucket, unless it got another name since, or was confirmed.
    fn remove_unlisted(
        &mut self,
        peer: PeerNumber,
        (bucket, id): (u32, TopicId),
        effects: &mut Effects,
    ) {
        let is_gone = |slot: &Slot| {
            let entry = self.topics.get(*slot);
            let is_it = (entry.peer, bucket_of(&entry.name)) == (peer, bucket);
            is_it && entry.kind != Kind::Claim && !self.is_new(entry)
        };
        let slots: Vec<Slot> = self.topics.of_id(id).filter(is_gone).collect();
        for slot in slots {
            self.remove_entry(slot, effects);
        }
    }

    /// Removes all that the peer has in that bucket; how many names it held.
    fn remove_bucket(&mut self, (peer, bucket): (PeerNumber, u32), effects: &mut Effects) -> u64 {
        let slots: Vec<Slot> = self.topics.of_peer_in(peer, bucket).collect();
        let mut held = 0;
        for slot in slots {
            let entry = self.remove_entry(slot, effects);
            held += u64::from(entry.kind == Kind::Held);
        }
        held
    }

    fn end_job(&mut self, job: Job, now: Now, effects: &mut Effects) {
        effects.peers.insert(job.peer);
        let answer = match job.work {
            Work::List(taking) => self.end_list(job.peer, taking, now, effects),
            Work::Remove(removing) => self.end_removal(job.peer, removing, effects),
        };
        effects.done.push((job.number, Ok(answer)));
    }

    fn end_list(
        &mut self,
        number: PeerNumber,
        taking: Taking,
        now: Now,
        effects: &mut Effects,
    ) -> Answer {
        let lease = self.settings.lease;
        let peer = self.peers.at_mut(number);
        let incoming = peer.incoming.take().unwrap_or_default();
        self.incoming -= incoming.len();
        peer.listed = true;
        peer.lease_ends = now.ticks.after(lease);
        effects.events.push(Event::Listed {
            peer: peer.name.clone(),
            topics: taking.topics,
            conflicts: taking.conflicts.clone(),
            conflicts_untold: taking.conflicts_untold,
        });
        Answer::RegisteredTopics(RegisteredTopics {
            conflicts: taking.conflicts,
        })
    }

    fn end_removal(
        &mut self,
        number: PeerNumber,
        removing: Removing,
        effects: &mut Effects,
    ) -> Answer {
        effects.loads.remove(&number);
        if let Some(peer) = self.peers.take(number) {
            effects.events.push(Event::Retired {
                peer: peer.name,
                topics: removing.held,
            });
        }
        match removing.retired {
            Some(_) => Answer::Retired(Retired {
                topics: removing.held,
            }),
            None => Answer::Done(Done {}),
        }
    }
}
