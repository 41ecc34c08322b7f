//! Finds out what the disk under a directory wants: its sector, and whether O_DIRECT works.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};

use super::buffer::AlignedBuffer;
use super::fields::to_usize;
use super::slot::{Access, direct_flag};
use crate::limits::{SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};

/// Name of the file that is written to try O_DIRECT.
const PROBE_FILE: &str = "probe";

/// What was found out.
pub(super) struct Disk {
    /// The unit the disk writes whole, in bytes.
    pub sector: u32,
    /// How to open files.
    pub access: Access,
}

/// Looks at the disk under `directory`; leaves nothing behind.
pub(super) fn probe(directory: &Path, page_cache_only: bool) -> io::Result<Disk> {
    let path = directory.join(PROBE_FILE);
    let file = File::create(&path)?;
    let told = ask(&file);
    let sector = told.sector();
    let direct = !page_cache_only && direct_works(&path, told.direct_align.unwrap_or(sector));
    drop(file);
    fs::remove_file(&path)?;
    let access = Access {
        direct,
        direct_align: if direct {
            told.direct_align.unwrap_or(sector)
        } else {
            SECTOR_BYTES_MIN
        },
        read_only: false,
    };
    Ok(Disk { sector, access })
}

/// What the system tells about the disk; it may know nothing.
#[derive(Debug, Default)]
struct Told {
    /// Alignment of direct reads and writes.
    direct_align: Option<u32>,
    logical: Option<u32>,
    physical: Option<u32>,
}

impl Told {
    /// The largest of what was told, within what the format allows; the largest there is if nothing was told.
    fn sector(&self) -> u32 {
        let told = [self.direct_align, self.logical, self.physical];
        told.into_iter()
            .flatten()
            .filter(|bytes| bytes.is_power_of_two())
            .max()
            .map_or(SECTOR_BYTES_MAX, |bytes| {
                bytes.clamp(SECTOR_BYTES_MIN, SECTOR_BYTES_MAX)
            })
    }
}

fn ask(file: &File) -> Told {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::DIOALIGN;
    let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted) else {
        return Told::default();
    };
    let align = stat.stx_dio_offset_align;
    let fits = align.is_power_of_two() && align <= SECTOR_BYTES_MAX;
    let queue = |name| queue_attribute(stat.stx_dev_major, stat.stx_dev_minor, name);
    Told {
        direct_align: fits.then_some(align.max(SECTOR_BYTES_MIN)),
        logical: queue("logical_block_size"),
        physical: queue("physical_block_size"),
    }
}

/// An attribute of the block device's queue; a partition's is that of the disk it is on.
fn queue_attribute(major: u32, minor: u32, name: &str) -> Option<u32> {
    let device = format!("/sys/dev/block/{major}:{minor}");
    let places = [
        format!("{device}/queue/{name}"),
        format!("{device}/../queue/{name}"),
    ];
    let text = places
        .iter()
        .find_map(|place| fs::read_to_string(place).ok())?;
    text.trim().parse().ok()
}

/// Whether bytes written with O_DIRECT, in units of `align`, come back: some file systems accept the flag and fail later.
fn direct_works(path: &Path, align: u32) -> bool {
    let align = to_usize(align);
    let attempt = || -> io::Result<bool> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(direct_flag())
            .open(path)?;
        let mut buffer = AlignedBuffer::new(2 * align);
        buffer.as_mut_slice()[..align].fill(0x5a);
        file.write_all_at(&buffer.as_slice()[..align], align as u64)?;
        buffer.as_mut_slice().fill(0);
        file.read_exact_at(&mut buffer.as_mut_slice()[..align], align as u64)?;
        Ok(buffer.as_slice()[..align].iter().all(|b| *b == 0x5a))
    };
    attempt().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_known_size_counts_within_bounds() {
        let told = |direct_align, logical, physical| {
            let told = Told {
                direct_align,
                logical,
                physical,
            };
            told.sector()
        };
        assert_eq!(told(None, None, None), 4096);
        assert_eq!(told(Some(512), Some(512), Some(4096)), 4096);
        assert_eq!(told(Some(512), Some(512), Some(512)), 512);
        assert_eq!(told(None, Some(256), None), 512);
        assert_eq!(told(None, None, Some(65_536)), 4096);
    }

    #[test]
    fn leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let disk = probe(directory.path(), false).expect("a probe");
        assert!(disk.sector >= disk.access.direct_align);
        let left = fs::read_dir(directory.path()).expect("a listing").count();
        assert_eq!(left, 0);
    }
}
