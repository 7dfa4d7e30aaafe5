//! The configuration as the kernel room wants it: the guard.

use super::{Config, Sequence, Service, Steps};
use crate::kernel::{Guard, GuardedService, SequenceGuard, SequenceSteps};
use oneknock_shared::port::{Ports, Transport};
use std::net::IpAddr;

impl Config {
    /// The guard that this configuration describes, on a machine with these default
    /// gateways. It guards at all times where it is `enforcing`, else only while a trial
    /// lasts.
    #[must_use]
    pub fn guard(&self, enforcing: bool, gateways: &[IpAddr]) -> Guard {
        Guard {
            server: self.server_id,
            mode: self.guard,
            enforcing,
            trial: None,
            services: self.services.iter().map(guarded).collect(),
            trusted: self
                .trusted
                .iter()
                .map(|network| (network.network(), network.prefix_len()))
                .collect(),
            listen: self.listen.clone(),
            sequence: self.sequence.as_ref().map(|of| sequence(of, self.port)),
            prefilter_open: false,
            blocked_gateways: self.blocked_gateways(gateways),
        }
    }

    /// Which of these gateways the port sequence never admits.
    #[must_use]
    pub fn blocked_gateways(&self, gateways: &[IpAddr]) -> Vec<IpAddr> {
        if self.allow_gateway || self.sequence.is_none() {
            return Vec::new();
        }
        gateways.to_vec()
    }
}

fn guarded(service: &Service) -> GuardedService {
    GuardedService {
        name: service.name,
        ports: service.ports.clone(),
    }
}

/// `port` is where clients knock: a packet to it is no step and no misstep.
fn sequence(sequence: &Sequence, port: u16) -> SequenceGuard {
    let knocks = Ports::single(Transport::Udp, port);
    SequenceGuard {
        service: sequence.service,
        steps: match &sequence.steps {
            Steps::Fixed(steps) => SequenceSteps::Fixed(steps.clone()),
            Steps::Rolling => SequenceSteps::Rolling,
        },
        step_time: sequence.step_time,
        open_for: sequence.open_for,
        ignored: sequence.public.iter().copied().chain(knocks).collect(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse_config;
    use std::path::Path;

    #[test]
    fn knock_to_the_outside_port_is_no_misstep() {
        let text = "name = \"home\"\nhost = \"home.test\"\nport = 4000\nlisten = [\"0.0.0.0:5000\"]\n\
                    server_id = \"AAAAAAAAAAAAAAAAAAAAAA==\"\n\
                    [[service]]\nname = \"ssh\"\nports = [\"tcp/22\"]\n\
                    [sequence]\nservice = \"ssh\"\nports = [\"tcp/7000\", \"udp/8000\", \"tcp/300\", \"udp/9000\"]\n";
        let config = parse_config(Path::new("oneknockd.toml"), text).unwrap();
        let sequence = config.guard(true, &[]).sequence.unwrap();
        assert_eq!(sequence.ignored, ["udp/4000".parse().unwrap()]);
    }
}
