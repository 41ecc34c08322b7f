//! Extents read back for a client, from the disk and from memory.

use super::super::buffer::BufferPool;
use super::super::cold::ColdWriter;
use super::super::compose::Group;
use super::super::directory::SlotHandle;
use super::super::gather::FooterBuilder;
use super::super::header::{Kind, SlotHeader};
use super::super::listing::Extent;
use super::super::read::{ExtentRead, Piece, Stretch, read_extent, read_from_group};
use super::super::slot::Via;
use super::super::testing::{
    Groups, Scratch, batch, flip, records, scratch_directories, state, topic,
};
use crate::limits::{MIB, SLOT_BYTES_MIN};
use crate::types::Offset;

/// What came out, in short: `Ok` for a batch, `Err` for damage.
fn told(pieces: &[Piece]) -> Vec<Result<(u64, u64), (u64, u64)>> {
    let range = |piece: &Piece| (piece.from().get(), piece.to().get());
    let told = pieces.iter().map(|piece| match piece {
        Piece::Entry(_) => Ok(range(piece)),
        Piece::Damaged { .. } => Err(range(piece)),
    });
    told.collect()
}

struct Written {
    scratch: Scratch,
    slot: SlotHandle,
    header: SlotHeader,
    group: Group,
    extent: Extent,
}

/// A group with an extent of four batches of ten records of topic 1, between other entries.
fn written(scratch: Scratch) -> Written {
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let payloads: Vec<_> = (0_u8..4).map(|i| batch(&[i; 200])).collect();
    let pieces: Vec<_> = payloads.iter().map(|p| [&p[..]]).collect();
    let mut entries = vec![records(topic(0xaa), 0, 1, &pieces[0])];
    for (i, payload) in (0_u64..).zip(&pieces) {
        entries.push(records(topic(1), 100 + i * 10, 10, payload));
    }
    entries.push(state(topic(1), 1, &[b"operations"]));
    let group = Groups::new(&slot, &header).write(&[], &entries);
    slot.sync_data().expect("a sync");
    let mut footer = FooterBuilder::default();
    let mut position = group.place().position + group.header().header_length;
    for entry in &entries {
        footer.add(&entry.header(), position);
        position += entry.header().entry_bytes();
    }
    let extent = footer.extents_of(topic(1))[0];
    assert_eq!((extent.records, extent.length), (40, 4 * 260));
    Written {
        scratch,
        slot,
        header,
        group,
        extent,
    }
}

/// What follows in the last sector may be written after it was read.
#[test]
fn a_stretch_ends_where_it_was_asked_for() {
    let written = written(Scratch::new());
    let extent = written.extent;
    let how = (Via::Direct, &used_buffers());
    let stretch = Stretch::read(&written.slot, extent.range(), how).expect("it can be read");
    assert!(stretch.covers(&extent));
    let behind = Extent {
        position: extent.position + extent.length,
        length: 4,
        ..extent
    };
    assert_eq!(behind.range().end / 4096, extent.range().end / 4096);
    assert!(!stretch.covers(&behind), "it may not have been there");
}

/// Memory that held something else before.
fn used_buffers() -> BufferPool {
    let pool = BufferPool::new(4 * MIB);
    let mut buffers: Vec<_> = [8192, 16_384, 65_536, MIB]
        .map(|bytes| pool.take(bytes))
        .into();
    for mut buffer in buffers.drain(..) {
        buffer.as_mut_slice().fill(0xEE);
        pool.give(buffer.freeze());
    }
    pool
}

impl Written {
    fn read(&self, from: u64, via: Via) -> Vec<Piece> {
        let read = self.whole(from);
        read_extent(&self.slot, &self.header, &read, (via, &used_buffers()))
            .expect("a readable file")
    }

    fn whole(&self, from: u64) -> ExtentRead {
        ExtentRead {
            topic: topic(1),
            extent: self.extent,
            from: Offset::new(from),
        }
    }

    /// The position of a byte of one of the four batches.
    fn byte_of(&self, batch: u32, at: u32) -> u32 {
        self.extent.position + batch * 260 + at
    }
}

#[test]
fn disk_cache_and_memory_give_the_same() {
    for keep in scratch_directories() {
        let written = written(Scratch::with(keep, SLOT_BYTES_MIN));
        let cases = [
            (
                0,
                vec![
                    Ok((100, 110)),
                    Ok((110, 120)),
                    Ok((120, 130)),
                    Ok((130, 140)),
                ],
            ),
            (115, vec![Ok((110, 120)), Ok((120, 130)), Ok((130, 140))]),
            (130, vec![Ok((130, 140))]),
            (140, vec![]),
        ];
        for (from, expected) in cases {
            for via in [Via::Direct, Via::Cached] {
                assert_eq!(told(&written.read(from, via)), expected, "from {from}");
            }
            let memory = read_from_group(&written.group, &written.whole(from));
            assert_eq!(told(&memory.expect("it lies in the group")), expected);
        }
        let Piece::Entry(first) = &written.read(100, Via::Cached)[0] else {
            panic!("nothing is damaged");
        };
        assert_eq!(first.payload, batch(&[0; 200]));
        assert_eq!(first.position, written.extent.position);
    }
}

