//! Grants over netlink: one batch for what has arrived together, and no process started.
//!
//! Adding a present element refreshes nothing on many kernels, and deleting an absent
//! one fails the batch; so a grant is renewed by `add`, `delete`, `add` in one transaction,
//! which works everywhere and never leaves a moment without the element. Most grants are
//! new: an `add` alone is tried first, of what must not be there yet.

use super::connection::Connection;
use super::names::{TABLE, cut_name, set_name};
use super::netlink::{Attribute, Netlink, Step, attributes};
use super::standing;
use crate::gate::{Change, Place};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList,
    SetElementMessage,
};
use oneknock_shared::port::Transport;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Elements in one batch: a message of so many stays below what its length field can say,
/// with the longest names too.
pub const AT_ONCE: usize = 256;
/// How long a connection that is cut stays so.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
/// An element may end between the messages of its batch; then the batch is sent again.
const TRIES: usize = 3;

/// Makes the changes, up to 256 at a time; each such part entirely or not at all.
/// `NotFound` where the table or a set is not there.
pub fn apply(netlink: &mut Netlink, changes: &[Change]) -> io::Result<()> {
    for part in changes.chunks(AT_ONCE) {
        let sets = sets(part);
        match new_steps(&sets).map(|steps| netlink.commit(&steps)) {
            Some(Ok(())) => continue,
            Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let steps = steps(&sets);
        retried(|| netlink.commit(&steps))?;
    }
    Ok(())
}

/// Commits a batch that is sent again where an element has ended within it.
pub fn retried(mut commit: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match commit() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            other => return other,
        }
    }
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

/// Takes addresses out of a set, one by one: any may have ended by itself.
pub fn remove(netlink: &mut Netlink, set: &str, addresses: &[IpAddr]) -> io::Result<()> {
    for address in addresses {
        let gone = many(set, vec![vec![key(*address)]]);
        let gone = NfTablesMessage::DeleteSetElement(gone);
        match netlink.commit(&[Step::change(gone)]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The connections whose packets are dropped; none where there are no such sets.
pub fn cut_now(netlink: &mut Netlink) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for is_ipv6 in [false, true] {
        match standing::list(netlink, cut_name(is_ipv6)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => found.extend(listed?.iter().filter_map(|one| cut_connection(one))),
        }
    }
    Ok(found)
}

/// What [`cut_step`] has made: its key is the first attribute, and in that the first.
fn cut_connection(one: &[Attribute]) -> Option<Connection> {
    let of = |all: &[Attribute]| Some(all.iter().find(|(kind, _)| *kind == 1)?.1.clone());
    let key = of(&attributes(&of(one)?))?;
    let (address, more) = key.split_at(key.len().checked_sub(12)?);
    let remote = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let &[protocol, _, _, _, a, b, _, _, c, d, _, _] = more else {
        return None;
    };
    Some(Connection {
        transport: match protocol {
            TCP => Transport::Tcp,
            UDP => Transport::Udp,
            _ => return None,
        },
        remote,
        remote_port: u16::from_be_bytes([a, b]),
        port: u16::from_be_bytes([c, d]),
    })
}

fn cut_step(connection: &Connection, is_cut: bool) -> Step {
    let protocol = match connection.transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    };
    // Each field at a multiple of four.
    let (from, to) = (connection.remote_port, connection.port);
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    let more = [protocol, 0, 0, 0, a, b, 0, 0, c, d, 0, 0];
    let key = [octets(connection.remote), more.to_vec()].concat();
    let key = SetElementAttribute::Key(DataAttribute::Value(key));
    let set = cut_name(connection.remote.is_ipv6());
    if !is_cut {
        return Step::change(NfTablesMessage::DeleteSetElement(many(
            set,
            vec![vec![key]],
        )));
    }
    let attributes = vec![key, timeout(MONTH)];
    Step::create(NfTablesMessage::NewSetElement(many(set, vec![attributes])))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Elements of a set, each as its attributes.
pub fn many(set: &str, elements: Vec<Vec<SetElementAttribute>>) -> SetElementMessage {
    let elements = elements.into_iter().map(ListAttribute::Element);
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set.into()),
            SetElementList::Elements(elements.collect()),
        ],
    }
}

/// Takes everything out of a set.
pub fn emptied(set: &str) -> Step {
    // Without elements it is all of them.
    let attributes = vec![
        SetElementList::Table(TABLE.into()),
        SetElementList::Set(set.into()),
    ];
    let message = SetElementMessage { attributes };
    Step::change(NfTablesMessage::DeleteSetElement(message))
}

/// An address as an element's key.
pub fn key(address: IpAddr) -> SetElementAttribute {
    SetElementAttribute::Key(DataAttribute::Value(octets(address)))
}

/// For how long an element stays; never for ever, which zero would be.
pub fn timeout(time: Duration) -> SetElementAttribute {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    SetElementAttribute::Timeout(ms)
}

/// What becomes of a place: admitted for a time, with a comment, or not.
type Wanted<'c> = Option<(Duration, &'c str)>;

/// Of each set, what becomes of places in it.
type Sets<'c> = BTreeMap<String, Vec<(Place, Wanted<'c>)>>;

/// Where the changes, one after the other, bring the sets.
fn sets(changes: &[Change]) -> Sets<'_> {
    let mut last: BTreeMap<Place, Wanted> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Admit { place, key, time } => {
                last.insert(*place, Some((*time, key.as_str())));
            }
            Change::Shut { place } => {
                last.insert(*place, None);
            }
        }
    }
    let mut sets = Sets::new();
    for (place, with) in last {
        let set = set_name(place.service, place.address.is_ipv6());
        sets.entry(set).or_default().push((place, with));
    }
    sets
}

