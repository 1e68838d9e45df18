//! Answers as text. The namespace `default` is left out of names; every other thing that a command did is there.

use sider_core::registry::{
    Applied, Check, CheckKey, Event, Instance, InstanceKey, ListedCheck, Namespace, Node, Reply, Topic,
    TopicVersion, View,
};

pub(crate) fn applied(applied: &Applied) -> String {
    let mut lines = Vec::new();
    let stands = if applied.changed { "index" } else { "index stays" };
    match &applied.reply {
        Err(refusal) => lines.push(format!("refused: {refusal}")),
        Ok(Reply::Registered(ids)) => {
            let lists = ids
                .iter()
                .map(|ids| ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" "));
            lines.push(format!(
                "registered: checks [{}]",
                lists.collect::<Vec<_>>().join("] [")
            ));
        }
        Ok(Reply::Deregistered(found)) => {
            lines.push(
                if *found {
                    "deregistered"
                } else {
                    "nothing to deregister"
                }
                .into(),
            );
        }
        Ok(Reply::Done) => lines.push("done".into()),
        Ok(Reply::Each(outcomes)) => lines.extend(outcomes.iter().map(|outcome| match outcome {
            Ok(()) => "done".into(),
            Err(refusal) => format!("refused: {refusal}"),
        })),
    }
    lines.push(format!("{stands} {}, {} rows", applied.index, applied.rows.len()));
    lines.extend(
        applied
            .events
            .iter()
            .map(|event| format!("event: {}", self::event(event))),
    );
    lines.extend(
        applied
            .topics
            .iter()
            .map(|topic| format!("topic: {}", self::topic(topic))),
    );
    lines.join("\n")
}

fn event(event: &Event) -> String {
    match event {
        Event::InstanceRegistered(key) => format!("instance {} registered", instance_key(key)),
        Event::InstanceDeregistered(key) => format!("instance {} deregistered", instance_key(key)),
        Event::NodeRegistered(name) => format!("node {name} registered"),
        Event::NodeDeregistered(name) => format!("node {name} deregistered"),
        Event::CheckRegistered(key) => format!("check {} registered", check_key(key)),
        Event::CheckRenewed(key) => format!("check {} renewed", check_key(key)),
        Event::CheckStatusChanged { check, from, to } => {
            format!(
                "check {} from {} to {}",
                check_key(check),
                from.as_str(),
                to.as_str()
            )
        }
        Event::CheckExpired(key) => format!("check {} expired", check_key(key)),
        Event::CheckDeregistered(key) => format!("check {} deregistered", check_key(key)),
        other => format!("{other:?}"),
    }
}

fn topic(topic: &Topic) -> String {
    match topic {
        Topic::Service(namespace, name) => format!("service {}{name}", within(namespace)),
        Topic::ServicePassing(namespace, name) => format!("passing instances of {}{name}", within(namespace)),
        Topic::ServiceInstances(namespace, name) => format!("instances of {}{name}", within(namespace)),
        Topic::ServiceChecks(namespace, name) => format!("checks of {}{name}", within(namespace)),
        Topic::Services(namespace) => format!("services of {namespace}"),
        Topic::Nodes => "nodes".into(),
        Topic::NodeServices(namespace, name) => format!("node {name} in {namespace}"),
        Topic::NodeChecks(namespace, name) => format!("checks of node {name} in {namespace}"),
        Topic::Checks(namespace) => format!("checks of {namespace}"),
        Topic::ChecksInState(namespace, status) => format!("{} checks of {namespace}", status.as_str()),
        Topic::Namespace(namespace) => format!("namespace {namespace}"),
    }
}

pub(crate) fn view(version: TopicVersion, view: &View) -> String {
    let mut lines = vec![format!("index {}, touched {}", version.index, version.touched)];
    match view {
        View::Instances(instances) => {
            for health in instances {
                lines.push(instance(&health.instance, &health.node));
                lines.extend(
                    health
                        .checks
                        .iter()
                        .map(|check| format!("  {}", self::check(check))),
                );
            }
        }
        View::Services(services) => {
            lines.extend(
                services
                    .iter()
                    .map(|(name, tags)| format!("{name} [{}]", tags.join(" "))),
            );
        }
        View::Nodes(nodes) => lines.extend(nodes.iter().map(node)),
        View::NodeServices(None) => lines.push("no such node".into()),
        View::NodeServices(Some((on, instances))) => {
            lines.push(node(on));
            lines.extend(instances.iter().map(|it| format!("  {}", instance(it, on))));
        }
        View::Checks(checks) => lines.extend(checks.iter().map(listed_check)),
    }
    lines.join("\n")
}

fn node(node: &Node) -> String {
    let meta = node.meta.iter().map(|(key, value)| format!(" {key}:{value}"));
    format!(
        "node {} at {:?}{} (created {}, modified {})",
        node.name,
        node.address,
        meta.collect::<String>(),
        node.create_index,
        node.modify_index
    )
}

fn instance(instance: &Instance, node: &Node) -> String {
    format!(
        "instance {} of {} at {:?} on {:?} [{}] (created {}, modified {})",
        instance_key(&instance.key()),
        instance.service,
        instance.address,
        node.address,
        instance.tags.join(" "),
        instance.create_index,
        instance.modify_index
    )
}

fn listed_check((it, service): &ListedCheck) -> String {
    let service = service
        .as_ref()
        .map(|(name, tags)| format!(" of {name} [{}]", tags.join(" ")));
    format!("{}{}", check(it), service.unwrap_or_default())
}

fn check(check: &Check) -> String {
    format!(
        "check {} {} {:?} (renewals {}, created {}, modified {})",
        check_key(&check.key()),
        check.status.as_str(),
        check.output,
        check.renewals,
        check.create_index,
        check.modify_index
    )
}

fn instance_key(key: &InstanceKey) -> String {
    format!("{}{}/{}", within(&key.namespace), key.node, key.id)
}

fn check_key(key: &CheckKey) -> String {
    format!("{}{}/{}", within(&key.namespace), key.node, key.id)
}

fn within(namespace: &Namespace) -> String {
    if *namespace == Namespace::default() {
        String::new()
    } else {
        format!("{namespace}/")
    }
}
