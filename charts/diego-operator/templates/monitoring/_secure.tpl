{{/* How a monitor reads /metrics. */}}
{{- define "diego.monitor.secure" -}}
{{- $secure := .Values.metrics.secure -}}
scheme: {{ ternary "https" "http" $secure.enabled }}
{{- if $secure.enabled }}
tlsConfig:
  # Pods are scraped by address, which no certificate names.
  serverName: {{ default (printf "%s-metrics" (include "diego.fullname" .)) $secure.serverName }}
  ca:
    secret:
      name: {{ $secure.secretName }}
      key: ca.crt
{{- if eq $secure.auth "token" }}
authorization:
  type: Bearer
  credentials:
    name: {{ $secure.tokenSecret.name }}
    key: {{ $secure.tokenSecret.key }}
{{- end }}
{{- end }}
{{- end }}
