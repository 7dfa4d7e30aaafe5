//! ssh's arguments and configuration.
//!
//! Everything of a profile that gets here has been held against its grammar: no option, no
//! space, no percent sign, no newline. What is left to quote is this program's own path.

mod config;
mod quote;
pub mod relay;
mod words;

use crate::error::Error;
use crate::knock::sequence::Via;
use crate::profile::{Profile, first_tcp};
pub use config::configuration;
use oneknock_shared::name::KeyName;
pub use quote::shell_word;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;
pub use words::SshWords;

/// Where ssh is to go: `PROFILE` or `USER@PROFILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The user, where one was named: `[A-Za-z0-9_][A-Za-z0-9._+@-]*`.
    pub user: Option<String>,
    /// The profile.
    pub profile: KeyName,
}

impl Destination {
    /// Reads a user's name: `[A-Za-z0-9_][A-Za-z0-9._+@-]*`.
    pub fn read_user(text: &str) -> Result<String, Error> {
        let good = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._+@-".contains(&b));
        if good {
            Ok(text.into())
        } else {
            Err(Error::User(text.into()))
        }
    }
}

/// With which of a profile's generations ssh's connection knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knocks {
    /// With all that the profile has, by this way.
    WithAll(Via),
    /// With the one alone that a rotation brings.
    WithNext,
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (user, profile) = match text.rsplit_once('@') {
            None => (None, text),
            Some((user, profile)) => (Some(user), profile),
        };
        let user = user.map(Self::read_user).transpose()?;
        Ok(Self {
            user,
            profile: profile.parse()?,
        })
    }
}

/// A path as a word in a `ProxyCommand`: quoted for the shell that ssh starts, and with
/// percent signs doubled, which ssh would expand.
fn proxy_word(path: &Path) -> Result<String, Error> {
    let refused = || Error::Program(path.display().to_string());
    let text = path
        .to_str()
        .filter(|t| !t.chars().any(char::is_control))
        .ok_or_else(refused)?;
    let word = if cfg!(windows) {
        // No double quote can be in a path there.
        format!("\"{text}\"")
    } else {
        shell_word(text)
    };
    Ok(word.replace('%', "%%"))
}

/// This very program's path, absolute, as it was called: a link stays one, so that it still
/// leads here after an update of what it points to.
fn program() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|why| Error::System {
        what: "cannot find this program",
        why,
    })?;
    let is_own = |path: &PathBuf| {
        let real = (path.canonicalize(), own.canonicalize());
        matches!(real, (Ok(path), Ok(own)) if path == own)
    };
    let called = std::env::args_os().next().map(PathBuf::from);
    let found = called.and_then(|called| {
        if called.components().count() > 1 {
            return std::path::absolute(called).ok();
        }
        let path = std::env::var_os("PATH")?;
        let mut all = std::env::split_paths(&path).map(|dir| dir.join(&called));
        all.find(|path| path.is_absolute() && is_own(path))
    });
    Ok(found.filter(is_own).unwrap_or(own))
}

/// The ssh port of a profile: the first TCP port of the service that `open` would open.
fn port(profile: &Profile) -> Result<u16, Error> {
    let service = profile.service(None)?;
    first_tcp(service).ok_or_else(|| Error::NoTcp {
        profile: profile.name().clone(),
        service: service.name,
    })
}

/// ssh's arguments: our own first, since ssh takes the first value that it meets for
/// each option; then the options that the person gave, as they are; then the destination, and
/// what followed it.
///
/// The destination is the profile's name, so that the person's own `Host NAME` block holds;
/// `HostName` is the host's own name, under which its key is known.
pub fn arguments(
    profile: &Profile,
    words: &SshWords,
    knocks: Knocks,
    program: &Path,
) -> Result<Vec<OsString>, Error> {
    let name = profile.name();
    let family = words.family.map(|family| format!(" {family}"));
    let proxy = format!(
        "ProxyCommand={} proxy {name} %h %p{}{}",
        proxy_word(program)?,
        family.unwrap_or_default(),
        match knocks {
            Knocks::WithAll(Via::Auto) => String::new(),
            Knocks::WithAll(via) => format!(" --via {}", via.as_str()),
            Knocks::WithNext => " --next".into(),
        }
    );
    let host = format!("HostName={}", profile.invitation.host);
    let mut arguments: Vec<OsString> = vec!["-o".into(), proxy.into(), "-o".into(), host.into()];
    arguments.extend(words.options.iter().cloned());
    // After the person's own, which ssh then takes.
    let port = port(profile)?;
    if port != 22 {
        arguments.extend(["-o".into(), format!("Port={port}").into()]);
    }
    arguments.push(match &words.to.user {
        Some(user) => format!("{user}@{name}").into(),
        None => name.to_string().into(),
    });
    arguments.extend(words.rest.iter().cloned());
    Ok(arguments)
}

