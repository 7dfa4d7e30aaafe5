//! ssh's arguments and configuration.
//!
//! Everything of a door that gets here has been held against its grammar: no option, no
//! space, no percent sign, no newline. What is left to quote is this program's own path.

use crate::door::{Door, first_tcp};
use crate::error::Error;
use crate::sequence::Via;
use crate::shell::shell_word;
use oneknock_shared::name::KeyName;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::str::FromStr;

/// This program's name on the command line.
const NAME: &str = "oneknock";

/// Where ssh is to go: `DOOR` or `USER@DOOR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The user, where one was named: `[A-Za-z0-9_][A-Za-z0-9._+@-]*`.
    pub user: Option<String>,
    /// The door.
    pub door: KeyName,
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

/// With which of a door's generations ssh's connection knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knocks {
    /// With all that the door has, by this way.
    WithAll(Via),
    /// With the one alone that a rotation brings.
    WithNext,
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (user, door) = match text.rsplit_once('@') {
            None => (None, text),
            Some((user, door)) => (Some(user), door),
        };
        let user = user.map(Self::read_user).transpose()?;
        Ok(Self {
            user,
            door: door.parse()?,
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

/// This very program's path.
fn program() -> Result<std::path::PathBuf, Error> {
    std::env::current_exe().map_err(|why| Error::System {
        what: "cannot find this program",
        why,
    })
}

/// The ssh port of a door: the first TCP port of the service that `open` would open.
fn port(door: &Door) -> Result<u16, Error> {
    let service = door.service(None)?;
    first_tcp(service).ok_or_else(|| Error::NoTcp {
        door: door.name().clone(),
        service: service.name,
    })
}

/// ssh's arguments: our own first, since ssh takes the first value that it meets for
/// each option; then the destination, then what the person gave, as it is.
///
/// The destination is the door's name, so that the person's own `Host NAME` block holds;
/// `HostName` is the host's own name, under which its key is known.
pub fn arguments(
    door: &Door,
    to: &Destination,
    knocks: Knocks,
    program: &Path,
    more: &[OsString],
) -> Result<Vec<OsString>, Error> {
    let name = door.name();
    let mut arguments: Vec<String> = vec![
        "-o".into(),
        format!(
            "ProxyCommand={} proxy {name} %h %p{}",
            proxy_word(program)?,
            match knocks {
                Knocks::WithAll(Via::Auto) => String::new(),
                Knocks::WithAll(via) => format!(" --via {}", via.as_str()),
                Knocks::WithNext => " --next".into(),
            }
        ),
        "-o".into(),
        format!("HostName={}", door.invitation.host),
    ];
    let port = port(door)?;
    if port != 22 {
        arguments.extend(["-o".into(), format!("Port={port}")]);
    }
    arguments.push(match &to.user {
        Some(user) => format!("{user}@{name}"),
        None => name.to_string(),
    });
    Ok(arguments
        .into_iter()
        .map(OsString::from)
        .chain(more.iter().cloned())
        .collect())
}

/// Becomes ssh; where a program cannot, runs it and gives its exit status.
pub fn run(door: &Door, to: &Destination, via: Via, more: &[OsString]) -> Result<ExitCode, Error> {
    become_ssh(command(door, to, Knocks::WithAll(via), more)?)
}

/// The command that runs ssh through the door.
pub fn command(
    door: &Door,
    to: &Destination,
    knocks: Knocks,
    more: &[OsString],
) -> Result<Command, Error> {
    let mut ssh = Command::new("ssh");
    ssh.args(arguments(door, to, knocks, &program()?, more)?);
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

/// The `ssh_config` block for a door, and in comments the other form.
pub fn configuration(door: &Door) -> Result<String, Error> {
    let program = program()?;
    if is_in_path(&program) {
        return block(door, Path::new(NAME));
    }
    block(door, &program)
}

/// An empty line first: a file may end without one.
fn block(door: &Door, program: &Path) -> Result<String, Error> {
    let (name, host) = (door.name(), &door.invitation.host);
    let port = match port(door)? {
        22 => String::new(),
        port => format!("    Port {port}\n"),
    };
    let word = proxy_word(program)?;
    // Between double quotes ssh's own reader takes these two for itself.
    let quoted = word.replace('\\', r"\\").replace('"', r#"\""#);
    let commented = if port.is_empty() {
        port.clone()
    } else {
        format!("# {port}")
    };
    Ok(format!(
        "
Host {name}
    HostName {host}
{port}    ProxyCommand {word} proxy {name} %h %p

# Or without a relay: the door is opened, then ssh connects by itself.
# Match host {name} exec \"{quoted} open {name}\"
#     HostName {host}
{commented}"
    ))
}

/// Whether the plain word `oneknock`, as a shell looks it up, is this very program.
fn is_in_path(program: &Path) -> bool {
    let file = format!("{NAME}{}", std::env::consts::EXE_SUFFIX);
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(&file))
        .find(|p| p.is_file());
    match (
        found.and_then(|p| p.canonicalize().ok()),
        program.canonicalize(),
    ) {
        (Some(found), Ok(program)) => found == program,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oneknock_shared::invitation::Invitation;
    use oneknock_shared::port::Ports;

    fn door(host: &str, ports: &[&str]) -> Door {
        let rows = include_str!("../../shared/tests/data/invitations.json");
        let line = rows
            .split('"')
            .find(|text| text.starts_with("oneknock1:"))
            .unwrap();
        let mut invitation: Invitation = line.parse().unwrap();
        invitation.host = host.parse().unwrap();
        invitation.services[0].ports = ports.iter().map(|p| p.parse::<Ports>().unwrap()).collect();
        Door {
            invitation,
            next: None,
            begun: None,
        }
    }

    fn texts(door: &Door, to: &str, program: &str, more: &[&str]) -> Vec<String> {
        let more: Vec<OsString> = more.iter().map(OsString::from).collect();
        let all = arguments(
            door,
            &to.parse().unwrap(),
            Knocks::WithAll(Via::Auto),
            Path::new(program),
            &more,
        );
        let all = all.unwrap();
        all.into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn ssh_gets_the_proxy_the_hosts_own_name_and_what_the_person_gave() {
        let door = door("home.example.org", &["tcp/22"]);
        assert_eq!(
            texts(&door, "home", "/usr/bin/oneknock", &["-v", "echo", "a b"]),
            [
                "-o",
                "ProxyCommand=/usr/bin/oneknock proxy home %h %p",
                "-o",
                "HostName=home.example.org",
                "home",
                "-v",
                "echo",
                "a b",
            ]
        );
    }

    #[test]
    fn another_port_a_user_and_an_ipv6_literal() {
        let door = door("2001:db8::7", &["udp/53", "tcp/2222-2230"]);
        assert_eq!(
            texts(&door, "me@home", "/usr/bin/oneknock", &[])[2..],
            ["-o", "HostName=2001:db8::7", "-o", "Port=2222", "me@home"]
        );
    }

    #[test]
    fn a_service_without_tcp_is_no_ssh() {
        let door = door("home.example.org", &["udp/53"]);
        let to = "home".parse().unwrap();
        assert!(matches!(
            arguments(&door, &to, Knocks::WithNext, Path::new("x"), &[]),
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
            (both.user.as_deref(), both.door.as_str()),
            (Some("a@b.example"), "home")
        );
    }

    #[test]
    fn the_block_is_what_ssh_config_takes() {
        let text = block(
            &door("home.example.org", &["tcp/2222"]),
            Path::new("oneknock"),
        )
        .unwrap();
        assert_eq!(
            text,
            "\nHost home\n    \
                 HostName home.example.org\n    \
                 Port 2222\n    \
                 ProxyCommand oneknock proxy home %h %p\n\
             \n\
             # Or without a relay: the door is opened, then ssh connects by itself.\n\
             # Match host home exec \"oneknock open home\"\n\
             #     HostName home.example.org\n\
             #     Port 2222\n"
        );
    }
}
