//! Headers of slots: both copies, against the file and against the peer.

use crate::journal::{HeaderFault, Kind, ListedSlot, SlotHeader};
use crate::store::offline::image::Image;
use crate::store::offline::report::Verified;

/// Checks every slot, used or not.
pub(super) fn check(image: &Image, report: &mut Verified) {
    for slot in &image.slots {
        report.checked.slots += 1;
        let held = image
            .segments
            .values()
            .any(|segment| segment.header.slot == slot.id);
        let name = image.slot_name(slot.id);
        match slot.header.header() {
            Some(header) => readable(image, slot, header, report),
            None if slot.is_unused() && !held => {}
            None => {
                let fault = slot.fault().unwrap_or(HeaderFault::Blank);
                report.add(name, format!("both copies of the header: {fault}"));
            }
        }
    }
    for segment in image.segments.values() {
        if !image.has_file(segment) {
            let name = image.slot_name(segment.header.slot);
            report.add(
                name,
                format!("the file of segment {} is missing", segment.number),
            );
        }
    }
}

fn readable(image: &Image, slot: &ListedSlot, header: &SlotHeader, report: &mut Verified) {
    let name = image.slot_name(slot.id);
    for (copy, at) in slot.header.copies.iter().zip([0, 4096]) {
        if let Err(fault) = copy {
            report
                .add(&name, format!("one copy of the header: {fault}"))
                .at(at);
        }
    }
    if slot.file_bytes != u64::from(header.slot_bytes) {
        report.add(
            &name,
            format!(
                "the file has {} bytes, expected {}",
                slot.file_bytes, header.slot_bytes
            ),
        );
    }
    let peer = image.state().peer().id;
    if header.peer != peer && header.kind != Kind::Recovery {
        report.add(
            &name,
            format!(
                "it belongs to peer {}, this directory to {peer}",
                header.peer
            ),
        );
    }
    let rows = image.state().segments();
    let Some((number, row)) = rows.iter().find(|(_, row)| row.slot == slot.id) else {
        return;
    };
    let same_kind = image
        .segments
        .get(number)
        .is_some_and(|segment| segment.header.kind == header.kind);
    if header.segment != *number || header.salt.to_bytes() != row.salt || !same_kind {
        report.add(
            &name,
            format!(
                "its header says segment {}, the row of segment {number} says that one is here",
                header.segment
            ),
        );
    }
}
