//! `/v1/watch/…`: server-sent events.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use sider_core::{limits, server::standin::Started};
use tower::ServiceExt as _;

use crate::support::{Api, request};

/// A client that reads a stream to its end.
struct Reader {
    status: StatusCode,
    headers: http::HeaderMap,
    text: Arc<Mutex<String>>,
    task: Started<()>,
}

impl Reader {
    fn of(api: &Api, path: &str, last_event_id: Option<&str>) -> Reader {
        let mut request = request(&format!("GET {path}"), "");
        if let Some(id) = last_event_id {
            let id = id.parse().expect("a header");
            request.headers_mut().insert("last-event-id", id);
        }
        let answered = api.platform.run(api.router.clone().oneshot(request));
        let (head, body) = answered.expect("a router answers always").into_parts();
        let text = Arc::<Mutex<String>>::default();
        let told = text.clone();
        let mut pieces = body.into_data_stream();
        let task = api.platform.start(async move {
            while let Some(piece) = pieces.next().await {
                let piece = piece.expect("events do not fail");
                let piece = std::str::from_utf8(&piece).expect("events are text");
                told.lock().expect("nobody panics").push_str(piece);
            }
        });
        Reader {
            status: head.status,
            headers: head.headers,
            text,
            task,
        }
    }

    /// What came since it was last asked.
    fn take(&self) -> String {
        std::mem::take(&mut *self.text.lock().expect("nobody panics"))
    }

    /// The id and the data of the only event that came.
    fn update(&self) -> (u64, Value) {
        let text = self.take();
        let event = text.strip_suffix("\n\n").expect("an event");
        let lines: Vec<&str> = event.split('\n').collect();
        let [id, "event: update", data] = lines[..] else {
            panic!("{text:?}");
        };
        let id = id.strip_prefix("id: ").and_then(|id| id.parse().ok());
        let data = data.strip_prefix("data: ").expect("data");
        (id.expect("an id"), serde_json::from_str(data).expect("JSON"))
    }
}

fn register(api: &Api, name: &str, port: u16) -> u64 {
    let body = json!({"Name": name, "Port": port});
    api.put("/v1/agent/service/register", &body).index()
}

#[test]
fn a_service_is_told_as_the_blocking_query_tells_it() {
    let api = Api::new();
    let index = register(&api, "web", 1);
    let reader = Reader::of(&api, "/v1/watch/service/web", None);
    assert_eq!(reader.status, StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", "leader"),
    ] {
        assert_eq!(reader.headers[name], value);
    }
    assert!(!reader.headers.contains_key("content-length"));
    let (id, data) = reader.update();
    assert_eq!(id, index);
    assert_eq!(data, api.get("/v1/health/service/web").json());

    register(&api, "db", 1);
    api.platform.advance(Duration::from_secs(1));
    assert_eq!(reader.take(), "");
    let index = register(&api, "web", 2);
    api.platform.advance(Duration::from_secs(1));
    let (id, data) = reader.update();
    assert_eq!((id, &data[0]["Service"]["Port"]), (index, &json!(2)));
}

#[test]
fn options_narrow_it() {
    let api = Api::new();
    register(&api, "web", 1);
    let checked =
        json!({"Name": "web", "ID": "checked", "Port": 2, "Checks": [{"type": "ttl", "ttl": "15s"}]});
    api.put("/v1/agent/service/register", &checked);
    let elsewhere = json!({"Name": "web", "ID": "far", "Port": 3});
    api.put("/v1/agent/service/register?ns=far", &elsewhere);
    for (options, ports) in [
        ("", vec![2, 1]),
        ("?passing", vec![1]),
        ("?filter=Service.Port%20%3D%3D%202", vec![2]),
        ("?ns=far", vec![3]),
        ("?tag=none", vec![]),
        ("?stale&pretty", vec![2, 1]),
    ] {
        let (_, data) = Reader::of(&api, &format!("/v1/watch/service/web{options}"), None).update();
        let data = data.as_array().expect("a list");
        let shown: Vec<&Value> = data.iter().map(|it| &it["Service"]["Port"]).collect();
        assert_eq!(
            shown,
            ports
                .iter()
                .map(|port| json!(port))
                .collect::<Vec<_>>()
                .iter()
                .collect::<Vec<_>>(),
            "{options}"
        );
    }
}

