//! Packing the records of a batch as one block.
//!
//! lz4 is the bare block format, without the size some libraries put in front.
//! zstd is exactly one frame, without a dictionary, whose window is bounded, and
//! whose content size, if it tells one, is that of the batch header.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BatchError;
use crate::limits;
use crate::types::Invalid;

/// Level of zstd: the library's default. Higher ones cost the publisher more
/// time than a local network needs to carry the difference.
const ZSTD_LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

/// What the first bytes of a zstd frame are.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Most bytes that one byte of an lz4 block can stand for: a length grows by at
/// most 255 with each byte of the block.
const LZ4_RATIO_MAX: u64 = 255;

/// How a publisher packs the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 block format: cheap.
    Lz4,
    /// Zstandard: smaller.
    Zstd,
}

impl Compression {
    /// The attribute byte of the header, whose other bits are reserved.
    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// Reads the attribute byte; any reserved bit makes it unknown.
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Invalid::new("compression", text, "none, lz4 or zstd")),
        }
    }
}

/// Unpacks into exactly `unpacked_length` bytes, which the header bounds.
pub(super) fn unpack(
    how: Compression,
    packed: &[u8],
    unpacked_length: u32,
) -> Result<Vec<u8>, BatchError> {
    let unpacked = match how {
        Compression::None => packed.to_vec(),
        Compression::Lz4 => unpack_lz4(packed, unpacked_length)?,
        Compression::Zstd => unpack_zstd(packed, unpacked_length)?,
    };
    let (told, found) = (u64::from(unpacked_length), unpacked.len() as u64);
    if told == found {
        Ok(unpacked)
    } else {
        let what = "unpacked records";
        Err(BatchError::Length { what, told, found })
    }
}

fn wrong(reason: impl fmt::Display) -> BatchError {
    BatchError::Unpack {
        reason: reason.to_string(),
    }
}

fn unpack_lz4(packed: &[u8], unpacked_length: u32) -> Result<Vec<u8>, BatchError> {
    if u64::from(unpacked_length) > packed.len() as u64 * LZ4_RATIO_MAX {
        return Err(wrong(format_args!(
            "{} bytes of lz4 cannot hold {unpacked_length}",
            packed.len()
        )));
    }
    let mut unpacked = vec![0; unpacked_length as usize];
    let length = lz4_flex::block::decompress_into(packed, &mut unpacked).map_err(wrong)?;
    unpacked.truncate(length);
    Ok(unpacked)
}

fn unpack_zstd(packed: &[u8], unpacked_length: u32) -> Result<Vec<u8>, BatchError> {
    check_zstd_frame(packed, unpacked_length)?;
    // Unpacked in one step straight into the result: no window is reserved.
    let mut unpacked = Vec::with_capacity(unpacked_length as usize);
    zstd::bulk::Decompressor::new()
        .and_then(|mut zstd| zstd.decompress_to_buffer(packed, &mut unpacked))
        .map_err(wrong)?;
    Ok(unpacked)
}

/// Checks the frame header, before anything is reserved for the content.
fn check_zstd_frame(packed: &[u8], unpacked_length: u32) -> Result<(), BatchError> {
    let Some([descriptor, rest @ ..]) = packed.strip_prefix(&ZSTD_MAGIC) else {
        return Err(wrong("not a zstd frame"));
    };
    if descriptor & 0b11 != 0 {
        return Err(wrong("the zstd frame needs a dictionary"));
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    if !single_segment {
        let window = rest.first().map(|&byte| zstd_window_bytes(byte));
        if window.is_none_or(|bytes| bytes > limits::ZSTD_WINDOW_BYTES_MAX) {
            return Err(wrong("the window of the zstd frame is above 32 MiB"));
        }
    }
    match zstd::zstd_safe::get_frame_content_size(packed) {
        Ok(None) => {}
        Ok(Some(size)) if size == u64::from(unpacked_length) => {}
        _ => return Err(wrong("the zstd frame tells another size than the batch")),
    }
    match zstd::zstd_safe::find_frame_compressed_size(packed) {
        Ok(length) if length == packed.len() => Ok(()),
        _ => Err(wrong("not exactly one whole zstd frame")),
    }
}

/// The window that a frame declares (RFC 8878, 3.1.1.1.2).
fn zstd_window_bytes(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// Packs records; keeps its buffer and its tables from one batch to the next.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    /// Packs `records`, or returns `None` where that would not make them smaller.
    pub(super) fn pack(
        &mut self,
        how: Compression,
        records: &[u8],
    ) -> Result<Option<&[u8]>, BatchError> {
        match how {
            Compression::None => return Ok(None),
            Compression::Lz4 => self.pack_lz4(records)?,
            Compression::Zstd => self.pack_zstd(records)?,
        }
        Ok((self.packed.len() < records.len()).then_some(&self.packed))
    }

    fn pack_lz4(&mut self, records: &[u8]) -> Result<(), BatchError> {
        let bound = lz4_flex::block::get_maximum_output_size(records.len());
        self.packed.resize(bound, 0);
        let length = lz4_flex::block::compress_into(records, &mut self.packed)
            .map_err(|error| could_not(&error))?;
        self.packed.truncate(length);
        Ok(())
    }

    fn pack_zstd(&mut self, records: &[u8]) -> Result<(), BatchError> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(
                zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|error| could_not(&error))?,
            ),
        };
        self.packed.clear();
        self.packed.reserve(zstd::compress_bound(records.len()));
        zstd.compress_to_buffer(records, &mut self.packed)
            .map_err(|error| could_not(&error))?;
        Ok(())
    }
}

fn could_not(error: &dyn fmt::Display) -> BatchError {
    BatchError::Pack {
        reason: error.to_string(),
    }
}
