//! The format and real files together.

mod passing;
mod reading;
mod scanning;
mod slots;
