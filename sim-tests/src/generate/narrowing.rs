//! Draws what narrows the answers that clients ask for.

use super::{
    Dice,
    work::{NODES, Plan, TAGS},
};
use crate::{
    matching::SHARED_NODE,
    narrowing::{Field, Filter, Narrowing, Pattern, Shape, Test},
    operation::Ask,
};

/// In how many of a hundred cases a question is narrowed, in this world.
pub(super) fn rate(dice: &mut Dice) -> u64 {
    *dice.weighted(&[(3, 0), (4, 12), (2, 35)])
}

impl Plan<'_> {
    /// A question, narrowed in some cases where it can be.
    pub(super) fn perhaps_narrowed(&mut self, ask: Ask) -> Ask {
        match Shape::of(&ask) {
            Some(shape) if self.dice.chance(self.narrowed) => self.narrowed(ask, shape),
            _ => ask,
        }
    }

    fn narrowed(&mut self, ask: Ask, shape: Shape) -> Ask {
        // Who asks about one node does not ask for its meta.
        let by_node = !matches!(ask, Ask::NodeChecks(_) | Ask::NodeServices { .. });
        let with_meta = by_node && self.dice.chance(30);
        let without_filter = with_meta && self.dice.chance(60);
        let rack = *self.dice.pick(&["north", "south"]);
        let by = Narrowing {
            filter: (!without_filter).then(|| self.filter(shape, 2)),
            node_meta: with_meta
                .then(|| ("rack".to_owned(), rack.to_owned()))
                .into_iter()
                .collect(),
            near: (by_node && !with_meta && rack == "south").then(|| NODES[1].to_owned()),
        };
        Ask::Narrowed {
            ask: Box::new(ask),
            by,
        }
    }

    fn filter(&mut self, shape: Shape, depth: u64) -> Filter {
        let inner = |plan: &mut Self| Box::new(plan.filter(shape, depth - 1));
        let kinds = match depth {
            0 => 1,
            _ => 6,
        };
        match self.dice.index(kinds) {
            3 => Filter::And(inner(self), inner(self)),
            4 => Filter::Or(inner(self), inner(self)),
            5 => Filter::Not(inner(self)),
            _ => {
                let field = *self.dice.pick(shape.fields());
                Filter::Test(field, self.test(field))
            }
        }
    }

    fn test(&mut self, field: Field) -> Test {
        match field {
            Field::Tags => {
                let tag = (*self.dice.pick(&TAGS)).to_owned();
                self.one_of([
                    Test::Contains(tag.clone()),
                    Test::In(tag.clone()),
                    Test::NotIn(tag),
                    Test::Empty,
                    Test::NotEmpty,
                ])
            }
            Field::Meta => self.one_of([
                Test::Empty,
                Test::NotEmpty,
                Test::In("version".into()),
                Test::NotIn("version".into()),
            ]),
            Field::Checks => self.one_of([Test::Empty, Test::NotEmpty]),
            Field::Port => {
                let port = self
                    .dice
                    .pick(&[1_000, 1_001, 1_002, 1_003, 2_000, 2_001])
                    .to_string();
                self.one_of([Test::Is(port.clone()), Test::IsNot(port)])
            }
            // Versions go up, so their last digit goes round.
            Field::Version => {
                let digit = self.dice.between(0, 10).to_string();
                self.one_of([
                    Test::Matches(Pattern::Ends(digit.clone())),
                    Test::MatchesNot(Pattern::Ends(digit.clone())),
                    Test::Contains(digit.clone()),
                    Test::IsNot(digit),
                    Test::Empty,
                    Test::NotEmpty,
                ])
            }
            Field::Rack => {
                let rack = "north".to_owned();
                self.one_of([
                    Test::Is(rack.clone()),
                    Test::IsNot(rack.clone()),
                    Test::Matches(Pattern::Begins("no".into())),
                    Test::NotIn(rack),
                    Test::Empty,
                    Test::NotEmpty,
                ])
            }
            Field::Instance => self.test_of_text(&["web-0", "web-1", "db-0", "host-a-db"], "web-", "-db"),
            Field::Service => self.test_of_text(&["web", "db"], "w", "b"),
            Field::Node => self.test_of_text(&[SHARED_NODE, NODES[0], NODES[1]], "host-", "a"),
            Field::Address => self.test_of_text(&["127.0.0.1", "10.1.1.1", "10.1.1.2"], "10.", ".1"),
            Field::Status => self.test_of_text(&["passing", "warning", "critical"], "pass", "ing"),
            Field::Check => self.test_of_text(&["chk:web-0:0", "ping", "db-check"], "chk:web", ":0"),
        }
    }

    fn test_of_text(&mut self, values: &[&str], begins: &str, ends: &str) -> Test {
        let value = (*self.dice.pick(values)).to_owned();
        let other = (*self.dice.pick(values)).to_owned();
        self.one_of([
            Test::Is(value.clone()),
            Test::IsNot(value.clone()),
            Test::In(begins.to_owned()),
            Test::NotIn(ends.to_owned()),
            Test::Matches(Pattern::Begins(begins.to_owned())),
            Test::MatchesNot(Pattern::Ends(ends.to_owned())),
            Test::Matches(Pattern::Either(value, other)),
        ])
    }

    fn one_of<const N: usize>(&mut self, tests: [Test; N]) -> Test {
        self.dice.pick(&tests).clone()
    }
}