/// What admits all of them, where none of them is admitted yet. `None` where one is to be
/// shut.
fn new_steps(sets: &Sets) -> Option<Vec<Step>> {
    let step = |(set, places): (&String, &Vec<(Place, Wanted)>)| {
        let elements = places
            .iter()
            .map(|(place, with)| with.map(|w| element(place, Some(w))));
        let elements = elements.collect::<Option<_>>()?;
        Some(Step::create_new(NfTablesMessage::NewSetElement(many(
            set, elements,
        ))))
    };
    sets.iter().map(step).collect()
}

/// What brings the sets there, whoever is in them.
fn steps(sets: &Sets) -> Vec<Step> {
    let mut steps = Vec::with_capacity(3 * sets.len());
    for (set, places) in sets {
        // The first add makes the delete safe where an element has ended by itself, or
        // never was.
        let any = places.iter().map(|(place, with)| {
            let with = with.unwrap_or((Duration::from_secs(1), ""));
            element(place, Some(with))
        });
        let bare = places.iter().map(|(place, _)| element(place, None));
        let stay = places.iter().filter(|(_, with)| with.is_some());
        let stay: Vec<_> = stay.map(|(place, with)| element(place, *with)).collect();
        let new = |elements| Step::create(NfTablesMessage::NewSetElement(many(set, elements)));
        steps.push(new(any.collect()));
        let gone = NfTablesMessage::DeleteSetElement(many(set, bare.collect()));
        steps.push(Step::change(gone));
        if !stay.is_empty() {
            steps.push(new(stay));
        }
    }
    steps
}

fn element(place: &Place, with: Wanted) -> Vec<SetElementAttribute> {
    let mut attributes = vec![key(place.address)];
    if let Some((time, comment)) = with {
        attributes.push(timeout(time));
        if !comment.is_empty() {
            attributes.push(SetElementAttribute::UserData(user_data(comment)));
        }
    }
    attributes
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
    use oneknock_shared::name::KeyName;
    use std::sync::Arc;

    fn encode(first: u32, changes: &[Change]) -> (Vec<u8>, u32) {
        netlink::encode(first, &steps(&sets(changes)))
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

    /// Of what is not there yet, that is refused where it is.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_new_grant_is_one_message_and_exclusive() {
        let changes = [admit(Duration::from_secs(30))];
        let (bytes, last) = netlink::encode(7, &new_steps(&sets(&changes)).unwrap());
        assert_eq!(last, 8);
        let (renewed, _) = encode(7, &changes);
        // Request, acknowledge; exclusive, create.
        assert_eq!(bytes[26..28], [0x05, 0x06]);
        assert_eq!(bytes[32..112], renewed[32..112]);
        assert_eq!(bytes.len(), 20 + 92 + 20);
        let shut = Change::Shut { place: place() };
        assert!(new_steps(&sets(&[shut])).is_none());
    }

    #[test]
    fn a_connection_that_is_cut_is_read_back_and_garbage_is_none() {
        let more = [17, 0, 0, 0, 0x1f, 0x90, 0, 0, 0, 53, 0, 0];
        for address in ["192.0.2.7", "2001:db8::7"] {
            let remote: IpAddr = address.parse().unwrap();
            let key = [octets(remote), more.to_vec()].concat();
            let length = u16::try_from(4 + key.len()).unwrap().to_ne_bytes();
            let listed = [&length[..], &1_u16.to_ne_bytes(), &key].concat();
            let want = Connection {
                transport: Transport::Udp,
                remote,
                remote_port: 8080,
                port: 53,
            };
            assert_eq!(cut_connection(&[(1, listed)]), Some(want));
        }
        assert_eq!(cut_connection(&[(1, vec![0; 8])]), None);
        assert_eq!(cut_connection(&[]), None);
    }

    #[test]
    fn a_grant_is_never_permanent() {
        let (bytes, _) = encode(1, &[admit(Duration::from_nanos(1))]);
        let timeout = [0, 0, 0, 0, 0, 0, 0, 1, 9];
        assert!(bytes.windows(9).any(|window| window == timeout));
    }

    #[test]
    fn of_several_changes_to_a_place_the_last_holds() {
        let shut = Change::Shut { place: place() };
        let long = || admit(Duration::from_secs(30));
        let one = encode(1, &[long()]);
        assert_eq!(
            encode(1, &[shut.clone(), admit(Duration::from_secs(9)), long()]),
            one
        );
        assert_eq!(encode(1, &[long(), shut.clone()]), encode(1, &[shut]));
    }

    #[test]
    fn as_many_as_go_at_once_fit_into_a_message() {
        let key: KeyName = "k".repeat(64).parse().unwrap();
        let key = Arc::new(key);
        let service = "abcdefghijklmnop".parse().unwrap();
        let changes = (0..AT_ONCE).map(|n| Change::Admit {
            place: Place {
                service,
                address: std::net::Ipv6Addr::from(n as u128).into(),
            },
            key: Arc::clone(&key),
            time: Duration::MAX,
        });
        let (bytes, last) = encode(1, &changes.collect::<Vec<_>>());
        assert_eq!(last, 4, "begin, add, delete, add");
        assert!(bytes.len() < 2 * usize::from(u16::MAX), "{}", bytes.len());
    }

    #[test]
    fn shutting_adds_first_so_that_an_absent_address_is_no_error() {
        let (_, last) = encode(1, &[Change::Shut { place: place() }]);
        assert_eq!(last, 3, "begin, add, delete");
    }
}
