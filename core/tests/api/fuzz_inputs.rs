//! Input of more than usual size or depth, and of odd forms: it is refused in few words, or answered in a form that can be
//! read again, and in no more memory than its limits say.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use axum::body::Body;
use http::{Request, Uri};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use serde_json::{Value, json};
use sider_core::{
    api::http::duration,
    limits::{BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, NAME_BYTES_MAX, PREPARED_QUERY_BYTES_MAX},
};

use crate::{
    strange::{self, Json},
    support::{Answer, Api},
};

/// Bytes of a refusal, at most: what a client said is not repeated at length.
const REFUSAL_BYTES_MAX: usize = 4 * 1024;

fn send(api: &Api, method: &str, uri: &str, body: &str) -> Option<Answer> {
    let uri: Uri = uri.parse().ok()?;
    let request = Request::builder().method(method).uri(uri);
    Some(
        api.send(
            request
                .body(Body::from(body.to_owned()))
                .expect("a valid request"),
        ),
    )
}

/// What is not done is told in few words.
fn assert_is_short(answer: &Answer, asked: &str) {
    if answer.status.is_client_error() || answer.status.is_server_error() {
        assert!(answer.body.len() <= REFUSAL_BYTES_MAX, "{asked}: {}", answer.body);
    }
}

/// Whole numbers of units, and what they come to in nanoseconds.
fn duration_parts() -> impl Strategy<Value = Vec<(u32, &'static str, i128)>> {
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    vec((any::<u32>(), select(units.to_vec())), 1..6).prop_map(|parts| {
        parts
            .into_iter()
            .map(|(number, (unit, nanos))| (number, unit, nanos))
            .collect()
    })
}

#[test]
fn durations_are_the_sum_of_their_parts_or_are_none() {
    strange::check(
        2_000,
        (duration_parts(), select(&["", "-", "+"][..])),
        |(parts, sign)| {
            let text: String = parts
                .iter()
                .map(|(number, unit, _)| format!("{number}{unit}"))
                .collect();
            let sum: i128 = parts
                .iter()
                .map(|(number, _, nanos)| i128::from(*number) * nanos)
                .sum();
            let expected = i64::try_from(if sign == "-" { -sum } else { sum }).ok();
            assert_eq!(
                duration::parse(&format!("{sign}{text}")),
                expected,
                "{sign}{text}"
            );
        },
    );
    strange::check(2_000, any::<u64>(), |nanos| {
        let text = duration::format(Duration::from_nanos(nanos));
        assert_eq!(duration::parse(&text), i64::try_from(nanos).ok(), "{text}");
    });
    let pieces = [
        "-",
        "+",
        ".",
        "0",
        "9",
        "99999999999999999999",
        "s",
        "m",
        "h",
        "ms",
        "\u{b5}",
        "é",
        " ",
        "e",
        "\u{0}",
    ];
    let words = vec(select(pieces.to_vec()), 0..8).prop_map(|pieces| pieces.concat());
    let long = (select(pieces.to_vec()), 0_usize..20_000).prop_map(|(piece, times)| piece.repeat(times));
    let texts = prop_oneof![4 => words, 1 => long, 2 => strange::text(), 1 => any::<String>()];
    strange::check(4_000, texts, |text| match duration::parse(&text) {
        None => assert!(duration::complaint(&text).starts_with("time: ")),
        Some(nanos) => assert!(
            nanos <= 0 || text.contains(|c: char| c.is_ascii_digit()),
            "{text:?}"
        ),
    });
}

#[test]
fn long_paths_and_many_parameters_are_answered_in_few_words() {
    let paths = [
        "/v1/agent/service/register",
        "/v1/agent/service/deregister/",
        "/v1/agent/check/pass/",
        "/v1/catalog/service/",
        "/v1/catalog/node/",
        "/v1/health/service/",
        "/v1/health/checks/",
        "/v1/health/state/",
        "/v1/kv/",
        "/v1/query/",
        "/v1/session/info/",
        "/v1/event/fire/",
        "/v1/watch/service/",
        "/v1/snapshot",
        "/",
        "/v1/",
    ];
    let pieces = [
        "x", "/", "a/", "%2F", "%00", "%C3%A9", "%FF", "..", "../", ".", ";", "@", "~", "!",
    ];
    let parameters = [
        "tag=a",
        "node-meta=a:b",
        "ns=default",
        "index=1",
        "wait=1ms",
        "filter=Service%20%3D%3D%20a",
        "near=_agent",
        "x=y",
        "stale",
        "keys",
        "recurse",
        "separator=%2F",
        "cas=0",
        "flags=1",
        "&",
        "=",
        "%",
        "dc=dc1",
        "pretty",
    ];
    let part = (
        select(pieces.to_vec()),
        select(&[0_usize, 1, 3, 600, 4_100, 15_000, 60_000][..]),
    );
    let queries = vec(
        (
            select(parameters.to_vec()),
            select(&[1_usize, 2, 70, 1_100, 3_000][..]),
        ),
        0..3,
    );
    let method = select(&["GET", "PUT", "DELETE"][..]);
    let api = Api::new();
    let statuses = RefCell::new(BTreeMap::new());
    strange::check(
        500,
        (method, select(paths.to_vec()), part, queries),
        |(method, path, (piece, times), queries)| {
            let mut uri = format!("{path}{}", piece.repeat(times));
            for (number, (parameter, times)) in queries.iter().enumerate() {
                uri.push(if number == 0 { '?' } else { '&' });
                uri.push_str(&vec![*parameter; *times].join("&"));
            }
            let shown = format!("{method} {}… of {} bytes", &uri[..uri.len().min(80)], uri.len());
            if method == "GET" && path.contains("watch") {
                return;
            }
            let Some(answer) = send(&api, method, &uri, "") else {
                return;
            };
            *statuses.borrow_mut().entry(answer.status.as_u16()).or_insert(0) += 1;
            assert_is_short(&answer, &shown);
            let size: usize = answer.headers.values().map(http::HeaderValue::len).sum();
            assert!(
                size < uri.len() + HTTP_HEAD_BYTES_MAX,
                "{shown}: {size} bytes of headers"
            );
        },
    );
    let statuses = statuses.into_inner();
    assert!(
        [200, 400, 404].iter().all(|status| statuses.contains_key(status)),
        "{statuses:?}"
    );
}

