//! Operations as HTTP requests, and answers as outcomes.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use serde_json::{Value, json};
use sider_core::{
    api::http::FROM_AN_AGENT,
    registry::{CheckStatus, Namespace},
    runtime::NetworkError,
};

use crate::{
    agency,
    agent_reads::AgentSeen,
    content::{Content, StateSeen},
    history::{Answer, Kept, Outcome, Told},
    narrowing::escaped,
    operation::{
        Ask, CatalogEntry, ELSEWHERE, Freshness, Op, RegisterForm, Report, ReportForm, Service, Target,
    },
    prepared,
};

/// What a check that is not a TTL check is about.
const PROBED: &str = "10.9.8.7:80";

/// The request that asks for an operation.
///
/// # Panics
/// Never: simulated names are valid in a header.
pub fn request(op: &Op) -> Request<Bytes> {
    match op {
        Op::Register { form, services } => match (form, services.as_slice()) {
            (RegisterForm::Batch, services) => {
                let list: Vec<Value> = services
                    .iter()
                    .map(|it| service_body(it, RegisterForm::Short))
                    .collect();
                put("/v1/batch/register", Some(json!(list)))
            }
            (form @ RegisterForm::Elsewhere, services) => put(
                &format!("/v1/agent/service/register?ns={ELSEWHERE}"),
                services.first().map(|it| service_body(it, *form)),
            ),
            (form, services) => put(
                "/v1/agent/service/register",
                services.first().map(|it| service_body(it, *form)),
            ),
        },
        Op::Deregister { id, service: None } => put(&format!("/v1/agent/service/deregister/{id}"), None),
        Op::Deregister {
            id,
            service: Some(service),
        } => {
            let body = json!({ "ns": "default", "service": service, "id": id });
            put("/v1/agent/service/deregister", Some(body))
        }
        Op::DeregisterCheck { check } => put(&format!("/v1/agent/check/deregister/{check}"), None),
        Op::CatalogRegister(entry) => {
            let path = match entry.elsewhere {
                true => format!("/v1/catalog/register?ns={ELSEWHERE}"),
                false => "/v1/catalog/register".to_owned(),
            };
            put(&path, Some(catalog_body(entry)))
        }
        Op::CatalogDeregister {
            node,
            service_id,
            check_id,
        } => {
            let mut body = json!({ "Node": node });
            for (name, id) in [("ServiceID", service_id), ("CheckID", check_id)] {
                if let Some(id) = id {
                    body[name] = json!(id);
                }
            }
            put("/v1/catalog/deregister", Some(body))
        }
        Op::Report { form, reports } => report_request(*form, reports),
        Op::Save => get("/v1/snapshot"),
        // Its body is a file that only the client has: see [`restore`].
        Op::Restore { .. } => put("/v1/snapshot", None),
        Op::Keys(op) => op.request(),
        Op::Maintenance(op) => op.request(),
        Op::AgentRead(ask) => ask.request(),
        Op::Cluster(ask) => ask.request(),
        Op::RegisterCheck(check) => check.request(),
        Op::Prepared(op) => op.request(),
        Op::Autopilot(op) => put("/v1/operator/autopilot/configuration", Some(op.body())),
        Op::Read { ask, freshness } => {
            fresh(*freshness, sent_on(ask, get(&read_path(ask, *freshness, None))))
        }
        Op::Wait {
            ask,
            freshness,
            index,
            wait_ms,
        } => fresh(
            *freshness,
            sent_on(ask, get(&read_path(ask, *freshness, Some((*index, *wait_ms))))),
        ),
    }
}

/// As the agent sends it on whose node is to be near.
fn sent_on(ask: &Ask, mut request: Request<Bytes>) -> Request<Bytes> {
    if let (_, Ask::Narrowed { by, .. }) = ask.place()
        && let Some(node) = &by.near
    {
        let node = HeaderValue::from_str(node).expect("simulated names are valid in a header");
        request.headers_mut().insert(FROM_AN_AGENT, node);
    }
    request
}

