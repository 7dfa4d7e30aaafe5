//! What has happened, to be told where something is wrong.

use crate::model::Made;
use oneknock_shared::name::KeyName;
use oneknockd::gate::{Now, Place};
use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;

const KEPT: usize = 200_000;
const TOLD: usize = 50;

pub enum Note {
    Packet {
        made: usize,
        source: IpAddr,
        word: &'static str,
    },
    Event(String),
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

    /// The last of it that bears on this key and place: what was accepted, and the very
    /// last packet.
    pub fn tell(&self, key: Option<&KeyName>, place: Option<Place>, made: &[Made]) -> String {
        let of = |note: &Note| match note {
            Note::Packet {
                made: index,
                source,
                word,
                ..
            } => {
                let (packet, knock) = (&made[*index], &made[*index].knock);
                let is_there = |place: Place| {
                    knock.address.unwrap_or(*source) == place.address
                        && knock.service.is_none_or(|service| service == place.service)
                };
                *word == "accepted"
                    && key.is_none_or(|key| packet.key == *key)
                    && place.is_none_or(is_there)
            }
            Note::Event(_) => true,
        };
        let all = self.0.iter().rev().enumerate();
        let told = all.filter(|(back, (_, _, note))| *back == 0 || of(note));
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
                Note::Event(event) => writeln!(text, "{event}"),
                Note::Packet {
                    made: index,
                    source,
                    word,
                } => {
                    let (knock, key) = (&made[*index].knock, &made[*index].key);
                    let generation = made[*index].generation.0[0];
                    writeln!(
                        text,
                        "packet {index} of {key} ({generation:02x}) from {source}: {word}: {knock:?}"
                    )
                }
            };
        }
        text
    }
}
