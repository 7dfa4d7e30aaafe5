//! The published vectors, both ways, and vectors of our own, named after their defect.

// A test that cannot go on is a failed test.
#![allow(clippy::unwrap_used)]

use oneknock_shared::knock::{Action, Knock, Malformed, Timestamp};
use oneknock_shared::packet::{self, LEN, Packet};
use oneknock_shared::secret::{Secret, ServerId, Subkeys};
use oneknock_shared::selector::{Selector, Slot};
use ring::{aead, hkdf, hmac};
use serde_json::Value;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap()
}

fn rows() -> Vec<Value> {
    serde_json::from_str(include_str!("data/vectors.json")).unwrap()
}

fn keys(row: &Value) -> Subkeys {
    let secret: Secret = text(row, "secret").parse().unwrap();
    let server: ServerId = text(row, "server_id").parse().unwrap();
    Subkeys::derive(&secret, &server)
}

fn knock(row: &Value) -> Knock {
    let seconds = u16::try_from(row["seconds"].as_u64().unwrap()).unwrap();
    Knock {
        action: match text(row, "action") {
            "open" => Action::Open { seconds },
            "close" => Action::Close,
            other => panic!("{other}"),
        },
        timestamp: Timestamp(row["timestamp_ms"].as_u64().unwrap()),
        address: row["address"]
            .as_str()
            .map(|a| a.parse::<std::net::IpAddr>().unwrap().to_canonical()),
        service: match text(row, "service") {
            "" => None,
            name => Some(name.parse().unwrap()),
        },
    }
}

#[test]
fn every_vector_is_sealed_bit_for_bit() {
    for row in rows() {
        let knock = knock(&row);
        assert_eq!(knock.encode().to_vec(), unhex(text(&row, "plaintext")));
        let nonce = unhex(text(&row, "nonce")).try_into().unwrap();
        let packet = packet::seal(&keys(&row), &knock, nonce);
        assert_eq!(
            packet.to_vec(),
            unhex(text(&row, "packet")),
            "{}",
            row["name"]
        );
    }
}

#[test]
fn every_vector_opens_to_its_fields() {
    for row in rows() {
        let (keys, bytes) = (keys(&row), unhex(text(&row, "packet")));
        let packet = Packet::read(&bytes).unwrap();
        let slot = Slot::of(knock(&row).timestamp);
        assert_eq!(packet.selector(), Selector::new(&keys, slot));
        let request = packet.verify(&keys).unwrap().open().unwrap();
        assert_eq!(*request.knock(), knock(&row), "{}", row["name"]);
        assert_eq!(request.id().0[..], bytes[80..]);
    }
}

/// The first row's keys and packet.
fn sample() -> (Subkeys, [u8; LEN]) {
    let row = &rows()[3];
    (keys(row), unhex(text(row, "packet")).try_into().unwrap())
}

#[test]
fn truncated_by_one() {
    let (_, bytes) = sample();
    assert!(Packet::read(&bytes[..LEN - 1]).is_none());
}

#[test]
fn one_byte_longer() {
    let (_, bytes) = sample();
    assert!(Packet::read(&[&bytes[..], &[0]].concat()).is_none());
}

#[test]
fn empty_datagram() {
    assert!(Packet::read(&[]).is_none());
}

#[test]
fn any_bit_flipped_anywhere() {
    let (keys, bytes) = sample();
    for bit in 0..LEN * 8 {
        let mut bytes = bytes;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Packet::read(&bytes).unwrap().verify(&keys).is_none(),
            "bit {bit}"
        );
    }
}

#[test]
fn wrong_server() {
    let row = &rows()[3];
    let secret: Secret = text(row, "secret").parse().unwrap();
    let elsewhere = Subkeys::derive(&secret, &ServerId::generate().unwrap());
    let (_, bytes) = sample();
    assert!(Packet::read(&bytes).unwrap().verify(&elsewhere).is_none());
}

#[test]
fn wrong_secret() {
    let server: ServerId = text(&rows()[3], "server_id").parse().unwrap();
    let other = Subkeys::derive(&Secret::generate().unwrap(), &server);
    let (_, bytes) = sample();
    assert!(Packet::read(&bytes).unwrap().verify(&other).is_none());
}

