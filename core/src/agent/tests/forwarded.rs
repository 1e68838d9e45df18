//! What an agent sends on to servers, and what it keeps of their answers.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Link, NODE, Told, World};
use crate::limits::{AGENT_CACHE_IDLE, AGENT_CACHE_WAIT};

const SECOND: Duration = Duration::from_secs(1);

fn header<'a>(told: &'a Told, name: &str) -> &'a str {
    let value = told.headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[test]
fn keys_and_lists_of_the_cluster_are_a_servers() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1", "port": 80}]));
    assert_eq!(world.put(&agent, "/v1/kv/a", json!("value")).text.trim(), "true");
    let told = world.get(&agent, "/v1/kv/a?raw");
    assert_eq!((told.status, told.text.as_str()), (200, "\"value\""));
    assert!(header(&told, "x-consul-index").parse::<u64>().unwrap_or(0) > 0);
    assert_eq!(world.get(&agent, "/v1/kv/b").status, 404);
    let told = world.get(&agent, "/v1/health/service/web");
    assert_eq!(told.json[0]["Service"]["ID"], "web-1");
    assert_eq!(world.get(&agent, "/v1/nothing/of/the/kind").status, 404);
    assert_eq!(world.get(&agent, "/v1/watch/service/web").status, 501);
}

#[test]
fn near_to_the_agent_is_its_own_node() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1", "port": 80}]));
    for node in ["a", "zz"] {
        let body = json!({"Node": node, "Address": "10.0.0.1", "Service": {"Service": "web"}});
        assert_eq!(world.put(&agent, "/v1/catalog/register", body).status, 200);
    }
    world.advance(SECOND);
    for path in [
        "/v1/health/service/web?near=_agent",
        "/v1/health/service/web?near=_agent&cached",
    ] {
        assert_eq!(world.get(&agent, path).json[0]["Node"]["Node"], NODE, "{path}");
    }
    assert_eq!(
        world.get(&agent, "/v1/health/service/web").json[0]["Node"]["Node"],
        "a"
    );
}

#[test]
fn what_is_indented_is_indented_once() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1", "tags": ["a"], "port": 80}]));
    world.advance(SECOND);
    for path in [
        "/v1/catalog/services?pretty",
        "/v1/catalog/services?dc=dc1&pretty=true&stale",
    ] {
        let told = world.get(&agent, path).text;
        assert!(told.starts_with("{\n    \""), "{told}");
        assert!(told.contains("\n        \"a\"\n"), "{told}");
        assert!(!told.contains("\n\n"), "{told}");
    }
}

#[test]
fn a_path_that_is_not_clean_is_sent_to_the_clean_one() {
    let world = World::new();
    let agent = world.start(json!([]));
    for (path, clean) in [
        ("//v1/catalog/nodes?stale", "/v1/catalog/nodes?stale"),
        ("/v1/agent/./services", "/v1/agent/services"),
    ] {
        let told = world.get(&agent, path);
        assert_eq!((told.status, header(&told, "location")), (307, clean));
    }
}

#[test]
fn checks_show_their_times_to_clients_and_their_definition_to_their_agent() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "checks": [
        {"type": "tcp", "tcp": "10.0.0.1:80", "interval": "1s", "timeout": "500ms"},
        {"type": "ttl", "ttl": "1h"},
    ]}]));
    world.advance(SECOND * 3);
    let told = world.get(&agent, "/v1/health/checks/web");
    let shown = |place: usize| {
        let check = &told.json[place];
        (
            check["Interval"].clone(),
            check["Timeout"].clone(),
            check["Definition"].clone(),
        )
    };
    assert_eq!(shown(0), (json!("1s"), json!("500ms"), json!({})));
    assert_eq!(shown(1), (json!(""), json!(""), json!({})));
    let told = world.get(&agent, &format!("/v1/health/node/{NODE}?as-registered"));
    let definitions = |id: &str| {
        let checks = told.json.as_array().into_iter().flatten();
        let mut of_id = checks.filter(|check| check["CheckID"] == id);
        of_id.next().map(|check| check["Definition"].clone())
    };
    let expected = json!({"TCP": "10.0.0.1:80", "Interval": "1s", "Timeout": "500ms", "OfAgent": true});
    assert_eq!(definitions("chk:web:0"), Some(expected));
    assert_eq!(
        definitions("chk:web:1"),
        Some(json!({"TTL": "1h0m0s", "OfAgent": true}))
    );
}

