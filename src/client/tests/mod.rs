//! The client against small nodes in memory that speak the real protocol over real sockets.

mod admin;
mod care;
mod node;
mod publishing;
mod subscribing;
