//! `/v1/agent/…` and `/v1/batch/…`.

use std::{sync::Arc, time::Duration};

use expect_test::expect;
use serde_json::{Value, json};
use sider_core::{
    api::http as sider_http,
    observe::NoObserver,
    registry::ServiceName,
    server::{
        ServerConfig,
        standin::{self, TestPlatform},
    },
};

use crate::support::{Api, check};

/// A server alone, whose registrations are of a node at `address`.
fn at(address: &str, id: &str, platform: &Arc<TestPlatform>) -> Api {
    with(ServerConfig::default(), address, id, platform)
}

fn with(config: ServerConfig, address: &str, id: &str, platform: &Arc<TestPlatform>) -> Api {
    let config = ServerConfig {
        agent_node_address: address.to_owned(),
        ..config
    };
    let (server, standin) = standin::member_of(config, id, platform, Arc::new(NoObserver), false);
    let router = sider_http::router(server);
    let platform = platform.clone();
    Api {
        router,
        standin,
        platform,
    }
}

#[test]
fn the_shared_node_stays_where_it_is_as_long_as_that_is_a_members() {
    let platform = TestPlatform::new();
    let in_catalog = |id: &str| {
        let config = ServerConfig {
            servers_service: Some(ServiceName::parse("consul").expect("a name")),
            ..ServerConfig::default()
        };
        // Servers of these tests are reached at their ids.
        with(config, id, id, &platform)
    };
    let (one, other) = (in_catalog("one"), in_catalog("other"));
    let address = |api: &Api| {
        platform.advance(Duration::from_secs(5));
        let found = api.get("/v1/catalog/node/sider").json();
        found["Node"]["Address"].as_str().map(str::to_owned)
    };
    one.standin.connect(&other.standin);
    one.standin.replicate_to(&other.standin);
    one.standin.lead(1);
    other.standin.follow(1, Some(&one.standin));
    assert_eq!(address(&one).as_deref(), Some("one"));
    one.standin.follow(2, Some(&other.standin));
    other.standin.lead(2);
    assert_eq!(
        address(&other).as_deref(),
        Some("one"),
        "it does not move with the leadership"
    );
    let removed = other.request("DELETE /v1/operator/raft/peer?id=one", "");
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert_eq!(
        address(&other).as_deref(),
        Some("other"),
        "nobody is there any more"
    );
}

#[test]
fn what_is_registered_without_an_address_is_where_its_server_is() {
    let platform = TestPlatform::new();
    let (one, other) = (
        at("10.0.0.1", "one", &platform),
        at("10.0.0.2", "other", &platform),
    );
    one.standin.lead(1);
    let addresses = |service: &str| {
        let found = one.get(&format!("/v1/health/service/{service}")).json();
        let text = |value: &Value| value.as_str().expect("an address").to_owned();
        (
            text(&found[0]["Node"]["Address"]),
            text(&found[0]["Service"]["Address"]),
        )
    };
    let expected = |node: &str, instance: &str| (node.to_owned(), instance.to_owned());
    one.put("/v1/agent/service/register", &json!({"Name": "alone"}));
    assert_eq!(addresses("alone"), expected("10.0.0.1", ""), "its node says it");

    one.standin.replicate_to(&other.standin);
    one.standin.connect(&other.standin);
    other.standin.follow(1, Some(&one.standin));
    other.put("/v1/agent/service/register", &json!({"Name": "far"}));
    assert_eq!(
        addresses("far"),
        expected("10.0.0.1", "10.0.0.2"),
        "the node stays where it is"
    );
    other.put(
        "/v1/batch/register",
        &json!([{"Name": "batch"}, {"Name": "told", "Address": "10.9.9.9"}]),
    );
    assert_eq!(addresses("batch"), expected("10.0.0.1", "10.0.0.2"));
    assert_eq!(addresses("told"), expected("10.0.0.1", "10.9.9.9"));
    one.put("/v1/agent/service/register", &json!({"Name": "near"}));
    assert_eq!(
        addresses("near"),
        expected("10.0.0.1", "10.0.0.1"),
        "no node of several says it"
    );
}

