//! `?filter=`: boolean expressions over what an answer lists, in Consul's language.
//!
//! ```text
//! Service.Meta["region"] == "eu" and (Service.Port == 80 or "blue" in Service.Tags) and not Checks is empty
//! ```
//!
//! A filter is part of its query, so that a watcher is woken only when what passes the filter has changed. `parse` knows
//! the grammar, `fields` knows what selectors point at; this file checks one against the other and carries it out.

mod fields;
mod parse;

use std::{cmp::Ordering, fmt, sync::Arc};

use regex::{Regex, RegexBuilder};
use smol_str::SmolStr;

pub use self::fields::{Record, Shape};
use self::{
    fields::Field,
    parse::{Match, Operator, Syntax},
};
use crate::limits::{FILTER_BYTES_MAX, FILTER_REGEX_BYTES};

/// Why an expression was refused, in Consul's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Failed to create boolean expression evaluator: {0}")]
pub struct FilterError(pub(super) String);

/// A filter over records of one shape. Filters with the same text over the same shape are equal.
#[derive(Clone)]
pub struct Filter(Arc<Parts>);

struct Parts {
    text: String,
    shape: Shape,
    datacenter: String,
    root: Expression,
}

enum Expression {
    Or(Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Test {
        selector: Vec<SmolStr>,
        test: Test,
        negated: bool,
    },
}

enum Test {
    Text(String),
    Number(i64),
    Bool(bool),
    In(String),
    Empty,
    Matches(Regex),
}

impl Filter {
    /// Reads an expression over records of a shape, which are all in one datacenter.
    ///
    /// # Errors
    /// The expression is longer than [`FILTER_BYTES_MAX`] or nested deeper than
    /// [`FILTER_DEPTH_MAX`](crate::limits::FILTER_DEPTH_MAX), can't be understood, selects something that records of the
    /// shape don't have, or compares it in a way that its type does not know.
    pub fn parse(text: &str, shape: Shape, datacenter: &str) -> Result<Filter, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            let (length, most) = (text.len(), FILTER_BYTES_MAX);
            return Err(FilterError(format!(
                "it is {length} bytes long, and may be at most {most}"
            )));
        }
        let syntax = parse::parse(text)?;
        let regex_bytes = FILTER_REGEX_BYTES / syntax.count(Operator::Matches).max(1);
        let root = check(syntax, shape, regex_bytes)?;
        Ok(Filter(Arc::new(Parts {
            text: text.to_owned(),
            shape,
            datacenter: datacenter.to_owned(),
            root,
        })))
    }

    /// Whether a record passes. A record of another shape than the filter's does not.
    pub fn passes(&self, record: Record<'_>) -> bool {
        self.0.root.holds(record, &self.0.datacenter)
    }

    /// Whether a record passes a filter, if there is one.
    pub fn lets_pass(filter: Option<&Filter>, record: Record<'_>) -> bool {
        filter.is_none_or(|filter| filter.passes(record))
    }
}

impl Expression {
    fn holds(&self, record: Record<'_>, datacenter: &str) -> bool {
        match self {
            Expression::Or(left, right) => left.holds(record, datacenter) || right.holds(record, datacenter),
            Expression::And(left, right) => left.holds(record, datacenter) && right.holds(record, datacenter),
            Expression::Not(inner) => !inner.holds(record, datacenter),
            Expression::Test {
                selector,
                test,
                negated,
            } => match fields::field(record, selector, datacenter) {
                // Of several it is enough that it holds for one, also if it is a negation.
                Some(Field::Each(instance, checks)) => checks.iter().any(|check| {
                    let service = (&instance.service, instance.tags.as_slice());
                    let record = Record::Check(check, check.instance.as_ref().map(|_| service));
                    fields::field(record, &selector[1..], datacenter)
                        .is_some_and(|field| test.holds(&field) != *negated)
                }),
                Some(field) => test.holds(&field) != *negated,
                None => false,
            },
        }
    }
}

impl Test {
    fn holds(&self, field: &Field<'_>) -> bool {
        match (self, field) {
            (Test::Text(value), Field::Text(text)) => value == text,
            (Test::Number(value), Field::Number(number)) => number == value,
            (Test::Bool(value), Field::Bool(yes)) => yes == value,
            (Test::In(value), Field::Text(text)) => text.contains(value.as_str()),
            (Test::In(value), Field::Texts(texts)) => texts.contains(value),
            (Test::In(value), Field::Keys(map)) => map.contains(value),
            (Test::Empty, Field::Texts(texts)) => texts.is_empty(),
            (Test::Empty, Field::Keys(map)) => map.is_empty(),
            (Test::Empty, Field::Count(count)) => *count == 0,
            // A key that a map does not have is empty, and nothing else.
            (Test::Empty, Field::Absent) => true,
            (Test::Matches(regex), Field::Text(text)) => regex.is_match(text),
            _ => false,
        }
    }
}

