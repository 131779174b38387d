package v1beta1

// Endpoint types.
const (
	TypeProxy  = "proxy"
	TypeTunnel = "tunnel"
)

// Ways to expose a Gateway.
const (
	ExposeNone         = ""
	ExposePublicIP     = "PublicIP"
	ExposeLoadBalancer = "LoadBalancer"
)

// NAT types, as Raven writes them.
const (
	NATFullCone           = "Full cone NAT"
	NATRestrictedCone     = "Restricted cone NAT"
	NATPortRestrictedCone = "Port Restricted cone NAT"
	NATSymmetric          = "Symmetric NAT"
	NATUndefined          = "Undefined"
)

// Keys of Endpoint.Config.
const (
	// ConfigPublicKey holds the WireGuard public key in base64.
	ConfigPublicKey = "publicKey"
	// ConfigNextPublicKey holds the key that the node will use next.
	ConfigNextPublicKey = "corax.io/next-public-key"
	// ConfigPublicHost holds a DNS name to use when PublicIP is empty.
	ConfigPublicHost = "corax.io/public-host"
	// ConfigTLSPort holds the TCP port of the tunnel fallback.
	ConfigTLSPort = "corax.io/tls-port"
	// ConfigEnableProxy and ConfigEnableTunnel are written by Raven's
	// controller into the copies in status.
	ConfigEnableProxy  = "enable-l7-proxy"
	ConfigEnableTunnel = "enable-l3-tunnel"
)

// Annotations of a Gateway.
const (
	// AnnotationCost is added to the cost of paths over the domain's hubs, in
	// milliseconds.
	AnnotationCost = "corax.io/cost"
	// AnnotationRelay, when "false", says that the domain's hubs do not relay.
	AnnotationRelay = "corax.io/relay"
	// AnnotationProxyPorts maps ports of nodes to ports of the proxy.
	AnnotationProxyPorts = "corax.io/proxy-ports"
	// AnnotationDomain names what the Gateway was made from.
	AnnotationDomain = "corax.io/domain"
	// AnnotationEpoch counts changes of the active endpoints.
	AnnotationEpoch = "corax.io/epoch"
	// AnnotationEpochOf is a fingerprint of the active endpoints that the epoch was
	// raised for.
	AnnotationEpochOf = "corax.io/epoch-of"
	// AnnotationCandidates names, by commas, the nodes that the controller listed
	// in spec.endpoints; entries of other nodes are a person's.
	AnnotationCandidates = "corax.io/candidates"
	// AnnotationReplicas holds the Replicas that the controller wrote last; other
	// values are a person's.
	AnnotationReplicas = "corax.io/replicas"
	// AnnotationRouted, when "true", leaves the domain's subnets to the kernel.
	AnnotationRouted = "corax.io/routed"
	// AnnotationReason on a Lease says why its node cannot carry traffic.
	AnnotationReason = "corax.io/reason"

	// FinalizerExposure keeps a Gateway until its Services are released.
	FinalizerExposure = "corax.io/exposure"

	// AnnotationExtraCIDRs lists CIDRs that the controller adds to the subnets
	// of the gateway node in status.
	AnnotationExtraCIDRs = Group + "/extra-allowed-source-cidrs"
	// AnnotationServiceIP and AnnotationServiceDNS give more names to a public
	// proxy Service.
	AnnotationServiceIP  = Group + "/public-service-external-ip"
	AnnotationServiceDNS = Group + "/public-service-external-dns-name"
)

// Annotations of Services, Gateways and of the ConfigMap raven-cfg.
const (
	// AnnotationDiscard, when "true", hides a Service from edge nodes.
	AnnotationDiscard = "svc.openyurt.io/discard"
	// AnnotationApplied holds what our controller set on a Service, or the public
	// addresses that it wrote into entries of a Gateway exposed by PublicIP, so
	// that it never overwrites what somebody else set.
	AnnotationApplied = "corax.io/applied"
	// AnnotationProtocols says which protocols of an endpoint a Service exposes:
	// "UDP" or "TCP"; both without it.
	AnnotationProtocols = "corax.io/protocols"
	// AnnotationBalancer holds what our controller wrote into raven-cfg.
	AnnotationBalancer = "corax.io/balancer"
)

// Labels of nodes and Services.
const (
	// LabelGateway on a node names its Gateway.
	LabelGateway = Group + "/gateway"
	// LabelGatewayType on a public Service is an endpoint type.
	LabelGatewayType = Group + "/gateway-type"
	// LabelEndpointsName on a public Service is the node of its endpoint.
	LabelEndpointsName = Group + "/endpoints-name"
	// LabelGatewayNode on a node, when "true", makes it a candidate.
	LabelGatewayNode = Group + "/gateway-node"
	// LabelManagedBy on an object names the program that made it.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy on what our controller makes.
	ManagedBy = "corax-controller"
)

// Ports that stand in for a port that an Endpoint does not give.
const (
	PortTunnel      = 4500  // UDP
	PortTLSFallback = 10280 // TCP
	PortProxyRaven  = 10262 // TCP, what Raven's webhook fills in
)

// Limits of the values.
const (
	// MaxReplicas bounds the active endpoints of one type in a domain.
	MaxReplicas = 8
	// MaxCost bounds AnnotationCost.
	MaxCost = 1_000_000
)
