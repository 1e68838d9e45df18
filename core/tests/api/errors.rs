//! What is wrong is said in one line, with the right status.

use expect_test::expect;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, EXPECT},
};
use serde_json::json;

use crate::support::{Api, answer, check, request};

#[test]
fn bodies() {
    check(
        r#"
        PUT /v1/agent/service/register
        PUT /v1/agent/service/register {bad json
        PUT /v1/agent/service/register null
        PUT /v1/agent/service/register {"Name":5}
        PUT /v1/agent/service/register {"Name":"x","Port":70000}
        PUT /v1/agent/service/register {"Name":"x","Check":{"TTL":"abc"}}
        PUT /v1/agent/service/register {"Name":"x","Checks":[{"type":"ttl","ttl":"0s"}]}
        PUT /v1/agent/service/register {"Name":"x","Check":{"Args":["/bin/true"],"Interval":"1s"}}
        PUT /v1/agent/check/register {"Name":"x","TTL":"5s","Status":"unknown-status"}
        GET /v1/agent/services
        "#,
        expect![[r#"
            PUT /v1/agent/service/register
                400 Request decode failed: EOF
            PUT /v1/agent/service/register {bad json
                400 Request decode failed: invalid character 'b' looking for beginning of object key string
            PUT /v1/agent/service/register null
                400 Missing service name
            PUT /v1/agent/service/register {"Name":5}
                400 Request decode failed: Name: expected a string, got 5
            PUT /v1/agent/service/register {"Name":"x","Port":70000}
                400 Request decode failed: Port: expected a whole number from 0 to 65535, got 70000
            PUT /v1/agent/service/register {"Name":"x","Check":{"TTL":"abc"}}
                400 Request decode failed: time: invalid duration "abc"
            PUT /v1/agent/service/register {"Name":"x","Checks":[{"type":"ttl","ttl":"0s"}]}
                400 Invalid check: TTL must be > 0 for TTL checks
            PUT /v1/agent/service/register {"Name":"x","Check":{"Args":["/bin/true"],"Interval":"1s"}}
                500 Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true
            PUT /v1/agent/check/register {"Name":"x","TTL":"5s","Status":"unknown-status"}
                400 Bad check status
            GET /v1/agent/services
                200 @1 {}
        "#]],
    );
}

#[test]
fn paths_and_methods() {
    check(
        r#"
        GET /
        GET /v1/nope
        GET /v1/agent/service/register
        DELETE /v1/agent/service/register
        GET /v1/agent/check/pass/mem
        PUT /v1/health/service/redis
        PUT /v1/agent/service/deregister/
        PUT /v1/agent/check/deregister/
        PUT /v1/agent/check/pass/nope
        GET /v1/agent/service/nope
        GET /v1/agent/service/
        GET /v1/health/service/
        GET /v1/health/node/
        GET /v1/health/state/
        GET /v1/health/state/bogus
        GET /v1/health/service/%FF
        GET /v1/health/service/%00
        "#,
        expect![[r#"
            GET /
                200 Sider: see /v1/agent/self\n
            GET /v1/nope
                404 Invalid URL path: not a recognized HTTP API endpoint\n
            GET /v1/agent/service/register
                405 method GET not allowed
            DELETE /v1/agent/service/register
                405 method DELETE not allowed
            GET /v1/agent/check/pass/mem
                405 method GET not allowed
            PUT /v1/health/service/redis
                405 method PUT not allowed
            PUT /v1/agent/service/deregister/
                404 Unknown service ID "". Ensure that the service ID is passed, not the service name.
            PUT /v1/agent/check/deregister/
                404 Unknown check ID "". Ensure that the check ID is passed, not the check name.
            PUT /v1/agent/check/pass/nope
                404 Unknown check ID "nope". Ensure that the check ID is passed, not the check name.
            GET /v1/agent/service/nope
                404 unknown service ID: nope
            GET /v1/agent/service/
                404 Unknown service ID "". Ensure that the service ID is passed, not the service name.
            GET /v1/health/service/
                400 Missing service name
            GET /v1/health/node/
                400 Missing node name
            GET /v1/health/state/
                400 Missing check state
            GET /v1/health/state/bogus
                200 @1 []
            GET /v1/health/service/%FF
                400 Invalid path: Invalid URL: Invalid UTF-8 in `name`
            GET /v1/health/service/%00
                400 invalid service name "\0": it has a control character
        "#]],
    );
    let api = Api::new();
    for (line, allowed) in [
        ("GET /v1/agent/service/register", "OPTIONS,PUT,POST"),
        ("PUT /v1/health/service/web", "OPTIONS,GET"),
    ] {
        let answer = api.request(line, "");
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header("allow"), allowed, "{line}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let options = api.request("OPTIONS /v1/health/service/web", "");
    assert_eq!(
        (options.status, options.header("allow")),
        (StatusCode::OK, "OPTIONS,GET")
    );
}

#[test]
fn query_parameters() {
    check(
        r#"
        GET /v1/health/service/web?stale&consistent
        GET /v1/health/service/web?max_stale=1s&consistent
        GET /v1/health/service/web?index=1&wait=zz
        GET /v1/health/service/web?wait=10
        GET /v1/health/service/web?index=zz
        GET /v1/health/service/web?index=-1
        GET /v1/health/service/web?passing=zz
        GET /v1/health/service/web?max_stale=zz
        GET /v1/health/service/web?dc=nope
        GET /v1/health/service/web?filter=Service.Port%20%3D%3D%20x
        GET /v1/health/service/web?peer=x
        GET /v1/health/service/web?ns=
        GET /v1/health/service/web?ns=%0A
        GET /v1/health/service/web?passing=0&dc=dc1&index=&wait=&near=_agent&unknown=1
        "#,
        expect![[r#"
            GET /v1/health/service/web?stale&consistent
                400 Cannot specify ?stale with ?consistent, conflicting semantics.
            GET /v1/health/service/web?max_stale=1s&consistent
                400 Cannot specify ?stale with ?consistent, conflicting semantics.
            GET /v1/health/service/web?index=1&wait=zz
                400 Invalid wait time
            GET /v1/health/service/web?wait=10
                400 Invalid wait time
            GET /v1/health/service/web?index=zz
                400 Invalid index
            GET /v1/health/service/web?index=-1
                400 Invalid index
            GET /v1/health/service/web?passing=zz
                400 Invalid value for ?passing
            GET /v1/health/service/web?max_stale=zz
                400 Invalid max_stale time: expected a duration like "10s"
            GET /v1/health/service/web?dc=nope
                500 No path to datacenter
            GET /v1/health/service/web?filter=Service.Port%20%3D%3D%20x
                500 Failed to create boolean expression evaluator: Failed to coerce value "x" of selector "Service.Port" to a number
            GET /v1/health/service/web?peer=x
                200 @1 []
            GET /v1/health/service/web?ns=
                200 @1 []
            GET /v1/health/service/web?ns=%0A
                400 invalid namespace "\n": it has a control character
            GET /v1/health/service/web?passing=0&dc=dc1&index=&wait=&near=_agent&unknown=1
                200 @1 []
        "#]],
    );
}

#[test]
fn large_bodies_are_413() {
    let api = Api::new();
    let body = |bytes| json!({"Name": "x", "Token": "v".repeat(bytes)}).to_string();
    let most = 2 * 1024 * 1024;
    let fits = body(most - body(0).len());
    assert_eq!(
        api.request("PUT /v1/agent/service/register", &fits).status,
        StatusCode::OK
    );
    for bytes in [most, 10 * most, 20 * most] {
        let body = body(bytes);
        let sent = || request("PUT /v1/agent/service/register", &body);
        let (mut announced, mut asked) = (sent(), sent());
        announced.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        asked.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        asked
            .headers_mut()
            .insert(EXPECT, HeaderValue::from_static("100-continue"));
        for request in [sent(), announced, asked] {
            let answer = api.send(request);
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
            expect!["Request body is too large: at most 2097152 bytes are expected"].assert_eq(&answer.body);
        }
    }
}

#[test]
fn without_a_leader_only_stale_reads_are_answered() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"web"}
        leaderless
        GET /v1/catalog/services?stale
        GET /v1/catalog/services
        GET /v1/catalog/services?consistent
        GET /v1/agent/services
        GET /v1/agent/services?stale
        PUT /v1/agent/service/register {"Name":"db"}
        PUT /v1/agent/check/pass/x
        PUT /v1/batch/renew ["x"]
        POST /v1/raft/remove {"ID":"node2"}
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"web"}
                200 @2 {"Index":2,"CheckIDs":[]}
            leaderless
            GET /v1/catalog/services?stale
                200 @2 {"web":[]}
            GET /v1/catalog/services
                500 No cluster leader
            GET /v1/catalog/services?consistent
                500 No cluster leader
            GET /v1/agent/services
                500 No cluster leader
            GET /v1/agent/services?stale
                200 @2 {"web":{"ID":"web","Service":"web","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Datacenter":"dc1"}}
            PUT /v1/agent/service/register {"Name":"db"}
                500 No cluster leader
            PUT /v1/agent/check/pass/x
                500 No cluster leader
            PUT /v1/batch/renew ["x"]
                500 No cluster leader
            POST /v1/raft/remove {"ID":"node2"}
                500 No cluster leader
        "#]],
    );
}

#[test]
fn an_unknown_outcome_says_so() {
    let api = Api::new();
    api.standin.hold_proposals();
    let write = api.platform.start(answer(
        api.router.clone(),
        request("PUT /v1/agent/service/register", r#"{"Name":"web"}"#),
    ));
    assert_eq!(api.standin.held_proposals(), 1);
    drop(api.standin.lose_proposals());
    api.platform.settle();
    let answer = write.take().expect("answered");
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    expect!["outcome unknown: a test lost it"].assert_eq(&answer.body);
}

#[test]
fn methods_that_nobody_knows_share_one_label() {
    let api = Api::new();
    assert_eq!(api.request("BREW /v1/catalog/nodes", "").status, 405);
    let metrics = api.get("/metrics").body;
    assert!(
        metrics.contains(r#"{path="/v1/catalog/nodes",method="other",status="405"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains("BREW"));
}
