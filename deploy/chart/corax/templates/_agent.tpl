{{/*
One DaemonSet of agents. Takes: root, name, account, component, cloud (which of
the nodes: "only", "not", or "any"), maxUnavailable, resources, profile.

Profile net-admin: uid 0 without any capability but NET_ADMIN, since opening a TUN
needs both. Profile unprivileged: nothing that PodSecurity "restricted" refuses;
the agent ends the traffic of its node's subnets itself.
*/}}
{{- define "corax.agents" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $openyurt := include "corax.openyurt" $root }}
{{- $host := eq .profile "net-admin" }}
{{- $ports := dict "tunnel" 4500 "tls" 10280 "proxyTLS" 10281 "proxyHTTP" 10282 "metrics" 10283 "health" 10284 }}
{{- if $openyurt }}
{{- $ports = dict "tunnel" ($values.vpn.tunnelAddr | splitList ":" | last | int) "tls" ($values.proxy.externalAddr | splitList ":" | last | int) "proxyTLS" ($values.proxy.internalSecureAddr | splitList ":" | last | int) "proxyHTTP" ($values.proxy.internalInsecureAddr | splitList ":" | last | int) "metrics" ($values.proxy.metricsBindAddr | splitList ":" | last | int) "health" ($values.healthyBindAddr | splitList ":" | last | int) }}
{{- end }}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "corax.labels" (dict "component" .component) | nindent 4 }}
    {{- if $openyurt }}
    app: raven-agent
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- if $openyurt }}
      app: raven-agent
      {{- else }}
      app.kubernetes.io/name: corax
      app.kubernetes.io/component: {{ .component }}
      {{- end }}
  updateStrategy:
    type: {{ $values.updateStrategy }}
    {{- if eq $values.updateStrategy "RollingUpdate" }}
    rollingUpdate:
      maxUnavailable: {{ .maxUnavailable }}
    {{- end }}
  template:
    metadata:
      labels:
        {{- include "corax.labels" (dict "component" .component) | nindent 8 }}
        {{- if $openyurt }}
        app: raven-agent
        {{- end }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ .account }}
      # Bound to this pod and so to its node: what it may write goes by that.
      automountServiceAccountToken: true
      {{- if $host }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      priorityClassName: system-node-critical
      terminationGracePeriodSeconds: 30
      nodeSelector:
        {{- toYaml $values.nodeSelector | nindent 8 }}
      tolerations:
        {{- toYaml $values.tolerations | nindent 8 }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: type
                    operator: NotIn
                    values: [virtual-kubelet]
                  {{- if eq .cloud "only" }}
                  - key: raven.openyurt.io/gateway
                    operator: In
                    values: [cloud]
                  {{- else if eq .cloud "not" }}
                  - key: raven.openyurt.io/gateway
                    operator: NotIn
                    values: [cloud]
                  {{- end }}
      securityContext:
        seccompProfile:
          type: RuntimeDefault
        {{- if not $host }}
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        # The agent sends pods' pings on without a capability. It is a safe sysctl,
        # which PodSecurity "restricted" allows too.
        sysctls:
          - name: net.ipv4.ping_group_range
            value: "0 2147483647"
        {{- end }}
      containers:
        - name: agent
          image: {{ include "corax.image" $root | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args:
            - agent
            {{- if and $values.identity.insecure (not (include "corax.bound" $root)) }}
            - --identity-insecure
            {{- end }}
            {{- if $openyurt }}
            - --preset=openyurt
            - --state-dir=/var/lib/raven/corax
            - --tunnel-port={{ $ports.tunnel }}
            - --tls-port={{ $ports.tls }}
            - --proxy-tls-addr=:{{ $ports.proxyTLS }}
            - --proxy-http-addr=:{{ $ports.proxyHTTP }}
            - --metrics-addr=:{{ $ports.metrics }}
            - --health-addr=:{{ $ports.health }}
            {{- else }}
            # A folder below the mount: the agent wants it to be its own alone.
            - --state-dir=/var/lib/corax/state
            {{- end }}
            - --socket=/run/corax/agent.sock
            {{- if ne .cloud "not" }}
            {{- range $values.proxy.audiences }}
            - --proxy-audience={{ . }}
            {{- end }}
            {{- if $values.proxy.kubeletCA.configMap }}
            - --kubelet-ca=/etc/corax/kubelet-ca/ca.crt
            {{- else if $values.proxy.kubeletCA.file }}
            - --kubelet-ca={{ $values.proxy.kubeletCA.file }}
            {{- end }}
            {{- if ne $values.clusterDomain "cluster.local" }}
            - --cluster-domain={{ $values.clusterDomain }}
            {{- end }}
            {{- if $values.proxy.connect.existingSecret }}
            - --proxy-connect-cert=/etc/corax/connect/tls.crt
            - --proxy-connect-key=/etc/corax/connect/tls.key
            - --proxy-connect-client-ca=/etc/corax/connect/ca.crt
            {{- end }}
            {{- range $values.proxy.connect.clients }}
            - --proxy-connect-client={{ . }}
            {{- end }}
            {{- range $values.proxy.connect.cluster }}
            - --proxy-connect-cluster={{ . }}
            {{- end }}
            {{- with $values.proxy.connect.socket }}
            - --proxy-connect-socket={{ . }}
            {{- end }}
            {{- end }}
            - --uapi=false
            {{- if not $host }}
            - --datapath=netstack
            {{- else if $values.agent.datapath }}
            - --datapath={{ $values.agent.datapath }}
            {{- end }}
            {{- if and (or $values.vpn.psk $values.vpn.existingSecret) (not $openyurt) }}
            - --psk-file=/etc/corax/psk/vpn-connection-psk
            {{- end }}
            {{- range $values.agent.serviceCIDRs }}
            - --service-cidr={{ . }}
            {{- end }}
            {{- range $values.agent.stunServers }}
            - --stun-server={{ . }}
            {{- end }}
            {{- if $values.agent.takeOver }}
            - --take-over
            {{- end }}
            - --log-level={{ $values.logLevel }}
            - --log-format={{ $values.logFormat }}
            {{- range $values.agent.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
            - name: NODE_IP
              valueFrom:
                fieldRef:
                  fieldPath: {{ if $host }}status.hostIP{{ else }}status.podIP{{ end }}
            {{- if and $openyurt (or $values.vpn.psk $values.vpn.existingSecret) }}
            - name: VPN_CONNECTION_PSK
              valueFrom:
                secretKeyRef:
                  name: {{ include "corax.secret" $root }}
                  key: vpn-connection-psk
            {{- end }}
            {{- with $values.apiServer.host }}
            - name: KUBERNETES_SERVICE_HOST
              value: {{ . | quote }}
            - name: KUBERNETES_SERVICE_PORT
              value: {{ $values.apiServer.port | quote }}
            {{- end }}
            {{- with $values.agent.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: tunnel
              containerPort: {{ $ports.tunnel }}
              protocol: UDP
            - name: metrics
              containerPort: {{ $ports.metrics }}
            - name: health
              containerPort: {{ $ports.health }}
          livenessProbe:
            httpGet:
              path: /healthz
              port: health
            periodSeconds: 30
            timeoutSeconds: 5
            failureThreshold: 5
          readinessProbe:
            httpGet:
              path: /readyz
              port: health
            periodSeconds: 10
            timeoutSeconds: 5
          resources:
            {{- toYaml .resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            {{- if $host }}
            runAsUser: 0
            runAsGroup: 0
            {{- end }}
            capabilities:
              drop: [ALL]
              {{- if $host }}
              add: [NET_ADMIN]
              {{- end }}
          volumeMounts:
            - name: state
              mountPath: {{ if $openyurt }}/var/lib/raven{{ else }}/var/lib/corax{{ end }}
            - name: run
              mountPath: /run/corax
            {{- if $host }}
            - name: tun
              mountPath: /dev/net/tun
            {{- end }}
            {{- if and $values.proxy.connect.existingSecret (ne .cloud "not") }}
            - name: connect
              mountPath: /etc/corax/connect
              readOnly: true
            {{- end }}
            {{- if and (or $values.vpn.psk $values.vpn.existingSecret) (not $openyurt) }}
            - name: psk
              mountPath: /etc/corax/psk
              readOnly: true
            {{- end }}
            {{- if and $values.proxy.kubeletCA.configMap (ne .cloud "not") }}
            - name: kubelet-ca
              mountPath: /etc/corax/kubelet-ca
              readOnly: true
            {{- end }}
            {{- with $values.agent.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: state
          {{- if $host }}
          hostPath:
            path: {{ if $openyurt }}/var/lib/raven{{ else }}/var/lib/corax{{ end }}
            type: DirectoryOrCreate
          {{- else }}
          # Lives as long as the pod: a new pod has a new key, and tells it.
          emptyDir: {}
          {{- end }}
        - name: run
          emptyDir:
            medium: Memory
            sizeLimit: 1Mi
        {{- if $host }}
        - name: tun
          hostPath:
            path: /dev/net/tun
            type: CharDevice
        {{- end }}
        {{- if and $values.proxy.connect.existingSecret (ne .cloud "not") }}
        - name: connect
          secret:
            secretName: {{ $values.proxy.connect.existingSecret }}
            defaultMode: 0440
        {{- end }}
        {{- if and (or $values.vpn.psk $values.vpn.existingSecret) (not $openyurt) }}
        - name: psk
          secret:
            secretName: {{ include "corax.secret" $root }}
            defaultMode: 0440
        {{- end }}
        {{- if and $values.proxy.kubeletCA.configMap (ne .cloud "not") }}
        - name: kubelet-ca
          configMap:
            name: {{ $values.proxy.kubeletCA.configMap }}
            items:
              - key: {{ $values.proxy.kubeletCA.key }}
                path: ca.crt
        {{- end }}
        {{- with $values.agent.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
