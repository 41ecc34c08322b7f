//! Footers: where the records of each topic lie in a sealed segment (section 5 of `docs/storage-format.md`). Pure.
//!
//! [`Footer`] keeps the encoded bytes and searches in them, so a cached footer costs what it costs
//! on the disk. [`super::gather`] makes footers.

use bytes::Bytes;

use super::checksum::Seed;
use super::fields::{get_u32, get_u64, to_usize};
use super::listing::{
    Extent, FOOTER_HEADER_BYTES, FooterFault, Head, Listing, TopicSummary, find_topic, topic_row,
};
use crate::types::{Offset, TopicId};

/// What is known of a segment when it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Where its contents end, padding included.
    pub contents_end: u32,
    /// First and last group; zeros in a cold segment.
    pub groups: (u64, u64),
}

/// A checked footer, as compact in memory as on the disk.
#[derive(Clone, Debug)]
pub struct Footer {
    bytes: Bytes,
    head: Head,
}

impl Footer {
    /// The length of the footer that its first bytes tell, not yet to be believed.
    ///
    /// # Errors
    /// If they are not the first bytes of a footer.
    pub fn peek_length(bytes: &[u8]) -> Result<u32, FooterFault> {
        Head::peek_length(bytes)
    }

    /// Reads and checks the footer at the start of `bytes`, which lie at `position` of the segment.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn decode(bytes: Bytes, seed: &Seed, position: u32) -> Result<Self, FooterFault> {
        let length = to_usize(Self::peek_length(&bytes)?);
        if length < FOOTER_HEADER_BYTES {
            return Err(FooterFault::Checksum);
        }
        if bytes.len() < length {
            return Err(FooterFault::Short);
        }
        let bytes = bytes.slice(..length);
        if seed.crc(position, &bytes[8..]) != get_u32(&bytes, 4) {
            return Err(FooterFault::Checksum);
        }
        let head = Head::decode(&bytes, position)?;
        let footer = Self { bytes, head };
        footer.check()?;
        Ok(footer)
    }

    fn check(&self) -> Result<(), FooterFault> {
        let bad = |what| Err(FooterFault::Value { what });
        let mut first = 0;
        let mut before: Option<TopicId> = None;
        for at in 0..self.head.topics {
            let (summary, first_extent) = topic_row(self.rows(), at);
            if before.is_some_and(|b| b >= summary.topic) {
                return bad("order of topics");
            }
            if first_extent != first || summary.extents == 0 {
                return bad("index of extents");
            }
            before = Some(summary.topic);
            let Some(listing) = self.listed(&summary, first_extent) else {
                return bad("index of extents");
            };
            first += to_usize(summary.extents);
            listing.check(&summary, self.head.contents_end)?;
        }
        if first == self.head.extents {
            Ok(())
        } else {
            bad("number of extents")
        }
    }

    /// The bytes, to be written at a sector boundary and padded with zeros.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its own checksum, which the catalog remembers.
    pub fn crc(&self) -> u32 {
        get_u32(&self.bytes, 4)
    }

    /// Where the contents end and which groups they are.
    pub fn segment_end(&self) -> SegmentEnd {
        SegmentEnd {
            contents_end: self.head.contents_end,
            groups: (get_u64(&self.bytes, 24), get_u64(&self.bytes, 32)),
        }
    }

    /// What the segment holds of each topic, by topic id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = TopicSummary> + '_ {
        (0..self.head.topics).map(|at| topic_row(self.rows(), at).0)
    }

    /// What the segment holds of `topic`.
    pub fn topic(&self, topic: TopicId) -> Option<TopicSummary> {
        find_topic(self.rows(), topic).map(|(summary, _)| summary)
    }

    /// The extents of `topic`; none if the segment holds nothing of it.
    pub fn listing(&self, topic: TopicId) -> Listing {
        let found = find_topic(self.rows(), topic);
        let listing = found.and_then(|(summary, first)| self.listed(&summary, first));
        listing.unwrap_or_else(|| Listing::checked(Bytes::new()))
    }

    /// The extents of `topic`, by offset.
    pub fn extents_of(&self, topic: TopicId) -> impl ExactSizeIterator<Item = Extent> + use<> {
        self.listing(topic).into_extents()
    }

    /// The extent of `topic` that holds `offset`, or else the first one after it.
    pub fn extent_at(&self, topic: TopicId, offset: Offset) -> Option<Extent> {
        self.listing(topic).from(offset).next()
    }

    /// The last extent of `topic` for which `holds`, and the first for which it does not, given that it holds for
    /// those before and for none after.
    pub fn split(
        &self,
        topic: TopicId,
        holds: impl Fn(&Extent) -> bool,
    ) -> (Option<Extent>, Option<Extent>) {
        self.listing(topic).split(holds)
    }

    fn rows(&self) -> &[u8] {
        &self.bytes[self.head.topics()]
    }

    /// `None`: the summary claims more extents than there are.
    fn listed(&self, summary: &TopicSummary, first: usize) -> Option<Listing> {
        let range = self.head.extents(first, to_usize(summary.extents))?;
        Some(Listing::checked(self.bytes.slice(range)))
    }
}
