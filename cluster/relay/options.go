package relay

// Options bound what a Sender has under way.
type Options struct {
	BatchCalls int // calls of one batch; 0: 4096, at most CallsMax
	BatchBytes int // bytes of one batch, exceeded only by a single call; 0: 256 KiB
	Window     int // batches sent and not yet answered; 0: 4
}

func (o Options) withDefaults() Options {
	set := func(v *int, fallback int) {
		if *v <= 0 {
			*v = fallback
		}
	}
	set(&o.BatchCalls, 4096)
	set(&o.BatchBytes, 256<<10)
	set(&o.Window, 4)
	o.BatchCalls = min(o.BatchCalls, CallsMax)
	return o
}
