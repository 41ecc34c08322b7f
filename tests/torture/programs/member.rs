//! A member of a group for one life: what it says of the records it is given.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidings::client::{Member, MemberDelivery, MemberOptions, Missed, NotSettled};

use super::cluster::{Outcome, text};
use super::groups::{NAK_DELAY_MS, STALL, Scene, connect, key_of};
use super::ledger::{Final, Happened, Who};
use crate::words::Dice;

/// A verdict whose outcome is not known: the key of its record, what ends the record's way, and its place in the order.
type Said = (u64, Option<Final>, u64);

/// One membership.
pub(super) struct Life<'a> {
    scene: &'a Scene,
    who: Who,
    member: Member,
    /// Whether the library keeps what it has until something is said of it.
    keep: bool,
    /// By offset.
    said: BTreeMap<u64, Said>,
    /// By key what is held back, and until when.
    held: BTreeMap<u64, Vec<(u64, Instant)>>,
}

impl<'a> Life<'a> {
    pub(super) async fn run(scene: &'a Scene, who: Who, dice: &mut Dice) -> Outcome<()> {
        let keep = dice.percent(30);
        let options = MemberOptions {
            buffer_records: 1 + dice.below(40) as usize,
            keep,
            ..MemberOptions::default()
        };
        let client = connect(&scene.index).await?;
        let member = client
            .join_group(&scene.topic, &scene.group, options)
            .await
            .map_err(text)?;
        let mut life = Self {
            scene,
            who,
            member,
            keep,
            said: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        life.go_on(dice).await?;
        life.end(dice).await
    }

    async fn go_on(&mut self, dice: &mut Dice) -> Outcome<()> {
        let scene = self.scene;
        let end = Instant::now() + Duration::from_millis(500 + dice.below(8_000));
        while (Instant::now() < end || scene.is(&scene.is_calm)) && !scene.is(&scene.is_over) {
            let next = self.member.next_within(Duration::from_millis(50)).await;
            let next = next.map_err(text)?;
            // One by one, what lies in its buffer behind them would wait for a sync each: too long on a busy machine.
            let settles_all = next.is_none() && scene.is(&scene.is_calm);
            if let Some(given) = next {
                let record = (given.offset().get(), key_of(&given.record.value)?);
                scene.ledger.given(record, self.who);
                if self.said.contains_key(&record.0) {
                    // Given again: first the outcome of what was said before, for the two are not told apart.
                    self.settle().await?;
                }
                self.decide(&given, record, dice).await;
            }
            if self.said.len() > 60 || dice.percent(5) || settles_all {
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// Leaves, or drops everything.
    async fn end(mut self, dice: &mut Dice) -> Outcome<()> {
        let scene = self.scene;
        if dice.percent(50) || scene.is(&scene.is_over) {
            let Self { member, .. } = self;
            let missed = member.leave().await.map_err(text)?;
            enter((scene, self.who), &mut self.said, &missed);
            return Ok(());
        }
        // As a crash: what was said may have been heard.
        drop(self.member);
        scene.killed.fetch_add(1, Ordering::Relaxed);
        for (offset, (key, verdict, _)) in self.said {
            if verdict.is_some() {
                scene.ledger.unknown((offset, key), self.who);
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> Outcome<()> {
        let missed = self.member.settle().await.map_err(text)?;
        enter((self.scene, self.who), &mut self.said, &missed);
        Ok(())
    }

    /// Whether something of its key is held back: who promises order by key settles nothing behind that, until it is over.
    fn is_behind(&mut self, (offset, key): (u64, u64)) -> bool {
        let Some(held) = self.held.get_mut(&key) else {
            return false;
        };
        // Given again, it and all that was held of its key is over; what is newer was taken back with something older.
        match held.iter().any(|(held, _)| *held == offset) {
            true => held.clear(),
            false => held.retain(|(held, until)| *held < offset && Instant::now() < *until),
        }
        !held.is_empty()
    }

    fn hold(&mut self, given: &MemberDelivery, key: u64) {
        let until = given.deadline + STALL;
        let held = self.held.entry(key).or_default();
        held.push((given.offset().get(), until));
    }

    /// Says something of a record, or nothing.
    async fn decide(&mut self, given: &MemberDelivery, record: (u64, u64), dice: &mut Dice) {
        let (offset, key) = record;
        let (scene, ledger) = (self.scene, &self.scene.ledger);
        if ledger.is_ordered && self.is_behind(record) {
            self.hold(given, key);
            return ledger.told(record, self.who, Happened::Behind);
        }
        let chance = match scene.is(&scene.is_calm) {
            true => 0,
            false => dice.below(100),
        };
        // Who keeps what he has would hold it for ever.
        if chance >= 97 && !self.keep {
            self.hold(given, key);
            return ledger.told(record, self.who, Happened::Held);
        }
        if chance >= 92 {
            self.member.extend(given);
            tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        }
        let place = ledger.say();
        let verdict = match chance {
            82..87 => {
                let delay = Duration::from_millis(dice.below(NAK_DELAY_MS));
                self.member.nak(given, Some(delay));
                None
            }
            87..91 => {
                self.member.nak(given, None);
                None
            }
            91 => {
                self.member.reject(given, format!("no use for {offset}"));
                Some(Final::Reject)
            }
            _ => {
                self.member.ack(given);
                Some(Final::Ack)
            }
        };
        let what = match verdict {
            None => Happened::Nak,
            Some(Final::Reject) => Happened::Reject,
            Some(Final::Ack) => Happened::Ack,
        };
        ledger.told(record, self.who, what);
        self.said.insert(offset, (key, verdict, place));
    }
}

/// Enters what is known now of what was said.
fn enter((scene, who): (&Scene, Who), said: &mut BTreeMap<u64, Said>, missed: &[NotSettled]) {
    let ledger = &scene.ledger;
    for missed in missed {
        let first = missed.first.get();
        for offset in first..first + u64::from(missed.count) {
            let Some((key, verdict, _)) = said.remove(&offset) else {
                continue;
            };
            match missed.why == Missed::Unknown && verdict.is_some() {
                true => ledger.unknown((offset, key), who),
                false => ledger.told((offset, key), who, Happened::Refused),
            }
        }
    }
    for (offset, (key, verdict, place)) in std::mem::take(said) {
        if let Some(verdict) = verdict {
            ledger.counted((offset, key), who, (verdict, place));
        }
    }
}