/// The same request, with what its head says of how fresh a kept answer must be.
fn fresh(freshness: Freshness, mut request: Request<Bytes>) -> Request<Bytes> {
    let control = match freshness {
        Freshness::CachedWithin(seconds) => HeaderValue::from_str(&format!("max-age={seconds}")).ok(),
        Freshness::CachedAnew => Some(HeaderValue::from_static("no-cache")),
        _ => None,
    };
    if let Some(control) = control {
        request.headers_mut().insert(header::CACHE_CONTROL, control);
    }
    request
}

/// The request that restores this file.
pub fn restore(file: Vec<u8>) -> Request<Bytes> {
    let mut request = put("/v1/snapshot", None);
    *request.body_mut() = Bytes::from(file);
    request
}

/// What a client makes of an answer.
pub fn outcome(op: &Op, answer: Result<Response<Bytes>, NetworkError>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ NetworkError::Unreachable { .. }) => return Outcome::Failed(error.to_string()),
        Err(error @ NetworkError::OutcomeUnknown { .. }) => return Outcome::Unknown(error.to_string()),
    };
    let status = answer.status().as_u16();
    let text = || String::from_utf8_lossy(answer.body()).into_owned();
    // Its status code tells of health, too.
    if let Op::AgentRead(ask) = op
        && let Some(seen) = ask.parse(status, answer.body())
    {
        if let AgentSeen::Service(Some((hash, _))) = &seen
            && answer
                .headers()
                .get("x-consul-contenthash")
                .map(HeaderValue::as_bytes)
                != Some(hash.as_bytes())
        {
            return Outcome::Nonsense(format!("X-Consul-ContentHash is not {hash}"));
        }
        return match success(op, &answer) {
            Ok(done) => Outcome::Done(Answer {
                content: Some(Content::Agent(seen)),
                ..done
            }),
            Err(problem) => Outcome::Nonsense(format!("{status} with a bad answer: {problem}")),
        };
    }
    // Whether it is ready, too. The index of events is none of the registry's.
    if let Op::Cluster(ask) = op {
        let index = answer
            .headers()
            .get("x-index")
            .and_then(|it| it.to_str().ok()?.parse().ok());
        match ask.parse(status, index, answer.body()) {
            Some(seen) => {
                return Outcome::Done(Answer {
                    index: None,
                    told: None,
                    content: Some(Content::Cluster(seen)),
                    refused: Vec::new(),
                });
            }
            None if status == 200 => return Outcome::Nonsense(format!("200 {:?}", text())),
            None => {}
        }
    }
    match status {
        200 if matches!(op, Op::AgentRead(_)) => Outcome::Nonsense(format!("200 {:?}", text())),
        200 => match success(op, &answer) {
            Ok(answer) => Outcome::Done(answer),
            Err(problem) => Outcome::Nonsense(format!("200 with a bad answer: {problem}")),
        },
        500 if text().starts_with("No cluster leader") => Outcome::Failed(text()),
        // An agent says so of which no server carried it out.
        500 if text().starts_with("No known Consul servers") => Outcome::Failed(text()),
        500 if text().starts_with("outcome unknown") => Outcome::Unknown(text()),
        503 | 429 => Outcome::Failed(text()),
        400 if matches!(op, Op::Restore { .. }) => Outcome::Refused {
            status,
            reason: text(),
        },
        // A key that is not there, or nothing with a prefix.
        404 if matches!(
            op.asked(),
            Some((Ask::Key(_) | Ask::KeyTree(_) | Ask::KeyNames(_), _))
        ) =>
        {
            let (parts, _) = answer.into_parts();
            match success(op, &Response::from_parts(parts, Bytes::from_static(b"[]"))) {
                Ok(answer) => Outcome::Done(answer),
                Err(problem) => Outcome::Nonsense(format!("404 with a bad answer: {problem}")),
            }
        }
        404 if matches!(&op, Op::Prepared(op) if !op.is_logged()) && text() == "Query not found" => {
            Outcome::Done(Answer {
                index: None,
                told: None,
                content: Some(prepared::not_there()),
                refused: Vec::new(),
            })
        }
        // As Consul says that a name is taken, or that there is no such query.
        500 if matches!(op, Op::Prepared(_)) && prepared::is_refusal(&text()) => Outcome::Refused {
            status,
            reason: text(),
        },
        // As Consul says that a session, or what it is bound to, is not there.
        500 if matches!(op, Op::Keys(_)) && text().contains("apply failed: ") => Outcome::Refused {
            status,
            reason: text(),
        },
        404 | 409 if op.is_write() => Outcome::Refused {
            status,
            reason: text(),
        },
        _ => Outcome::Nonsense(format!("{status} {:?}", text())),
    }
}

