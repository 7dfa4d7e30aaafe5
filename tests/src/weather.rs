//! A bad link: the router loses packets and lets others wait until later ones have
//! passed.
//!
//! Not by netem, which not every kernel has: nft's random numbers choose whom to drop
//! and whom to send through a slow lane of its own, one packet behind the other.

use crate::host::Host;

/// Bad weather on a router; fair again when it is dropped.
#[derive(Debug)]
pub struct Weather<'l> {
    router: &'l Host,
    links: &'l [&'l str],
}

/// What the slow lane takes: half of the packets, at this rate, so that one of full
/// size holds those behind it up for some 200 ms.
const SLOW: &str = "64kbit";

impl<'l> Weather<'l> {
    /// Lets `router` drop `loss` percent of what it forwards, in each direction, and
    /// reorder the rest on its way out through `links`.
    pub fn bad(router: &'l Host, links: &'l [&'l str], loss: u8) -> Self {
        for link in links {
            let tc = |words: &str| {
                let words = ["tc"].into_iter().chain(words.split(' '));
                router.run(&words.collect::<Vec<_>>()).ok();
            };
            tc(&format!(
                "qdisc add dev {link} root handle 1: htb default 10"
            ));
            let class = format!("class add dev {link} parent 1: classid");
            tc(&format!("{class} 1:10 htb rate 1gbit quantum 60000"));
            tc(&format!(
                "{class} 1:20 htb rate {SLOW} burst 1 cburst 1 quantum 1500"
            ));
        }
        router.nft(&format!(
            "table inet weather {{ chain forward {{\n\
             type filter hook forward priority 0;\n\
             numgen random mod 100 < {loss} drop\n\
             numgen random mod 2 0 meta priority set 1:20\n\
             }}\n}}\n"
        ));
        Self { router, links }
    }
}

impl Drop for Weather<'_> {
    fn drop(&mut self) {
        // Where the test has failed already, its own message is the one to show.
        let _ = self
            .router
            .run(&["nft", "delete", "table", "inet", "weather"]);
        for link in self.links {
            let _ = self
                .router
                .run(&["tc", "qdisc", "del", "dev", link, "root"]);
        }
    }
}
