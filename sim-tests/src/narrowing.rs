//! What narrows an answer or orders it: a filter expression, pairs of node meta, and the node that comes first; as values, as
//! they stand in a request, and what they make of an answer, worked out from what a client would see of it without them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    content::{CheckSeen, InstanceSeen, NodeFacts, NodeSeen},
    operation::Ask,
};

/// What narrows an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowing {
    /// `?filter`.
    pub filter: Option<Filter>,
    /// `?node-meta`, repeated: only what is on nodes that have all of these pairs.
    pub node_meta: Vec<(String, String)>,
    /// `?near`, as the agent of this node sends it on: what is on it comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<String>,
}

/// A boolean expression over what an answer lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Filter {
    /// Both hold.
    And(Box<Filter>, Box<Filter>),
    /// One holds, or both.
    Or(Box<Filter>, Box<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A test of one field.
    Test(Field, Test),
}

/// A field, whatever it is called in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Field {
    /// Tags of an instance.
    Tags,
    /// `version` in the meta of an instance; some have none.
    Version,
    /// The meta of an instance.
    Meta,
    /// Port of an instance.
    Port,
    /// Id of an instance.
    Instance,
    /// Name of a service.
    Service,
    /// Name of a node.
    Node,
    /// Address of a node.
    Address,
    /// `rack` in the meta of a node; some have none.
    Rack,
    /// The checks of an instance and its node.
    Checks,
    /// Status of a check; of an instance, that of any of its checks.
    Status,
    /// Id of a check, in the same way.
    Check,
}

/// What is asked of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Test {
    /// `==`
    Is(String),
    /// `!=`
    IsNot(String),
    /// `contains`: an element, a key, a part of a text.
    Contains(String),
    /// The same, written as `in`.
    In(String),
    /// `not in`
    NotIn(String),
    /// `matches`
    Matches(Pattern),
    /// `not matches`
    MatchesNot(Pattern),
    /// `is empty`
    Empty,
    /// `is not empty`
    NotEmpty,
}

/// A regular expression, of a kind that can be carried out without an engine for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pattern {
    /// `^…`
    Begins(String),
    /// `…$`
    Ends(String),
    /// `^(…|…)$`
    Either(String, String),
}

/// What an answer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nodes.
    Node,
    /// Instances with the fields of their nodes among their own.
    Catalog,
    /// Instances alone.
    Service,
    /// Instances with node and checks beside them.
    Health,
    /// Checks.
    Check,
}

