{{/* Parts of Pods that controller and rep share. Call with (dict "root" $ "component" "rep"). */}}

{{/* Arguments from a map of flags: true is a flag without a value, false is none. Call with (dict "program" "rep" "flags" map). */}}
{{- define "diego.args" -}}
- {{ .program }}
{{- range $flag, $value := .flags }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- --{{ $flag }}
{{- end }}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}
- --{{ $flag }}={{ int64 $value }}
{{- else }}
- {{ printf "--%s=%v" $flag $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Flags of both programs, as YAML. */}}
{{- define "diego.commonFlags" -}}
presence: {{ .Values.presence.store }}
namespace: $(POD_NAMESPACE)
metrics-addr: 0.0.0.0:8080
health-addr: 0.0.0.0:8081
log-format: {{ .Values.log.format }}
{{- if eq .Values.presence.store "etcd" }}
etcd-endpoints: {{ include "diego.etcd.endpoints" . }}
{{- if .Values.presence.etcd.tls.secretName }}
etcd-ca: /etc/diego/etcd/ca.crt
etcd-cert: /etc/diego/etcd/tls.crt
etcd-key: /etc/diego/etcd/tls.key
{{- end }}
{{- end }}
{{- with .Values.metrics.secure }}
{{- if .enabled }}
metrics-tls-cert: /etc/diego/metrics/tls.crt
metrics-tls-key: /etc/diego/metrics/tls.key
metrics-auth: {{ .auth }}
{{- end }}
{{- end }}
{{- end }}

{{- define "diego.pod.metadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "diego.podLabels" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) $values.podAnnotations (dict "kubectl.kubernetes.io/default-container" .component) }}
{{- if .root.Values.monitoring.podAnnotations }}
{{- $annotations = merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" "8080" "prometheus.io/path" "/metrics") }}
{{- if .root.Values.metrics.secure.enabled }}
{{- $_ := set $annotations "prometheus.io/scheme" "https" }}
{{- end }}
{{- end }}
{{- include "diego.annotations" (dict "root" .root "annotations" $annotations "indent" 0) }}
{{- end }}

{{/*
The spec of the Pod; "flags" is the map of the program's flags, "env" more environment, "fence" whether the fencer runs beside it,
"grace" the time to stop in.
*/}}
{{- define "diego.pod.spec" -}}
{{- $values := index .root.Values .component }}
{{- $fence := .fence }}
{{- $metrics := .root.Values.metrics.secure.enabled }}
{{- $tls := and (eq .root.Values.presence.store "etcd") .root.Values.presence.etcd.tls.secretName -}}
serviceAccountName: {{ include "diego.serviceAccountName" . }}
automountServiceAccountToken: {{ $values.serviceAccount.automount }}
# A Service named diego-... would set variables that are read as flags.
enableServiceLinks: false
{{- include "diego.imagePullSecrets" (dict "root" .root "indent" 0) }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ int64 (default $values.terminationGracePeriodSeconds .grace) }}
{{- if $values.hostNetwork }}
hostNetwork: true
{{- end }}
dnsPolicy: {{ $values.dnsPolicy }}
{{- with $values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "diego.image" (dict "root" .root "image" .root.Values.image "tag" .root.Chart.AppVersion) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- include "diego.args" (dict "program" .component "flags" .flags) | nindent 6 }}
    env:
      - name: POD_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
      {{- range $name, $field := .env }}
      - name: {{ $name }}
        valueFrom:
          fieldRef:
            fieldPath: {{ $field }}
      {{- end }}
      - name: RUST_LOG
        value: {{ .root.Values.log.level | quote }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: metrics
        containerPort: 8080
        protocol: TCP
      - name: health
        containerPort: 8081
        protocol: TCP
    {{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
    {{- with index $values $probe }}
    {{ $probe }}:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- with $values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $values.securityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if or $tls $metrics $fence $values.extraVolumeMounts }}
    volumeMounts:
      {{- if $tls }}
      - name: etcd-tls
        mountPath: /etc/diego/etcd
        readOnly: true
      {{- end }}
      {{- if $metrics }}
      - name: metrics-tls
        mountPath: /etc/diego/metrics
        readOnly: true
      {{- end }}
      {{- if $fence }}
      - name: fence
        mountPath: {{ include "diego.fence.dir" .root }}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
  {{- if $fence }}
  {{- include "diego.fence.container" .root | nindent 2 }}
  {{- end }}
  {{- with $values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or $tls $metrics $fence $values.extraVolumes }}
volumes:
  {{- if $tls }}
  - name: etcd-tls
    secret:
      secretName: {{ .root.Values.presence.etcd.tls.secretName }}
      defaultMode: 0444
  {{- end }}
  {{- if $metrics }}
  - name: metrics-tls
    secret:
      secretName: {{ .root.Values.metrics.secure.secretName }}
      defaultMode: 0444
      # Not the authority's, which only the monitors need.
      items:
        - key: tls.crt
          path: tls.crt
        - key: tls.key
          path: tls.key
  {{- end }}
  {{- if $fence }}
  {{- include "diego.fence.volumes" .root | nindent 2 }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
