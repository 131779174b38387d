#!/bin/sh
# Installs what the tests (and with "bench" the benchmarks) use besides Go, or
# says in one line what is missing. Nothing here is needed to build or run Corax.
# No daemon that comes with a package is started, now or when the host boots.
set -u

# As root, rootless agents run as another user, who must reach bin/corax.
if [ "$(id -u)" = 0 ]; then
	dir=$(cd "$(dirname "$0")/.." && pwd)
	while [ "$dir" != / ]; do
		case $(stat -c %A "$dir") in
		*[xt]) ;;
		*) echo "$dir is closed to other users: tests of rootless agents need the checkout elsewhere" >&2 ;;
		esac
		dir=$(dirname "$dir")
	done
fi

want="wg:wireguard-tools turnserver:coturn usr/sbin/miniupnpd:miniupnpd-nftables"
want="$want iperf3:iperf3 containerd:containerd runc:runc usr/bin/busybox:busybox-static prometheus:prometheus"
want="$want usr/sbin/sshd:openssh-server ssh:openssh-client setpriv:util-linux curl:curl ping:iputils-ping"
if [ "${1:-}" = bench ]; then
	want="wg:wireguard-tools nebula:nebula openvpn:openvpn swanctl:strongswan-swanctl"
	want="$want usr/lib/ipsec/charon:strongswan-charon"
	want="$want usr/lib/ipsec/plugins/libstrongswan-openssl.so:libstrongswan-standard-plugins"
	want="$want usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so:libcharon-extra-plugins"
fi
missing=""
for w in $want; do
	[ -e "/${w%%:*}" ] || command -v "${w%%:*}" >/dev/null 2>&1 || missing="$missing ${w#*:}"
done
[ -n "$missing" ] || exit 0

# Packages ask this program whether they may start a daemon; 101 is no.
policy=/usr/sbin/policy-rc.d
mine=""
restore() {
	[ -n "$mine" ] || return 0
	mine=""
	rm -f "$policy"
	[ ! -e "$policy.corax" ] || mv "$policy.corax" "$policy"
}
forbid() {
	[ ! -e "$policy.corax" ] || mv "$policy.corax" "$policy" # of a run that was killed
	[ ! -x "$policy" ] || "$policy" coturn start >/dev/null 2>&1
	[ $? != 101 ] || return 0
	trap restore EXIT
	trap 'exit 1' HUP INT TERM
	mine=yes
	[ ! -e "$policy" ] || mv "$policy" "$policy.corax"
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
}
install() {
	apt-get update -qq || return 1
	forbid && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing || return 1
	for p in $missing; do
		! ls "/etc/rc2.d/"S*"$p" >/dev/null 2>&1 || update-rc.d "$p" disable || return 1
		[ ! -e "/lib/systemd/system/$p.service" ] || ! command -v systemctl >/dev/null || systemctl disable "$p" || return 1
	done
}
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing$missing"
	install >/dev/null 2>&1 && exit 0
fi
echo "missing:$missing (install the packages; what needs them is skipped, or fails when CI is set)"