#[test]
fn an_instance_from_registration_to_deregistration() {
    check(
        r#"
        # The same registration again changes nothing and takes no index.
        PUT /v1/agent/service/register {"Name":"api","ID":"api-1","Address":"10.0.0.1","Port":8080,"Checks":[{"type":"ttl","ttl":"15s"}]}
        POST /v1/agent/service/register {"name":"api","id":"api-1","address":"10.0.0.1","port":8080,"checks":[{"type":"ttl","ttl":"15s"}]}
        GET /v1/agent/service/api-1
        GET /v1/health/service/api?passing

        # It is passing once its check passes, and critical again when the check is not renewed.
        PUT /v1/agent/check/pass/chk:api-1:0?note=fine
        GET /v1/agent/checks
        advance 17s
        GET /v1/agent/checks
        PUT /v1/agent/service/heartbeat/api-1
        GET /v1/agent/checks

        PUT /v1/agent/service/deregister/api-1
        PUT /v1/agent/service/deregister/api-1
        GET /v1/agent/services
        GET /v1/agent/checks
        "#,
        expect![[r##"
            # The same registration again changes nothing and takes no index.
            PUT /v1/agent/service/register {"Name":"api","ID":"api-1","Address":"10.0.0.1","Port":8080,"Checks":[{"type":"ttl","ttl":"15s"}]}
                200 @2 {"Index":2,"CheckIDs":["chk:api-1:0"]}
            POST /v1/agent/service/register {"name":"api","id":"api-1","address":"10.0.0.1","port":8080,"checks":[{"type":"ttl","ttl":"15s"}]}
                200 @2 {"Index":2,"CheckIDs":["chk:api-1:0"]}
            GET /v1/agent/service/api-1
                200 @2 {"ID":"api-1","Service":"api","Tags":[],"Meta":{},"Port":8080,"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":8080},"wan_ipv4":{"Address":"10.0.0.1","Port":8080}},"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"ContentHash":"d1d02781e38eab51","Datacenter":"dc1"}
            GET /v1/health/service/api?passing
                200 @1 []

            # It is passing once its check passes, and critical again when the check is not renewed.
            PUT /v1/agent/check/pass/chk:api-1:0?note=fine
                200 @3 {"Index":3}
            GET /v1/agent/checks
                200 @3 {"chk:api-1:0":{"CheckID":"chk:api-1:0","CreateIndex":2,"Definition":{},"ExposedPort":0,"Interval":"","ModifyIndex":3,"Name":"Service 'api' check","Node":"sider","Notes":"","Output":"fine","ServiceID":"api-1","ServiceName":"api","ServiceTags":[],"Status":"passing","Timeout":"","Type":"ttl"}}
            advance 17s
            GET /v1/agent/checks
                200 @4 {"chk:api-1:0":{"CheckID":"chk:api-1:0","CreateIndex":2,"Definition":{},"ExposedPort":0,"Interval":"","ModifyIndex":4,"Name":"Service 'api' check","Node":"sider","Notes":"","Output":"TTL expired (last output before timeout follows): fine","ServiceID":"api-1","ServiceName":"api","ServiceTags":[],"Status":"critical","Timeout":"","Type":"ttl"}}
            PUT /v1/agent/service/heartbeat/api-1
                200 @5 {"Index":5}
            GET /v1/agent/checks
                200 @5 {"chk:api-1:0":{"CheckID":"chk:api-1:0","CreateIndex":2,"Definition":{},"ExposedPort":0,"Interval":"","ModifyIndex":5,"Name":"Service 'api' check","Node":"sider","Notes":"","Output":"","ServiceID":"api-1","ServiceName":"api","ServiceTags":[],"Status":"passing","Timeout":"","Type":"ttl"}}

            PUT /v1/agent/service/deregister/api-1
                200 @6 {"Index":6}
            PUT /v1/agent/service/deregister/api-1
                404 Unknown service ID "api-1". Ensure that the service ID is passed, not the service name.
            GET /v1/agent/services
                200 @6 {}
            GET /v1/agent/checks
                200 @6 {}
        "##]],
    );
}

#[test]
fn consuls_form_and_the_ids_of_its_checks() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"redis"}
        PUT /v1/agent/service/register {"ID":"a","Name":"web","Check":{"TTL":"20s"}}
        PUT /v1/agent/service/register {"ID":"b","Name":"web","Checks":[{"TTL":"20s"},{"TTL":"20s","CheckID":"own"},{"TTL":"20s"}]}
        # Checks that a registration does not name stay, unless it replaces them.
        PUT /v1/agent/service/register {"ID":"b","Name":"web","Check":{"TTL":"20s","CheckID":"own"}}
        PUT /v1/agent/check/pass/service:b:1
        PUT /v1/agent/service/register?replace-existing-checks=true {"ID":"b","Name":"web","Check":{"TTL":"20s","CheckID":"own"}}
        PUT /v1/agent/check/pass/service:b:1
        PUT /v1/agent/service/register?replace-existing-checks=maybe {"Name":"web"}
        # An id that is registered under another service moves there.
        PUT /v1/agent/service/register {"ID":"a","Name":"web-renamed"}
        GET /v1/catalog/services
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"redis"}
                200 @2 {"Index":2,"CheckIDs":[]}
            PUT /v1/agent/service/register {"ID":"a","Name":"web","Check":{"TTL":"20s"}}
                200 @3 {"Index":3,"CheckIDs":["service:a"]}
            PUT /v1/agent/service/register {"ID":"b","Name":"web","Checks":[{"TTL":"20s"},{"TTL":"20s","CheckID":"own"},{"TTL":"20s"}]}
                200 @4 {"Index":4,"CheckIDs":["service:b:1","own","service:b:3"]}
            # Checks that a registration does not name stay, unless it replaces them.
            PUT /v1/agent/service/register {"ID":"b","Name":"web","Check":{"TTL":"20s","CheckID":"own"}}
                200 @4 {"Index":4,"CheckIDs":["own"]}
            PUT /v1/agent/check/pass/service:b:1
                200 @5 {"Index":5}
            PUT /v1/agent/service/register?replace-existing-checks=true {"ID":"b","Name":"web","Check":{"TTL":"20s","CheckID":"own"}}
                200 @6 {"Index":6,"CheckIDs":["own"]}
            PUT /v1/agent/check/pass/service:b:1
                404 Unknown check ID "service:b:1". Ensure that the check ID is passed, not the check name.
            PUT /v1/agent/service/register?replace-existing-checks=maybe {"Name":"web"}
                400 Invalid value for ?replace-existing-checks
            # An id that is registered under another service moves there.
            PUT /v1/agent/service/register {"ID":"a","Name":"web-renamed"}
                200 @7 {"Index":7,"CheckIDs":[]}
            GET /v1/catalog/services
                200 @7 {"redis":[],"web":[],"web-renamed":[]}
        "#]],
    );
}

