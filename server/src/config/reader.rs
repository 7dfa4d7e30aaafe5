//! Reads a TOML table strictly: every error is noted with its line, and so is every name
//! that nobody asked for.

mod values;

use super::ConfigError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file being read, and what was found wrong in it.
pub struct Reader<'f> {
    file: &'f Path,
    text: &'f str,
    errors: RefCell<Vec<ConfigError>>,
    unknown: RefCell<Vec<ConfigError>>,
}

/// What a file says.
#[derive(Debug)]
pub struct Parsed<T> {
    /// What was asked for.
    pub value: T,
    /// Names in it that nobody asked for.
    pub unknown: Vec<ConfigError>,
}

impl<T> Parsed<T> {
    /// What the file says, where nobody would miss anything of it.
    pub fn strict(self) -> Result<T, Vec<ConfigError>> {
        if self.unknown.is_empty() {
            Ok(self.value)
        } else {
            Err(self.unknown)
        }
    }
}

impl<'f> Reader<'f> {
    /// Reads `text` with `read`; its result counts only where no error was noted. With a
    /// error the names that nobody asked for are among these.
    pub fn read<T>(
        file: &'f Path,
        text: &'f str,
        read: impl FnOnce(&mut Section<'_, 'f>) -> Option<T>,
    ) -> Result<Parsed<T>, Vec<ConfigError>> {
        let reader = Self {
            file,
            text,
            errors: RefCell::default(),
            unknown: RefCell::default(),
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
        let (mut errors, unknown) = (reader.errors.into_inner(), reader.unknown.into_inner());
        match value {
            Some(value) if errors.is_empty() => Ok(Parsed { value, unknown }),
            _ => {
                errors.extend(unknown);
                Err(errors)
            }
        }
    }

    fn note(&self, span: Option<Range<usize>>, what: impl Display) {
        self.note_among(&self.errors, span, &what);
    }

    fn note_among(
        &self,
        list: &RefCell<Vec<ConfigError>>,
        span: Option<Range<usize>>,
        what: &dyn Display,
    ) {
        let (span, what): (_, &dyn Display) = match list.borrow().len() {
            ..MOST => (span, what),
            MOST => (None, &"more is wrong, which is not listed"),
            _ => return,
        };
        let line = span.map(|span| {
            let before = self.text.as_bytes().iter().take(span.start);
            1 + before.filter(|&&b| b == b'\n').count()
        });
        // A parser's message may have several lines; an error has one.
        let what = what.to_string().replace('\n', " ");
        list.borrow_mut().push(ConfigError {
            file: self.file.into(),
            line,
            what,
        });
    }
}

/// So many errors of one file are listed.
const MOST: usize = 100;

/// A table of the file. Its methods return `None` after noting an error.
pub struct Section<'r, 'f> {
    reader: &'r Reader<'f>,
    table: &'r DeTable<'f>,
    span: Option<Range<usize>>,
    /// What an error's key is called with, where that is not clear from its line.
    prefix: &'static str,
    used: BTreeSet<&'static str>,
}

impl<'r, 'f> Section<'r, 'f> {
    /// Notes an error about `key` in the line where it stands.
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
        // Every element is looked at, so that each error is found.
        let values: Vec<Option<T>> = array.iter().map(|value| self.parse(key, value)).collect();
        values.into_iter().collect()
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

    /// Notes every name that was not asked for.
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
                let reader = self.reader;
                reader.note_among(&reader.unknown, Some(key.span()), &what);
            }
        }
    }
}
