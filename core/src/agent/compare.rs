//! Anti-entropy: what the servers hold for this node against what it should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    local::{Change, Local, LocalCheck, LocalService},
    wire::{HeldCheck, HeldNode, HeldService},
};
use crate::{
    api::http::{
        encode::{self, definition},
        requests::parse_status,
    },
    registry::{
        CheckDefinition, CheckId, CheckKey, CheckStatus, Instance, InstanceId, InstanceKey, Namespace,
        Session,
    },
    server::SERVERS_INSTANCE,
};

/// What the servers hold for the node in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The node with its services.
    pub(super) node: HeldNode,
    /// The checks of the node and of its services.
    pub(super) checks: Vec<HeldCheck>,
}

impl Held {
    /// Whether the node is a server's, too, which keeps it alive in the catalog and has an instance of its own there.
    pub(super) fn is_of_server(&self, local: &Local) -> bool {
        let here = |id: &str| local.services().any(|(key, _)| key.id.as_str() == id);
        let mut services = self.node.services.iter();
        services.any(|service| service.id == SERVERS_INSTANCE) && !here(SERVERS_INSTANCE)
    }
}

/// Something to put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    /// The servers lack this, or hold it otherwise: it is registered again.
    Differs(Change),
    /// The servers hold what the agent does not know: it is removed.
    Unknown(Change),
    /// The servers do not have this check.
    LostCheck(CheckKey),
    /// The servers have another status or output for this check.
    Status(CheckKey),
    /// The servers have a status for a check of which nothing is known here.
    Adopt(CheckKey, CheckStatus, String),
    /// The servers have other tags for a service that lets others change them.
    Tags(InstanceKey, Vec<String>),
}

/// Compares one namespace; findings come in the order of their keys.
pub(super) fn compare(local: &Local, namespace: &Namespace, held: &Held) -> Vec<Finding> {
    let mut findings = BTreeSet::new();
    let held_services: BTreeMap<&str, &HeldService> = held
        .node
        .services
        .iter()
        .map(|service| (service.id.as_str(), service))
        .collect();
    let held_checks: BTreeMap<&str, &HeldCheck> = held
        .checks
        .iter()
        .map(|check| (check.check_id.as_str(), check))
        .collect();
    let of_server = held.is_of_server(local);
    if *namespace == Namespace::default() {
        node(local, held, &held_checks, &mut findings);
    }
    for (key, service) in local.services().filter(|(key, _)| key.namespace == *namespace) {
        let same = held_services
            .get(key.id.as_str())
            .is_some_and(|held| same_service(&service.instance, held));
        if !same {
            findings.insert(Finding::Differs(Change::Service(key.clone())));
        }
        let held = held_services.get(key.id.as_str());
        let others = held.filter(|held| tags_are_others(&service.instance, held));
        findings.extend(others.map(|held| Finding::Tags(key.clone(), held.tags.clone())));
        service_checks(local, key, service, &held_checks, &mut findings);
    }
    for id in held_services
        .keys()
        .filter(|id| !(of_server && **id == SERVERS_INSTANCE))
    {
        if let Ok(id) = InstanceId::parse(id) {
            let key = InstanceKey {
                namespace: namespace.clone(),
                node: local.node().name.clone(),
                id,
            };
            if local.service(&key).is_none() {
                findings.insert(Finding::Unknown(Change::Service(key)));
            }
        }
    }
    let kept_by_server = |check: &&HeldCheck| of_server && check.check_id == Session::NODE_ALIVE;
    for check in held.checks.iter().filter(|check| !kept_by_server(check)) {
        unknown_check(local, namespace, check, &mut findings);
    }
    findings.into_iter().collect()
}

fn node(
    local: &Local,
    held: &Held,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    findings: &mut BTreeSet<Finding>,
) {
    let same = held.node.node.as_ref().is_some_and(|node| {
        let own = local.node();
        node.address == own.address
            && node.id == own.id
            && node.meta == own.meta
            && node.tagged_addresses == own.tagged_addresses
    });
    if !same {
        findings.insert(Finding::Differs(Change::Node));
    }
    for (key, check) in local.node_checks() {
        check_findings(key, check, held_checks, &Change::Node, findings);
    }
}

fn service_checks(
    local: &Local,
    key: &InstanceKey,
    service: &LocalService,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    findings: &mut BTreeSet<Finding>,
) {
    let change = Change::Service(key.clone());
    for (key, check) in local.checks_of(service) {
        check_findings(key, check, held_checks, &change, findings);
    }
}

