//! The block for ssh's configuration.

use super::{port, program, proxy_word};
use crate::error::Error;
use crate::profile::Profile;
use std::path::Path;

/// The `ssh_config` block for a profile.
pub fn configuration(profile: &Profile) -> Result<String, Error> {
    block(profile, &program()?)
}

/// An empty line first: a file may end without one. The path is absolute, since a program that
/// a desktop or a timer starts has another `PATH` than a shell. There is no form with
/// `Match exec`: it opens at one address, and ssh then tries another.
fn block(profile: &Profile, program: &Path) -> Result<String, Error> {
    let (name, host) = (profile.name(), &profile.invitation.host);
    let port = match port(profile)? {
        22 => String::new(),
        port => format!("    Port {port}\n"),
    };
    let word = proxy_word(program)?;
    Ok(format!(
        "
Host {name}
    HostName {host}
{port}    ProxyCommand {word} proxy {name} %h %p
    ServerAliveInterval 30
# The first value that ssh finds counts: keep this above any \"Host *\".
# For mosh: mosh --experimental-remote-ip=remote {name}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::tests::profile;

    #[test]
    fn the_block_is_what_ssh_config_takes() {
        let text = block(
            &profile("home.example.org", &["tcp/2222"]),
            Path::new("/usr/bin/oneknock"),
        )
        .unwrap();
        assert_eq!(
            text,
            "\nHost home\n    \
                 HostName home.example.org\n    \
                 Port 2222\n    \
                 ProxyCommand /usr/bin/oneknock proxy home %h %p\n    \
                 ServerAliveInterval 30\n\
             # The first value that ssh finds counts: keep this above any \"Host *\".\n\
             # For mosh: mosh --experimental-remote-ip=remote home\n"
        );
    }
}
