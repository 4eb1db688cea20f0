# Boots systemd in namespaces of its own, on a copy of this machine's root that goes with it: $1 is a folder for mounts,
# $2 the checkout, $3 Python's folder, $4 the folder with the packages. The network is the machine's.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
# Nothing of this machine starts, also no unit that sets up its kernel: what our units need is an empty target.
units=$root/etc/systemd/system
rm -rf "${units:?}"/* "$root"/lib/systemd/system/*.wants "$root"/lib/systemd/system-generators/*
for target in sysinit basic multi-user network-online; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
for folder in jobsvc/checkout jobsvc/python jobsvc/packages jobsvc/bin; do mkdir -p "$root/opt/$folder"; done
mount --bind "$2" "$root/opt/jobsvc/checkout"
mount --bind "$3" "$root/opt/jobsvc/python"
mount --bind "$4" "$root/opt/jobsvc/packages"
cat >"$root/opt/jobsvc/bin/jobsvc" <<'END'
#!/bin/sh
export PYTHONPATH=/opt/jobsvc/checkout:/opt/jobsvc/packages PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=/opt/jobsvc/python/lib # a Python that was moved finds its library
exec /opt/jobsvc/python/bin/python3 -m jobsvc "$@"
END
chmod 755 "$root/opt/jobsvc/bin/jobsvc"
cp "$2"/deploy/systemd/*.service "$units"
cp "$2/deploy/systemd/jobsvc.sysusers" "$root/usr/lib/sysusers.d/jobsvc.conf"
mkdir -p "$root/etc/jobsvc" "$root/var/log/jobsvc" "$units/service.d"
printf '[Service]\nStandardOutput=append:/var/log/jobsvc/%%n.log\n' >"$units/service.d/log.conf"
install -m 600 "$1.env" "$root/etc/jobsvc/jobsvc.env"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys" # it is the machine's kernel
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
chroot "$root" systemd-sysusers jobsvc.conf
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --system --unit=multi-user.target --log-target=null --show-status=no
