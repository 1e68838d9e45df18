//! What the network between servers promises, on real sockets.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sider_core::{
    limits,
    runtime::{Network, NetworkError, PeerHandler},
};
use sider_runtime_tokio::network::TcpNetwork;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

/// For what must happen, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn handler<F>(answer: impl Fn(Bytes) -> F + Send + Sync + 'static) -> PeerHandler
where
    F: Future<Output = Bytes> + Send + 'static,
{
    Arc::new(move |message| Box::pin(answer(message)))
}

/// Answers with what it was sent, `delay:<ms>` that much later.
fn echo() -> PeerHandler {
    handler(|message| async move {
        let text = String::from_utf8_lossy(&message).into_owned();
        if let Some(ms) = text.strip_prefix("delay:") {
            tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
        }
        message
    })
}

async fn server(handler: PeerHandler) -> (TcpNetwork, String) {
    let network = TcpNetwork::bind("127.0.0.1:0").await.unwrap();
    network.listen(handler).await.unwrap();
    let address = network.local_address().unwrap().to_string();
    (network, address)
}

fn is_unreachable(result: &Result<Bytes, NetworkError>) -> bool {
    matches!(result, Err(NetworkError::Unreachable { .. }))
}

fn is_unknown(result: &Result<Bytes, NetworkError>) -> bool {
    matches!(result, Err(NetworkError::OutcomeUnknown { .. }))
}

