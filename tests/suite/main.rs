//! The whole, from outside: real processes, real sockets on port 0, real
//! directories that are thrown away. One binary, so that linking stays short;
//! a module for each subject.

mod cli;
mod conflict;
mod contract;
mod data;
mod demo;
mod docs;
mod forms;
mod manners;
mod newer;
mod python_client;
mod quarantine;
mod space;
mod support;
mod verbs;
