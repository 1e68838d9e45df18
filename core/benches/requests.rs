//! Requests from head and body to the answer's bytes, through the router, without Raft: what is decoded, looked up,
//! applied and encoded, and nothing else.

use axum::{Router, body::Body};
use criterion::Criterion;
use http::{Request, StatusCode};
use sider_core::{api::http::router, server::standin};
use tower::ServiceExt;

pub(crate) fn all(criterion: &mut Criterion) {
    let (server, _standin, platform) = standin::server();
    let router = router(server);
    let send = |method: &str, path: &str, body: String| {
        let answer = platform.run(answer(router.clone(), method, path, body));
        assert_eq!(answer, StatusCode::OK, "{method} {path}");
    };
    let registration = |id: u32, port: u32| {
        format!(
            r#"{{"Name":"web","ID":"web-{id}","Address":"10.0.0.1","Port":{port},"Tags":["a"],
                "Checks":[{{"type":"ttl","ttl":"600s","status":"passing"}}]}}"#
        )
    };
    for id in 0..10 {
        send("PUT", "/v1/agent/service/register", registration(id, 80));
    }
    let mut group = criterion.benchmark_group("request");
    let mut port = 0;
    group.bench_function("register", |bencher| {
        bencher.iter(|| {
            port = port % 60_000 + 1;
            send("PUT", "/v1/agent/service/register", registration(0, port));
        });
    });
    group.bench_function("renew", |bencher| {
        bencher.iter(|| send("PUT", "/v1/agent/check/pass/chk:web-0:0", String::new()));
    });
    group.bench_function("query of 10", |bencher| {
        bencher.iter(|| send("GET", "/v1/health/service/web?passing=1", String::new()));
    });
    group.bench_function("stale query of 10", |bencher| {
        bencher.iter(|| send("GET", "/v1/health/service/web?passing=1&stale", String::new()));
    });
    group.finish();
}

/// Sends a request and takes the whole answer.
async fn answer(router: Router, method: &str, path: &str, body: String) -> StatusCode {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::from(body)).expect("a request");
    let response = router.oneshot(request).await.expect("a router answers always");
    let status = response.status();
    axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body in memory");
    status
}
