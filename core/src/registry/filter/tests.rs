use std::collections::BTreeMap;

use super::*;
use crate::registry::{
    Check, CheckDefinition, CheckId, CheckStatus, Instance, InstanceId, Namespace, Node, NodeName, Probe,
    ServiceAddress, ServiceName, Weights,
};

pub(super) struct World {
    pub(super) node: Node,
    pub(super) instance: Instance,
    pub(super) checks: Vec<Check>,
}

pub(super) fn world() -> World {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    };
    let node = NodeName::parse("n1").expect("a name");
    let id = InstanceId::parse("web-1").expect("a name");
    let check = |name: &str, instance: Option<&InstanceId>, status| Check {
        namespace: Namespace::default(),
        node: node.clone(),
        id: CheckId::parse(name).expect("a name"),
        name: format!("check {name}"),
        instance: instance.cloned(),
        definition: CheckDefinition {
            probe: Probe::Tcp("localhost:80".to_owned()),
            ..CheckDefinition::default()
        },
        status,
        output: "fine".to_owned(),
        notes: String::new(),
        renewals: 0,
        create_index: 7,
        modify_index: 8,
    };
    let lan = ServiceAddress {
        address: "10.0.0.9".to_owned(),
        port: 8080,
    };
    World {
        checks: vec![
            check("disk", None, CheckStatus::Warning),
            check("web", Some(&id), CheckStatus::Passing),
        ],
        instance: Instance {
            namespace: Namespace::default(),
            node: node.clone(),
            id,
            service: ServiceName::parse("web").expect("a name"),
            address: "10.0.0.1".to_owned(),
            port: 80,
            tags: vec!["v1".to_owned(), "blue".to_owned()],
            meta: text(&[("env", "prod"), ("a.b-c", "odd")]),
            weights: Weights {
                passing: 10,
                warning: 1,
            },
            tagged_addresses: BTreeMap::from([("lan".to_owned(), lan)]),
            enable_tag_override: true,
            create_index: 5,
            modify_index: 6,
            extras: None,
        },
        node: Node {
            name: node,
            id: "uuid".to_owned(),
            address: "10.0.0.7".to_owned(),
            tagged_addresses: text(&[("wan", "1.2.3.4")]),
            meta: text(&[("rack", "r1")]),
            create_index: 1,
            modify_index: 2,
            locality: None,
        },
    }
}

