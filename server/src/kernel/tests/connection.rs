use super::*;
use proptest::prelude::*;

#[test]
fn set_key_is_these_bytes() {
    let connection = ConnectionId {
        transport: Transport::Udp,
        remote: [192, 0, 2, 7].into(),
        remote_port: 8080,
        port: 53,
    };
    let want = [192, 0, 2, 7, 17, 0, 0, 0, 0x1f, 0x90, 0, 0, 0, 53, 0, 0];
    assert_eq!(connection.set_key(), want);
}

proptest! {
    #[test]
    fn set_key_is_read_back(
        is_tcp: bool,
        remote: IpAddr,
        remote_port: u16,
        port: u16,
    ) {
        let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
        let connection = ConnectionId { transport, remote, remote_port, port };
        let key = connection.set_key();
        prop_assert_eq!(ConnectionId::from_set_key(&key), Some(connection));
    }

    #[test]
    fn garbage_of_another_length_is_no_key(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let is_key = ConnectionId::from_set_key(&bytes).is_some();
        prop_assert!(!is_key || [16, 28].contains(&bytes.len()));
    }
}