/// Registrations with everything that is kept as it is given.
fn registrations() -> Vec<(&'static str, Value)> {
    let service = json!({"Name": "web", "ID": "web", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}, "Kind": "connect-proxy",
        "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 8000}}, "Locality": {"Region": "r"},
        "Proxy": {"DestinationServiceName": "x", "Config": {"a": [1, {"b": [true]}]}, "Upstreams": [{"DestinationName": "db"}],
            "Expose": {"Paths": [{"Path": "/m"}]}, "MeshGateway": {"Mode": "local"}},
        "Checks": [{"HTTP": "http://h:1/x", "Header": {"A": ["b"]}, "Interval": "10s"}]});
    let catalog = json!({"Node": "ext1", "Address": "1.1.1.1", "NodeMeta": {"a": "b"}, "TaggedAddresses": {"wan": "1.2.3.4"},
        "Service": service, "Check": {"CheckID": "c", "Name": "c", "Status": "warning", "Definition": {"TCP": "h:1"}}});
    let query = json!({"Name": "q", "Service": {"Service": "web", "Failover": {"NearestN": 1, "Targets": [{"Peer": "p"}]}}});
    vec![
        ("/v1/agent/service/register", service),
        ("/v1/batch/register", json!([catalog])),
        ("/v1/catalog/register", catalog),
        ("/v1/query", query),
    ]
}

#[test]
fn what_is_taken_can_be_read_again_in_every_answer() {
    let real = registrations();
    let changed = (0..real.len()).prop_flat_map(move |which| {
        let (path, body) = real[which].clone();
        strange::changed(vec![body]).prop_map(move |body| (path, body))
    });
    let nested =
        (select(registrations()), any::<Index>(), 1_usize..130).prop_map(|((path, body), place, levels)| {
            let text = body.to_string();
            // Numbers and texts alike: a value stands wherever one begins.
            let begins: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
            let at = begins[place.index(begins.len())];
            let nested = format!("{}1{},\"zz\":", "[".repeat(levels), "]".repeat(levels));
            let text = format!("{}{nested}{}", &text[..at], &text[at..]);
            (path, Json(serde_json::from_str(&text).unwrap_or(body)))
        });
    let taken = RefCell::new(0);
    strange::check(800, prop_oneof![changed, nested], |(path, Json(body))| {
        let api = Api::new();
        let method = if path == "/v1/query" { "POST" } else { "PUT" };
        let answer = send(&api, method, path, &body.to_string()).expect("a valid path");
        assert_is_short(&answer, path);
        if !answer.status.is_success() {
            return;
        }
        *taken.borrow_mut() += 1;
        for path in [
            "/v1/agent/services",
            "/v1/agent/service/web",
            "/v1/agent/checks",
            "/v1/catalog/nodes",
            "/v1/catalog/services",
            "/v1/catalog/service/web",
            "/v1/catalog/node/ext1",
            "/v1/catalog/node-services/ext1",
            "/v1/health/service/web",
            "/v1/health/state/any",
            "/v1/internal/ui/services",
            "/v1/query",
            "/v1/query/q/explain",
            "/v1/query/q/execute",
        ] {
            let answer = api.get(path);
            if answer.status.is_success() {
                let read: Result<Value, _> = serde_json::from_str(&answer.body);
                assert!(read.is_ok(), "{path}: {read:?}: {}", answer.body);
            }
        }
    });
    assert!(*taken.borrow() > 200, "{taken:?} taken");
}

