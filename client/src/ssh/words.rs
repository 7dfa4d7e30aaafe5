//! The words that follow `oneknock ssh`, read as ssh reads its own: options, the destination,
//! more options, a command. So it stands in ssh's place for git, rsync and others. Pure.

use crate::error::Error;
use crate::ssh::Destination;
use std::ffi::{OsStr, OsString};

/// ssh's options that take a value (OpenSSH 9.9, ssh.c).
const WITH_VALUE: &[u8] = b"BDEFIJLOPQRSWbceilmopw";

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshWords {
    /// The options before the destination, as they were.
    pub options: Vec<OsString>,
    /// Where to.
    pub to: Destination,
    /// What follows the destination, as it was.
    pub rest: Vec<OsString>,
    /// `-4` or `-6`, wherever it stood.
    pub family: Option<&'static str>,
}

impl SshWords {
    /// Reads them.
    pub fn read(words: &[OsString]) -> Result<Self, Error> {
        let mut family = None;
        let (mut options, to, after) = split(words, &mut family);
        let to = to.ok_or_else(|| Error::Usage {
            what: "oneknock ssh needs a profile's name".into(),
            tip: None,
        })?;
        // Options may follow the destination too, up to the command.
        split(after, &mut family);
        let text = to.to_string_lossy();
        let (to, port) = match text.strip_prefix("ssh://") {
            Some(url) => {
                let url = url.trim_end_matches('/');
                match url.rsplit_once(':') {
                    Some((to, port)) => (to, Some(port)),
                    None => (url, None),
                }
            }
            None => (&*text, None),
        };
        if let Some(port) = port {
            options.extend(["-p".into(), port.into()]);
        }
        Ok(Self {
            options,
            to: to.parse()?,
            rest: after.to_vec(),
            family,
        })
    }
}

/// The options at the beginning, the first word that is none, and what follows it.
fn split<'w>(
    words: &'w [OsString],
    family: &mut Option<&'static str>,
) -> (Vec<OsString>, Option<&'w OsStr>, &'w [OsString]) {
    let mut options = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        let bytes = word.as_encoded_bytes();
        if bytes == b"--" {
            break;
        }
        let Some(flags) = bytes.strip_prefix(b"-").filter(|flags| !flags.is_empty()) else {
            return (options, Some(word), &words[at..]);
        };
        options.push(word.clone());
        for (nth, flag) in flags.iter().enumerate() {
            match flag {
                b'4' => *family = Some("-4"),
                b'6' => *family = Some("-6"),
                _ => {}
            }
            if WITH_VALUE.contains(flag) {
                // The value is the rest of the word, or the next one.
                if nth + 1 == flags.len() {
                    options.extend(words.get(at).cloned());
                    at += 1;
                }
                break;
            }
        }
    }
    let rest = words.get(at..).unwrap_or_default();
    match rest.split_first() {
        Some((to, after)) => (options, Some(to), after),
        None => (options, None, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<SshWords, Error> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        SshWords::read(&words)
    }

    fn texts(words: &[OsString]) -> String {
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn options_before_the_destination_are_ssh_s_with_their_values() {
        for (line, options, to, rest) in [
            ("home", "", "home", ""),
            ("home -v ls -l", "", "home", "-v ls -l"),
            // As rsync and git call it.
            (
                "-l me home rsync --server",
                "-l me",
                "home",
                "rsync --server",
            ),
            (
                "-o SendEnv=GIT_PROTOCOL git@home git-upload-pack 'x'",
                "-o SendEnv=GIT_PROTOCOL",
                "home",
                "git-upload-pack 'x'",
            ),
            ("-G home", "-G", "home", ""),
            ("-vvp2222 -oA=b home x", "-vvp2222 -oA=b", "home", "x"),
            ("-tp 2222 home", "-tp 2222", "home", ""),
            ("-n -tt -S none -- home x", "-n -tt -S none", "home", "x"),
            ("ssh://me@home:2222/ x", "-p 2222", "home", "x"),
        ] {
            let words = read(line).unwrap();
            assert_eq!(texts(&words.options), options, "{line}");
            assert_eq!(words.to.profile.as_str(), to, "{line}");
            assert_eq!(texts(&words.rest), rest, "{line}");
        }
    }

    #[test]
    fn the_family_is_known_wherever_it_stands_but_in_the_command() {
        assert_eq!(read("-4 home").unwrap().family, Some("-4"));
        assert_eq!(read("home -v6 ls").unwrap().family, Some("-6"));
        assert_eq!(read("home ls -4").unwrap().family, None);
        assert_eq!(read("-o4 home").unwrap().family, None);
    }

    #[test]
    fn without_a_destination_it_is_wrong_usage() {
        for line in ["-v", "-l", "-l me", "--"] {
            assert!(matches!(read(line), Err(Error::Usage { .. })), "{line}");
        }
    }
}
