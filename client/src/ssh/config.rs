//! The block for ssh's configuration.

use super::{NAME, port, program, proxy_word};
use crate::error::Error;
use crate::profile::Profile;
use std::path::Path;

/// The `ssh_config` block for a profile, and in comments the other form.
pub fn configuration(profile: &Profile) -> Result<String, Error> {
    let program = program()?;
    if is_in_path(&program) {
        return block(profile, Path::new(NAME));
    }
    block(profile, &program)
}

/// An empty line first: a file may end without one.
fn block(profile: &Profile, program: &Path) -> Result<String, Error> {
    let (name, host) = (profile.name(), &profile.invitation.host);
    let port = match port(profile)? {
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

# Or without a relay: the port is opened, then ssh connects by itself.
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
    use crate::ssh::tests::profile;

    #[test]
    fn the_block_is_what_ssh_config_takes() {
        let text = block(
            &profile("home.example.org", &["tcp/2222"]),
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
             # Or without a relay: the port is opened, then ssh connects by itself.\n\
             # Match host home exec \"oneknock open home\"\n\
             #     HostName home.example.org\n\
             #     Port 2222\n"
        );
    }
}
