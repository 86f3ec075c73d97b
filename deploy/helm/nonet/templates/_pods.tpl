{{/* What pods, services and policies have in common. Parts are called with (dict "root" $ "part" NAME). */}}

{{- define "nonet.name" -}}
{{- if contains "nonet" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-nonet" (.Release.Name | trunc 34 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "nonet.part" -}}
{{ include "nonet.name" .root }}-{{ .part | replace "_" "-" }}
{{- end }}

{{- define "nonet.selector" -}}
app.kubernetes.io/name: nonet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part | replace "_" "-" }}
{{- end }}

{{- define "nonet.labels" -}}
{{ include "nonet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "nonet.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 35
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nonet.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "nonet.image" -}}
{{ .root.Values.image.prefix }}{{ index .root.Values.image .kind }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Of gateways and services. Readiness falls at the signal; the balancer has drain_delay to notice. */}}
{{- define "nonet.environment" -}}
- {name: NONET_SERVER__DRAIN_DELAY, value: "5"}
- {name: NONET_SERVER__GRACE, value: "30"}
- {name: NONET_LOGGING__FORMAT, value: json}
{{- range $name, $value := .Values.settings }}
- name: NONET_{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "nonet.probes" -}}
startupProbe:
  httpGet: {path: /v2/health/live, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /v2/health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /v2/health/ready, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- define "nonet.ports" -}}
- {name: http, containerPort: 8000}
- {name: grpc, containerPort: 8001}
{{- end }}

{{- define "nonet.repositoryMount" -}}
{{- if not .root.Values.repository.inImage }}
- {name: repository, mountPath: /models, readOnly: {{ .readOnly }}}
{{- end }}
- {name: scratch, mountPath: /tmp}
{{- end }}

{{- define "nonet.repositoryVolume" -}}
{{- if not .Values.repository.inImage }}
- name: repository
  persistentVolumeClaim:
    claimName: {{ .Values.repository.existingClaim | default (include "nonet.part" (dict "root" . "part" "repository")) }}
{{- end }}
- name: scratch
  emptyDir: {sizeLimit: 1Gi}
{{- end }}

{{- define "nonet.sharesJobs" -}}
{{- if or .Values.redis.enabled .Values.jobs.existingStoreSecret }}yes{{ end }}
{{- end }}
