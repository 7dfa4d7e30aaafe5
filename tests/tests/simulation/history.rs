//! What has happened, to be told where something is wrong.

use crate::model::Made;
use oneknock_shared::name::KeyName;
use oneknockd::engine::{Now, Target};
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;

const KEPT: usize = 200_000;
const TOLD: usize = 50;

pub enum Note {
    Packet {
        made: usize,
        from: IpAddr,
        /// `spent`, or the reason for its rejection.
        outcome: &'static str,
    },
    Text(String),
}

#[derive(Default)]
pub struct History(VecDeque<(u64, Now, Note)>);

impl History {
    pub fn add(&mut self, time: u64, now: Now, note: Note) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((time, now, note));
    }

    /// The last of it that bears on this key and target: what was spent, and the very last
    /// packet.
    pub fn tell(&self, key: Option<&KeyName>, target: Option<Target>, made: &[Made]) -> String {
        let bears = |note: &Note| match note {
            Note::Packet {
                made: index,
                from,
                outcome,
            } => {
                let (packet, knock) = (&made[*index], &made[*index].knock);
                let is_there = |target: Target| {
                    target.source.contains(knock.address.unwrap_or(*from))
                        && knock
                            .service
                            .is_none_or(|service| service == target.service)
                };
                *outcome == "spent"
                    && key.is_none_or(|key| packet.key == *key)
                    && target.is_none_or(is_there)
            }
            Note::Text(_) => true,
        };
        let all = self.0.iter().rev().enumerate();
        let told = all.filter(|(back, (_, _, note))| *back == 0 || bears(note));
        let last: Vec<_> = told.map(|(_, entry)| entry).take(TOLD).collect();
        let mut text = String::new();
        for (time, now, note) in last.into_iter().rev() {
            let _ = write!(
                text,
                "at {time} ms, wall {}, up {} ms: ",
                now.wall.0,
                now.mono.as_millis()
            );
            let _ = match note {
                Note::Text(event) => writeln!(text, "{event}"),
                Note::Packet {
                    made: index,
                    from,
                    outcome,
                } => {
                    let (knock, key) = (&made[*index].knock, &made[*index].key);
                    let generation = made[*index].generation.0[0];
                    writeln!(
                        text,
                        "packet {index} of {key} ({generation:02x}) from {from}: {outcome}: {knock:?}"
                    )
                }
            };
        }
        text
    }
}
