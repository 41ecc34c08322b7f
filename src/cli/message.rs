//! Messages on stdout: payload lines, JSON Lines, YAML documents, or a format.
//!
//! Messages gather in a buffer that is written when it is large or when nothing
//! more is waiting, so that a fast reader costs few calls and a slow topic shows
//! each message at once. Writing may block on the reader of a pipe, so it is
//! declared as blocking to the runtime.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::cli::fail::{Failure, Result};
use crate::cli::output::Format;
use crate::cli::values::{Piece, Template};
use crate::protocol::batch::Header;
use crate::time::Timestamp;
use crate::types::{Offset, TopicName};

/// Buffered output is written when it has grown to this size, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// A message to be printed.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a TopicName,
    /// Its offset.
    pub offset: Offset,
    /// The publisher's time.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [Header],
    /// Its payload.
    pub payload: &'a [u8],
    /// The how many-eth time a member of a group got it.
    pub delivery: Option<u32>,
    /// When its time to live is over, where that is known.
    pub expires: Option<Timestamp>,
}

/// How messages look.
#[derive(Debug, Clone)]
enum Style {
    Payload,
    Json,
    Yaml,
    Template(Template),
}

/// Prints messages.
#[derive(Debug)]
pub struct Printer {
    style: Style,
    buffer: Vec<u8>,
}

impl Printer {
    /// One for the given flags, which exclude each other.
    pub fn new(format: Format, template: Option<Template>) -> Result<Self> {
        let style = match (template, format) {
            (None, Format::Table) => Style::Payload,
            (None, Format::Json) => Style::Json,
            (None, Format::Yaml) => Style::Yaml,
            (None, Format::Name) => {
                return Err(Failure::usage(
                    "messages have no names: use '-o json', or a format such as -f '%o%n'",
                ));
            }
            (Some(template), Format::Table) => Style::Template(template),
            (Some(_), _) => {
                return Err(Failure::usage(
                    "-f and -o both say how messages look: give one",
                ));
            }
        };
        Ok(Self {
            style,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Adds a message, and writes if enough has gathered.
    pub fn print(&mut self, message: &Message<'_>) -> Result {
        match &self.style {
            Style::Payload => {
                self.buffer.extend_from_slice(message.payload);
                self.buffer.push(b'\n');
            }
            Style::Json => {
                serde_json::to_writer(&mut self.buffer, message).expect("a vector takes it");
                self.buffer.push(b'\n');
            }
            Style::Yaml => {
                self.buffer.extend_from_slice(b"---\n");
                serde_yaml_ng::to_writer(&mut self.buffer, message).expect("a vector takes it");
            }
            Style::Template(template) => render(template, message, &mut self.buffer),
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what has gathered.
    pub fn flush(&mut self) -> Result {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = tokio::task::block_in_place(|| {
            let mut out = io::stdout().lock();
            out.write_all(&self.buffer)?;
            out.flush()
        });
        self.buffer.clear();
        written.map_err(|error| Failure::io("stdout", &error))
    }
}

fn render(template: &Template, message: &Message<'_>, out: &mut Vec<u8>) {
    for piece in &template.0 {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Topic => out.extend_from_slice(message.topic.as_str().as_bytes()),
            Piece::Offset => out.extend_from_slice(message.offset.to_string().as_bytes()),
            Piece::Time => out.extend_from_slice(message.timestamp.to_string().as_bytes()),
            Piece::Key => out.extend_from_slice(message.key.unwrap_or_default()),
            Piece::Payload => out.extend_from_slice(message.payload),
            Piece::Headers => {
                for (at, header) in message.headers.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(header.name.as_bytes());
                    out.push(b':');
                    out.extend_from_slice(&header.value);
                }
            }
        }
    }
}

impl Serialize for Message<'_> {
    /// `{"topic","offset","timestamp","key","headers","payload"}`; what is not
    /// UTF-8 stands under the same name with `_base64`. Of a group's message also `"delivery"`, of one
    /// in a dump that does not live for ever `"expires"`.
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("topic", self.topic.as_str())?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp", &format_args!("{}", self.timestamp))?;
        match self.key {
            Some(key) => bytes_entry(&mut map, ("key", "key_base64"), key)?,
            None => map.serialize_entry("key", &None::<()>)?,
        }
        map.serialize_entry("headers", &HeaderMap(self.headers))?;
        bytes_entry(&mut map, ("payload", "payload_base64"), self.payload)?;
        if let Some(delivery) = self.delivery {
            map.serialize_entry("delivery", &delivery)?;
        }
        if let Some(expires) = self.expires {
            map.serialize_entry("expires", &format_args!("{expires}"))?;
        }
        map.end()
    }
}

pub(super) fn bytes_entry<M: SerializeMap>(
    map: &mut M,
    (name, name_base64): (&str, &str),
    bytes: &[u8],
) -> std::result::Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(name, text),
        Err(_) => map.serialize_entry(name_base64, &BASE64.encode(bytes)),
    }
}

