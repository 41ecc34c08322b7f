//! The journal's disk format and the IO on its files.

pub mod buffer;
pub mod checksum;
pub mod cold;
pub mod directory;
pub mod entry;
pub mod error;
mod fields;
pub mod footer;
pub mod group;
pub mod header;
pub mod place;
mod probe;
pub mod read;
pub mod scan;
pub mod slot;
pub mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod walk;
mod window;
