use super::*;

const NO_PORT: BTreeSet<u16> = BTreeSet::new();

fn guarded(services: &[(&str, &[&str])]) -> GuardedPorts {
    let ports = |ports: &[&str]| ports.iter().map(|p| p.parse().unwrap()).collect();
    let services = services.iter();
    GuardedPorts::new(
        services
            .map(|(name, of)| (name.parse().unwrap(), ports(of)))
            .collect(),
    )
}

#[test]
fn port_belongs_to_the_service_of_its_transport() {
    let guarded = guarded(&[("ssh", &["tcp/22"]), ("mosh", &["udp/60000-61000"])]);
    let service = |transport, port| guarded.service(transport, port).map(|s| s.to_string());
    assert_eq!(service(Transport::Tcp, 22).as_deref(), Some("ssh"));
    assert_eq!(service(Transport::Udp, 60_500).as_deref(), Some("mosh"));
    assert_eq!(service(Transport::Udp, 22), None);
}

#[test]
fn few_single_ports_are_asked_for_one_by_one() {
    let guarded = guarded(&[("ssh", &["tcp/22", "tcp/2222"]), ("dns", &["udp/53"])]);
    let tcp = guarded.queries(Transport::Tcp, &[22, 80].into());
    assert_eq!(tcp, [Some(22), Some(80), Some(2222)]);
    assert_eq!(guarded.queries(Transport::Udp, &NO_PORT), [Some(53)]);
}

#[test]
fn range_or_many_ports_are_asked_for_as_all() {
    let range = guarded(&[("ssh", &["tcp/22", "tcp/40-50"])]);
    assert_eq!(range.queries(Transport::Tcp, &NO_PORT), [None]);
    assert_eq!(range.queries(Transport::Udp, &NO_PORT), []);
    let besides: BTreeSet<u16> = (100..105).collect();
    assert_eq!(range.queries(Transport::Udp, &besides), [None]);
}
