package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"corax/control/api/v1beta1"
)

// Bounds of requests.
const (
	// An agent makes a few requests when it starts, and hardly any later.
	requestRate, requestBurst = 5, 10
	// A front of the proxy asks once for each caller and minute or so.
	reviewRate, reviewBurst = 100, 200
	dialTimeout             = 10 * time.Second
	writeTimeout            = 15 * time.Second
	listTimeout             = time.Minute
)

// server is the API server, as far as an agent needs it.
type server struct {
	gateways rest.Interface
	core     rest.Interface
	leases   rest.Interface
	tokens   rest.Interface // TokenReviews
	access   rest.Interface // SubjectAccessReviews
	requests rest.Interface // for certificates
	params   runtime.ParameterCodec
	link     *link

	services, slices rest.Interface // of all namespaces
	serviceParams    runtime.ParameterCodec

	namespace, leaseNamespace string
}

// restConfig says how to reach the API server.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

func newServer(cfg Config, rc *rest.Config, l *link) (*server, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	whole := newServiceScheme()
	client := func(gv schema.GroupVersion, change func(*rest.Config)) (rest.Interface, error) {
		c := rest.CopyConfig(rc)
		c.UserAgent, c.WarningHandler = cfg.UserAgent, rest.NoWarnings{}
		c.QPS, c.Burst = requestRate, requestBurst
		c.GroupVersion, c.NegotiatedSerializer = &gv, codecs.WithoutConversion()
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		c.APIPath = "/apis"
		if gv.Group == "" {
			c.APIPath = "/api"
		}
		if c.Dial == nil {
			c.Dial = l.dial
		}
		if change != nil {
			change(c)
		}
		return rest.RESTClientFor(c)
	}
	s := &server{params: runtime.NewParameterCodec(scheme), serviceParams: runtime.NewParameterCodec(whole), link: l, namespace: cfg.Namespace, leaseNamespace: cfg.LeaseNamespace}
	// Over HTTP/2 requests would wait on a connection whose path is dead until pings
	// have found that out, longer than a Lease lasts. Over HTTP/1.1 one that times
	// out closes its connection.
	alone := func(c *rest.Config) { c.NextProtos = []string{"http/1.1"} }
	reviews := func(c *rest.Config) { c.QPS, c.Burst = reviewRate, reviewBurst }
	lean := func(c *rest.Config) { c.NegotiatedSerializer = serializer.NewCodecFactory(whole).WithoutConversion() }
	for _, r := range []struct {
		to     *rest.Interface
		gv     schema.GroupVersion
		change func(*rest.Config)
	}{
		{&s.gateways, gatewayVersion, nil},
		{&s.core, corev1.SchemeGroupVersion, nil},
		{&s.leases, coordinationv1.SchemeGroupVersion, alone},
		{&s.tokens, authenticationv1.SchemeGroupVersion, reviews},
		{&s.access, authorizationv1.SchemeGroupVersion, reviews},
		{&s.requests, certificatesv1.SchemeGroupVersion, nil},
		{&s.services, corev1.SchemeGroupVersion, lean},
		{&s.slices, discoveryv1.SchemeGroupVersion, lean},
	} {
		if *r.to, err = client(r.gv, r.change); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var gatewayVersion = schema.GroupVersion{Group: v1beta1.Group, Version: v1beta1.Version}

func newScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(gatewayVersion.WithKind(v1beta1.Kind), &object{})
	s.AddKnownTypeWithName(gatewayVersion.WithKind(v1beta1.ListKind), &objectList{})
	metav1.AddToGroupVersion(s, gatewayVersion)
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.ConfigMap{}, &corev1.ConfigMapList{}, &corev1.Service{}, &corev1.ServiceList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	s.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Node"), &nodeObject{})
	s.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("NodeList"), &nodeList{})
	s.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenReview{})
	s.AddKnownTypes(authorizationv1.SchemeGroupVersion, &authorizationv1.SubjectAccessReview{})
	s.AddKnownTypes(certificatesv1.SchemeGroupVersion, &certificatesv1.CertificateSigningRequest{})
	s.AddKnownTypes(coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{})
	metav1.AddToGroupVersion(s, coordinationv1.SchemeGroupVersion)
	return s, nil
}