#[test]
fn reports_about_checks() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"web"}
        PUT /v1/agent/check/register {"ID":"mem","Name":"Memory","TTL":"25s"}
        PUT /v1/agent/check/register {"ID":"web-ttl","Name":"ttl","ServiceID":"web","TTL":"25s","Status":"passing"}
        PUT /v1/agent/check/register {"ID":"x","Name":"x","ServiceID":"nope","TTL":"25s"}
        PUT /v1/agent/check/warn/mem?note=hm
        PUT /v1/agent/check/fail/web-ttl
        PUT /v1/agent/check/update/mem {"Status":"passing","Output":"curl output"}
        GET /v1/health/state/passing
        GET /v1/agent/health/service/id/web
        GET /v1/agent/health/service/id/web?format=text
        PUT /v1/agent/check/pass/web-ttl
        GET /v1/agent/health/service/name/web?format=text
        PUT /v1/agent/check/warn/mem
        GET /v1/agent/health/service/name/web?format=text
        GET /v1/agent/health/service/name/nope
        GET /v1/agent/health/service/name/nope?format=text
        GET /v1/agent/health/service/id/nope
        PUT /v1/agent/check/deregister/mem
        PUT /v1/agent/check/deregister/mem
        PUT /v1/agent/check/pass/mem
        PUT /v1/agent/check/update/web-ttl {"Status":"odd"}
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"web"}
                200 @2 {"Index":2,"CheckIDs":[]}
            PUT /v1/agent/check/register {"ID":"mem","Name":"Memory","TTL":"25s"}
                200 @3 {"Index":3,"CheckIDs":["mem"]}
            PUT /v1/agent/check/register {"ID":"web-ttl","Name":"ttl","ServiceID":"web","TTL":"25s","Status":"passing"}
                200 @4 {"Index":4,"CheckIDs":["web-ttl"]}
            PUT /v1/agent/check/register {"ID":"x","Name":"x","ServiceID":"nope","TTL":"25s"}
                404 ServiceID "nope" does not exist
            PUT /v1/agent/check/warn/mem?note=hm
                200 @5 {"Index":5}
            PUT /v1/agent/check/fail/web-ttl
                200 @6 {"Index":6}
            PUT /v1/agent/check/update/mem {"Status":"passing","Output":"curl output"}
                200 @7 {"Index":7}
            GET /v1/health/state/passing
                200 @7 [{"Node":"sider","CheckID":"mem","Name":"Memory","Status":"passing","Notes":"","Output":"curl output","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"ttl","Interval":"0s","Timeout":"0s","ExposedPort":0,"Definition":{},"CreateIndex":3,"ModifyIndex":7}]
            GET /v1/agent/health/service/id/web
                503 @7 {"AggregatedStatus":"critical","Checks":[{"CheckID":"mem","CreateIndex":3,"Definition":{"Body":"","DeregisterCriticalServiceAfter":"0s","GRPC":"","GRPCUseTLS":false,"HTTP":"","Header":null,"Interval":"0s","Method":"","OSService":"","TCP":"","TCPUseTLS":false,"TLSServerName":"","TLSSkipVerify":false,"Timeout":"0s","UDP":""},"ExposedPort":0,"ModifyIndex":7,"Name":"Memory","Node":"sider","Notes":"","Output":"curl output","ServiceID":"","ServiceName":"","ServiceTags":null,"Status":"passing","Type":""},{"CheckID":"web-ttl","CreateIndex":4,"Definition":{"Body":"","DeregisterCriticalServiceAfter":"0s","GRPC":"","GRPCUseTLS":false,"HTTP":"","Header":null,"Interval":"0s","Method":"","OSService":"","TCP":"","TCPUseTLS":false,"TLSServerName":"","TLSSkipVerify":false,"Timeout":"0s","UDP":""},"ExposedPort":0,"ModifyIndex":6,"Name":"ttl","Node":"sider","Notes":"","Output":"","ServiceID":"web","ServiceName":"web","ServiceTags":null,"Status":"critical","Type":""}],"Service":{"Address":"","Datacenter":"dc1","EnableTagOverride":false,"ID":"web","Meta":{},"Port":0,"Service":"web","Tags":[],"Weights":{"Passing":1,"Warning":1}}}
            GET /v1/agent/health/service/id/web?format=text
                503 @7 critical
            PUT /v1/agent/check/pass/web-ttl
                200 @8 {"Index":8}
            GET /v1/agent/health/service/name/web?format=text
                200 @8 passing
            PUT /v1/agent/check/warn/mem
                200 @9 {"Index":9}
            GET /v1/agent/health/service/name/web?format=text
                429 @9 warning
            GET /v1/agent/health/service/name/nope
                404 @9 []
            GET /v1/agent/health/service/name/nope?format=text
                404 @9 ServiceName nope Not Found
            GET /v1/agent/health/service/id/nope
                404 @9 {"AggregatedStatus":"critical","Checks":null,"Service":null}
            PUT /v1/agent/check/deregister/mem
                200 @10 {"Index":10}
            PUT /v1/agent/check/deregister/mem
                404 Unknown check ID "mem". Ensure that the check ID is passed, not the check name.
            PUT /v1/agent/check/pass/mem
                404 Unknown check ID "mem". Ensure that the check ID is passed, not the check name.
            PUT /v1/agent/check/update/web-ttl {"Status":"odd"}
                400 Invalid check status: 'odd'
        "#]],
    );
}

