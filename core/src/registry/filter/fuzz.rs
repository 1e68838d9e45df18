//! Filters that nobody would write: each is understood as it is meant, or refused in few words, whatever it costs to write.

use std::cell::Cell;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::{tests::world, *};
use crate::registry::{Check, strange};

const SHAPES: [Shape; 5] = [
    Shape::Node,
    Shape::CatalogService,
    Shape::Service,
    Shape::Health,
    Shape::Check,
];

/// An expression over an instance of the world, of which it is known whether it holds.
#[derive(Clone, Debug)]
enum Meant {
    Leaf(&'static str, bool),
    Not(Box<Meant>),
    And(Vec<Meant>),
    Or(Vec<Meant>),
}

impl Meant {
    fn holds(&self) -> bool {
        match self {
            Meant::Leaf(_, holds) => *holds,
            Meant::Not(inner) => !inner.holds(),
            Meant::And(parts) => parts.iter().all(Meant::holds),
            Meant::Or(parts) => parts.iter().any(Meant::holds),
        }
    }

    /// As it is written, in parentheses where it stands within what binds more.
    fn write(&self, binding: u8, space: &str) -> String {
        let join = |parts: &[Meant], word: &str, own: u8| {
            let parts: Vec<String> = parts.iter().map(|part| part.write(own + 1, space)).collect();
            (parts.join(&format!("{space}{word}{space}")), own)
        };
        let (text, own) = match self {
            Meant::Leaf(text, _) => ((*text).to_owned(), 3),
            Meant::Not(inner) => (format!("not{space}{}", inner.write(3, space)), 2),
            Meant::And(parts) => join(parts, "and", 1),
            Meant::Or(parts) => join(parts, "or", 0),
        };
        match own < binding {
            true => format!("({text})"),
            false => text,
        }
    }
}

const LEAVES: [(&str, bool); 16] = [
    ("Service == web", true),
    ("Service != \"web\"", false),
    ("Port==80", true),
    ("Port != 80", false),
    ("blue in Tags", true),
    ("\"red\" in Tags", false),
    ("Tags not contains v1", false),
    ("Tags is empty", false),
    ("Meta is not empty", true),
    ("Meta.env == prod", true),
    ("Meta[`a.b-c`] == odd", true),
    ("env in Meta", true),
    ("ID matches `^web-[0-9]$`", true),
    ("Address not matches \"10\\\\..*\"", false),
    ("EnableTagOverride == true", true),
    ("TaggedAddresses.lan.Port == 8080", true),
];

fn meant() -> impl Strategy<Value = Meant> {
    let leaf = select(&LEAVES[..]).prop_map(|(text, holds)| Meant::Leaf(text, holds));
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Meant::Not(Box::new(inner))),
            vec(inner.clone(), 2..4).prop_map(Meant::And),
            vec(inner, 2..4).prop_map(Meant::Or),
        ]
    })
}

#[test]
fn an_expression_holds_where_its_parts_say_so() {
    let world = world();
    let record = Record::Service(&world.instance);
    let spaces = select(&[" ", "  ", "\t", "\n", " \r\n "][..]);
    strange::check(3_000, (meant(), spaces), |(meant, space)| {
        let text = meant.write(0, space);
        if text.len() > FILTER_BYTES_MAX {
            return;
        }
        let filter =
            Filter::parse(&text, Shape::Service, "dc1").unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.passes(record), meant.holds(), "{text}");
        let negated = format!("not ({text})");
        let negated = Filter::parse(&negated, Shape::Service, "dc1").expect("one level more");
        assert_eq!(negated.passes(record), !meant.holds(), "not ({text})");
    });
}

/// Carries a filter out on a record of its shape.
fn carry_out(filter: &Filter, shape: Shape) -> bool {
    let world = world();
    let checks: Vec<&Check> = world.checks.iter().collect();
    filter.passes(match shape {
        Shape::Node => Record::Node(&world.node),
        Shape::CatalogService => Record::CatalogService(&world.node, &world.instance),
        Shape::Service => Record::Service(&world.instance),
        Shape::Health => Record::Health(&world.node, &world.instance, &checks),
        Shape::Check => Record::Check(checks[1], None),
    })
}

