//! The HTTP API, as an axum router without IO: hyper serves it in production, the simulator calls it directly.

use axum::Router;

use crate::server::Server;

/// The whole API of a server.
pub fn router(_server: Server) -> Router {
    unimplemented!()
}
