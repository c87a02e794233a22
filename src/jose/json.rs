//! JSON of which there is one reading only: no member twice, no depth without end.
//!
//! RFC 7515 §4 and RFC 7519 §4 let a reader take the last of two members of one name; then two
//! readers of one token may see two subjects.

use std::{cell::Cell, fmt, rc::Rc};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and arrays within each other. Protobuf's readers of a Struct stop at 100 messages, and
/// each of these is three.
const MAX_DEPTH: usize = 16;

/// Reads one JSON object, and nothing after it. The error says what is wrong, in general terms.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let found: Rc<Cell<Option<&'static str>>> = Rc::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let strict = Strict { depth: 0, found: found.clone() };
    let value = strict.deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is no object"),
        // The parser's own words may quote the text.
        Err(_quoted) => Err(found.get().unwrap_or("it is no JSON")),
    }
}

/// Reads one value.
#[derive(Clone)]
struct Strict {
    depth: usize,
    /// Why it stopped.
    found: Rc<Cell<Option<&'static str>>>,
}

// === impl Strict ===

impl Strict {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        match self.depth < MAX_DEPTH {
            true => Ok(Self { depth: self.depth + 1, found: self.found.clone() }),
            false => Err(self.fail("it is nested too deeply")),
        }
    }

    fn fail<E: de::Error>(&self, problem: &'static str) -> E {
        self.found.set(Some(problem));
        E::custom(problem)
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| self.fail("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner: Self = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner.clone())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner: Self = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner.clone())?;
            if object.insert(name, value).is_some() {
                return Err(inner.fail("a member is there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (json, problem) in [
            (r#"{"a":1,"a":1}"#, "a member is there twice"),
            (r#"{"a":1,"\u0061":2}"#, "a member is there twice"),
            (r#"{"x":[{"b":1,"b":2}]}"#, "a member is there twice"),
            (r#"{"a":1}{}"#, "it is no JSON"),
            (r#"{"a":1e999}"#, "it is no JSON"),
            (r#"{"a":1,}"#, "it is no JSON"),
            ("[]", "it is no object"),
            ("1", "it is no object"),
            ("", "it is no JSON"),
            ("\u{feff}{}", "it is no JSON"),
            (&format!("{}{}", r#"{"a":"#.repeat(17), "}".repeat(17)), "it is nested too deeply"),
            (&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)), "it is nested too deeply"),
        ] {
            assert_eq!(object(json.as_bytes()), Err(problem), "{json}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err("it is no JSON"));
    }

    #[test]
    fn the_rest_is_what_serde_json_reads() {
        let deepest = format!("{}1{}", r#"{"a":"#.repeat(16), "}".repeat(16));
        for json in [
            r#"{"a":[1,-1,1.5,"x",null,true,{"b":[]}],"b":{"a":1}}"#,
            r#" { "é\n" : "\ud83d\ude00" , "n":18446744073709551615 } "#,
            &deepest,
        ] {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(Value::Object(object(json.as_bytes()).unwrap()), expected);
        }
    }
}