#[test]
fn a_faulty_expression_is_refused_in_few_words_or_carried_out() {
    let pieces = [
        "Service.",
        "Node.",
        "Checks.",
        "Meta",
        "NodeMeta",
        "TaggedAddresses",
        "Tags",
        "Port",
        "Status",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "`",
        "\\",
        " not ",
        " and ",
        " or ",
        " in ",
        " is empty",
        " matches ",
        "==",
        "!=",
        " ",
        "0",
        "-",
        "1.5",
        "\u{0}",
        "é",
        "(?i)",
        "{1000}",
        "*",
        "Service.Tags",
        "ServiceName",
        "a.b.c.d",
    ];
    let faulty = (meant(), strange::faults())
        .prop_map(|(meant, faults)| strange::faulty(meant.write(0, " "), &faults));
    let words = vec(select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat());
    let long = (select(pieces.to_vec()), 0_usize..9_000).prop_map(|(piece, times)| piece.repeat(times));
    let swapped = (meant(), any::<Index>(), select(pieces.to_vec())).prop_map(|(meant, place, piece)| {
        let text = meant.write(0, " ");
        let at = text.floor_char_boundary(place.index(text.len()));
        format!("{}{piece}{}", &text[..at], &text[at..])
    });
    let texts = prop_oneof![4 => faulty, 3 => words, 1 => long, 3 => swapped, 1 => any::<String>()];
    let taken = Cell::new(0);
    strange::check(
        4_000,
        (texts, select(&SHAPES[..])),
        |(text, shape)| match Filter::parse(&text, shape, "dc1") {
            Ok(filter) => {
                taken.set(taken.get() + 1);
                assert!(text.len() <= FILTER_BYTES_MAX);
                carry_out(&filter, shape);
                assert_eq!(
                    Filter::parse(&text, shape, "dc1"),
                    Ok(filter),
                    "the same when it is read again"
                );
            }
            Err(error) => assert!(error.to_string().len() < 2 * FILTER_BYTES_MAX + 1_024, "{error}"),
        },
    );
    assert!(taken.get() > 200, "{} taken", taken.get());
}

#[test]
fn expressions_as_long_as_may_be_are_carried_out_or_refused() {
    let up_to_the_limit = |part: &str, end: &str| {
        let times = (FILTER_BYTES_MAX - end.len()) / part.len();
        format!("{}{end}", part.repeat(times))
    };
    let passes = |text: &str| {
        Filter::parse(text, Shape::Service, "dc1").map(|filter| carry_out(&filter, Shape::Service))
    };
    for (part, end, expected) in [
        ("Port==1 or ", "Port==80", Some(true)),
        ("Port==80 and ", "Port==1", Some(false)),
        ("Port==80 and Port==1 or ", "Port==80", Some(true)),
        ("not ", "Port==80", None),
        ("not Port==80 or ", "Port==80", Some(true)),
        ("(", "", None),
        ("(Port==1 or ", "", None),
        ("((((Port==1)))) or ", "Port==80", Some(true)),
        ("Meta.", "a", None),
        ("Meta[", "", None),
        ("Port==", "", None),
        ("Service==\\", "", None),
        ("\"", "", None),
        ("\\\"", "", None),
        ("a in Tags or ", "blue in Tags", Some(true)),
    ] {
        let text = up_to_the_limit(part, end);
        let held = passes(&text);
        if let Some(expected) = expected {
            assert_eq!(held, Ok(expected), "{part}");
        }
        let one_more = text + &" ".repeat(FILTER_BYTES_MAX);
        assert!(passes(&one_more).is_err(), "{part}");
    }
}

#[test]
fn regular_expressions_share_what_memory_one_may_have() {
    let filter = |pattern: &str, times: usize| {
        let part = format!("ID matches `{pattern}`");
        Filter::parse(&vec![part; times].join(" or "), Shape::Service, "dc1")
    };
    // Each of these takes more than a tenth of it.
    assert!(filter("\\pL{20}", 1).is_ok());
    assert!(filter("\\pL{20}", 10).is_err());
    assert!(filter("\\pL{2000}", 1).is_err());
    assert!(filter("((a{100}){100}){100}", 1).is_err());
    // And many small ones have room.
    assert!(filter("^web-[0-9]+$", 100).is_ok());
}
