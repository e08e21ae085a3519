//! JSON as Docker's own parser takes it, and stricter: no key twice in one object.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value of which no object has a key twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Strict {
    Null,
    Bool(bool),
    /// By its digits, as far as a number of 64 bits tells them apart.
    Number(String),
    Text(String),
    List(Vec<Strict>),
    Object(BTreeMap<String, Strict>),
}

impl Strict {
    /// What a file says, a byte order mark aside; a blank one is an empty object.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        if bytes.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            return Ok(Self::Object(BTreeMap::new()));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Everything but the mirrors, where it is an object.
    pub(crate) fn rest(mut self) -> Option<Self> {
        let Self::Object(object) = &mut self else { return None };
        object.remove("registry-mirrors");
        Some(self)
    }

    /// Whether Sampan has to edit it: an object whose mirrors, if any, are a list of texts, under that one spelling.
    pub(crate) fn is_editable(&self) -> bool {
        let Self::Object(object) = self else { return false };
        let misspelled =
            |key: &String| key != "registry-mirrors" && key.eq_ignore_ascii_case("registry-mirrors");
        let list = match object.get("registry-mirrors") {
            None => true,
            Some(Self::List(list)) => list.iter().all(|entry| matches!(entry, Self::Text(_))),
            Some(Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Object(_)) => false,
        };
        list && !object.keys().any(misspelled)
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Strict, E> {
        Ok(Strict::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict::Number(format!("{value:?}")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Strict::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Strict>()? {
            if object.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key:?} twice")));
            }
        }
        Ok(Strict::Object(object))
    }
}

#[test]
fn the_judge_is_strict() {
    for (text, accepted) in [
        ("{}", true),
        ("{\"a\": {\"b\": [1, 2.5, null]}}", true),
        ("{\"a\": 1, \"a\": 1}", false),
        ("{\"a\": [{\"b\": 1, \"\\u0062\": 2}]}", false),
        ("{\"a\": 1,}", false),
        ("{} {}", false),
        ("{\"a\": 01}", false),
    ] {
        assert_eq!(Strict::read(text.as_bytes()).is_ok(), accepted, "{text}");
    }
}