fn success(op: &Op, answer: &Response<Bytes>) -> Result<Answer, String> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let index = header("x-index")
        .map(|index| index.parse().map_err(|_| format!("index {index:?}")))
        .transpose()?;
    if header("x-consul-index") != header("x-index") {
        return Err("X-Consul-Index is not X-Index".into());
    }
    let mut done = Answer {
        index,
        told: None,
        content: None,
        refused: Vec::new(),
    };
    match op {
        Op::Save => done.content = Some(Content::Snapshot(Box::new(StateSeen::parse(answer.body())?))),
        Op::Read { ask, .. } | Op::Wait { ask, .. } => {
            done.content = Some(Content::parse(ask, answer.body())?);
            done.told = Some(told(answer)?);
        }
        Op::Keys(op) => done.content = Some(op.parse(answer.body())?),
        Op::Prepared(op) => {
            done.content = op.parse(answer.body())?;
            // That of an execution is the index of whatever service it leads to: nobody can carry it along.
            done.index = done.index.filter(|_| op.is_logged());
        }
        Op::Autopilot(_) if answer.body() != "true" => return Err("the settings were not stored".into()),
        Op::Report {
            form: ReportForm::Batch,
            reports,
        } => {
            let each: Vec<Value> =
                serde_json::from_slice(answer.body()).map_err(|error| error.to_string())?;
            done.refused = each.iter().map(|one| one["Status"] != 200).collect();
            if done.refused.len() != reports.len() {
                return Err(format!(
                    "{} answers to {} reports",
                    done.refused.len(),
                    reports.len()
                ));
            }
        }
        Op::Register { form, services } => registered(*form, services, answer.body())?,
        Op::RegisterCheck(check) if !check.is_told_by(answer.body()) => {
            return Err("its id is not told".into());
        }
        _ => {}
    }
    Ok(done)
}

/// What an answer to a read says of its freshness.
fn told(answer: &Response<Bytes>) -> Result<Told, String> {
    let header = |name: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("no {name}"))
    };
    let known_leader = header("x-consul-knownleader")?;
    let last_contact = header("x-consul-lastcontact")?;
    Ok(Told {
        known_leader: known_leader
            .parse()
            .map_err(|_| format!("known leader {known_leader:?}"))?,
        last_contact: last_contact
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| format!("last contact {last_contact:?}"))?,
        consistency: header("x-consul-effective-consistency")?.to_owned(),
        kept: kept(answer)?,
    })
}

/// What an agent says of an answer that it keeps.
fn kept(answer: &Response<Bytes>) -> Result<Option<Kept>, String> {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(cache) = header("x-cache") else {
        return Ok(None);
    };
    let age = header("age").and_then(|age| age.parse().ok());
    match (cache, age) {
        ("HIT" | "MISS", Some(seconds)) => Ok(Some(Kept {
            hit: cache == "HIT",
            age: Duration::from_secs(seconds),
        })),
        (cache, _) => Err(format!("X-Cache {cache:?} with age {:?}", header("age"))),
    }
}

/// A registration answers with the ids of its checks.
fn registered(form: RegisterForm, services: &[Service], body: &[u8]) -> Result<(), String> {
    let told: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut expected: Vec<Value> = services
        .iter()
        .map(|service| json!(service.check_ids(form)))
        .collect();
    let expected = if form == RegisterForm::Batch {
        json!(expected)
    } else {
        expected.pop().unwrap_or_default()
    };
    if told["CheckIDs"] == expected {
        Ok(())
    } else {
        Err(format!(
            "the checks are {}, should be {expected}",
            told["CheckIDs"]
        ))
    }
}

