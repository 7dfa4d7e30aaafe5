//! `oneknock list`.

use super::{JSON_VERSION, print, services, to_json, view};
use crate::error::Error;
use crate::knock::packet;
use crate::profile::expiry;
use crate::profile::store::ProfileStore;
use crate::ui::message::{self, hint, note};
use serde_json::json;
use std::fmt::Write as _;

pub fn run(profiles: &ProfileStore, as_json: bool) -> Result<(), Error> {
    let now = packet::now().ok();
    let (mut good, mut invalid) = (Vec::new(), Vec::new());
    for profile in profiles.all()? {
        match profile {
            Ok(profile) => good.push(profile),
            Err(error) => invalid.push(error),
        }
    }
    if as_json {
        let of = |error: &Error| json!({"code": error.code(), "message": error.to_string()});
        let good = good.iter().map(|p| view::profile(profiles, p, now));
        print(&to_json(&json!({
            "version": JSON_VERSION,
            "profiles": good.collect::<Vec<_>>(),
            "errors": invalid.iter().map(of).collect::<Vec<_>>(),
        })))?;
        return all_valid(invalid.len());
    }
    for error in &invalid {
        message::error(&error.to_string());
        error.hints().iter().for_each(|h| hint(h));
    }
    let mut rows = vec![["NAME", "HOST", "PORT", "KEY AGE", "SERVICES"].map(String::from)];
    rows.extend(good.iter().map(|profile| {
        let of = &profile.invitation;
        let age = now.and_then(|now| expiry::age(of.made, now));
        [
            of.name.to_string(),
            of.host.to_string(),
            of.port.to_string(),
            age.unwrap_or_else(|| "-".into()),
            services(profile),
        ]
    }));
    if rows.len() > 1 {
        print(&table(&rows))?;
    } else if invalid.is_empty() {
        note("no profile yet");
        hint("import one: oneknock import INVITATION-FILE");
    }
    let all = good.iter().zip(now.into_iter().cycle());
    for (text, what_to_do) in all.flat_map(|(profile, now)| expiry::warnings(profile, now)) {
        message::warning(&text);
        hint(&what_to_do);
    }
    all_valid(invalid.len())
}

fn all_valid(invalid: usize) -> Result<(), Error> {
    match invalid {
        0 => Ok(()),
        some => Err(Error::SomeBroken(some)),
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
