//! Parses filter expressions: the grammar of Consul's `?filter=`, and its errors to the letter.
//!
//! It is a parsing expression grammar: alternatives are tried in their order, and what is reported is what would have
//! been taken at the farthest place that any of them came to.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::FilterError;
use crate::limits::FILTER_DEPTH_MAX;

/// A parsed expression; its selectors are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Or(Box<Syntax>, Box<Syntax>),
    And(Box<Syntax>, Box<Syntax>),
    Not(Box<Syntax>),
    Match(Match),
}

/// A comparison of what a selector points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub selector: Vec<SmolStr>,
    pub operator: Operator,
    pub negated: bool,
    /// Empty for `is empty`.
    pub value: String,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    /// `value in selector`, which is `selector contains value`.
    In,
    Empty,
    Matches,
}

impl Syntax {
    /// How many comparisons are by this operator.
    pub(super) fn count(&self, operator: Operator) -> usize {
        match self {
            Syntax::Or(left, right) | Syntax::And(left, right) => {
                left.count(operator) + right.count(operator)
            }
            Syntax::Not(inner) => inner.count(operator),
            Syntax::Match(comparison) => usize::from(comparison.operator == operator),
        }
    }
}

impl Match {
    /// The operator as it is called in errors.
    pub(super) fn operator_name(&self) -> &'static str {
        match (self.operator, self.negated) {
            (Operator::Equal, false) => "Equal",
            (Operator::Equal, true) => "Not Equal",
            (Operator::In, false) => "In",
            (Operator::In, true) => "Not In",
            (Operator::Empty, false) => "Is Empty",
            (Operator::Empty, true) => "Is Not Empty",
            (Operator::Matches, false) => "Matches",
            (Operator::Matches, true) => "Not Matches",
        }
    }
}

/// Parses an expression.
///
/// # Errors
/// Says where it can't be understood, and what was expected there.
pub(super) fn parse(text: &str) -> Result<Syntax, FilterError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        farthest: 0,
        expected: BTreeSet::new(),
        problem: None,
    };
    match parser.input() {
        Some(syntax) => Ok(syntax),
        None => Err(FilterError(parser.explain())),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Where it is, in bytes.
    at: usize,
    /// Expressions within expressions.
    depth: usize,
    /// The farthest place where something else was expected, and what.
    farthest: usize,
    expected: BTreeSet<&'static str>,
    /// What ends the attempt, whatever else might be tried: where, in which rule, and what.
    problem: Option<(usize, &'static str, &'static str)>,
}

const SPACE: &str = "[ \\t\\r\\n]";

