# A real systemd as process 1 of its own namespaces, in a root folder in memory that is a bare Debian (tests/systemd/debian). For
# the scripts beside this one, which source it: `$scratch/share` is /run/test in there. Needs root, debootstrap, namespaces.
# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who source it

say() { printf '== %s (%s s)\n' "$*" "$SECONDS" >&2; }
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  tail -n 40 "$scratch/manager.log" "$scratch/share/holdfast.log" >&2 2>/dev/null || true
  exit 1
}
# skip WHY: HOLDFAST_TEST_SYSTEMD=must makes it a failure.
skip() {
  say "skipped, nothing was tested under systemd: $*"
  [[ ${HOLDFAST_TEST_SYSTEMD:-} != must ]] || exit 1
  exit 0
}

((EUID == 0)) || skip "this needs root"
for program in debootstrap dpkg-deb nsenter unshare; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || skip "there is no $program: tests/run installs it"
done
unshare -m -p -f -C -n -u -i true 2>/dev/null || skip "namespaces may not be made here"
unified=$(findmnt -rn -t cgroup2 -o TARGET | head -n 1)
group=$unified/hftest-$$
[[ -n $unified ]] && mkdir "$group" 2>/dev/null || skip "control groups (v2) may not be made here"

tools=${HOLDFAST_TEST_TOOLS:-${CARGO_TARGET_DIR:-$PWD/target}/test-tools}
scratch=$(mktemp -d /tmp/hftest.XXXXXX)
manager='' unshare='' backend='' clients=''

finish() {
  local code=$? pid
  exec 7>&- 2>/dev/null || true
  for pid in $clients $backend; do kill "$pid" 2>/dev/null || true; done
  # All that was started in there, its process 1 first of all; nothing else is in this group.
  echo 1 2>/dev/null >"$group/cgroup.kill" || true
  if [[ -n $unshare ]]; then
    kill -9 "$unshare" 2>/dev/null || true
    wait "$unshare" 2>/dev/null || true
  fi
  # Its processes may take a moment.
  for _ in {1..50}; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [[ -d $group ]] || break
    sleep 0.1
  done
  rm -rf "$scratch" 2>/dev/null || true
  exit "$code"
}
trap finish EXIT

mkdir "$scratch/mount" "$scratch/share"

# Nothing of this machine is in the root folder but its kernel, its devices, and what the scripts share.
cat >"$scratch/inner" <<'INNER'
#!/bin/bash
set -e
scratch=$1 debian=$2
mount --make-rprivate /
python3 - <<'UP' 2>/dev/null || ip link set lo up
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x49))
UP
root=$scratch/mount
mount -t tmpfs -o mode=755 tmpfs "$root"
tar -C "$root" -xf "$debian"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
umount -R "$root/sys/fs/cgroup" 2>/dev/null || true
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
units=$root/run/systemd/system
mkdir -p "$units"/holdfast.{service,socket}.d "$root/run/lock" "$root/run/test"
mount --bind "$scratch/share" "$root/run/test"
# A machine that boots nothing else; its log goes to a file, since there is no journal.
cat >"$units/holdfast.service.d/test.conf" <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=
After=
[Service]
StandardOutput=append:/run/test/holdfast.log
StandardError=append:/run/test/holdfast.log
WatchdogSec=3
UNIT
printf '[Unit]\nDefaultDependencies=no\n' | tee "$units/test.target" >"$units/holdfast.socket.d/test.conf"
mkdir "$root/.old"
cd "$root"
pivot_root . .old
exec env -i container=holdfast-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /bin/bash -c 'umount -l /.old && rmdir /.old && exec /lib/systemd/systemd --system --unit=test.target --log-target=console \
    --show-status=false' </dev/null
INNER
chmod +x "$scratch/inner"
# start_manager [PACKAGE…]: with these of Debian's besides.
start_manager() {
  local debian
  debian=$(tests/systemd/debian "$tools" "$@") || skip "there is no root folder for it"
  say "starting systemd in $(basename "$debian" .tar)"
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare -m -p -f -C -n -u -i --kill-child "$scratch/inner" "$scratch" "$debian"
  ) >"$scratch/manager.log" 2>&1 &
  unshare=$!
  local ready=no
  for _ in {1..150}; do
    manager=$(cat "/proc/$unshare/task/$unshare/children" 2>/dev/null || true)
    manager=${manager%% *}
    if [[ -n $manager && $(cat "/proc/$manager/comm" 2>/dev/null) == systemd ]] &&
      within systemctl is-active --quiet test.target 2>/dev/null; then
      ready=yes
      break
    fi
    sleep 0.2
  done
  [[ $ready == yes ]] || fail "systemd did not start"
}

# within COMMAND…: in the root folder, as root.
within() {
  nsenter -t "$manager" -m -p -C -n -u -i -r -w -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    DEBIAN_FRONTEND=noninteractive "$@"
}

# beside COMMAND…: this machine's, in the network of the root folder.
beside() { nsenter -t "$manager" -n -- "$@"; }