/// Headers as an object: name to value, or to all its values where a name comes
/// more than once.
struct HeaderMap<'a>(&'a [Header]);

impl Serialize for HeaderMap<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (at, header) in self.0.iter().enumerate() {
            let of_name = |other: &&Header| other.name == header.name;
            if self.0[..at].iter().any(|other| of_name(&other)) {
                continue;
            }
            let values: Vec<_> = self.0[at..]
                .iter()
                .filter(of_name)
                .map(|header| HeaderValue(&header.value))
                .collect();
            match &values[..] {
                [value] => map.serialize_entry(&header.name, value)?,
                values => map.serialize_entry(&header.name, values)?,
            }
        }
        map.end()
    }
}

/// A header's value: text, or `{"base64": …}` where it is none.
struct HeaderValue<'a>(&'a [u8]);

impl Serialize for HeaderValue<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(self.0))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cli::values;

    fn header(name: &str, value: &'static [u8]) -> Header {
        Header {
            name: name.to_owned(),
            value: Bytes::from_static(value),
        }
    }

    fn printed(style: &Style, message: &Message<'_>) -> String {
        let mut printer = Printer {
            style: style.clone(),
            buffer: Vec::new(),
        };
        printer.print(message).expect("it stays in the buffer");
        String::from_utf8_lossy(&printer.buffer).into_owned()
    }

    #[test]
    fn messages_look_as_promised() {
        let topic = "quakes.ci".parse().expect("good");
        let headers = [header("a", b"1"), header("b", b"2"), header("a", b"3")];
        let message = Message {
            topic: &topic,
            offset: Offset::new(7),
            timestamp: Timestamp::from_millis(1_517_363_399_650),
            key: Some(b"k"),
            headers: &headers,
            payload: "ü\"".as_bytes(),
            delivery: None,
            expires: None,
        };
        assert_eq!(printed(&Style::Payload, &message), "ü\"\n");
        assert_eq!(
            printed(&Style::Json, &message),
            "{\"topic\":\"quakes.ci\",\"offset\":7,\"timestamp\":\"2018-01-31T01:49:59.650Z\",\
             \"key\":\"k\",\"headers\":{\"a\":[\"1\",\"3\"],\"b\":\"2\"},\"payload\":\"ü\\\"\"}\n"
        );
        let again = Message {
            delivery: Some(2),
            expires: None,
            ..message
        };
        assert!(printed(&Style::Json, &again).ends_with("\"payload\":\"ü\\\"\",\"delivery\":2}\n"));
        let template = values::template("%t %o %T %k %h %p%n").expect("good");
        assert_eq!(
            printed(&Style::Template(template), &message),
            "quakes.ci 7 2018-01-31T01:49:59.650Z k a:1,b:2,a:3 ü\"\n"
        );
        let binary = Message {
            key: None,
            headers: &[header("x", &[0xff])],
            payload: &[0xff, 0x00],
            ..message
        };
        let line = printed(&Style::Json, &binary);
        assert!(
            line.ends_with(
                "\"key\":null,\"headers\":{\"x\":{\"base64\":\"/w==\"}},\"payload_base64\":\"/wA=\"}\n"
            ),
            "{line}"
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let template = || values::template("%p").ok();
        assert!(Printer::new(Format::Table, template()).is_ok());
        assert_eq!(
            Printer::new(Format::Json, template())
                .map_err(|f| f.status)
                .err(),
            Some(2)
        );
        assert_eq!(
            Printer::new(Format::Name, None).map_err(|f| f.status).err(),
            Some(2)
        );
    }
}