/// Checks selectors and values against the shape; each regular expression may have so much memory.
fn check(syntax: Syntax, shape: Shape, regex_bytes: usize) -> Result<Expression, FilterError> {
    let check = |syntax: Box<Syntax>| Ok(Box::new(check(*syntax, shape, regex_bytes)?));
    let both = |left: Box<Syntax>, right: Box<Syntax>| Ok((check(left)?, check(right)?));
    Ok(match syntax {
        Syntax::Or(left, right) => {
            let (left, right) = both(left, right)?;
            Expression::Or(left, right)
        }
        Syntax::And(left, right) => {
            let (left, right) = both(left, right)?;
            Expression::And(left, right)
        }
        Syntax::Not(inner) => Expression::Not(check(inner)?),
        Syntax::Match(comparison) => {
            let test = test(&comparison, shape, regex_bytes)?;
            Expression::Test {
                selector: comparison.selector,
                test,
                negated: comparison.negated,
            }
        }
    })
}

/// What a comparison asks of the field that its selector points at.
fn test(comparison: &Match, shape: Shape, regex_bytes: usize) -> Result<Test, FilterError> {
    let selector = comparison.selector.join(".");
    let Some(sample) = fields::sample(shape, &comparison.selector) else {
        return Err(FilterError(format!("Selector {selector:?} is not valid")));
    };
    let value = &comparison.value;
    let mismatch = || {
        let operator = comparison.operator_name();
        FilterError(format!(
            "Invalid match operator {operator:?} for selector {selector:?}"
        ))
    };
    let unsuited = |kind: &str| {
        FilterError(format!(
            "Failed to coerce value {value:?} of selector {selector:?} to {kind}"
        ))
    };
    match (comparison.operator, sample) {
        (Operator::Equal, Field::Text(_) | Field::Absent) => Ok(Test::Text(value.clone())),
        (Operator::Equal, Field::Number(_)) => whole_number(value)
            .map(Test::Number)
            .ok_or_else(|| unsuited("a number")),
        (Operator::Equal, Field::Bool(_)) => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Test::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Test::Bool(false)),
            _ => Err(unsuited("a boolean")),
        },
        (Operator::In, Field::Text(_) | Field::Texts(_) | Field::Keys(_) | Field::Absent) => {
            Ok(Test::In(value.clone()))
        }
        (Operator::Empty, Field::Texts(_) | Field::Keys(_) | Field::Count(_) | Field::Absent) => {
            Ok(Test::Empty)
        }
        (Operator::Matches, Field::Text(_) | Field::Absent) => RegexBuilder::new(value)
            .size_limit(regex_bytes)
            .dfa_size_limit(regex_bytes)
            .build()
            .map(Test::Matches)
            .map_err(|error| FilterError(one_line(&error))),
        _ => Err(mismatch()),
    }
}

/// A number as Go's literals have it: with a sign, a base before it, and underscores between its digits.
fn whole_number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(_) if lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let has_base = digits.len() < lower.len();
    // Each stands between digits, or behind the base.
    let digits = match digits.strip_prefix('_') {
        Some(rest) if has_base => rest,
        _ => digits,
    };
    let is_number = digits
        .split('_')
        .all(|part| !part.is_empty() && part.chars().all(|digit| digit.is_digit(base)));
    let number = format!("{sign}{}", digits.replace('_', ""));
    is_number
        .then(|| i64::from_str_radix(&number, base).ok())
        .flatten()
}

/// What is wrong with a regular expression, without the picture of it.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!(
        "Failed to compile regular expression: {}",
        last.trim_start_matches("error: ")
    )
}

impl Filter {
    fn identity(&self) -> (&str, Shape, &str) {
        (&self.0.text, self.0.shape, &self.0.datacenter)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Filter {}

impl PartialOrd for Filter {
    fn partial_cmp(&self, other: &Filter) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Filter {
    fn cmp(&self, other: &Filter) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl std::hash::Hash for Filter {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.0.text)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