#[test]
fn namespaces_are_apart() {
    check(
        r#"
        PUT /v1/agent/service/register?ns=blue {"Name":"web","Checks":[{"type":"ttl","ttl":"1m"}]}
        PUT /v1/agent/service/register {"Name":"web","ns":"red","Checks":[{"type":"ttl","ttl":"1m"}]}
        PUT /v1/agent/service/register?ns=blue {"Name":"web","ns":"red"}
        GET /v1/agent/services
        GET /v1/catalog/services?ns=blue
        PUT /v1/agent/check/pass/chk:web:0
        PUT /v1/agent/check/pass/chk:web:0?ns=blue
        GET /v1/health/state/passing?ns=red
        PUT /v1/agent/service/deregister {"ns":"red","service":"other","id":"web"}
        PUT /v1/agent/service/deregister {"ns":"red","service":"web","id":"web"}
        PUT /v1/agent/service/deregister {"ns":"red","service":"web","id":"web"}
        GET /v1/agent/services?ns=blue
        "#,
        expect![[r#"
            PUT /v1/agent/service/register?ns=blue {"Name":"web","Checks":[{"type":"ttl","ttl":"1m"}]}
                200 @2 {"Index":2,"CheckIDs":["chk:web:0"]}
            PUT /v1/agent/service/register {"Name":"web","ns":"red","Checks":[{"type":"ttl","ttl":"1m"}]}
                200 @3 {"Index":3,"CheckIDs":["chk:web:0"]}
            PUT /v1/agent/service/register?ns=blue {"Name":"web","ns":"red"}
                400 the request names the namespace "blue", its body "red": expected one
            GET /v1/agent/services
                200 @3 {}
            GET /v1/catalog/services?ns=blue
                200 @2 {"web":[]}
            PUT /v1/agent/check/pass/chk:web:0
                404 Unknown check ID "chk:web:0". Ensure that the check ID is passed, not the check name.
            PUT /v1/agent/check/pass/chk:web:0?ns=blue
                200 @4 {"Index":4}
            GET /v1/health/state/passing?ns=red
                200 @1 []
            PUT /v1/agent/service/deregister {"ns":"red","service":"other","id":"web"}
                409 instance "web" belongs to service "web", not "other"
            PUT /v1/agent/service/deregister {"ns":"red","service":"web","id":"web"}
                200 @5 {"Index":5}
            PUT /v1/agent/service/deregister {"ns":"red","service":"web","id":"web"}
                404 Unknown service ID "web". Ensure that the service ID is passed, not the service name.
            GET /v1/agent/services?ns=blue
                200 @5 {"web":{"ID":"web","Service":"web","Tags":[],"Meta":{},"Port":0,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Datacenter":"dc1","Namespace":"blue"}}
        "#]],
    );
}

#[test]
fn heartbeats_by_address() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"api","ID":"a","Address":"10.0.0.1","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
        PUT /v1/agent/service/register {"Name":"api","ID":"b","Address":"10.0.0.2","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
        PUT /v1/agent/service/register {"Name":"api","ID":"c","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
        PUT /v1/agent/service/heartbeat {"ns":"default","service":"api","address":"10.0.0.2","port":80}
        GET /v1/health/service/api?passing&tag=
        # One without an address of its own is at its node's.
        PUT /v1/agent/service/heartbeat {"service":"api","address":"127.0.0.1","port":80}
        GET /v1/health/checks/api
        PUT /v1/agent/service/heartbeat {"service":"api","address":"10.0.0.2","port":81}
        PUT /v1/agent/service/heartbeat {"service":"nope","address":"10.0.0.2","port":80}
        PUT /v1/agent/service/heartbeat {"id":"a"}
        PUT /v1/agent/service/heartbeat {"id":"nope"}
        PUT /v1/agent/service/heartbeat/nope
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"api","ID":"a","Address":"10.0.0.1","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
                200 @2 {"Index":2,"CheckIDs":["chk:a:0"]}
            PUT /v1/agent/service/register {"Name":"api","ID":"b","Address":"10.0.0.2","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
                200 @3 {"Index":3,"CheckIDs":["chk:b:0"]}
            PUT /v1/agent/service/register {"Name":"api","ID":"c","Port":80,"Checks":[{"type":"ttl","ttl":"1m"}]}
                200 @4 {"Index":4,"CheckIDs":["chk:c:0"]}
            PUT /v1/agent/service/heartbeat {"ns":"default","service":"api","address":"10.0.0.2","port":80}
                200 @5 {"Index":5}
            GET /v1/health/service/api?passing&tag=
                200 @5 [{"Node":{"ID":"","Node":"sider","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"Meta":null,"CreateIndex":2,"ModifyIndex":2},"Service":{"ID":"b","Service":"api","Tags":[],"Address":"10.0.0.2","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.2","Port":80},"wan_ipv4":{"Address":"10.0.0.2","Port":80}},"Meta":null,"Port":80,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":3,"ModifyIndex":3},"Checks":[{"Node":"sider","CheckID":"chk:b:0","Name":"Service 'api' check","Status":"passing","Notes":"","Output":"","ServiceID":"b","ServiceName":"api","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":3,"ModifyIndex":5}]}]
            # One without an address of its own is at its node's.
            PUT /v1/agent/service/heartbeat {"service":"api","address":"127.0.0.1","port":80}
                200 @6 {"Index":6}
            GET /v1/health/checks/api
                200 @6 [{"Node":"sider","CheckID":"chk:a:0","Name":"Service 'api' check","Status":"critical","Notes":"","Output":"","ServiceID":"a","ServiceName":"api","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":2,"ModifyIndex":2},{"Node":"sider","CheckID":"chk:b:0","Name":"Service 'api' check","Status":"passing","Notes":"","Output":"","ServiceID":"b","ServiceName":"api","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":3,"ModifyIndex":5},{"Node":"sider","CheckID":"chk:c:0","Name":"Service 'api' check","Status":"passing","Notes":"","Output":"","ServiceID":"c","ServiceName":"api","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":4,"ModifyIndex":6}]
            PUT /v1/agent/service/heartbeat {"service":"api","address":"10.0.0.2","port":81}
                404 Unknown instance of service "api" at "10.0.0.2:81"
            PUT /v1/agent/service/heartbeat {"service":"nope","address":"10.0.0.2","port":80}
                404 Unknown instance of service "nope" at "10.0.0.2:80"
            PUT /v1/agent/service/heartbeat {"id":"a"}
                200 @7 {"Index":7}
            PUT /v1/agent/service/heartbeat {"id":"nope"}
                404 Unknown service ID "nope". Ensure that the service ID is passed, not the service name.
            PUT /v1/agent/service/heartbeat/nope
                404 Unknown service ID "nope". Ensure that the service ID is passed, not the service name.
        "#]],
    );
}

#[test]
fn batches() {
    check(
        r#"
        # All registrations of a batch take one index, in either form; if one is bad, none is done.
        PUT /v1/batch/register [{"Name":"a","Checks":[{"type":"ttl","ttl":"1m"}]},{"Node":"n","Address":"10.0.0.7","Service":{"Service":"b"},"Check":{"CheckID":"c","Name":"c","ServiceID":"b","Definition":{"TTL":"1m"}}}]
        PUT /v1/batch/register {"Registrations":[{"Name":"d"},{"Name":"e","Port":70000}]}
        PUT /v1/batch/register [{"Node":"n","Address":"10.0.0.7","Service":{"Service":"f"}},{"Node":"n","Address":"10.0.0.7","Check":{"CheckID":"c9","ServiceID":"nope"}}]
        GET /v1/catalog/services

        # Each renewal has an answer of its own.
        PUT /v1/batch/renew ["chk:a:0",{"Node":"n","CheckID":"c","Status":"warning","Output":"o"},"nope",{"ServiceID":"a"},{"ServiceID":"nope"}]
        GET /v1/health/state/any
        PUT /v1/batch/renew {"Renewals":[]}
        PUT /v1/batch/renew {"Renewals":[{"CheckID":"c","Status":"odd"}]}
        PUT /v1/batch/renew "c"
        "#,
        expect![[r##"
            # All registrations of a batch take one index, in either form; if one is bad, none is done.
            PUT /v1/batch/register [{"Name":"a","Checks":[{"type":"ttl","ttl":"1m"}]},{"Node":"n","Address":"10.0.0.7","Service":{"Service":"b"},"Check":{"CheckID":"c","Name":"c","ServiceID":"b","Definition":{"TTL":"1m"}}}]
                200 @2 {"Index":2,"CheckIDs":[["chk:a:0"],["c"]]}
            PUT /v1/batch/register {"Registrations":[{"Name":"d"},{"Name":"e","Port":70000}]}
                400 registration 1: Request decode failed: Port: expected a whole number from 0 to 65535, got 70000
            PUT /v1/batch/register [{"Node":"n","Address":"10.0.0.7","Service":{"Service":"f"}},{"Node":"n","Address":"10.0.0.7","Check":{"CheckID":"c9","ServiceID":"nope"}}]
                404 Unknown service ID "nope". Ensure that the service ID is passed, not the service name.
            GET /v1/catalog/services
                200 @2 {"a":[],"b":[]}

            # Each renewal has an answer of its own.
            PUT /v1/batch/renew ["chk:a:0",{"Node":"n","CheckID":"c","Status":"warning","Output":"o"},"nope",{"ServiceID":"a"},{"ServiceID":"nope"}]
                200 @3 [{"CheckID":"chk:a:0","Status":200},{"CheckID":"c","Status":200},{"CheckID":"nope","Error":"Unknown check ID \"nope\". Ensure that the check ID is passed, not the check name.","Status":404},{"ServiceID":"a","Status":200},{"Error":"Unknown service ID \"nope\". Ensure that the service ID is passed, not the service name.","ServiceID":"nope","Status":404}]
            GET /v1/health/state/any
                200 @3 [{"Node":"n","CheckID":"c","Name":"c","Status":"warning","Notes":"","Output":"o","ServiceID":"b","ServiceName":"b","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{"TTL":"1m0s"},"CreateIndex":2,"ModifyIndex":3},{"Node":"sider","CheckID":"chk:a:0","Name":"Service 'a' check","Status":"passing","Notes":"","Output":"","ServiceID":"a","ServiceName":"a","ServiceTags":[],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":2,"ModifyIndex":3}]
            PUT /v1/batch/renew {"Renewals":[]}
                200 @3 []
            PUT /v1/batch/renew {"Renewals":[{"CheckID":"c","Status":"odd"}]}
                400 Request decode failed: [0].Status: expected passing, warning, critical or unknown, got "odd"
            PUT /v1/batch/renew "c"
                400 Request decode failed: expected a list, or an object with a list named Renewals
        "##]],
    );
}

#[test]
fn batches_have_limits() {
    let api = Api::new();
    let registrations: Vec<_> = (0..1_001).map(|n| json!({"Name": format!("s{n}")})).collect();
    let answer = api.request("PUT /v1/batch/register", &json!(registrations).to_string());
    expect!["413 Payload Too Large: Too many registrations: expected at most 1000, got 1001"]
        .assert_eq(&format!("{}: {}", answer.status, answer.body));
    let answer = api.put("/v1/batch/register", &json!(registrations[..1_000]));
    assert_eq!(answer.json()["CheckIDs"].as_array().map(Vec::len), Some(1_000));

    let renewals = json!(vec!["c"; 10_001]);
    let answer = api.request("PUT /v1/batch/renew", &renewals.to_string());
    expect!["413 Payload Too Large: Too many renewals: expected at most 10000, got 10001"]
        .assert_eq(&format!("{}: {}", answer.status, answer.body));
}

#[test]
fn an_instance_has_a_content_hash() {
    let api = Api::new();
    let body = json!({"Name": "web", "Port": 1});
    api.put("/v1/agent/service/register", &body);
    let first = api.get("/v1/agent/service/web");
    assert_eq!(first.json()["ContentHash"], first.header("x-consul-contenthash"));
    api.put("/v1/agent/service/register", &json!({"Name": "web", "Port": 2}));
    let second = api.get("/v1/agent/service/web");
    assert_ne!(
        first.header("x-consul-contenthash"),
        second.header("x-consul-contenthash")
    );
    api.put("/v1/agent/service/register", &body);
    let third = api.get("/v1/agent/service/web");
    assert_eq!(
        first.header("x-consul-contenthash"),
        third.header("x-consul-contenthash")
    );
}
