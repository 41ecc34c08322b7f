//! The whole, from outside: real processes, real sockets on port 0, real
//! directories that are thrown away. One binary, so that linking stays short;
//! a module for each subject.

mod cli;
mod conflict;
mod data;
mod demo;
mod newer;
mod python_client;
mod space;
mod support;
mod verbs;