/// A field's value, as a client sees it.
enum Value<'a> {
    Text(&'a str),
    Number(u64),
    /// Elements of a list, or keys of a map.
    Several(Vec<&'a str>),
    /// How many there are.
    Count(usize),
    /// The map does not have that key.
    Absent,
}

impl Shape {
    /// What the answer to a question lists; `None` where it can't be narrowed by a filter.
    pub fn of(ask: &Ask) -> Option<Shape> {
        match ask {
            Ask::Health { .. } | Ask::Connect { checks: true, .. } => Some(Shape::Health),
            Ask::CatalogService { .. } | Ask::Connect { .. } | Ask::Services => Some(Shape::Catalog),
            Ask::Nodes => Some(Shape::Node),
            Ask::NodeServices { .. } => Some(Shape::Service),
            Ask::NodeChecks(_) | Ask::ServiceChecks(_) | Ask::ChecksInState(_) => Some(Shape::Check),
            _ => None,
        }
    }

    /// The fields that it has.
    pub fn fields(self) -> &'static [Field] {
        use Field::{
            Address, Check, Checks, Instance, Meta, Node, Port, Rack, Service, Status, Tags, Version,
        };
        match self {
            Shape::Node => &[Node, Address, Rack],
            Shape::Catalog => &[Tags, Version, Meta, Port, Instance, Service, Node, Address, Rack],
            Shape::Service => &[Tags, Version, Meta, Port, Instance, Service],
            Shape::Health => &[
                Tags, Version, Meta, Port, Instance, Service, Node, Address, Rack, Checks, Status, Check,
            ],
            Shape::Check => &[Tags, Instance, Service, Node, Status, Check],
        }
    }

    /// How a field is called in this kind of answer.
    fn selector(self, field: Field) -> &'static str {
        match (self, field) {
            (Shape::Node | Shape::Catalog | Shape::Check, Field::Node) => "Node",
            (Shape::Node | Shape::Catalog, Field::Address) => "Address",
            (Shape::Node, Field::Rack) => "Meta.rack",
            (Shape::Catalog, Field::Rack) => "NodeMeta.rack",
            (Shape::Catalog, Field::Version) => "ServiceMeta.version",
            (Shape::Catalog, Field::Meta) => "ServiceMeta",
            (Shape::Catalog, Field::Port) => "ServicePort",
            (Shape::Catalog | Shape::Check, Field::Tags) => "ServiceTags",
            (Shape::Catalog | Shape::Check, Field::Instance) => "ServiceID",
            (Shape::Catalog | Shape::Check, Field::Service) => "ServiceName",
            (Shape::Service, Field::Tags) => "Tags",
            (Shape::Service, Field::Version) => "Meta.version",
            (Shape::Service, Field::Meta) => "Meta",
            (Shape::Service, Field::Port) => "Port",
            (Shape::Service, Field::Instance) => "ID",
            (Shape::Service, Field::Service) => "Service",
            (Shape::Health, Field::Tags) => "Service.Tags",
            (Shape::Health, Field::Version) => "Service.Meta[\"version\"]",
            (Shape::Health, Field::Meta) => "Service.Meta",
            (Shape::Health, Field::Port) => "Service.Port",
            (Shape::Health, Field::Instance) => "Service.ID",
            (Shape::Health, Field::Service) => "Service.Service",
            (Shape::Health, Field::Node) => "Node.Node",
            (Shape::Health, Field::Address) => "Node.Address",
            (Shape::Health, Field::Rack) => "Node.Meta.rack",
            (Shape::Health, Field::Checks) => "Checks",
            (Shape::Health, Field::Status) => "Checks.Status",
            (Shape::Health, Field::Check) => "Checks.CheckID",
            (Shape::Check, Field::Status) => "Status",
            (Shape::Check, Field::Check) => "CheckID",
            (shape, field) => unreachable!("{shape:?} has no {field:?}"),
        }
    }
}

impl Narrowing {
    /// Whether nothing is left out by it.
    pub fn is_nothing(&self) -> bool {
        self.filter.is_none() && self.node_meta.is_empty()
    }

    /// The parameters of a request.
    pub fn parameters(&self, ask: &Ask) -> Vec<String> {
        let pairs = self.node_meta.iter();
        let mut parameters: Vec<String> = pairs
            .map(|(key, value)| format!("node-meta={key}:{value}"))
            .collect();
        if let (Some(filter), Some(shape)) = (&self.filter, Shape::of(ask)) {
            parameters.push(format!("filter={}", escaped(&filter.written(shape))));
        }
        if self.near.is_some() {
            parameters.push("near=_agent".to_owned());
        }
        parameters
    }

    /// Puts what is on the node that comes first there; all else keeps its order.
    pub fn order<T>(&self, list: &mut [T], node: impl Fn(&T) -> &str) {
        if let Some(near) = &self.near {
            list.sort_by_key(|it| node(it) != near);
        }
    }

    /// Whether what is on this node is kept.
    pub fn keeps_node(&self, facts: &NodeFacts) -> bool {
        self.node_meta
            .iter()
            .all(|(key, value)| facts.meta.iter().any(|pair| pair == (key, value)))
    }

    /// Whether an instance of a list of this shape is kept.
    pub fn keeps_instance(&self, shape: Shape, instance: &InstanceSeen) -> bool {
        self.keeps_node(&instance.node_facts) && self.passes(&|field| of_instance(shape, instance, field))
    }

    /// Whether a node of a list is kept.
    pub fn keeps_listed_node(&self, node: &NodeSeen) -> bool {
        let field = |field| {
            vec![match field {
                Field::Node => Value::Text(&node.name),
                Field::Address => Value::Text(&node.address),
                Field::Rack => key(node.facts.meta.get("rack")),
                other => unreachable!("nodes have no {other:?}"),
            }]
        };
        self.keeps_node(&node.facts) && self.passes(&field)
    }

    /// Whether a check of a list is kept, by its filter.
    pub fn keeps_check(&self, check: &CheckSeen) -> bool {
        self.passes(&|field| vec![of_check(check, field)])
    }

