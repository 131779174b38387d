package exposure

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"corax/control/api/v1beta1"
)

// readRecord returns what our controller wrote into raven-cfg, by key.
func readRecord(cm *corev1.ConfigMap) map[string]string {
	var own map[string]string
	if json.Unmarshal([]byte(cm.Annotations[v1beta1.AnnotationBalancer]), &own) != nil {
		return nil
	}
	return own
}

// Record returns raven-cfg with the balancer of our Services in it: of the one
// that is there already, else of the oldest. A value that somebody else wrote
// stays. It returns cm itself when there is nothing to write.
func Record(cm *corev1.ConfigMap, services []corev1.Service) *corev1.ConfigMap {
	own := readRecord(cm)
	found := map[string]string{keyBalancer: "", keyBalancerIP: ""}
	if s := recorded(cm, services); s != nil {
		found[keyBalancer] = s.Labels[labelBalancerID]
		found[keyBalancerIP] = s.Status.LoadBalancer.Ingress[0].IP
	}
	is := cm.DeepCopy()
	note := map[string]string{}
	for key, value := range found {
		now := cm.Data[key]
		if now != "" && now != own[key] {
			continue // somebody else's
		}
		if now != value {
			if is.Data == nil {
				is.Data = map[string]string{}
			}
			is.Data[key] = value
		}
		if value != "" {
			note[key] = value
		}
	}
	if maps.Equal(is.Data, cm.Data) && maps.Equal(note, own) {
		return cm
	}
	delete(is.Annotations, v1beta1.AnnotationBalancer)
	if len(note) > 0 {
		if is.Annotations == nil {
			is.Annotations = map[string]string{}
		}
		b, err := json.Marshal(note)
		if err != nil { // impossible: strings only
			return cm
		}
		is.Annotations[v1beta1.AnnotationBalancer] = string(b)
	}
	return is
}

// recorded returns the Service whose balancer stands in raven-cfg; nil when no
// Service has one.
func recorded(cm *corev1.ConfigMap, services []corev1.Service) *corev1.Service {
	var best *corev1.Service
	older := func(a, b *corev1.Service) bool {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c < 0
		}
		return a.Name < b.Name
	}
	for i := range services {
		s := &services[i]
		if !isTunnel(s) || !isOwn(s) || isSecond(s) || s.DeletionTimestamp != nil || len(s.Status.LoadBalancer.Ingress) == 0 {
			continue
		}
		if ip := s.Status.LoadBalancer.Ingress[0].IP; ip != "" && ip == cm.Data[keyBalancerIP] {
			return s
		}
		if best == nil || older(s, best) {
			best = s
		}
	}
	return best
}
