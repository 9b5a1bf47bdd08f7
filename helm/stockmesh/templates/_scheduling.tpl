{{/* Which machines the nodes run on: apart, as far as there are any. */}}
{{- define "stockmesh.scheduling" -}}
{{- $apart := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "stockmesh.selectorLabels" . | fromYaml)) -}}
{{- $own := dict -}}
{{- if eq .Values.podAntiAffinity "hard" -}}
{{- $own = dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $apart)) -}}
{{- else if eq .Values.podAntiAffinity "soft" -}}
{{- $own = dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $apart))) -}}
{{- end -}}
{{- with merge (deepCopy .Values.affinity) (ternary dict $own (hasKey .Values.affinity "podAntiAffinity")) -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- if .Values.topologySpread.whenUnsatisfiable -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ .Values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ .Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "stockmesh.selectorLabels" . | nindent 8 }}
{{ end -}}
{{- with .Values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .Values.priorityClassName -}}
priorityClassName: {{ . }}
{{- end -}}
{{- end }}
