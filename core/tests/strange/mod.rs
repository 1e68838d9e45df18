//! What nobody would write: values, and changes of real ones. Several tests feed them to whatever reads input.
//!
//! The inputs are the same in each run. `FUZZ=7 cargo test fuzz` takes others, and twenty times as many.
#![allow(dead_code, reason = "each of the tests that share it uses a part")]

use std::fmt::{self, Debug};

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Map, Value, json};

/// How many times as many inputs there are when somebody asks for others.
const TIMES: u32 = 20;

/// Asserts a property for so many inputs. Of those for which it does not hold, the smallest that is found is shown.
pub(crate) fn check<T: Debug>(cases: u32, inputs: impl Strategy<Value = T>, property: impl Fn(T)) {
    let asked: Option<u64> = std::env::var("FUZZ").ok().and_then(|seed| seed.parse().ok());
    let config = Config {
        cases: asked.map_or(cases, |_| cases * TIMES),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(asked.unwrap_or(1)),
        max_shrink_iters: 4_096,
        ..Config::default()
    };
    let holds = |input| {
        property(input);
        Ok(())
    };
    if let Err(failure) = TestRunner::new(config).run(&inputs, holds) {
        panic!("{failure}");
    }
}

/// Asserts that two long texts are the same, and shows where they are not.
pub(crate) fn assert_same(one: &str, other: &str) {
    let differs = one
        .bytes()
        .zip(other.bytes())
        .position(|(one, other)| one != other);
    let around = |text: &str, at: usize| {
        let (from, to) = (
            text.floor_char_boundary(at.saturating_sub(80)),
            text.floor_char_boundary(at + 80),
        );
        text[from..to].to_owned()
    };
    if let Some(at) = differs {
        panic!("{:?}\nis not\n{:?}", around(one, at), around(other, at));
    }
    assert_eq!(one.len(), other.len());
}

/// A value that is shown as JSON where a property does not hold for it.
#[derive(Clone)]
pub(crate) struct Json(pub(crate) Value);

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string())
    }
}

/// One of these values after up to three changes.
pub(crate) fn changed(of: Vec<Value>) -> impl Strategy<Value = Json> {
    (0..of.len(), changes()).prop_map(move |(which, changes)| Json(change(of[which].clone(), &changes)))
}

/// A text: a word that means something somewhere, or any other.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let words = [
        "",
        " ",
        "a",
        "web",
        "passing",
        "critical",
        "default",
        "off",
        "true",
        "null",
        "0",
        "-1",
        "0s",
        "-5s",
        "1.5h",
        "99999999999999999999h",
        "1e9s",
        "10",
        "127.0.0.1:80",
        ":80",
        "a:0",
        "[::1]:70000",
        "[::1",
        "0.0.0.0",
        "::",
        "http://h:1/x",
        "unix:///x",
        "unix://x",
        "{{ GetPrivateIP }}",
        "${name.full}",
        "provider=aws",
        "../..",
        "/",
        "\u{0}",
        "a\nb",
        "\u{7f}",
        "\u{85}\u{2028}",
        "\u{feff}",
        "é",
        "\u{1f980}",
        "\u{202e}abc",
        "'\"\\`",
        "%00%ff",
        "40e4a748-2192-161a-0510-9bf59fe950b5",
    ];
    prop_oneof![
        8 => select(words.to_vec()).prop_map(str::to_owned),
        2 => "\\PC{0,8}",
        1 => any::<String>(),
        1 => select(&[65_usize, 129, 257, 513, 5_000, 20_000][..]).prop_map(|length| "x".repeat(length)),
        1 => select(&[65_usize, 257, 513][..]).prop_map(|length| "é".repeat(length)),
    ]
}

/// Any JSON value, small and flat more often than not.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let numbers = [
        json!(-1),
        json!(0),
        json!(1),
        json!(65),
        json!(70_000),
        json!(80.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(u32::MAX),
        json!(2_592_000_001_u64),
    ];
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::Bool),
        4 => select(numbers.to_vec()).boxed(),
        1 => any::<i64>().prop_map(|number| json!(number)),
        // Those that are written in few digits.
        1 => any::<i32>().prop_map(|number| json!(f64::from(number) / 8.0)),
        5 => text().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let entries = btree_map(text(), inner.clone(), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::Array),
            entries.prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// One change of a value, at one of its places.
#[derive(Clone, Debug)]
struct Change {
    place: Index,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// Something else is there.
    Put(Value),
    /// It is not there.
    Drop,
    /// It is there under another name.
    Rename(String),
    /// Its name is in upper case.
    Shout,
    /// It is there under two spellings of its name.
    Twice,
    /// It is within so many lists or objects.
    Nest(usize, bool),
    /// A list, object or text is so many times as long.
    Times(usize),
    /// One more key.
    Add(String, Value),
}

/// Up to three changes.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let what = prop_oneof![
        8 => value().prop_map(What::Put),
        3 => Just(What::Drop),
        2 => text().prop_map(What::Rename),
        1 => Just(What::Shout),
        1 => Just(What::Twice),
        1 => (select(&[1_usize, 2, 60, 63, 64, 65, 100, 120, 200][..]), any::<bool>())
            .prop_map(|(levels, list)| What::Nest(levels, list)),
        1 => select(&[2_usize, 17, 65, 70, 1_100][..]).prop_map(What::Times),
        2 => (text(), value()).prop_map(|(key, value)| What::Add(key, value)),
    ];
    let change = (any::<Index>(), what).prop_map(|(place, what)| Change { place, what });
    vec(change, 0..4)
}

