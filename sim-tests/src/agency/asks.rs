//! What is asked of an agent about itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use sider_core::{registry::CheckStatus, runtime::Network as _};

use super::{node, services::Service};
use crate::{
    content::status_of,
    history::{Looked, Seen},
    recorder::now,
    schedule::{Asked, Question},
    time::Time,
    workload::sleep_until,
};

/// How long somebody waits for an answer: longer than an agent tries one server after the other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks one thing when it is time.
pub(super) async fn ask(service: Service, asked: Asked) {
    sleep_until(&service.world, Time::ms(asked.at_ms)).await;
    match asked.what {
        Question::Services => look(&service, "services", services).await,
        Question::Checks => look(&service, "checks", checks).await,
        Question::Health(id) => {
            let path = format!("health/service/id/{id}");
            look(&service, &path, |code, value| health(id, code, value)).await;
        }
    }
}

/// Looks at what an agent tells of itself.
async fn look(service: &Service, path: &str, parse: impl FnOnce(u16, &Value) -> Option<Seen>) {
    let invoked = now(&service.world);
    let request = Request::get(format!("/v1/agent/{path}")).body(Bytes::new());
    let request = request.expect("simulated names are valid in a path");
    let network = service.host.network(0);
    let seen = match network.http(&service.agent, request, PATIENCE).await {
        Err(error) => Seen::Nothing(error.to_string()),
        Ok(answer) => {
            let code = answer.status().as_u16();
            let value: Option<Value> = serde_json::from_slice(answer.body()).ok();
            value.and_then(|value| parse(code, &value)).unwrap_or_else(|| {
                let text = String::from_utf8_lossy(answer.body());
                Seen::Nothing(format!("{code} {text}"))
            })
        }
    };
    let looked = Looked {
        invoked,
        returned: now(&service.world),
        seen,
    };
    service.recorder.agent_looked(&node(service.number), &looked);
}

fn services(code: u16, value: &Value) -> Option<Seen> {
    if code != 200 {
        return None;
    }
    let ids: BTreeSet<String> = value.as_object()?.keys().cloned().collect();
    Some(Seen::Services(ids))
}

fn checks(code: u16, value: &Value) -> Option<Seen> {
    if code != 200 {
        return None;
    }
    let each = value
        .as_object()?
        .iter()
        .map(|(id, check)| Some((id.clone(), status_of(check["Status"].as_str()?)?)));
    Some(Seen::Checks(each.collect::<Option<BTreeMap<_, _>>>()?))
}

fn health(id: String, code: u16, value: &Value) -> Option<Seen> {
    let status = status_of(value["AggregatedStatus"].as_str()?)?;
    // What is not there has no checks.
    let checks = value["Checks"].as_array().into_iter().flatten();
    let checks = checks.map(|check| status_of(check["Status"].as_str()?));
    let checks: Vec<CheckStatus> = checks.collect::<Option<_>>()?;
    Some(Seen::Health(id, code, status, checks))
}