#[test]
fn queries_that_wait_for_the_same_wait_once_at_a_server() {
    let world = World::new();
    let agent = world.start(json!([]));
    let set = |value: &str| {
        assert_eq!(world.put(&agent, "/v1/kv/a", json!(value)).status, 200);
        let told = world.get(&agent, "/v1/kv/a");
        header(&told, "x-consul-index").to_owned()
    };
    let begin = |index: &str, wait: &str| {
        let path = format!("/v1/kv/a?raw&index={index}&wait={wait}");
        world.begin(&agent, &path)
    };
    let text = |told: &std::sync::Arc<std::sync::Mutex<Option<Told>>>| {
        let told = told.lock().expect("no holder of this lock panics");
        told.as_ref().map(|told| told.text.clone())
    };
    let index = set("one");
    let waiting: Vec<_> = (0..5).map(|_| begin(&index, "60s")).collect();
    assert_eq!(world.parked(), 1);
    let other = world.begin(&agent, &format!("/v1/kv/b?index={index}&wait=60s"));
    assert_eq!(world.parked(), 2, "of another key");
    let index = set("two");
    world.advance(SECOND);
    for told in &waiting {
        assert_eq!(text(told).as_deref(), Some("\"two\""));
    }
    assert_eq!((world.parked(), text(&other)), (1, None));

    // The first waits for less than those behind it, of whom each keeps to its own time.
    let short = begin(&index, "2s");
    let (long, longer) = (begin(&index, "30s"), begin(&index, "60s"));
    assert_eq!(world.parked(), 2);
    world.advance(SECOND * 3);
    assert_eq!(text(&short).as_deref(), Some("\"two\""));
    assert_eq!((text(&long), text(&longer), world.parked()), (None, None, 2));
    world.advance(SECOND * 30);
    assert_eq!(text(&long).as_deref(), Some("\"two\""));
    assert_eq!((text(&longer), world.parked()), (None, 2));
    set("three");
    world.advance(SECOND);
    assert_eq!(text(&longer).as_deref(), Some("\"three\""));
    assert_eq!(world.parked(), 1);
}

#[test]
fn nobody_waits_behind_a_query_that_is_lost() {
    let world = World::new();
    let agent = world.start(json!([]));
    assert_eq!(world.put(&agent, "/v1/kv/a", json!("one")).status, 200);
    let told = world.get(&agent, "/v1/kv/a");
    let index = header(&told, "x-consul-index").to_owned();
    let path = format!("/v1/kv/a?raw&index={index}&wait=10s");
    world.link(0, Link::Silent);
    let lost = world.begin(&agent, &path);
    world.link(0, Link::Up);
    let behind = world.begin(&agent, &path);
    assert_eq!(world.put(&agent, "/v1/kv/a", json!("two")).status, 200);
    let text = |told: &std::sync::Arc<std::sync::Mutex<Option<Told>>>| {
        let told = told.lock().expect("no holder of this lock panics");
        told.as_ref().map(|told| told.text.clone())
    };
    world.advance(SECOND * 5);
    assert_eq!((text(&lost), text(&behind)), (None, None));
    // What is there already is told at once to who comes later.
    let later = world.begin(&agent, &path);
    assert_eq!(text(&later).as_deref(), Some("\"two\""));
    // It should have ended, and did not.
    world.advance(SECOND * 7);
    assert_eq!((text(&lost), text(&behind).as_deref()), (None, Some("\"two\"")));
}

#[test]
fn what_is_older_than_what_a_client_has_is_no_news_to_who_comes_later() {
    let world = World::new();
    let agent = world.start(json!([]));
    assert_eq!(world.put(&agent, "/v1/kv/a", json!("one")).status, 200);
    let begin = || {
        let told = world.begin(&agent, "/v1/kv/a?raw&index=1000000&wait=60s");
        world.advance(SECOND * 2);
        told
    };
    for told in [begin(), begin(), begin()] {
        assert!(told.lock().expect("no holder of this lock panics").is_none());
    }
    assert_eq!(world.parked(), 1);
}

#[test]
fn events_reach_the_node_that_they_are_for() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "tags": ["v1"]}]));
    for filter in [
        "?node=nobody".to_owned(),
        format!("?node={NODE}"),
        "?service=web&tag=v2".to_owned(),
        "?service=web&tag=v1".to_owned(),
        String::new(),
    ] {
        let fired = world.put(&agent, &format!("/v1/event/fire/deploy{filter}"), Value::Null);
        assert_eq!(fired.status, 200, "{fired:?}");
    }
    let told = world.get(&agent, "/v1/event/list?name=deploy").json;
    let filters = told.as_array().into_iter().flatten().map(|event| {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (text("NodeFilter"), text("TagFilter"))
    });
    let expected = [(NODE, ""), ("", "v1"), ("", "")];
    assert!(
        filters.eq(expected.map(|(node, tag)| (node.to_owned(), tag.to_owned()))),
        "{told}"
    );
}

#[test]
fn a_session_that_names_no_node_is_of_this_host() {
    let world = World::new();
    let agent = world.start(json!([]));
    for body in [
        Value::Null,
        json!({"TTL": "10s", "NodeChecks": []}),
        json!({"Node": null, "NodeChecks": []}),
    ] {
        let made = world.put(&agent, "/v1/session/create", body);
        assert_eq!(made.status, 200, "{made:?}");
        let id = made.json["ID"].as_str().unwrap_or_default().to_owned();
        let told = world.get(&agent, &format!("/v1/session/info/{id}"));
        assert_eq!(told.json[0]["Node"], NODE);
    }
}

