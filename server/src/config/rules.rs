//! The configuration as the engine wants it: its own types, with subkeys in the place of secrets.

use super::{Config, Key, Service};
use crate::engine::{GenerationRules, KeyRules, Rules, ServiceRules};
use oneknock_shared::secret::{ServerId, Subkeys};
use std::sync::Arc;

impl Config {
    /// The rules by which the engine is to judge packets of these keys.
    #[must_use]
    pub fn rules(&self, keys: &[Key]) -> Rules {
        Rules {
            skew: self.skew,
            rotation_grace: self.rotation_grace,
            allow_gateway: self.allow_gateway,
            services: self.services.iter().map(service_rules).collect(),
            keys: keys
                .iter()
                .map(|key| key_rules(key, &self.server_id))
                .collect(),
        }
    }
}

fn service_rules(service: &Service) -> ServiceRules {
    ServiceRules {
        name: service.name,
        default_time: service.default_duration,
        max_time: service.max_duration,
    }
}

fn key_rules(key: &Key, server_id: &ServerId) -> KeyRules {
    let generations = key.generations.iter().map(|generation| GenerationRules {
        number: generation.number,
        subkeys: Subkeys::derive(&generation.secret, server_id),
        not_before: generation.not_before,
        not_after: generation.end(),
    });
    KeyRules {
        name: Arc::new(key.name.clone()),
        services: key.policy.services.clone(),
        max_time: key.policy.max_duration,
        require_signed_address: key.policy.require_signed_address,
        allow_other_address: key.policy.allow_other_addresses,
        max_grants: key.policy.max_grants,
        knocks_per_minute: key.policy.knocks_per_minute,
        generations: generations.collect(),
    }
}
