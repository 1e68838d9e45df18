//! The agent on a service host.
