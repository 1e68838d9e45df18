//! Headers of reads, blocking queries, `?pretty`.

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use crate::support::{Api, answer, check, request};

fn register(api: &Api, name: &str, port: u16) -> u64 {
    let body = json!({"Name": name, "Port": port});
    let answer = api.put("/v1/agent/service/register", &body);
    assert_eq!(answer.json()["Index"], answer.index());
    answer.index()
}

#[test]
fn headers_tell_how_fresh_an_answer_is() {
    let api = Api::new();
    api.standin.set_last_contact(Some(Duration::from_millis(70)));
    for (path, consistency, last_contact) in [
        ("/v1/catalog/nodes", "leader", "0"),
        ("/v1/catalog/nodes?consistent", "consistent", "0"),
        ("/v1/catalog/nodes?stale", "stale", "70"),
        ("/v1/catalog/nodes?max_stale=10s", "stale", "70"),
    ] {
        let answer = api.get(path);
        assert_eq!(
            answer.header("x-consul-effective-consistency"),
            consistency,
            "{path}"
        );
        assert_eq!(answer.header("x-consul-lastcontact"), last_contact, "{path}");
        assert_eq!(answer.header("x-consul-knownleader"), "true", "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        assert_eq!(answer.header("vary"), "Accept-Encoding", "{path}");
        // Never 0, which could not be waited for.
        assert!(answer.index() >= 1, "{path}");
    }
    api.standin.follow(2, None);
    assert_eq!(
        api.get("/v1/catalog/nodes?stale").header("x-consul-knownleader"),
        "false"
    );
}

#[test]
fn a_blocking_query_waits_for_its_own_service() {
    let api = Api::new();
    let index = register(&api, "web", 1);
    let parked = || {
        let path = format!("GET /v1/health/service/web?index={index}&wait=30s");
        api.platform.start(answer(api.router.clone(), request(&path, "")))
    };
    let waiting = parked();
    register(&api, "db", 1);
    api.platform.advance(Duration::from_secs(1));
    assert!(waiting.take().is_none(), "another service's change wakes nobody");

    let changed = register(&api, "web", 2);
    api.platform.advance(Duration::from_secs(1));
    let woken = waiting.take().expect("woken");
    assert_eq!(woken.index(), changed);
    assert_eq!(woken.json()[0]["Service"]["Port"], 2);

    // A change between an answer and the next query is answered at once.
    assert_eq!(parked().take().map(|answer| answer.index()), Some(changed));
}

#[test]
fn a_filter_keeps_what_passes_and_its_watchers_see_nothing_else() {
    let api = Api::new();
    register(&api, "web", 1);
    register(&api, "db", 2);
    for (path, shape, kept) in [
        ("/v1/agent/services", "Port == 1", "web"),
        ("/v1/catalog/services", "ServicePort == 1", "web"),
        (
            "/v1/catalog/service/web",
            "ServiceName == web and not ServiceTags contains x",
            "web",
        ),
        ("/v1/health/service/web", "Checks is empty", "web"),
        ("/v1/catalog/node/sider", "Service != web", "db"),
        ("/v1/catalog/node-services/sider", "Service != web", "db"),
    ] {
        let url = |filter: &str| format!("{path}?filter={}", filter.replace(' ', "%20").replace('=', "%3D"));
        let (with, without) = (api.get(&url(shape)), api.get(&url(&format!("not ({shape})"))));
        assert_eq!(with.status, 200, "{path}: {}", with.body);
        assert!(
            with.body.contains(&format!("\"{kept}\"")),
            "{path}: {}",
            with.body
        );
        assert!(
            !without.body.contains(&format!("\"{kept}\"")),
            "{path}: {}",
            without.body
        );
    }
    let index = api.get("/v1/catalog/service/web").index();
    let path = format!("GET /v1/catalog/service/web?filter=ServicePort%20%3D%3D%203&index={index}&wait=60s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    register(&api, "web", 2);
    api.platform.advance(Duration::from_secs(1));
    assert!(waiting.take().is_none(), "what does not pass wakes nobody");
    register(&api, "web", 3);
    api.platform.advance(Duration::from_secs(1));
    let woken = waiting.take().expect("an instance passes now");
    assert_eq!(woken.json()[0]["ServicePort"], 3);
}

#[test]
fn a_blocking_query_ends_with_what_is_there() {
    let api = Api::new();
    let index = register(&api, "web", 1);
    let path = format!("GET /v1/health/service/web?index={index}&wait=10s");
    let waiting = api.platform.start(answer(api.router.clone(), request(&path, "")));
    api.platform.advance(Duration::from_millis(9_900));
    assert!(waiting.take().is_none());
    // Up to a sixteenth is added at random.
    api.platform.advance(Duration::from_millis(900));
    let ended = waiting.take().expect("its time is up");
    assert_eq!(ended.index(), index);
    assert_eq!(ended.json()[0]["Service"]["Port"], 1);
}

#[test]
fn pretty_keeps_the_order_of_fields() {
    let api = Api::new();
    register(&api, "web", 1);
    let answer = api.get("/v1/agent/service/web?pretty");
    let body = answer.body.replace(answer.header("x-consul-contenthash"), "HASH");
    expect![[r#"
        {
            "ID": "web",
            "Service": "web",
            "Tags": [],
            "Meta": {},
            "Port": 1,
            "Address": "",
            "Weights": {
                "Passing": 1,
                "Warning": 1
            },
            "EnableTagOverride": false,
            "ContentHash": "HASH",
            "Datacenter": "dc1"
        }
    "#]]
    .assert_eq(&body);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[test]
fn equal_questions_have_equal_answers() {
    check(
        r#"
        PUT /v1/agent/service/register {"Name":"web","Tags":["A","b"]}
        GET /v1/catalog/service/web?tag=a&tag=B
        GET /v1/catalog/service/web?tag=b&tag=a&tag=a
        GET /v1/catalog/service/web?tag=a&tag=c
        GET /v1/health/checks/web
        GET /v1/health/state/any
        "#,
        expect![[r#"
            PUT /v1/agent/service/register {"Name":"web","Tags":["A","b"]}
                200 @2 {"Index":2,"CheckIDs":[]}
            GET /v1/catalog/service/web?tag=a&tag=B
                200 @2 [{"ID":"","Node":"sider","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"NodeMeta":null,"ServiceKind":"","ServiceID":"web","ServiceName":"web","ServiceTags":["A","b"],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":0,"ServicePorts":null,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{"Mode":"","MeshGateway":{},"Expose":{}},"ServiceConnect":{},"ServiceLocality":null,"CreateIndex":2,"ModifyIndex":2}]
            GET /v1/catalog/service/web?tag=b&tag=a&tag=a
                200 @2 [{"ID":"","Node":"sider","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"NodeMeta":null,"ServiceKind":"","ServiceID":"web","ServiceName":"web","ServiceTags":["A","b"],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":0,"ServicePorts":null,"ServiceSocketPath":"","ServiceEnableTagOverride":false,"ServiceProxy":{"Mode":"","MeshGateway":{},"Expose":{}},"ServiceConnect":{},"ServiceLocality":null,"CreateIndex":2,"ModifyIndex":2}]
            GET /v1/catalog/service/web?tag=a&tag=c
                200 @2 []
            GET /v1/health/checks/web
                200 @1 []
            GET /v1/health/state/any
                200 @1 []
        "#]],
    );
}
