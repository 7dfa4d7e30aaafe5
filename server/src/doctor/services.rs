//! Whether something listens on the ports of the services.

use super::{Check, Finding, Subject};
use oneknock_shared::port::Ports;

/// See the module.
pub struct Services;

impl Check for Services {
    fn code(&self) -> &'static str {
        "E-SERVICE"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let services = subject.config.map_or(&[][..], |config| &config.services);
        let mut found = Vec::new();
        for service in services {
            // The ports of a range are taken when a client comes, as mosh does.
            let is_single = |ports: &&Ports| ports.first() == ports.last();
            for ports in service.ports.iter().filter(is_single) {
                let what = match subject
                    .listeners
                    .reachable(ports.transport(), ports.first())
                {
                    Some(true) => continue,
                    Some(false) => "only loopback listens",
                    None => "nothing listens",
                };
                let name = service.name;
                found.push(
                    Finding::note(format!("service {name}: {what} on {ports} of this machine"))
                        .hint("ss -lntup; nothing to do if the port is forwarded to another host or a container"),
                );
            }
        }
        found
    }
}
