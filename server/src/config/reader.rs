//! Reads a TOML table strictly: every mistake is noted with its line, every key that
//! nobody asked for is a mistake.

use super::Mistake;
use oneknock_shared::knock::Timestamp;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file being read, and what was found wrong in it.
pub struct Reader<'f> {
    file: &'f Path,
    text: &'f str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'f> Reader<'f> {
    /// Reads `text` with `read`; its result counts only where no mistake was noted.
    pub fn read<T>(
        file: &'f Path,
        text: &'f str,
        read: impl FnOnce(&mut Section<'_, 'f>) -> Option<T>,
    ) -> Result<T, Vec<Mistake>> {
        let reader = Self {
            file,
            text,
            mistakes: RefCell::default(),
        };
        let value = match DeTable::parse(text) {
            Err(error) => {
                reader.note(error.span(), error.message());
                None
            }
            Ok(table) => {
                let mut section = Section {
                    reader: &reader,
                    table: table.get_ref(),
                    span: None,
                    prefix: "",
                    used: BTreeSet::new(),
                };
                let value = read(&mut section);
                section.finish();
                value
            }
        };
        match (value, reader.mistakes.into_inner()) {
            (Some(value), mistakes) if mistakes.is_empty() => Ok(value),
            (_, mistakes) => Err(mistakes),
        }
    }

    fn note(&self, span: Option<Range<usize>>, what: impl Display) {
        let (span, what): (_, &dyn Display) = match self.mistakes.borrow().len() {
            ..MOST => (span, &what),
            MOST => (None, &"more is wrong, which is not listed"),
            _ => return,
        };
        let line = span.map(|span| {
            let before = self.text.as_bytes().iter().take(span.start);
            1 + before.filter(|&&b| b == b'\n').count()
        });
        // A parser's message may have several lines; a mistake has one.
        let what = what.to_string().replace('\n', " ");
        self.mistakes.borrow_mut().push(Mistake {
            file: self.file.into(),
            line,
            what,
        });
    }
}

/// So many mistakes of one file are listed.
const MOST: usize = 100;

/// A table of the file. Its methods return `None` after noting a mistake.
pub struct Section<'r, 'f> {
    reader: &'r Reader<'f>,
    table: &'r DeTable<'f>,
    span: Option<Range<usize>>,
    /// What a mistake's key is called with, where that is not clear from its line.
    prefix: &'static str,
    used: BTreeSet<&'static str>,
}

impl<'r, 'f> Section<'r, 'f> {
    /// Notes a mistake about `key` in the line where it stands.
    pub fn note(&self, key: &str, what: impl Display) {
        let span = self
            .table
            .get(key)
            .map_or(self.span.clone(), |v| Some(v.span()));
        let prefix = self.prefix;
        self.reader.note(span, format!("{prefix}{key}: {what}"));
    }

    fn optional(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'f>>> {
        self.used.insert(key);
        self.table.get(key)
    }

    fn required(&mut self, key: &'static str, example: &str) -> Option<&'r Spanned<DeValue<'f>>> {
        let value = self.optional(key);
        if value.is_none() {
            self.note(
                key,
                format!("is missing; write for example {key} = {example}"),
            );
        }
        value
    }

    fn parse<T: FromStr>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<T>
    where
        T::Err: Display,
    {
        let note = |what: &dyn Display| {
            let prefix = self.prefix;
            self.reader
                .note(Some(value.span()), format!("{prefix}{key}: {what}"));
        };
        let Some(text) = value.get_ref().as_str() else {
            note(&"must be a text in quotes");
            return None;
        };
        let noted = |error| note(&error);
        text.parse().map_err(noted).ok()
    }

