//! A real OpenSSH server with keys made on the spot, and what ssh needs to reach it
//! without the person's own configuration.

use crate::host::Host;
use crate::lab::{Lab, SERVER_NAME};
use crate::process::Running;
use std::fs;
use std::path::{Path, PathBuf};

/// sshd on a host, at port 22 and, for comparison, at [`UNGUARDED`].
#[derive(Debug)]
pub struct Sshd {
    /// The server itself.
    pub running: Running,
    /// A configuration for `ssh -F`: identity, known hosts, no questions asked.
    pub config: PathBuf,
    dir: PathBuf,
}

/// A port at which the same sshd listens and that no test guards: what gets through to
/// it shows that a probe was well made.
pub const UNGUARDED: u16 = 2222;

impl Sshd {
    /// Makes keys and configuration in the lab's folder and starts sshd on `host`.
    pub fn start(lab: &Lab, host: &Host) -> Self {
        let dir = host.home.join("sshd");
        fs::create_dir_all(dir.join("bin")).unwrap();
        // Where sshd separates privileges; Debian's unit makes it, a bare start does not.
        fs::create_dir_all("/run/sshd").unwrap();
        let (host_key, user_key) = (dir.join("host_key"), dir.join("user_key"));
        for key in [&host_key, &user_key] {
            let file = key.to_str().unwrap();
            let made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file];
            host.run(&made).ok();
        }
        let authorized = dir.join("authorized_keys");
        fs::copy(dir.join("user_key.pub"), &authorized).unwrap();
        let sshd_config = dir.join("sshd_config");
        fs::write(&sshd_config, sshd_config_text(&dir)).unwrap();
        let file = sshd_config.to_str().unwrap();
        let command = host.command(&["/usr/sbin/sshd", "-D", "-e", "-f", file]);
        let mut running = Running::start("sshd", command);
        for _ in 0..4 {
            running.expect("Server listening on");
        }
        let public = fs::read_to_string(dir.join("host_key.pub")).unwrap();
        let known = dir.join("known_hosts");
        let [v4, v6] = host.addresses();
        fs::write(&known, format!("{SERVER_NAME},{v4},{v6} {public}")).unwrap();
        let config = lab.dir().join(format!("{}.ssh_config", host.namespace()));
        fs::write(&config, client_config_text(&user_key, &known)).unwrap();
        Self {
            running,
            config,
            dir,
        }
    }

    /// A folder in which sessions look for programs first.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The configuration's path as an argument.
    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }
}

fn sshd_config_text(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Port 22\nPort {UNGUARDED}\n\
         HostKey {dir}/host_key\n\
         AuthorizedKeysFile {dir}/authorized_keys\n\
         PidFile {dir}/pid\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         UsePAM no\n\
         StrictModes no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         UseDNS no\n\
         MaxStartups 1000\n\
         Subsystem sftp internal-sftp\n\
         SetEnv PATH={dir}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
}

fn client_config_text(identity: &Path, known: &Path) -> String {
    format!(
        "Host *\n\
         User root\n\
         IdentityFile {}\n\
         IdentitiesOnly yes\n\
         IdentityAgent none\n\
         UserKnownHostsFile {}\n\
         GlobalKnownHostsFile /dev/null\n\
         StrictHostKeyChecking yes\n\
         UpdateHostKeys no\n\
         BatchMode yes\n\
         ConnectTimeout 15\n\
         LogLevel ERROR\n",
        identity.display(),
        known.display()
    )
}