fn check_findings(
    key: &CheckKey,
    check: &LocalCheck,
    held_checks: &BTreeMap<&str, &HeldCheck>,
    change: &Change,
    findings: &mut BTreeSet<Finding>,
) {
    let update = &check.spec.update;
    let Some(held) = held_checks.get(key.id.as_str()) else {
        findings.insert(Finding::Differs(change.clone()));
        findings.insert(Finding::LostCheck(key.clone()));
        return;
    };
    let owner = update.instance.as_ref().map_or("", InstanceId::as_str);
    let same = held.name == update.name
        && held.notes == update.notes
        && held.service_id == owner
        && is_defined_so(&held.definition, &update.definition);
    if !same {
        findings.insert(Finding::Differs(change.clone()));
    }
    let same =
        check.output == held.output && check.status.is_some_and(|status| status.as_str() == held.status);
    if same {
        return;
    }
    if check.set_at.is_none() {
        if let Some(status) = parse_status(&held.status) {
            findings.insert(Finding::Adopt(key.clone(), status, held.output.clone()));
        }
    } else if update.definition.ttl().is_none() {
        // Not so for TTL checks: the servers alone know whether one was renewed in time.
        findings.insert(Finding::Status(key.clone()));
    }
}

/// Whether a definition is held as it is wanted. An older server does not know which checks are of agents.
fn is_defined_so(held: &Value, wanted: &CheckDefinition) -> bool {
    *held == definition(wanted) || *held == definition(&wanted.clone().of_agent())
}

/// A check that the agent does not know goes: with its unknown service, by registering its known one again, or alone.
fn unknown_check(local: &Local, namespace: &Namespace, held: &HeldCheck, findings: &mut BTreeSet<Finding>) {
    let Ok(id) = CheckId::parse(&held.check_id) else {
        return;
    };
    let key = CheckKey {
        namespace: namespace.clone(),
        node: local.node().name.clone(),
        id,
    };
    if local.check(&key).is_some() {
        return;
    }
    let service = InstanceId::parse(&held.service_id).ok().map(|id| InstanceKey {
        namespace: namespace.clone(),
        node: local.node().name.clone(),
        id,
    });
    match service {
        None if *namespace == Namespace::default() => {
            findings.insert(Finding::Unknown(Change::NodeCheck(key)));
        }
        Some(service) if local.service(&service).is_some() => {
            findings.insert(Finding::Differs(Change::Service(service)));
        }
        _ => {}
    }
}

/// Whether somebody changed tags that anybody may change.
fn tags_are_others(wanted: &Instance, held: &HeldService) -> bool {
    wanted.enable_tag_override
        && held.enable_tag_override
        && wanted.service.as_str() == held.service
        && wanted.tags != held.tags
}

