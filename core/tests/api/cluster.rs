//! `/v1/raft/…`, `/v1/cluster/…`, `/v1/status/…`, `/livez`, `/readyz`, `/metrics`.

use expect_test::expect;
use http::StatusCode;
use serde_json::json;

use crate::support::{Api, check};

#[test]
fn a_cluster_of_one() {
    check(
        r#"
        GET /v1/status/leader
        GET /v1/status/peers
        GET /v1/status/leader?dc=nope
        GET /v1/raft/configuration
        GET /v1/cluster/status
        GET /livez
        GET /readyz
        leaderless
        GET /v1/status/leader
        GET /livez
        GET /readyz
        "#,
        expect![[r#"
            GET /v1/status/leader
                200 "server-1:8501"
            GET /v1/status/peers
                200 ["server-1:8501"]
            GET /v1/status/leader?dc=nope
                500 No path to datacenter
            GET /v1/raft/configuration
                200 {"commit_index":0,"servers":[{"disk":"0000000000000000","http_addr":"server-1:8500","id":"server-1","leader":true,"matched_index":0,"raft_addr":"server-1:8501","voter":true}]}
            GET /v1/cluster/status
                200 {"command_version":5,"leader":"server-1","servers":[{"applied_index":0,"command_version":5,"commit_index":0,"digest":"00000000000000000000000000000000","http_addr":"server-1:8500","id":"server-1","lag":0,"last_log_index":0,"lost_data":false,"raft_addr":"server-1:8501","reachable":true,"role":"Leader","term":1,"version":"0.1.0","voter":true}]}
            GET /livez
                200 ok\n
            GET /readyz
                200 ok\n
            leaderless
            GET /v1/status/leader
                200 ""
            GET /livez
                200 ok\n
            GET /readyz
                503 No cluster leader
        "#]],
    );
}

#[test]
fn stats_have_what_operators_look_for() {
    let api = Api::new();
    api.put("/v1/agent/service/register", &json!({"Name": "web"}));
    let stats = api.get("/v1/raft/stats").json();
    assert_eq!(stats["state"], "Leader");
    assert_eq!(stats["leader"], "server-1");
    assert_eq!(stats["voters"], json!(["server-1"]));
    assert_eq!(stats["learners"], json!([]));
    assert_eq!(stats["digest"].as_str().map(str::len), Some(32));
    for field in [
        "term",
        "last_log_index",
        "commit_index",
        "applied_index",
        "snapshot_index",
    ] {
        assert!(stats[field].is_u64(), "{field}: {stats}");
    }
}

#[test]
fn bad_membership_requests() {
    check(
        r#"
        POST /v1/raft/join
        POST /v1/raft/join []
        POST /v1/raft/join {"Addr":"127.0.0.1:9501"}
        POST /v1/raft/join {"ID":"node2"}
        POST /v1/raft/join {"ID":"node2","Addr":"127.0.0.1"}
        POST /v1/raft/join {"ID":"node2","Addr":"127.0.0.1:x"}
        POST /v1/raft/join {"ID":5,"Addr":"127.0.0.1:9501"}
        POST /v1/raft/remove {}
        POST /v1/raft/transfer {"ID":[]}
        GET /v1/raft/join
        POST /v1/raft/stats
        "#,
        expect![[r#"
            POST /v1/raft/join
                400 Request decode failed: EOF
            POST /v1/raft/join []
                400 Request decode failed: the body: expected an object, got a list
            POST /v1/raft/join {"Addr":"127.0.0.1:9501"}
                400 Request decode failed: ID: missing: expected the id of a server
            POST /v1/raft/join {"ID":"node2"}
                400 Request decode failed: Addr: missing: expected the host:port of the server's Raft transport
            POST /v1/raft/join {"ID":"node2","Addr":"127.0.0.1"}
                400 Request decode failed: Addr: expected host:port, got "127.0.0.1"
            POST /v1/raft/join {"ID":"node2","Addr":"127.0.0.1:x"}
                400 Request decode failed: Addr: expected host:port, got "127.0.0.1:x"
            POST /v1/raft/join {"ID":5,"Addr":"127.0.0.1:9501"}
                400 Request decode failed: ID: expected a string, got 5
            POST /v1/raft/remove {}
                400 Request decode failed: ID: missing: expected the id of a server
            POST /v1/raft/transfer {"ID":[]}
                400 Request decode failed: ID: expected a string, got a list
            GET /v1/raft/join
                405 method GET not allowed
            POST /v1/raft/stats
                405 method POST not allowed
        "#]],
    );
}

#[test]
fn requests_are_counted_by_their_route() {
    let api = Api::new();
    api.get("/v1/health/service/web");
    api.get("/v1/health/service/db");
    api.get("/v1/health/service/db?wait=zz");
    api.get("/made/up");
    api.request("BREW /livez", "");
    let metrics = api.get("/metrics");
    assert_eq!(metrics.status, StatusCode::OK);
    for line in [
        r#"sider_http_requests_total{path="/v1/health/service/{name}",method="GET",status="200"} 2"#,
        r#"sider_http_requests_total{path="/v1/health/service/{name}",method="GET",status="400"} 1"#,
        r#"sider_http_requests_total{path="unmatched",method="GET",status="404"} 1"#,
        r#"sider_http_requests_total{path="/livez",method="other",status="405"} 1"#,
    ] {
        assert!(
            metrics.body.lines().any(|it| it == line),
            "{line} is missing in {}",
            metrics.body
        );
    }
}
