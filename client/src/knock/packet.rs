//! One fresh packet to one address.

use crate::knock::address::{AddressBinding, CannotSign};
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::name::ServiceName;
use oneknock_shared::packet;
use oneknock_shared::secret::{NoRandomness, Subkeys, random};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is asked of a server, with the keys to ask it with.
#[derive(Debug, Clone)]
pub struct KnockRequest {
    /// The keys at this server: of one generation, or of each that may work.
    pub keys: Vec<Subkeys>,
    /// Open or close.
    pub action: Action,
    /// The service; `None` is all that the key may open.
    pub service: Option<ServiceName>,
    /// The local address to send from; `None` leaves it to the system.
    pub from: Option<IpAddr>,
}

/// A packet that was sent.
#[derive(Debug)]
pub struct Sent {
    /// The socket, connected to the server: an ICMP error for the packet shows on it.
    pub socket: UdpSocket,
    /// Where it was sent from; its address is the one to connect from.
    pub local: SocketAddr,
    /// The address that was signed.
    pub signed: Option<IpAddr>,
}

/// Why no packet was sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// There is no way to that address, or the system has no socket.
    #[error(transparent)]
    Network(#[from] io::Error),
    /// The address that would have to be signed cannot be.
    #[error(transparent)]
    Address(#[from] CannotSign),
    /// The system gave no random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// There is nothing to knock with.
    #[error("there is no key")]
    NoKey,
    /// The clock is before 1970.
    #[error("this machine's clock is before 1970")]
    Clock,
}

impl KnockRequest {
    /// Seals a packet of its own for `server`, of each generation one, and sends them.
    ///
    /// Each address gets a packet with its own nonce: the same bytes a second time would
    /// be a replay. The socket is made anew as well, since the local address may have
    /// changed.
    pub fn knock(&self, server: SocketAddr, signing: AddressBinding) -> Result<Sent, NotSent> {
        let mut last = Err(NotSent::NoKey);
        for keys in &self.keys {
            last = Ok(self.knock_with(keys, server, signing)?);
        }
        last
    }

    fn knock_with(
        &self,
        keys: &Subkeys,
        server: SocketAddr,
        signing: AddressBinding,
    ) -> Result<Sent, NotSent> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((self.from.unwrap_or(any), 0))?;
        socket.connect(server)?;
        let local = socket.local_addr()?;
        let signed = signing.address(local.ip())?;
        let knock = Knock {
            action: self.action,
            timestamp: now()?,
            address: signed,
            service: self.service,
        };
        let sealed = packet::seal(keys, &knock, random()?);
        socket.send(&sealed)?;
        Ok(Sent {
            socket,
            local,
            signed,
        })
    }
}

/// The one place where the clock is read.
pub fn now() -> Result<Timestamp, NotSent> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| NotSent::Clock)?;
    u64::try_from(since.as_millis())
        .map(Timestamp)
        .map_err(|_| NotSent::Clock)
}

/// What packets say the time is, for a person to compare.
#[must_use]
pub fn clock() -> String {
    match now() {
        Ok(Timestamp(ms)) => {
            let time = UNIX_EPOCH + Duration::from_millis(ms);
            humantime::format_rfc3339_seconds(time).to_string()
        }
        Err(why) => why.to_string(),
    }
}