impl Parser<'_> {
    fn input(&mut self) -> Option<Syntax> {
        let whole = |it: &mut Self| {
            it.optional_space();
            let expression = it.or()?;
            it.optional_space();
            it.end().then_some(expression)
        };
        // Parentheses around everything need no space before what follows them: there is nothing.
        self.attempt(whole)
    }

    fn or(&mut self) -> Option<Syntax> {
        if self.depth == FILTER_DEPTH_MAX {
            return self.give_up("grouping", "Nested too deeply");
        }
        self.depth += 1;
        let expression = self.chain("\"or\"", Self::and, |left, right| {
            Syntax::Or(Box::new(left), Box::new(right))
        });
        self.depth -= 1;
        expression
    }

    fn and(&mut self) -> Option<Syntax> {
        self.chain("\"and\"", Self::not, |left, right| {
            Syntax::And(Box::new(left), Box::new(right))
        })
    }

    /// Parts with a word between them.
    fn chain(
        &mut self,
        word: &'static str,
        part: fn(&mut Self) -> Option<Syntax>,
        join: fn(Syntax, Syntax) -> Syntax,
    ) -> Option<Syntax> {
        let mut parts = vec![part(self)?];
        while let Some(next) = self.attempt(|it| {
            (it.space() && it.literal(word) && it.space()).then_some(())?;
            part(it)
        }) {
            parts.push(next);
        }
        if self.problem.is_some() {
            return None;
        }
        parts.into_iter().reduce(join)
    }

    fn not(&mut self) -> Option<Syntax> {
        let mut negations = 0;
        while self
            .attempt(|it| (it.literal("\"not\"") && it.space()).then_some(()))
            .is_some()
        {
            negations += 1;
        }
        let expression = self.grouping()?;
        Some(match negations % 2 {
            0 => expression,
            _ => Syntax::Not(Box::new(expression)),
        })
    }

    fn grouping(&mut self) -> Option<Syntax> {
        let began = self.at;
        if self.literal("\"(\"") {
            self.optional_space();
            if let Some(expression) = self.or() {
                self.optional_space();
                if self.literal("\")\"") {
                    return Some(expression);
                }
                return self.give_up("grouping", "Unmatched parentheses");
            }
            self.at = began;
        }
        self.comparison().map(Syntax::Match)
    }

    fn comparison(&mut self) -> Option<Match> {
        self.attempt(Self::selector_operator_value)
            .or_else(|| self.attempt(Self::selector_is_empty))
            .or_else(|| self.attempt(Self::value_in_selector))
    }

    fn selector_operator_value(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        let (operator, negated) = self
            .sign("\"==\"", (Operator::Equal, false))
            .or_else(|| self.sign("\"!=\"", (Operator::Equal, true)))
            .or_else(|| self.word("\"contains\"", Operator::In))
            .or_else(|| self.word("\"matches\"", Operator::Matches))?;
        let value = self.value()?;
        Some(Match {
            selector,
            operator,
            negated,
            value,
        })
    }

    fn selector_is_empty(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        (self.space() && self.literal("\"is\"") && self.space()).then_some(())?;
        let negated = self
            .attempt(|it| (it.literal("\"not\"") && it.space()).then_some(()))
            .is_some();
        self.literal("\"empty\"").then_some(())?;
        Some(Match {
            selector,
            operator: Operator::Empty,
            negated,
            value: String::new(),
        })
    }

    fn value_in_selector(&mut self) -> Option<Match> {
        let value = self.value()?;
        let (operator, negated) = self.word("\"in\"", Operator::In)?;
        let Some(selector) = self.selector() else {
            return self.give_up("match", "Invalid selector");
        };
        Some(Match {
            selector,
            operator,
            negated,
            value,
        })
    }

    /// An operator that needs no space around it.
    fn sign(&mut self, sign: &'static str, meaning: (Operator, bool)) -> Option<(Operator, bool)> {
        self.attempt(|it| {
            it.optional_space();
            it.literal(sign).then_some(())?;
            it.optional_space();
            Some(meaning)
        })
    }

    /// An operator that is a word, or `not` and that word.
    fn word(&mut self, word: &'static str, operator: Operator) -> Option<(Operator, bool)> {
        self.attempt(|it| (it.space() && it.literal(word) && it.space()).then_some((operator, false)))
            .or_else(|| {
                self.attempt(|it| {
                    let spelled =
                        it.space() && it.literal("\"not\"") && it.space() && it.literal(word) && it.space();
                    spelled.then_some((operator, true))
                })
            })
    }

    fn selector(&mut self) -> Option<Vec<SmolStr>> {
        let mut parts = vec![self.identifier()?];
        loop {
            let dotted = self.attempt(|it| {
                it.literal("\".\"").then_some(())?;
                it.identifier()
            });
            match dotted.or_else(|| self.index()) {
                Some(part) => parts.push(part),
                None if self.problem.is_some() => return None,
                None => return Some(parts),
            }
        }
    }

    fn identifier(&mut self) -> Option<SmolStr> {
        let began = self.at;
        self.one("[a-zA-Z]", |c| c.is_ascii_alphabetic()).then_some(())?;
        while self.one("[a-zA-Z0-9_/]", |c| {
            c.is_ascii_alphanumeric() || c == '_' || c == '/'
        }) {}
        Some(SmolStr::new(&self.text[began..self.at]))
    }

    fn index(&mut self) -> Option<SmolStr> {
        self.literal("\"[\"").then_some(())?;
        self.optional_space();
        let Some(key) = self.string() else {
            return self.give_up("index", "Invalid index");
        };
        self.optional_space();
        if !self.literal("\"]\"") {
            return self.give_up("index", "Unclosed index expression");
        }
        Some(SmolStr::new(key))
    }

    /// A word, a number or a string; all of them are text until they meet what they are compared with.
    fn value(&mut self) -> Option<String> {
        let began = self.at;
        if let Some(parts) = self.selector() {
            return Some(parts.join("."));
        }
        match self.number() {
            Some(()) => Some(self.text[began..self.at].to_owned()),
            None => self.string(),
        }
    }

    fn number(&mut self) -> Option<()> {
        let began = self.at;
        self.literal("\"-\"");
        let digits = |it: &mut Self| while it.one("[0-9]", |c| c.is_ascii_digit()) {};
        if !self.literal("\"0\"") {
            if !self.one("[1-9]", |c| ('1'..='9').contains(&c)) {
                self.at = began;
                return None;
            }
            digits(self);
        }
        self.attempt(|it| {
            (it.literal("\".\"") && it.one("[0-9]", |c| c.is_ascii_digit())).then_some(())?;
            digits(it);
            Some(())
        });
        match self.text[self.at..].chars().next() {
            None | Some(' ' | '\t' | '\r' | '\n' | ')') => Some(()),
            Some(_) => self.give_up("number", "Invalid number literal"),
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = if self.literal("\"`\"") {
            '`'
        } else if self.literal("\"\\\"\"") {
            '"'
        } else {
            return None;
        };
        let rest = &self.text[self.at..];
        let mut escaped = false;
        for (place, c) in rest.char_indices() {
            if c == quote && !escaped {
                self.at += place + 1;
                return match quote {
                    '`' => Some(rest[..place].to_owned()),
                    _ => self.unescaped(&rest[..place]),
                };
            }
            escaped = quote == '"' && c == '\\' && !escaped;
        }
        self.at = self.text.len();
        self.give_up("string", "Unterminated string literal")
    }

    /// What a string between double quotes says.
    fn unescaped(&mut self, quoted: &str) -> Option<String> {
        let mut text = String::with_capacity(quoted.len());
        let mut rest = quoted.chars();
        while let Some(c) = rest.next() {
            text.push(match (c, ()) {
                ('\\', ()) => match rest.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\\' | '/' | '.' | '\'')) => c,
                    _ => return self.give_up("string", "invalid syntax"),
                },
                (c, ()) => c,
            });
        }
        Some(text)
    }

    /// Goes back where it was if it comes to nothing.
    fn attempt<T>(&mut self, part: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.problem.is_some() {
            return None;
        }
        let (began, depth) = (self.at, self.depth);
        let result = part(self);
        if result.is_none() {
            (self.at, self.depth) = (began, depth);
        }
        result
    }

    /// Nothing else is tried.
    fn give_up<T>(&mut self, rule: &'static str, problem: &'static str) -> Option<T> {
        self.problem.get_or_insert((self.at, rule, problem));
        None
    }

    /// Takes a literal, given as it is shown in errors: in quotes.
    fn literal(&mut self, shown: &'static str) -> bool {
        let literal = match shown {
            "\"\\\"\"" => "\"",
            _ => &shown[1..shown.len() - 1],
        };
        let found = self.problem.is_none() && self.text[self.at..].starts_with(literal);
        if found {
            self.at += literal.len();
        } else {
            self.expect(shown);
        }
        found
    }

    /// Takes a character of a class.
    fn one(&mut self, shown: &'static str, class: impl Fn(char) -> bool) -> bool {
        let found = self.text[self.at..].chars().next().filter(|c| class(*c));
        match found {
            Some(c) => self.at += c.len_utf8(),
            None => self.expect(shown),
        }
        found.is_some()
    }

    fn space(&mut self) -> bool {
        let began = self.at;
        while self.one(SPACE, |c| matches!(c, ' ' | '\t' | '\r' | '\n')) {}
        self.at > began
    }

    fn optional_space(&mut self) {
        self.space();
    }

    fn end(&mut self) -> bool {
        let ended = self.at == self.text.len();
        if !ended {
            self.expect("EOF");
        }
        ended
    }

    fn expect(&mut self, shown: &'static str) {
        if self.at > self.farthest {
            self.farthest = self.at;
            self.expected.clear();
        }
        if self.at == self.farthest {
            self.expected.insert(shown);
        }
    }

    fn explain(mut self) -> String {
        if let Some((at, rule, problem)) = self.problem {
            return format!("{}: rule \"{rule}\": {problem}", self.place(at));
        }
        let end = self.expected.remove("EOF").then_some("EOF");
        let mut expected: Vec<&str> = self.expected.iter().copied().collect();
        expected.extend(end);
        let list = match expected.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => expected.concat(),
        };
        format!("{}: no match found, expected: {list}", self.place(self.farthest))
    }

    /// Line, column and offset, as in `1:4 (3)`.
    fn place(&self, at: usize) -> String {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        format!("{line}:{column} ({at})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(selector: &str, operator: Operator, negated: bool, value: &str) -> Syntax {
        Syntax::Match(Match {
            selector: selector.split('.').map(SmolStr::new).collect(),
            operator,
            negated,
            value: value.to_owned(),
        })
    }

    #[test]
    fn comparisons() {
        use Operator::{Empty, Equal, In, Matches};
        for (text, expected) in [
            ("a==b", is("a", Equal, false, "b")),
            (" a.b  !=  \"c d\" ", is("a.b", Equal, true, "c d")),
            ("Meta[\"k\"] == `\\d`", is("Meta.k", Equal, false, "\\d")),
            ("Port == -80", is("Port", Equal, false, "-80")),
            ("Port == 0.5", is("Port", Equal, false, "0.5")),
            ("x in Tags", is("Tags", In, false, "x")),
            ("\"x\" not in Tags", is("Tags", In, true, "x")),
            ("Tags contains x", is("Tags", In, false, "x")),
            ("Tags not contains x", is("Tags", In, true, "x")),
            ("Tags is empty", is("Tags", Empty, false, "")),
            ("Tags is not empty", is("Tags", Empty, true, "")),
            ("a matches \"^\\\\d\"", is("a", Matches, false, "^\\d")),
            ("a not matches b", is("a", Matches, true, "b")),
            ("a == \"say \\\"hi\\\"\"", is("a", Equal, false, "say \"hi\"")),
            ("(a == b)", is("a", Equal, false, "b")),
            ("not not a == b", is("a", Equal, false, "b")),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn and_binds_more_than_or_and_not_more_than_both() {
        let leaf = |name: &str| Box::new(is(name, Operator::Equal, false, "x"));
        let text = "a == x or not b == x and (c == x or d == x)";
        let inner = Syntax::Or(leaf("c"), leaf("d"));
        let and = Syntax::And(Box::new(Syntax::Not(leaf("b"))), Box::new(inner));
        assert_eq!(parse(text), Ok(Syntax::Or(leaf("a"), Box::new(and))));
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        for (text, expected) in [
            (
                "zz zz",
                "1:4 (3): no match found, expected: \"!=\", \"==\", \"contains\", \"in\", \"is\", \"matches\", \
                 \"not\" or [ \\t\\r\\n]",
            ),
            (
                "Foo ==",
                "1:7 (6): no match found, expected: \"-\", \"0\", \"\\\"\", \"`\", [ \\t\\r\\n], [1-9] or [a-zA-Z]",
            ),
            ("(a == b", "1:8 (7): rule \"grouping\": Unmatched parentheses"),
            ("a in \"b\"", "1:6 (5): rule \"match\": Invalid selector"),
            ("a[b] == c", "1:3 (2): rule \"index\": Invalid index"),
            (
                "a == \"b",
                "1:8 (7): rule \"string\": Unterminated string literal",
            ),
            ("a == 5x", "1:7 (6): rule \"number\": Invalid number literal"),
        ] {
            assert_eq!(parse(text), Err(FilterError(expected.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused_and_does_not_overflow_the_stack() {
        let nested = |depth: usize| format!("{}a == b{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(FILTER_DEPTH_MAX - 1)).is_ok());
        assert!(parse(&nested(FILTER_DEPTH_MAX)).is_err());
        assert!(parse(&"(".repeat(4_000)).is_err());
        assert!(parse(&"not ".repeat(1_000)).is_err());
    }
}
