package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"corax/control/controller/exposure"
)

// settings says on raven-cfg what is wrong with it, and notes there which balancer
// our Services have. It never makes one: that it is missing has a meaning.
type settings struct {
	client    client.Client
	guard     *guard
	events    events.EventRecorder
	log       *slog.Logger
	namespace string

	told []string // what events said; one goroutine uses it
}

func addSettings(m manager.Manager, cfg Config, g *guard) error {
	r := &settings{
		client: m.GetClient(), guard: g, events: m.GetEventRecorder(name), log: cfg.Log, namespace: cfg.Namespace,
	}
	w, err := newWatching(m, "settings", r, all(domainsDelay))
	if err != nil {
		return err
	}
	return errors.Join(
		w.objects(&corev1.ConfigMap{}, r.isIt, anyChange),
		w.objects(&corev1.Service{}, func(o client.Object) bool {
			s, ok := o.(*corev1.Service)
			return ok && exposure.Concerns(s) != ""
		}, anyChange),
	)
}

func (r *settings) isIt(o client.Object) bool {
	return o.GetName() == exposure.SettingsName && o.GetNamespace() == r.namespace
}

// Reconcile reads raven-cfg and writes the balancer into it.
func (r *settings) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	cm := &corev1.ConfigMap{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: exposure.SettingsName}, cm)
	if apierrors.IsNotFound(err) {
		r.told = nil
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("settings: %w", err)
	}
	r.tell(cm)
	var services corev1.ServiceList
	if err := r.client.List(ctx, &services, client.InNamespace(r.namespace), client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("settings: %w", err)
	}
	is := exposure.Record(cm, services.Items)
	if is == cm {
		return reconcile.Result{}, nil
	}
	if ok, again := r.guard.Allows(ctx, cm); !ok {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	if err := patchObject(ctx, r.client, is, cm); apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("settings: %w", err)
	}
	r.log.Info("the balancer was noted", "configmap", exposure.SettingsName)
	return reconcile.Result{}, nil
}

// tell raises an event for what is wrong with the settings, once for each text.
func (r *settings) tell(cm *corev1.ConfigMap) {
	s := exposure.ParseSettings(cm)
	var now []string
	if s.Refused != "" {
		now = append(now, s.Refused+"; what was in force stays")
	}
	now = append(now, s.Warnings...)
	for _, text := range now {
		if !slices.Contains(r.told, text) {
			r.log.Warn("a setting needs attention", "configmap", exposure.SettingsName, "why", text)
			r.events.Eventf(cm, nil, corev1.EventTypeWarning, "BadSetting", "ReadSettings", "%.900s", text)
		}
	}
	r.told = now
}
