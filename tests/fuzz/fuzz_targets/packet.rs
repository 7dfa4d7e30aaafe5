//! No bytes but those that a holder of the key has sealed are authentic; what is sealed
//! is read strictly, and what is read is written again as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneknock_fuzz::{forge, keys};
use oneknock_shared::packet::{Packet, seal};

fuzz_target!(|data: &[u8]| {
    let keys = keys();
    // As it came.
    if let Some(packet) = Packet::read(data) {
        assert_eq!(data.len(), 112);
        if let Some(authentic) = packet.verify(&keys)
            && let Ok(request) = authentic.open()
        {
            let nonce = data[8..20].try_into().expect("12 bytes");
            assert_eq!(
                seal(&keys, request.knock(), nonce),
                data,
                "one packet, one knock"
            );
        }
    } else {
        assert_ne!(data.len(), 112);
    }
    // As the inside of a packet that is authentic, and one that was then changed.
    let Some((plain, rest)) = data.split_first_chunk::<44>() else {
        return;
    };
    let stamp = u64::from_be_bytes(plain[4..12].try_into().expect("8 bytes"));
    let forged = forge(plain, stamp / 60_000, [7; 12]);
    let packet = Packet::read(&forged).expect("the right length");
    let authentic = packet.verify(&keys).expect("authentic");
    if let Ok(request) = authentic.open() {
        assert_eq!(&request.knock().encode(), plain, "one knock, one encoding");
        assert_eq!(request.timestamp().0, stamp);
        assert_eq!(seal(&keys, request.knock(), [7; 12]), forged);
    }
    if let &[at, flip, ..] = rest
        && flip != 0
    {
        let mut changed = forged;
        changed[usize::from(at) % 112] ^= flip;
        let packet = Packet::read(&changed).expect("the right length");
        assert!(packet.verify(&keys).is_none(), "changed, and authentic");
    }
});
