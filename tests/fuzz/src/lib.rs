//! What the targets share: a key, and a forge that seals any 44 bytes with it.

use oneknock_shared::packet::LEN;
use oneknock_shared::secret::{Secret, ServerId, Subkeys};
use ring::{aead, hkdf, hmac};

/// The base64 of a secret.
pub const SECRET: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
/// The base64 of a server's id.
pub const SERVER: &str = "oaKjpKWmp6ipqqusra6vsA==";

/// The key.
pub fn keys() -> Subkeys {
    let secret: Secret = SECRET.parse().expect("a secret");
    Subkeys::derive(&secret, &server())
}

/// The server's id.
pub fn server() -> ServerId {
    SERVER.parse().expect("an id")
}

fn bytes(use_: &str) -> [u8; 32] {
    let secret: Vec<u8> = (1..=32).collect();
    let salt: Vec<u8> = (0xa1..=0xb0).collect();
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt);
    let info = format!("oneknock/1 {use_}");
    let mut out = [0; 32];
    salt.extract(&secret)
        .expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes");
    out
}

/// A packet of these 44 bytes that the key authenticates, whatever they say; with the
/// selector of `slot`.
pub fn forge(plain: &[u8; 44], slot: u64, nonce: [u8; 12]) -> [u8; LEN] {
    let of_slot = hmac::Key::new(hmac::HMAC_SHA256, &bytes("selector"));
    let selector = hmac::sign(&of_slot, &slot.to_be_bytes());
    let mut packet = [0; LEN];
    packet[..8].copy_from_slice(&selector.as_ref()[..8]);
    packet[8..20].copy_from_slice(&nonce);
    let encrypt = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &bytes("encrypt"));
    let encrypt = aead::LessSafeKey::new(encrypt.expect("a key"));
    let mut body = *plain;
    let nonce = aead::Nonce::assume_unique_for_key(nonce);
    let aad = aead::Aad::from(&packet[..8]);
    let tag = encrypt
        .seal_in_place_separate_tag(nonce, aad, &mut body)
        .expect("sealed");
    packet[20..64].copy_from_slice(&body);
    packet[64..80].copy_from_slice(tag.as_ref());
    let authenticate = hmac::Key::new(hmac::HMAC_SHA256, &bytes("authenticate"));
    let tag = hmac::sign(&authenticate, &packet[..80]);
    packet[80..].copy_from_slice(tag.as_ref());
    packet
}
