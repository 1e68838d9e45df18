//! The whole agent against real servers on virtual time.

mod harness;
mod own_api;
mod servers;