/// Becomes ssh; where a program cannot, runs it and gives its exit status.
pub fn run(profile: &Profile, words: &SshWords, via: Via) -> Result<ExitCode, Error> {
    become_ssh(command(profile, words, Knocks::WithAll(via))?)
}

/// The command that runs ssh through the profile.
pub fn command(profile: &Profile, words: &SshWords, knocks: Knocks) -> Result<Command, Error> {
    let mut ssh = Command::new("ssh");
    ssh.args(arguments(profile, words, knocks, &program()?)?);
    Ok(ssh)
}

#[cfg(unix)]
fn become_ssh(mut ssh: Command) -> Result<ExitCode, Error> {
    Err(Error::Ssh(std::os::unix::process::CommandExt::exec(
        &mut ssh,
    )))
}

#[cfg(not(unix))]
fn become_ssh(mut ssh: Command) -> Result<ExitCode, Error> {
    let status = ssh.status().map_err(Error::Ssh)?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(255);
    Ok(ExitCode::from(code))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use oneknock_shared::invitation::Invitation;
    use oneknock_shared::port::Ports;

    pub(crate) fn profile(host: &str, ports: &[&str]) -> Profile {
        let rows = include_str!("../../../shared/tests/data/invitations.json");
        let line = rows
            .split('"')
            .find(|text| text.starts_with("oneknock1:"))
            .unwrap();
        let mut invitation: Invitation = line.parse().unwrap();
        invitation.host = host.parse().unwrap();
        invitation.services[0].ports = ports.iter().map(|p| p.parse::<Ports>().unwrap()).collect();
        Profile {
            invitation,
            next: None,
            begun: None,
            falls_back: false,
        }
    }

    fn texts(profile: &Profile, line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let words = SshWords::read(&words).unwrap();
        let program = Path::new("/usr/bin/oneknock");
        let all = arguments(profile, &words, Knocks::WithAll(Via::Auto), program);
        let all = all.unwrap().into_iter();
        all.map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn ssh_gets_the_proxy_the_hosts_own_name_and_what_the_person_gave() {
        let profile = profile("home.example.org", &["tcp/22"]);
        assert_eq!(
            texts(&profile, "-4 -l me home -v echo"),
            [
                "-o",
                "ProxyCommand=/usr/bin/oneknock proxy home %h %p -4",
                "-o",
                "HostName=home.example.org",
                "-4",
                "-l",
                "me",
                "home",
                "-v",
                "echo",
            ]
        );
    }

    #[test]
    fn another_port_a_user_and_an_ipv6_literal() {
        let profile = profile("2001:db8::7", &["udp/53", "tcp/2222-2230"]);
        assert_eq!(
            texts(&profile, "me@home")[2..],
            ["-o", "HostName=2001:db8::7", "-o", "Port=2222", "me@home"]
        );
        // The person's own port comes first, and ssh takes that.
        assert_eq!(
            texts(&profile, "-p 2223 home")[4..],
            ["-p", "2223", "-o", "Port=2222", "home"]
        );
    }

    #[test]
    fn a_service_without_tcp_is_no_ssh() {
        let profile = profile("home.example.org", &["udp/53"]);
        let words = SshWords::read(&["home".into()]).unwrap();
        assert!(matches!(
            arguments(&profile, &words, Knocks::WithNext, Path::new("x")),
            Err(Error::NoTcp { .. })
        ));
    }

    #[test]
    fn this_programs_path_is_one_word_for_ssh_and_its_shell() {
        let word = |path: &str| proxy_word(Path::new(path)).unwrap();
        assert_eq!(word("/usr/bin/oneknock"), "/usr/bin/oneknock");
        assert_eq!(word("/a b/100%/it's;$(x)"), r"'/a b/100%%/it'\''s;$(x)'");
        for path in ["/a\nb", "/a\u{1b}b"] {
            assert!(proxy_word(Path::new(path)).is_err());
        }
    }

    #[test]
    fn hostile_destinations_are_refused() {
        for text in [
            "",
            "-oProxyCommand=x",
            "@home",
            "-l@home",
            "a b@home",
            "$(x)@home",
            "a\n@home",
            "me@",
            "me@-x",
            "me@../x",
            "me@a/b",
            "'@home",
            "me%h@home",
            "me@home ",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
        let both: Destination = "a@b.example@home".parse().unwrap();
        assert_eq!(
            (both.user.as_deref(), both.profile.as_str()),
            (Some("a@b.example"), "home")
        );
    }
}
