//! What becomes of a payload that `pub` read: a message with key, headers and perhaps an id.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Publish;
use crate::cli::fail::{Failure, Result};
use crate::cli::values::When;
use crate::client::{Header, Message, TimeToLive};
use crate::time::Timestamp;

/// Where a message has its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdPlace {
    /// The whole payload is the id.
    Payload,
    /// The key.
    Key,
    /// The header of that name.
    Header(String),
    /// A field of the payload, which is a JSON object; parts of it between dots.
    Json(String),
}

/// Parses `payload`, `key`, `header:NAME`, `json:FIELD`.
pub fn id_place(text: &str) -> std::result::Result<IdPlace, String> {
    match (text, text.split_once(':')) {
        ("payload", _) => Ok(IdPlace::Payload),
        ("key", _) => Ok(IdPlace::Key),
        (_, Some(("header", name))) if !name.is_empty() => Ok(IdPlace::Header(name.to_owned())),
        (_, Some(("json", field))) if !field.is_empty() => Ok(IdPlace::Json(field.to_owned())),
        _ => Err("expected payload, key, header:NAME or json:FIELD such as json:id".to_owned()),
    }
}

/// Where a message has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// A field of the payload, which is a JSON object; parts of it between dots.
    Json(String),
    /// In front of the payload, and this between them.
    Before(String),
}

/// Parses `json:FIELD`, `before:TEXT`; in the text `\t` is a tabulator.
pub fn key_place(text: &str) -> std::result::Result<KeyPlace, String> {
    match text.split_once(':') {
        Some(("json", field)) if !field.is_empty() => Ok(KeyPlace::Json(field.to_owned())),
        Some(("before", between)) if !between.is_empty() => {
            Ok(KeyPlace::Before(between.replace("\\t", "\t")))
        }
        _ => Err("expected json:FIELD such as json:id, or before:TEXT such as before:=".to_owned()),
    }
}

/// What messages have beside their payload.
#[derive(Debug)]
pub(super) struct Recipe {
    key: Option<Bytes>,
    key_from: Option<KeyPlace>,
    headers: Vec<Header>,
    /// Of the one message there is.
    id: Option<Bytes>,
    id_from: Option<IdPlace>,
    deliver_at: Option<When>,
    /// When the last message is to be delivered, in milliseconds since 1970.
    last_due: AtomicI64,
    ttl: Option<TimeToLive>,
}

impl Recipe {
    pub fn new(args: &Publish) -> Result<Self> {
        let is_one = args.whole || args.messages.len() == 1;
        if args.id.is_some() && !is_one {
            return Err(Failure::usage(
                "--id is for one message, given as an argument or with --whole; --id-from finds the id of each",
            ));
        }
        let recipe = Self {
            key: args.key.clone().map(Bytes::from),
            key_from: args.key_from.clone(),
            headers: args.headers.iter().map(header).collect(),
            id: args.id.clone().map(Bytes::from),
            id_from: args.id_from.clone(),
            deliver_at: args.deliver_at,
            last_due: AtomicI64::new(0),
            ttl: args.ttl,
        };
        match &recipe.id_from {
            Some(IdPlace::Key) if recipe.key.is_none() && recipe.key_from.is_none() => Err(
                Failure::usage("--id-from key wants a key: -k KEY or --key-from PLACE"),
            ),
            Some(IdPlace::Header(name)) if recipe.header_value(name).is_none() => {
                let text = format!("--id-from header:{name} wants that header: -H {name}:VALUE");
                Err(Failure::usage(text))
            }
            _ => Ok(recipe),
        }
    }

    /// The message of a payload, before which there were so many others.
    pub fn message(&self, payload: Bytes, before: u64) -> Result<Message> {
        let (key, payload) = self.keyed(payload, before)?;
        let id = match &self.id_from {
            None => self.id.clone(),
            Some(place) => Some(self.id_at(place, (&key, &payload)).ok_or_else(|| {
                Failure::usage(format!(
                    "message {} has no id where --id-from says: expected {}",
                    before + 1,
                    expected(place)
                ))
            })?),
        };
        let message = Message {
            key,
            headers: self.headers.clone(),
            id: id.map(|id| id.as_ref().into()),
            ttl: self.ttl,
            ..Message::new(payload)
        };
        let at = match self.deliver_at {
            None => return Ok(message),
            Some(When::At(at)) => at,
            Some(When::After(delay)) => Timestamp::now().after(delay),
        };
        self.last_due.store(at.as_millis(), Ordering::Relaxed);
        Ok(message.due_at(at))
    }

    /// When the last message is to be delivered, if not at once.
    pub fn last_due(&self) -> Option<Timestamp> {
        self.deliver_at?;
        Some(Timestamp::from_millis(
            self.last_due.load(Ordering::Relaxed),
        ))
    }

    fn header_value(&self, name: &str) -> Option<Bytes> {
        let found = self.headers.iter().find(|header| header.name == name);
        found.map(|header| header.value.clone())
    }

    /// The key of a payload, and what is left of it.
    fn keyed(&self, payload: Bytes, before: u64) -> Result<(Option<Bytes>, Bytes)> {
        let Some(place) = &self.key_from else {
            return Ok((self.key.clone(), payload));
        };
        let found = match place {
            KeyPlace::Json(field) => json_field(&payload, field).map(|key| (key, payload)),
            KeyPlace::Before(between) => cut(&payload, between.as_bytes()),
        };
        let found = found.filter(|(key, _)| !key.is_empty());
        let (key, payload) = found.ok_or_else(|| {
            let (number, expected) = (before + 1, expected_key(place));
            let text =
                format!("message {number} has no key where --key-from says: expected {expected}");
            Failure::usage(text)
        })?;
        Ok((Some(key), payload))
    }

