package protocol

import "testing"

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER   abc": "abc",
		"": "", "Bearer": "", "Bearer ": "", "Basic abc": "", "abc": "",
	} {
		if got, ok := Bearer(header); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v", header, got, ok)
		}
	}
}

func TestTokenParameters(t *testing.T) {
	for name, want := range map[string]bool{"token": true, "Access_Token": true, "JWT": true, "authorization": true, "tokens": false, "": false} {
		if got := IsTokenParameter(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
