//! Answers to the letter: shapes that Consul's clients depend on.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::{
    api::http::requests::{Place, parse_catalog_registration, parse_check, parse_service, plain_node},
    registry::{Command, Query, Registry},
};

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a valid name")
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).expect("a valid name")
}

/// Three nodes: one that an agent's API serves, one with everything, one with nothing but its name and address.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let mut place = Place {
        node: plain_node(node("golden"), "127.0.0.1"),
        namespace: None,
        scripts: false,
    };
    let mut registrations = Vec::new();
    for body in [
        json!({"ID": "web1", "Name": "web", "Tags": ["primary", "v1"], "Address": "10.0.0.1", "Port": 8000,
            "TaggedAddresses": {"wan": {"Address": "198.18.0.1", "Port": 80}}, "Meta": {"version": "1.2"},
            "Weights": {"Passing": 10, "Warning": 1},
            "Check": {"CheckID": "web1-ttl", "Name": "web1 ttl", "Notes": "a note", "TTL": "30s", "Status": "passing"}}),
        json!({"ID": "h1", "Name": "httpsvc", "Port": 9, "Check": {"HTTP": "http://127.0.0.1:9/health",
            "Interval": "10s", "Timeout": "1s"}}),
    ] {
        registrations.push(parse_service(&body, &place).expect("valid"));
    }
    registrations.push(
        parse_check(
            &json!({"ID": "mem", "Name": "Memory", "TTL": "25s", "Status": "warning"}),
            &place,
        )
        .expect("valid"),
    );
    place.namespace = Some(Namespace::parse("blue").expect("valid"));
    registrations.push(parse_service(&json!({"Name": "web"}), &place).expect("valid"));
    for body in [
        json!({"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "ext1", "Address": "192.168.10.10",
            "TaggedAddresses": {"lan": "192.168.10.10"}, "NodeMeta": {"somekey": "somevalue"},
            "Service": {"ID": "redis1", "Service": "redis", "Tags": ["primary"], "Address": "127.0.0.1",
                "Meta": {"redis_version": "4.0"}, "Port": 8000},
            "Check": {"CheckID": "service:redis1", "Name": "Redis health check", "Status": "passing",
                "ServiceID": "redis1", "Definition": {"TCP": "localhost:8888", "Interval": "5s", "Timeout": "1s",
                    "DeregisterCriticalServiceAfter": "30s"}}}),
        json!({"Node": "ext2", "Address": "192.168.10.11", "Service": {"Service": "redis"},
            "Checks": [{"CheckID": "c2", "Name": "c2", "Status": "passing"}]}),
    ] {
        registrations.push(parse_catalog_registration(&body, None, "dc1").expect("valid"));
    }
    for registration in registrations {
        let applied = registry.apply(&Command::Register(vec![registration]));
        assert!(applied.reply.is_ok(), "{applied:?}");
    }
    registry
}

fn check(bytes: Bytes, expected: Expect) {
    let text = String::from_utf8(bytes.to_vec()).expect("JSON is text");
    // One line for each entry keeps the answers readable.
    expected.assert_eq(&text.replace("},{\"", "},\n{\"").replace("},\"", "},\n  \""));
}