/// A value after changes of it.
fn change(mut value: Value, changes: &[Change]) -> Value {
    for change in changes {
        let mut places = Vec::new();
        collect(&value, &mut String::new(), &mut places);
        let place = change.place.get(&places);
        let Some((parent, name)) = place.rsplit_once('/') else {
            // The whole has no name.
            apply(&mut value, &change.what);
            continue;
        };
        let name = name.replace("~1", "/").replace("~0", "~");
        let parent = value.pointer_mut(parent);
        match (parent.expect("it was just there"), &change.what) {
            (Value::Object(fields), What::Drop) => drop(fields.remove(&name)),
            (Value::Object(fields), What::Rename(to)) => rename(fields, &name, to),
            (Value::Object(fields), What::Shout) => rename(fields, &name, &name.to_uppercase()),
            (Value::Object(fields), What::Twice) => {
                let again = fields[&name].clone();
                fields.insert(format!("_{}", name.to_uppercase()), again);
            }
            (Value::Array(items), What::Drop) => drop(items.remove(index(&name))),
            (Value::Array(items), What::Twice) => items.push(items[index(&name)].clone()),
            (Value::Object(fields), what) => apply(&mut fields[&name], what),
            (Value::Array(items), what) => apply(&mut items[index(&name)], what),
            (other, _) => unreachable!("{other} has nothing beneath"),
        }
    }
    value
}

fn index(name: &str) -> usize {
    name.parse().expect("a place in a list")
}

fn rename(fields: &mut Map<String, Value>, from: &str, to: &str) {
    let value = fields.remove(from).expect("it was just there");
    fields.insert(to.to_owned(), value);
}

/// JSON pointers to a value and to all within it.
fn collect(value: &Value, path: &mut String, places: &mut Vec<String>) {
    places.push(path.clone());
    let mut within = |name: &str, value: &Value| {
        let length = path.len();
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect(value, path, places);
        path.truncate(length);
    };
    match value {
        Value::Array(items) => {
            // One place in a long list is as good as another.
            for (position, item) in items.iter().take(8).enumerate() {
                within(&position.to_string(), item);
            }
        }
        Value::Object(fields) => fields
            .iter()
            .take(64)
            .for_each(|(name, field)| within(name, field)),
        _ => {}
    }
}

fn apply(value: &mut Value, what: &What) {
    match (what, value) {
        (What::Put(other), value) => *value = other.clone(),
        (What::Nest(levels, list), value) => {
            for _ in 0..*levels {
                let inner = value.take();
                *value = if *list {
                    json!([inner])
                } else {
                    json!({ "a": inner })
                };
            }
        }
        (What::Times(times), Value::String(text)) if text.len() < 64 => *text = text.repeat(*times),
        (What::Times(times), Value::Array(items)) => {
            let all = items.iter().cycle().take(items.len().min(8) * times);
            *items = all.cloned().collect();
        }
        (What::Times(times), Value::Object(fields)) => {
            let some = fields.values().next().cloned().unwrap_or_default();
            fields.extend((0..*times).map(|number| (format!("k{number}"), some.clone())));
        }
        (What::Add(key, more), Value::Object(fields)) => drop(fields.insert(key.clone(), more.clone())),
        _ => {}
    }
}

/// One fault of a text.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    place: Index,
    what: Wrong,
}

#[derive(Clone, Debug)]
enum Wrong {
    /// It ends there.
    Cut,
    /// Something is between.
    Insert(String),
    /// Something stands for a character.
    Replace(char),
    /// What stands before is there again.
    Again,
}

/// Up to two faults, often none.
pub(crate) fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let marks = [
        "[", "]", "{", "}", "\"", ":", ",", "\\", "\n", "- ", "&a ", "*a", "!!str ", "<<: ", "# ", "'", "=",
        "[[", "|",
    ];
    let what = prop_oneof![
        1 => Just(Wrong::Cut),
        2 => select(marks.to_vec()).prop_map(|mark| Wrong::Insert(mark.to_owned())),
        1 => select(&[70_usize, 130, 3_000, 100_000][..]).prop_map(|levels| Wrong::Insert("[".repeat(levels))),
        1 => text().prop_map(Wrong::Insert),
        2 => any::<char>().prop_map(Wrong::Replace),
        1 => Just(Wrong::Again),
    ];
    let fault = (any::<Index>(), what).prop_map(|(place, what)| Fault { place, what });
    prop_oneof![2 => Just(Vec::new()), 1 => vec(fault, 1..3)]
}

/// A text with faults.
pub(crate) fn faulty(mut text: String, faults: &[Fault]) -> String {
    for fault in faults {
        let at = text.floor_char_boundary(fault.place.index(text.len() + 1));
        match &fault.what {
            Wrong::Cut => text.truncate(at),
            Wrong::Insert(between) => text.insert_str(at, between),
            Wrong::Replace(other) => {
                let next = text[at..].chars().next().map_or(0, char::len_utf8);
                text.replace_range(at..at + next, &other.to_string());
            }
            Wrong::Again => {
                let from = text.floor_char_boundary(at.saturating_sub(20));
                let again = text[from..at].to_owned();
                text.insert_str(at, &again);
            }
        }
    }
    text
}
