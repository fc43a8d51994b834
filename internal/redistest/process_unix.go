//go:build unix && !linux

package redistest

import (
	"os/exec"
	"syscall"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

func startProcess(cmd *exec.Cmd) error { return cmd.Start() }
