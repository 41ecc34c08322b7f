//! The whole, from outside: real processes, real sockets on port 0, real
//! directories that are thrown away. One binary, so that linking stays short;
//! a module for each subject.

mod care;
mod cli;
mod cluster;
mod compacting;
mod conflict;
mod contract;
mod corpora;
mod data;
mod demo;
mod directories;
mod docs;
mod formats;
mod forms;
mod groups;
mod hostile;
mod index_loss;
mod later;
mod lives;
mod lost_end;
mod manners;
mod measuring;
mod metrics;
mod newer;
mod patterns;
mod python_client;
mod quarantine;
mod retaining;
mod space;
mod streams;
mod support;
mod thinned;
mod ttl;
mod verbs;
mod wire;