#[test]
fn bodies_that_are_deep_or_long_are_refused_or_taken_in_few_words() {
    let api = Api::new();
    let deep =
        |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    let long = |item: &str| {
        format!(
            "[{}]",
            vec![item; (BODY_BYTES_MAX - 2) / (item.len() + 1)].join(",")
        )
    };
    let wide = |value: &str| {
        let fields: Vec<String> = (0..60_000)
            .map(|number| format!("\"k{number}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    };
    let bodies = [
        deep("[", "]", 127),
        deep("[", "]", 200_000),
        deep("{\"Proxy\":", "}", 100_000),
        "[".repeat(BODY_BYTES_MAX),
        "{\"a\":".repeat(100_000),
        long("1"),
        long("[]"),
        long("{}"),
        long("{\"Name\":\"a\"}"),
        long("\"chk:web:0\""),
        wide("1"),
        wide("{\"Name\": \"a\"}"),
        format!("{{\"Name\":\"a\",\"Tags\":{}}}", long("\"t\"")).replace("]]", "]"),
        format!("{{\"Name\":\"a\",\"Meta\":{}}}", wide("\"t\"")),
        format!("{{\"Name\":\"a\",\"Checks\":{}}}", long("{\"TTL\":\"1s\"}")),
        format!("{{\"Name\":\"{}\"}}", "n".repeat(BODY_BYTES_MAX / 2)),
        format!("{{\"{}\":1}}", "n".repeat(BODY_BYTES_MAX / 2)),
        format!("{}1", "1".repeat(BODY_BYTES_MAX / 2)),
        format!("1e{}", "9".repeat(BODY_BYTES_MAX / 2)),
        format!("\"{}\"", "\\u0000".repeat(100_000)),
    ];
    for path in [
        "/v1/agent/service/register",
        "/v1/agent/check/register",
        "/v1/catalog/register",
        "/v1/batch/register",
        "/v1/batch/renew",
        "/v1/txn",
        "/v1/session/create",
        "/v1/query",
        "/v1/agent/service/heartbeat",
        "/v1/agent/check/update/x",
        "/v1/raft/join",
        "/v1/kv/a",
    ] {
        for body in &bodies {
            let shown = format!("{path} {}…", &body[..body.floor_char_boundary(40)]);
            let answer = send(&api, "PUT", path, body).expect("a valid path");
            assert!(
                !answer.status.is_server_error() || answer.body.starts_with("Must provide node"),
                "{shown}: {answer:?}"
            );
            // One answer for each renewal of a batch.
            if path != "/v1/batch/renew" {
                assert_is_short(&answer, &shown);
            }
        }
    }
}

#[test]
fn templates_of_queries_are_filled_in_within_their_limit() {
    let known = [
        "${name.full}",
        "${name.prefix}",
        "${name.suffix}",
        "${match(0)}",
        "${match(1)}",
        "${ match(99999999999999999999) }",
        "${agent.segment}",
        "x",
        "é",
        "!",
        "-",
        "$",
    ];
    let faulty = [
        "${",
        "}",
        "${}",
        "${bogus}",
        "${match(-1)}",
        "\u{0}",
        "$${name.full",
    ];
    let template = || {
        let piece = prop_oneof![20 => select(known.to_vec()), 1 => select(faulty.to_vec())];
        let times = select(&[1_usize, 1, 1, 40, 2_000, 6_000][..]);
        (vec(piece, 0..4), times).prop_map(|(pieces, times)| pieces.concat().repeat(times))
    };
    let regexps = [
        "",
        "^(.*)$",
        "(a*)*b",
        "^q-(.*?)-([^-]+)$",
        "\\pL{20}",
        "(?:)",
        "(x)?",
    ];
    // As it is, and as it is in a path.
    let prefix = select(
        &[
            ("", ""),
            ("q", "q"),
            ("q-", "q-"),
            ("é", "%C3%A9"),
            ("\u{0}", "%00"),
        ][..],
    );
    let rest = select(&["", "a-b", "x", "%C3%A9", "%FF"][..]);
    let name = (prefix, rest, prop_oneof![3 => 1_usize..100, 1 => 1_usize..4_000]);
    let query = (
        template(),
        vec(template(), 0..3),
        select(regexps.to_vec()),
        any::<bool>(),
    );
    let filled = RefCell::new(0);
    strange::check(
        500,
        (query, name),
        |((service, tags, regexp, remove), ((prefix, path), rest, times))| {
            let api = Api::new();
            let query = json!({"Name": prefix, "Service": {"Service": service, "Tags": tags, "NodeMeta": {"a": service}},
            "Template": {"Type": "name_prefix_match", "Regexp": regexp, "RemoveEmptyTags": remove}});
            let made = send(&api, "POST", "/v1/query", &query.to_string()).expect("a valid path");
            assert_is_short(&made, "POST /v1/query");
            let name = format!("{path}{}", rest.repeat(times));
            for question in ["explain", "execute"] {
                let Some(answer) = send(&api, "GET", &format!("/v1/query/{name}/{question}"), "") else {
                    return;
                };
                assert_is_short(&answer, question);
                assert!(answer.body.len() < PREPARED_QUERY_BYTES_MAX / 11 * NAME_BYTES_MAX);
                *filled.borrow_mut() += u32::from(answer.status.is_success());
            }
        },
    );
    assert!(*filled.borrow() > 50, "{filled:?} filled in");
}