#[test]
fn it_goes_on_behind_the_last_id() {
    let api = Api::new();
    let first = register(&api, "web", 1);
    let path = |index: u64| format!("/v1/watch/service/web?index={index}");
    let idle = Reader::of(&api, &path(first), None);
    assert_eq!(idle.take(), "");
    // What a client has seen since it began is newer than the address that it began with.
    let second = register(&api, "web", 2);
    let idle = Reader::of(&api, &path(first), Some(&second.to_string()));
    assert_eq!(idle.take(), "");
    for late in [
        Reader::of(&api, &path(first), None),
        Reader::of(&api, "/v1/watch/service/web", Some(&first.to_string())),
        Reader::of(&api, "/v1/watch/service/web", Some("")),
    ] {
        assert_eq!(late.update().0, second);
    }
}

#[test]
fn keys_below_a_prefix_and_their_names() {
    let api = Api::new();
    let values = Reader::of(&api, "/v1/watch/kv/app/", None);
    let names = Reader::of(&api, "/v1/watch/kv/app/?keys&separator=/", None);
    assert_eq!(values.update(), (1, json!([])));
    assert_eq!(names.update(), (1, json!([])));
    api.request("PUT /v1/kv/other", "x");
    api.request("PUT /v1/kv/app/a/b", "one");
    api.platform.advance(Duration::from_secs(1));
    let asked = api.get("/v1/kv/app/?recurse");
    assert_eq!(values.update(), (asked.index(), asked.json()));
    assert_eq!(names.update(), (asked.index(), json!(["app/a/"])));
    let deleted = api.request("DELETE /v1/kv/app/?recurse", "");
    assert_eq!(deleted.status, StatusCode::OK);
    api.platform.advance(Duration::from_secs(1));
    assert_eq!(values.update().1, json!([]));
}

#[test]
fn silence_is_commented_and_an_end_is_told() {
    let api = Api::new();
    let reader = Reader::of(&api, "/v1/watch/service/web", None);
    reader.take();
    api.platform.advance(limits::STREAM_KEEP_ALIVE);
    assert_eq!(reader.take(), ": nothing differs\n\n");
    api.standin.follow(2, None);
    api.platform
        .advance(limits::STREAM_KEEP_ALIVE + limits::READ_TIMEOUT);
    assert_eq!(
        reader.take(),
        "event: end\ndata: {\"Reason\":\"No cluster leader\"}\n\n"
    );
    assert!(reader.task.take().is_some(), "nothing follows");
}

#[test]
fn what_is_wrong_is_said_before_it_begins() {
    let api = Api::new();
    for (path, id, status) in [
        ("/v1/watch/service/", None, 400),
        ("/v1/watch/service/web?index=x", None, 400),
        ("/v1/watch/service/web?stale&consistent", None, 400),
        ("/v1/watch/service/web", Some("x"), 400),
        ("/v1/watch/service/web", Some("-1"), 400),
        ("/v1/watch/service/web?filter=nonsense", None, 500),
        ("/v1/watch/kv//a", None, 307),
        ("/v1/watch/nothing", None, 404),
    ] {
        let reader = Reader::of(&api, path, id);
        assert_eq!(reader.status.as_u16(), status, "{path} {id:?}: {}", reader.take());
    }
    assert_eq!(api.request("PUT /v1/watch/service/web", "").status, 405);
    api.standin.follow(2, None);
    let reader = Reader::of(&api, "/v1/watch/service/web", None);
    assert_eq!(reader.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(reader.take(), "No cluster leader");
    let reader = Reader::of(&api, "/v1/watch/service/web?stale", None);
    assert_eq!(
        (reader.status, &reader.headers["x-consul-knownleader"]),
        (StatusCode::OK, &"false".parse().expect("a header"))
    );
}
