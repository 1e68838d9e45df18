//! What the three programs share, and what each of them is.

pub mod flags;

pub mod config;

pub mod agent;

pub mod bench;
pub mod cli;
