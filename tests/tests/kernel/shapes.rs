//! Every shape of a guard.

use oneknock_shared::secret::ServerId;
use oneknockd::kernel::{Guard, GuardMode, GuardedService, SequenceGuard, SequenceSteps};
use std::time::Duration;

/// One service, nothing else.
pub fn plain() -> Guard {
    Guard {
        server: "AAECAwQFBgcICQoLDA0ODw==".parse::<ServerId>().unwrap(),
        mode: GuardMode::Monitored,
        enforcing: true,
        trial: None,
        services: vec![service("ssh", &["tcp/22"])],
        trusted: Vec::new(),
        listen: vec!["0.0.0.0:45123".parse().unwrap()],
        sequence: None,
        prefilter_open: false,
        blocked_gateways: Vec::new(),
    }
}

pub fn service(name: &str, ports: &[&str]) -> GuardedService {
    GuardedService {
        name: name.parse().unwrap(),
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
    }
}

pub fn fixed() -> SequenceGuard {
    let steps = ["tcp/7000", "udp/8000", "tcp/300", "udp/9000"];
    let steps = steps.map(|port| port.parse().unwrap());
    SequenceGuard {
        service: "ssh".parse().unwrap(),
        steps: SequenceSteps::Fixed(steps.into()),
        step_time: Duration::from_secs(10),
        open_for: Duration::from_secs(20),
        ignored: vec!["tcp/80".parse().unwrap(), "udp/45123".parse().unwrap()],
    }
}

pub fn rolling() -> SequenceGuard {
    SequenceGuard {
        steps: SequenceSteps::Rolling,
        ..fixed()
    }
}

/// Each with what it is called.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn all() -> Vec<(&'static str, Guard)> {
    let listen = |addresses: &[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect();
    let trusted = |networks: &[(&str, u8)]| {
        let networks = networks.iter();
        networks
            .map(|(ip, bits)| (ip.parse().unwrap(), *bits))
            .collect()
    };
    let many = vec![
        service("ssh", &["tcp/22", "tcp/2222-2230"]),
        service("mosh", &["udp/60000-61000"]),
        service("vpn", &["udp/51820", "tcp/443", "udp/1-1023"]),
        service("abcdefghijklmnop", &["tcp/65535"]),
        service("cut-v", &["tcp/1"]),
        service("grace", &["tcp/2"]),
        service("step", &["tcp/3"]),
    ];
    let v4 = [("10.0.0.0", 8), ("192.0.2.7", 32), ("100.64.0.0", 10)];
    let v6 = [("fd00:1::", 64), ("2001:db8::", 33), ("2001:db8::1", 128)];
    vec![
        ("plain", plain()),
        (
            "open prefilter",
            Guard {
                prefilter_open: true,
                ..plain()
            },
        ),
        (
            "exclusive",
            Guard {
                mode: GuardMode::Exclusive,
                ..plain()
            },
        ),
        (
            "trial",
            Guard {
                enforcing: false,
                ..plain()
            },
        ),
        (
            "nothing",
            Guard {
                services: Vec::new(),
                listen: Vec::new(),
                ..plain()
            },
        ),
        (
            "many services",
            Guard {
                services: many.clone(),
                ..plain()
            },
        ),
        (
            "trusted v4",
            Guard {
                trusted: trusted(&v4),
                ..plain()
            },
        ),
        (
            "trusted v6",
            Guard {
                trusted: trusted(&v6),
                ..plain()
            },
        ),
        (
            "trusted both",
            Guard {
                trusted: trusted(&[&v4[..], &v6].concat()),
                ..plain()
            },
        ),
        (
            "several listens",
            Guard {
                listen: listen(&[
                    "0.0.0.0:62201",
                    "[::]:62201",
                    "192.0.2.1:53",
                    "[2001:db8::1]:53",
                ]),
                ..plain()
            },
        ),
        (
            "fixed sequence",
            Guard {
                sequence: Some(fixed()),
                ..plain()
            },
        ),
        (
            "fixed sequence, gateways, many services, trial",
            Guard {
                sequence: Some(fixed()),
                services: many.clone(),
                enforcing: false,
                trusted: trusted(&[&v4[..], &v6].concat()),
                blocked_gateways: vec!["192.0.2.254".parse().unwrap(), "fe80::1".parse().unwrap()],
                ..plain()
            },
        ),
        (
            "rolling sequence",
            Guard {
                sequence: Some(rolling()),
                ..plain()
            },
        ),
        (
            "rolling sequence, exclusive, many services",
            Guard {
                sequence: Some(rolling()),
                mode: GuardMode::Exclusive,
                services: many,
                listen: listen(&["0.0.0.0:62201", "[::]:62201"]),
                ..plain()
            },
        ),
    ]
}
