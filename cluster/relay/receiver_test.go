package relay

import "testing"

func TestAccept(t *testing.T) {
	r := NewReceiver()
	for i, step := range []struct {
		from            string
		session, number uint64
		want            Admission
	}{
		{"a", 5, 2, Gap}, // of a session whose beginning is not known
		{"a", 5, 1, Take},
		{"a", 5, 1, Duplicate},
		{"a", 5, 3, Gap},
		{"a", 5, 2, Take},
		{"a", 4, 1, Duplicate}, // given up before
		{"a", 4, 9, Duplicate},
		{"a", 6, 2, Gap},
		{"a", 5, 3, Take}, // the gap did not end it
		{"a", 6, 1, Take},
		{"a", 5, 4, Duplicate},
		{"a", 6, 2, Take},
		{"b", 1, 1, Take}, // others don't matter
		{"b", 1, 0, Duplicate},
		{"a", 6, 3, Take},
	} {
		if got := r.Accept(step.from, step.session, step.number); got != step.want {
			t.Fatalf("step %d: %+v: %d", i, step, got)
		}
	}
	r.Reset()
	if got := r.Accept("a", 6, 4); got != Gap {
		t.Fatal(got)
	}
	if got := r.Accept("a", 6, 1); got != Take {
		t.Fatal(got)
	}
}
