//! The floor: a server that answers shared bytes, at `/10` and `/100` as many as a query of so many instances is answered with, on
//! the HTTP stack of `sds-server`.
//! Nothing that does more can be faster. `bin/tests/performance/run.py floor` measures it.

use axum::{Router, routing::get};
use bytes::Bytes;
use sider_runtime_tokio::{address, http::HttpServer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: bare HOST:PORT")?;
    let body = |bytes: usize| {
        let body = Bytes::from(vec![b' '; bytes]);
        get(move || std::future::ready(body.clone()))
    };
    let router = Router::new()
        .route("/10", body(12_806))
        .route("/100", body(129_503));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = HttpServer::start(address::listen(&address).await?)?;
        server.set_router(Some(router));
        std::future::pending().await
    })
}
