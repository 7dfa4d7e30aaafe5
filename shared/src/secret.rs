//! The secret of a key generation, the server's id, and the subkeys of both.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hkdf, hmac};
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The text is not the standard base64 (RFC 4648 section 4) of the wanted number of
/// bytes. The message never repeats the text: it may be a secret with one letter gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {0} bytes in base64")]
pub struct BadBase64(usize);

/// The system's random generator gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;

/// `N` bytes from the system's random generator.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], BadBase64> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| BadBase64(N))?);
    bytes.as_slice().try_into().map_err(|_| BadBase64(N))
}

/// The 32 random bytes of one key generation.
///
/// Wiped when dropped; `Debug` shows no byte of it. Comparing two is not constant in
/// time, and is only for finding one secret in two key files.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new secret from the system's random generator.
    pub fn generate() -> Result<Self, NoRandomness> {
        random().map(Self)
    }

    /// The secret as standard base64, in a text that is wiped when dropped.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl FromStr for Secret {
    type Err = BadBase64;

    fn from_str(text: &str) -> Result<Self, BadBase64> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The 16 random bytes that name a server: the salt of every subkey, so that a packet
/// for one server means nothing to another. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId([u8; 16]);

impl ServerId {
    /// A new id from the system's random generator.
    pub fn generate() -> Result<Self, NoRandomness> {
        random().map(Self)
    }

    /// The id in 32 hexadecimal digits, for places where base64's signs cannot stand.
    #[must_use]
    pub fn to_hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for ServerId {
    type Err = BadBase64;

    fn from_str(text: &str) -> Result<Self, BadBase64> {
        decode(text).map(Self)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// The subkeys of one generation at one server.
///
/// Each is HKDF-SHA256 (RFC 5869) of 32 bytes:
/// `HKDF(salt = server_id, ikm = secret, info = "oneknock/1 " + use)`,
/// use = `selector`, `encrypt`, `authenticate`, `sequence`.
///
/// `Debug` shows no byte of them. ring does not wipe its keys; they live as long as the
/// process does.
#[derive(Clone)]
pub struct Subkeys {
    pub(crate) selector: hmac::Key,
    pub(crate) encrypt: aead::LessSafeKey,
    pub(crate) authenticate: hmac::Key,
    pub(crate) sequence: hmac::Key,
    id: GenerationId,
}

/// What tells one generation's secret at one server from every other: 16 bytes of
/// `HKDF(server_id, secret, "oneknock/1 identity")`. It is not sent anywhere and gives
/// nothing of the secret away; records about a generation are kept under it, so that a
/// key that is removed and comes back is known again, and a new secret under an old
/// name is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId(pub [u8; 16]);

impl Subkeys {
    /// Derives the subkeys. Total: every secret and id has them.
    #[must_use]
    pub fn derive(secret: &Secret, server: &ServerId) -> Self {
        let bytes = |use_: &str| derive_bytes(secret, server, use_);
        let mut id = [0; 16];
        id.copy_from_slice(&bytes("identity")[..16]);
        Self {
            selector: hmac::Key::new(hmac::HMAC_SHA256, &*bytes("selector")),
            encrypt: aead::LessSafeKey::new(unbound(&bytes("encrypt"))),
            authenticate: hmac::Key::new(hmac::HMAC_SHA256, &*bytes("authenticate")),
            sequence: hmac::Key::new(hmac::HMAC_SHA256, &*bytes("sequence")),
            id: GenerationId(id),
        }
    }

    /// The identity of this generation at this server.
    #[must_use]
    pub fn id(&self) -> GenerationId {
        self.id
    }
}

impl fmt::Debug for Subkeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subkeys(..)")
    }
}

/// `HKDF(salt = server_id, ikm = secret, info = "oneknock/1 " + use)`, 32 bytes.
fn derive_bytes(secret: &Secret, server: &ServerId, use_: &str) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &server.0)
        .extract(&secret.0)
        .expand(&[b"oneknock/1 ", use_.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *bytes))
        .unwrap_or_else(|_| unreachable!("HKDF-SHA256 gives up to 8160 bytes, and 32 are asked"));
    bytes
}

fn unbound(key: &[u8; 32]) -> aead::UnboundKey {
    aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key)
        .unwrap_or_else(|_| unreachable!("ChaCha20-Poly1305 takes 32 bytes, and 32 are given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subkeys_are_those_of_the_vectors() {
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../tests/data/vectors.json")).unwrap();
        assert_eq!(rows.len(), 8);
        for row in rows {
            let secret: Secret = row["secret"].as_str().unwrap().parse().unwrap();
            let server: ServerId = row["server_id"].as_str().unwrap().parse().unwrap();
            for use_ in ["selector", "encrypt", "authenticate"] {
                let bytes = derive_bytes(&secret, &server, use_);
                let want = row[format!("{use_}_key")].as_str().unwrap();
                for (byte, hex) in bytes.iter().zip(want.as_bytes().chunks(2)) {
                    assert_eq!(format!("{byte:02x}").as_bytes(), hex, "{use_}");
                }
            }
            assert_eq!(*secret.to_base64(), row["secret"].as_str().unwrap());
            assert_eq!(server.to_string(), row["server_id"].as_str().unwrap());
        }
    }

    #[test]
    fn debug_shows_no_secret_byte() {
        let secret = Secret([0x41; 32]);
        let subkeys = Subkeys::derive(&secret, &ServerId([1; 16]));
        assert_eq!(format!("{secret:?} {subkeys:?}"), "Secret(..) Subkeys(..)");
    }

    #[test]
    fn the_error_never_repeats_what_may_be_a_secret() {
        let text = "l2mbfMCg7YO3iyAC8OVwRu5WG+aUK+wlb+IBq7pVKp4";
        let error = text.parse::<Secret>().unwrap_err().to_string();
        assert_eq!(error, "not 32 bytes in base64");
    }
}
