{{/* Ports and peers of the NetworkPolicy. */}}
{{- define "stockmesh.regionPorts" -}}
{{- if include "stockmesh.clustered" . -}}
- {port: 7946, protocol: TCP}
- {port: 7946, protocol: UDP}
- {port: 6222, protocol: TCP}
{{- end }}
{{- if .Values.mesh.enabled }}
{{ include "stockmesh.meshPorts" . }}
{{- end }}
{{- end }}

{{/* Also for the nodes of the region: they meet in the membership between regions too. */}}
{{- define "stockmesh.meshPorts" -}}
- {port: 7947, protocol: TCP}
- {port: 7947, protocol: UDP}
- {port: 7422, protocol: TCP}
{{- end }}

{{- define "stockmesh.meshPeers" -}}
{{- range .Values.mesh.peerCIDRs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- with .Values.mesh.peerSelectors }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Port of a URL, said or of its scheme. */}}
{{- define "stockmesh.portOf" -}}
{{- $u := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $u.host) | default (ternary "443" "80" (eq $u.scheme "https")) -}}
{{- end }}
