package helm_test

import (
	"regexp"
	"strings"
	"testing"
)

// TestRefused: a wrong value fails at install, with words that say which and why.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"nothing said":          {"", "auth.jwks .* insecure: true"},
		"nodes without TLS":     {valuesJWKS, "3 nodes without nodeTLS .*stockctl certs"},
		"a mesh without TLS":    {valuesJWKS + valuesMesh + "replicas: 1", "a mesh without nodeTLS"},
		"two nodes":             {valuesOpen + "replicas: 2", "/replicas"},
		"region's name":         {valuesOpen + "region: EU", "/region"},
		"unknown value":         {valuesOpen + "replica: 3", "replica"},
		"unknown option":        {valuesOpen + "config: {key-windows: 1h}", "key-windows"},
		"option of the chart":   {valuesOpen + "config: {listen: ':1'}", "listen"},
		"option's type":         {valuesOpen + "config: {rate-limit: many}", "rate-limit"},
		"option's unit":         {valuesOpen + "config: {heartbeat: 25}", "heartbeat"},
		"memory":                {valuesOpen + "resources: {limits: {memory: lots}}", "resources.limits.memory \"lots\""},
		"long name":             {valuesOpen + "fullnameOverride: a-very-long-name-of-a-region-xy", "32 bytes at most; set fullnameOverride"},
		"name with dots":        {valuesOpen + "fullnameOverride: a.b", "want a-z 0-9 and -"},
		"two sources of keys":   {valuesOpen + "auth: {jwks: {url: 'https://a', existingSecret: b}}", "set one"},
		"issuer without keys":   {valuesOpen + "auth: {issuer: a}", "need auth.jwks"},
		"two certificates":      {valuesOpen + "tls: {existingSecret: a, certManager: {enabled: true, issuerRef: {name: b}}}", "tls: existingSecret and certManager"},
		"no issuer":             {valuesOpen + "nodeTLS: {certManager: {enabled: true}}", "nodeTLS.certManager needs issuerRef.name"},
		"client CA without TLS": {valuesOpen + "tls: {clientCA: {existingSecret: a}}", "tls.clientCA needs"},
		"peers unknown":         {valuesOpen + "mesh: {enabled: true}", "mesh.peerCIDRs or mesh.peerSelectors"},
		"mesh by address":       {valuesJWKS + valuesNodeTLS + "mesh: {enabled: true, peerCIDRs: [10.0.0.0/8]}", "mesh.advertise.domain"},
		"mesh not enabled":      {valuesOpen + "mesh: {join: ['a:7947']}", "set mesh.enabled"},
		"join without port":     {valuesOpen + "mesh: {enabled: true, join: [a]}", "/mesh/join"},
		"one node port":         {valuesOpen + strings.Replace(valuesMesh, "}}\n", "}, service: {type: NodePort, nodePorts: {wan: 31940}}}\n", 1), "wan and links go together"},
		"crooked node port":     {valuesOpen + "mesh: {service: {nodePorts: {wan: 31941}}}", "multiple"},
		"ingress without host":  {valuesOpen + "ingress: {enabled: true}", "ingress needs hosts"},
		"route without gateway": {valuesOpen + "httpRoute: {enabled: true}", "httpRoute needs parentRefs"},
		"class without balancer": {valuesOpen + "service: {loadBalancerClass: a}",
			"for service.type LoadBalancer"},
		"password in a URL": {valuesOpen + "tracing: {endpoint: 'http://a:b@c'}", "/tracing/endpoint"},
		"names too long":    {valuesOpen + "replicas: 5\nfullnameOverride: a-very-long-name-of-a-region\npublicURL: wss://" + strings.Repeat("long.", 30) + "example.com", "names are too long by [0-9]+ bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := release{values: c.values}.template(t)
			if err == nil {
				t.Fatal("it would be installed")
			}
			// Helm folds long lines of the schema's errors.
			said := strings.Join(strings.Fields(err.Error()), " ")
			if !regexp.MustCompile(c.want).MatchString(said) {
				t.Errorf("it says %q, want %q in it", said, c.want)
			}
		})
	}
}

// TestAllAtOnce: who has to set three things is told of three.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	_, err := release{values: "ingress: {enabled: true}"}.template(t)
	if err == nil || strings.Count(err.Error(), "\n- ") != 3 {
		t.Errorf("it says %v", err)
	}
}
