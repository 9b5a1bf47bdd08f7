{{- define "stockmesh.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end }}

{{/* A node's name is this with its number: too long a one is refused, not cut, or two
releases could get the same. */}}
{{- define "stockmesh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "stockmesh.name" .) .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "stockmesh.name" .) -}}
{{- end -}}
{{- end }}

{{- define "stockmesh.headless" -}}
{{- include "stockmesh.fullname" . }}-headless
{{- end }}

{{- define "stockmesh.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stockmesh.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "stockmesh.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* Of the nodes' pods. Fixed for ever: a StatefulSet's can't be changed. */}}
{{- define "stockmesh.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stockmesh.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end }}

{{/* Takes a dict of top and component. */}}
{{- define "stockmesh.labels" -}}
app.kubernetes.io/name: {{ include "stockmesh.name" .top }}
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: stockmesh
app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Secrets, given or made by cert-manager; "" where there is none. */}}
{{- define "stockmesh.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- include "stockmesh.fullname" . }}-tls
{{- else -}}
{{- .Values.tls.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "stockmesh.nodeTLSSecret" -}}
{{- if .Values.nodeTLS.certManager.enabled -}}
{{- include "stockmesh.fullname" . }}-node-tls
{{- else -}}
{{- .Values.nodeTLS.existingSecret -}}
{{- end -}}
{{- end }}

{{/* "yes" where nodes talk to other nodes of the region, or to those of others. */}}
{{- define "stockmesh.clustered" -}}
{{- if gt (int .Values.replicas) 1 }}yes{{ end -}}
{{- end }}
{{- define "stockmesh.linked" -}}
{{- if or .Values.mesh.enabled (gt (int .Values.replicas) 1) }}yes{{ end -}}
{{- end }}

{{- define "stockmesh.jwks" -}}
{{- with .Values.auth.jwks -}}
{{- if .url }}{{ .url }}{{ else if or .existingSecret .existingConfigMap }}/etc/stockmesh/jwks/jwks.json{{ end -}}
{{- end -}}
{{- end }}

{{- define "stockmesh.scheme" -}}
{{- if include "stockmesh.tlsSecret" . }}wss{{ else }}ws{{ end -}}
{{- end }}

{{/* URL that clients are told; $(STOCKMESH_NAME) is put in by the kubelet. */}}
{{- define "stockmesh.advertise" -}}
{{- if .Values.publicURL -}}
{{- .Values.publicURL -}}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{- ternary "wss" "ws" (ne .Values.ingress.tlsSecret "") }}://{{ first .Values.ingress.hosts }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hosts -}}
wss://{{ first .Values.httpRoute.hosts }}
{{- else -}}
{{- include "stockmesh.scheme" . }}://$(STOCKMESH_NAME).{{ include "stockmesh.headless" . }}.{{ .Release.Namespace }}.svc:8080
{{- end -}}
{{- end }}
