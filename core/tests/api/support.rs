//! The whole API on a server that leads a cluster of its own, without Raft and without IO; and scripts of requests.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use expect_test::Expect;
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use sider_core::{
    api::http as sider_http,
    server::standin::{self, Standin, TestPlatform},
};
use tower::ServiceExt;

/// An API to send requests to.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) standin: Arc<Standin>,
    pub(crate) platform: Arc<TestPlatform>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("our headers are text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The index that both headers give.
    pub(crate) fn index(&self) -> u64 {
        assert_eq!(self.header("x-index"), self.header("x-consul-index"));
        self.header("x-index").parse().expect("an index")
    }
}

impl Api {
    pub(crate) fn new() -> Self {
        let (server, standin, platform) = standin::server();
        Api {
            router: sider_http::router(server),
            standin,
            platform,
        }
    }

    pub(crate) fn send(&self, request: Request<Body>) -> Answer {
        self.platform.run(answer(self.router.clone(), request))
    }

    /// Sends `METHOD /path`, with a body if it is not empty.
    pub(crate) fn request(&self, line: &str, body: &str) -> Answer {
        self.send(request(line, body))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), "")
    }

    /// Sends a write that must succeed.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        let answer = self.request(&format!("PUT {path}"), &body.to_string());
        assert_eq!(answer.status, StatusCode::OK, "{path} {body}: {}", answer.body);
        answer
    }
}

pub(crate) fn request(line: &str, body: &str) -> Request<Body> {
    let (method, path) = line.split_once(' ').expect("METHOD /path");
    Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body.to_owned()))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

pub(crate) async fn answer(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("a router answers always");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a body in memory");
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(bytes.to_vec()).expect("our bodies are text"),
    }
}

/// Runs a script of requests, one a line (`METHOD /path body`), and compares with what came back: each line is
/// followed by the status, the index if there is one, and the body. `advance 5s` lets time pass, `leaderless` takes
/// the leader away. Comments and empty lines stay.
pub(crate) fn check(script: &str, expected: Expect) {
    let api = Api::new();
    let mut transcript = String::new();
    for line in script.trim().lines().map(str::trim) {
        transcript.push_str(line);
        transcript.push('\n');
        let said = match line.split_once(' ') {
            _ if line.is_empty() || line.starts_with('#') => continue,
            Some(("advance", duration)) => {
                let nanos = sider_http::duration::parse(duration).expect("a duration");
                api.platform.advance(Duration::from_nanos(nanos.unsigned_abs()));
                continue;
            }
            _ if line == "leaderless" => {
                api.standin.follow(2, None);
                continue;
            }
            Some((method, rest)) => {
                let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
                api.request(&format!("{method} {path}"), body)
            }
            None => panic!("not a line of a script: {line}"),
        };
        let index = match said.header("x-index") {
            "" => String::new(),
            index => format!(" @{index}"),
        };
        let body = said.body.replace('\n', "\\n");
        transcript.push_str(&format!("    {}{index} {body}\n", said.status.as_u16()));
    }
    expected.assert_eq(&transcript);
}
