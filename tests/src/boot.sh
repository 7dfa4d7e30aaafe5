# boot.sh FOLDER NAME install PACKAGE…: installs packages on a machine that is off.
# boot.sh FOLDER NAME: boots systemd as the first process of a machine of its own. What it
# writes stays in FOLDER/disk, a tmpfs whose upper layer lies over this machine's own files;
# NAME is its control group. The network is the one that this is started in.
set -eu
dir=$1 name=$2

overlay() {
    mkdir -p "$dir/root"
    mount -t overlay overlay "$dir/root" \
        -o "lowerdir=/,upperdir=$dir/disk/upper,workdir=$dir/disk/work"
    cd "$dir/root"
    mount -t proc proc proc
}

if [ "${3-}" = install ]; then
    shift 3
    overlay
    mount --rbind /dev dev
    mkdir -p run
    mount -t tmpfs tmpfs run
    export DEBIAN_FRONTEND=noninteractive
    get() { chroot . apt-get --quiet --yes "$@"; }
    get install --no-install-recommends "$@" && exit
    # What this machine knows of Debian's packages may be old, or nothing.
    get update && get install --no-install-recommends "$@"
    exit
fi

if [ "${3-}" != inside ]; then
    # A group of its own, or systemd would take this machine's.
    mkdir -p "$dir/cgroup"
    mount -t cgroup2 cgroup2 "$dir/cgroup"
    mkdir -p "$dir/cgroup/$name"
    echo $$ >"$dir/cgroup/$name/cgroup.procs"
    umount "$dir/cgroup"
    exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup \
        --propagation private sh "$0" "$dir" "$name" inside
fi

overlay
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
# Each start is another boot.
cat /proc/sys/kernel/random/uuid >"$dir/boot_id"
mount --bind "$dir/boot_id" proc/sys/kernel/random/boot_id
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run tmp dev; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
chmod 1777 tmp
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
: >dev/console

# At the first start: none of this machine's own services, nothing that reaches for
# hardware or for other kernel state than the network's.
if [ ! -e etc/oneknock-lab ]; then
    rm -rf etc/systemd/system/* etc/rc?.d/* etc/oneknock var/lib/oneknock
    # An image for containers may forbid packages to start anything.
    rm -f usr/sbin/policy-rc.d
    : >etc/fstab
    for unit in \
        systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
        systemd-udevd-kernel.socket systemd-sysctl.service systemd-modules-load.service \
        systemd-timesyncd.service systemd-random-seed.service systemd-remount-fs.service \
        systemd-pstore.service systemd-binfmt.service systemd-update-utmp.service \
        systemd-update-utmp-runlevel.service systemd-logind.service getty.target \
        proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount \
        sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
        sys-fs-fuse-connections.mount; do
        ln -s /dev/null "etc/systemd/system/$unit"
    done
    mkdir -p etc/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >etc/systemd/journald.conf.d/lab.conf
    : >etc/oneknock-lab
fi

mkdir -p mnt
pivot_root . mnt
umount -l /mnt
exec env -i container=oneknock-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    /lib/systemd/systemd --system --unit=multi-user.target </dev/null >/dev/console 2>&1
