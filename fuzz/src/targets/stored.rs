//! What a store reads back: the parts of a journal's slot, and rows of catalog and registry.
//!
//! Their checksums are made right here, for hardly any change would come past them otherwise.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidings::journal::{
    CLAIM_BYTES, ENTRY_HEADER_BYTES, EntryHeader, FIRST_POSITION, Footer, GROUP_HEADER_BYTES,
    GroupHeader, Listing, Salt, Seed, SlotHeader, SnapshotEnd, StateOp, crc32c,
};
use tidings::limits;
use tidings::registry::rows::{Changes, Loader};
use tidings::registry::{Directory, Millis, Now, Settings};
use tidings::time::Timestamp;
use tidings::topic::{Row, RowKey};
use tidings::types::{Offset, TopicId, TopicPattern};

use super::{Input, names_an_error};

const SEED: Seed = Seed {
    salt: Salt::from_bytes([9; 16]),
    segment: 7,
};
const SLOT_HEADER_BYTES: usize = 512;

/// A part of a slot: the first byte says which, bit 7 that its checksum is left as it is.
pub fn journal_parts(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    let honest = kind & 0x80 == 0;
    match kind % 6 {
        0 => slot_header(rest, honest),
        1 => group(rest, honest),
        2 => entry(rest, honest),
        3 => footer(rest, honest),
        4 => match StateOp::decode_all(rest) {
            Ok(operations) => {
                let again = StateOp::encode_all(&operations).expect("what came in goes out");
                assert_eq!(again, rest);
            }
            Err(error) => names_an_error(&error),
        },
        _ => match SnapshotEnd::decode(rest) {
            Ok(end) => assert_eq!(end.encode(), rest),
            Err(error) => names_an_error(&error),
        },
    }
}

