//! The ways in.
pub mod http;
