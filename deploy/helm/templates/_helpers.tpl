{{- define "foretell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "foretell.selector" -}}
app.kubernetes.io/name: foretell
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "foretell.labels" -}}
{{ include "foretell.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "foretell.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "foretell.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "foretell.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- /* The ConfigMap with foretell.toml. */ -}}
{{- define "foretell.configMap" -}}
{{ .Values.existingConfigMap | default (printf "%s-config" (include "foretell.fullname" .)) }}
{{- end -}}

{{- /* The ConfigMap of `foretell deliver`: its own one, if there is one. */ -}}
{{- define "foretell.deliveryConfigMap" -}}
{{- if .Values.delivery.existingConfigMap -}}
{{ .Values.delivery.existingConfigMap }}
{{- else if .Values.delivery.config -}}
{{ include "foretell.fullname" . }}-delivery
{{- else -}}
{{ include "foretell.configMap" . }}
{{- end -}}
{{- end -}}

{{- /* The files of a ConfigMap: foretell.toml and those beside it. */ -}}
{{- define "foretell.files" -}}
{{- merge (dict "foretell.toml" .config) .files | toYaml -}}
{{- end -}}

{{- /* Environment of every process: where its configuration is, its name, which a pod keeps across restarts, and the
     folder of the stores, because a configuration with streams.standby is refused without one. */ -}}
{{- define "foretell.env" -}}
- name: FORETELL_CONFIG
  value: /etc/foretell/foretell.toml
- name: FORETELL_APPLICATION_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: FORETELL_LOG_FORMAT
  value: json
{{- if .Values.persistence.enabled }}
- name: FORETELL_STREAMS_STATE_DIR
  value: /var/lib/foretell/state
{{- end }}
{{- end -}}

{{- /* Environment of a process that serves HTTP. The token is read from a file, so that it is in no environment. */ -}}
{{- define "foretell.httpEnv" -}}
- name: FORETELL_HTTP_BIND
  value: "0.0.0.0:{{ .Values.http.port }}"
{{- if .Values.http.tokenSecret.name }}
- name: FORETELL_HTTP_BEARER_TOKEN
  value: '{ file = "/run/secrets/http/{{ .Values.http.tokenSecret.key }}" }'
{{- else if .Values.http.insecure }}
- name: FORETELL_HTTP_INSECURE
  value: "true"
{{- else }}
{{- fail "set http.tokenSecret.name to a Secret with a token, or http.insecure to true" }}
{{- end }}
{{- end -}}

{{- /* Mounts of secrets: a list of values, and whether the token is among them. */ -}}
{{- define "foretell.secretMounts" -}}
{{- range .secrets }}
- name: secret-{{ .name }}
  mountPath: /run/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- with .token }}
- name: secret-http
  mountPath: /run/secrets/http
  readOnly: true
{{- end }}
{{- end -}}

{{- define "foretell.secretVolumes" -}}
{{- range .secrets }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
{{- end }}
{{- with .token }}
- name: secret-http
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - { key: {{ .key | quote }}, path: {{ .key | quote }} }
{{- end }}
{{- end -}}

{{- /* The part of a pod that all have. */ -}}
{{- define "foretell.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* Spreads the pods of a component over nodes and zones. */ -}}
{{- define "foretell.spread" -}}
{{- $labels := dict "matchLabels" (merge (dict "app.kubernetes.io/component" .component) (include "foretell.selector" .root | fromYaml)) -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    {{- toYaml $labels | nindent 4 }}
{{- end }}
{{- end -}}
