use super::*;
use proptest::prelude::*;
use std::fmt::Write;

/// Bytes of the headers of netlink and of netfilter.
const HEADERS: usize = 20;

/// The messages of a batch without its begin and end, each as text: kind, flags, and the
/// attributes by number, bytes in hexadecimal.
pub fn messages(mut batch: Batch) -> Vec<String> {
    let all = whole_messages(batch.finish(7));
    let inner = &all[1..all.len() - 1];
    inner.iter().map(|message| message_text(message)).collect()
}

fn whole_messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
        let (one, rest) = bytes.split_at(length as usize);
        found.push(one);
        bytes = rest;
    }
    found
}

fn message_text(message: &[u8]) -> String {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    assert_eq!((kind >> 8, message[16]), (10, 1), "nftables, inet");
    let flags = u16::from_ne_bytes([message[6], message[7]]);
    let (kind, attributes) = (kind & 0xff, attributes_text(&message[HEADERS..]));
    format!("{kind} {flags:#x} {attributes}")
}

fn attributes_text(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some(header) = bytes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value = &bytes[4..length];
        let space = if text.is_empty() { "" } else { " " };
        let is_text = |rest: &[u8]| rest.len() > 1 && rest.iter().all(u8::is_ascii_graphic);
        if kind & 0x8000 != 0 {
            let (kind, inner) = (kind & 0x3fff, attributes_text(value));
            let _ = write!(text, "{space}{kind}[{inner}]");
        } else if let Some(name) = value.strip_suffix(&[0]).filter(|rest| is_text(rest)) {
            let name = str::from_utf8(name).unwrap();
            let _ = write!(text, "{space}{kind}={name:?}");
        } else {
            let _ = write!(text, "{space}{kind}=");
            for byte in value {
                let _ = write!(text, "{byte:02x}");
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// What a little-endian machine sends, byte by byte.
#[cfg(target_endian = "little")]
mod bytes {
    use super::*;

    #[test]
    fn batch_is_begin_numbered_messages_and_end() {
        let mut batch = Batch::new();
        batch.push(kind::NEW_TABLE, CREATE, |table| table.text(1, "one"));
        batch.push(kind::NEW_ELEMENT, CREATE_NEW, |element| {
            element.nest(3, |list| list.nest(1, |one| one.bytes(1, &[9; 5])));
            element.long(4, 30_000);
            element.number(5, 7);
        });
        let sent = batch.finish(7);
        let want = [
            "14 00 00 00 10 00 01 00 07 00 00 00 00 00 00 00 00 00 00 0a",
            "1c 00 00 00 00 0a 01 04 08 00 00 00 00 00 00 00 01 00 00 00 \
             08 00 01 00 6f 6e 65 00",
            "3c 00 00 00 0c 0a 05 06 09 00 00 00 00 00 00 00 01 00 00 00 \
             14 00 03 80 10 00 01 80 09 00 01 00 09 09 09 09 09 00 00 00 \
             0c 00 04 00 00 00 00 00 00 00 75 30 08 00 05 00 00 00 00 07",
            "14 00 00 00 11 00 01 00 0a 00 00 00 00 00 00 00 00 00 00 0a",
        ];
        assert_eq!(hex(sent), want.join(" "));
    }

    #[test]
    fn questions_are_these_bytes() {
        let of = Writer::body(INET, |message| message.text(1, "one"));
        let one = question(kind::GET_TABLE, NLM_F_ACK, 5, &of);
        let want = "1c 00 00 00 01 0a 05 00 05 00 00 00 00 00 00 00 01 00 00 00 \
                    08 00 01 00 6f 6e 65 00";
        assert_eq!(hex(&one), want);
        let all = question(kind::GET_CHAIN, NLM_F_DUMP, 6, &Writer::body(INET, |_| {}));
        let want = "14 00 00 00 04 0a 01 03 06 00 00 00 00 00 00 00 01 00 00 00";
        assert_eq!(hex(&all), want);
    }
}

#[test]
fn subject_names_what_a_message_is_about() {
    let mut batch = Batch::new();
    batch.push(kind::NEW_TABLE, CREATE, |table| {
        table.text(1, "oneknock");
        table.number(2, 6);
    });
    batch.push(kind::DELETE_RULE, 0, |rules| rules.text(1, "oneknock"));
    for _ in 0..2 {
        batch.push(kind::NEW_RULE, CREATE, |rule| {
            rule.text(1, "oneknock");
            rule.text(2, "guard");
        });
    }
    batch.push(kind::NEW_CHAIN, CREATE, |chain| {
        chain.text(1, "oneknock");
        chain.text(3, "guard");
    });
    batch.push(kind::NEW_ELEMENT, CREATE, |elements| {
        elements.text(1, "oneknock");
        elements.text(2, "ssh4");
    });
    batch.finish(1);
    let said: Vec<String> = (0..6)
        .map(|at| batch.subject(at).unwrap().to_string())
        .collect();
    let want = [
        "table oneknock",
        "the removal of the rules of oneknock",
        "rule 1 of chain guard",
        "rule 2 of chain guard",
        "chain guard",
        "elements of set ssh4",
    ];
    assert_eq!(said, want);
    assert_eq!(batch.subject(6), None);
}

/// A message as the kernel sends it.
fn answer(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn code(sequence: u32, code: i32) -> Vec<u8> {
    answer(
        2,
        0,
        sequence,
        &[&code.to_ne_bytes()[..], &[0; 16]].concat(),
    )
}

/// Hands these out.
fn receive(
    datagrams: &[Vec<u8>],
) -> impl FnMut(&mut dyn FnMut(&RawMessage<'_>)) -> io::Result<bool> {
    let mut rest = datagrams.iter();
    move |each| {
        let next = rest.next();
        let messages = next.into_iter().flat_map(|bytes| super::messages(bytes));
        messages.for_each(|message| each(&message));
        Ok(next.is_some())
    }
}

mod batches {
    use super::*;

    /// To a batch of three messages that begins with 10.
    fn outcome(datagrams: &[Vec<u8>]) -> Result<(), (Option<usize>, Option<i32>)> {
        let outcome = batch_outcome(10, 3, receive(datagrams));
        outcome.map_err(|(at, error)| (at, error.raw_os_error()))
    }

    #[test]
    fn acknowledgement_of_last_message_is_success() {
        assert_eq!(outcome(&[code(13, 0)]), Ok(()));
        assert_eq!(outcome(&[code(12, 0), code(13, 0)]), Ok(()));
    }

    #[test]
    fn no_or_other_acknowledgement_is_failure() {
        assert_eq!(outcome(&[]), Err((None, None)));
        assert_eq!(outcome(&[code(12, 0), code(14, 0)]), Err((None, None)));
        for earlier in [9, 15, 3, u32::MAX] {
            assert_eq!(outcome(&[code(earlier, 0)]), Err((None, None)));
        }
    }

    #[test]
    fn first_error_counts_whatever_is_acknowledged() {
        let both = [code(11, 0), code(12, -2), code(13, -17)].concat();
        assert_eq!(outcome(&[both]), Err((Some(1), Some(2))));
        let all = [code(10, -1), code(13, 0)];
        assert_eq!(outcome(&all), Err((None, Some(1))));
        assert_eq!(outcome(&[code(9, -2), code(13, 0)]), Ok(()));
    }

    #[test]
    fn numbers_wrap_around() {
        assert!(batch_outcome(u32::MAX - 1, 3, receive(&[code(1, 0)])).is_ok());
    }

    /// More failed than there is room to say: what was said is read still.
    #[test]
    fn full_buffer_is_a_failure_and_hides_none_that_was_said() {
        let outcome = |said: Vec<u8>| {
            let mut rest = [Err(io::Error::from(Errno::ENOBUFS)), Ok(said)].into_iter();
            let outcome = batch_outcome(10, 3, |each| {
                let Some(datagram) = rest.next() else {
                    return Ok(false);
                };
                let datagram: Vec<u8> = datagram?;
                super::super::messages(&datagram).for_each(|message| each(&message));
                Ok(true)
            });
            outcome.unwrap_err()
        };
        assert_eq!(outcome(code(12, -2)).0, Some(1));
        let (at, error) = outcome(code(13, 0));
        let full = Some(Errno::ENOBUFS as i32);
        assert_eq!((at, error.raw_os_error()), (None, full));
    }

    #[test]
    fn error_without_code_and_garbage_are_failures() {
        assert_eq!(outcome(&[answer(2, 0, 13, &[])]), Err((Some(2), Some(1))));
        for garbage in [&[0xff; 15][..], &[0; 64], &code(13, 0)[..17]] {
            assert_eq!(outcome(&[garbage.to_vec()]), Err((None, None)));
        }
    }
}

mod lists {
    use super::*;

    /// To the question with the number 5: the bytes of each answer, and how it ended.
    fn list(datagrams: &[Vec<u8>]) -> (Vec<u8>, Option<Result<bool, i32>>) {
        let mut found = Vec::new();
        let each = |one: &RawMessage<'_>| found.extend(one.attributes().get(1).unwrap());
        let ended = list_outcome(5, receive(datagrams), each);
        let ended = match ended {
            Ok(is_whole) => Some(Ok(is_whole)),
            Err(error) => error.raw_os_error().map(Err),
        };
        (found, ended)
    }

    fn one(flags: u16, sequence: u32, value: u8) -> Vec<u8> {
        answer(0xa0c, flags, sequence, &[1, 0, 0, 0, 5, 0, 1, 0, value])
    }

    fn done(code: i32) -> Vec<u8> {
        answer(3, 2, 5, &code.to_ne_bytes())
    }

    #[test]
    fn parts_are_read_up_to_the_end() {
        let two = [one(2, 5, 1), one(2, 4, 9), one(2, 5, 2)].concat();
        assert_eq!(list(std::slice::from_ref(&two)), (vec![1, 2], None));
        assert_eq!(list(&[two, done(0)]), (vec![1, 2], Some(Ok(true))));
        assert_eq!(list(&[done(-2)]), (vec![], Some(Err(2))));
        assert_eq!(list(&[code(5, -1)]), (vec![], Some(Err(1))));
        assert_eq!(list(&[code(4, -1)]), (vec![], None));
    }

    #[test]
    fn code_that_cannot_be_negated_is_still_an_error() {
        assert!(matches!(list(&[done(i32::MIN)]).1, Some(Err(_))));
    }

    #[test]
    fn interrupted_list_is_not_whole() {
        let interrupted = 0x10;
        let (_, ended) = list(&[one(2 | interrupted, 5, 1), one(2, 5, 2), done(0)]);
        assert_eq!(ended, Some(Ok(false)));
        let end = answer(3, 2 | interrupted, 5, &[0; 4]);
        assert_eq!(list(&[one(2, 5, 1), end]).1, Some(Ok(false)));
        assert_eq!(list(&[one(2, 5, 1), done(-4)]).1, Some(Ok(false)));
    }
}

#[test]
fn attributes_are_read_and_garbage_is_not() {
    let two = [8, 0, 1, 0x80, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0];
    let read = |bytes| -> Vec<(u16, Vec<u8>)> {
        let each = Attributes(bytes).each();
        each.map(|(kind, value)| (kind, value.to_vec())).collect()
    };
    assert_eq!(read(&two), [(1, vec![1, 2, 3, 4]), (2, vec![9])]);
    assert_eq!(read(&two[..11]), [(1, vec![1, 2, 3, 4])]);
    assert_eq!(read(&[0; 16]), []);
    assert_eq!(read(&[0xff; 16]), []);
    let all = Attributes(&two);
    assert_eq!(all.get(2), Some(&[9][..]));
    assert_eq!(all.number(1), Some(0x0102_0304));
    assert_eq!((all.number(2), all.long(1), all.get(3)), (None, None, None));
}

/// A message from this port, of kind 2.
fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = answer(2, 0x10, 5, body);
    bytes[12..16].copy_from_slice(&7_u32.to_ne_bytes());
    bytes
}

#[test]
fn messages_are_read_up_to_the_first_that_is_cut_short() {
    let two = [message(&(-5_i32).to_ne_bytes()), message(b"abcde")].concat();
    let read: Vec<_> = super::messages(&two).collect();
    let first = RawMessage {
        kind: 2,
        flags: 0x10,
        sequence: 5,
        port: 7,
        body: &(-5_i32).to_ne_bytes(),
    };
    assert_eq!(read[0], first);
    assert_eq!((read[0].code(), read[1].body), (-5, &b"abcde"[..]));
    assert_eq!(super::messages(&two[..two.len() - 4]).count(), 1);
    assert_eq!(super::messages(&[0xff; 64]).count(), 0);
    assert_eq!(super::messages(&[0; 64]).count(), 0);
}

proptest! {
    #[test]
    fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(super::messages(&bytes).count() <= bytes.len() / 16);
        prop_assert!(Attributes(&bytes).each().count() <= bytes.len() / 4);
    }
}