fn put(path: &str, body: Option<Value>) -> Request<Bytes> {
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    Request::builder()
        .method(Method::PUT)
        .uri(path)
        .body(body)
        .expect("simulated names are valid in a path")
}

pub(crate) fn get(path: &str) -> Request<Bytes> {
    Request::builder()
        .uri(path)
        .body(Bytes::new())
        .expect("simulated names are valid in a path")
}

fn duration(ms: u64) -> String {
    format!("{}ms", Duration::from_millis(ms).as_millis())
}

fn service_body(service: &Service, form: RegisterForm) -> Value {
    let checks = service.checks.iter().map(|check| {
        let mut body = match form {
            // Nobody probes it, but its definition is kept, and its status can be reported.
            RegisterForm::Consul | RegisterForm::Replacing if check.ttl_ms == 0 => {
                json!({ "TCP": PROBED, "Interval": "10s" })
            }
            RegisterForm::Short | RegisterForm::Batch | RegisterForm::Elsewhere if check.ttl_ms == 0 => {
                json!({ "type": "tcp", "tcp": PROBED, "interval": "10s" })
            }
            RegisterForm::Consul | RegisterForm::Replacing => json!({ "TTL": duration(check.ttl_ms) }),
            RegisterForm::Short | RegisterForm::Batch | RegisterForm::Elsewhere => {
                json!({ "type": "ttl", "ttl": duration(check.ttl_ms) })
            }
        };
        if let Some(status) = check.status {
            body["Status"] = json!(status.as_str());
        }
        if check.deregister_after_ms > 0 {
            body["DeregisterCriticalServiceAfter"] = json!(duration(check.deregister_after_ms));
        }
        if !service.notes().is_empty() {
            body["Notes"] = json!(service.notes());
        }
        body
    });
    let tagged_addresses: BTreeMap<String, Value> = service
        .tagged_addresses()
        .into_iter()
        .map(|(tag, (address, port))| (tag, json!({ "Address": address, "Port": port })))
        .collect();
    let mut body = json!({
        "Name": service.name,
        "ID": service.id,
        "Address": service.address(),
        "Weights": { "Passing": service.weights().0, "Warning": service.weights().1 },
        "Port": service.port,
        "Tags": service.tags,
        "Meta": service.meta(),
        "EnableTagOverride": service.tag_override(),
        "TaggedAddresses": tagged_addresses,
        "ReplaceExistingChecks": form == RegisterForm::Replacing,
        "Checks": checks.collect::<Vec<_>>(),
    });
    for (name, value) in service.extras() {
        body[name] = value;
    }
    body
}

fn catalog_body(entry: &CatalogEntry) -> Value {
    let mut body = json!({ "Node": entry.node, "Address": entry.address });
    if !entry.node_id.is_empty() {
        body["ID"] = json!(entry.node_id);
    }
    if entry.keeps_node {
        body["SkipNodeUpdate"] = json!(true);
    }
    if let Some(rack) = &entry.rack {
        body["NodeMeta"] = json!({ "rack": rack });
    }
    if let Some((id, service, port)) = &entry.service {
        body["Service"] = json!({ "ID": id, "Service": service, "Port": port });
    }
    if let Some(spoils) = entry.spoils {
        agency::spoil(&mut body, spoils);
    }
    if let Some((id, status, output)) = &entry.check {
        body["Check"] = json!({ "CheckID": id, "Name": id, "Status": status.as_str(), "Output": output });
        let instance = entry.service.as_ref().map(|(instance, ..)| instance);
        if let Some(instance) = entry.check_of.as_ref().or(instance) {
            body["Check"]["ServiceID"] = json!(instance);
        }
        if let Some(spoils) = entry.spoils {
            agency::spoil_check(&mut body["Check"], &entry.node, spoils);
        }
    }
    body
}

