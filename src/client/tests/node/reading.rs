//! Streams of the node: what there is, against credit, and then as it comes.

use super::*;

impl Node {
    pub(super) async fn stream(self: Arc<Self>, call: Call, reply: Reply) {
        let stream = Stream::decode(call.body).expect("well-formed");
        let mut fetch = Fetch {
            topic: stream.topic,
            epoch: stream.epoch,
            offset: stream.offset,
            max_bytes: stream.max_bytes,
            min_bytes: 1,
            max_wait_ms: 0,
            pass_damage: stream.pass_damage,
        };
        if self.disk().is_silent {
            return self.disk().unanswered.push(reply);
        }
        if let Err(error) = self.fetch_now(&fetch) {
            return reply.error(&error);
        }
        let keep_alive = Duration::from_millis(stream.keep_alive_ms.into());
        let outlet = reply.into_outlet(stream.credit, keep_alive);
        let outlet = outlet.expect("there are few");
        self.disk().streams += 1;
        loop {
            let next = async {
                let credit = outlet.credit().await;
                let mut fetched = self.fetch_at_last(&fetch).await?;
                let records = fetched.keep_records(credit);
                let mut place = outlet.place();
                place.reserve_up_to(fetch.max_bytes as usize).await;
                Ok((place, fetched, records))
            };
            match outlet.unless_ended(next).await {
                Ok(Ok((place, fetched, records))) => {
                    fetch.offset = fetched.next_offset;
                    outlet.push(place, fetched.encode(), records);
                }
                Ok(Err(error)) => return outlet.error(&error),
                Err(ending) => return outlet.end(ending),
            }
        }
    }

    /// What there is, once there is something.
    async fn fetch_at_last(&self, fetch: &Fetch) -> Result<Fetched, ApiError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let fetched = self.fetch_now(fetch)?;
            if !fetched.items.is_empty() {
                return Ok(fetched);
            }
            changed.await;
        }
    }

    fn fetch_now(&self, fetch: &Fetch) -> Result<Fetched, ApiError> {
        let mut disk = self.disk();
        let mut fetched = check_topic(&mut disk, fetch.topic, fetch.epoch)?
            .1
            .fetch(fetch)?;
        match disk.fetch_fault {
            Some(FetchFault::LeaveOut) if fetched.items.len() > 2 => {
                fetched.items.remove(1);
            }
            Some(FetchFault::Corrupt) => {
                if let Some(FetchItem::Batch(stored)) = fetched.items.first_mut() {
                    let mut bytes = stored.batch.to_vec();
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    stored.batch = bytes.into();
                }
            }
            _ => {}
        }
        Ok(fetched)
    }
}
