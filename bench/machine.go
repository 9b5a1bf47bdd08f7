package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"time"
)

var ownPID = os.Getpid()

// machine describes where the numbers come from.
type machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Kernel  string  `json:"kernel"`
	OS      string  `json:"os"`
	Go      string  `json:"go"`
	FsyncMS float64 `json:"fsync_ms"` // median of a 4 KiB append and fsync where the node's data lies
}

func describeMachine(dir string) machine {
	m := machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), Kernel: kernelRelease(),
		OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
	}
	if d, err := fsyncTime(dir); err == nil {
		m.FsyncMS = math.Round(d.Seconds()*1e6) / 1e3
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, kernel %s, %s, %s, fsync %.2f ms", m.CPU, m.Cores, m.Kernel, m.OS, m.Go, m.FsyncMS)
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