    fn passes<'a>(&self, field: &dyn Fn(Field) -> Vec<Value<'a>>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(field))
    }
}

fn of_instance(shape: Shape, instance: &InstanceSeen, field: Field) -> Vec<Value<'_>> {
    let one = match field {
        // What is asked of them holds if it does for one of them.
        Field::Status | Field::Check => {
            return instance
                .checks
                .iter()
                .map(|check| of_check(check, field))
                .collect();
        }
        Field::Checks => Value::Count(instance.checks.len()),
        Field::Tags => several(&instance.tags),
        Field::Version => key(instance.meta.get("version")),
        Field::Meta => Value::Several(instance.meta.keys().map(String::as_str).collect()),
        Field::Port => Value::Number(instance.port.into()),
        Field::Instance => Value::Text(&instance.id),
        Field::Service => Value::Text(&instance.service),
        Field::Node => Value::Text(&instance.node),
        Field::Address => Value::Text(&instance.node_address),
        Field::Rack => key(instance.node_facts.meta.get("rack")),
    };
    debug_assert!(shape.fields().contains(&field), "{shape:?} has no {field:?}");
    vec![one]
}

fn of_check(check: &CheckSeen, field: Field) -> Value<'_> {
    match field {
        Field::Status => Value::Text(check.status.as_str()),
        Field::Check => Value::Text(&check.id),
        Field::Tags => several(&check.service_tags),
        Field::Instance => Value::Text(&check.instance),
        Field::Service => Value::Text(&check.service),
        Field::Node => Value::Text(&check.node),
        other => unreachable!("checks have no {other:?}"),
    }
}

fn several(texts: &[String]) -> Value<'_> {
    Value::Several(texts.iter().map(String::as_str).collect())
}

fn key(value: Option<&String>) -> Value<'_> {
    value.map_or(Value::Absent, |value| Value::Text(value))
}

impl Filter {
    /// As it is written over answers of a shape.
    pub fn written(&self, shape: Shape) -> String {
        match self {
            Filter::And(one, other) => format!("({} and {})", one.written(shape), other.written(shape)),
            Filter::Or(one, other) => format!("({} or {})", one.written(shape), other.written(shape)),
            Filter::Not(inner) => format!("not ({})", inner.written(shape)),
            Filter::Test(field, test) => {
                let field = shape.selector(*field);
                match test {
                    Test::Is(value) => format!("{field} == {value:?}"),
                    Test::IsNot(value) => format!("{field} != {value:?}"),
                    Test::Contains(value) => format!("{field} contains {value:?}"),
                    Test::In(value) => format!("{value:?} in {field}"),
                    Test::NotIn(value) => format!("{value:?} not in {field}"),
                    Test::Matches(pattern) => format!("{field} matches `{pattern}`"),
                    Test::MatchesNot(pattern) => format!("{field} not matches `{pattern}`"),
                    Test::Empty => format!("{field} is empty"),
                    Test::NotEmpty => format!("{field} is not empty"),
                }
            }
        }
    }

    fn holds<'a>(&self, field: &dyn Fn(Field) -> Vec<Value<'a>>) -> bool {
        match self {
            Filter::And(one, other) => one.holds(field) && other.holds(field),
            Filter::Or(one, other) => one.holds(field) || other.holds(field),
            Filter::Not(inner) => !inner.holds(field),
            Filter::Test(name, test) => field(*name).iter().any(|value| test.holds(value)),
        }
    }

    /// What it tests, and how.
    pub fn tests(&self) -> Vec<(Field, &Test)> {
        match self {
            Filter::And(one, other) | Filter::Or(one, other) => {
                let mut tests = one.tests();
                tests.extend(other.tests());
                tests
            }
            Filter::Not(inner) => inner.tests(),
            Filter::Test(field, test) => vec![(*field, test)],
        }
    }
}

impl Test {
    fn holds(&self, value: &Value<'_>) -> bool {
        match self {
            Test::Is(wanted) => is(value, wanted),
            Test::IsNot(wanted) => !is(value, wanted),
            Test::Contains(part) | Test::In(part) => holds(value, part),
            Test::NotIn(part) => !holds(value, part),
            Test::Matches(pattern) => pattern.fits(value),
            Test::MatchesNot(pattern) => !pattern.fits(value),
            Test::Empty => is_empty(value),
            Test::NotEmpty => !is_empty(value),
        }
    }
}

