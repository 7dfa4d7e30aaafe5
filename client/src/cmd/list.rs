//! `oneknock list`.

use super::{print, services};
use crate::error::Error;
use crate::knock::packet;
use crate::profile::expiry;
use crate::profile::store::ProfileStore;
use crate::ui::message::{self, hint, note};
use std::fmt::Write as _;

pub fn run(profiles: &ProfileStore) -> Result<(), Error> {
    let mut rows = vec![["NAME", "HOST", "PORT", "KEY", "SERVICES"].map(String::from)];
    let (mut broken, mut warnings) = (0, Vec::new());
    let now = packet::now().ok();
    for profile in profiles.all()? {
        match profile {
            Ok(profile) => {
                let of = &profile.invitation;
                rows.push([
                    of.name.to_string(),
                    of.host.to_string(),
                    of.port.to_string(),
                    now.and_then(|now| expiry::old(of.made, now))
                        .unwrap_or_else(|| "-".into()),
                    services(&profile),
                ]);
                warnings.extend(now.and_then(|now| expiry::warning(&profile, now)));
            }
            Err(error) => {
                broken += 1;
                message::error(&error.to_string());
                error.hints().iter().for_each(|h| hint(h));
            }
        }
    }
    if rows.len() > 1 {
        print(&table(&rows))?;
    } else if broken == 0 {
        note("there is no profile yet");
        hint("oneknock import makes one from an invitation");
    }
    for (warning, what_to_do) in warnings {
        message::warning(&warning);
        hint(&what_to_do);
    }
    if broken > 0 {
        Err(Error::SomeBroken(broken))
    } else {
        Ok(())
    }
}

fn table(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [a, b, c, d] = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for [name, host, port, age, services] in rows {
        let _ = writeln!(
            text,
            "{name:a$}  {host:b$}  {port:c$}  {age:d$}  {services}"
        );
    }
    text
}
