//! Grants over netlink: one batch for each packet's changes, and no process started.
//!
//! Adding a present element refreshes nothing on many kernels, and deleting an absent
//! one fails the batch; so a grant is `add`, `delete`, `add` in one transaction, which
//! works everywhere and never leaves a moment without the element.

use super::connection::Connection;
use super::names::{TABLE, cut_name, set_name};
use super::netlink::{Netlink, Step};
use crate::gate::{Change, Place};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList,
    SetElementMessage,
};
use oneknock_shared::port::Transport;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Changes in one batch: three messages each, well below what one send may hold.
const AT_ONCE: usize = 64;
/// How long a connection that is cut stays so.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// An element may end between the messages of its batch; then the batch is sent again.
const TRIES: usize = 3;

/// Makes the changes, up to 64 at a time; each such part entirely or not at all.
/// `NotFound` where the table or a set is not there.
pub fn apply(netlink: &mut Netlink, changes: &[Change]) -> io::Result<()> {
    for part in changes.chunks(AT_ONCE) {
        let steps: Vec<Step> = part.iter().flat_map(steps).collect();
        let mut tries = 0;
        loop {
            tries += 1;
            match netlink.commit(&steps) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                other => break other?,
            }
        }
    }
    Ok(())
}

/// Drops the packets of these connections from now on, for a month: connection tracking
/// keeps one that is not used for five days.
pub fn cut(netlink: &mut Netlink, connections: &[Connection]) -> io::Result<()> {
    for part in connections.chunks(AT_ONCE) {
        let steps: Vec<Step> = part.iter().map(|c| cut_step(c, true)).collect();
        netlink.commit(&steps)?;
    }
    Ok(())
}

/// Undoes [`cut`], one by one: any may have ended by itself.
pub fn forgive(netlink: &mut Netlink, connections: &[Connection]) -> io::Result<()> {
    for connection in connections {
        match netlink.commit(&[cut_step(connection, false)]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn cut_step(connection: &Connection, is_cut: bool) -> Step {
    let protocol = match connection.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    // Each field at a multiple of four.
    let (from, to) = (connection.remote_port, connection.port);
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    let more = [protocol, 0, 0, 0, a, b, 0, 0, c, d, 0, 0];
    let key = [octets(connection.remote), more.to_vec()].concat();
    let key = SetElementAttribute::Key(DataAttribute::Value(key));
    let set = cut_name(connection.remote.is_ipv6()).to_owned();
    if !is_cut {
        return Step::change(NfTablesMessage::DeleteSetElement(one(set, vec![key])));
    }
    let ms = u64::try_from(MONTH.as_millis()).unwrap_or(u64::MAX);
    let attributes = vec![key, SetElementAttribute::Timeout(ms)];
    Step::create(NfTablesMessage::NewSetElement(one(set, attributes)))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn one(set: String, attributes: Vec<SetElementAttribute>) -> SetElementMessage {
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set),
            SetElementList::Elements(vec![ListAttribute::Element(attributes)]),
        ],
    }
}

fn steps(change: &Change) -> Vec<Step> {
    match change {
        Change::Admit { place, key, time } => {
            let new = || add(place, *time, key.as_str());
            vec![new(), delete(place), new()]
        }
        // The add makes the delete safe where the element has ended by itself.
        Change::Shut { place } => vec![add(place, Duration::from_secs(1), ""), delete(place)],
    }
}

fn add(place: &Place, time: Duration, comment: &str) -> Step {
    let element = element(place, Some((time, comment)));
    Step::create(NfTablesMessage::NewSetElement(element))
}

fn delete(place: &Place) -> Step {
    Step::change(NfTablesMessage::DeleteSetElement(element(place, None)))
}

fn element(place: &Place, with: Option<(Duration, &str)>) -> SetElementMessage {
    let key = DataAttribute::Value(octets(place.address));
    let mut attributes = vec![SetElementAttribute::Key(key)];
    if let Some((time, comment)) = with {
        // Zero would be for ever.
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        attributes.push(SetElementAttribute::Timeout(ms));
        if !comment.is_empty() {
            attributes.push(SetElementAttribute::UserData(user_data(comment)));
        }
    }
    let set = set_name(place.service, place.address.is_ipv6());
    one(set, attributes)
}

/// An element's comment as nft keeps it: type 0, length with the final zero, text, zero.
/// Names are at most 64 bytes.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::netlink;
    use std::sync::Arc;

    fn encode(first: u32, changes: &[Change]) -> (Vec<u8>, u32) {
        let steps: Vec<Step> = changes.iter().flat_map(steps).collect();
        netlink::encode(first, &steps)
    }

    fn place() -> Place {
        Place {
            service: "ssh".parse().unwrap(),
            address: [192, 0, 2, 7].into(),
        }
    }

    fn admit(time: Duration) -> Change {
        Change::Admit {
            place: place(),
            key: Arc::new("me".parse().unwrap()),
            time,
        }
    }

    /// What a little-endian machine sends for one grant, message by message.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_grant_is_these_bytes() {
        let (bytes, last) = encode(7, &[admit(Duration::from_secs(30))]);
        let names = "0d 00 01 00 6f 6e 65 6b 6e 6f 63 6b 00 00 00 00 \
                     09 00 02 00 73 73 68 34 00 00 00 00";
        let key = "0c 00 01 80 08 00 01 00 c0 00 02 07";
        let timed = "0c 00 04 00 00 00 00 00 00 00 75 30 09 00 06 00 00 03 6d 65 00 00 00 00";
        let new = |number: &str, flags: &str| {
            format!(
                "5c 00 00 00 0c 0a {flags} {number} 00 00 00 00 00 00 00 01 00 00 00 \
                 {names} 2c 00 03 80 28 00 01 80 {key} {timed}"
            )
        };
        let want = [
            "14 00 00 00 10 00 01 00 07 00 00 00 00 00 00 00 00 00 00 0a".to_owned(),
            new("08", "01 04"),
            format!(
                "44 00 00 00 0e 0a 01 00 09 00 00 00 00 00 00 00 01 00 00 00 \
                 {names} 14 00 03 80 10 00 01 80 {key}"
            ),
            new("0a", "05 04"),
            "14 00 00 00 11 00 01 00 0b 00 00 00 00 00 00 00 00 00 00 0a".to_owned(),
        ];
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.join(" "), want.join(" "));
        assert_eq!(last, 10);
    }

    #[test]
    fn a_grant_is_never_permanent() {
        let (bytes, _) = encode(1, &[admit(Duration::from_nanos(1))]);
        let timeout = [0, 0, 0, 0, 0, 0, 0, 1, 9];
        assert!(bytes.windows(9).any(|window| window == timeout));
    }

    #[test]
    fn shutting_adds_first_so_that_an_absent_address_is_no_error() {
        let (_, last) = encode(1, &[Change::Shut { place: place() }]);
        assert_eq!(last, 3, "begin, add, delete");
    }
}
