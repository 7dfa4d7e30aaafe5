//! Translates records to the fields of their encoding, and back.

use super::codec::{EMPTY, MAX_WALL, RecordFields};
use super::record::{FileHeader, FileKind, LogRecord};
use crate::engine::{Close, EndReason, Grant, Now, Source, Spend, Target};
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::ServiceName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

const SEGMENT_FORMAT: &str = "oneknock log 1";
const SNAPSHOT_FORMAT: &str = "oneknock snapshot 1";
const SIGNED: u8 = 1;
const CLOSE: u8 = 2;
const RENEWED: u8 = 4;
/// Bits of an IPv6 address: the source is a single address.
const WHOLE_ADDRESS: u8 = 128;

impl RecordFields {
    /// The record's fields.
    pub fn of(record: &LogRecord) -> Self {
        let mut fields = EMPTY;
        match record {
            LogRecord::Header(header) => fields.set_header(header),
            LogRecord::Spent { spend, wall } => fields.set_spend(spend, *wall),
            LogRecord::Granted {
                grant,
                renewed,
                from,
                now,
            } => {
                fields.set_grant(4, grant, now.wall);
                fields.flags = if *renewed { RENEWED } else { 0 };
                fields.from = mapped(*from);
                fields.detail[8..16].copy_from_slice(&nanos(now.mono).to_be_bytes());
            }
            LogRecord::Closed { grant, wall } => fields.set_grant(5, grant, *wall),
            LogRecord::Ended { grant, why, wall } => {
                fields.set_grant(6, grant, *wall);
                fields.why = why_code(*why);
            }
            LogRecord::Retiring {
                key,
                generation,
                number,
                ends,
                newer,
                wall,
            } => {
                fields.set(7, generation.0, *ends);
                fields.set_name(key.as_str());
                (fields.number, fields.wall) = (*number, wall.0.min(MAX_WALL));
                fields.detail[..4].copy_from_slice(&newer.to_be_bytes());
            }
            LogRecord::Floor(generation, at) => fields.set(8, generation.0, *at),
            LogRecord::DefaultFloor(at) => fields.set(9, [0; 16], *at),
            LogRecord::Close(close) => {
                fields.set(10, [0; 16], close.at);
                fields.set_name(close.key.as_str());
                fields.set_target(close.service, close.source);
            }
            LogRecord::Grant(grant) => fields.set_grant(11, grant, Timestamp(0)),
            LogRecord::Retirement(generation, at) => fields.set(12, generation.0, *at),
            LogRecord::Seen(generation, at, id) => {
                fields.set(13, generation.0, *at);
                fields.detail = id.0;
            }
            LogRecord::Continued => fields.kind = 14,
            LogRecord::End => fields.kind = 15,
        }
        fields
    }

    fn set(&mut self, kind: u8, id: [u8; 16], at: Timestamp) {
        (self.kind, self.id, self.at) = (kind, id, at.0);
    }

    fn set_name(&mut self, name: &str) {
        // A name is never longer than its field.
        let len = name.len().min(self.name.len());
        self.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    }

    fn set_target(&mut self, service: Option<ServiceName>, source: Source) {
        self.service = service.map_or([0; 16], |service| service.field());
        (self.source, self.prefix) = (mapped(source.address()), WHOLE_ADDRESS);
    }

    fn set_header(&mut self, header: &FileHeader) {
        let (kind, format) = match header.kind {
            FileKind::Segment => (1, SEGMENT_FORMAT),
            FileKind::Snapshot => (2, SNAPSHOT_FORMAT),
        };
        (self.kind, self.id, self.number) = (kind, header.run, header.number);
        self.set_name(format);
        self.detail[..4].copy_from_slice(&header.first.to_be_bytes());
    }

    fn set_spend(&mut self, spend: &Spend, wall: Timestamp) {
        self.set(3, spend.generation.0, spend.at);
        self.set_name(spend.key.as_str());
        self.set_target(spend.service, spend.source);
        (self.number, self.wall) = (spend.number, wall.0.min(MAX_WALL));
        (self.from, self.detail) = (mapped(spend.from), spend.id.0);
        match spend.action {
            Action::Open { seconds } => self.seconds = seconds,
            Action::Close => self.flags |= CLOSE,
        }
        self.flags |= if spend.is_signed { SIGNED } else { 0 };
    }

    fn set_grant(&mut self, kind: u8, grant: &Grant, wall: Timestamp) {
        self.set(kind, grant.generation.0, grant.opened);
        self.set_name(grant.key.as_str());
        self.set_target(Some(grant.target.service), grant.target.source);
        (self.number, self.wall) = (grant.number, wall.0.min(MAX_WALL));
        self.detail[..8].copy_from_slice(&nanos(grant.until).to_be_bytes());
    }

