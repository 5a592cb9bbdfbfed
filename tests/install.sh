#!/usr/bin/env bash
# Install the Debian packages that are missing, without starting a service or touching one that
# runs: packages that are there are left alone, new ones may not start or enable anything.
# Usage: tests/install.sh PACKAGE ...
set -euo pipefail

missing=()
for package in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "please install by hand: ${missing[*]} (this is not a Debian system)" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "please install as root: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi

echo "installing ${missing[*]}"
"${as_root[@]}" bash -s -- "${missing[@]}" <<'ROOT'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.d/edge-agent-tests.conf
own_policy=
undo() {
    [ -z "$own_policy" ] || rm -f "$policy"
    rm -f "$cluster"
    rmdir --ignore-fail-on-non-empty /etc/postgresql-common/createcluster.d 2>/dev/null || true
}
trap undo EXIT
if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' >"$cluster"
log=$(mktemp)
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "could not install: $*" >&2
    exit 1
fi
rm -f "$log"
for package in "$@"; do
    case "$package" in
        mosquitto | influxdb | postgresql | prometheus)
            systemctl disable "$package" >/dev/null 2>&1 || true ;;
    esac
done
ROOT
