package v1beta1

// Names that an object carries in apiVersion and kind.
const (
	Group      = "raven.openyurt.io"
	Version    = "v1beta1"
	APIVersion = Group + "/" + Version

	Kind     = "Gateway"
	ListKind = "GatewayList"
)

// TypeMeta says what an object is.
type TypeMeta struct {
	APIVersion string `json:"apiVersion,omitempty" yaml:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty" yaml:"kind,omitempty"`
}

// ObjectMeta is the part of an object's metadata that Corax uses. Other fields
// of it may be present in a document and are ignored.
type ObjectMeta struct {
	Name            string            `json:"name,omitempty" yaml:"name,omitempty"`
	Labels          map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty" yaml:"annotations,omitempty"`
	UID             string            `json:"uid,omitempty" yaml:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty" yaml:"resourceVersion,omitempty"`
	Generation      int64             `json:"generation,omitempty" yaml:"generation,omitempty"`
}

// Gateway is one network domain: its nodes, and which of them carry its traffic
// to and from other domains. It is cluster scoped.
type Gateway struct {
	TypeMeta `json:",inline" yaml:",inline"`
	Metadata ObjectMeta    `json:"metadata" yaml:"metadata"`
	Spec     GatewaySpec   `json:"spec,omitempty" yaml:"spec,omitempty"`
	Status   GatewayStatus `json:"status,omitempty" yaml:"status,omitempty"`
}

// GatewayList is what the API server answers to a list request.
type GatewayList struct {
	TypeMeta `json:",inline" yaml:",inline"`
	Metadata ObjectMeta `json:"metadata" yaml:"metadata"`
	Items    []Gateway  `json:"items" yaml:"items"`
}

// GatewaySpec is what people and controllers want of a domain.
type GatewaySpec struct {
	// NodeSelector is kept for Raven's sake; nodes are chosen by the label
	// [LabelGateway] alone.
	NodeSelector *LabelSelector `json:"nodeSelector,omitempty" yaml:"nodeSelector,omitempty"`
	// ProxyConfig is nil when the object does not have it.
	ProxyConfig *ProxyConfiguration `json:"proxyConfig,omitempty" yaml:"proxyConfig,omitempty"`
	// TunnelConfig is nil when the object does not have it.
	TunnelConfig *TunnelConfiguration `json:"tunnelConfig,omitempty" yaml:"tunnelConfig,omitempty"`
	// Endpoints are the candidates, in order of preference.
	Endpoints []Endpoint `json:"endpoints,omitempty" yaml:"endpoints,omitempty"`
	// ExposeType is one of the Expose constants.
	ExposeType string `json:"exposeType,omitempty" yaml:"exposeType,omitempty"`
}

// LabelSelector is Kubernetes' label selector.
type LabelSelector struct {
	MatchLabels      map[string]string          `json:"matchLabels,omitempty" yaml:"matchLabels,omitempty"`
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty" yaml:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is one expression of a LabelSelector.
type LabelSelectorRequirement struct {
	Key      string   `json:"key" yaml:"key"`
	Operator string   `json:"operator" yaml:"operator"`
	Values   []string `json:"values,omitempty" yaml:"values,omitempty"`
}

// ProxyConfiguration says how the domain takes part in proxy mode.
type ProxyConfiguration struct {
	// Replicas is the number of active proxy endpoints; zero turns proxy mode
	// off for the domain.
	Replicas int `json:"Replicas" yaml:"Replicas"`
	// ProxyHTTPPort lists ports of plain HTTP services on nodes, by commas.
	ProxyHTTPPort string `json:"proxyHTTPPort,omitempty" yaml:"proxyHTTPPort,omitempty"`
	// ProxyHTTPSPort lists ports of TLS services on nodes, by commas.
	ProxyHTTPSPort string `json:"proxyHTTPSPort,omitempty" yaml:"proxyHTTPSPort,omitempty"`
}

// TunnelConfiguration says how the domain takes part in tunnel mode.
type TunnelConfiguration struct {
	// Replicas is the number of active tunnel endpoints; zero turns tunnel
	// mode off for the domain.
	Replicas int `json:"Replicas" yaml:"Replicas"`
}

// Endpoint is one node that can carry the domain's traffic, in one mode.
type Endpoint struct {
	NodeName string `json:"nodeName" yaml:"nodeName"`
	// Type is TypeProxy or TypeTunnel.
	Type string `json:"type" yaml:"type"`
	// Port is where the endpoint is exposed, when PublicPort says nothing else.
	Port     int  `json:"port,omitempty" yaml:"port,omitempty"`
	UnderNAT bool `json:"underNAT,omitempty" yaml:"underNAT,omitempty"`
	// NATType is one of the NAT constants, written by the agent.
	NATType    string `json:"natType,omitempty" yaml:"natType,omitempty"`
	PublicIP   string `json:"publicIP,omitempty" yaml:"publicIP,omitempty"`
	PublicPort int    `json:"publicPort,omitempty" yaml:"publicPort,omitempty"`
	// Config holds what Raven has no field for, by the Config constants.
	Config map[string]string `json:"config,omitempty" yaml:"config,omitempty"`
}

// NodeInfo is one node of the domain.
type NodeInfo struct {
	NodeName  string   `json:"nodeName" yaml:"nodeName"`
	PrivateIP string   `json:"privateIP" yaml:"privateIP"`
	Subnets   []string `json:"subnets" yaml:"subnets"`
}

// GatewayStatus is what is: the nodes of the domain, and who is active.
type GatewayStatus struct {
	// Nodes are all nodes of the domain, with the pod subnets of each.
	Nodes []NodeInfo `json:"nodes,omitempty" yaml:"nodes,omitempty"`
	// ActiveEndpoints are copies of the entries of spec.endpoints in force.
	ActiveEndpoints []Endpoint `json:"activeEndpoints,omitempty" yaml:"activeEndpoints,omitempty"`
}