// newServiceScheme has the Services and EndpointSlices of the whole cluster, of which
// little is kept.
func newServiceScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Service"), &serviceObject{})
	s.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("ServiceList"), &serviceList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	s.AddKnownTypeWithName(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), &sliceObject{})
	s.AddKnownTypeWithName(discoveryv1.SchemeGroupVersion.WithKind("EndpointSliceList"), &sliceList{})
	metav1.AddToGroupVersion(s, discoveryv1.SchemeGroupVersion)
	return s
}

// watchGateways keeps the store like the cluster until ctx is done.
func (s *server) watchGateways(ctx context.Context, store *gatewayStore) error {
	lw := &source{client: s.gateways, params: s.params, resource: "gateways", list: func() runtime.Object { return &objectList{} }, tell: s.link.read}
	reflect(ctx, lw, &object{}, store)
	return nil
}

// watchSettings keeps the store like raven-cfg until ctx is done.
func (s *server) watchSettings(ctx context.Context, store *settingsStore) error {
	lw := &source{
		client: s.core, params: s.params, resource: "configmaps", namespace: s.namespace, name: settingsName,
		list: func() runtime.Object { return &corev1.ConfigMapList{} },
		tell: func(err error) {
			s.link.settings(err)
			if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
				store.unreadable()
			}
		},
	}
	reflect(ctx, lw, &corev1.ConfigMap{}, store)
	return nil
}

// watchBalancers keeps the store like the Services for node's tunnel until ctx is
// done.
func (s *server) watchBalancers(ctx context.Context, node string, store *balancerStore) error {
	lw := &source{
		client: s.core, params: s.params, resource: "services", namespace: s.namespace,
		labels: labels.Set{v1beta1.LabelEndpointsName: node, v1beta1.LabelGatewayType: v1beta1.TypeTunnel},
		list:   func() runtime.Object { return &corev1.ServiceList{} },
		tell:   s.link.balancers,
	}
	reflect(ctx, lw, &corev1.Service{}, store)
	return nil
}

// watchNodes keeps the store like the names of the cluster's nodes until ctx is
// done.
func (s *server) watchNodes(ctx context.Context, store *nodeNames) error {
	lw := &source{
		client: s.core, params: s.params, resource: "nodes", list: func() runtime.Object { return &nodeList{} },
		tell: s.link.nodes, page: nodePage,
	}
	reflect(ctx, lw, &nodeObject{}, store)
	return nil
}

// watchServices keeps the store like the Services of the cluster and their endpoints
// until ctx is done.
func (s *server) watchServices(ctx context.Context, store *services) error {
	var g errgroup.Group
	g.Go(func() error {
		lw := &source{
			client: s.services, params: s.serviceParams, resource: "services", list: func() runtime.Object { return &serviceList{} },
			tell: s.link.services, page: nodePage,
		}
		reflect(ctx, lw, &serviceObject{}, store.serviceStore())
		return nil
	})
	lw := &source{
		client: s.slices, params: s.serviceParams, resource: "endpointslices", list: func() runtime.Object { return &sliceList{} },
		tell: s.link.slices, page: nodePage,
	}
	reflect(ctx, lw, &sliceObject{}, store.sliceStore())
	return g.Wait()
}

// readNode returns a node.
func (s *server) readNode(ctx context.Context, name string) (*nodeObject, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	n := &nodeObject{}
	err := s.core.Get().Resource("nodes").Name(name).MaxRetries(0).Do(ctx).Into(n)
	return n, err
}

// watchConfig keeps the store like one ConfigMap until ctx is done. failed is
// called with what keeps it from being read.
func (s *server) watchConfig(ctx context.Context, store *configStore, failed func(error)) error {
	lw := &source{
		client: s.core, params: s.params, resource: "configmaps", namespace: s.namespace, name: store.name,
		list: func() runtime.Object { return &corev1.ConfigMapList{} },
		tell: func(err error) {
			if err != nil {
				failed(err)
			}
		},
	}
	reflect(ctx, lw, &corev1.ConfigMap{}, store)
	return nil
}

// reflect runs a reflector. It tries again by itself: after a second at first,
// then more and more rarely, at most every half minute.
func reflect(ctx context.Context, lw *source, example runtime.Object, store cache.ReflectorStore) {
	// What it would log is told by source, once per change.
	quiet := logr.Discard()
	r := cache.NewReflectorWithOptions(lw, example, store, cache.ReflectorOptions{
		Name: lw.resource, Logger: &quiet,
		Backoff: &wait.Backoff{Duration: 800 * time.Millisecond, Cap: 15 * time.Second, Steps: 10, Factor: 2, Jitter: 1},
	})
	r.RunWithContext(klog.NewContext(ctx, quiet))
}

