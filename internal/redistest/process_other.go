//go:build !unix

package redistest

import (
	"os/exec"
	"syscall"
)

// There is no redis-server for these systems: the package only has to compile.
const (
	sigStop = syscall.Signal(0)
	sigCont = syscall.Signal(0)
)

func startProcess(cmd *exec.Cmd) error { return cmd.Start() }
