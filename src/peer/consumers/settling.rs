//! Settling: decided at once, answered when it is durable.
//!
//! One flush at a time writes what changed, as it is then, so that many members and one disk share syncs by themselves.

use std::sync::Arc;

use super::Desks;
use super::desk::Desk;
use crate::limits;
use crate::net::{Call, ClientInfo, Handling, Reply};
use crate::protocol::api::{Request, SettleRecords, SettledRecords, Verdict};
use crate::protocol::error::ApiError;

impl Desks {
    /// Decides on a settlement, in the order in which those of a connection come, and answers when that is durable.
    pub fn settle(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        let decided = call.decode::<SettleRecords>().and_then(|request| {
            check(&request)?;
            self.check_displaced()?;
            Ok(request)
        });
        let request = match decided {
            Ok(request) => request,
            Err(error) => return Handling::answer::<SettleRecords>(reply, Err(error)),
        };
        let Some(desk) = self.at_work(request.topic, &request.name) else {
            let (desks, member) = (self.clone(), request.member);
            return Handling::finish::<SettleRecords>(reply, async move {
                // Nobody is a member of a group without a desk. What became of the group is worth knowing.
                let desk = desks.desk(request.topic, &request.name).await?;
                let current = desk.lock().group.generation();
                match request.generation == current {
                    true => Err(desk.not_a_member(member)),
                    false => Err(ApiError::StaleGeneration {
                        given: request.generation,
                        current,
                    }),
                }
            });
        };
        match decide(&desk, &request, &call.client) {
            Err(error) => Handling::answer::<SettleRecords>(reply, Err(error)),
            Ok((settled, version)) if desk.is_durable(version) => {
                Handling::answer::<SettleRecords>(reply, Ok(settled))
            }
            Ok((settled, version)) => Handling::finish::<SettleRecords>(reply, async move {
                desk.wait_durable(version).await?;
                Ok(settled)
            }),
        }
    }

    /// Writes what changes at a desk until it is closed.
    pub(super) async fn flush_on(self: Arc<Self>, desk: Arc<Desk>) {
        while !desk.closed.is_cancelled() {
            tokio::select! {
                biased;
                () = desk.closed.cancelled() => {}
                () = desk.flush_wanted.notified() => while self.flush(&desk).await {},
            }
        }
        self.forget(&desk);
    }

    /// Writes what changed; whether there may be more.
    async fn flush(&self, desk: &Desk) -> bool {
        let _turn = desk.turn.lock().await;
        let flush = match desk.open() {
            Ok(mut inner) => inner.group.compose(&[], desk.clock.now()),
            Err(_) => None,
        };
        let Some(flush) = flush else {
            return false;
        };
        let written = (self.store).settle_consumers(desk.topic, desk.name.clone(), flush.clone());
        match written.await {
            Ok(()) => {
                desk.set_durable(flush.through);
                true
            }
            Err(error) => {
                desk.lock().group.undo(&flush);
                self.failed_to_write(desk, error).await
            }
        }
    }

    /// Whether it is worth trying again.
    pub(super) async fn failed_to_write(&self, desk: &Desk, error: ApiError) -> bool {
        let is_busy = matches!(error, ApiError::Busy { .. });
        if is_busy && !self.stop.is_cancelled() {
            // Nobody was told anything.
            tokio::time::sleep(limits::CONSUMER_TICK).await;
            return true;
        }
        desk.close(error);
        false
    }
}

fn decide(
    desk: &Desk,
    request: &SettleRecords,
    client: &Arc<ClientInfo>,
) -> Result<(SettledRecords, u64), ApiError> {
    let (mut inner, seat) = desk.seated((request.member, request.generation), client)?;
    let now = desk.clock.now();
    let mut not_held = Vec::new();
    for run in &request.runs {
        inner.group.settle(seat.slot, run, now, &mut not_held);
    }
    // It has room now, perhaps.
    seat.wake.notify_waiters();
    desk.decided(&mut inner);
    Ok((SettledRecords { not_held }, inner.group.version()))
}

/// Refuses what no member can mean.
fn check(request: &SettleRecords) -> Result<(), ApiError> {
    let refused = |what: &str, reason: String| {
        let what = what.to_owned();
        Err(ApiError::InvalidArgument { what, reason })
    };
    let (count, max) = (request.runs.len(), limits::SETTLED_RUNS_MAX);
    if count > max {
        return refused(
            "settlement",
            format!("{count} runs, at most {max} are allowed"),
        );
    }
    let records = request.runs.iter().map(|run| u64::from(run.count));
    let (records, max) = (records.sum::<u64>(), u64::from(limits::UNACKED_MAX));
    if records > max {
        return refused(
            "settlement",
            format!("{records} records, nobody holds more than {max}"),
        );
    }
    for run in &request.runs {
        match &run.verdict {
            Verdict::Nak {
                delay_ms: Some(delay),
            } if u128::from(*delay) > limits::BACKOFF_MAX.as_millis() => {
                let max = limits::BACKOFF_MAX.as_millis();
                return refused("delay", format!("{delay} ms, at most {max} are allowed"));
            }
            Verdict::Reject { reason } if reason.len() > limits::REJECT_REASON_BYTES_MAX => {
                let (bytes, max) = (reason.len(), limits::REJECT_REASON_BYTES_MAX);
                return refused(
                    "reason",
                    format!("{bytes} bytes, at most {max} are allowed"),
                );
            }
            _ => {}
        }
    }
    debug_assert_eq!(SettleRecords::VERSION, 1);
    Ok(())
}
