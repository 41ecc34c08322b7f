//! What is asked of everything that reads bytes from outside: a function for each of them.
//!
//! A target takes any bytes and panics if what must hold does not. That nothing panics by itself is asked of all of
//! them; what else, each says. They are plain functions, so that the fuzzer, the tests and whoever has a file in hand
//! call the same.

mod batch;
mod export;
pub mod found;
mod recovery;
mod scene;
mod stored;
mod texts;
mod wire;

use std::fmt::Display;

pub use scene::{Scene, index_scene, scenes, scratch};
pub use wire::input_of;

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its program and of the directory of its corpus.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// Most memory it may take beside its input, in MiB.
    pub memory: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), memory: usize) -> Target {
    Target { name, run, memory }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("frame", wire::frame, 1),
    // A list is believed for as much as 1 MiB before its entries come.
    target("hello", wire::hello, 2),
    target("body", wire::body, 4),
    // Twice a batch: the packed records and the unpacked ones, for as many as a header tells.
    target("batch", batch::batch, 40),
    target("packed", batch::packed, 40),
    target("journal_parts", stored::journal_parts, 4),
    target("rows", stored::rows, 16),
    // Twice a section: its bytes, and the same behind what its checksum begins with.
    target("export", export::export, 40),
    target("names", texts::names, 1),
    target("command_line", texts::command_line, 8),
    target("config", texts::config, 4),
    target("journal", recovery::journal, 256),
    target("catalog", recovery::catalog, 256),
    target("registry", recovery::registry, 256),
    target("tools", recovery::tools, 256),
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Whoever refuses something says why.
fn names_an_error(error: &impl Display) {
    let text = error.to_string();
    let is_text = text.chars().any(char::is_alphabetic) && !text.chars().any(char::is_control);
    assert!(is_text, "an error without a text: {text:?}");
}

/// Bytes of an input, taken off its front; zeros behind its end.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A length in one byte, and so many.
    fn slice(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(usize::from(length))
    }

    fn bytes(&mut self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(self.slice())
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.slice()).into_owned()
    }
}
