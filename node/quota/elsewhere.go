package quota

// subjectsMax bounds the subjects of other nodes that are remembered, and the accounts
// that are kept while nobody holds them.
const subjectsMax = 100_000

// elsewhere is what other nodes use of the limits of subjects without an account here,
// in two generations: what nobody told of during a whole one is forgotten with it.
type elsewhere struct {
	max        int
	until      int64
	young, old map[key]others
}

func newElsewhere() elsewhere {
	return elsewhere{max: subjectsMax, young: make(map[key]others)}
}

func (e *elsewhere) len() int { return len(e.young) + len(e.old) }

// turn begins a generation when it is time.
func (e *elsewhere) turn(now int64) {
	if now >= e.until {
		e.until = now + figuresNS
		e.old, e.young = e.young, make(map[key]others)
	}
}

// take removes and returns what is known of a subject.
func (e *elsewhere) take(k key) others {
	o, young := e.young[k]
	if !young {
		o = e.old[k]
	}
	delete(e.young, k)
	delete(e.old, k)
	return o
}

// put remembers it, if there is room.
func (e *elsewhere) put(k key, o others) {
	if len(o) > 0 && e.len() < e.max {
		e.young[k] = o
	}
}

func (e *elsewhere) hear(p *peer, now int64, r *record) {
	o := e.take(r.key)
	o.forget(now)
	if r.none() {
		o.without(p)
	} else {
		o.hear(p, now, r.figures)
	}
	e.put(r.key, o)
}
