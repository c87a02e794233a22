{{- define "svid-csi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "svid-csi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* What the DaemonSet finds its pods by; it can never change. */}}
{{- define "svid-csi.selector" -}}
app.kubernetes.io/name: {{ include "svid-csi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end }}

{{- define "svid-csi.labels" -}}
{{ include "svid-csi.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: svid-csi
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "svid-csi.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "svid-csi.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "svid-csi.image" -}}
{{- .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}
{{- else }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* Whether kubelet passes the pods' tokens as secrets. */}}
{{- define "svid-csi.tokensInSecrets" -}}
{{- $wish := toString .Values.csiDriver.tokensInSecrets }}
{{- if eq $wish "auto" }}
{{- $wish = semverCompare ">=1.35.0-0" .Capabilities.KubeVersion.Version | toString }}
{{- end }}
{{- and .Values.csiDriver.tokenAudiences (eq $wish "true") | empty | not }}
{{- end }}
