#!/usr/bin/env bash
# nats-server as Debian packages it, unpacked beside this file: no root, and nothing of the system's own apt is touched.
set -euo pipefail
cd "$(dirname "$0")"
command -v apt-get dpkg-deb >/dev/null
rm -rf nats && mkdir -p nats/apt/lists/partial nats/apt/archives/partial
own=(-q -o "Dir::State=$PWD/nats/apt" -o "Dir::State::lists=$PWD/nats/apt/lists" -o Dir::State::status=/dev/null
     -o "Dir::Cache=$PWD/nats/apt" -o APT::Sandbox::User=)
apt-get "${own[@]}" update >/dev/null
(cd nats/apt && apt-get "${own[@]}" download nats-server >/dev/null && dpkg-deb -x nats-server*.deb ..)
rm -rf nats/apt
