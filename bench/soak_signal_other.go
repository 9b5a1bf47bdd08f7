//go:build !unix

package main

import (
	"errors"
	"os"
)

const canStop = false

func halt(*os.Process) error   { return errors.ErrUnsupported }
func resume(*os.Process) error { return errors.ErrUnsupported }