#[test]
fn memory_of_another_place_is_not_taken() {
    let written = written(Scratch::new());
    let elsewhere = |position| ExtentRead {
        extent: Extent {
            position,
            ..written.extent
        },
        ..written.whole(0)
    };
    let end = written.group.end().position;
    for position in [0, end - 512, end] {
        assert!(read_from_group(&written.group, &elsewhere(position)).is_none());
    }
}

#[test]
fn every_changed_bit_costs_its_batch_and_is_told() {
    let written = written(Scratch::new());
    for batch in [0, 1, 3] {
        for at in 0..260 {
            let position = written.byte_of(batch, at);
            flip(written.scratch.file(&written.slot), position, 1 << (at % 8));
            let pieces = told(&written.read(0, Via::Cached));
            let expected: Vec<_> = (0..4)
                .map(|i| (100 + u64::from(i) * 10, 110 + u64::from(i) * 10, i == batch))
                .map(|(from, to, bad)| if bad { Err((from, to)) } else { Ok((from, to)) })
                .collect();
            assert_eq!(pieces, expected, "byte {at} of batch {batch}");
            flip(written.scratch.file(&written.slot), position, 1 << (at % 8));
        }
    }
}

#[test]
fn neighbouring_damage_is_one_piece_and_begins_where_was_asked() {
    let written = written(Scratch::new());
    for (batch, at) in [(1, 3), (2, 80)] {
        let position = written.byte_of(batch, at);
        flip(written.scratch.file(&written.slot), position, 1);
    }
    let pieces = told(&written.read(0, Via::Cached));
    assert_eq!(pieces, [Ok((100, 110)), Err((110, 130)), Ok((130, 140))]);
    let pieces = told(&written.read(117, Via::Cached));
    assert_eq!(pieces, [Err((117, 130)), Ok((130, 140))]);
    let pieces = told(&written.read(131, Via::Cached));
    assert_eq!(pieces, [Ok((130, 140))]);
}

#[test]
fn records_of_another_topic_or_offset_never_come_out() {
    let written = written(Scratch::new());
    let read = |read: ExtentRead| {
        told(
            &read_extent(
                &written.slot,
                &written.header,
                &read,
                (Via::Cached, &used_buffers()),
            )
            .expect("a file"),
        )
    };
    let other_topic = ExtentRead {
        topic: topic(2),
        ..written.whole(0)
    };
    assert_eq!(read(other_topic), [Err((100, 140))]);
    let other_offsets = ExtentRead {
        extent: Extent {
            base: Offset::new(95),
            ..written.extent
        },
        ..written.whole(0)
    };
    let expected = [
        Err((95, 100)),
        Ok((100, 110)),
        Ok((110, 120)),
        Ok((120, 130)),
        Err((130, 135)),
    ];
    assert_eq!(read(other_offsets), expected);
    let other_life = SlotHeader {
        segment: 2,
        ..written.header
    };
    let nothing = read_extent(
        &written.slot,
        &other_life,
        &written.whole(0),
        (Via::Cached, &used_buffers()),
    );
    assert_eq!(told(&nothing.expect("a file")), [Err((100, 140))]);
}

#[test]
fn a_cold_segment_reads_back_extent_by_extent() {
    for keep in scratch_directories() {
        let scratch = Scratch::with(keep, 4 * MIB as u64);
        let (slot, header) = scratch.segment(9, Kind::Cold);
        let mut writer = ColdWriter::new(SlotHandle::clone(&slot), &header);
        let mut written = 0;
        for of in 1..4 {
            for i in 0..9_u64 {
                let payload = batch(&vec![of; 100_000 + usize::from(of)]);
                assert!(writer.has_room_for(payload.len()));
                let pieces = [&payload[..]];
                let entry = records(topic(of), i * 10, 10, &pieces);
                writer.push(&entry).expect("a written entry");
                written += 1;
            }
        }
        let segment = writer.finish().expect("a finished segment");
        let footer = slot.read_footer(&header, segment.footer_position, Via::Cached);
        let footer = footer.expect("a readable file").expect("a footer");
        assert_eq!(footer.crc(), segment.footer.crc());
        let mut batches = 0;
        for summary in footer.topics() {
            let mut next = summary.base;
            for extent in footer.extents_of(summary.topic) {
                assert_eq!(extent.base, next, "without a hole");
                next = extent.end();
                let read = ExtentRead {
                    topic: summary.topic,
                    extent,
                    from: extent.base,
                };
                let pieces = read_extent(&slot, &header, &read, (Via::Cached, &used_buffers()))
                    .expect("a file");
                assert!(pieces.iter().all(|p| matches!(p, Piece::Entry(_))));
                batches += pieces.len();
            }
            assert_eq!(next, summary.end);
        }
        assert_eq!(batches, written);
    }
}

#[test]
fn a_cold_slot_is_filled_to_the_brim_and_no_further() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Cold);
    let mut writer = ColdWriter::new(slot, &header);
    let payload = batch(&[1; 1000]);
    let mut base = 0;
    while writer.has_room_for(payload.len()) {
        let of = topic(u8::try_from(base % 7).expect("below 7") + 1);
        writer
            .push(&records(of, base, 1, &[&payload]))
            .expect("a written entry");
        base += 1;
    }
    let segment = writer.finish().expect("the footer fits");
    let end = segment.footer_position as usize + segment.footer.as_bytes().len();
    assert!(end <= SLOT_BYTES_MIN as usize);
    assert!(
        end + 4 * 4096 > SLOT_BYTES_MIN as usize,
        "not much is left over"
    );
}
