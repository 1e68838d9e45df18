//! Answers as text. The namespace `default` is left out of names; every other thing that a command did is there.

use sider_core::registry::{
    Applied, Check, CheckKey, Event, Instance, InstanceKey, KeyValue, ListedCheck, Namespace, Node,
    OperationResult, Reply, Session, Topic, TopicVersion, View,
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
        Ok(Reply::Transacted(results)) => {
            lines.push("transacted".into());
            lines.extend(results.iter().map(|result| format!("gives {}", given(result))));
        }
        Ok(Reply::SessionCreated) => lines.push("session created".into()),
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

fn given(result: &OperationResult) -> String {
    match result {
        OperationResult::Key(found) => key_value(found),
        OperationResult::KeyMeta(found) => format!("{} without its value", key_value(found)),
        OperationResult::Node(found) => node(found),
        OperationResult::Instance(found) => format!("instance {}", instance_key(&found.key())),
        OperationResult::Check(found) => listed_check(found),
    }
}

fn key_value(found: &KeyValue) -> String {
    let session = found
        .session
        .as_ref()
        .map(|session| format!(" held by {session}"));
    format!(
        "key {} {:?} flags {}{} (locked {}, version {}, created {}, modified {})",
        found.key,
        String::from_utf8_lossy(&found.value),
        found.flags,
        session.unwrap_or_default(),
        found.lock_index,
        found.version,
        found.create_index,
        found.modify_index
    )
}

fn session(session: &Session) -> String {
    format!(
        "session {} on {} ttl {:?} delay {:?} {} (renewals {}, created {}, modified {})",
        session.id,
        session.node,
        session.ttl_text,
        session.lock_delay,
        session.behavior.as_str(),
        session.renewals,
        session.create_index,
        session.modify_index
    )
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
        Event::SessionCreated(id) => format!("session {id} created"),
        Event::SessionRenewed(id) => format!("session {id} renewed"),
        Event::SessionDestroyed(id) => format!("session {id} destroyed"),
        Event::LockDelayBegan(key) => format!("lock delay of {key} began"),
        Event::LockDelayEnded(key) => format!("lock delay of {key} ended"),
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
        Topic::Key(key) => format!("key {key}"),
        Topic::KeyPrefix(prefix) => format!("keys with {prefix}"),
        Topic::Session(id) => format!("session {id}"),
        Topic::SessionsOfNode(node) => format!("sessions of node {node}"),
        Topic::Sessions => "sessions".into(),
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
        View::Keys(keys) => lines.extend(keys.iter().map(|found| key_value(found))),
        View::KeyNames(names) => lines.extend(names.iter().map(|name| format!("key {name}"))),
        View::Sessions(sessions) => lines.extend(sessions.iter().map(session)),
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
