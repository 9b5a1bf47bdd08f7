{{/* What the schema can't say. All that is wrong is told at once. */}}
{{- define "stockmesh.checks" -}}
{{- $v := .Values -}}
{{- $bad := list -}}
{{- $name := include "stockmesh.fullname" . -}}
{{- $replicas := int $v.replicas -}}
{{- $nodeTLS := include "stockmesh.nodeTLSSecret" . -}}
{{- $linked := include "stockmesh.linked" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- $bad = append $bad (printf "the release's full name %q: want a-z 0-9 and -, with a letter first; set fullnameOverride" $name) -}}
{{- end -}}
{{- if gt (add (len $name) 2) 32 -}}
{{- $bad = append $bad (printf "the release's full name %q has %d bytes: nodes are called %s-0 and so on, in 32 bytes at most; set fullnameOverride to a shorter one" $name (len $name) $name) -}}
{{- end -}}
{{- $jwks := $v.auth.jwks -}}
{{- if and (not (include "stockmesh.jwks" .)) (not $v.insecure) -}}
{{- $bad = append $bad "without auth.jwks (url, existingSecret or existingConfigMap) the edge port would let anybody in, as no clients are authenticated: set it, or insecure: true if the network is closed" -}}
{{- end -}}
{{- if gt (len (compact (list $jwks.url $jwks.existingSecret $jwks.existingConfigMap))) 1 -}}
{{- $bad = append $bad "auth.jwks: url, existingSecret and existingConfigMap are three ways to say the same: set one" -}}
{{- end -}}
{{- if and (or $v.auth.issuer $v.auth.audience) (not (include "stockmesh.jwks" .)) -}}
{{- $bad = append $bad "auth.issuer and auth.audience need auth.jwks" -}}
{{- end -}}
{{- if and $linked (not $nodeTLS) (not $v.insecure) -}}
{{- $what := printf "%d nodes" $replicas -}}
{{- if $v.mesh.enabled }}{{ $what = "a mesh" }}{{ end -}}
{{- $bad = append $bad (printf "%s without nodeTLS would let anybody who reaches the routes or links into the region: set nodeTLS.existingSecret (make certificates with `stockctl certs`) or nodeTLS.certManager, or insecure: true if the network is closed" $what) -}}
{{- end -}}
{{- range $what, $tls := dict "tls" $v.tls "nodeTLS" $v.nodeTLS -}}
{{- if and $tls.existingSecret $tls.certManager.enabled -}}
{{- $bad = append $bad (printf "%s: existingSecret and certManager are two ways to say the same: set one" $what) -}}
{{- end -}}
{{- if and $tls.certManager.enabled (not $tls.certManager.issuerRef.name) -}}
{{- $bad = append $bad (printf "%s.certManager needs issuerRef.name" $what) -}}
{{- end -}}
{{- end -}}
{{- if and $v.tls.clientCA.existingSecret (not (include "stockmesh.tlsSecret" .)) -}}
{{- $bad = append $bad "tls.clientCA needs tls.existingSecret or tls.certManager: without TLS nobody shows a certificate" -}}
{{- end -}}
{{- $bad = concat $bad (include "stockmesh.meshChecks" . | fromJsonArray) (include "stockmesh.upgradeChecks" . | fromJsonArray) -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- $bad = append $bad "ingress needs hosts" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $bad = append $bad "httpRoute needs parentRefs, the Gateways it belongs to" -}}
{{- end -}}
{{- if and (ne $v.service.type "LoadBalancer") (or $v.service.loadBalancerClass $v.service.loadBalancerSourceRanges) -}}
{{- $bad = append $bad "service.loadBalancerClass and service.loadBalancerSourceRanges are for service.type LoadBalancer" -}}
{{- end -}}
{{- if $bad -}}
{{- fail (printf "\n\nstockmesh can't be installed like this:\n- %s\n" (join "\n- " $bad)) -}}
{{- end -}}
{{- end }}

