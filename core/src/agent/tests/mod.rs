//! The whole agent against real servers on virtual time.

mod forwarded;
mod harness;
mod own_api;
mod servers;
