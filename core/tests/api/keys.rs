//! `/v1/kv`, `/v1/session` and `/v1/txn`: what clients of Consul rely on.

use std::time::Duration;

use expect_test::expect;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Api, answer, check, request};

#[test]
fn options_of_keys() {
    check(
        "# A miss has an index that can be waited for.
         GET /v1/kv/a
         PUT /v1/kv/a/b one
         PUT /v1/kv/a/c?flags=42 two
         PUT /v1/kv/empty
         GET /v1/kv/a/b
         GET /v1/kv/a/b?raw
         GET /v1/kv/a?recurse
         GET /v1/kv/empty
         GET /v1/kv/?keys
         GET /v1/kv/?keys&separator=/
         GET /v1/kv/none?recurse
         GET /v1/kv/none?keys
         PUT /v1/kv/a/b?cas=0 three
         PUT /v1/kv/a/b?cas=2 three
         DELETE /v1/kv/a/b?cas=2
         DELETE /v1/kv/a?recurse
         GET /v1/kv/a?recurse
         GET /v1/kv/with%20space%2Fand%FF",
        expect![[r##"
            # A miss has an index that can be waited for.
            GET /v1/kv/a
                404 @1 
            PUT /v1/kv/a/b one
                200 @2 true
            PUT /v1/kv/a/c?flags=42 two
                200 @3 true
            PUT /v1/kv/empty
                200 @4 true
            GET /v1/kv/a/b
                200 @2 [{"LockIndex":0,"Key":"a/b","Flags":0,"Value":"b25l","CreateIndex":2,"ModifyIndex":2}]
            GET /v1/kv/a/b?raw
                200 @2 one
            GET /v1/kv/a?recurse
                200 @3 [{"LockIndex":0,"Key":"a/b","Flags":0,"Value":"b25l","CreateIndex":2,"ModifyIndex":2},{"LockIndex":0,"Key":"a/c","Flags":42,"Value":"dHdv","CreateIndex":3,"ModifyIndex":3}]
            GET /v1/kv/empty
                200 @4 [{"LockIndex":0,"Key":"empty","Flags":0,"Value":null,"CreateIndex":4,"ModifyIndex":4}]
            GET /v1/kv/?keys
                200 @4 ["a/b","a/c","empty"]
            GET /v1/kv/?keys&separator=/
                200 @4 ["a/","empty"]
            GET /v1/kv/none?recurse
                404 @1 
            GET /v1/kv/none?keys
                404 @1 
            PUT /v1/kv/a/b?cas=0 three
                200 @4 false
            PUT /v1/kv/a/b?cas=2 three
                200 @5 true
            DELETE /v1/kv/a/b?cas=2
                200 @5 false
            DELETE /v1/kv/a?recurse
                200 @6 true
            GET /v1/kv/a?recurse
                404 @6 
            GET /v1/kv/with%20space%2Fand%FF
                400 Invalid key: expected UTF-8 behind its percent signs
        "##]],
    );
}

#[test]
fn mistakes_about_keys() {
    check(
        "GET /v1/kv/
         PUT /v1/kv/ x
         PUT /v1/kv/k?flags=zz x
         PUT /v1/kv/k?cas=-1 x
         PUT /v1/kv/k?cas=99999999999999999999 x
         PUT /v1/kv/k?release=b&acquire=a%20c x
         DELETE /v1/kv/k?recurse&cas=1
         PUT /v1/kv/k?acquire=nobody x
         PUT /v1/kv/k?acquire= x
         PUT /v1/kv/k?ns=blue x
         POST /v1/kv/k x
         PUT /v1/kv//k x
         GET /v1/kv/%zz",
        expect![[r#"
            GET /v1/kv/
                400 Missing key name
            PUT /v1/kv/ x
                400 Missing key name
            PUT /v1/kv/k?flags=zz x
                500 strconv.ParseUint: parsing "zz": invalid syntax
            PUT /v1/kv/k?cas=-1 x
                500 strconv.ParseUint: parsing "-1": invalid syntax
            PUT /v1/kv/k?cas=99999999999999999999 x
                500 strconv.ParseUint: parsing "99999999999999999999": value out of range
            PUT /v1/kv/k?release=b&acquire=a%20c x
                400 Conflicting flags: acquire=a+c&release=b\n
            DELETE /v1/kv/k?recurse&cas=1
                400 Conflicting flags: cas=1&recurse=\n
            PUT /v1/kv/k?acquire=nobody x
                500 raft apply failed: invalid session "nobody"
            PUT /v1/kv/k?acquire= x
                500 raft apply failed: missing session
            PUT /v1/kv/k?ns=blue x
                400 keys and sessions have no namespaces: expected none, got "blue"
            POST /v1/kv/k x
                405 method POST not allowed
            PUT /v1/kv//k x
                307 
            GET /v1/kv/%zz
                400 Invalid path: expected two hexadecimal digits behind each %
        "#]],
    );
}

#[test]
fn mistakes_about_sessions() {
    check(
        r#"PUT /v1/session/create {"TTL": "1s"}
         PUT /v1/session/create {"TTL": "48h"}
         PUT /v1/session/create {"TTL": "zz"}
         PUT /v1/session/create {"Behavior": "zz"}
         PUT /v1/session/create {"Node": "nowhere"}
         PUT /v1/session/create {"Checks": ["none"]}
         PUT /v1/session/create {"LockDelay": "-1s"}
         PUT /v1/session/create {
         PUT /v1/session/renew/nobody
         PUT /v1/session/renew/
         PUT /v1/session/destroy/nobody
         GET /v1/session/info/nobody
         GET /v1/session/node/nowhere
         GET /v1/session/list"#,
        expect![[r#"
            PUT /v1/session/create {"TTL": "1s"}
                500 Invalid Session TTL '1000000000', must be between [10s=24h0m0s]
            PUT /v1/session/create {"TTL": "48h"}
                500 Invalid Session TTL '172800000000000', must be between [10s=24h0m0s]
            PUT /v1/session/create {"TTL": "zz"}
                500 Session TTL 'zz' invalid: time: invalid duration "zz"
            PUT /v1/session/create {"Behavior": "zz"}
                500 Invalid Behavior setting 'zz'
            PUT /v1/session/create {"Node": "nowhere"}
                500 apply failed: Missing node registration
            PUT /v1/session/create {"Checks": ["none"]}
                500 apply failed: Missing check 'none' registration
            PUT /v1/session/create {"LockDelay": "-1s"}
                400 Request decode failed: LockDelay: expected a duration that is not negative
            PUT /v1/session/create {
                400 Request decode failed: unexpected EOF
            PUT /v1/session/renew/nobody
                404 Session id 'nobody' not found
            PUT /v1/session/renew/
                400 Missing session
            PUT /v1/session/destroy/nobody
                200 @1 true
            GET /v1/session/info/nobody
                200 @1 []
            GET /v1/session/node/nowhere
                200 @1 []
            GET /v1/session/list
                200 @1 []
        "#]],
    );
}

#[test]
fn transactions() {
    check(
        r#"PUT /v1/txn [{"KV": {"Verb": "set", "Key": "t/1", "Value": "b25l", "Flags": 7}}, {"KV": {"Verb": "get-tree", "Key": "t"}}]
         PUT /v1/txn [{"KV": {"Verb": "get", "Key": "t/1"}}]
         PUT /v1/txn [{"KV": {"Verb": "get", "Key": "none"}}, {"KV": {"Verb": "check-index", "Key": "t/1", "Index": 9}}]
         PUT /v1/txn [{"KV": {"Verb": "set", "Key": "t/2"}}, {"KV": {"Verb": "cas", "Key": "t/1", "Index": 9}}]
         GET /v1/kv/t/2
         PUT /v1/txn [{"KV": {"Verb": "zz", "Key": "t"}}]
         PUT /v1/txn [{"KV": {"Verb": "set"}}]
         PUT /v1/txn [{"KV": {"Verb": "set", "Key": "q", "Value": "!!!"}}]
         PUT /v1/txn [{"Node": {"Verb": "set", "Node": {"Node": "n", "Address": "9.9.9.9"}}}, {"Service": {"Verb": "set", "Node": "n", "Service": {"ID": "s", "Service": "web", "Port": 3}}}]
         PUT /v1/txn [{"Node": {"Verb": "delete-cas", "Node": {"Node": "n", "ModifyIndex": 9}}}]
         PUT /v1/txn [{"Node": {"Verb": "delete", "Node": {"Node": "n"}}}, {"KV": {"Verb": "delete-tree", "Key": "t"}}]
         PUT /v1/txn {
         PUT /v1/txn []
         GET /v1/txn"#,
        expect![[r#"
            PUT /v1/txn [{"KV": {"Verb": "set", "Key": "t/1", "Value": "b25l", "Flags": 7}}, {"KV": {"Verb": "get-tree", "Key": "t"}}]
                200 @2 {"Results":[{"KV":{"LockIndex":0,"Key":"t/1","Flags":7,"Value":null,"CreateIndex":2,"ModifyIndex":2}},{"KV":{"LockIndex":0,"Key":"t/1","Flags":7,"Value":"b25l","CreateIndex":2,"ModifyIndex":2}}],"Errors":null}
            PUT /v1/txn [{"KV": {"Verb": "get", "Key": "t/1"}}]
                200 {"Results":[{"KV":{"LockIndex":0,"Key":"t/1","Flags":7,"Value":"b25l","CreateIndex":2,"ModifyIndex":2}}],"Errors":null,"Index":1,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":"","NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}
            PUT /v1/txn [{"KV": {"Verb": "get", "Key": "none"}}, {"KV": {"Verb": "check-index", "Key": "t/1", "Index": 9}}]
                409 {"Results":null,"Errors":[{"OpIndex":0,"What":"key \"none\" doesn't exist"},{"OpIndex":1,"What":"failed index check for key \"t/1\", current modify index 2 != 9"}],"Index":1,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":"","NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}
            PUT /v1/txn [{"KV": {"Verb": "set", "Key": "t/2"}}, {"KV": {"Verb": "cas", "Key": "t/1", "Index": 9}}]
                409 {"Results":null,"Errors":[{"OpIndex":1,"What":"failed to set key \"t/1\", index is stale"}]}
            GET /v1/kv/t/2
                404 @1 
            PUT /v1/txn [{"KV": {"Verb": "zz", "Key": "t"}}]
                409 {"Results":null,"Errors":[{"OpIndex":0,"What":"unknown KV operation: zz"}],"Index":0,"LastContact":0,"KnownLeader":false,"ConsistencyLevel":"","NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}
            PUT /v1/txn [{"KV": {"Verb": "set"}}]
                409 {"Results":null,"Errors":[{"OpIndex":0,"What":"Must provide key"}]}
            PUT /v1/txn [{"KV": {"Verb": "set", "Key": "q", "Value": "!!!"}}]
                400 Failed to parse body: illegal base64 data at input byte 0
            PUT /v1/txn [{"Node": {"Verb": "set", "Node": {"Node": "n", "Address": "9.9.9.9"}}}, {"Service": {"Verb": "set", "Node": "n", "Service": {"ID": "s", "Service": "web", "Port": 3}}}]
                200 @3 {"Results":[{"Node":{"ID":"","Node":"n","Address":"9.9.9.9","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":3,"ModifyIndex":3}},{"Service":{"ID":"s","Service":"web","Tags":null,"Address":"","Meta":null,"Port":3,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":3,"ModifyIndex":3}}],"Errors":null}
            PUT /v1/txn [{"Node": {"Verb": "delete-cas", "Node": {"Node": "n", "ModifyIndex": 9}}}]
                409 {"Results":null,"Errors":[{"OpIndex":0,"What":"failed to delete node \"n\", index is stale"}]}
            PUT /v1/txn [{"Node": {"Verb": "delete", "Node": {"Node": "n"}}}, {"KV": {"Verb": "delete-tree", "Key": "t"}}]
                200 @4 {"Results":[],"Errors":null}
            PUT /v1/txn {
                400 Failed to parse body: unexpected EOF
            PUT /v1/txn []
                200 {"Results":[],"Errors":null,"Index":1,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":"","NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}
            GET /v1/txn
                405 method GET not allowed
        "#]],
    );
}

#[test]
fn limits_of_keys_and_transactions() {
    let api = Api::new();
    let value = "x".repeat(512 * 1024);
    assert_eq!(api.request("PUT /v1/kv/big", &value).status, StatusCode::OK);
    let too_big = api.request("PUT /v1/kv/big", &format!("{value}x"));
    assert_eq!(too_big.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(too_big.body.starts_with("Request body(524289 bytes) too large"));
    let long = format!("PUT /v1/kv/{}", "k".repeat(4 * 1024 + 1));
    assert_eq!(api.request(&long, "x").status, StatusCode::BAD_REQUEST);
    let step = |nth: usize| json!({"KV": {"Verb": "set", "Key": format!("m/{nth}")}});
    let steps = |count: usize| Value::Array((0..count).map(step).collect());
    api.put("/v1/txn", &steps(128));
    let too_many = api.request("PUT /v1/txn", &steps(129).to_string());
    assert_eq!(too_many.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        too_many.body,
        "Transaction contains too many operations (129 > 128)"
    );
}

fn session(api: &Api, body: Value) -> String {
    let created = api.put("/v1/session/create", &body);
    created.json()["ID"].as_str().expect("an id").to_owned()
}

fn acquire(api: &Api, session: &str) -> String {
    api.request(&format!("PUT /v1/kv/lock?acquire={session}"), session)
        .body
}

fn holder(api: &Api) -> Value {
    api.get("/v1/kv/lock").json()[0]["Session"].clone()
}

#[test]
fn a_lock_goes_from_one_to_the_next() {
    let api = Api::new();
    let first = session(&api, json!({"Name": "first", "LockDelay": "1s"}));
    let second = session(&api, json!({"LockDelay": 0}));
    assert_eq!(acquire(&api, &first), "true");
    assert_eq!(acquire(&api, &second), "false");
    assert_eq!(holder(&api), json!(first));

    // Who waits for the lock is woken when its holder's session ends.
    let index = api.get("/v1/kv/lock").index();
    let path = format!("GET /v1/kv/lock?index={index}&wait=30s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.put(&format!("/v1/session/destroy/{first}"), &json!(null));
    api.platform.advance(Duration::from_millis(100));
    let woken: Answer = waiting.take().expect("woken");
    assert_eq!(woken.json()[0]["Session"], Value::Null);

    assert_eq!(acquire(&api, &second), "false", "its holder may not know yet");
    api.platform.advance(Duration::from_millis(900));
    assert_eq!(acquire(&api, &second), "false", "a second has not passed");
    api.platform.advance(Duration::from_millis(400));
    assert_eq!(acquire(&api, &second), "true");
    assert_eq!(api.get("/v1/kv/lock").json()[0]["LockIndex"], 2);
}

#[test]
fn a_session_lives_as_long_as_it_is_renewed() {
    let api = Api::new();
    let id = session(
        &api,
        json!({"TTL": "10s", "Behavior": "delete", "LockDelay": "0s"}),
    );
    assert_eq!(acquire(&api, &id), "true");
    for _ in 0..4 {
        api.platform.advance(Duration::from_secs(18));
        let renewed = api.put(&format!("/v1/session/renew/{id}"), &json!(null));
        assert_eq!(renewed.json()[0]["TTL"], "10s");
    }
    api.platform.advance(Duration::from_millis(19_900));
    assert_eq!(holder(&api), json!(id), "twice its TTL has not passed");
    api.platform.advance(Duration::from_millis(1_200));
    assert_eq!(api.get("/v1/kv/lock").status, StatusCode::NOT_FOUND);
    let late = api.request(&format!("PUT /v1/session/renew/{id}"), "");
    assert_eq!(late.status, StatusCode::NOT_FOUND);
}

#[test]
fn a_new_leader_gives_full_times() {
    let api = Api::new();
    let first = session(&api, json!({"TTL": "10s", "LockDelay": "10s"}));
    let second = session(&api, json!({}));
    let third = session(&api, json!({"TTL": "10s"}));
    api.platform.advance(Duration::from_secs(11));
    assert_eq!(acquire(&api, &first), "true");
    api.put(&format!("/v1/session/destroy/{first}"), &json!(null));
    api.platform.advance(Duration::from_secs(8));
    api.standin.follow(2, None);
    api.standin.lead(3);
    api.platform.advance(Duration::from_secs(8));
    let alive = api.put(&format!("/v1/session/renew/{third}"), &json!(null));
    assert_eq!(alive.json()[0]["ID"], json!(third));
    assert_eq!(
        acquire(&api, &second),
        "false",
        "the delay begins anew with a leader"
    );
    api.platform.advance(Duration::from_secs(3));
    assert_eq!(acquire(&api, &second), "true");
}

#[test]
fn a_transaction_that_only_reads_leaves_the_log_alone() {
    let api = Api::new();
    api.request("PUT /v1/kv/k", "one");
    // A write would wait for ever.
    api.standin.hold_proposals();
    let read = json!([{"KV": {"Verb": "get", "Key": "k"}}]);
    let answer = api.put("/v1/txn", &read);
    assert_eq!(answer.json()["Results"][0]["KV"]["Value"], "b25l");
    assert_eq!(answer.header("x-consul-knownleader"), "true");
    assert_eq!(api.standin.held_proposals(), 0);
}

#[test]
fn a_prefix_wakes_for_what_is_beneath_it_alone() {
    let api = Api::new();
    let index = api.request("PUT /v1/kv/a/b", "one").index();
    let path = format!("GET /v1/kv/a/?recurse&index={index}&wait=30s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.request("PUT /v1/kv/ab", "another");
    api.platform.advance(Duration::from_secs(1));
    assert!(waiting.take().is_none(), "a key beside the prefix wakes nobody");
    let deleted = api.request("DELETE /v1/kv/a/b", "").index();
    api.platform.advance(Duration::from_secs(1));
    let woken = waiting.take().expect("woken");
    assert_eq!((woken.status, woken.index()), (StatusCode::NOT_FOUND, deleted));
}
