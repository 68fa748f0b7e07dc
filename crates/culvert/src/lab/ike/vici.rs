//! A client of strongSwan's control protocol, vici: requests with an answer, over a unix socket.
//!
//! A packet is its length in four octets, a type, for some types a name, and a message. A message
//! is a tree of sections, lists and values, each element tagged by an octet (strongSwan, README of
//! libcharon's vici plugin). Every call ends: within the time asked for, or with an error.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

/// Longest packet that is read; strongSwan's own limit.
const PACKET_MAX: usize = 512 * 1024;

/// Packet types.
const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const REQUEST_UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_CONFIRM: u8 = 5;
const EVENT: u8 = 7;

/// Element types.
const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text; octets that are not UTF-8 are replaced.
    Text(String),
    /// Texts.
    List(Vec<String>),
    /// Names again.
    Section(Section),
}

/// Names and what they stand for, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section(pub Vec<(String, Value)>);

impl Section {
    /// A message of names and texts.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Section {
        let value =
            |(name, text): &(&str, &str)| ((*name).to_owned(), Value::Text((*text).to_owned()));
        Section(pairs.iter().map(value).collect())
    }

    /// What a name stands for.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value)
    }

    /// The text of a name; empty when there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The number of a name; 0 when there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// The list of a name; empty when there is none.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// The sections in this one, with their names.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    fn encode(&self, into: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            match value {
                Value::Text(text) => {
                    into.push(KEY_VALUE);
                    put_name(into, name);
                    put_value(into, text);
                }
                Value::List(list) => {
                    into.push(LIST_START);
                    put_name(into, name);
                    for item in list {
                        into.push(LIST_ITEM);
                        put_value(into, item);
                    }
                    into.push(LIST_END);
                }
                Value::Section(section) => {
                    into.push(SECTION_START);
                    put_name(into, name);
                    section.encode(into);
                    into.push(SECTION_END);
                }
            }
        }
    }

    fn decode(octets: &mut &[u8], inside: bool) -> Result<Section> {
        let mut section = Section::default();
        while let Some(kind) = take(octets, 1).ok().map(|kind| kind[0]) {
            if kind == SECTION_END && inside {
                return Ok(section);
            }
            let name = take_name(octets)?;
            let value = match kind {
                SECTION_START => Value::Section(Section::decode(octets, true)?),
                KEY_VALUE => Value::Text(take_value(octets)?),
                LIST_START => {
                    let mut list = Vec::new();
                    while take(octets, 1)?[0] == LIST_ITEM {
                        list.push(take_value(octets)?);
                    }
                    Value::List(list)
                }
                other => bail!("element of type {other}"),
            };
            section.0.push((name, value));
        }
        ensure!(!inside, "a section without an end");
        Ok(section)
    }
}

fn put_name(into: &mut Vec<u8>, name: &str) {
    into.push(u8::try_from(name.len()).expect("names are short"));
    into.extend(name.as_bytes());
}

fn put_value(into: &mut Vec<u8>, value: &str) {
    into.extend(u16::try_from(value.len()).expect("values are short").to_be_bytes());
    into.extend(value.as_bytes());
}

fn take<'a>(octets: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = octets.split_at_checked(length).context("the message is too short")?;
    *octets = rest;
    Ok(taken)
}

fn take_name(octets: &mut &[u8]) -> Result<String> {
    let length = take(octets, 1)?[0];
    Ok(String::from_utf8_lossy(take(octets, length.into())?).into_owned())
}

fn take_value(octets: &mut &[u8]) -> Result<String> {
    let length = take(octets, 2)?;
    let length = u16::from_be_bytes([length[0], length[1]]);
    Ok(String::from_utf8_lossy(take(octets, length.into())?).into_owned())
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Vici {
    stream: UnixStream,
    end: Instant,
}

impl Vici {
    /// Connects; all that follows must be over within `timeout`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Vici> {
        let context = || format!("no daemon listens at {}", socket.display());
        let stream = UnixStream::connect(socket).with_context(context)?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Vici { stream, end: Instant::now() + timeout })
    }

    /// Asks and returns the answer.
    ///
    /// # Errors
    /// When there is none in time, or the daemon does not know the command, or refuses with
    /// `success = no`, with its words.
    pub fn call(mut self, command: &str, message: &Section) -> Result<Section> {
        self.send(REQUEST, command, message).with_context(|| command.to_owned())?;
        self.answer(None).map(|(answer, _)| answer).with_context(|| command.to_owned())
    }

    /// Asks for something that is answered by a stream of events of this name.
    ///
    /// # Errors
    /// As [`Vici::call`].
    pub fn stream(mut self, command: &str, event: &str, message: &Section) -> Result<Vec<Section>> {
        let mut ask = || {
            self.send(EVENT_REGISTER, event, &Section::default())?;
            ensure!(self.packet()?.first() == Some(&EVENT_CONFIRM), "event {event} refused");
            self.send(REQUEST, command, message)?;
            self.answer(Some(event)).map(|(_, events)| events)
        };
        ask().with_context(|| command.to_owned())
    }

    fn send(&mut self, kind: u8, name: &str, message: &Section) -> Result<()> {
        let mut packet = vec![0; 4];
        packet.push(kind);
        put_name(&mut packet, name);
        if kind == REQUEST {
            message.encode(&mut packet);
        }
        let length = u32::try_from(packet.len() - 4).context("a long message")?;
        packet[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&packet)?;
        Ok(())
    }

    /// Reads to the answer; keeps what comes before of events with this name.
    fn answer(&mut self, event: Option<&str>) -> Result<(Section, Vec<Section>)> {
        let mut events = Vec::new();
        loop {
            let packet = self.packet()?;
            let mut rest = packet.as_slice();
            match take(&mut rest, 1)?[0] {
                EVENT => {
                    if Some(take_name(&mut rest)?.as_str()) == event {
                        events.push(Section::decode(&mut rest, false)?);
                    }
                }
                RESPONSE => {
                    let answer = Section::decode(&mut rest, false)?;
                    ensure!(answer.text("success") != "no", "{}", answer.text("errmsg"));
                    return Ok((answer, events));
                }
                REQUEST_UNKNOWN => bail!("the daemon does not know it"),
                other => bail!("packet of type {other}"),
            }
        }
    }

    fn packet(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        ensure!(length <= PACKET_MAX, "packet of {length} octets");
        let mut packet = vec![0; length];
        self.read(&mut packet)?;
        Ok(packet)
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let left = self.end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer in time");
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(into) {
                Ok(0) => bail!("the daemon hung up"),
                Ok(length) => into = &mut into[length..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of strongSwan's README, octet for octet, and back.
    #[test]
    fn the_example_of_the_protocol() {
        let message = Section(vec![
            ("key1".to_owned(), Value::Text("value1".to_owned())),
            (
                "section1".to_owned(),
                Value::Section(Section(vec![
                    ("sub-section".to_owned(), Value::Section(Section::of(&[("key2", "value2")]))),
                    ("list1".to_owned(), Value::List(vec!["item1".to_owned(), "item2".to_owned()])),
                ])),
            ),
        ]);
        let octets = b"\x03\x04key1\x00\x06value1\x01\x08section1\x01\x0bsub-section\
            \x03\x04key2\x00\x06value2\x02\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06\x02";
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, octets);
        let decoded = Section::decode(&mut octets.as_slice(), false).expect("decodes");
        assert_eq!(decoded, message);
        // A text that is cut anywhere but between two elements is refused.
        for length in 1..octets.len() {
            let cut = Section::decode(&mut &octets[..length], false);
            assert_eq!(cut.is_ok(), length == 14, "{length}");
        }
    }
}
