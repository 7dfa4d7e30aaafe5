//! The packet: 112 bytes, sealed by a client, verified and opened by a server.
//!
//! ```text
//! offset  bytes  field
//!      0      8  selector
//!      8     12  nonce
//!     20     44  the knock, encrypted
//!     64     16  Poly1305 tag
//!     80     32  HMAC-SHA256(authenticate key, bytes 0..80)
//! ```
//!
//! Opening goes in the order of `PROTOCOL.md`: [`Packet::read`] (step 1),
//! [`Packet::selector`] (step 2), [`Packet::verify`] (step 3),
//! [`Authentic::open`] (steps 4 and 5). Each step's type is the only way to the next.

use crate::knock::{self, Knock, Malformed, Timestamp};
use crate::secret::Subkeys;
use crate::selector::{Selector, Slot};
use ring::{aead, hmac};

/// Bytes of a packet, exactly.
pub const LEN: usize = 112;

/// Bytes of a nonce: ChaCha20-Poly1305's, RFC 8439 section 2.8.
pub const NONCE_LEN: usize = 12;

const NONCE: usize = 8;
const CIPHERTEXT: usize = 20;
const TAG: usize = 64;
const MAC: usize = 80;

/// The HMAC that ends a packet: what a replay cache remembers it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub [u8; 32]);

/// Seals a knock: encrypted with ChaCha20-Poly1305 (RFC 8439; associated data = the
/// selector), then HMAC-SHA256 (RFC 2104) over all before it.
///
/// The nonce must be fresh and random for every packet: give it
/// [`crate::secret::random`].
#[must_use]
pub fn seal(keys: &Subkeys, knock: &Knock, nonce: [u8; NONCE_LEN]) -> [u8; LEN] {
    let selector = Selector::new(keys, Slot::of(knock.timestamp));
    let mut body = knock.encode();
    let tag = keys
        .encrypt
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(selector.0),
            &mut body,
        )
        .unwrap_or_else(|_| {
            unreachable!("ChaCha20-Poly1305 seals up to 256 GiB, and 44 bytes are given")
        });
    let mut packet = [0; LEN];
    packet[..NONCE].copy_from_slice(&selector.0);
    packet[NONCE..CIPHERTEXT].copy_from_slice(&nonce);
    packet[CIPHERTEXT..TAG].copy_from_slice(&body);
    packet[TAG..MAC].copy_from_slice(tag.as_ref());
    let mac = hmac::sign(&keys.authenticate, &packet[..MAC]);
    packet[MAC..].copy_from_slice(mac.as_ref());
    packet
}

/// A datagram of the right length; nothing else about it is known yet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a>(&'a [u8; LEN]);

impl<'a> Packet<'a> {
    /// Step 1: exactly 112 bytes. Read datagrams into a larger buffer, so that a longer
    /// one is seen as longer.
    #[must_use]
    pub fn read(datagram: &'a [u8]) -> Option<Self> {
        datagram.try_into().ok().map(Self)
    }

    /// Step 2: what to look up.
    #[must_use]
    pub fn selector(&self) -> Selector {
        Selector(std::array::from_fn(|i| self.0[i]))
    }

    /// Step 3: the HMAC, in constant time. `None` if it does not hold under this key.
    #[must_use]
    pub fn verify(self, keys: &Subkeys) -> Option<Authentic<'a, '_>> {
        let (signed, mac) = self.0.split_at(MAC);
        hmac::verify(&keys.authenticate, signed, mac)
            .ok()
            .map(|()| Authentic { packet: self, keys })
    }
}

/// A packet whose HMAC holds under `keys`: only a holder of the key can have made it.
#[derive(Debug, Clone, Copy)]
pub struct Authentic<'a, 'k> {
    packet: Packet<'a>,
    keys: &'k Subkeys,
}

impl Authentic<'_, '_> {
    /// Steps 4 and 5: decrypts, parses strictly, and holds the selector against the
    /// signed timestamp.
    pub fn open(&self) -> Result<Request, Malformed> {
        let bytes = self.packet.0;
        let mut body = [0; knock::LEN + aead::MAX_TAG_LEN];
        body.copy_from_slice(&bytes[CIPHERTEXT..MAC]);
        let nonce = std::array::from_fn(|i| bytes[NONCE + i]);
        let selector = self.packet.selector();
        let plain = self
            .keys
            .encrypt
            .open_in_place(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(selector.0),
                &mut body,
            )
            .map_err(|_| Malformed::Ciphertext)?;
        let plain: &[u8; knock::LEN] = (&*plain).try_into().map_err(|_| Malformed::Ciphertext)?;
        let knock = Knock::decode(plain)?;
        if Selector::new(self.keys, Slot::of(knock.timestamp)) != selector {
            return Err(Malformed::Slot);
        }
        let id = PacketId(std::array::from_fn(|i| bytes[MAC + i]));
        Ok(Request { knock, id })
    }
}

/// A knock that was authenticated. [`Authentic::open`] is the only way to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    knock: Knock,
    id: PacketId,
}

impl Request {
    /// What is asked.
    #[must_use]
    pub fn knock(&self) -> &Knock {
        &self.knock
    }

    /// What the replay cache remembers this packet by.
    #[must_use]
    pub fn id(&self) -> PacketId {
        self.id
    }

    /// When the client made it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.knock.timestamp
    }
}
