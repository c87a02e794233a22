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

{{- /* The same of the controller's Deployment. */}}
{{- define "svid-csi.controllerSelector" -}}
app.kubernetes.io/name: {{ include "svid-csi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "svid-csi.labels" -}}
{{ include "svid-csi.selector" . }}
{{ include "svid-csi.moreLabels" . }}
{{- end }}

{{- define "svid-csi.controllerLabels" -}}
{{ include "svid-csi.controllerSelector" . }}
{{ include "svid-csi.moreLabels" . }}
{{- end }}

{{- define "svid-csi.moreLabels" -}}
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

{{- /* At most 63 characters, like a Deployment's name. */}}
{{- define "svid-csi.controllerName" -}}
{{- printf "%s-controller" (include "svid-csi.fullname" . | trunc 52 | trimSuffix "-") }}
{{- end }}

{{- /* Of the fence around PodCertificateRequests, and of what the controller may do with them. */}}
{{- define "svid-csi.podCertificatesName" -}}
{{- printf "%s-pod-certificates" (include "svid-csi.fullname" .) }}
{{- end }}

{{- define "svid-csi.controllerServiceAccount" -}}
{{- default (include "svid-csi.controllerName" .) .Values.controller.serviceAccount.name }}
{{- end }}

{{- define "svid-csi.driverUser" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "svid-csi.serviceAccount" .) }}
{{- end }}

{{- define "svid-csi.controllerUser" -}}
{{- default (printf "system:serviceaccount:%s:%s" .Release.Namespace (include "svid-csi.controllerServiceAccount" .)) .Values.controller.username }}
{{- end }}

{{- /* Whether this release runs the controller: "true" or nothing. */}}
{{- define "svid-csi.controller" -}}
{{- $wish := toString .Values.controller.enabled }}
{{- if or (eq $wish "true") (and (eq $wish "auto") (include "svid-csi.decided" .) (not .Values.controller.username)) }}true{{ end }}
{{- end }}

{{- /* Whether a controller decides what the nodes get: "true" or nothing. */}}
{{- define "svid-csi.decided" -}}
{{- if has .Values.signer (list "csr" "controller" "cert-manager") }}true{{ end }}
{{- end }}

{{- /* Whether there is a controller that the driver works with: "true" or nothing. */}}
{{- define "svid-csi.cluster" -}}
{{- if or (include "svid-csi.decided" .) (include "svid-csi.controller" .) .Values.controller.username }}true{{ end }}
{{- end }}

{{- /* Where nodes ask the controller directly, host:port, or nothing if they don't. */}}
{{- define "svid-csi.issuing" -}}
{{- if and (include "svid-csi.decided" .) (or (eq .Values.signer "controller") .Values.jwt.enabled) }}
{{- if include "svid-csi.controller" . }}
{{- printf "%s.%s.svc:%v" (include "svid-csi.issuerName" .) .Release.Namespace .Values.controller.issuer.port }}
{{- else }}
{{- .Values.controller.address }}
{{- end }}
{{- end }}
{{- end }}

{{- /* At most 63 characters, like a Service's name. */}}
{{- define "svid-csi.issuerName" -}}
{{- printf "%s-issuer" (include "svid-csi.fullname" . | trunc 56 | trimSuffix "-") }}
{{- end }}

{{- /* Audiences of the pods' tokens, as a JSON list. */}}
{{- define "svid-csi.tokenAudiences" -}}
{{- $needed := ternary (list "svid.dev") list (include "svid-csi.issuing" . | empty | not) }}
{{- concat $needed .Values.csiDriver.tokenAudiences | uniq | toJson }}
{{- end }}

{{- /* Whether the driver talks to the API server: "true" or nothing. */}}
{{- define "svid-csi.api" -}}
{{- if or (include "svid-csi.cluster" .) .Values.podEvents }}true{{ end }}
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
{{- and (include "svid-csi.tokenAudiences" . | fromJsonArray) (eq $wish "true") | empty | not }}
{{- end }}

{{- /* The API server: a policy can't name it, and its port is the Service's or its own, as the network
       plugin sees it. */}}
{{- define "svid-csi.apiServerEgress" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.apiServerPeers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* From a node to the controller, and to who knows where its replicas are. */}}
{{- define "svid-csi.issuerEgress" -}}
- ports:
    {{- range $port := .Values.networkPolicy.dnsPorts }}
    {{- range $protocol := list "UDP" "TCP" }}
    - port: {{ $port }}
      protocol: {{ $protocol }}
    {{- end }}
    {{- end }}
- ports:
    - port: {{ include "svid-csi.issuing" . | splitList ":" | last }}
      protocol: TCP
  {{- if include "svid-csi.controller" . }}
  to:
    - podSelector:
        matchLabels:
          {{- include "svid-csi.controllerSelector" . | nindent 10 }}
  {{- end }}
{{- end }}

{{- /* Where CertificateRequests are, with signer cert-manager. */}}
{{- define "svid-csi.requestNamespace" -}}
{{- default .Release.Namespace .Values.certManager.namespace }}
{{- end }}

{{- /* What cert-manager's issuer is called: the same for nodes and controller. */}}
{{- define "svid-csi.certManagerEnv" -}}
- name: SVID_CSI_CERT_MANAGER_NAMESPACE
  value: {{ include "svid-csi.requestNamespace" . | quote }}
- name: SVID_CSI_CERT_MANAGER_ISSUER_CONFIG_MAP
  value: {{ .Values.certManager.configMap | quote }}
{{- end }}