fn report_request(form: ReportForm, reports: &[Report]) -> Request<Bytes> {
    match (form, reports) {
        (ReportForm::Batch, reports) => {
            let items = reports.iter().map(|report| {
                let mut item = match &report.target {
                    Target::Check(id) => json!({ "CheckID": id }),
                    Target::Instance(id) => json!({ "ServiceID": id }),
                };
                item["Status"] = json!(report.status.as_str());
                if let Some(output) = &report.output {
                    item["Output"] = json!(output);
                }
                item
            });
            put("/v1/batch/renew", Some(Value::Array(items.collect())))
        }
        (
            _,
            [
                Report {
                    target: Target::Instance(id),
                    ..
                },
                ..,
            ],
        ) => put(&format!("/v1/agent/service/heartbeat/{id}"), None),
        (
            ReportForm::Update,
            [
                Report {
                    target: Target::Check(id),
                    status,
                    output,
                },
                ..,
            ],
        ) => {
            let body = json!({ "Status": status.as_str(), "Output": output.clone().unwrap_or_default() });
            put(&format!("/v1/agent/check/update/{id}"), Some(body))
        }
        (
            _,
            [
                Report {
                    target: Target::Check(id),
                    status,
                    output,
                },
                ..,
            ],
        ) => {
            let verb = match status {
                CheckStatus::Passing => "pass",
                CheckStatus::Warning => "warn",
                CheckStatus::Critical | CheckStatus::Unknown => "fail",
            };
            let note = output
                .iter()
                .map(|output| format!("?note={}", escaped(output)))
                .collect::<String>();
            put(&format!("/v1/agent/check/{verb}/{id}{note}"), None)
        }
        (_, []) => put("/v1/batch/renew", Some(json!([]))),
    }
}

pub(crate) fn read_path(ask: &Ask, freshness: Freshness, wait: Option<(u64, u64)>) -> String {
    let (namespace, ask) = ask.place();
    let (path, mut parameters) = path_of(ask);
    if namespace != Namespace::default() {
        parameters.push(format!("ns={namespace}"));
    }
    match freshness {
        Freshness::Default => {}
        Freshness::Consistent => parameters.push("consistent".into()),
        Freshness::Stale => parameters.push("stale".into()),
        Freshness::MaxStale(ms) => parameters.push(format!("max_stale={ms}ms")),
        Freshness::Cached | Freshness::CachedWithin(_) | Freshness::CachedAnew => {
            parameters.push("cached".into());
        }
    }
    if let Some((index, wait_ms)) = wait {
        parameters.push(format!("index={index}"));
        parameters.push(format!("wait={}", duration(wait_ms)));
    }
    if parameters.is_empty() {
        path
    } else {
        format!("{path}?{}", parameters.join("&"))
    }
}

