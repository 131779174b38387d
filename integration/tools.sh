#!/bin/sh
# Installs what the tests (and with "bench" the benchmarks) use besides Go, or
# says in one line what is missing. Nothing here is needed to build or run Corax.
set -u
want="wg:wireguard-tools"
if [ "${1:-}" = bench ]; then
	want="$want nebula:nebula openvpn:openvpn swanctl:strongswan-swanctl"
	want="$want usr/lib/ipsec/charon:strongswan-charon"
	want="$want usr/lib/ipsec/plugins/libstrongswan-openssl.so:libstrongswan-standard-plugins"
	want="$want usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so:libcharon-extra-plugins"
fi
missing=""
for w in $want; do
	[ -e "/${w%%:*}" ] || command -v "${w%%:*}" >/dev/null 2>&1 || missing="$missing ${w#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing$missing"
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
fi
echo "missing:$missing (install the packages; what needs them is skipped, or fails when CI is set)"