/// Whether the world's record of a shape passes.
fn passes(shape: Shape, text: &str) -> bool {
    let World {
        node,
        instance,
        checks,
    } = &world();
    let all: Vec<&Check> = checks.iter().collect();
    let record = match shape {
        Shape::Node => Record::Node(node),
        Shape::CatalogService => Record::CatalogService(node, instance),
        Shape::Service => Record::Service(instance),
        Shape::Health => Record::Health(node, instance, &all),
        Shape::Check => Record::Check(&checks[1], Some((&instance.service, &instance.tags))),
    };
    match Filter::parse(text, shape, "dc1") {
        Ok(filter) => filter.passes(record),
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn every_operator_on_every_type() {
    for (text, expected) in [
        ("Service == web", true),
        ("Service != web", false),
        ("eb in Service", true),
        ("Service contains x", false),
        ("Service matches `^w.b$`", true),
        ("Service not matches `^w.b$`", false),
        ("Port == 80", true),
        ("Port != 80", false),
        ("Port == 80.0 or Port == 81", false),
        ("EnableTagOverride == true", true),
        ("EnableTagOverride != 1", false),
        ("blue in Tags", true),
        ("Tags not contains blue", false),
        ("Tags is empty", false),
        ("Tags is not empty", true),
        ("env in Meta", true),
        ("Meta contains dev", false),
        ("Meta is not empty", true),
        ("Meta.env == prod", true),
        ("Meta[\"a.b-c\"] == odd", true),
        ("ro in Meta.env", true),
        ("Weights.Passing == 10", true),
        ("lan in TaggedAddresses", true),
        ("TaggedAddresses.lan.Address == `10.0.0.9`", true),
        ("TaggedAddresses.lan.Port == 8080", true),
        ("Namespace == default and Datacenter == dc1", true),
    ] {
        if text.contains("80.0") {
            assert!(Filter::parse(text, Shape::Service, "dc1").is_err());
        } else {
            assert_eq!(passes(Shape::Service, text), expected, "{text}");
        }
    }
}

#[test]
fn what_a_map_does_not_have_is_empty_and_different_from_everything() {
    for (text, expected) in [
        ("Meta.none == x", false),
        ("Meta.none != x", true),
        ("x in Meta.none", false),
        ("x not in Meta.none", true),
        ("Meta.none is empty", true),
        ("Meta.none is not empty", false),
        ("Meta.none matches `.*`", false),
        ("Meta.none not matches `.*`", true),
        ("TaggedAddresses.none.Port == 80", false),
        ("TaggedAddresses.none.Port != 80", true),
    ] {
        assert_eq!(passes(Shape::Service, text), expected, "{text}");
    }
}

#[test]
fn each_shape_has_the_names_of_its_answers() {
    for (shape, text) in [
        (
            Shape::Node,
            "ID == uuid and Node == n1 and Address == `10.0.0.7` and Meta.rack == r1 and ModifyIndex == 2",
        ),
        (
            Shape::CatalogService,
            "Node == n1 and NodeMeta.rack == r1 and Address == `10.0.0.7` and ServiceID == `web-1` and \
             ServiceName == web and v1 in ServiceTags and ServiceMeta.env == prod and ServicePort == 80 and \
             ServiceAddress == `10.0.0.1` and CreateIndex == 5 and ServiceWeights.Warning == 1",
        ),
        (
            Shape::Check,
            "CheckID == web and Status == passing and ServiceName == web and blue in ServiceTags and Type == tcp \
             and Output contains fin and ServiceID == `web-1` and Name matches `^check`",
        ),
        (
            Shape::Health,
            "Node.Node == n1 and Service.ID == `web-1` and Checks is not empty and Service.Meta.env == prod",
        ),
    ] {
        assert!(passes(shape, text), "{text}");
        assert!(!passes(shape, &format!("not ({text})")), "{text}");
    }
}

#[test]
fn of_several_checks_one_is_enough() {
    for (text, expected) in [
        ("Checks.Status == passing", true),
        ("Checks.Status != passing", true),
        ("not Checks.Status == passing", false),
        ("Checks.Status == critical", false),
        ("Checks.ServiceName == web", true),
        ("Checks.ServiceID == ``", true),
        ("Checks is empty", false),
    ] {
        assert_eq!(passes(Shape::Health, text), expected, "{text}");
    }
}

#[test]
fn what_can_not_be_asked_is_refused() {
    let refused = |shape, text: &str| {
        let error = Filter::parse(text, shape, "dc1").expect_err(text).to_string();
        let prefix = "Failed to create boolean expression evaluator: ";
        error
            .strip_prefix(prefix)
            .expect("it says what failed")
            .to_owned()
    };
    for (text, expected) in [
        ("Bogus == 1", "Selector \"Bogus\" is not valid"),
        ("Meta.a.b == 1", "Selector \"Meta.a.b\" is not valid"),
        ("Service.x == 1", "Selector \"Service.x\" is not valid"),
        (
            "Port is empty",
            "Invalid match operator \"Is Empty\" for selector \"Port\"",
        ),
        (
            "Tags == x",
            "Invalid match operator \"Equal\" for selector \"Tags\"",
        ),
        (
            "Port == many",
            "Failed to coerce value \"many\" of selector \"Port\" to a number",
        ),
        (
            "EnableTagOverride == maybe",
            "Failed to coerce value \"maybe\" of selector \"EnableTagOverride\" to a boolean",
        ),
        (
            "Service matches `(`",
            "Failed to compile regular expression: unclosed group",
        ),
    ] {
        assert_eq!(refused(Shape::Service, text), expected, "{text}");
    }
    assert_eq!(
        refused(Shape::Health, "Checks.Bogus == 1"),
        "Selector \"Checks.Bogus\" is not valid"
    );
    let long = format!("Service == `{}`", "x".repeat(FILTER_BYTES_MAX));
    assert!(refused(Shape::Service, &long).ends_with("and may be at most 8192"));
    let costly = "Service matches `(((a{100}){100}){100}){100}`";
    assert!(refused(Shape::Service, costly).contains("size limit"), "{costly}");
}

#[test]
fn equal_texts_over_one_shape_are_one_filter() {
    let parse = |text, shape| Filter::parse(text, shape, "dc1").expect("valid");
    let one = parse("Node == a", Shape::Node);
    assert_eq!(one, parse("Node == a", Shape::Node));
    assert_ne!(one, parse("Node == b", Shape::Node));
    assert_ne!(one, parse("Node == a", Shape::CatalogService));
}

#[test]
fn whatever_is_asked_is_answered_or_refused() {
    const PIECES: [&str; 36] = [
        "Service",
        "Tags",
        "Meta",
        "Meta.env",
        "Port",
        "x",
        "Checks.Status",
        "Node",
        "==",
        "!=",
        "in",
        "not",
        "is",
        "empty",
        "contains",
        "matches",
        "and",
        "or",
        "(",
        ")",
        "[",
        "]",
        "\"",
        "`",
        "\\",
        "0",
        "-1",
        "1.5",
        ".",
        "é",
        "\n",
        "\"a b\"",
        "`^w`",
        "EnableTagOverride",
        "true",
        "",
    ];
    let (mut state, mut understood) = (7_u64, 0);
    let mut below = |bound: usize| {
        // Knuth's generator: chance enough, and the same each time.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % bound
    };
    for _ in 0..60_000 {
        let pieces: Vec<&str> = (0..below(9)).map(|_| PIECES[below(PIECES.len())]).collect();
        let text = pieces.join(if below(5) == 0 { "" } else { " " });
        for shape in [
            Shape::Node,
            Shape::CatalogService,
            Shape::Service,
            Shape::Health,
            Shape::Check,
        ] {
            if Filter::parse(&text, shape, "dc1").is_ok() {
                passes(shape, &text);
                understood += 1;
            }
        }
    }
    assert!(understood > 100, "{understood} of them mean something");
}

#[test]
fn numbers_are_written_as_in_go() {
    for (text, number) in [
        ("80", Some(80)),
        ("0", Some(0)),
        ("+7", Some(7)),
        ("0x51", Some(81)),
        ("-0X_1f", Some(-31)),
        ("0b11", Some(3)),
        ("0o17", Some(15)),
        ("017", Some(15)),
        ("1_000", Some(1_000)),
        ("", None),
        ("-", None),
        ("--1", None),
        ("08", None),
        ("0x", None),
        ("_1", None),
        ("1__0", None),
        ("1_", None),
        ("0é", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(whole_number(text), number, "{text}");
    }
}
