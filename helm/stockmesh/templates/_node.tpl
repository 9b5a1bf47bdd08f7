{{/* node.yaml: the options that are the same for all nodes, by their names. */}}
{{- define "stockmesh.node" -}}
{{- $o := dict
  "region" .Values.region
  "shards" (int .Values.shards)
  "expect" (int .Values.replicas)
  "data" "/data"
  "listen" ":8080"
  "metrics" ":8082"
  "drain" (printf "%ds" (int .Values.drain.seconds))
  "log-format" .Values.log.format
  "log-level" .Values.log.level
-}}
{{- if .Values.insecure }}{{ $_ := set $o "insecure" true }}{{ end -}}
{{- with .Values.trustedProxies }}{{ $_ := set $o "trusted-proxies" . }}{{ end -}}
{{- with include "stockmesh.jwks" . }}{{ $_ := set $o "jwks" . }}{{ end -}}
{{- with .Values.auth.issuer }}{{ $_ := set $o "jwt-issuer" . }}{{ end -}}
{{- with .Values.auth.audience }}{{ $_ := set $o "jwt-audience" . }}{{ end -}}
{{- if include "stockmesh.tlsSecret" . -}}
{{- $_ := set $o "tls-cert" "/etc/stockmesh/tls/tls.crt" -}}
{{- $_ := set $o "tls-key" "/etc/stockmesh/tls/tls.key" -}}
{{- end -}}
{{- if .Values.tls.clientCA.existingSecret }}{{ $_ := set $o "tls-ca" "/etc/stockmesh/client-ca/ca.crt" }}{{ end -}}
{{- if and (include "stockmesh.linked" .) (include "stockmesh.nodeTLSSecret" .) -}}
{{- $_ := set $o "mesh-cert" "/etc/stockmesh/node-tls/tls.crt" -}}
{{- $_ := set $o "mesh-key" "/etc/stockmesh/node-tls/tls.key" -}}
{{- $_ := set $o "mesh-ca" "/etc/stockmesh/node-tls/ca.crt" -}}
{{- end -}}
{{- if and (include "stockmesh.linked" .) .Values.gossipKey.existingSecret }}{{ $_ := set $o "gossip-key" "/etc/stockmesh/gossip-key/gossip.key" }}{{ end -}}
{{- if include "stockmesh.clustered" . -}}
{{- $_ := set $o "join" (list (printf "%s:7946" (include "stockmesh.headless" .))) -}}
{{- end -}}
{{- if .Values.mesh.enabled -}}
{{/* Said also as it is the default: it is what links the region to others. */}}
{{- $_ := set $o "wan-gossip" ":7947" -}}
{{- with .Values.mesh.join }}{{ $_ := set $o "join-region" . }}{{ end -}}
{{- if .Values.linkSecret.existingSecret }}{{ $_ := set $o "link-secret" "/etc/stockmesh/link-secret/link.key" }}{{ end -}}
{{- end -}}
{{- with .Values.tracing.endpoint -}}
{{- $_ := set $o "trace-endpoint" . -}}
{{- $_ := set $o "trace-ratio" $.Values.tracing.ratio -}}
{{- end -}}
{{- range $key, $value := .Values.config -}}
{{- $_ := set $o $key $value -}}
{{- end -}}
{{- toYaml $o -}}
{{- end }}

{{/* What differs from node to node. */}}
{{- define "stockmesh.env" -}}
- name: STOCKMESH_CONFIG
  value: /etc/stockmesh/config/node.yaml
- name: STOCKMESH_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: STOCKMESH_ADVERTISE
  value: {{ include "stockmesh.advertise" . | quote }}
{{- if include "stockmesh.linked" . }}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- if include "stockmesh.clustered" . }}
# Membership tells addresses, which change with the pod; what it tells is then believed.
# The brackets are for IPv6, and do no harm to IPv4.
- name: STOCKMESH_ADVERTISE_GOSSIP
  value: "[$(POD_IP)]:7946"
