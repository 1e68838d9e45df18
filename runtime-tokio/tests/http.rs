//! The HTTP listener, and the HTTP client of the network, against each other and against raw sockets.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use sider_core::{
    limits,
    runtime::{Network, NetworkError},
};
use sider_runtime_tokio::{http::HttpServer, network::TcpNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(router: Router) -> (HttpServer, String) {
    let server = HttpServer::start(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    server.set_router(Some(router));
    let address = server.address().unwrap().to_string();
    (server, address)
}

fn request(method: &str, uri: &str, body: &'static str) -> http::Request<Bytes> {
    http::Request::builder()
        .method(method)
        .uri(uri)
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

async fn ask(address: &str, uri: &str) -> (u16, String) {
    let response = TcpNetwork::calling_only()
        .http(address, request("GET", uri, ""), PATIENCE)
        .await
        .unwrap();
    (
        response.status().as_u16(),
        String::from_utf8(response.body().to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn requests_and_bodies_go_both_ways() {
    let router = Router::new().route("/echo", post(|body: Bytes| async move { body }));
    let (_server, address) = start(router).await;
    let network = TcpNetwork::calling_only();
    for _ in 0..3 {
        let answer = network
            .http(&address, request("POST", "/echo?a=b", "body"), PATIENCE)
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.body()[..]),
            (200, &b"body"[..])
        );
    }
    let answer = network
        .http(&address, request("GET", "/echo", ""), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 405);
}

#[tokio::test]
async fn the_client_tells_unreachable_from_unknown() {
    let router = Router::new().route("/slow", get(std::future::pending::<&str>));
    let (server, address) = start(router).await;
    let network = TcpNetwork::calling_only();
    let result = network
        .http(&address, request("GET", "/slow", ""), Duration::from_millis(50))
        .await;
    assert!(
        matches!(result, Err(NetworkError::OutcomeUnknown { .. })),
        "{result:?}"
    );
    server.stop(Duration::ZERO).await;
    let result = network
        .http(&address, request("GET", "/slow", ""), PATIENCE)
        .await;
    assert!(
        matches!(result, Err(NetworkError::Unreachable { .. })),
        "{result:?}"
    );
    let result = network
        .http("not an address", request("GET", "/", ""), PATIENCE)
        .await;
    assert!(
        matches!(result, Err(NetworkError::Unreachable { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn without_a_router_it_is_not_ready_and_the_router_can_be_exchanged() {
    let (server, address) = start(Router::new().route("/", get(|| async { "first" }))).await;
    assert_eq!(ask(&address, "/").await, (200, "first".into()));
    server.set_router(None);
    assert_eq!(ask(&address, "/").await.0, 503);
    server.set_router(Some(Router::new().route("/", get(|| async { "second" }))));
    assert_eq!(ask(&address, "/").await, (200, "second".into()));
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_drops_what_takes_too_long() {
    let (arrived, proceed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (noted, told) = (arrived.clone(), proceed.clone());
    let parked = Arc::new(());
    let held = parked.clone();
    let router = Router::new()
        .route(
            "/work",
            get(move || async move {
                noted.notify_one();
                told.notified().await;
                "done"
            }),
        )
        .route(
            "/parked",
            get(move || async move {
                let _held = held.clone();
                std::future::pending::<&str>().await
            }),
        );
    let (server, address) = start(router).await;
    let work = tokio::spawn({
        let address = address.clone();
        async move { ask(&address, "/work").await }
    });
    arrived.notified().await;
    let mut blocked = TcpStream::connect(&address).await.unwrap();
    blocked
        .write_all(b"GET /parked HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut idle = TcpStream::connect(&address).await.unwrap();

    let stopping = tokio::spawn(server.stop(Duration::from_secs(2)));
    let refused = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("no new connections");
    proceed.notify_one();
    assert_eq!(work.await.unwrap(), (200, "done".into()));
    stopping.await.unwrap();
    let mut nothing = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, blocked.read_to_end(&mut nothing))
        .await
        .unwrap();
    let _ = tokio::time::timeout(PATIENCE, idle.read_to_end(&mut nothing))
        .await
        .unwrap();
    assert!(nothing.is_empty(), "{}", String::from_utf8_lossy(&nothing));
    // The router holds one more.
    assert!(Arc::strong_count(&parked) <= 2);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_parked_request() {
    let parked = Arc::new(());
    let (held, arrived) = (parked.clone(), Arc::new(Notify::new()));
    let noted = arrived.clone();
    let router = Router::new().route(
        "/",
        get(move || async move {
            let _held = held.clone();
            noted.notify_one();
            std::future::pending::<&str>().await
        }),
    );
    let (_server, address) = start(router).await;
    let before = Arc::strong_count(&parked);
    let mut client = TcpStream::connect(&address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    arrived.notified().await;
    assert!(Arc::strong_count(&parked) > before);
    drop(client);
    let freed = async {
        while Arc::strong_count(&parked) > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed)
        .await
        .expect("the request is dropped with its connection");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (_server, address) = start(Router::new().route("/", get(|| async { "fine" }))).await;
    let mut client = TcpStream::connect(&address).await.unwrap();
    let long = "x".repeat(limits::HTTP_HEAD_BYTES_MAX + 1);
    // It may close before everything is sent.
    let _ = client
        .write_all(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").as_bytes())
        .await;
    let mut answer = vec![0; 64];
    let length = tokio::time::timeout(PATIENCE, client.read(&mut answer))
        .await
        .unwrap()
        .unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    // The longest head that browsers and proxies send is far below that.
    let mut client = TcpStream::connect(&address).await.unwrap();
    let fits = "x".repeat(limits::HTTP_HEAD_BYTES_MAX / 2);
    client
        .write_all(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {fits}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}
