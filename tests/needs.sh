# Sourced by demo and run: what they need, and how it comes to be there.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

die() {
    echo "${0##*/}: $1" >&2
    [ $# -lt 2 ] || echo "hint: $2" >&2
    exit 1
}

[ "$(id -u)" = 0 ] ||
    die "the lab makes network namespaces: it needs root" "sudo $0"

# need COMMAND PACKAGE: notes the package when there is no such command.
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need nft nftables
need ip iproute2
need iptables-legacy iptables
need sshd openssh-server
need ssh openssh-client
need tcpdump tcpdump
need knockd knockd
need nmap nmap
need strace strace
need mkfs.ext4 e2fsprogs
need mount mount
need setpriv util-linux
need systemd-analyze systemd
need dbus-daemon dbus
need dpkg-shlibdeps dpkg-dev
need lintian lintian
need man man-db
need groff groff-base
need zsh zsh
need fish fish
need cc gcc
need c++ g++
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
        die "missing, and there is no apt-get to install it: ${missing[*]}"
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

command -v cargo >/dev/null ||
    die "cargo is missing" "install Rust 1.89 or later, for example with rustup"
