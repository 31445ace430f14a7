{{/* The fencer: it runs beside the rep, with the socket of the node's container runtime. Call with the root. */}}

{{/* Where rep and fencer leave word for each other. */}}
{{- define "diego.fence.dir" -}}
/run/diego/fence
{{- end }}

{{- define "diego.fence.container" -}}
{{- $f := .Values.rep.fencing }}
{{- $dir := include "diego.fence.dir" . }}
{{- $flags := dict
  "deadline-file" (printf "%s/deadline" $dir)
  "ready-file" (printf "%s/ready" $dir)
  "cri-socket" (printf "unix://%s" $f.criSocket)
  "health-addr" "0.0.0.0:8082"
  "log-format" .Values.log.format
}}
{{- range $flag, $value := $f.extraArgs }}
{{- $_ := set $flags $flag $value }}
{{- end -}}
- name: fence
  image: {{ include "diego.image" (dict "root" . "image" .Values.image "tag" .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    {{- include "diego.args" (dict "program" "fence" "flags" $flags) | nindent 4 }}
  env:
    - name: RUST_LOG
      value: {{ .Values.log.level | quote }}
  ports:
    - name: fence-health
      containerPort: 8082
      protocol: TCP
  {{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
  {{- with index $f $probe }}
  {{ $probe }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $f.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $f.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: fence
      mountPath: {{ $dir }}
    - name: cri
      mountPath: {{ dir $f.criSocket }}
      readOnly: true
{{- end }}

{{- define "diego.fence.volumes" -}}
- name: fence
  emptyDir:
    # In memory: a deadline means nothing after the node's next start, and must not wait for a disk.
    medium: Memory
    sizeLimit: 1Mi
# The directory: the socket in it is another one after each start of the runtime.
- name: cri
  hostPath:
    path: {{ dir .Values.rep.fencing.criSocket }}
    type: Directory
{{- end }}
