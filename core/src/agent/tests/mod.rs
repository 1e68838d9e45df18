//! The whole agent against real servers on virtual time.

mod elsewhere;
mod forwarded;
mod fuzz;
mod harness;
mod kept;
mod like_consul;
mod own_api;
mod own_node;
mod servers;
