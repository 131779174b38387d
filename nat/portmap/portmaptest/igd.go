package portmaptest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// IGD says how the UPnP device behaves. The zero value is a version 1 device with
// one WANIPConnection:1.
type IGD struct {
	// Service is the type of the connection service without its URN prefix;
	// empty: "WANIPConnection:1".
	Service string
	// PermanentOnly refuses leases that end, with error 725.
	PermanentOnly bool
	// Errors maps SOAP actions to the UPnP error that they give.
	Errors map[string]int
	// Location, URLBase and ControlURL replace what the device says when they
	// are not empty.
	Location, URLBase, ControlURL string
	// Serve, when not nil, answers HTTP requests in place of the device.
	Serve http.HandlerFunc
}

func (d IGD) service() string {
	if d.Service == "" {
		return "WANIPConnection:1"
	}
	return d.Service
}

// answerSSDP answers a search.
func (g *Gateway) answerSSDP(req []byte, _ netip.AddrPort) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := string(req)
	if !strings.HasPrefix(s, "M-SEARCH * HTTP/1.1\r\n") || !strings.Contains(s, "\r\nMAN: \"ssdp:discover\"\r\n") || !strings.Contains(s, "InternetGatewayDevice:1\r\n") {
		return nil
	}
	g.requests["search"]++
	at := g.cfg.IGD.Location
	if at == "" {
		at = "http://" + g.http.Addr().String() + "/desc.xml"
	}
	return [][]byte{[]byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n" +
		"USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\nSERVER: fake\r\nLOCATION: " + at + "\r\n\r\n")}
}

// URL returns the root of the router's web server.
func (g *Gateway) URL() string { return "http://" + g.http.Addr().String() }

func (g *Gateway) serveHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.cfg.IGD.Serve != nil:
		g.requests["served"]++
		g.cfg.IGD.Serve(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/desc.xml":
		g.requests["description"]++
		_, _ = io.WriteString(w, g.descriptionLocked())
	case r.Method == http.MethodPost && r.URL.Path == "/ctl":
		g.soapLocked(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (g *Gateway) descriptionLocked() string {
	d := g.cfg.IGD
	control := d.ControlURL
	if control == "" {
		control = "/ctl"
	}
	base := ""
	if d.URLBase != "" {
		base = "<URLBase>" + d.URLBase + "</URLBase>"
	}
	const urn = "urn:schemas-upnp-org:"
	return `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">` + base +
		`<device><deviceType>` + urn + `device:InternetGatewayDevice:1</deviceType><friendlyName>fake router</friendlyName>` +
		`<deviceList><device><deviceType>` + urn + `device:WANDevice:1</deviceType>` +
		`<deviceList><device><deviceType>` + urn + `device:WANConnectionDevice:1</deviceType>` +
		`<serviceList><service><serviceType>` + urn + `service:` + d.service() + `</serviceType>` +
		`<controlURL>` + control + `</controlURL></service></serviceList>` +
		`</device></deviceList></device></deviceList></device></root>`
}

// soapArgs are the arguments that our actions use.
type soapArgs struct {
	External    string `xml:"NewExternalPort"`
	Protocol    string `xml:"NewProtocol"`
	Internal    string `xml:"NewInternalPort"`
	Client      string `xml:"NewInternalClient"`
	Description string `xml:"NewPortMappingDescription"`
	Lease       string `xml:"NewLeaseDuration"`
}

type soapBody struct {
	Body struct {
		Action struct {
			XMLName xml.Name
			soapArgs
		} `xml:",any"`
	} `xml:"Body"`
}

func (g *Gateway) soapLocked(w http.ResponseWriter, r *http.Request) {
	var e soapBody
	if err := xml.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	action, args := e.Body.Action.XMLName.Local, e.Body.Action.soapArgs
	urn := "urn:schemas-upnp-org:service:" + g.cfg.IGD.service()
	if r.Header.Get("SOAPAction") != `"`+urn+"#"+action+`"` {
		http.Error(w, "SOAPAction", http.StatusBadRequest)
		return
	}
	g.requests[action]++
	out, code := g.actLocked(action, args)
	if c := g.cfg.IGD.Errors[action]; c != 0 {
		code = c
	}
	const env = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, env+`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0">`+
			`<errorCode>%d</errorCode><errorDescription>fault %d</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code, code)
		return
	}
	fmt.Fprintf(w, env+`<u:%[1]sResponse xmlns:u="%[2]s">%[3]s</u:%[1]sResponse></s:Body></s:Envelope>`, action, urn, out)
}

// actLocked does a SOAP action and returns the arguments of the answer, or a
// UPnP error code. An action that Errors refuses does nothing.
func (g *Gateway) actLocked(action string, args soapArgs) (out string, code int) {
	if g.cfg.IGD.Errors[action] != 0 {
		return "", 0
	}
	port, err := strconv.ParseUint(args.External, 10, 16)
	if action != "GetExternalIPAddress" && (err != nil || args.Protocol != "UDP") {
		return "", 402
	}
	has := func(m Mapping) bool { return m.External == uint16(port) }
	switch action {
	case "GetExternalIPAddress":
		return "<NewExternalIPAddress>" + g.cfg.External.String() + "</NewExternalIPAddress>", 0
	case "DeletePortMapping":
		if !g.deleteLocked(has) {
			return "", 714
		}
		return "", 0
	case "GetSpecificPortMappingEntry":
		for _, m := range g.mappings {
			if has(m) {
				return fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled>"+
					"<NewPortMappingDescription>%s</NewPortMappingDescription><NewLeaseDuration>%d</NewLeaseDuration>", m.Internal.Port(), m.Internal.Addr(), m.Description, m.Lifetime), 0
			}
		}
		return "", 714
	case "AddPortMapping", "AddAnyPortMapping":
		return g.addLocked(action == "AddAnyPortMapping", uint16(port), args)
	default:
		return "", 401
	}
}

func (g *Gateway) addLocked(anyPort bool, port uint16, args soapArgs) (out string, code int) {
	lease, err := strconv.ParseUint(args.Lease, 10, 32)
	client, err2 := netip.ParseAddr(args.Client)
	internal, err3 := strconv.ParseUint(args.Internal, 10, 16)
	switch {
	case err != nil || err2 != nil || err3 != nil:
		return "", 402
	case anyPort && g.cfg.IGD.service() != "WANIPConnection:2":
		return "", 401
	case g.cfg.IGD.PermanentOnly && lease != 0:
		return "", 725
	}
	m := Mapping{Protocol: "UPnP", Internal: netip.AddrPortFrom(client, uint16(internal)), External: port, Lifetime: uint32(lease), Description: args.Description}
	if !anyPort {
		for _, old := range g.mappings {
			if old.External == port && old.Internal.Addr() != client {
				return "", 718
			}
		}
		g.deleteLocked(func(old Mapping) bool { return old.External == port })
		g.mappings = append(g.mappings, m)
		return "", 0
	}
	m, _ = g.grantLocked(m)
	return fmt.Sprintf("<NewReservedPort>%d</NewReservedPort>", m.External), 0
}
