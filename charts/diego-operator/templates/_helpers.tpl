{{/* Names, labels and images. */}}

{{- define "diego.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "diego.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "diego.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "diego.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Labels of every object. Call with (dict "root" $ "component" "rep"); no component for what belongs to all. */}}
{{- define "diego.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: diego
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "diego.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of Pods: without versions, so that a new version of the chart alone restarts nothing. */}}
{{- define "diego.podLabels" -}}
app.kubernetes.io/part-of: diego
{{ include "diego.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "diego.selectorLabels" -}}
app.kubernetes.io/name: {{ include "diego.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* A new line and the key `annotations`, or nothing: no empty maps. Call with (dict "root" $ "annotations" map "indent" 2). */}}
{{- define "diego.annotations" -}}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- printf "annotations:\n%s" (toYaml . | indent 2) | nindent $.indent }}
{{- end }}
{{- end }}

{{/* Call with (dict "root" $ "image" map "tag" default). */}}
{{- define "diego.image" -}}
{{- $registry := dig "imageRegistry" "" (.root.Values.global | default dict) | default .image.registry }}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.image.tag | default .tag) }}
{{- end }}
{{- end }}

{{/* A new line and the key `imagePullSecrets`, or nothing. Call with (dict "root" $ "indent" 6). */}}
{{- define "diego.imagePullSecrets" -}}
{{- with concat .root.Values.imagePullSecrets (dig "imagePullSecrets" list (.root.Values.global | default dict)) }}
{{- printf "imagePullSecrets:\n%s" (toYaml . | indent 2) | nindent $.indent }}
{{- end }}
{{- end }}

{{/* Call with (dict "root" $ "component" "rep"). */}}
{{- define "diego.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
{{- default (printf "%s-%s" (include "diego.fullname" .root) .component) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{/* The tags that the reps are given, as a list of CEL. Call with (dict "flag" "placement-tags" "tags" list "args" map). */}}
{{- define "diego.rep.tags" -}}
{{- $tags := .tags }}
{{- if hasKey .args .flag }}
{{- $tags = splitList "," (get .args .flag | toString) }}
{{- end }}
{{- toJson (compact $tags) }}
{{- end }}

{{- define "diego.etcd.name" -}}
{{- printf "%s-etcd" (include "diego.fullname" .) }}
{{- end }}

{{- define "diego.etcd.scheme" -}}
{{- ternary "https" "http" (ne .Values.presence.etcd.bundled.tls.secretName "") }}
{{- end }}

{{/* What ends the members' names: the domain of their headless Service. */}}
{{- define "diego.etcd.domain" -}}
{{- printf "%s-members.%s.svc.%s" (include "diego.etcd.name" .) (include "diego.namespace" .) .Values.presence.etcd.bundled.clusterDomain }}
{{- end }}

{{/* Client URLs of the presence etcd. The bundled members by name, so that a client changes over to another at once. */}}
{{- define "diego.etcd.endpoints" -}}
{{- $etcd := .Values.presence.etcd }}
{{- if $etcd.bundled.enabled }}
{{- $urls := list }}
{{- range $i := until (int $etcd.bundled.replicas) }}
{{- $urls = append $urls (printf "%s://%s-%d.%s:2379" (include "diego.etcd.scheme" $) (include "diego.etcd.name" $) $i (include "diego.etcd.domain" $)) }}
{{- end }}
{{- join "," $urls }}
{{- else }}
{{- join "," $etcd.endpoints }}
{{- end }}
{{- end }}

{{/* Jobs under which Prometheus knows the programs. */}}
{{- define "diego.controllerJob" -}}
{{- default (printf "%s-controller" (include "diego.fullname" .)) .Values.monitoring.prometheusRule.controllerJob }}
{{- end }}

{{- define "diego.repJob" -}}
{{- default (printf "%s-rep" (include "diego.fullname" .)) .Values.monitoring.prometheusRule.repJob }}
{{- end }}

{{/* Annotations of the CRDs. */}}
{{- define "diego.crds.annotations" -}}
{{- $annotations := merge (dict) .Values.crds.annotations }}
{{- if .Values.crds.keep }}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" }}
{{- end }}
{{- include "diego.annotations" (dict "root" . "annotations" $annotations "indent" 2) }}
{{- end }}
