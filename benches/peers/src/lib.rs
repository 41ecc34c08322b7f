//! What `peers` (the same work on Tidings and on others, side by side), `limits`
//! (what the machine could do at best) and `scale` (how Tidings holds up as things
//! grow) are made of.
//!
//! ```text
//!   main.rs ── side_by_side ──┬── install     programs that are needed
//!                             ├── server      one process in a scratch directory, what it uses
//!                             ├── systems/    how each is started and spoken to
//!                             ├── load        publishers: window, acknowledgements, latencies
//!                             ├── reading     catch-up and end to end latency
//!                             ├── limits      what shares are taken of, from disk, reads and machine
//!                             ├── shares      what part of the limits ours reach
//!                             └── report      medians, ratios, tables, JSON
//!   bin/limits.rs ────────────┬── disk        write + fdatasync
//!                             ├── reads       reading past the page cache
//!                             └── machine     loopback, checksum, copy
//!   bin/scale.rs ─────────────┬── scale/      one module for each scenario
//!                             └── install, server, systems/tidings, load, as above
//! ```

pub mod disk;
pub mod install;
pub mod limits;
pub mod load;
pub mod machine;
pub mod reading;
pub mod reads;
pub mod report;
pub mod scale;
pub mod server;
pub mod shares;
pub mod side_by_side;
pub mod systems;
pub mod work;
