package main

import (
	"math"
	"os"
	"runtime"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

var ownPID = os.Getpid()

// describeMachine says where the numbers come from.
func describeMachine(dir string) page.Machine {
	m := page.Machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernelRelease(),
		OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
	}
	if d, err := fsyncTime(dir); err == nil {
		m.FsyncMS = math.Round(d.Seconds()*1e6) / 1e3
	}
	return m
}

const fsyncs = 21

func fsyncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "stockmesh-bench-fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	var took []float64
	for range fsyncs {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begin)))
	}
	return time.Duration(spreadOf(took).median), nil
}
