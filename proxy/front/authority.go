package front

import (
	"strconv"
	"strings"
)

// parseAuthority takes host:port, or a host alone, apart; port 0: there was none.
// The host is not looked at except that it cannot be misread: no userinfo, no zone,
// no path, no escapes.
func parseAuthority(s string) (host string, port uint16, err error) {
	host, rest := s, ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, rest, ok = strings.Cut(inner, "]")
		if !ok || !strings.Contains(host, ":") {
			return "", 0, badHead("host %s is not an address in brackets", quoted(s))
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, rest = s[:i], s[i:]
	}
	if host == "" || len(host) > maxHost {
		return "", 0, badHead("host %s is empty or too long", quoted(s))
	}
	for i := range len(host) {
		if !hostByte(host[i]) && (host[i] != ':' || s[0] != '[') {
			return "", 0, badHead("host %s is not a name or an address", quoted(s))
		}
	}
	if rest == "" {
		return host, 0, nil
	}
	digits, ok := strings.CutPrefix(rest, ":")
	n, perr := strconv.ParseUint(digits, 10, 16)
	if !ok || perr != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
		return "", 0, badHead("host %s has no proper port", quoted(s))
	}
	return host, uint16(n), nil
}

func hostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}
