{{/* Labels of every object. No chart version: an upgrade that changes nothing should not touch anything. */}}
{{- define "corax.labels" -}}
app.kubernetes.io/name: corax
app.kubernetes.io/part-of: corax
{{- with get . "component" }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "corax.openyurt" -}}
{{- if eq .Values.preset "openyurt" }}true{{ end }}
{{- end }}

{{/* Names that differ between the presets. */}}
{{- define "corax.agentAccount" -}}
{{- if include "corax.openyurt" . }}raven-agent-account{{ else }}corax-agent{{ end }}
{{- end }}

{{- define "corax.hubAccount" -}}
{{- if include "corax.openyurt" . }}raven-agent-account{{ else }}corax-hub{{ end }}
{{- end }}

{{/* Where the objects live that other programs find by name: raven-cfg, edge-tunnel-nodes, the Services. */}}
{{- define "corax.systemNamespace" -}}kube-system{{- end }}

{{/* Where Leases of agents live. It is a namespace of its own, so that a right to write there is one to write nothing else. */}}
{{- define "corax.leaseNamespace" -}}corax-leases{{- end }}

{{- define "corax.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Users, as the API server names service accounts, in the form of a CEL list. */}}
{{- define "corax.agentUsers" -}}
{{- $ns := .Release.Namespace -}}
{{- if include "corax.openyurt" . -}}
['system:serviceaccount:{{ $ns }}:raven-agent-account']
{{- else -}}
['system:serviceaccount:{{ $ns }}:corax-agent', 'system:serviceaccount:{{ $ns }}:corax-hub']
{{- end }}
{{- end }}

{{/* The user that fronts of the proxy ask as. */}}
{{- define "corax.hubUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "corax.hubAccount" . }}
{{- end }}

{{/* Keys can be bound to nodes from Kubernetes 1.30 on. */}}
{{- define "corax.bound" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}

{{/* What must fit together, beyond what values.schema.json can say. */}}
{{- define "corax.check" -}}
{{- if and (not (include "corax.bound" .)) (not .Values.identity.insecure) }}
{{- fail (printf "Kubernetes %s cannot bind an agent's writes to its node (1.30 can): any node could write the keys of any other. Set identity.insecure=true to install all the same." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if ne .Release.Namespace "kube-system" }}
{{- fail "install it in the namespace kube-system (--namespace kube-system): other programs look for its objects there" }}
{{- end }}
{{- if and (include "corax.openyurt" .) (eq .Values.agent.profile "unprivileged") }}
{{- fail "preset openyurt needs the profile net-admin: its ports must be the node's" }}
{{- end }}
{{- if and (eq .Values.preset "openyurt") .Values.proxy.connect.existingSecret }}
{{- fail "preset openyurt has one DaemonSet: the key of proxy.connect.existingSecret would lie on every edge node. Use proxy.connect.socket" }}
{{- end }}
{{- if and .Values.proxy.kubeletCA.configMap .Values.proxy.kubeletCA.file }}
{{- fail "proxy.kubeletCA has a configMap and a file: which of them counts?" }}
{{- end }}
{{- if and .Values.proxy.connect.existingSecret .Values.proxy.connect.cluster (not .Values.proxy.connect.clients) }}
{{- fail "proxy.connect.cluster needs proxy.connect.clients: else whoever has a certificate of ca.crt reaches all Services and Pods" }}
{{- end }}
{{- end }}

{{/* A list of names as the namespace's subjects. */}}
{{- define "corax.subjects" -}}
{{- $ns := .namespace -}}
{{- range .names }}
- kind: ServiceAccount
  name: {{ . }}
  namespace: {{ $ns }}
{{- end }}
{{- end }}

{{/*
Nodes of the cloud, for what has the controller's rights. Before the first labels
any node without the mark of an edge worker counts; where pools alone tell edges,
controller.nodeSelector closes that gap.
*/}}
{{- define "corax.cloudNodes" -}}
nodeAffinity:
  {{- with .Values.controller.nodeAffinity }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      # One of the terms must hold.
      {{- range list (list "raven.openyurt.io/gateway" "In" "cloud") (list "raven.openyurt.io/gateway" "DoesNotExist") (list "node-role.kubernetes.io/control-plane" "Exists") }}
      - matchExpressions:
          - key: openyurt.io/is-edge-worker
            operator: NotIn
            values: ["true"]
          - key: {{ index . 0 }}
            operator: {{ index . 1 }}
            {{- if gt (len .) 2 }}
            values: [{{ index . 2 }}]
            {{- end }}
      {{- end }}
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      preference:
        matchExpressions:
          - key: node-role.kubernetes.io/control-plane
            operator: Exists
    - weight: 50
      preference:
        matchExpressions:
          - key: raven.openyurt.io/gateway
            operator: In
            values: [cloud]
  {{- end }}
{{- end }}

{{- define "corax.secret" -}}
{{- if .Values.vpn.existingSecret -}}
{{ .Values.vpn.existingSecret }}
{{- else if include "corax.openyurt" . -}}
raven-agent-secret
{{- else -}}
corax-psk
{{- end }}
{{- end }}
