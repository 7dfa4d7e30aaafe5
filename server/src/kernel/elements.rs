//! Elements of sets, as messages and as the kernel lists them.
//!
//! Adding a present element refreshes nothing on many kernels, and deleting an absent one
//! fails the batch; so an element is renewed by add, delete, add in one batch, which works
//! everywhere and never leaves a moment without the element.

use super::names::TABLE;
use super::netlink::{Attributes, Batch, CREATE, INET, MAX_BATCH_ELEMENTS, Netlink, Writer, kind};
use std::io;
use std::time::Duration;

/// Longer than anything lasts: the kernel refuses a timeout that its clock cannot hold.
const MAX_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How often a list that is not whole is read again.
const MAX_LISTS: usize = 16;

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element<'e> {
    /// Its key, in network order, each part padded to four bytes where there are several.
    pub key: Vec<u8>,
    /// Its value, in a map.
    pub data: Option<[u8; 4]>,
    /// How long it stays from now. Where there is none: until it is removed, in a set without
    /// timeouts.
    pub timeout: Option<Duration>,
    /// The text beside it.
    pub comment: Option<&'e str>,
}

impl Element<'_> {
    /// A key that stays this long.
    pub fn timed(key: Vec<u8>, time: Duration) -> Self {
        Self {
            timeout: Some(time),
            ..Self::permanent(key)
        }
    }

    /// A key that stays until it is removed.
    pub fn permanent(key: Vec<u8>) -> Self {
        Self {
            key,
            data: None,
            timeout: None,
            comment: None,
        }
    }

    /// Writes what there is besides the key.
    fn write_rest(&self, one: &mut Writer) {
        if let Some(data) = self.data {
            one.nest(2, |value| value.bytes(1, &data));
        }
        if let Some(time) = self.timeout {
            one.long(4, milliseconds(time));
        }
        if let Some(comment) = self.comment {
            one.bytes(6, &user_data(comment));
        }
    }
}

/// Appends messages that add these elements. None are no message.
pub fn add(batch: &mut Batch, flags: u16, table: &str, set: &str, elements: &[Element]) {
    for part in elements.chunks(MAX_BATCH_ELEMENTS) {
        batch.push(kind::NEW_ELEMENT, flags, |message| {
            list(message, table, set, part, true);
        });
    }
}

/// Appends messages that remove these elements, which must be there.
pub fn delete(batch: &mut Batch, set: &str, elements: &[Element]) {
    for part in elements.chunks(MAX_BATCH_ELEMENTS) {
        batch.push(kind::DELETE_ELEMENT, 0, |message| {
            list(message, TABLE, set, part, false);
        });
    }
}

/// Appends messages that make these elements so, whether they are there or not.
pub fn renew(batch: &mut Batch, set: &str, elements: &[Element]) {
    remove(batch, set, elements);
    add(batch, CREATE, TABLE, set, elements);
}

/// Appends messages that remove these elements, whether they are there or not.
pub fn remove(batch: &mut Batch, set: &str, elements: &[Element]) {
    add(batch, CREATE, TABLE, set, elements);
    delete(batch, set, elements);
}

/// Appends messages that make these, and no others, the elements of a set.
pub fn replace(batch: &mut Batch, set: &str, elements: &[Element]) {
    batch.push(kind::DELETE_ELEMENT, 0, |message| of_set(message, set));
    add(batch, CREATE, TABLE, set, elements);
}

fn list(message: &mut Writer, table: &str, set: &str, elements: &[Element], is_whole: bool) {
    message.text(1, table);
    message.text(2, set);
    message.nest(3, |list| {
        for element in elements {
            list.nest(1, |one| {
                one.nest(1, |key| key.bytes(1, &element.key));
                if is_whole {
                    element.write_rest(one);
                }
            });
        }
    });
}

fn of_set(message: &mut Writer, set: &str) {
    message.text(1, TABLE);
    message.text(2, set);
}

/// For how long an element stays; never for ever, which zero would be.
fn milliseconds(time: Duration) -> u64 {
    let time = time.min(MAX_TIMEOUT).as_millis();
    u64::try_from(time).unwrap_or(u64::MAX).max(1)
}

/// A comment as nft keeps it: type 0, length with the final zero, text, zero. Names are at
/// most 64 bytes.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), &[0]].concat()
}

/// An element as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedElement {
    /// Its key.
    pub key: Vec<u8>,
    /// For how long it was added.
    pub timeout: Option<Duration>,
    /// What remains of that.
    pub remaining: Option<Duration>,
    /// The text beside it.
    pub comment: Option<String>,
}

impl ListedElement {
    /// What these attributes say; `None` where they are no element's.
    fn read(one: Attributes<'_>) -> Option<Self> {
        let time = |number| one.long(number).map(Duration::from_millis);
        Some(Self {
            key: one.nested(1).get(1)?.to_vec(),
            timeout: time(4),
            remaining: time(5),
            comment: one.get(6).and_then(comment),
        })
    }
}

/// See [`user_data`].
fn comment(data: &[u8]) -> Option<String> {
    let (&[0, length], rest) = data.split_first_chunk::<2>()? else {
        return None;
    };
    let text = rest.get(..usize::from(length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

/// The elements of a set. `NotFound` where there is no such set.
///
/// While a set grows the kernel moves its elements, and a list that is read meanwhile has as
/// many of them twice as are missing in it: then it is read again.
pub fn elements(netlink: &mut Netlink, set: &str) -> io::Result<Vec<ListedElement>> {
    let of = Writer::body(INET, |message| of_set(message, set));
    for _ in 0..MAX_LISTS {
        let lists = netlink.dump(kind::GET_ELEMENT, &of, |answer| {
            let each = answer.attributes().nested(3).each();
            let elements = each.filter_map(|(_, one)| ListedElement::read(Attributes(one)));
            Some(elements.collect::<Vec<_>>())
        })?;
        let mut listed = lists.concat();
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if listed.windows(2).all(|two| two[0].key != two[1].key) {
            return Ok(listed);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the set changes as fast as it is listed",
    ))
}
