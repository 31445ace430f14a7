{{/* What the schema can't say: values that do not go together. */}}
{{- define "diego.validate" -}}
{{- $presence := .Values.presence }}
{{- $bundled := $presence.etcd.bundled }}
{{- if eq $presence.store "etcd" }}
{{- if and (not $bundled.enabled) (not $presence.etcd.endpoints) }}
{{- fail "presence.store is etcd, and there is none: set presence.etcd.endpoints, or presence.etcd.bundled.enabled" }}
{{- end }}
{{- if and $bundled.enabled $presence.etcd.endpoints }}
{{- fail "presence.etcd.endpoints and presence.etcd.bundled.enabled are both set: choose one" }}
{{- end }}
{{- else if or $bundled.enabled $presence.etcd.endpoints }}
{{- fail "presence.etcd is set, and presence.store is kubernetes: set presence.store to etcd" }}
{{- end }}
{{- if $bundled.enabled }}
{{- if and (not $bundled.persistence.enabled) (gt (int $bundled.replicas) 1) }}
{{- fail "presence.etcd.bundled.persistence.enabled is false: set presence.etcd.bundled.replicas to 1, since of several members one that comes back empty can't join again" }}
{{- end }}
{{- if ne (empty $bundled.tls.secretName) (empty $presence.etcd.tls.secretName) }}
{{- fail "presence.etcd.bundled.tls.secretName and presence.etcd.tls.secretName go together: set both or none" }}
{{- end }}
{{- end }}
{{- $auto := $presence.autoTTL }}
{{- if gt (float64 $auto.minSeconds) (float64 $auto.maxSeconds) }}
{{- fail (printf "presence.autoTTL.minSeconds %v is more than presence.autoTTL.maxSeconds %v: lower it, or raise the other" $auto.minSeconds $auto.maxSeconds) }}
{{- end }}
{{- $election := .Values.controller.leaderElection }}
{{- if gt (float64 $election.renewDeadlineSeconds) (mulf 0.8 (float64 $election.leaseDurationSeconds)) }}
{{- fail (printf "controller.leaderElection.renewDeadlineSeconds %v is too long for controller.leaderElection.leaseDurationSeconds %v: it must be at most 4/5 of it" $election.renewDeadlineSeconds $election.leaseDurationSeconds) }}
{{- end }}
{{- if gt (float64 $election.retryPeriodSeconds) (mulf 0.5 (float64 $election.renewDeadlineSeconds)) }}
{{- fail (printf "controller.leaderElection.retryPeriodSeconds %v is too long for controller.leaderElection.renewDeadlineSeconds %v: it must be at most half of it" $election.retryPeriodSeconds $election.renewDeadlineSeconds) }}
{{- end }}
{{- if and .Values.rep.hostNetwork (eq .Values.rep.updateStrategy.type "RollingUpdate") }}
{{- if ne (toString (dig "rollingUpdate" "maxSurge" 0 .Values.rep.updateStrategy)) "0" }}
{{- fail "rep.hostNetwork is set, and two reps can't share the ports of one node: set rep.updateStrategy.rollingUpdate.maxSurge to 0 and maxUnavailable to 1" }}
{{- end }}
{{- end }}
{{- $secure := .Values.metrics.secure }}
{{- if and $secure.enabled (not $secure.secretName) }}
{{- fail "metrics.secure.enabled is set: set metrics.secure.secretName to a Secret with tls.crt and tls.key" }}
{{- end }}
{{- if and $secure.enabled (eq $secure.auth "token") (or .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled) (not $secure.tokenSecret.name) }}
{{- fail "metrics.secure.auth is token: set metrics.secure.tokenSecret.name to the Secret with the token that the monitors send" }}
{{- end }}
{{- $rep := include "diego.serviceAccountName" (dict "root" . "component" "rep") }}
{{- if eq $rep (include "diego.serviceAccountName" (dict "root" . "component" "controller")) }}
{{- fail (printf "rep.serviceAccount.name and controller.serviceAccount.name are the same, %s: a rep would have the controller's rights; name two accounts" $rep) }}
{{- end }}
{{- if and (eq $rep "default") .Values.rbac.create }}
{{- fail "rep.serviceAccount.name is default, the account of every Pod that names none: with rbac.create all of them would have the rep's rights; name an account of the rep's own, or let rep.serviceAccount.create make one" }}
{{- end }}
{{- end }}
