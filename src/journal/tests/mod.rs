//! The format and real files together.

mod reading;
mod scanning;
mod slots;