/// A second, plain implementation of the sealing side that can make what ours refuses
/// to: any selector, any plain text, and a ciphertext that was spoilt before it was
/// signed.
struct Forge {
    selector: hmac::Key,
    encrypt: aead::LessSafeKey,
    authenticate: hmac::Key,
}

impl Forge {
    fn new(row: &Value) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let bytes = |field| STANDARD.decode(text(row, field)).unwrap();
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &bytes("server_id")).extract(&bytes("secret"));
        let derive = |label: &[u8]| {
            let mut key = [0; 32];
            let info = [b"oneknock/1 ", label];
            let okm = prk.expand(&info, hkdf::HKDF_SHA256).unwrap();
            okm.fill(&mut key).unwrap();
            key
        };
        let aead_key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &derive(b"encrypt"));
        Self {
            selector: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"selector")),
            encrypt: aead::LessSafeKey::new(aead_key.unwrap()),
            authenticate: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"authenticate")),
        }
    }

    fn seal(&self, slot: u64, plain: &[u8; 44], spoil: bool) -> Vec<u8> {
        let selector = hmac::sign(&self.selector, &slot.to_be_bytes());
        let selector = &selector.as_ref()[..8];
        let mut body = plain.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key([7; 12]);
        let aad = aead::Aad::from(selector);
        self.encrypt
            .seal_in_place_append_tag(nonce, aad, &mut body)
            .unwrap();
        body[0] ^= u8::from(spoil);
        let mut packet = [selector, &[7; 12], &body].concat();
        let mac = hmac::sign(&self.authenticate, &packet);
        packet.extend_from_slice(mac.as_ref());
        packet
    }
}

/// What the server makes of a well-signed packet with this slot and plain text.
fn opened(slot_offset: i64, edit: impl Fn(&mut [u8; 44]), spoil: bool) -> Result<Knock, Malformed> {
    let row = &rows()[3];
    let mut plain: [u8; 44] = unhex(text(row, "plaintext")).try_into().unwrap();
    edit(&mut plain);
    let slot = Slot::of(knock(row).timestamp)
        .0
        .checked_add_signed(slot_offset)
        .unwrap();
    let bytes = Forge::new(row).seal(slot, &plain, spoil);
    let keys = keys(row);
    let request = Packet::read(&bytes).unwrap().verify(&keys).unwrap().open();
    request.map(|r| *r.knock())
}

#[test]
fn the_forge_makes_good_packets_when_asked() {
    assert_eq!(opened(0, |_| (), false), Ok(knock(&rows()[3])));
}

#[test]
fn selector_of_another_slot() {
    assert_eq!(opened(1, |_| (), false), Err(Malformed::Slot));
    assert_eq!(opened(-1, |_| (), false), Err(Malformed::Slot));
}

#[test]
fn ciphertext_spoilt_before_it_was_signed() {
    assert_eq!(opened(0, |_| (), true), Err(Malformed::Ciphertext));
}

#[test]
fn signed_but_of_an_unknown_version() {
    assert_eq!(opened(0, |p| p[0] = 2, false), Err(Malformed::Version(2)));
}

#[test]
fn signed_but_of_an_unknown_action() {
    assert_eq!(opened(0, |p| p[1] = 2, false), Err(Malformed::Action(2)));
}

#[test]
fn signed_but_a_close_that_asks_for_seconds() {
    assert_eq!(
        opened(0, |p| p[1] = 1, false),
        Err(Malformed::SecondsInClose)
    );
}

#[test]
fn signed_but_with_a_capital_in_the_service() {
    assert_eq!(opened(0, |p| p[28] = b'S', false), Err(Malformed::Service));
}

#[test]
fn signed_but_with_a_byte_after_the_padding() {
    assert_eq!(opened(0, |p| p[43] = 1, false), Err(Malformed::Service));
}

#[test]
fn signed_but_for_a_loopback_address() {
    let edit = |p: &mut [u8; 44]| p[24] = 127;
    assert_eq!(opened(0, edit, false), Err(Malformed::Address));
}
