//! The kernel's answers: messages within a datagram, attributes within a message. Whatever
//! is cut short ends the reading; nothing here can fail otherwise.

/// Attributes of a message, or of an attribute that holds others.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'b>(&'b [u8]);

impl<'b> Attributes<'b> {
    /// The attributes in these bytes.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Each with its kind.
    pub fn each(self) -> impl Iterator<Item = (u16, &'b [u8])> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let &[a, b, c, d] = bytes.get(..4)? else {
                return None;
            };
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = bytes.get(4..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            // Without the bits that say "nested" and "network order".
            Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
        })
    }

    /// The value of the first of this kind.
    pub fn get(self, kind: u16) -> Option<&'b [u8]> {
        let mut each = self.each();
        each.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes in the first of this kind; none where there is none.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// A text without its final zero.
    pub fn text(self, kind: u16) -> Option<&'b str> {
        let bytes = self.get(kind)?;
        str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }

    /// A number of 32 bits.
    pub fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A number of 64 bits.
    pub fn long(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }
}

/// A message within a datagram.
#[derive(Debug)]
pub(super) struct MessagePart<'b> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Behind netlink's header.
    pub body: &'b [u8],
}

impl MessagePart<'_> {
    /// The code of an `NLMSG_ERROR`, or of a dump's end; 0 is success. One without a code is
    /// a failure.
    pub fn code(&self) -> i32 {
        let code = self.body.get(..4).and_then(|code| code.try_into().ok());
        code.map_or(-1, i32::from_ne_bytes)
    }
}

/// The messages of a datagram, up to the first that is cut short.
pub(super) fn parts(mut bytes: &[u8]) -> impl Iterator<Item = MessagePart<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..16)?;
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(word(0))).ok()?;
        let part = MessagePart {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes(word(8)),
            body: bytes.get(16..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    })
}