// source lists and watches one resource.
type source struct {
	client    rest.Interface
	params    runtime.ParameterCodec
	resource  string
	namespace string
	name      string     // only the object of that name; empty: all
	labels    labels.Set // only objects that have these; empty: all
	list      func() runtime.Object
	tell      func(error) // what became of each request
	page      int64       // how many objects are read at once; zero: all
}

// nodePage bounds what a list of nodes takes while it is read: of each little is
// kept.
const nodePage = 250

var (
	_ cache.ListerWatcher            = (*source)(nil)
	_ cache.ListerWatcherWithContext = (*source)(nil)
)

// ListWithContext answers a list request.
func (s *source) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if s.page > 0 {
		// From the cache of the API server it would be all at once.
		o.ResourceVersion, o.ResourceVersionMatch, o.Limit = "", "", s.page
	}
	out := s.list()
	err := s.request(&o).Do(ctx).Into(out)
	if s.page > 0 && err == nil {
		err = s.rest(ctx, o, out)
	}
	s.told(ctx, err)
	return out, err
}

// rest reads the pages after the first and adds them to it.
func (s *source) rest(ctx context.Context, o metav1.ListOptions, first runtime.Object) error {
	l, ok := first.(paged)
	for ok && l.more() != "" {
		o.Continue = l.more()
		next := l.empty()
		if err := s.request(&o).Do(ctx).Into(next); err != nil {
			return err
		}
		l.add(next)
	}
	return nil
}

// paged is a list that is read in parts.
type paged interface {
	runtime.Object
	more() string // where the next part begins; empty: there is none
	empty() paged
	add(next runtime.Object)
}

// WatchWithContext begins a watch.
func (s *source) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	w, err := s.request(&o).Watch(ctx)
	s.told(ctx, err)
	return w, err
}

// IsWatchListSemanticsUnSupported keeps the reflector from asking for a list in
// the form of a watch: caching proxies on edge nodes know only lists.
func (s *source) IsWatchListSemanticsUnSupported() bool { return true }

// List is ListWithContext without one; reflectors do not use it.
func (s *source) List(o metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), o)
}

// Watch is WatchWithContext without one; reflectors do not use it.
func (s *source) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), o)
}

func (s *source) request(o *metav1.ListOptions) *rest.Request {
	if s.name != "" {
		o.FieldSelector = "metadata.name=" + s.name
	}
	if len(s.labels) > 0 {
		o.LabelSelector = s.labels.String()
	}
	return s.client.Get().NamespaceIfScoped(s.namespace, s.namespace != "").Resource(s.resource).
		VersionedParams(o, s.params).MaxRetries(0)
}

func (s *source) told(ctx context.Context, err error) {
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled): // the agent ends
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err), tooLarge(err):
		s.tell(nil) // it answers; the reflector lists again
	default:
		s.tell(err)
	}
}

// readGateway returns a Gateway as it stands in the API server.
func (s *server) readGateway(ctx context.Context, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.gateways.Get().Resource("gateways").Name(name).MaxRetries(0).Do(ctx).Raw()
}

// patchGateway applies a JSON patch to a Gateway.
func (s *server) patchGateway(ctx context.Context, name string, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.gateways.Patch(patchJSON).Resource("gateways").Name(name).Body(patch).MaxRetries(0).Do(ctx).Error()
}

// patchLease applies a merge patch to a Lease.
func (s *server) patchLease(ctx context.Context, name string, patch []byte) error {
	return s.leases.Patch(patchMerge).Namespace(s.leaseNamespace).Resource("leases").Name(name).Body(patch).MaxRetries(0).Do(ctx).Error()
}

// createLease makes a Lease.
func (s *server) createLease(ctx context.Context, l *coordinationv1.Lease) error {
	l.Namespace = s.leaseNamespace
	return s.leases.Post().Namespace(s.leaseNamespace).Resource("leases").Body(l).MaxRetries(0).Do(ctx).Error()
}

// deleteLease removes a Lease; one that is not there is no error.
func (s *server) deleteLease(ctx context.Context, name string) error {
	err := s.leases.Delete().Namespace(s.leaseNamespace).Resource("leases").Name(name).MaxRetries(0).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// dial opens a connection to the API server and notes where it went.
func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("dial the API server: %w", err)
	}
	l.dialed(conn.RemoteAddr())
	return conn, nil
}

// tooLarge reports whether another API server, which lags behind, was asked for a
// version that it does not have yet.
func tooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