{{/* What is fixed at the first start is in the ConfigMap of the release that is there:
nodes would refuse to start, one after the other. */}}
{{- define "stockmesh.upgradeChecks" -}}
{{- $v := .Values -}}
{{- $bad := list -}}
{{- $there := lookup "v1" "ConfigMap" .Release.Namespace (include "stockmesh.fullname" .) -}}
{{- with get ($there.data | default dict) "node.yaml" -}}
{{- $was := fromYaml . -}}
{{- if ne (toString $was.region) $v.region -}}
{{- $bad = append $bad (printf "region is %s and can't become %s: the data is that region's" $was.region $v.region) -}}
{{- end -}}
{{- if ne (int $was.shards) (int $v.shards) -}}
{{- $bad = append $bad (printf "shards is %d and can't become %d: it is fixed at the first start" (int $was.shards) (int $v.shards)) -}}
{{- end -}}
{{- if ne (eq (int $was.expect) 1) (eq (int $v.replicas) 1) -}}
{{- $bad = append $bad (printf "replicas is %d and can't become %d: data of a node alone is not that of a region; take it along with `stockctl backup` and `stockctl restore`" (int $was.expect) (int $v.replicas)) -}}
{{- end -}}
{{- end -}}
{{- toJson $bad -}}
{{- end }}

{{- define "stockmesh.meshChecks" -}}
{{- $v := .Values -}}
{{- $m := $v.mesh -}}
{{- $bad := list -}}
{{- if $m.enabled -}}
{{- if and $v.networkPolicy.enabled (not $m.peerCIDRs) (not $m.peerSelectors) -}}
{{- $bad = append $bad "mesh with networkPolicy needs mesh.peerCIDRs or mesh.peerSelectors: nothing else says where other regions' nodes are" -}}
{{- end -}}
{{- if and (not $m.advertise.domain) (include "stockmesh.nodeTLSSecret" .) -}}
{{- $bad = append $bad "mesh with nodeTLS needs mesh.advertise.domain: links are checked against the names in certificates, and pods' addresses change" -}}
{{- end -}}
{{- $s := $m.service -}}
{{- if and (eq $s.type "NodePort") (ne (gt (int $s.nodePorts.wan) 0) (gt (int $s.nodePorts.links) 0)) -}}
{{- $bad = append $bad "mesh.service.nodePorts: wan and links go together" -}}
{{- end -}}
{{- if and (eq $s.type "NodePort") (not $s.nodePorts.wan) -}}
{{- $bad = append $bad "mesh.service.type NodePort needs mesh.service.nodePorts: other regions must be told the ports" -}}
{{- end -}}
{{- if and $s.type (not $m.advertise.domain) -}}
{{- $bad = append $bad "mesh.service.type needs mesh.advertise.domain, the names by which other regions reach those Services" -}}
{{- end -}}
{{- else if or $m.join $v.linkSecret.existingSecret $m.service.type $m.advertise.domain -}}
{{- $bad = append $bad "mesh.join, mesh.service, mesh.advertise and linkSecret are for a region that is linked to others: set mesh.enabled" -}}
{{- end -}}
{{/* What a node tells the others of itself has 510 bytes, and all but names needs 128. */}}
{{- $node := printf "%s-0" (include "stockmesh.fullname" .) -}}
{{- $endpoint := include "stockmesh.advertise" . | replace "$(STOCKMESH_NAME)" $node | printf "%s/v1/ws" -}}
{{- $route := printf "%s.%s:6222" $node (include "stockmesh.headless" .) -}}
{{- $peers := mul (int $v.replicas) (add (len $node) 1) -}}
{{- $link := printf "%s.%s:7422" $node $m.advertise.domain -}}
{{- $told := max (add (len $route) $peers) (len $link) | add (len $v.region) (len $endpoint) -}}
{{- if gt $told 382 -}}
{{- $bad = append $bad (printf "names are too long by %d bytes for what a node can tell others of itself: shorten publicURL, mesh.advertise.domain or fullnameOverride" (sub $told 382)) -}}
{{- end -}}
{{- toJson $bad -}}
{{- end }}