fn with_encoder<T>(look: impl FnOnce(&Encoder<'_>, &Registry) -> T) -> T {
    let agent_node = node("golden");
    let encoder = Encoder {
        datacenter: "dc1",
        agent_node: &agent_node,
    };
    look(&encoder, &registry())
}

fn health(name: &str, namespace: Namespace) -> Query {
    Query::ServiceHealth {
        namespace,
        service: service(name),
        passing: false,
        tags: Vec::new(),
        node_meta: Vec::new(),
    }
}

#[test]
fn service_health() {
    with_encoder(|encoder, registry| {
        let answer =
            |name: &str| encoder.service_health(&registry.query(&health(name, Namespace::default())));
        check(
            answer("redis"),
            expect![[r#"
                [{"Node":{"ID":"40e4a748-2192-161a-0510-9bf59fe950b5","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":{"lan":"192.168.10.10"},
                  "Meta":{"somekey":"somevalue"},
                  "CreateIndex":6,"ModifyIndex":6},
                  "Service":{"ID":"redis1","Service":"redis","Tags":["primary"],"Address":"127.0.0.1","Meta":{"redis_version":"4.0"},
                  "Port":8000,"Weights":{"Passing":1,"Warning":1},
                  "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "Connect":{},
                  "PeerName":"","CreateIndex":6,"ModifyIndex":6},
                  "Checks":[{"Node":"ext1","CheckID":"service:redis1","Name":"Redis health check","Status":"passing","Notes":"","Output":"","ServiceID":"redis1","ServiceName":"redis","ServiceTags":["primary"],"Type":"tcp","Interval":"","Timeout":"","ExposedPort":0,"Definition":{"DeregisterCriticalServiceAfter":"30s","Interval":"5s","TCP":"localhost:8888","Timeout":"1s"},
                  "CreateIndex":6,"ModifyIndex":6}]},
                {"Node":{"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":7,"ModifyIndex":7},
                  "Service":{"ID":"redis","Service":"redis","Tags":[],"Address":"","Meta":null,"Weights":{"Passing":1,"Warning":1},
                  "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "Connect":{},
                  "PeerName":"","CreateIndex":7,"ModifyIndex":7},
                  "Checks":[{"Node":"ext2","CheckID":"c2","Name":"c2","Status":"passing","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},
                  "CreateIndex":7,"ModifyIndex":7}]}]"#]],
        );
        check(
            answer("web"),
            expect![[r#"
                [{"Node":{"ID":"","Node":"golden","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},
                  "Meta":null,"CreateIndex":2,"ModifyIndex":2},
                  "Service":{"ID":"web1","Service":"web","Tags":["primary","v1"],"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":8000},
                  "wan":{"Address":"198.18.0.1","Port":80},
                  "wan_ipv4":{"Address":"10.0.0.1","Port":8000}},
                  "Meta":{"version":"1.2"},
                  "Port":8000,"Weights":{"Passing":10,"Warning":1},
                  "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "Connect":{},
                  "PeerName":"","CreateIndex":2,"ModifyIndex":2},
                  "Checks":[{"Node":"golden","CheckID":"mem","Name":"Memory","Status":"warning","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"ttl","Interval":"0s","Timeout":"0s","ExposedPort":0,"Definition":{},
                  "CreateIndex":4,"ModifyIndex":4},
                {"Node":"golden","CheckID":"web1-ttl","Name":"web1 ttl","Status":"passing","Notes":"a note","Output":"","ServiceID":"web1","ServiceName":"web","ServiceTags":["primary","v1"],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},
                  "CreateIndex":2,"ModifyIndex":2}]}]"#]],
        );
        check(answer("nope"), expect!["[]"]);
        let blue = registry.query(&health("web", Namespace::parse("blue").expect("valid")));
        check(
            encoder.service_health(&blue),
            expect![[r#"
                [{"Node":{"ID":"","Node":"golden","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},
                  "Meta":null,"CreateIndex":2,"ModifyIndex":2},
                  "Service":{"ID":"web","Service":"web","Tags":[],"Address":"","Meta":null,"Weights":{"Passing":1,"Warning":1},
                  "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "Connect":{},
                  "PeerName":"","Namespace":"blue","CreateIndex":5,"ModifyIndex":5},
                  "Checks":[{"Node":"golden","CheckID":"mem","Name":"Memory","Status":"warning","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"ttl","Interval":"0s","Timeout":"0s","ExposedPort":0,"Definition":{},
                  "CreateIndex":4,"ModifyIndex":4}]}]"#]],
        );
    });
}

#[test]
fn catalog() {
    with_encoder(|encoder, registry| {
        let of_service = Query::CatalogService {
            namespace: Namespace::default(),
            service: service("redis"),
            tags: Vec::new(),
            node_meta: Vec::new(),
        };
        check(
            encoder.catalog_service(&registry.query(&of_service)),
            expect![[r#"
                [{"ID":"40e4a748-2192-161a-0510-9bf59fe950b5","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":{"lan":"192.168.10.10"},
                  "NodeMeta":{"somekey":"somevalue"},
                  "ServiceKind":"","ServiceID":"redis1","ServiceName":"redis","ServiceTags":["primary"],"ServiceAddress":"127.0.0.1","ServiceWeights":{"Passing":1,"Warning":1},
                  "ServiceMeta":{"redis_version":"4.0"},
                  "ServicePort":8000,"ServicePorts":null,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "ServiceConnect":{},
                  "ServiceLocality":null,"CreateIndex":6,"ModifyIndex":6},
                {"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":null,"ServiceKind":"","ServiceID":"redis","ServiceName":"redis","ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},
                  "ServiceMeta":{},
                  "ServicePort":0,"ServicePorts":null,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{"Mode":"","MeshGateway":{},
                  "Expose":{}},
                  "ServiceConnect":{},
                  "ServiceLocality":null,"CreateIndex":7,"ModifyIndex":7}]"#]],
        );
        let services = Query::Services {
            namespace: Namespace::default(),
            node_meta: Vec::new(),
        };
        check(
            encoder.services(&registry.query(&services)),
            expect![[r#"{"httpsvc":[],"redis":["primary"],"web":["primary","v1"]}"#]],
        );
        let nodes = Query::Nodes {
            node_meta: Vec::new(),
        };
        check(
            encoder.nodes(&registry.query(&nodes)),
            expect![[r#"
                [{"ID":"40e4a748-2192-161a-0510-9bf59fe950b5","Node":"ext1","Address":"192.168.10.10","Datacenter":"dc1","TaggedAddresses":{"lan":"192.168.10.10"},
                  "Meta":{"somekey":"somevalue"},
                  "CreateIndex":6,"ModifyIndex":6},
                {"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":7,"ModifyIndex":7},
                {"ID":"","Node":"golden","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},
                  "Meta":null,"CreateIndex":2,"ModifyIndex":2}]"#]],
        );
        for (name, by_id, list) in [
            (
                "ext2",
                expect![[r#"
                    {"Node":{"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":7,"ModifyIndex":7},
                      "Services":{"redis":{"ID":"redis","Service":"redis","Tags":[],"Address":"","Meta":null,"Weights":{"Passing":1,"Warning":1},
                      "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                      "Expose":{}},
                      "Connect":{},
                      "PeerName":"","CreateIndex":7,"ModifyIndex":7}}}"#]],
                expect![[r#"
                    {"Node":{"ID":"","Node":"ext2","Address":"192.168.10.11","Datacenter":"dc1","TaggedAddresses":null,"Meta":null,"CreateIndex":7,"ModifyIndex":7},
                      "Services":[{"ID":"redis","Service":"redis","Tags":[],"Address":"","Meta":null,"Weights":{"Passing":1,"Warning":1},
                      "EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},
                      "Expose":{}},
                      "Connect":{},
                      "PeerName":"","CreateIndex":7,"ModifyIndex":7}]}"#]],
            ),
            (
                "nope",
                expect!["null"],
                expect![[r#"{"Node":null,"Services":null}"#]],
            ),
        ] {
            let view = registry.query(&Query::NodeServices {
                namespace: Namespace::default(),
                node: node(name),
            });
            check(encoder.node_with_services(&view), by_id);
            check(encoder.node_service_list(&view), list);
        }
    });
}

#[test]
fn checks() {
    with_encoder(|encoder, registry| {
        let any = Query::ChecksInState {
            namespace: Namespace::default(),
            status: None,
            node_meta: Vec::new(),
        };
        check(
            encoder.checks(&registry.query(&any)),
            expect![[r#"
                [{"Node":"ext1","CheckID":"service:redis1","Name":"Redis health check","Status":"passing","Notes":"","Output":"","ServiceID":"redis1","ServiceName":"redis","ServiceTags":["primary"],"Type":"tcp","Interval":"","Timeout":"","ExposedPort":0,"Definition":{"DeregisterCriticalServiceAfter":"30s","Interval":"5s","TCP":"localhost:8888","Timeout":"1s"},
                  "CreateIndex":6,"ModifyIndex":6},
                {"Node":"ext2","CheckID":"c2","Name":"c2","Status":"passing","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},
                  "CreateIndex":7,"ModifyIndex":7},
                {"Node":"golden","CheckID":"mem","Name":"Memory","Status":"warning","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"ttl","Interval":"0s","Timeout":"0s","ExposedPort":0,"Definition":{},
                  "CreateIndex":4,"ModifyIndex":4},
                {"Node":"golden","CheckID":"service:h1","Name":"Service 'httpsvc' check","Status":"critical","Notes":"","Output":"","ServiceID":"h1","ServiceName":"httpsvc","ServiceTags":[],"Type":"http","Interval":"10s","Timeout":"1s","ExposedPort":0,"Definition":{},
                  "CreateIndex":3,"ModifyIndex":3},
                {"Node":"golden","CheckID":"web1-ttl","Name":"web1 ttl","Status":"passing","Notes":"a note","Output":"","ServiceID":"web1","ServiceName":"web","ServiceTags":["primary","v1"],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},
                  "CreateIndex":2,"ModifyIndex":2}]"#]],
        );
    });
}

#[test]
fn agent() {
    with_encoder(|encoder, registry| {
        let namespace = Namespace::default();
        let host = node("golden");
        for (id, expected) in [
            (
                "web1",
                expect![[r#"
            {"ID":"web1","Service":"web","Tags":["primary","v1"],"Meta":{"version":"1.2"},
              "Port":8000,"Address":"10.0.0.1","TaggedAddresses":{"lan_ipv4":{"Address":"10.0.0.1","Port":8000},
              "wan":{"Address":"198.18.0.1","Port":80},
              "wan_ipv4":{"Address":"10.0.0.1","Port":8000}},
              "Weights":{"Passing":10,"Warning":1},
              "EnableTagOverride":false,"ContentHash":"fb9a6eaf01bfa00d","Datacenter":"dc1"}"#]],
            ),
            (
                "h1",
                expect![[r#"
            {"ID":"h1","Service":"httpsvc","Tags":[],"Meta":{},
              "Port":9,"Address":"","Weights":{"Passing":1,"Warning":1},
              "EnableTagOverride":false,"ContentHash":"3cce31f7c7fd3eba","Datacenter":"dc1"}"#]],
            ),
        ] {
            let instance = registry
                .instances_of_node(&namespace, &host)
                .find(|instance| instance.id.as_str() == id)
                .expect("registered");
            let (body, hash) = encoder.agent_service(instance).hashed();
            assert_eq!(hash.len(), 16);
            let (_, again) = encoder.agent_service(instance).hashed();
            assert_eq!(hash, again);
            check(to_bytes(&body), expected);
        }
        let found = registry
            .checks_of_node(&namespace, &host)
            .find(|check| check.id.as_str() == "mem")
            .expect("registered");
        check(
            to_bytes(&encoder.agent_check(found, None)),
            expect![[r#"
                {"CheckID":"mem","CreateIndex":4,"Definition":{},
                  "ExposedPort":0,"Interval":"0s","ModifyIndex":4,"Name":"Memory","Node":"golden","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":[],"Status":"warning","Timeout":"0s","Type":"ttl"}"#]],
        );
        check(
            to_bytes(&encoder.agent_health_check(found, None)),
            expect![[r#"
                {"CheckID":"mem","CreateIndex":4,"Definition":{"Body":"","DeregisterCriticalServiceAfter":"0s","GRPC":"","GRPCUseTLS":false,"HTTP":"","Header":null,"Interval":"0s","Method":"","OSService":"","TCP":"","TCPUseTLS":false,"TLSServerName":"","TLSSkipVerify":false,"Timeout":"0s","UDP":""},
                  "ExposedPort":0,"ModifyIndex":4,"Name":"Memory","Node":"golden","Notes":"","Output":"","ServiceID":"","ServiceName":"","ServiceTags":null,"Status":"warning","Type":""}"#]],
        );
    });
}