    /// The record of these fields; none where they are no record's.
    pub fn record(&self) -> Option<LogRecord> {
        let (generation, at) = (GenerationId(self.id), Timestamp(self.at));
        let wall = Timestamp(self.wall);
        Some(match self.kind {
            1 | 2 => LogRecord::Header(self.header()?),
            3 => LogRecord::Spent {
                spend: self.spend()?,
                wall,
            },
            4 => LogRecord::Granted {
                grant: self.grant()?,
                renewed: self.flags == RENEWED,
                from: canonical(self.from),
                now: Now {
                    wall,
                    mono: Duration::from_nanos(self.detail_u64(8)?),
                },
            },
            5 => LogRecord::Closed {
                grant: self.grant()?,
                wall,
            },
            6 => LogRecord::Ended {
                grant: self.grant()?,
                why: why(self.why)?,
                wall,
            },
            7 => LogRecord::Retiring {
                key: Arc::new(self.name()?.parse().ok()?),
                generation,
                number: self.number,
                ends: at,
                newer: self.detail_u32()?,
                wall,
            },
            8 => LogRecord::Floor(generation, at),
            9 => LogRecord::DefaultFloor(at),
            10 => LogRecord::Close(Close {
                key: self.name()?.parse().ok()?,
                service: self.service()?,
                source: Source::of(canonical(self.source)),
                at,
            }),
            11 => LogRecord::Grant(self.grant()?),
            12 => LogRecord::Retirement(generation, at),
            13 => LogRecord::Seen(generation, at, PacketId(self.detail)),
            14 => LogRecord::Continued,
            15 => LogRecord::End,
            _ => return None,
        })
    }

    fn header(&self) -> Option<FileHeader> {
        let (kind, format) = match self.kind {
            1 => (FileKind::Segment, SEGMENT_FORMAT),
            _ => (FileKind::Snapshot, SNAPSHOT_FORMAT),
        };
        let header = FileHeader {
            kind,
            run: self.id,
            number: self.number,
            first: self.detail_u32()?,
        };
        (self.name()? == format).then_some(header)
    }

    fn spend(&self) -> Option<Spend> {
        let action = if self.flags & CLOSE == 0 {
            let seconds = self.seconds;
            Action::Open { seconds }
        } else {
            Action::Close
        };
        Some(Spend {
            key: Arc::new(self.name()?.parse().ok()?),
            generation: GenerationId(self.id),
            number: self.number,
            at: Timestamp(self.at),
            id: PacketId(self.detail),
            from: canonical(self.from),
            source: Source::of(canonical(self.source)),
            is_signed: self.flags & SIGNED != 0,
            action,
            service: self.service()?,
        })
    }

    fn grant(&self) -> Option<Grant> {
        Some(Grant {
            key: Arc::new(self.name()?.parse().ok()?),
            generation: GenerationId(self.id),
            number: self.number,
            target: Target {
                service: self.service()??,
                source: Source::of(canonical(self.source)),
            },
            opened: Timestamp(self.at),
            until: Duration::from_nanos(self.detail_u64(0)?),
        })
    }

    fn name(&self) -> Option<&str> {
        let end = self.name.iter().position(|byte| *byte == 0);
        str::from_utf8(&self.name[..end.unwrap_or(self.name.len())]).ok()
    }

    /// The service; the inner `None` where the field is zero, the outer one where it is no name.
    #[expect(clippy::option_option, reason = "no service is a value here")]
    fn service(&self) -> Option<Option<ServiceName>> {
        match self.service {
            field if field == [0; 16] => Some(None),
            field => ServiceName::from_field(field).map(Some),
        }
    }

    fn detail_u64(&self, from: usize) -> Option<u64> {
        let bytes = self.detail.get(from..)?.first_chunk()?;
        Some(u64::from_be_bytes(*bytes))
    }

    fn detail_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.detail.first_chunk()?))
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn canonical(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

/// Nanoseconds since boot, for some 584 years.
fn nanos(mono: Duration) -> u64 {
    u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX)
}

fn why_code(why: EndReason) -> u8 {
    match why {
        EndReason::Expired => 1,
        EndReason::Revoked => 2,
        EndReason::KeyChanged => 3,
        EndReason::Reboot => 4,
    }
}

fn why(code: u8) -> Option<EndReason> {
    [
        EndReason::Expired,
        EndReason::Revoked,
        EndReason::KeyChanged,
        EndReason::Reboot,
    ]
    .into_iter()
    .find(|why| why_code(*why) == code)
}