fn slot_header(bytes: &[u8], honest: bool) {
    let mut header = bytes.to_vec();
    if honest {
        header.resize(SLOT_HEADER_BYTES, 0);
        let crc = crc32c(&header[..SLOT_HEADER_BYTES - 4]);
        header[SLOT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    let slot = header.get(24..28).map_or(1, |at| {
        u32::from_le_bytes(at.try_into().expect("four bytes"))
    });
    match SlotHeader::decode(&header, slot) {
        Ok(found) => {
            assert_eq!(found.encode(), header[..SLOT_HEADER_BYTES]);
            let other = slot.wrapping_add(1);
            names_an_error(&SlotHeader::decode(&header, other).expect_err("of another file"));
        }
        Err(error) => names_an_error(&error),
    }
}

/// Sets the checksum at `at` over everything from `from` to `to`.
fn seal(bytes: &mut [u8], at: usize, from: usize, to: usize) {
    if let Some(covered) = bytes.get(from..to) {
        let crc = SEED.crc(FIRST_POSITION, covered);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn group(bytes: &[u8], honest: bool) {
    let mut bytes = bytes.to_vec();
    let told = GroupHeader::peek_header_length(&bytes);
    if let (Ok(length), true) = (told, honest) {
        seal(&mut bytes, 4, 8, length as usize);
    }
    match GroupHeader::decode(&bytes, &SEED, FIRST_POSITION) {
        Ok((header, claims)) => {
            assert_eq!(Ok(header.header_length), told);
            let length = GROUP_HEADER_BYTES + claims.len() * CLAIM_BYTES;
            assert_eq!(header.header_length as usize, length);
            assert!(header.synced < header.number && header.length >= header.header_length);
            let elsewhere = GroupHeader::decode(&bytes, &SEED, FIRST_POSITION + 512);
            names_an_error(&elsewhere.expect_err("its place is in its checksum"));
        }
        Err(error) => names_an_error(&error),
    }
}

fn entry(bytes: &[u8], honest: bool) {
    let mut bytes = bytes.to_vec();
    if honest {
        seal(&mut bytes, 0, 4, ENTRY_HEADER_BYTES);
    }
    match EntryHeader::decode(&bytes, &SEED, FIRST_POSITION) {
        Ok(header) => {
            assert_eq!(
                header.encode(&SEED, FIRST_POSITION),
                bytes[..ENTRY_HEADER_BYTES]
            );
            assert_eq!(EntryHeader::decode_trusted(&bytes), Ok(header));
            assert!(header.end_number() > header.number);
            let payload = &bytes[ENTRY_HEADER_BYTES..];
            let matches = header.payload_matches(payload);
            assert!(!matches || payload.len() == header.payload_bytes as usize);
        }
        Err(error) => names_an_error(&error),
    }
}

fn footer(bytes: &[u8], honest: bool) {
    const POSITION: u32 = 1 << 19;
    let mut bytes = bytes.to_vec();
    if let (Ok(length), true) = (Footer::peek_length(&bytes), honest)
        && let Some(covered) = bytes.get(8..length as usize)
    {
        let crc = SEED.crc(POSITION, covered);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let whole = Bytes::from(bytes.clone());
    // A topic of those it names, in its first row or, if there is no such row, one it cannot know.
    let first = whole.get(40..56).and_then(|id| id.try_into().ok());
    let topic = TopicId::from_bytes(first.unwrap_or([0; 16]));
    let part = Listing::find(&whole, POSITION, topic);
    if let Ok(listing) = &part {
        assert!(!listing.is_checked());
        let mut before = (Offset::ZERO, 0);
        for extent in listing.from(Offset::ZERO) {
            assert!(extent.base >= before.0 && extent.position >= before.1);
            before = (extent.end(), extent.range().end);
            assert!(extent.payload_bytes() > 0 && before.1 <= POSITION);
        }
    }
    let footer = match Footer::decode(whole, &SEED, POSITION) {
        Ok(footer) => footer,
        Err(error) => return names_an_error(&error),
    };
    if let Ok(listing) = part {
        let extents: Vec<_> = listing.from(Offset::ZERO).collect();
        assert!(footer.extents_of(topic).eq(extents));
    }
    assert!(bytes.starts_with(footer.as_bytes()));
    for summary in footer.topics() {
        assert_eq!(footer.topic(summary.topic), Some(summary));
        let extents: Vec<_> = footer.extents_of(summary.topic).collect();
        assert_eq!(extents.len(), summary.extents as usize);
        let records: u64 = extents.iter().map(|extent| u64::from(extent.records)).sum();
        assert_eq!(records, summary.records);
        for extent in extents {
            let at = |offset| footer.extent_at(summary.topic, offset);
            assert_eq!(at(extent.base), Some(extent));
            assert_ne!(at(extent.end()), Some(extent));
            let payload = extent.payload_bytes();
            assert!(payload > 0 && payload < u64::from(extent.length));
        }
        assert_eq!(footer.extent_at(summary.topic, Offset::new(u64::MAX)), None);
    }
}

/// Rows, each a length and a key, a length and a value: of a peer's catalog, or, after a first byte that is odd, of a registry.
///
/// A row that is one encodes to the same bytes; one of an older version to those of the present one, and no further. A registry made of rows that contradict each other says so, leaves them
/// out, and is whole once what it asks for was written.
pub fn rows(data: &[u8]) {
    let mut input = Input(data);
    let of_registry = input.byte() % 2 == 1;
    let mut rows = BTreeMap::new();
    while !input.0.is_empty() && rows.len() < 64 {
        let key = input.slice().to_vec();
        let length = usize::from(input.u16());
        rows.insert(key, input.take(length).to_vec());
    }
    if of_registry {
        return registry(rows);
    }
    for (key, value) in rows {
        let name = match RowKey::decode(&key) {
            Ok(name) => name,
            Err(error) => {
                names_an_error(&error);
                continue;
            }
        };
        assert_eq!(name.encode(), key);
        match Row::decode(&name, &value) {
            Ok(row) => {
                let now = row.encode();
                match now[0] == value[0] {
                    true => assert_eq!(now, value),
                    false => assert_eq!(Row::decode(&name, &now), Ok(row)),
                }
            }
            Err(error) => names_an_error(&error),
        }
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn load(rows: &Rows) -> Loader {
    const NOW: Now = Now {
        ticks: Millis::new(5),
        wall: Timestamp::from_millis(1_700_000_000_000),
    };
    let second = std::time::Duration::from_secs(1);
    let settings = Settings {
        lease: 10 * second,
        claim_kept: 10 * second,
        stall: second,
        step_entries: limits::INDEX_STEP_ENTRIES,
    };
    let mut loader = Loader::new(settings, NOW);
    for (key, value) in rows {
        loader.take((key.clone(), value.clone()));
    }
    loader
}

/// Whether a key is of no row there can be: such a row is nobody's to write anew or to remove.
fn is_foreign(key: &[u8]) -> bool {
    match key {
        [1, high, low] => usize::from(u16::from_be_bytes([*high, *low])) >= limits::PEERS_MAX,
        [2, _, _, _, _, _, _] | [3] => false,
        _ => true,
    }
}

fn registry(mut rows: Rows) {
    let (state, mut layout, loaded) = load(&rows).finish();
    loaded.unreadable.iter().for_each(names_an_error);
    let batches: Vec<Changes> = layout.changed(&state, &loaded.effects);
    for Changes { puts, deletes } in batches {
        for key in deletes {
            rows.remove(&key);
        }
        rows.extend(puts);
    }
    let (again, _, left) = load(&rows).finish();
    let foreign: Vec<_> = rows.keys().filter(|key| is_foreign(key)).collect();
    let is_of = |line: &str, key: &[u8]| line.ends_with(&format!("under {}", key.escape_ascii()));
    let mut still_wrong = left.unreadable;
    still_wrong.retain(|line| !foreign.iter().any(|key| is_of(line, key)));
    assert!(still_wrong.is_empty(), "after the repair: {still_wrong:?}");
    assert_eq!((left.left_out, left.unfinished), (0, false));
    assert_eq!(
        (state.entries(), state.peers()),
        (again.entries(), again.peers())
    );
    // What it shows is in order and complete.
    let directory = Directory::new(&again, 1);
    let shown = directory.list(&TopicPattern::all(), None, 1_000);
    assert!(shown.topics.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(shown.topics.len(), directory.topics());
}
