#!/usr/bin/env bash
# A MySQL server program in a folder of its own, for the slow tests of InterCode-SQL: tests/real/mysqld.sh FOLDER
#
# Debian has it in its unstable suite only. The packages are unpacked, not installed: no root is needed, and nothing
# outside the folder changes. Needs apt-get, dpkg-deb and Debian's keyring, on x86-64. Prints what to set.
set -euo pipefail

folder="$(mkdir -p "${1:?usage: mysqld.sh FOLDER}" && cd "$1" && pwd)"
state="$folder/state"
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$folder/files"
touch "$state/status"
mirror="$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | head -n 1)"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-https://deb.debian.org/debian} sid main" \
    >"$state/sources.list"

get() {
    apt-get -qq -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$state" -o Dir::State::Lists="$state/lists" -o Dir::State::Status="$state/status" \
        -o Dir::Cache="$state/cache" -o Acquire::Check-Valid-Until=false -o APT::Install-Recommends=false \
        -o APT::Sandbox::User=root "$@"
}

get update
get install --yes --download-only mysql-server-core
for package in "$state"/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/files"
done
rm -r "$state"

# Its libraries are newer than the machine's: it runs with the loader that came with them.
libraries="$folder/files/usr/lib/x86_64-linux-gnu"
cat >"$folder/mysqld" <<SCRIPT
#!/bin/sh
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$folder/files/usr/sbin/mysqld" --no-defaults \\
    --basedir="$folder/files/usr" --lc-messages-dir="$folder/files/usr/share/mysql" \\
    --character-sets-dir="$folder/files/usr/share/mysql/charsets" "\$@"
SCRIPT
chmod +x "$folder/mysqld"
"$folder/mysqld" --version
echo "export COEVO_MYSQLD=$folder/mysqld"