    fn id_at(&self, place: &IdPlace, (key, payload): (&Option<Bytes>, &Bytes)) -> Option<Bytes> {
        let id = match place {
            IdPlace::Payload => payload.clone(),
            IdPlace::Key => key.clone()?,
            IdPlace::Header(name) => self.header_value(name)?,
            IdPlace::Json(field) => json_field(payload, field)?,
        };
        (!id.is_empty()).then_some(id)
    }
}

/// A text as it is, a number as it is written: as a number of the program it might be another's as well.
fn json_field(payload: &[u8], field: &str) -> Option<Bytes> {
    let mut found: &RawValue = serde_json::from_slice(payload).ok()?;
    for part in field.split('.') {
        let object: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(found.get()).ok()?;
        found = object.get(part)?;
    }
    let text = found.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(text).ok().map(Bytes::from),
        b'-' | b'0'..=b'9' => Some(Bytes::copy_from_slice(text.as_bytes())),
        _ => None,
    }
}

/// What lies before the first `between`, and what behind it.
fn cut(payload: &Bytes, between: &[u8]) -> Option<(Bytes, Bytes)> {
    let at = payload
        .windows(between.len())
        .position(|window| window == between)?;
    Some((payload.slice(..at), payload.slice(at + between.len()..)))
}

fn expected_key(place: &KeyPlace) -> String {
    match place {
        KeyPlace::Json(field) => expected(&IdPlace::Json(field.clone())),
        KeyPlace::Before(between) => format!("a key, {between:?} and the payload"),
    }
}

fn expected(place: &IdPlace) -> String {
    match place {
        IdPlace::Payload => "a payload that is not empty".to_owned(),
        IdPlace::Key => "a key that is not empty".to_owned(),
        IdPlace::Header(name) => format!("a header {name} that is not empty"),
        IdPlace::Json(field) => {
            format!("a JSON object with a text or a number in {field}")
        }
    }
}

fn header((name, value): &(String, String)) -> Header {
    Header {
        name: name.clone(),
        value: Bytes::from(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_are_said_to_be() {
        let before = |text: &str| KeyPlace::Before(text.to_owned());
        assert_eq!(key_place("before:="), Ok(before("=")));
        assert_eq!(key_place("before::"), Ok(before(":")));
        assert_eq!(key_place("before:\\t"), Ok(before("\t")));
        assert_eq!(key_place("json:a.b"), Ok(KeyPlace::Json("a.b".to_owned())));
        for bad in ["", "key", "json", "json:", "before", "before:", "header:a"] {
            assert!(key_place(bad).is_err(), "{bad}");
        }
        let parts = |payload: &'static str, between: &str| {
            let found = cut(&Bytes::from_static(payload.as_bytes()), between.as_bytes());
            found.map(|(key, rest)| (key.to_vec(), rest.to_vec()))
        };
        let both = |key: &str, rest: &str| Some((key.into(), rest.into()));
        assert_eq!(parts("rye=1=2", "="), both("rye", "1=2"));
        assert_eq!(parts("rye: 1", ": "), both("rye", "1"));
        assert_eq!(parts("rye=", "="), both("rye", ""));
        assert_eq!(parts("=1", "="), both("", "1"));
        assert_eq!(parts("rye", "="), None);
        assert_eq!(parts("", "="), None);
    }

    #[test]
    fn ids_are_found_where_they_are_said_to_be() {
        for good in ["payload", "key", "header:order", "json:id", "json:order.id"] {
            assert!(id_place(good).is_ok(), "{good}");
        }
        for bad in ["", "header", "header:", "json:", "line", "Json:id"] {
            assert!(id_place(bad).is_err(), "{bad}");
        }
        let field = |payload: &str, field: &str| json_field(payload.as_bytes(), field);
        assert_eq!(field(r#"{"id":"a1"}"#, "id"), Some("a1".into()));
        assert_eq!(
            field(r#"{"order":{"id":17}}"#, "order.id"),
            Some("17".into())
        );
        for (payload, name) in [
            ("no json", "id"),
            (r#"{"id":null}"#, "id"),
            (r#"{"id":{}}"#, "id"),
            (r#"{"other":1}"#, "id"),
            (r#"{"id":1}"#, "id.more"),
        ] {
            assert_eq!(field(payload, name), None, "{payload}");
        }
    }

    /// Numbers of more digits than a computer counts with were rounded, and of two messages with neighbouring ids the
    /// second was taken for a duplicate.
    #[test]
    fn a_number_is_an_id_as_it_is_written() {
        for number in [
            "17",
            "-3",
            "1.50",
            "1e2",
            "340282366920938463463374607431768211455",
            "340282366920938463463374607431768211454",
            "0.1234567890123456789012345",
        ] {
            let payload = format!(r#"{{"other":[1,{{"id":2}}],"order" : {{ "id" : {number} }} }}"#);
            let found = json_field(payload.as_bytes(), "order.id");
            assert_eq!(found, Some(Bytes::from(number)), "{payload}");
        }
        let text = json_field(br#"{"a\u0062":"x\"\u00e9\n"}"#, "ab");
        assert_eq!(text, Some(Bytes::from("x\"\u{e9}\n")));
        for bad in [
            r#"{"id":1} x"#,
            r#"{"id":01}"#,
            r#"[{"id":1}]"#,
            r#"{"id":tru}"#,
        ] {
            assert_eq!(json_field(bad.as_bytes(), "id"), None, "{bad}");
        }
    }
}