/// Where a question is asked, and what else it says, but for its namespace.
fn path_of(ask: &Ask) -> (String, Vec<String>) {
    match ask {
        Ask::Elsewhere(_) => unreachable!("there is one elsewhere"),
        Ask::Narrowed { ask, by } => {
            let (path, mut parameters) = path_of(ask);
            parameters.extend(by.parameters(ask));
            (path, parameters)
        }
        Ask::NodeServices { node, list: false } => (format!("/v1/catalog/node/{node}"), vec![]),
        Ask::NodeServices { node, list: true } => (format!("/v1/catalog/node-services/{node}"), vec![]),
        Ask::Health {
            service,
            passing,
            tags,
        } => {
            let mut parameters: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
            parameters.extend(passing.then(|| "passing".to_owned()));
            (format!("/v1/health/service/{service}"), parameters)
        }
        Ask::CatalogService { service, tags } => {
            let parameters = tags.iter().map(|tag| format!("tag={tag}")).collect();
            (format!("/v1/catalog/service/{service}"), parameters)
        }
        Ask::Connect {
            service,
            checks: true,
            passing,
        } => (
            format!("/v1/health/connect/{service}"),
            passing.then(|| "passing".to_owned()).into_iter().collect(),
        ),
        Ask::Connect { service, .. } => (format!("/v1/catalog/connect/{service}"), vec![]),
        Ask::Services => ("/v1/catalog/services".to_owned(), vec![]),
        Ask::Nodes => ("/v1/catalog/nodes".to_owned(), vec![]),
        Ask::NodeChecks(node) => (format!("/v1/health/node/{node}"), vec![]),
        Ask::ServiceChecks(service) => (format!("/v1/health/checks/{service}"), vec![]),
        Ask::ChecksInState(status) => (
            format!("/v1/health/state/{}", status.map_or("any", CheckStatus::as_str)),
            vec![],
        ),
        Ask::Key(key) => (format!("/v1/kv/{key}"), vec![]),
        Ask::KeyTree(prefix) => (format!("/v1/kv/{prefix}"), vec!["recurse".into()]),
        Ask::KeyNames(prefix) => (
            format!("/v1/kv/{prefix}"),
            vec!["keys".into(), "separator=/".into()],
        ),
        Ask::Sessions => ("/v1/session/list".to_owned(), vec![]),
        Ask::SessionsOf(node) => (format!("/v1/session/node/{node}"), vec![]),
        Ask::Session(id) => (format!("/v1/session/info/{id}"), vec![]),
        Ask::Queries => ("/v1/query".to_owned(), vec![]),
        Ask::Roots => ("/v1/connect/ca/roots".to_owned(), vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Response<Bytes>, NetworkError> {
        let answer = Response::builder()
            .status(status)
            .header("x-index", "7")
            .header("x-consul-index", "7")
            .header("x-consul-knownleader", "true")
            .header("x-consul-lastcontact", "0")
            .header("x-consul-effective-consistency", "leader");
        Ok(answer.body(Bytes::from(body.to_owned())).expect("a valid answer"))
    }

    #[test]
    fn paths_say_what_is_asked() {
        let ask = Ask::Health {
            service: "web".into(),
            passing: true,
            tags: vec!["blue".into()],
        };
        let wait = Op::Wait {
            ask,
            freshness: Freshness::Stale,
            index: 7,
            wait_ms: 500,
        };
        let uri = request(&wait).uri().to_string();
        assert_eq!(
            uri,
            "/v1/health/service/web?tag=blue&passing&stale&index=7&wait=500ms"
        );
    }

    #[test]
    fn only_certain_failures_are_failures() {
        let op = Op::Deregister {
            id: "web-1".into(),
            service: None,
        };
        let failed = outcome(&op, answer(500, "No cluster leader"));
        assert!(matches!(failed, Outcome::Failed(_)), "{failed:?}");
        let unknown = outcome(&op, answer(500, "outcome unknown: no answer"));
        assert!(matches!(unknown, Outcome::Unknown(_)), "{unknown:?}");
        let refused = outcome(&op, answer(404, "Unknown service ID"));
        assert!(
            matches!(refused, Outcome::Refused { status: 404, .. }),
            "{refused:?}"
        );
        let strange = outcome(&op, answer(500, "something"));
        assert!(matches!(strange, Outcome::Nonsense(_)), "{strange:?}");
        let lost = NetworkError::OutcomeUnknown {
            address: "s1".into(),
            reason: "timed out".into(),
        };
        assert!(matches!(outcome(&op, Err(lost)), Outcome::Unknown(_)));
        let refused = NetworkError::Unreachable {
            address: "s1".into(),
            reason: "refused".into(),
        };
        assert!(matches!(outcome(&op, Err(refused)), Outcome::Failed(_)));
    }

    #[test]
    fn a_body_of_another_shape_is_nonsense() {
        let op = Op::Read {
            ask: Ask::Services,
            freshness: Freshness::Default,
        };
        assert!(matches!(outcome(&op, answer(200, "[]")), Outcome::Nonsense(_)));
        let done = outcome(&op, answer(200, r#"{"web":["b","a"]}"#));
        let Outcome::Done(done) = done else {
            panic!("{done:?}")
        };
        assert_eq!(done.index, Some(7));
        let tags = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            done.content,
            Some(Content::Services([("web".to_owned(), tags)].into()))
        );
    }
}