#[test]
fn reads_go_to_the_next_server_and_writes_only_where_nothing_was_done() {
    let world = World::with_servers(2);
    let agent = world.start(json!([]));
    for broken in [0, 1] {
        for (link, reads, writes) in [
            (Link::Refuses, 200, 200),
            (Link::Silent, 200, 500),
            (Link::LosesAnswers, 200, 500),
        ] {
            world.link(broken, link);
            // Whichever server is asked first: after two of each both were.
            let statuses = |method: &str, path: &str| {
                let told = (0..2).map(|_| world.ask(&agent, method, path, &Value::Null));
                told.map(|told| {
                    assert!(
                        told.status == 200 || told.text.starts_with("outcome unknown"),
                        "{told:?}"
                    );
                    told.status
                })
                .max()
            };
            assert_eq!(statuses("GET", "/v1/catalog/nodes"), Some(reads), "{link:?}");
            let worst = statuses("PUT", "/v1/kv/a");
            assert!(worst <= Some(writes), "{link:?}: {worst:?}");
            world.link(broken, Link::Up);
        }
    }
    world.link(0, Link::Refuses);
    world.link(1, Link::Refuses);
    let told = world.get(&agent, "/v1/catalog/nodes");
    assert_eq!(told.status, 500);
    assert!(told.text.contains("connection refused"), "{told:?}");
}

#[test]
fn a_cached_answer_is_fetched_once_and_follows_what_changes() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    world.reads();
    let path = "/v1/health/service/web?cached";
    let told = world.get(&agent, path);
    assert_eq!((header(&told, "x-cache"), header(&told, "age")), ("MISS", "0"));
    world.advance(SECOND * 7);
    let told = world.get(&agent, path);
    assert_eq!((header(&told, "x-cache"), header(&told, "age")), ("HIT", "7"));
    let asked = world
        .reads()
        .into_iter()
        .filter(|read| read.contains("/v1/health/service/web"));
    assert_eq!(asked.count(), 2, "the answer, and the question for news");
    // It changes: the agent is told, and so is who asks next.
    world.put(
        &agent,
        "/v1/agent/service/register",
        json!({"Name": "web", "ID": "web-2"}),
    );
    world.advance(SECOND);
    let told = world.get(&agent, path);
    assert_eq!(header(&told, "x-cache"), "HIT");
    assert_eq!(told.json.as_array().map(Vec::len), Some(2));
    // Who has the newest waits for something newer, as long as it wants to.
    let index = header(&told, "x-consul-index").to_owned();
    let told = world.get(&agent, &format!("{path}&index={index}&wait=3s"));
    assert_eq!(header(&told, "x-consul-index"), index);
}

#[test]
fn a_fresh_answer_can_be_asked_for_and_an_unused_one_is_dropped() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    let path = "/v1/catalog/service/web?cached";
    assert_eq!(header(&world.get(&agent, path), "x-cache"), "MISS");
    assert_eq!(header(&world.get(&agent, path), "x-cache"), "HIT");
    world.advance(AGENT_CACHE_IDLE + AGENT_CACHE_WAIT * 2);
    assert_eq!(header(&world.get(&agent, path), "x-cache"), "MISS");
    // Only lists of the catalog are kept.
    world.put(&agent, "/v1/kv/a", json!(1));
    world.reads();
    world.get(&agent, "/v1/kv/a?cached");
    world.get(&agent, "/v1/kv/a?cached");
    let asked = world.reads().into_iter().filter(|read| read.contains("/v1/kv/a"));
    assert_eq!(asked.count(), 2, "a server each time");
}

#[test]
fn an_agent_that_takes_itself_for_a_server_goes_round_in_no_circle() {
    let world = World::new();
    let agent = world.start(json!([{"name": "web", "id": "web-1"}]));
    world.take_for_server(&agent);
    for (method, path) in [
        ("GET", "/v1/catalog/nodes"),
        ("GET", "/v1/catalog/nodes?cached"),
        ("PUT", "/v1/kv/a"),
    ] {
        world.reads();
        world.writes();
        let told = world.ask(&agent, method, path, &Value::Null);
        assert_eq!(told.status, 508, "{told:?}");
        assert!(told.text.contains("which is no server"), "{told:?}");
        assert_eq!(world.reads().len() + world.writes().len(), 1, "{path}");
    }
    // What it asks for itself goes nowhere either.
    let told = world.put(&agent, "/v1/agent/service/register", json!({"Name": "db"}));
    assert_eq!((told.status, &told.json["Index"]), (200, &Value::Null));
    world.writes();
    world.advance(SECOND * 60);
    assert!(world.writes().len() < 60);
}

#[test]
fn an_agent_among_the_servers_is_passed_over() {
    let world = World::with_servers(2);
    let agent = world.start(json!([]));
    world.take_for_server(&agent);
    for _ in 0..3 {
        assert_eq!(world.get(&agent, "/v1/catalog/nodes").status, 200);
        assert_eq!(world.put(&agent, "/v1/kv/a", json!(1)).status, 200);
    }
}
