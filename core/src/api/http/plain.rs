//! JSON values all of whose objects are what they look like.
//!
//! `serde_json` reads an object whose first key has a name of its own as the JSON text that this key holds, once any crate of the
//! program switches its `raw_value` on, as axum does. What a client sends would then be something else where it is read again,
//! or nothing that can be read. So that name is refused wherever clients send JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// The name.
const RAW: &str = "$serde_json::private::RawValue";

/// A value without a key of that name.
pub(super) struct Plain(pub(super) Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(Reader).map(Plain)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == RAW {
                return Err(A::Error::custom(format!("{RAW:?} can't be a key")));
            }
            let Plain(value) = entries.next_value()?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        let read = serde_json::from_str(text).map(|Plain(value)| value);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_is_read_as_it_is() {
        for text in [
            r#"null"#,
            r#"[true,-1,18446744073709551615,1.5,"\u0000ä",[],{}]"#,
            r#"{"a":{"b":[{"c":null}]},"d":""}"#,
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for broken in ["", "[1,]", "{\"a\"}", "nul", "[1] 2"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_name_with_a_meaning_is_refused_wherever_it_stands() {
        let name = r"$serde_json::private::\u0052awValue";
        for text in [
            format!(r#"{{"{name}":"1"}}"#),
            format!(r#"[{{"a":{{"b":1,"{name}":"x"}}}}]"#),
        ] {
            let error = read(&text).expect_err("refused");
            assert!(error.contains("can't be a key"), "{error}");
        }
    }
}