# Routes are dialled again and again, and checked against certificates: by name.
- name: STOCKMESH_ADVERTISE_CLUSTER
  value: "$(STOCKMESH_NAME).{{ include "stockmesh.headless" . }}:6222"
{{- end }}
{{- if .Values.mesh.enabled }}
{{- include "stockmesh.meshEnv" . }}
{{- end }}
{{- with include "stockmesh.memoryLimit" . }}
- name: GOMEMLIMIT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stockmesh.meshEnv" -}}
{{- $s := .Values.mesh.service }}
{{- $host := "[$(POD_IP)]" }}
{{- if .Values.mesh.advertise.domain }}
{{- $host = printf "$(STOCKMESH_NAME).%s" .Values.mesh.advertise.domain }}
{{- end }}
{{- $wan := "7947" }}
{{- $links := "7422" }}
{{- if and (eq $s.type "NodePort") $s.nodePorts.wan }}
{{- $wan = printf "%d$(POD_INDEX)" (div (int $s.nodePorts.wan) 10) }}
{{- $links = printf "%d$(POD_INDEX)" (div (int $s.nodePorts.links) 10) }}
- name: POD_INDEX
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
{{- end }}
- name: STOCKMESH_ADVERTISE_WAN
  value: {{ printf "%s:%s" $host $wan | quote }}
- name: STOCKMESH_ADVERTISE_LINK
  value: {{ printf "%s:%s" $host $links | quote }}
{{- end }}

{{/* Nine tenths of the memory limit, in bytes: the downward API can't multiply. */}}
{{- define "stockmesh.memoryLimit" -}}
{{- with (.Values.resources.limits | default dict).memory -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := trimPrefix $number $text -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "resources.limits.memory %q: want a number with Mi or Gi" $text) -}}
{{- end -}}
{{- mulf (float64 $number) (float64 (get $units $unit)) 0.9 | int64 -}}
{{- end -}}
{{- end }}

{{/* Volumes of what is referred to. Each is a folder of its own and no subPath, so that a
change gets to the nodes, which read the files again. */}}
{{- define "stockmesh.volumes" -}}
- name: config
  configMap:
    name: {{ include "stockmesh.fullname" . }}
{{- with include "stockmesh.tlsSecret" . }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: {{ $.Values.tls.certManager.enabled | ternary "tls.crt" $.Values.tls.certKey }}, path: tls.crt}
      - {key: {{ $.Values.tls.certManager.enabled | ternary "tls.key" $.Values.tls.keyKey }}, path: tls.key}
{{- end }}
{{- with .Values.tls.clientCA.existingSecret }}
- name: client-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: {{ $.Values.tls.clientCA.key }}, path: ca.crt}]
{{- end }}
{{- with .Values.auth.jwks }}
{{- if or .existingSecret .existingConfigMap }}
- name: jwks
  {{- if .existingSecret }}
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .existingConfigMap }}
  {{- end }}
    items: [{key: {{ .key }}, path: jwks.json}]
{{- end }}
{{- end }}
{{- if include "stockmesh.linked" . }}
{{- with include "stockmesh.nodeTLSSecret" . }}
- name: node-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: {{ $.Values.nodeTLS.certManager.enabled | ternary "tls.crt" $.Values.nodeTLS.certKey }}, path: tls.crt}
      - {key: {{ $.Values.nodeTLS.certManager.enabled | ternary "tls.key" $.Values.nodeTLS.keyKey }}, path: tls.key}
      - {key: {{ $.Values.nodeTLS.certManager.enabled | ternary "ca.crt" $.Values.nodeTLS.caKey }}, path: ca.crt}
{{- end }}
{{- with .Values.gossipKey.existingSecret }}
- name: gossip-key
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: {{ $.Values.gossipKey.key }}, path: gossip.key}]
{{- end }}
{{- end }}
{{- if and .Values.mesh.enabled .Values.linkSecret.existingSecret }}
- name: link-secret
  secret:
    secretName: {{ .Values.linkSecret.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.linkSecret.key }}, path: link.key}]
{{- end }}
{{- end }}