fn same_service(wanted: &Instance, held: &HeldService) -> bool {
    wanted.service.as_str() == held.service
        && wanted.address == held.address
        && wanted.port == held.port
        && wanted.enable_tag_override == held.enable_tag_override
        && (wanted.tags == held.tags || wanted.enable_tag_override)
        && wanted.meta == held.meta
        && wanted.extras.as_deref().map(encode::extras).unwrap_or_default() == held.extras()
        && held.weights.is_none_or(|weights| {
            weights.passing == wanted.weights.passing && weights.warning == wanted.weights.warning
        })
        && wanted.tagged_addresses.iter().all(|(name, at)| {
            held.tagged_addresses
                .get(name)
                .is_some_and(|held| held.address == at.address && held.port == at.port)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        agent::{config::ConfigFile, local::Origin},
        api::http::requests::plain_node,
        registry::NodeName,
        runtime::Instant,
    };

    /// An agent that wants `api` on port 80 with a TCP check of which nothing is known yet, and its TTL check.
    fn wanted() -> Local {
        wanting(json!({"type": "tcp", "tcp": "10.0.0.1:80", "id": "probe"}))
    }

    fn wanting(probe: Value) -> Local {
        let node = NodeName::parse("host").expect("a valid name");
        let file = ConfigFile::parse(&json!([{"name": "api", "port": 80, "tags": ["a"], "checks": [
            probe,
            {"type": "ttl", "ttl": "15s", "id": "beat"},
        ]}]));
        let services = file.and_then(|file| file.services(&node, "10.0.0.1"));
        let mut local = Local::new(plain_node(node, "10.0.0.1"));
        for service in services.expect("a valid configuration") {
            local
                .put_service(service.0, true, Origin::Config, Instant(0), || 0)
                .expect("it is taken on");
        }
        local
    }

    /// What servers answer when they hold just that, changed as a test wants.
    fn held(change: impl FnOnce(&mut Value, &mut Value)) -> Held {
        let mut node = json!({
            "Node": {"Node": "host", "Address": "10.0.0.1", "Meta": null, "TaggedAddresses": {
                "lan": "10.0.0.1", "lan_ipv4": "10.0.0.1", "wan": "10.0.0.1", "wan_ipv4": "10.0.0.1"}},
            "Services": [{"ID": "api", "Service": "api", "Port": 80, "Tags": ["a"], "Meta": null,
                "Weights": {"Passing": 1, "Warning": 1}}],
        });
        let name = "Service 'api' check";
        let mut checks = json!([
            {"CheckID": "probe", "Name": name, "Status": "critical", "ServiceID": "api",
                "Definition": {"TCP": "10.0.0.1:80", "Interval": "10s"}},
            {"CheckID": "beat", "Name": name, "Status": "critical", "ServiceID": "api",
                "Definition": {"TTL": "15s"}},
        ]);
        change(&mut node, &mut checks);
        Held {
            node: serde_json::from_value(node).expect("an answer"),
            checks: serde_json::from_value(checks).expect("an answer"),
        }
    }

    fn key<T>(id: &str, parse: impl FnOnce(&str) -> T) -> (Namespace, crate::registry::NodeName, T) {
        let node = NodeName::parse("host").expect("a valid name");
        (Namespace::default(), node, parse(id))
    }

    fn service(id: &str) -> Change {
        let (namespace, node, id) = key(id, |id| InstanceId::parse(id).expect("a valid id"));
        Change::Service(InstanceKey { namespace, node, id })
    }

    fn check(id: &str) -> CheckKey {
        let (namespace, node, id) = key(id, |id| CheckId::parse(id).expect("a valid id"));
        CheckKey { namespace, node, id }
    }

    fn findings(local: &Local, held: &Held) -> Vec<Finding> {
        compare(local, &Namespace::default(), held)
    }

    #[test]
    fn a_status_of_which_nothing_is_known_here_is_adopted_and_then_all_is_well() {
        let mut local = wanted();
        let held = held(|_, _| ());
        let adopt = Finding::Adopt(check("probe"), CheckStatus::Critical, String::new());
        assert_eq!(findings(&local, &held), [adopt]);
        local.adopt(&check("probe"), CheckStatus::Critical, String::new());
        // That the TTL check is critical there is for the servers to say.
        assert_eq!(findings(&local, &held), []);
    }

    #[test]
    fn what_servers_hold_as_an_agents_is_the_same() {
        let mut local = wanted();
        local.adopt(&check("probe"), CheckStatus::Critical, String::new());
        let held = held(|_, checks| {
            for check in checks.as_array_mut().expect("a list") {
                check["Definition"]["OfAgent"] = json!(true);
            }
        });
        assert_eq!(findings(&local, &held), []);
    }

    #[test]
    fn a_status_that_was_adopted_counts_towards_a_removal_once_it_is_met() {
        let mut local = wanting(json!({"type": "tcp", "tcp": "10.0.0.1:80", "id": "probe",
            "deregister_critical_service_after": "1s"}));
        local.adopt(&check("probe"), CheckStatus::Critical, String::new());
        let run = local.take_run(Instant(u64::MAX)).expect("the probe is due");
        assert!(!local.finish_run(&run, CheckStatus::Critical, "refused".into(), Instant(0)));
        assert_eq!(local.remove_critical(Instant(999_999_999)), []);
        assert_eq!(local.remove_critical(Instant(1_000_000_000)).len(), 1);
    }

    #[test]
    fn what_came_after_the_call_is_not_known_to_the_servers() {
        let mut local = wanted();
        let sent = [(
            check("beat"),
            local.check(&check("beat")).expect("it is there").generation,
        )];
        let mut spec = local.check(&check("beat")).expect("it is there").spec.clone();
        local.confirm(&sent, Instant(1));
        assert!(
            local
                .check(&check("beat"))
                .expect("it is there")
                .confirmed
                .is_some()
        );
        spec.update.notes = "another one".into();
        local
            .put_check(spec, Origin::Api, Instant(2), || 0)
            .expect("it is taken on");
        local.confirm(&sent, Instant(3));
        let replaced = local.check(&check("beat")).expect("it is there");
        assert_eq!(replaced.confirmed, None);
        let sent = [(check("beat"), replaced.generation)];
        local.confirm(&sent, Instant(4));
        let confirmed = local.check(&check("beat")).and_then(|check| check.confirmed);
        assert_eq!(confirmed, Some(Instant(4)));
    }

    #[test]
    fn every_difference_is_found() {
        let mut local = wanted();
        local.adopt(&check("probe"), CheckStatus::Critical, String::new());
        let differs = || vec![Finding::Differs(service("api"))];
        type Alter = Box<dyn FnOnce(&mut Value, &mut Value)>;
        let cases: [(&str, Alter, Vec<Finding>); 13] = [
            (
                "port",
                Box::new(|node, _| node["Services"][0]["Port"] = json!(81)),
                differs(),
            ),
            (
                "tags",
                Box::new(|node, _| node["Services"][0]["Tags"] = json!([])),
                differs(),
            ),
            (
                "name",
                Box::new(|node, _| node["Services"][0]["Service"] = json!("b")),
                differs(),
            ),
            (
                "meta",
                Box::new(|node, _| node["Services"][0]["Meta"] = json!({"k": "v"})),
                differs(),
            ),
            (
                "weights",
                Box::new(|node, _| node["Services"][0]["Weights"]["Passing"] = json!(2)),
                differs(),
            ),
            (
                "who may change its tags",
                Box::new(|node, _| node["Services"][0]["EnableTagOverride"] = json!(true)),
                differs(),
            ),
            (
                "definition",
                Box::new(|_, checks| checks[1]["Definition"]["TTL"] = json!("16s")),
                differs(),
            ),
            (
                "owner",
                Box::new(|_, checks| checks[0]["ServiceID"] = json!("")),
                differs(),
            ),
            (
                "a check too many",
                Box::new(|_, checks| {
                    let mut more = checks[0].clone();
                    more["CheckID"] = json!("more");
                    checks.as_array_mut().expect("a list").push(more);
                }),
                differs(),
            ),
            (
                "a check too few",
                Box::new(|_, checks| drop(checks.as_array_mut().expect("a list").pop())),
                vec![
                    Finding::Differs(service("api")),
                    Finding::LostCheck(check("beat")),
                ],
            ),
            (
                "the node",
                Box::new(|node, _| node["Node"]["Address"] = json!("10.0.0.2")),
                vec![Finding::Differs(Change::Node)],
            ),
            (
                "one of its other addresses",
                Box::new(|node, _| node["Node"]["TaggedAddresses"]["lan"] = json!("6.6.6.6")),
                vec![Finding::Differs(Change::Node)],
            ),
            (
                "a service too many",
                Box::new(|node, _| {
                    let mut more = node["Services"][0].clone();
                    more["ID"] = json!("more");
                    node["Services"].as_array_mut().expect("a list").push(more);
                }),
                vec![Finding::Unknown(service("more"))],
            ),
        ];
        for (what, change, expected) in cases {
            assert_eq!(findings(&local, &held(change)), expected, "{what}");
        }
    }

    #[test]
    fn servers_that_hold_nothing_lack_everything() {
        let local = wanted();
        let expected = [
            Finding::Differs(Change::Node),
            Finding::Differs(service("api")),
            Finding::LostCheck(check("beat")),
            Finding::LostCheck(check("probe")),
        ];
        assert_eq!(findings(&local, &Held::default()), expected);
    }

    #[test]
    fn a_result_of_a_probe_is_reported_when_the_servers_have_another() {
        let mut local = wanted();
        let run = local.take_run(Instant(u64::MAX)).expect("the probe is due");
        assert!(local.finish_run(&run, CheckStatus::Passing, "fine".into(), Instant(1)));
        assert_eq!(
            findings(&local, &held(|_, _| ())),
            [Finding::Status(check("probe"))]
        );
        let same = held(|_, checks| {
            checks[0]["Status"] = json!("passing");
            checks[0]["Output"] = json!("fine");
        });
        assert_eq!(findings(&local, &same), []);
    }

    #[test]
    fn tags_that_others_may_change_are_adopted_unless_newer_ones_are_under_way() {
        let mut local = wanted();
        let run = local.take_run(Instant(u64::MAX)).expect("the probe is due");
        local.finish_run(&run, CheckStatus::Critical, String::new(), Instant(1));
        let mut spec = crate::agent::local::ServiceSpec {
            instance: local.services().next().expect("it is there").1.instance.clone(),
            checks: local.checks().map(|(_, check)| check.spec.clone()).collect(),
        };
        spec.instance.enable_tag_override = true;
        local
            .put_service(spec, true, Origin::Config, Instant(2), || 0)
            .expect("it is taken on");
        let other_tags = held(|node, _| {
            node["Services"][0]["Tags"] = json!(["b"]);
            node["Services"][0]["EnableTagOverride"] = json!(true);
        });
        let service = service("api");
        let Change::Service(key) = service.clone() else {
            panic!("it is a service's")
        };
        let tags = || vec!["b".to_owned()];
        assert_eq!(
            findings(&local, &other_tags),
            [Finding::Tags(key.clone(), tags())]
        );
        // It was registered here and is yet to be told, or was told only after that look.
        assert!(!local.adopt_tags(&key, tags(), Instant(3)));
        let generation = local.service(&key).expect("it is there").generation;
        local.confirm_service(&service, generation, Instant(4));
        assert!(!local.adopt_tags(&key, tags(), Instant(3)));
        assert!(!local.adopt_tags(&key, tags(), Instant(4)));
        assert!(local.adopt_tags(&key, tags(), Instant(5)));
        assert_eq!(findings(&local, &other_tags), []);
    }
}
