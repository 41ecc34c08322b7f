//! The client against small nodes in memory that speak the real protocol over real sockets.

mod admin;
mod care;
mod group_node;
mod grouping;
mod node;
mod patterns;
mod publishing;
mod subscribing;
