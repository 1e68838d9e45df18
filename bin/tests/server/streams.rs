//! Server-sent events of a real server, through hyper and the kernel.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Place, Server, until};

/// A client that takes its time, or none.
struct Reader(BufReader<TcpStream>);

impl Reader {
    async fn open(server: &Server, path: &str) -> Reader {
        let mut stream = TcpStream::connect(&server.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Reader(BufReader::new(stream));
        let head = reader.line_with("HTTP/1.1 ").await;
        assert!(head.contains(" 200 "), "{head}");
        reader
    }

    /// The next line that has this in it.
    async fn line_with(&mut self, text: &str) -> String {
        let found = async {
            loop {
                let mut line = String::new();
                let read = self.0.read_line(&mut line).await.unwrap();
                assert!(read > 0, "it ended before {text:?} came");
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {text:?}"))
    }

    /// Whether the server closed the connection.
    async fn is_closed(&mut self) {
        let mut rest = String::new();
        let closed = async { while self.0.read_line(&mut rest).await.is_ok_and(|read| read > 0) {} };
        timeout(PATIENCE, closed).await.expect("it is closed");
    }
}

async fn watchers(server: &Server) -> String {
    let metrics = server.get("/metrics").await;
    let lines = metrics.as_str().unwrap_or_default().lines();
    lines
        .filter(|line| line.starts_with("sider_watchers_active "))
        .collect()
}

#[tokio::test]
async fn events_come_at_once_and_a_client_that_leaves_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Place::new("node1", folder.path()).start(&[]).await;
    server.ready().await;
    server.register("web", "web-1").await.unwrap();
    let mut first = Reader::open(&server, "/v1/watch/service/web").await;
    let mut second = Reader::open(&server, "/v1/watch/kv/app/").await;
    assert!(first.line_with("data: ").await.contains("web-1"));
    assert!(second.line_with("data: ").await.contains("[]"));
    // Each event is sent when it is there: nothing follows that would push it out.
    server.register("web", "web-2").await.unwrap();
    assert!(first.line_with("data: ").await.contains("web-2"));
    let body = serde_json::json!("one");
    server.put("/v1/kv/app/a", &body).await.unwrap();
    assert!(second.line_with("data: ").await.contains("\"app/a\""));
    assert_eq!(watchers(&server).await, "sider_watchers_active 2");
    drop(second);
    until("the one that left is forgotten", async || {
        watchers(&server).await == "sider_watchers_active 1"
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let folder = tempfile::tempdir().unwrap();
    let server = Place::new("node1", folder.path()).start(&[]).await;
    server.ready().await;
    let mut reader = Reader::open(&server, "/v1/watch/service/web").await;
    reader.line_with("data: ").await;
    let began = std::time::Instant::now();
    server.signal("-TERM");
    reader.line_with("event: end").await;
    assert!(reader.line_with("data: ").await.contains("server stopped"));
    reader.is_closed().await;
    assert!(server.ended().await.success());
    assert!(
        began.elapsed() < PATIENCE / 2 + Duration::from_secs(1),
        "it waited for a client that only listens"
    );
}