#[tokio::test]
async fn calls_are_answered_and_overtake_each_other() {
    let (_server, address) = server(echo()).await;
    let client = TcpNetwork::calling_only();
    let slow = client.call(&address, "delay:400".into(), PATIENCE);
    let quick = async {
        for n in 0..50 {
            let message = Bytes::from(format!("{n}"));
            assert_eq!(
                client.call(&address, message.clone(), PATIENCE).await,
                Ok(message)
            );
        }
    };
    let slow = std::pin::pin!(slow);
    match futures_util::future::select(slow, std::pin::pin!(quick)).await {
        futures_util::future::Either::Left(_) => panic!("the quick calls waited for the slow one"),
        futures_util::future::Either::Right(((), slow)) => assert_eq!(slow.await, Ok("delay:400".into())),
    }
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (_server, address) = server(echo()).await;
    let (proxy, counted) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        connections.clone(),
    );
    let proxy_address = proxy.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = proxy.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut to = tokio::net::TcpStream::connect(&address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let client = TcpNetwork::calling_only();
    // More at once than may be in flight, and some of them big.
    let calls = (0..2 * limits::PEER_IN_FLIGHT_MAX).map(|n| {
        let (client, address) = (client.clone(), proxy_address.clone());
        tokio::spawn(async move {
            let message = Bytes::from(vec![7; if n % 64 == 0 { 100_000 } else { n % 64 }]);
            assert_eq!(
                client.call(&address, message.clone(), PATIENCE).await,
                Ok(message)
            );
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let client = TcpNetwork::calling_only();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for _ in 0..3 {
        let result = client.call(&address, "x".into(), PATIENCE).await;
        assert!(is_unreachable(&result), "{result:?}");
    }
    let result = client.call("no address", "x".into(), PATIENCE).await;
    assert!(is_unreachable(&result), "{result:?}");
}

#[tokio::test]
async fn a_stranger_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    });
    let result = TcpNetwork::calling_only()
        .call(&address, "x".into(), PATIENCE)
        .await;
    assert!(is_unreachable(&result), "{result:?}");
    assert!(result.unwrap_err().to_string().contains("not the Raft port"));
}

#[tokio::test]
async fn a_host_that_takes_connections_and_says_nothing_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = TcpNetwork::calling_only();
    let result = client.call(&address, "x".into(), Duration::from_millis(50)).await;
    assert!(is_unreachable(&result), "{result:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome() {
    let (_server, address) = server(echo()).await;
    let client = TcpNetwork::calling_only();
    let result = client
        .call(&address, "delay:20000".into(), Duration::from_millis(50))
        .await;
    assert!(is_unknown(&result), "{result:?}");
    // The connection is still good.
    assert_eq!(client.call(&address, "x".into(), PATIENCE).await, Ok("x".into()));
}

#[tokio::test]
async fn a_server_that_dies_leaves_unknown_outcomes_and_then_nobody() {
    let arrived = Arc::new(Notify::new());
    let noted = arrived.clone();
    let never = handler(move |_| {
        noted.notify_one();
        std::future::pending()
    });
    let (server, address) = server(never).await;
    let client = TcpNetwork::calling_only();
    let call = {
        let (client, address) = (client.clone(), address.clone());
        tokio::spawn(async move { client.call(&address, "x".into(), PATIENCE).await })
    };
    arrived.notified().await;
    drop(server);
    let result = call.await.unwrap();
    assert!(is_unknown(&result), "{result:?}");
    let result = client.call(&address, "x".into(), PATIENCE).await;
    assert!(is_unreachable(&result), "{result:?}");
}

#[tokio::test]
async fn a_restarted_server_is_called_again_without_an_error() {
    let (server, address) = server(echo()).await;
    let client = TcpNetwork::calling_only();
    assert_eq!(client.call(&address, "1".into(), PATIENCE).await, Ok("1".into()));
    drop(server);
    let again = async {
        // The port is free as soon as the task that listened has been dropped.
        loop {
            match TcpNetwork::bind(&address).await {
                Ok(network) => return network,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let server = tokio::time::timeout(PATIENCE, again).await.unwrap();
    server.listen(echo()).await.unwrap();
    assert_eq!(client.call(&address, "2".into(), PATIENCE).await, Ok("2".into()));
}

#[tokio::test]
async fn stopping_drops_the_handler_and_listening_again_takes_a_new_one() {
    let kept = Arc::new(());
    let (inside, arrived) = (kept.clone(), Arc::new(Notify::new()));
    let noted = arrived.clone();
    let (server, address) = server(handler(move |_| {
        let held = inside.clone();
        noted.notify_one();
        async move {
            let _held = held;
            std::future::pending().await
        }
    }))
    .await;
    let client = TcpNetwork::calling_only();
    let call = {
        let (client, address) = (client.clone(), address.clone());
        tokio::spawn(async move { client.call(&address, "x".into(), PATIENCE).await })
    };
    arrived.notified().await;
    server.stop();
    assert!(is_unknown(&call.await.unwrap()));
    let dropped = async {
        while Arc::strong_count(&kept) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped)
        .await
        .expect("the handler is dropped with its calls");
    server.listen(echo()).await.unwrap();
    assert_eq!(client.call(&address, "x".into(), PATIENCE).await, Ok("x".into()));
}

#[tokio::test]
async fn a_message_that_is_too_long_is_not_sent_and_an_answer_is_lost() {
    let long = Bytes::from(vec![0; limits::PEER_FRAME_BYTES_MAX]);
    let answer = long.clone();
    let (_server, address) = server(handler(move |message| {
        let answer = answer.clone();
        async move { if message == "long" { answer } else { message } }
    }))
    .await;
    let client = TcpNetwork::calling_only();
    let result = client.call(&address, long, PATIENCE).await;
    assert!(is_unreachable(&result), "{result:?}");
    let result = client.call(&address, "long".into(), PATIENCE).await;
    assert!(is_unknown(&result), "{result:?}");
    assert_eq!(client.call(&address, "x".into(), PATIENCE).await, Ok("x".into()));
}

#[tokio::test]
async fn an_oversize_frame_closes_the_connection() {
    let (_server, address) = server(echo()).await;
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream
        .write_all(b"SIDERRPC\x00\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\x01\x01")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    // The greeting came, then the end, clean or not.
    assert!(read.is_err() || answer.len() == 10, "{answer:?}");
}

#[tokio::test]
async fn a_panic_in_a_handler_loses_that_call_only() {
    let (_server, address) = server(handler(|message| async move {
        assert_ne!(message, "panic", "as the test wants it");
        message
    }))
    .await;
    let client = TcpNetwork::calling_only();
    let result = client.call(&address, "panic".into(), PATIENCE).await;
    assert!(is_unknown(&result), "{result:?}");
    assert_eq!(client.call(&address, "x".into(), PATIENCE).await, Ok("x".into()));
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_given_up() {
    // A link that passes the greeting and the first answer, and then nothing, without closing.
    let (_server, address) = server(echo()).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_address = proxy.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        let mut silenced = Vec::new();
        loop {
            let (mut from, _) = proxy.accept().await.unwrap();
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                let mut to = tokio::net::TcpStream::connect(&address).await.unwrap();
                let mut greeting = [0; 10];
                from.read_exact(&mut greeting).await.unwrap();
                to.write_all(&greeting).await.unwrap();
                to.read_exact(&mut greeting).await.unwrap();
                from.write_all(&greeting).await.unwrap();
                silenced.push(from);
                continue;
            }
            let mut to = tokio::net::TcpStream::connect(&address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let client = TcpNetwork::calling_only();
    // The calls are far shorter than the silence that is allowed, as heartbeats are.
    let recovered = async {
        let short = limits::PEER_SILENCE_MAX / 8;
        loop {
            let result = client.call(&proxy_address, "x".into(), short).await;
            if result == Ok("x".into()) {
                return;
            }
            assert!(is_unknown(&result), "{result:?}");
        }
    };
    tokio::time::timeout(PATIENCE, recovered)
        .await
        .expect("a new connection is opened");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_network_that_only_calls_can_not_listen() {
    let error = TcpNetwork::calling_only().listen(echo()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}
