package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"runtime/debug"
)

// binary is what is known of a program from its file alone.
type binary struct {
	sha256 string // of the file, in hex
	info   *debug.BuildInfo
}

func read(file string) (*binary, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if info.Main.Path == "" {
		return nil, fmt.Errorf("%s: built without modules, so it doesn't say what is in it", file)
	}
	sum := sha256.Sum256(content)
	return &binary{sha256: hex.EncodeToString(sum[:]), info: info}, nil
}
