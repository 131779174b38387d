package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/controller/approval"
	"corax/control/controller/names"
)

// hubAccount is the service account of the agents that are fronts of the proxy.
const hubAccount = "corax-hub"

// certificates approves the certificate requests of the proxy's fronts. The
// cluster's own signer signs them.
type certificates struct {
	client client.Client
	events events.EventRecorder
	log    *slog.Logger
	user   string   // whom fronts ask as
	names  []string // that they may get
}

func addCertificates(m manager.Manager, cfg Config, _ *guard) error {
	r := newCertificates(m.GetClient(), cfg)
	r.events = m.GetEventRecorder(name)
	w, err := newWatching(m, "certificates", r, &handler.EnqueueRequestForObject{})
	if err != nil {
		return err
	}
	return w.objects(&certificatesv1.CertificateSigningRequest{}, func(o client.Object) bool {
		q, ok := o.(*certificatesv1.CertificateSigningRequest)
		return ok && q.Spec.Username == r.user
	}, nil)
}

func newCertificates(c client.Client, cfg Config) *certificates {
	return &certificates{
		client: c, log: cfg.Log, names: names.ServingNames(cfg.Namespace, cfg.ClusterDomain),
		user: "system:serviceaccount:" + cfg.Namespace + ":" + hubAccount,
	}
}

// Reconcile decides one request.
func (r *certificates) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	q := &certificatesv1.CertificateSigningRequest{}
	if err := r.client.Get(ctx, req.NamespacedName, q); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	verdict, why := approval.Judge(q, r.user, r.names)
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: "CoraxFront", Message: why, LastUpdateTime: metav1.Now(),
	}
	switch verdict {
	case approval.Ignore:
		return reconcile.Result{}, nil
	case approval.Deny:
		condition.Type = certificatesv1.CertificateDenied
	case approval.Approve:
	}
	is := q.DeepCopy()
	is.Status.Conditions = append(is.Status.Conditions, condition)
	err := r.client.SubResource("approval").Update(ctx, is)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil // the cache is behind
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("certificates: decide %s: %w", q.Name, err)
	}
	r.tell(q, verdict, why)
	return reconcile.Result{}, nil
}

func (r *certificates) tell(q *certificatesv1.CertificateSigningRequest, v approval.Verdict, why string) {
	if v == approval.Approve {
		r.log.Info("a certificate request was approved", "request", q.Name, "user", q.Spec.Username)
		return
	}
	r.log.Warn("a certificate request was denied", "request", q.Name, "user", q.Spec.Username, "err", errors.New(why))
	if r.events != nil {
		r.events.Eventf(q, nil, corev1.EventTypeWarning, "CertificateDenied", "Deny", "%.900s", why)
	}
}
