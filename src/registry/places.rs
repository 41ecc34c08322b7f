//! Where a new topic should go: the least loaded peer that is online.
//!
//! What a peer carries is put into one number, in *topics' worth*: each topic
//! counts 1, each 64 MiB stored 1, each 1 MiB/s going in or out 10. Placements
//! since the peer last told its load count as topics, so that a hundred topics
//! made at once are spread and not thrown at the peer that was idle a second ago.
//! A peer with little free disk is chosen only when all have little.

use super::peers::Peer;
use super::state::State;
use super::table::{Kind, PeerNumber};
use crate::limits;
use crate::protocol::api::{PeerState, PlaceTopic, Placement};
use crate::protocol::error::ApiError;

const STORED_BYTES_PER_POINT: u64 = 64 * limits::MIB as u64;
const BYTES_PER_SECOND_PER_POINT: u64 = limits::MIB as u64 / 10;

impl State {
    pub(super) fn place_topic(&mut self, request: &PlaceTopic) -> Result<Placement, ApiError> {
        let name = &request.name;
        if self.topics.find(name, Kind::Held).is_some() {
            return Err(ApiError::TopicExists { name: name.clone() });
        }
        let number = match &request.on {
            None => self.least_loaded().ok_or(ApiError::NoPeerOnline)?,
            Some(wanted) => self
                .peers
                .by_name(wanted)
                .ok_or_else(|| ApiError::PeerNotFound {
                    name: wanted.clone(),
                })?,
        };
        let peer = self.peers.at_mut(number);
        if peer.state != PeerState::Online {
            return Err(ApiError::PeerNotOnline {
                peer: peer.name.clone(),
                state: peer.state.to_string(),
            });
        }
        peer.placed += 1;
        Ok(Placement {
            peer: peer.id,
            name: peer.name.clone(),
            address: peer.address.clone(),
        })
    }

    /// The best peer; of equals the first by name.
    fn least_loaded(&self) -> Option<PeerNumber> {
        let online = |&number: &PeerNumber| self.peers.at(number).state == PeerState::Online;
        let burden = |&number: &PeerNumber| {
            let topics = self.topics.of_peer(number).len() as u64;
            burden(self.peers.at(number), topics)
        };
        self.peers.by_names().filter(online).min_by_key(burden)
    }
}

/// Whether the disk is nearly full, then the topics' worth.
fn burden(peer: &Peer, topics: u64) -> (bool, u64) {
    let load = &peer.load;
    let traffic = load
        .bytes_in_per_second
        .saturating_add(load.bytes_out_per_second);
    let points = topics
        .saturating_add(peer.placed)
        .saturating_add(load.stored_bytes / STORED_BYTES_PER_POINT)
        .saturating_add(traffic / BYTES_PER_SECOND_PER_POINT);
    (load.disk_free_bytes < limits::PLACE_DISK_FREE_BYTES, points)
}