    /// A text that must be there.
    pub fn text<T: FromStr>(&mut self, key: &'static str, example: &str) -> Option<T>
    where
        T::Err: Display,
    {
        let value = self.required(key, example)?;
        self.parse(key, value)
    }

    /// A text, or `default` where the key is not there.
    pub fn text_or<T: FromStr>(&mut self, key: &'static str, default: T) -> Option<T>
    where
        T::Err: Display,
    {
        match self.optional(key) {
            None => Some(default),
            Some(value) => self.parse(key, value),
        }
    }

    /// A text where the key is there.
    #[expect(clippy::option_option, reason = "absent and wrong are two things here")]
    pub fn text_if<T: FromStr>(&mut self, key: &'static str) -> Option<Option<T>>
    where
        T::Err: Display,
    {
        match self.optional(key) {
            None => Some(None),
            Some(value) => self.parse(key, value).map(Some),
        }
    }

    /// A list of texts that must be there and hold at least one.
    pub fn list<T: FromStr>(&mut self, key: &'static str, example: &str) -> Option<Vec<T>>
    where
        T::Err: Display,
    {
        let value = self.required(key, example)?;
        let Some(array) = value.get_ref().as_array() else {
            self.note(key, format!("must be a list such as {example}"));
            return None;
        };
        if array.is_empty() {
            self.note(key, format!("is empty; write for example {example}"));
            return None;
        }
        self.elements(key, array)
    }

    /// A list of texts, none where the key is not there.
    pub fn list_or_none<T: FromStr>(&mut self, key: &'static str) -> Option<Vec<T>>
    where
        T::Err: Display,
    {
        let Some(value) = self.optional(key) else {
            return Some(Vec::new());
        };
        let Some(array) = value.get_ref().as_array() else {
            self.note(key, "must be a list");
            return None;
        };
        self.elements(key, array)
    }

    fn elements<T: FromStr>(&self, key: &str, array: &[Spanned<DeValue<'_>>]) -> Option<Vec<T>>
    where
        T::Err: Display,
    {
        // Every element is looked at, so that each mistake is found.
        let values: Vec<Option<T>> = array.iter().map(|value| self.parse(key, value)).collect();
        values.into_iter().collect()
    }

    /// A whole number in a range, or `default` where the key is not there.
    pub fn number_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Option<u32> {
        let Some(value) = self.optional(key) else {
            return Some(default);
        };
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok())
            .filter(|n| range.contains(n));
        if number.is_none() {
            let (first, last) = range.into_inner();
            self.note(
                key,
                format!("must be a whole number from {first} to {last}"),
            );
        }
        number
    }

    /// A whole number in a range that must be there.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        example: &str,
    ) -> Option<u32> {
        self.required(key, example)?;
        self.number_or(key, range, 0)
    }

    /// `true` or `false`; false where the key is not there.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let Some(value) = self.optional(key) else {
            return Some(false);
        };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.note(key, "must be true or false");
        }
        flag
    }

    /// A duration such as `"30s"` or `"8h"` in a range; `default` where it is not there.
    pub fn duration_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Option<Duration> {
        let duration: Whole = self.text_or(key, Whole(default))?;
        if range.contains(&duration.0) {
            return Some(duration.0);
        }
        let (first, last) = range.into_inner();
        let text = humantime::format_duration;
        self.note(
            key,
            format!("must be from {} to {}", text(first), text(last)),
        );
        None
    }

    /// A duration in a range, where the key is there.
    #[expect(clippy::option_option, reason = "absent and wrong are two things here")]
    pub fn duration_if(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        if self.optional(key).is_none() {
            return Some(None);
        }
        let any = *range.start();
        self.duration_or(key, range, any).map(Some)
    }

    /// A point in time, UTC, where the key is there: `2026-01-31T12:00:00Z`, unquoted.
    #[expect(clippy::option_option, reason = "absent and wrong are two things here")]
    pub fn time(&mut self, key: &'static str) -> Option<Option<Timestamp>> {
        let Some(value) = self.optional(key) else {
            return Some(None);
        };
        let time = value
            .get_ref()
            .as_datetime()
            .and_then(|time| humantime::parse_rfc3339(&time.to_string()).ok())
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        if time.is_none() {
            self.note(
                key,
                "must be a time in UTC such as 2026-01-31T12:00:00Z, without quotes",
            );
        }
        time.map(|ms| Some(Timestamp(ms)))
    }

    /// The tables of `[[key]]`, each read with `read`; there must be at least one.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'_, 'f>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(value) = self.optional(key) else {
            self.reader
                .note(self.span.clone(), format!("there is no [[{key}]]"));
            return None;
        };
        let Some(array) = value.get_ref().as_array() else {
            self.note(key, format!("must be written as [[{key}]]"));
            return None;
        };
        let mut values = Vec::new();
        for value in array {
            let Some(table) = value.get_ref().as_table() else {
                self.note(key, format!("must be written as [[{key}]]"));
                return None;
            };
            let mut section = Section {
                reader: self.reader,
                table,
                span: Some(value.span()),
                prefix: "",
                used: BTreeSet::new(),
            };
            values.push(read(&mut section));
            section.finish();
        }
        values.into_iter().collect()
    }

    /// The table `[key]` where it is there, read with `read`.
    #[expect(clippy::option_option, reason = "absent and wrong are two things here")]
    pub fn table_if<T>(
        &mut self,
        key: &'static str,
        prefix: &'static str,
        read: impl FnOnce(&mut Section<'_, 'f>) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(value) = self.optional(key) else {
            return Some(None);
        };
        let Some(table) = value.get_ref().as_table() else {
            self.note(key, format!("must be written as [{key}]"));
            return None;
        };
        let mut section = Section {
            reader: self.reader,
            table,
            span: Some(value.span()),
            prefix,
            used: BTreeSet::new(),
        };
        let found = read(&mut section);
        section.finish();
        found.map(Some)
    }

    /// Notes every key that was not asked for.
    fn finish(self) {
        for key in self.table.keys() {
            if !self.used.contains(key.get_ref().as_ref()) {
                let known: Vec<&str> = self.used.iter().copied().collect();
                let what = format!(
                    "{}{}: is unknown here; known are {}",
                    self.prefix,
                    key.get_ref(),
                    known.join(", ")
                );
                self.reader.note(Some(key.span()), what);
            }
        }
    }
}

/// A duration of whole seconds, as people write it.
struct Whole(Duration);

impl FromStr for Whole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|_| {
            format!("{text:?} is not a duration; write for example \"30s\" or \"8h\"")
        })?;
        if duration.subsec_nanos() == 0 {
            Ok(Self(duration))
        } else {
            Err(format!("{text:?} is not a whole number of seconds"))
        }
    }
}
