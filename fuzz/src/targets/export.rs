//! Exports, as they come from anywhere.

use std::io::Cursor;

use tidings::journal::crc32c;
use tidings::limits;
use tidings::protocol::batch::{BatchHeader, CheckedBatch, Piece, expand};
use tidings::store::Store;
use tidings::store::offline::import;
use tidings::store::offline::tdx::{self, ExportReader, ExportWriter, ExportedBatch, Section};

use super::found::{FoundItem, options, read_all};
use super::{names_an_error, scene};

const PREAMBLE_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = 12;
/// Kind of a section with a batch, and what stands before the batch in it.
const BATCH: u8 = 4;
const BATCH_FIELDS_BYTES: usize = 20;

/// An export. The first byte says what is done with the rest: bit 0, its sections get the right checksums; bit 1, batches in
/// it too; bit 2, what passes for whole is imported.
///
/// What is read is written as the same bytes; what passes as a whole can be imported, and is what is then read.
pub fn export(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if how & 1 == 1 {
        seal(&mut bytes, how & 2 == 2);
    }
    let sections = same_bytes(&bytes);
    match tdx::check(&bytes[..]) {
        Ok(checked) => {
            let sections = sections.expect("what was checked as a whole was read");
            let batches = sections.iter().filter(|s| matches!(s, Section::Batch(_)));
            let told: u64 = checked
                .topics
                .iter()
                .map(|topic| topic.totals.batches)
                .sum();
            assert_eq!(batches.count() as u64, told);
            if how & 4 == 4 {
                imported(bytes, &sections);
            }
        }
        Err(error) => names_an_error(&error),
    }
}

/// Sets the checksums of all sections whose lengths lie in the bytes.
fn seal(bytes: &mut [u8], batches_too: bool) {
    let (mut at, mut ordinal) = (PREAMBLE_BYTES, 0_u64);
    while let Some(header) = bytes.get(at..at + SECTION_HEADER_BYTES) {
        let kind = header[0];
        let length: [u8; 4] = header[4..8].try_into().expect("four bytes");
        let body = at + SECTION_HEADER_BYTES;
        let Some(end) = body.checked_add(u32::from_le_bytes(length) as usize) else {
            return;
        };
        let Some(content) = bytes.get_mut(body..end) else {
            return;
        };
        if batches_too
            && kind == BATCH
            && let Some(batch) = content.get_mut(BATCH_FIELDS_BYTES..)
            && batch.len() > 4
        {
            let crc = crc32c(&batch[4..]);
            batch[..4].copy_from_slice(&crc.to_le_bytes());
        }
        let covered = [&ordinal.to_le_bytes()[..], &[kind], &length, content].concat();
        let crc = crc32c(&covered);
        bytes[at + 8..body].copy_from_slice(&crc.to_le_bytes());
        (at, ordinal) = (end, ordinal + 1);
    }
}

/// The sections, if they are all there, which are written again as they came.
fn same_bytes(bytes: &[u8]) -> Option<Vec<Section>> {
    let mut reader = match ExportReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => {
            names_an_error(&error);
            return None;
        }
    };
    let mut writer = ExportWriter::new(Vec::new()).expect("memory takes it");
    let mut sections = Vec::new();
    loop {
        let before = reader.at();
        match reader.section() {
            Ok(Section::End {
                topics,
                sections: told,
            }) => {
                let written = writer.finish(topics).expect("memory takes it");
                if told == sections.len() as u64 {
                    assert_eq!(written, bytes);
                }
                return Some(sections);
            }
            Ok(section) => {
                writer.section(&section).expect("memory takes it");
                sections.push(section);
            }
            Err(error) => {
                names_an_error(&error);
                let written = writer.finish(0).expect("memory takes it");
                let whole = usize::try_from(before).expect("it is in memory");
                assert_eq!(written[..whole], bytes[..whole]);
                return None;
            }
        }
    }
}

/// What was imported is what the file says.
fn imported(bytes: Vec<u8>, sections: &[Section]) {
    let dir = scene::scratch();
    let options = options(&dir.path().join("store"));
    let topics = match import(&options, Cursor::new(bytes)) {
        Ok(topics) => topics,
        // A store of small slots does not take everything; nothing of it is there then.
        Err(error) => return names_an_error(&error),
    };
    let (store, _) = Store::open(&options).expect("it was just imported");
    let found = read_all(&store);
    store.stop().expect("it stops");
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    assert_eq!(found.topics.len(), topics.len());
    let mut current = None;
    for section in sections {
        match section {
            Section::Topic(topic) => {
                let imported = topics.iter().find(|imported| imported.name == topic.name);
                let imported = imported.expect("every topic is told");
                let found = &found.topics[&imported.id];
                assert_eq!(
                    (found.start, found.end),
                    (topic.start.get(), topic.end.get())
                );
                current = Some(found);
            }
            Section::Batch(ExportedBatch { base, batch, .. }) => {
                let topic = current.expect("a batch belongs to a topic");
                let batch = CheckedBatch::check_stored(batch.clone(), limits::MESSAGE_BYTES_MAX)
                    .expect("it was checked");
                // Whether the time of one that has any is over says the clock.
                let pieces = match batch.ttl() {
                    None => expand(*base, &batch).expect("it was checked"),
                    Some(_) => Vec::new(),
                };
                for piece in pieces {
                    // Gaps come together with those before and behind them.
                    let Piece::Batch(at, batch) = piece else {
                        continue;
                    };
                    let records = BatchHeader::parse(&batch).expect("whole").record_count;
                    if at.saturating_add(records.into()).get() > topic.start {
                        let expected = FoundItem::Batch(batch, records.into());
                        assert_eq!(topic.items.get(&at.get()), Some(&expected));
                    }
                }
            }
            _ => {}
        }
    }
}
