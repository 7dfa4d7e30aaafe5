use super::*;

const NOW: Duration = Duration::from_secs(1000);

/// A set that can be made to fail.
#[derive(Default)]
struct TestSet {
    blocked: BTreeSet<ConnectionId>,
    longest: Duration,
    calls: usize,
    fails: bool,
}

impl TestSet {
    fn called(&mut self) -> Result<(), KernelError> {
        self.calls += 1;
        if self.fails {
            return Err(KernelError::Missing("the table".into()));
        }
        Ok(())
    }
}

impl BlockedSet for TestSet {
    fn change(&mut self, connections: &[BlockChange]) -> Result<(), KernelError> {
        self.called()?;
        for (connection, time) in connections {
            match time {
                Some(_) => self.blocked.insert(*connection),
                None => self.blocked.remove(connection),
            };
            self.longest = self.longest.max(time.unwrap_or_default());
        }
        Ok(())
    }
}

fn connection(transport: Transport, last: u8) -> ConnectionId {
    ConnectionId {
        transport,
        remote: [192, 0, 2, last].into(),
        remote_port: 40_000,
        port: 22,
    }
}

fn source(last: u8) -> Source {
    Source::of([192, 0, 2, last].into())
}

#[test]
fn datagrams_return_with_a_grant_and_ended_tcp_does_not() {
    let (mut blocked, mut set) = (BlockedConnections::default(), TestSet::default());
    let (udp, tcp) = (connection(Transport::Udp, 7), connection(Transport::Tcp, 7));
    let reason = BlockReason::Disconnected;
    blocked.block(NOW, &[udp, tcp], reason, &mut set).unwrap();
    blocked.admit(source(8), &mut set).unwrap();
    assert_eq!(set.blocked, [udp, tcp].into());
    blocked.admit(source(7), &mut set).unwrap();
    assert_eq!(set.blocked, [tcp].into());
}

#[test]
fn connection_made_in_a_gap_returns_unless_it_was_ended_too() {
    let (mut blocked, mut set) = (BlockedConnections::default(), TestSet::default());
    let (ended, other) = (connection(Transport::Tcp, 7), connection(Transport::Tcp, 8));
    let made = [ended, other];
    blocked
        .block(NOW, &made, BlockReason::MadeInGap, &mut set)
        .unwrap();
    blocked
        .block(NOW, &[ended], BlockReason::Disconnected, &mut set)
        .unwrap();
    assert_eq!(blocked.count(), 2);
    blocked.admit(source(7), &mut set).unwrap();
    blocked.admit(source(8), &mut set).unwrap();
    assert_eq!(set.blocked, [ended].into());
}

#[test]
fn admitting_costs_nothing_where_nothing_returns() {
    let (mut blocked, mut set) = (BlockedConnections::default(), TestSet::default());
    let tcp = connection(Transport::Tcp, 7);
    blocked
        .block(NOW, &[tcp], BlockReason::Disconnected, &mut set)
        .unwrap();
    for last in [7, 8] {
        blocked.admit(source(last), &mut set).unwrap();
    }
    assert_eq!(set.calls, 1);
}

#[test]
fn what_the_set_refused_is_kept_and_written_again() {
    let mut blocked = BlockedConnections::default();
    let mut set = TestSet {
        fails: true,
        ..TestSet::default()
    };
    let udp = connection(Transport::Udp, 7);
    blocked
        .block(NOW, &[udp], BlockReason::Disconnected, &mut set)
        .unwrap_err();
    set.fails = false;
    blocked
        .write_all(NOW + Duration::from_secs(60), &mut set)
        .unwrap();
    assert_eq!(set.blocked, [udp].into());
    assert_eq!(
        set.longest,
        BLOCK_TIME.saturating_sub(Duration::from_secs(60))
    );
    set.fails = true;
    blocked.admit(source(7), &mut set).unwrap_err();
    set.fails = false;
    blocked.admit(source(7), &mut set).unwrap();
    assert!(set.blocked.is_empty());
    assert_eq!(blocked.count(), 0);
}

#[test]
fn expired_entries_are_forgotten() {
    let (mut blocked, mut set) = (BlockedConnections::default(), TestSet::default());
    let all: Vec<_> = (0..9).map(|n| connection(Transport::Tcp, n)).collect();
    blocked
        .block(NOW, &all, BlockReason::Disconnected, &mut set)
        .unwrap();
    blocked.forget_expired(NOW + BLOCK_TIME.saturating_sub(Duration::from_secs(1)));
    assert_eq!(blocked.count(), 9);
    blocked.write_all(NOW + BLOCK_TIME, &mut set).unwrap();
    assert_eq!((blocked.count(), set.calls), (0, 1));
}

#[test]
fn loaded_datagrams_return_and_loaded_tcp_does_not() {
    let (mut blocked, mut set) = (BlockedConnections::default(), TestSet::default());
    let (udp, tcp) = (connection(Transport::Udp, 7), connection(Transport::Tcp, 7));
    let hour = Duration::from_secs(3600);
    set.blocked = [udp, tcp].into();
    blocked.load(NOW, &[(udp, hour), (tcp, hour)]);
    blocked.admit(source(7), &mut set).unwrap();
    assert_eq!(set.blocked, [tcp].into());
    blocked.forget_expired(NOW + hour);
    assert_eq!(blocked.count(), 0);
}