fn is(value: &Value<'_>, wanted: &str) -> bool {
    match value {
        Value::Text(text) => *text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        _ => false,
    }
}

fn holds(value: &Value<'_>, part: &str) -> bool {
    match value {
        Value::Text(text) => text.contains(part),
        Value::Several(texts) => texts.contains(&part),
        _ => false,
    }
}

fn is_empty(value: &Value<'_>) -> bool {
    match value {
        Value::Several(texts) => texts.is_empty(),
        Value::Count(count) => *count == 0,
        Value::Absent => true,
        _ => false,
    }
}

impl Pattern {
    fn fits(&self, value: &Value<'_>) -> bool {
        let Value::Text(text) = value else { return false };
        match self {
            Pattern::Begins(part) => text.starts_with(part.as_str()),
            Pattern::Ends(part) => text.ends_with(part.as_str()),
            Pattern::Either(one, other) => text == one || text == other,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Begins(part) => write!(f, "^{part}"),
            Pattern::Ends(part) => write!(f, "{part}$"),
            Pattern::Either(one, other) => write!(f, "^({one}|{other})$"),
        }
    }
}

/// A text as it can stand in a query string.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged() -> InstanceSeen {
        InstanceSeen {
            node: "sider".into(),
            node_address: "127.0.0.1".into(),
            node_facts: NodeFacts::default(),
            node_indexes: (0, 0),
            id: "web-1".into(),
            service: "web".into(),
            address: String::new(),
            port: 80,
            weights: (1, 1),
            tags: vec!["blue".into()],
            tag_override: false,
            tagged_addresses: std::collections::BTreeMap::new(),
            meta: [("version".to_owned(), "7".to_owned())].into(),
            extras: serde_json::Map::new(),
            create_index: 2,
            modify_index: 2,
            checks: Vec::new(),
        }
    }

    fn kept(filter: Filter) -> bool {
        let narrowing = Narrowing {
            filter: Some(filter),
            ..Narrowing::default()
        };
        narrowing.keeps_instance(Shape::Health, &tagged())
    }

    fn test(field: Field, test: Test) -> Filter {
        Filter::Test(field, test)
    }

    #[test]
    fn each_test_means_what_it_says() {
        assert!(kept(test(Field::Tags, Test::In("blue".into()))));
        assert!(kept(test(Field::Tags, Test::NotIn("Blue".into()))));
        assert!(kept(test(Field::Port, Test::Is("80".into()))));
        assert!(kept(test(Field::Instance, Test::Contains("b-".into()))));
        assert!(kept(test(
            Field::Instance,
            Test::Matches(Pattern::Begins("web".into()))
        )));
        assert!(!kept(test(
            Field::Instance,
            Test::MatchesNot(Pattern::Ends("1".into()))
        )));
        assert!(kept(test(Field::Checks, Test::Empty)));
        assert!(kept(test(Field::Meta, Test::NotEmpty)));
        // A key that is not there is empty, and is nothing else.
        assert!(kept(test(Field::Rack, Test::Empty)));
        assert!(kept(test(Field::Rack, Test::IsNot("north".into()))));
        // Of no check at all nothing holds, not even that it is not so.
        assert!(!kept(test(Field::Status, Test::IsNot("passing".into()))));
        let both = Filter::And(
            Box::new(test(Field::Port, Test::Is("80".into()))),
            Box::new(Filter::Not(Box::new(test(Field::Tags, Test::Empty)))),
        );
        assert!(kept(both));
    }

    #[test]
    fn it_is_written_as_the_answer_calls_things() {
        let filter = Filter::Or(
            Box::new(test(Field::Version, Test::Is("7".into()))),
            Box::new(test(
                Field::Status,
                Test::Matches(Pattern::Either("passing".into(), "warning".into())),
            )),
        );
        assert_eq!(
            filter.written(Shape::Health),
            "(Service.Meta[\"version\"] == \"7\" or Checks.Status matches `^(passing|warning)$`)"
        );
        assert_eq!(escaped("a b==\"c\""), "a%20b%3D%3D%22c%22");
    }
}
